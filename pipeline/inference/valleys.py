"""The smallest of several minima: what a minimiser that walks downhill cannot know of by itself.

From a minimum, parameters that may have a second valley are sent to the other side of zero, one after the other, the
most promising first, until none leads to a smaller minimum or the search has cost a few times the first fit. One that
walks back over zero is on its way to where it came from, and is let go. What the search left out is counted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float64, Int

from pipeline.inference.newton import CLOSE, Minimum, unsought

__all__ = ["smallest"]

BUDGET = 3  # times the first fit
LONGEST_SEARCH = 2000  # iterations, of a search without budget
OTHER_SIDE = 1.5  # at least so far on the other side

Vector = Float64[Array, " parameters"]
Carry = tuple[Minimum, Bool[Array, " parameters"], Float64[Array, " parameters"], Int[Array, ""], Int[Array, ""]]


def smallest(
    minimise: Callable[[Vector, Int[Array, ""], Callable[[Minimum], Bool[Array, ""]]], Minimum],
    start: Float64[Array, " parameters"],
    promise: Callable[[Minimum], Float64[Array, " parameters"]],
    *,
    max_iterations: Int[Array, ""],
    thorough: bool,
) -> tuple[Minimum, Int[Array, ""]]:
    """The smallest minimum found, and how many parameters of promise were not tried.

    Args:
        minimise: a local minimum from a start, in at most so many iterations, unless a step says that it is enough.
        start: the first one.
        promise: of a second valley, for every parameter at a minimum; 0 where there can be none.
        max_iterations: towards each minimum.
        thorough: without the budget. Static.
    """

    def going(carry: Carry) -> Bool[Array, ""]:
        best, tried, promises, spent, budget = carry
        return (spent == 0) | (best.converged & jnp.any((promises > 0) & ~tried) & (spent < budget))

    def again(carry: Carry) -> Carry:
        best, tried, promises, spent, budget = carry
        first = spent == 0
        position = jnp.argmax(jnp.where(tried, 0.0, promises))
        here = best.parameters[position]
        there = jnp.where(here < 0, 1.0, -1.0) * jnp.maximum(jnp.abs(here), OTHER_SIDE)
        left = jnp.where(first, max_iterations, jnp.minimum(max_iterations, budget - spent))

        def is_back(state: Minimum) -> Bool[Array, ""]:
            return ~first & (state.parameters[position] * there <= 0) & (not thorough)

        other = minimise(jnp.where(first, start, best.parameters.at[position].set(there)), left, is_back)
        smaller = first | ((other.value < best.value - CLOSE) & other.converged)
        best = jax.tree.map(lambda new, old: jnp.where(smaller, new, old), other, best)
        spent = spent + other.iterations
        limit = jnp.asarray(LONGEST_SEARCH) if thorough else (1 + BUDGET) * spent
        # An attempt that the budget cut short has not been one.
        complete = ~other.going | (left == max_iterations) | is_back(other)
        tried = jnp.where(smaller, False, tried.at[position].set(complete))
        return best, tried, promise(best), spent, jnp.where(first, limit, budget)

    none, untried = jnp.asarray(0), jnp.zeros(start.shape, bool)
    state = (unsought(start, ~untried), untried, jnp.zeros_like(start), none, none)
    best, tried, promises, spent, _ = jax.lax.while_loop(going, again, state)
    best = _with_iterations(best, spent)
    return best, jnp.where(best.converged, jnp.sum((promises > 0) & ~tried), 0)


def _with_iterations(best: Minimum, spent: Int[Array, ""]) -> Minimum:
    fields = {name: getattr(best, name) for name in Minimum.__dataclass_fields__ if name != "_"}
    return Minimum(**{**fields, "iterations": spent})
