"""The HistFactory likelihood, equal to pyhf's, as a JAX function of parameters *and* numbers.

    L = prod Poisson(count | rate) * prod Gaussian(datum | parameter, width) * prod Poisson(datum | tau * parameter)

`logpdf` and `expected_data` are pyhf's. Fits use `deviance`: minus twice the logarithm of L over the best L that any
model could have on the same data. It is zero at perfect agreement, so it keeps all its digits where a fit needs them.

Poisson terms need the logarithm of a rate. pyhf returns -inf or NaN when events are seen in a bin whose rate is zero
or negative; a cut that moves and a variation that overshoots do that. Here the logarithm goes on, below
`SMALLEST_RATE`, as the parabola that touches it: value, slope and curvature stay finite and point back to positive
rates, and every rate above is untouched.
"""

from dataclasses import KW_ONLY
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64

from pipeline.inference.histfactory.arrays import Array, log_gamma, namespace, part
from pipeline.inference.histfactory.constraints import (
    constrained_places,
    constrained_positions,
    constraint_widths,
    free_parameters,
    nominal_parameters,
)
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.histfactory.modifiers import Effects, effects, rates

__all__ = [
    "Terms",
    "asimov_data",
    "constraint_masks",
    "deviance",
    "expectation",
    "expected_data",
    "expected_rates",
    "logpdf",
    "poisson_deviance",
    "poisson_slopes",
    "saturated_logpdf",
    "spread_auxdata",
    "terms",
]

# q0 is a small difference of large numbers, and a Newton fit must see the minimum to the last digits: 32-bit floats
# know a likelihood of 100,000 events to a hundredth of an event at best. Switched on here and nowhere else.
jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

SMALLEST_RATE = 1e-10  # expected events


class Terms(eqx.Module):
    """What the likelihood needs besides parameters and data; computed once for a fit.

    Attributes:
        effects: of the modifiers on the yields.
        width: width of a Gaussian constraint, factor of a Poisson one, for every parameter.
        free: which parameters a fit may move.
    """

    _: KW_ONLY
    effects: Effects
    width: Float64[Array, " parameters"]
    free: Bool[Array, " parameters"]


def terms(structure: Structure, numbers: Numbers) -> Terms:
    """Prepare a model for many evaluations."""
    return Terms(
        effects=effects(structure, numbers),
        width=constraint_widths(structure, numbers),
        free=free_parameters(structure, numbers),
    )


def expected_rates(
    structure: Structure, numbers: Numbers, parameters: Float64[Array, " parameters"]
) -> Float64[Array, " bins"]:
    """Expected events in every bin, without auxiliary data."""
    return rates(structure, effects(structure, numbers), parameters)


def expected_data(
    structure: Structure, numbers: Numbers, parameters: Float64[Array, " parameters"]
) -> Float64[Array, " data"]:
    """Expected events in every bin, followed by the expected auxiliary data: `pyhf.Model.expected_data`."""
    return expectation(structure, terms(structure, numbers), parameters)


def expectation(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"]
) -> Float64[Array, " data"]:
    """`expected_data` of a prepared model."""
    positions = constrained_positions(structure, "normal", "poisson")
    is_poisson = np.isin(positions, constrained_positions(structure, "poisson"))
    xp = namespace(model, parameters)
    auxdata = parameters[positions] * xp.where(is_poisson, model.width[positions], 1.0)
    return xp.concatenate([rates(structure, model.effects, parameters), auxdata])


def asimov_data(
    structure: Structure, numbers: Numbers, parameters: Float64[Array, " parameters"] | None = None
) -> Float64[Array, " data"]:
    """Data without fluctuation, as expected at `parameters`; by default where the auxiliary data put them."""
    if parameters is None:
        parameters = nominal_parameters(structure, numbers)
    return expected_data(structure, numbers, parameters)


def logpdf(
    structure: Structure,
    numbers: Numbers,
    parameters: Float64[Array, " parameters"],
    data: Float64[Array, " data"],
) -> Float64[Array, ""]:
    """Logarithm of the likelihood: `pyhf.Model.logpdf`.

    Args:
        structure: static.
        numbers: may be traced.
        parameters: in pyhf's order.
        data: events in every bin, then auxiliary data, in pyhf's order.
    """
    model = terms(structure, numbers)
    return -0.5 * deviance(structure, model, parameters, data) + saturated_logpdf(structure, model, data)


# Compiled as a part of its own: its derivatives begin from one trace.
@part()
def deviance(
    structure: Structure,
    model: Terms,
    parameters: Float64[Array, " parameters"],
    data: Float64[Array, " data"],
) -> Float64[Array, ""]:
    """Minus twice the logarithm of the likelihood ratio to a model that fits every datum.

    A negative count, as of weighted events, has no best rate: of its term only what depends on the rate is kept.
    """
    xp = namespace(model, parameters, data)
    count, rate = data[: structure.bins], rates(structure, model.effects, parameters)
    # Constraints as vectors over all parameters, not over the constrained ones: without gathers the Hessian is short.
    measured = spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    pull = xp.where(is_normal, (parameters - measured) / model.width, 0.0)
    if is_poisson.any():
        count = xp.concatenate([count, xp.where(is_poisson, measured, 1.0)])
        rate = xp.concatenate([rate, xp.where(is_poisson, model.width * parameters, 1.0)])
    return xp.sum(poisson_deviance(count, rate)) + xp.sum(pull**2)


