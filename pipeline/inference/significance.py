"""What an analysis is expected to achieve: discovery significance, uncertainty of the signal strength.

All follow arXiv:1007.1727 (Cowan, Cranmer, Gross, Vitells), on Asimov data unless other data are given, and all are
differentiable with respect to the numbers of the model, in forward and reverse mode.

The significance is the root of a likelihood ratio and never passes through a p-value, which underflows at Z = 38.
On Asimov data the best fit is known: it is where the data were generated, and its deviance is zero. What remains is one
fit, with the signal strength held at its null value. At that minimum the derivative of the likelihood with respect to
the fitted parameters vanishes, so the derivative of q0 is the explicit one (envelope theorem). The uncertainty of the
signal strength needs the curvature at the known best fit and no fit at all. The expected upper limit is in
`pipeline.inference.expected_limit`.

A bin whose expected yield is negative has no Asimov data, and one whose background is negative has no hypothesis of
no signal. Such a bin says nothing: it is left out.
"""

from dataclasses import KW_ONLY
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64

from pipeline.inference.fit import Fit, fit, fit_terms
from pipeline.inference.histfactory.arrays import Array, namespace
from pipeline.inference.histfactory.constraints import (
    bounds,
    constrained_positions,
    initial_parameters,
    nominal_parameters,
)
from pipeline.inference.histfactory.expansion import expanded_deviance, rate_slopes
from pipeline.inference.histfactory.likelihood import SMALLEST_RATE, Terms, expectation, terms
from pipeline.inference.histfactory.model import Numbers, Structure, parameter_names
from pipeline.inference.histfactory.modifiers import rates
from pipeline.inference.newton import stiffened

__all__ = [
    "Expectation",
    "SignalStrength",
    "Significance",
    "asimov_uncertainty",
    "counting_significance",
    "discovery_significance",
    "expectation_of",
    "poi_position",
    "signal_strength_uncertainty",
    "tested_position",
]


TOLERANCE = 1e-6  # in -2 ln L: by how much a fit without signal may be better, for rounding


class Significance(eqx.Module):
    """A discovery significance and how it was found.

    Attributes:
        z: root of q0. Where q0 is zero the root has no derivative, and zero is given.
        q0: -2 ln of the ratio of the likelihood without signal to the best one; NaN where that expects a negative
            number in a bin with observed events, because it is no likelihood then.
        null_fit: the fit without signal. Its parameters are a record and carry no derivatives; those of `fit` do.
        best_fit: the fit with a free signal strength; `None` on Asimov data, where it is known.
        converged: whether every fit did.
    """

    _: KW_ONLY
    z: Float64[Array, ""]
    q0: Float64[Array, ""]
    null_fit: Fit
    best_fit: Fit | None
    converged: Bool[Array, ""]


class SignalStrength(eqx.Module):
    """A measurement of the signal strength.

    Attributes:
        mu: the best fit; on Asimov data the strength they were generated with.
        uncertainty: one standard deviation, from the exact Hessian; infinite where the data say nothing about it, NaN
            where the best fit presses against a bound, because a curvature there is no uncertainty.
        converged: whether the fit did (there is none on Asimov data), and there is an uncertainty.
    """

    _: KW_ONLY
    mu: Float64[Array, ""]
    uncertainty: Float64[Array, ""]
    converged: Bool[Array, ""]


