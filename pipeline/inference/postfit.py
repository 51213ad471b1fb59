"""What a fit says besides its best values: impacts, correlations, yields with uncertainties, goodness of fit, scans.

All from exact derivatives at the minimum and from fits side by side (`vmap`); conventions as cabinetry's.
"""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64

from pipeline.inference.fit import Fit, covariance, fit
from pipeline.inference.histfactory.arrays import Array, namespace, upper_gamma
from pipeline.inference.histfactory.constraints import (
    constrained_positions,
    constraint_widths,
    initial_parameters,
)
from pipeline.inference.histfactory.expansion import rate_slopes
from pipeline.inference.histfactory.likelihood import expected_rates
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.histfactory.modifiers import effects
from pipeline.inference.significance import tested_position

__all__ = [
    "GoodnessOfFit",
    "Impacts",
    "Scan",
    "Yields",
    "correlation",
    "goodness_of_fit",
    "impacts",
    "profile_scan",
    "yields",
]

Run = tuple[Float64[Array, " data"], Fit]


class Impacts(eqx.Module):
    """How far the parameter of interest moves when a parameter is held up or down: what a ranking plot shows.

    Attributes:
        prefit_up: parameter held at its best value plus its width before the fit; NaN without constraint.
        prefit_down: minus that width.
        postfit_up: plus its uncertainty after the fit.
        postfit_down: minus that uncertainty.
        converged: whether the four fits of a parameter did.
        tested: whether the parameter was free, and is not the parameter of interest; elsewhere the impacts are NaN.
    """

    _: KW_ONLY
    prefit_up: Float64[Array, " parameters"]
    prefit_down: Float64[Array, " parameters"]
    postfit_up: Float64[Array, " parameters"]
    postfit_down: Float64[Array, " parameters"]
    converged: Bool[Array, " parameters"]
    tested: Bool[Array, " parameters"]


class Yields(eqx.Module):
    """Expected events of every bin at a fit, with their uncertainty to first order in the parameters."""

    _: KW_ONLY
    expected: Float64[Array, " bins"]
    uncertainty: Float64[Array, " bins"]
    covariance: Float64[Array, "bins bins"]


class GoodnessOfFit(eqx.Module):
    """The deviance to the saturated model, its degrees of freedom, and the asymptotic p-value (NaN without freedom)."""

    _: KW_ONLY
    deviance: Float64[Array, ""]
    degrees_of_freedom: int = eqx.field(static=True)
    p_value: Float64[Array, ""]


class Scan(eqx.Module):
    """A profile likelihood: minus twice the logarithm of its ratio to the best fit."""

    _: KW_ONLY
    values: Float64[Array, " points"]
    twice_delta_nll: Float64[Array, " points"]
    converged: Bool[Array, " points"]


def impacts(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    best: Fit,
    *,
    poi: str | None = None,
    among: Bool[np.ndarray, " parameters"] | None = None,
    thorough: bool = False,
) -> Impacts:
    """The impact of every parameter on the parameter of interest.

    With NumPy's arrays, as in `fit`, nothing is compiled, and one fit follows the other.

    Args:
        structure: static.
        numbers: of the model.
        data: that were fitted.
        best: their fit.
        poi: the parameter of interest, in place of the structure's.
        among: which parameters are looked at; all if None.
        thorough: as in `fit`. Static.
    """
    position, xp = tested_position(structure, poi), namespace(numbers, data, best.parameters)
    everything = np.arange(structure.size)
    errors = covariance(structure, numbers, data, best.parameters, best.free)
    post = xp.sqrt(xp.diag(errors))
    pre = _prefit_widths(structure, numbers)
    tested = best.free & (everything != position) & xp.isfinite(post)
    tested = tested if among is None else tested & among

    def shifted(parameter: Array, shift: Float64[Array, ""]) -> tuple[Float64[Array, ""], Bool[Array, ""]]:
        held = everything == parameter
        # Where the others go is known to first order: the fit begins there.
        response = errors[:, parameter] / errors[parameter, parameter]
        start = best.parameters + xp.where(best.free & xp.isfinite(response), response * shift, 0.0)
        start = xp.where(held, best.parameters + shift, start)
        moved = fit(structure, numbers, data, initial=start, held=held, thorough=thorough)
        return moved.parameters[position] - best.parameters[position], moved.converged

    shifts = xp.concatenate([pre, -pre, post, -post])
    possible = xp.isfinite(shifts) & xp.tile(tested, 4)
    parameters = np.tile(everything, 4)
    if xp is np:
        change, converged = np.full(len(shifts), np.nan), np.ones(len(shifts), bool)
        for row in np.flatnonzero(possible):
            change[row], converged[row] = shifted(parameters[row], shifts[row])
    else:
        change, converged = jax.vmap(shifted)(parameters, xp.where(possible, shifts, 0.0))
    up, down, post_up, post_down = xp.where(possible, change, xp.nan).reshape(4, -1)
    return Impacts(
        prefit_up=up,
        prefit_down=down,
        postfit_up=post_up,
        postfit_down=post_down,
        converged=(converged | ~possible).reshape(4, -1).all(axis=0),
        tested=tested,
    )


