"""The smallest of several minima: what a minimiser that walks downhill cannot know of by itself.

From a minimum, parameters that may have a second valley are sent to the other side of zero, one after the other, the
most promising first, until none leads to a smaller minimum or the search has cost a few times the first fit. One that
walks back over zero is on its way to where it came from, and is let go. What the search left out is counted.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, namespace, while_loop
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
    xp, everything = namespace(start), np.arange(len(start))

    def going(carry: Carry) -> Bool[Array, ""]:
        best, tried, promises, spent, budget = carry
        return (spent == 0) | (best.converged & xp.any((promises > 0) & ~tried) & (spent < budget))

    def again(carry: Carry) -> Carry:
        best, tried, promises, spent, budget = carry
        first = spent == 0
        position = xp.argmax(xp.where(tried, 0.0, promises))
        here = best.parameters[position]
        there = xp.where(here < 0, 1.0, -1.0) * xp.maximum(xp.abs(here), OTHER_SIDE)
        left = xp.where(first, max_iterations, xp.minimum(max_iterations, budget - spent))

        def is_back(state: Minimum) -> Bool[Array, ""]:
            return ~first & (state.parameters[position] * there <= 0) & (not thorough)

        other = minimise(
            xp.where(first, start, xp.where(everything == position, there, best.parameters)), left, is_back
        )
        smaller = first | ((other.value < best.value - CLOSE) & other.converged)
        best = jax.tree.map(lambda new, old: xp.where(smaller, new, old), other, best)
        spent = spent + other.iterations
        limit = xp.asarray(LONGEST_SEARCH) if thorough else (1 + BUDGET) * spent
        # An attempt that the budget cut short has not been one.
        complete = ~other.going | (left == max_iterations) | is_back(other)
        tried = xp.where(smaller, False, xp.where(everything == position, complete, tried))
        return best, tried, promise(best), spent, xp.where(first, limit, budget)

    none, untried = xp.asarray(0), xp.zeros(start.shape, bool)
    state = (unsought(start, ~untried), untried, xp.zeros_like(start), none, none)
    best, tried, promises, spent, _ = while_loop(going, again, state)
    best = _with_iterations(best, spent)
    return best, xp.where(best.converged, xp.sum((promises > 0) & ~tried), 0)


def _with_iterations(best: Minimum, spent: Int[Array, ""]) -> Minimum:
    fields = {name: getattr(best, name) for name in Minimum.__dataclass_fields__ if name != "_"}
    return Minimum(**{**fields, "iterations": spent})