def saturated_logpdf(structure: Structure, model: Terms, data: Float64[Array, " data"]) -> Float64[Array, ""]:
    """The logarithm of the largest likelihood that these data allow."""
    xp, measured = namespace(model, data), spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    counts = xp.concatenate([data[: structure.bins], measured[np.flatnonzero(is_poisson)]])
    best_poisson = xp.where(counts < 0, 0.0, counts * _safe_log(counts) - counts) - log_gamma(counts + 1.0)
    width = model.width[np.flatnonzero(is_normal)]
    return xp.sum(best_poisson) - xp.sum(xp.log(width * np.sqrt(2 * np.pi)))


def spread_auxdata(structure: Structure, data: Float64[Array, " data"]) -> Float64[Array, " parameters"]:
    """The auxiliary datum of every parameter; 0 for those without constraint."""
    xp = namespace(data)
    return xp.concatenate([data, xp.zeros(1, np.float64)])[structure.bins + constrained_places(structure)]


@lru_cache(maxsize=256)
def constraint_masks(
    structure: Structure,
) -> tuple[Bool[np.ndarray, " parameters"], Bool[np.ndarray, " parameters"]]:
    """Which parameters have a Gaussian constraint, and which a Poisson one."""
    everything = np.arange(structure.size)
    return (
        np.isin(everything, constrained_positions(structure, "normal")),
        np.isin(everything, constrained_positions(structure, "poisson")),
    )


def poisson_deviance(count: Float64[Array, " counts"], rate: Float64[Array, " counts"]) -> Float64[Array, " counts"]:
    """The deviance of every count: `2 (rate - count - count log(rate / count))`, with all its digits.

    Near agreement it is `2 count (d - log(1 + d))` with the relative difference d: the logarithms of large counts would
    cancel each other.
    """
    return _poisson_deviance(count, rate) if namespace(count, rate) is np else _traced_deviance(count, rate)


def poisson_slopes(
    count: Float64[Array, " counts"], rate: Float64[Array, " counts"]
) -> tuple[Float64[Array, " counts"], Float64[Array, " counts"]]:
    """The first and the second derivative of `poisson_deviance` by the rate."""
    xp, inside = namespace(count, rate), rate > SMALLEST_RATE
    safe = xp.where(inside, rate, 1.0)
    below = 1.0 - count * (2.0 - rate / SMALLEST_RATE) / SMALLEST_RATE
    first = 2.0 * xp.where(inside, (safe - count) / safe, below)
    return first, 2.0 * count / xp.where(inside, rate, SMALLEST_RATE) ** 2


def _poisson_deviance(count: Float64[Array, " counts"], rate: Float64[Array, " counts"]) -> Float64[Array, " counts"]:
    xp, positive = namespace(count, rate), count > 0
    reference = xp.where(positive, count, 1.0)
    difference = (rate - count) / reference
    near = positive & (xp.abs(difference) < 0.5)
    d = xp.where(near, difference, 0.0)
    best = xp.where(positive, count * (1.0 - xp.log(reference)), 0.0)
    return 2.0 * xp.where(near, reference * (d - xp.log1p(d)), rate - count * _safe_log(rate) - best)


_traced_deviance = jax.custom_jvp(_poisson_deviance)


@_traced_deviance.defjvp
def _poisson_deviance_jvp(
    primals: tuple[Float64[Array, " counts"], Float64[Array, " counts"]],
    tangents: tuple[Float64[Array, " counts"], Float64[Array, " counts"]],
) -> tuple[Float64[Array, " counts"], Float64[Array, " counts"]]:
    count, rate = primals
    by_rate, _ = poisson_slopes(count, rate)
    by_count = -2.0 * (_safe_log(rate) - jnp.where(count < 0, 0.0, _safe_log(count)))
    return _traced_deviance(count, rate), by_count * tangents[0] + by_rate * tangents[1]


def _safe_log(x: Float64[Array, " counts"]) -> Float64[Array, " counts"]:
    """The logarithm; below `SMALLEST_RATE` the parabola with the same value, slope and curvature there."""
    xp, inside = namespace(x), x > SMALLEST_RATE
    logarithm = xp.log(xp.where(inside, x, 1.0))
    u = xp.where(inside, 0.0, x / SMALLEST_RATE - 1.0)
    return xp.where(inside, logarithm, np.log(SMALLEST_RATE) + u - 0.5 * u**2)
