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
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float64

from pipeline.inference.histfactory.constraints import (
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
    auxdata = parameters[positions] * jnp.where(is_poisson, model.width[positions], 1.0)
    return jnp.concatenate([rates(structure, model.effects, parameters), auxdata])


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
@partial(jax.jit, static_argnums=0)
def deviance(
    structure: Structure,
    model: Terms,
    parameters: Float64[Array, " parameters"],
    data: Float64[Array, " data"],
) -> Float64[Array, ""]:
    """Minus twice the logarithm of the likelihood ratio to a model that fits every datum.

    A negative count, as of weighted events, has no best rate: of its term only what depends on the rate is kept.
    """
    count, rate = data[: structure.bins], rates(structure, model.effects, parameters)
    # Constraints as vectors over all parameters, not over the constrained ones: without gathers the Hessian is short.
    measured = spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    pull = jnp.where(is_normal, (parameters - measured) / model.width, 0.0)
    if is_poisson.any():
        count = jnp.concatenate([count, jnp.where(is_poisson, measured, 1.0)])
        rate = jnp.concatenate([rate, jnp.where(is_poisson, model.width * parameters, 1.0)])
    return jnp.sum(poisson_deviance(count, rate)) + jnp.sum(pull**2)


def saturated_logpdf(structure: Structure, model: Terms, data: Float64[Array, " data"]) -> Float64[Array, ""]:
    """The logarithm of the largest likelihood that these data allow."""
    measured = spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    counts = jnp.concatenate([data[: structure.bins], measured[np.flatnonzero(is_poisson)]])
    best_poisson = jnp.where(counts < 0, 0.0, counts * _safe_log(counts) - counts) - gammaln(counts + 1.0)
    width = model.width[np.flatnonzero(is_normal)]
    return jnp.sum(best_poisson) - jnp.sum(jnp.log(width * np.sqrt(2 * np.pi)))


def spread_auxdata(structure: Structure, data: Float64[Array, " data"]) -> Float64[Array, " parameters"]:
    """The auxiliary datum of every parameter; 0 for those without constraint."""
    positions = constrained_positions(structure, "normal", "poisson")
    return jnp.zeros(structure.size, jnp.float64).at[positions].set(data[structure.bins :])


def constraint_masks(
    structure: Structure,
) -> tuple[Bool[np.ndarray, " parameters"], Bool[np.ndarray, " parameters"]]:
    """Which parameters have a Gaussian constraint, and which a Poisson one."""
    everything = np.arange(structure.size)
    return (
        np.isin(everything, constrained_positions(structure, "normal")),
        np.isin(everything, constrained_positions(structure, "poisson")),
    )


@jax.custom_jvp
def poisson_deviance(count: Float64[Array, " counts"], rate: Float64[Array, " counts"]) -> Float64[Array, " counts"]:
    """The deviance of every count: `2 (rate - count - count log(rate / count))`, with all its digits.

    Near agreement it is `2 count (d - log(1 + d))` with the relative difference d: the logarithms of large counts would
    cancel each other.
    """
    positive = count > 0
    reference = jnp.where(positive, count, 1.0)
    difference = (rate - count) / reference
    near = positive & (jnp.abs(difference) < 0.5)
    d = jnp.where(near, difference, 0.0)
    best = jnp.where(positive, count * (1.0 - jnp.log(reference)), 0.0)
    return 2.0 * jnp.where(near, reference * (d - jnp.log1p(d)), rate - count * _safe_log(rate) - best)


@poisson_deviance.defjvp
def _poisson_deviance_jvp(
    primals: tuple[Float64[Array, " counts"], Float64[Array, " counts"]],
    tangents: tuple[Float64[Array, " counts"], Float64[Array, " counts"]],
) -> tuple[Float64[Array, " counts"], Float64[Array, " counts"]]:
    count, rate = primals
    inside = rate > SMALLEST_RATE
    safe = jnp.where(inside, rate, 1.0)
    below = 1.0 - count * (2.0 - rate / SMALLEST_RATE) / SMALLEST_RATE
    by_rate = 2.0 * jnp.where(inside, (safe - count) / safe, below)
    by_count = -2.0 * (_safe_log(rate) - jnp.where(count < 0, 0.0, _safe_log(count)))
    return poisson_deviance(count, rate), by_count * tangents[0] + by_rate * tangents[1]


def _safe_log(x: Float64[Array, " counts"]) -> Float64[Array, " counts"]:
    """The logarithm; below `SMALLEST_RATE` the parabola with the same value, slope and curvature there."""
    inside = x > SMALLEST_RATE
    logarithm = jnp.log(jnp.where(inside, x, 1.0))
    u = jnp.where(inside, 0.0, x / SMALLEST_RATE - 1.0)
    return jnp.where(inside, logarithm, np.log(SMALLEST_RATE) + u - 0.5 * u**2)