def correlation(errors: Float64[Array, "parameters parameters"]) -> Float64[Array, "parameters parameters"]:
    """The correlation matrix of a covariance; 0 for parameters without uncertainty, 1 on the diagonal."""
    xp = namespace(errors)
    sigma = xp.sqrt(xp.diag(errors))
    known = (sigma > 0) & xp.isfinite(sigma)
    scale = xp.where(known, 1.0 / xp.where(known, sigma, 1.0), 0.0)
    both = known[:, None] & known[None, :]
    matrix = xp.where(both, errors, 0.0) * scale[:, None] * scale[None, :]
    return xp.where(np.eye(len(errors), dtype=bool), 1.0, matrix)


def yields(
    structure: Structure,
    numbers: Numbers,
    parameters: Float64[Array, " parameters"],
    errors: Float64[Array, "parameters parameters"],
) -> Yields:
    """Expected events after a fit. A parameter that nothing is known of (infinite variance) moves no yield."""
    xp = namespace(numbers, parameters)
    slopes = rate_slopes(structure, effects(structure, numbers), parameters)
    spread = slopes @ xp.where(xp.isfinite(errors), errors, 0.0) @ slopes.T
    return Yields(
        expected=expected_rates(structure, numbers, parameters),
        uncertainty=xp.sqrt(xp.maximum(xp.diag(spread), 0.0)),
        covariance=spread,
    )


def goodness_of_fit(structure: Structure, best: Fit) -> GoodnessOfFit:
    """The saturated goodness of fit: bins minus parameters that are free by the measurement and not constrained."""
    held = np.array([flag for s in structure.parameter_sets for flag in s.fixed or (False,) * s.size], dtype=bool)
    constrained = np.isin(np.arange(structure.size), constrained_positions(structure, "normal", "poisson"))
    freedom = structure.bins - int(np.sum(~held & ~constrained))
    p_value = upper_gamma(0.5 * max(freedom, 1), 0.5 * best.deviance) if freedom > 0 else np.float64(np.nan)
    return GoodnessOfFit(deviance=best.deviance, degrees_of_freedom=freedom, p_value=p_value)


def profile_scan(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    best: Fit,
    parameter: str,
    values: Float64[Array, " points"],
) -> Scan:
    """The profile likelihood of one parameter at some values, all at once."""
    position = tested_position(structure, parameter)
    held = jnp.arange(structure.size) == position

    def at(value: Float64[Array, ""]) -> tuple[Float64[Array, ""], Bool[Array, ""]]:
        point = fit(structure, numbers, data, initial=best.parameters.at[position].set(value), held=held)
        return point.deviance - best.deviance, point.converged

    difference, converged = jax.vmap(at)(values)
    return Scan(values=values, twice_delta_nll=difference, converged=converged)


def _prefit_widths(structure: Structure, numbers: Numbers) -> Float64[Array, " parameters"]:
    """The width of every constraint, that of a Poisson one by its counts; NaN without constraint."""
    width, everything, xp = constraint_widths(structure, numbers), np.arange(structure.size), namespace(numbers)
    normal, poisson = (np.isin(everything, constrained_positions(structure, kind)) for kind in ("normal", "poisson"))
    counted = xp.sqrt(xp.abs(xp.asarray(initial_parameters(structure))) / xp.where(poisson, width, 1.0))
    return xp.where(normal, width, xp.where(poisson, counted, xp.nan))