def discovery_significance(
    structure: Structure,
    numbers: Numbers,
    *,
    data: Float64[Array, " data"] | None = None,
    poi: str | None = None,
    signal_strength: float | Float64[Array, ""] = 1.0,
    max_iterations: int = 200,
    thorough: bool = False,
) -> Significance:
    """The significance with which the absence of signal is excluded: `Z = sqrt(q0)`.

    Args:
        structure: static.
        numbers: may be traced.
        data: observed data; with NumPy's arrays, as in `fit`, nothing is compiled. By default Asimov data with the
            signal strength `signal_strength` and every other parameter where its auxiliary data put it.
        poi: the parameter to test, in place of the structure's: any normfactor.
        signal_strength: what the Asimov data contain.
        max_iterations: of each fit.
        thorough: as in `fit`.
    """
    position = tested_position(structure, poi)
    is_poi = np.arange(structure.size) == position
    if data is not None:
        model = terms(structure, numbers)
        xp = namespace(model, data)
        run = partial(
            fit_terms,
            structure,
            model,
            data,
            max_iterations=max_iterations,
            thorough=thorough,
            differentiable_parameters=False,
        )
        best_fit = run(initial=xp.asarray(initial_parameters(structure)))
        null_fit = run(initial=xp.where(is_poi, 0.0, best_fit.parameters), held=is_poi)
        # A deficit is no discovery (arXiv:1007.1727, equation 12).
        deficit = best_fit.parameters[position] <= 0
        difference = null_fit.deviance - best_fit.deviance
        possible = xp.all((rates(structure, model.effects, null_fit.parameters) >= 0) | (data[: structure.bins] <= 0))
        q0 = xp.where(possible, xp.where(deficit, 0.0, xp.maximum(difference, 0.0)), xp.nan)
        # A best fit that could have had no signal and fits worse is a minimum, but not the smallest one.
        lower, upper = bounds(structure)
        could = (lower[position] <= 0) & (upper[position] >= 0) & model.free[position]
        converged = best_fit.converged & null_fit.converged & possible & ~(could & (difference < -TOLERANCE))
        return Significance(z=_root(q0), q0=q0, null_fit=null_fit, best_fit=best_fit, converged=converged)
    expected = expectation_of(structure, numbers, position, signal_strength, tested=0.0)
    null_fit = fit_terms(
        structure,
        expected.model,
        expected.data,
        initial=expected.parameters.at[position].set(0.0),
        held=is_poi,
        max_iterations=max_iterations,
        thorough=thorough,
        differentiable_parameters=False,
    )
    q0 = jnp.maximum(null_fit.deviance, 0.0)
    return Significance(z=_root(q0), q0=q0, null_fit=null_fit, best_fit=None, converged=null_fit.converged)


def signal_strength_uncertainty(
    structure: Structure,
    numbers: Numbers,
    *,
    data: Float64[Array, " data"] | None = None,
    poi: str | None = None,
    signal_strength: float | Float64[Array, ""] = 1.0,
    max_iterations: int = 200,
    thorough: bool = False,
) -> SignalStrength:
    """The uncertainty with which the signal strength is measured, all systematic uncertainties included.

    Arguments as in `discovery_significance`. Parameters that press against a bound are held there.
    """
    position = tested_position(structure, poi)
    if data is not None:
        best = fit(structure, numbers, data, max_iterations=max_iterations, thorough=thorough)
        model = terms(structure, numbers)
        hessian = expanded_deviance(structure, model, best.parameters, data).hessian
        inside = best.free[position]
        uncertainty = jnp.where(inside, _uncertainty(0.5 * hessian, best.free, position), jnp.nan)
        return SignalStrength(mu=best.parameters[position], uncertainty=uncertainty, converged=best.converged & inside)
    expected = expectation_of(structure, numbers, position, signal_strength, tested=signal_strength)
    return SignalStrength(
        mu=expected.parameters[position],
        uncertainty=asimov_uncertainty(structure, expected, position),
        converged=jnp.all(jnp.isfinite(expected.data)),
    )


def counting_significance(
    signal: Float64[Array, " bins"], background: Float64[Array, " bins"], uncertainty: Float64[Array, " bins"]
) -> Float64[Array, ""]:
    """The rule of thumb `s / sqrt(b + sigma**2)`, bins added in quadrature; a bin without background counts nothing."""
    variance = background + uncertainty**2
    known = variance > 0
    return _root(jnp.sum(jnp.where(known, signal**2 / jnp.where(known, variance, 1.0), 0.0)))


def poi_position(structure: Structure, poi: str | None) -> int:
    """The position of the parameter of interest: a parameter by its name, or a set of one by that of the set."""
    name = structure.poi if poi is None else poi
    names = parameter_names(structure)
    if name in names:
        return names.index(name)
    if f"{name}[0]" in names and f"{name}[1]" not in names:
        return names.index(f"{name}[0]")
    raise ValueError(f"parameter of interest {name!r}: not a parameter of the model; choose one of {', '.join(names)}.")


