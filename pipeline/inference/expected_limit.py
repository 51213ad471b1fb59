"""The expected upper limit on the signal strength, differentiable by the numbers of the model.

It is the root of a profile likelihood on Asimov data without signal (arXiv:1007.1727), and its derivative that of an
implicit function. `pipeline.inference.limits` has observed limits, bands and scans, which are not differentiated.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from statistics import NormalDist
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Bool, Float64, Int

from pipeline.inference.fit import Fit, fit_terms
from pipeline.inference.histfactory.likelihood import deviance
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.significance import asimov_uncertainty, expectation_of, tested_position

__all__ = ["UpperLimit", "expected_upper_limit"]

LIMIT_PRECISION = 1e-9  # of the root of q at the limit
LIMIT_ITERATIONS = 50


class UpperLimit(eqx.Module):
    """An expected upper limit on the signal strength.

    Attributes:
        mu: the limit; infinite where there is no signal to limit.
        fit: the fit with the signal strength held at the limit.
        converged: whether this fit did, and the limit was found.
    """

    _: KW_ONLY
    mu: Float64[Array, ""]
    fit: Fit
    converged: Bool[Array, ""]


def expected_upper_limit(
    structure: Structure,
    numbers: Numbers,
    *,
    method: Literal["CLs", "CLs+b"] = "CLs",
    confidence_level: float | Float64[Array, ""] = 0.95,
    band: float | Float64[Array, ""] = 0.0,
    poi: str | None = None,
    max_iterations: int = 200,
    thorough: bool = False,
) -> UpperLimit:
    """The expected upper limit on the signal strength when there is no signal.

    Args:
        structure: static.
        numbers: may be traced.
        method: the excluded probability is CLs+b, or its ratio to that of the background alone (CLs).
        confidence_level: of the limit.
        band: how many standard deviations the background fluctuates up; 0 gives the median.
        poi: the parameter to limit, in place of the structure's.
        max_iterations: of each fit.
        thorough: as in `fit`.

    Raises:
        ValueError: a band in which nothing is excluded, whatever the signal: CLs+b at -2 standard deviations.
    """
    position = tested_position(structure, poi)
    is_poi = jnp.arange(structure.size) == position
    target = _limit_target(method, confidence_level, band)
    expected = expectation_of(structure, numbers, position, 0.0, tested=0.0)
    frozen = jax.lax.stop_gradient(expected)

    def at(mu: Float64[Array, ""], start: Float64[Array, " parameters"]) -> tuple[Fit, Float64[Array, ""]]:
        start = start.at[position].set(mu)
        held = fit_terms(
            structure,
            frozen.model,
            frozen.data,
            initial=start,
            held=is_poi,
            max_iterations=max_iterations,
            thorough=thorough,
            differentiable_parameters=False,
        )
        return held, jax.grad(deviance, argnums=2)(structure, frozen.model, held.parameters, frozen.data)[position]

    first = target * asimov_uncertainty(structure, frozen, position)
    search = _find_limit(at, first, frozen.parameters, target)
    q = deviance(structure, expected.model, search.fit.parameters, expected.data)
    reached = (jnp.abs(search.residual) <= LIMIT_PRECISION) & (search.slope > 0) & (target > 0)
    mu = search.mu - (q - jax.lax.stop_gradient(q)) / jnp.where(reached, search.slope, 1.0)
    unknown = jnp.isnan(frozen.data).any() | ~(target > 0)
    return UpperLimit(
        mu=jnp.where(reached, mu, jnp.where(unknown, jnp.nan, jnp.inf)),
        fit=search.fit,
        converged=search.fit.converged & reached,
    )


class _Search(eqx.Module):
    """Where the search for the limit stands: what was found at `mu`, and where to look next."""

    _: KW_ONLY
    mu: Float64[Array, ""]
    following: Float64[Array, ""]
    lower: Float64[Array, ""]
    upper: Float64[Array, ""]
    residual: Float64[Array, ""]
    slope: Float64[Array, ""]
    fit: Fit
    iterations: Int[Array, ""]


def _find_limit(
    at: Callable[[Float64[Array, ""], Float64[Array, " parameters"]], tuple[Fit, Float64[Array, ""]]],
    first: Float64[Array, ""],
    nominal: Float64[Array, " parameters"],
    target: Float64[Array, ""],
) -> _Search:
    """Newton's method on the root of q, which is nearly a straight line in mu, kept inside a bracket."""

    def going(state: _Search) -> Bool[Array, ""]:
        return (jnp.abs(state.residual) > LIMIT_PRECISION) & (state.iterations < LIMIT_ITERATIONS)

    def advance(state: _Search) -> _Search:
        mu = state.following
        found, slope = at(mu, state.fit.parameters)
        root = jnp.sqrt(jnp.maximum(found.deviance, 0.0))
        residual = root - target
        lower = jnp.where(residual < 0, mu, state.lower)
        upper = jnp.where(residual < 0, state.upper, mu)
        newton = mu - residual * 2.0 * root / slope
        middle = jnp.where(jnp.isfinite(upper), 0.5 * (lower + upper), 2.0 * mu)
        return _Search(
            mu=mu,
            following=jnp.where((newton > lower) & (newton < upper), newton, middle),
            lower=lower,
            upper=upper,
            residual=residual,
            slope=slope,
            fit=found,
            iterations=state.iterations + 1,
        )

    shapes, _ = jax.eval_shape(at, first, nominal)
    blank: Fit = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start = _Search(
        mu=first,
        following=jnp.where(jnp.isfinite(first), first, 1.0),
        lower=jnp.asarray(0.0),
        upper=jnp.asarray(jnp.inf),
        residual=jnp.asarray(jnp.inf),
        slope=jnp.asarray(1.0),
        fit=eqx.tree_at(lambda f: f.parameters, blank, nominal),
        iterations=jnp.asarray(0),
    )
    return jax.lax.while_loop(going, advance, start)


def _limit_target(
    method: Literal["CLs", "CLs+b"],
    confidence_level: float | Float64[Array, ""],
    band: float | Float64[Array, ""],
) -> Float64[Array, ""]:
    """The root of q at which a signal strength is excluded: arXiv:1007.1727, section 4.3; CLs with CLb = Phi(N)."""
    if method == "CLs+b" and isinstance(band, float | int) and isinstance(confidence_level, float):
        excludes_nothing = NormalDist().inv_cdf(confidence_level) + band <= 0
        if excludes_nothing:
            raise ValueError(f"there is no CLs+b limit at {band:+g} standard deviations: use CLs there.")
    excluded = 1.0 - jnp.asarray(confidence_level, jnp.float64)
    tail = excluded * ndtr(jnp.asarray(band, jnp.float64)) if method == "CLs" else excluded
    return band + ndtri(1.0 - tail)
