"""The smallest of several minima: what a minimiser that walks downhill cannot know of by itself.

From a minimum, the search goes on at its mirror images, on the other side of zero of one or two systematic variations,
the most promising first, until none leads to a smaller minimum or the search has cost a few times the first fit. One
that walks back over zero is on its way to where it came from, and is let go. What the search left out is counted.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, choose, namespace, while_loop
from pipeline.inference.mirrors import Mirrors
from pipeline.inference.newton import CLOSE, Minimum, unsought

__all__ = ["smallest"]

BUDGET = 3  # times the first fit
LONGEST_SEARCH = 2000  # iterations, of a search without budget

Vector = Float64[Array, " parameters"]
Carry = tuple[Minimum, Mirrors, Bool[Array, " places"], Int[Array, ""], Int[Array, ""]]


def smallest(
    minimise: Callable[[Vector, Int[Array, ""], Callable[[Minimum], Bool[Array, ""]]], Minimum],
    start: Float64[Array, " parameters"],
    mirrors: Callable[[Minimum], Mirrors],
    none: Mirrors,
    *,
    max_iterations: Int[Array, ""],
    thorough: bool,
) -> tuple[Minimum, Int[Array, ""]]:
    """The smallest minimum found, and how many places of promise were not tried.

    Args:
        minimise: a local minimum from a start, in at most so many iterations, unless a step says that it is enough.
        start: the first one.
        mirrors: places from which a smaller minimum than this one may be found.
        none: such places, without promise.
        max_iterations: towards each minimum.
        thorough: without the budget. Static.
    """
    xp = namespace(start)

    def going(carry: Carry) -> Bool[Array, ""]:
        best, places, tried, spent, budget = carry
        return (spent == 0) | (best.converged & xp.any((places.falls > -np.inf) & ~tried) & (spent < budget))

    def again(carry: Carry) -> Carry:
        best, places, tried, spent, budget = carry
        first = spent == 0
        place = xp.argmax(xp.where(tried, -np.inf, places.falls))
        there, flipped, turn = places.starts[place], places.flipped[place], places.turns[place]
        left = xp.where(first, max_iterations, xp.minimum(max_iterations, budget - spent))

        def is_back(state: Minimum) -> Bool[Array, ""]:
            return ~first & xp.any(flipped & ((state.parameters - turn) * (there - turn) <= 0)) & (not thorough)

        other = minimise(xp.where(first, start, there), left, is_back)
        smaller = first | ((other.value < best.value - CLOSE) & other.converged)
        best = jax.tree.map(lambda new, old: xp.where(smaller, new, old), other, best)
        spent = spent + other.iterations
        limit = xp.asarray(LONGEST_SEARCH) if thorough else (1 + BUDGET) * spent
        # An attempt that the budget cut short has not been one.
        complete = ~other.going | (left == max_iterations) | is_back(other)
        tried = ~smaller & (tried | (complete & (xp.arange(len(tried)) == place)))
        places = choose(smaller & best.converged, lambda best, _: mirrors(best), lambda _, places: places, best, places)
        return best, places, tried, spent, xp.where(first, limit, budget)

    nought = xp.asarray(0)
    state = (unsought(start, xp.ones(start.shape, bool)), none, xp.zeros(none.falls.shape, bool), nought, nought)
    best, places, tried, spent, _ = while_loop(going, again, state)
    best = _with_iterations(best, spent)
    return best, xp.where(best.converged, xp.sum((places.falls > -np.inf) & ~tried) + places.others, 0)


def _with_iterations(best: Minimum, spent: Int[Array, ""]) -> Minimum:
    fields = {name: getattr(best, name) for name in Minimum.__dataclass_fields__ if name != "_"}
    return Minimum(**{**fields, "iterations": spent})