def tested_position(structure: Structure, poi: str | None) -> int:
    """`poi_position` of a parameter that the measurement leaves free; a sentence if it does not."""
    position = poi_position(structure, poi)
    held = [flag for s in structure.parameter_sets for flag in s.fixed or (False,) * s.size]
    if held[position]:
        name = parameter_names(structure)[position]
        raise ValueError(f"parameter of interest {name!r}: the measurement holds it constant ('fixed'); free it first.")
    return position


class Expectation(eqx.Module):
    """The model without the bins that have no Asimov data, and its Asimov data with the parameters behind them."""

    _: KW_ONLY
    model: Terms
    parameters: Float64[Array, " parameters"]
    data: Float64[Array, " data"]


def expectation_of(
    structure: Structure,
    numbers: Numbers,
    position: int,
    signal_strength: float | Float64[Array, ""],
    *,
    tested: float | Float64[Array, ""],
) -> Expectation:
    """The model and its Asimov data for a signal strength; bins that have none, or none for `tested`, are left out."""
    parameters = nominal_parameters(structure, numbers).at[position].set(signal_strength)
    model = terms(structure, numbers)
    data = expectation(structure, model, parameters)
    hypothesis = expectation(structure, model, parameters.at[position].set(tested))
    # What is not a number is not left out: nothing then converges.
    possible = ~((data < 0) | (hypothesis < 0)) | (jnp.arange(len(data)) >= structure.bins)
    without = eqx.tree_at(
        lambda m: (m.effects.nominal, m.effects.odd, m.effects.even),
        model,
        replace_fn=lambda table: jnp.where(jnp.broadcast_to(possible[: structure.bins], table.shape), table, 0.0),
    )
    return Expectation(model=without, parameters=parameters, data=jnp.where(possible, data, 0.0))


def asimov_uncertainty(structure: Structure, expected: Expectation, position: int) -> Float64[Array, ""]:
    """The uncertainty of one parameter, from the Hessian of -ln L where the Asimov data come from.

    There the second derivatives of the rates drop out of the Hessian, so first ones suffice (Fisher's information).
    """
    model, parameters, rate = expected.model, expected.parameters, expected.data[: structure.bins]
    slopes = rate_slopes(structure, model.effects, parameters)
    weight = jnp.where(rate > SMALLEST_RATE, 1.0 / jnp.where(rate > SMALLEST_RATE, rate, 1.0), 0.0)
    information = slopes.T @ (weight[:, None] * slopes)
    information = information + jnp.diag(_constraint_information(structure, model.width, parameters))
    return _uncertainty(information, model.free, position)


def _constraint_information(
    structure: Structure, width: Float64[Array, " parameters"], parameters: Float64[Array, " parameters"]
) -> Float64[Array, " parameters"]:
    everything = np.arange(structure.size)
    normal = np.isin(everything, constrained_positions(structure, "normal"))
    poisson = np.isin(everything, constrained_positions(structure, "poisson"))
    counts = poisson & (parameters > 0)  # where none is expected, the information is not known
    count = jnp.where(counts, parameters, 1.0)  # made safe first: the other branch is differentiated as well
    return jnp.where(normal, 1.0 / width**2, 0.0) + jnp.where(counts, width / count, 0.0)


def _uncertainty(
    information: Float64[Array, "parameters parameters"], free: Bool[Array, " parameters"], position: int
) -> Float64[Array, ""]:
    """One standard deviation of one parameter, the other free ones profiled: from the Schur complement of its block."""
    others = free & (np.arange(len(free)) != position)
    block, _ = stiffened(information, others)  # a direction in which nothing changes has no part in `row`
    row = jnp.where(others, information[position], 0.0)
    remaining = information[position, position] - row @ jnp.linalg.solve(block, row)
    # Without signal nothing remains but rounding.
    known = remaining > 1e-12 * information[position, position]
    unknown = jnp.where(jnp.isnan(remaining), jnp.nan, jnp.inf)
    return jnp.where(known, 1.0 / jnp.sqrt(jnp.where(known, remaining, 1.0)), unknown)


def _root(q: Float64[Array, ""]) -> Float64[Array, ""]:
    xp, positive = namespace(q), q > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, q, 1.0)), 0.0 * q)  # what is not a number stays none
