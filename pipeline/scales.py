"""In what a threshold moves: in its own unit, or in its rank among the events.

A score piles up at 1: no step and no bandwidth in its own unit serve edges at 0.4 and at 0.999. The rank of a value is
the share of the events below it. A step in rank passes as many events wherever it is made, and a kernel of some width
in rank has as many events on either side, so nobody needs to know the unit, or where the events are.

The flux through a boundary stays as it is (`pipeline.events.flux`): its kernel is in the threshold's own unit, as wide
as the width in rank is at this place. A derivative by the rank is one by the threshold, times the slope of the scale.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OWN_UNIT", "Kernel", "OwnUnit", "Rank", "Scale", "rank_among"]

KNOTS = 1000
"""Quantiles between which a rank is interpolated."""

import os
EVEN = float(os.environ.get("EVEN","0.001"))
"""The part of a rank that grows evenly with the value: where there are no events, a rank still tells values apart."""


@dataclass(frozen=True)
class OwnUnit:
    """A threshold in its own unit: place and value are the same."""

    def place(self, value: float) -> float:
        """Of a value."""
        return value

    def value(self, place: float) -> float:
        """At a place."""
        return place

    def slope(self, value: float, width: float) -> float:  # noqa: ARG002 (the same everywhere)
        """Of the value by place."""
        return 1.0


OWN_UNIT = OwnUnit()


@dataclass(frozen=True, eq=False)
class Rank:
    """The share of the events below a value: its place, from 0 at the lower bound to 1 at the upper one.

    Attributes:
        values: rising, from bound to bound.
        places: of these values, rising as well; in between they are interpolated.
    """

    values: NDArray[np.float64]
    places: NDArray[np.float64]

    def place(self, value: float) -> float:
        """The share of the events below."""
        return float(np.interp(value, self.values, self.places))

    def value(self, place: float) -> float:
        """The quantile."""
        return float(np.interp(place, self.places, self.values))

    def slope(self, value: float, width: float) -> float:
        """Mean change of the value by place, within `width` places to either side and within the bounds."""
        place = self.place(value)
        low, high = max(place - width, self.places[0]), min(place + width, self.places[-1])
        return (self.value(high) - self.value(low)) / (high - low)


Scale = OwnUnit | Rank
"""A rising map between the values of a threshold and its places."""


@dataclass(frozen=True)
class Kernel:
    """How a threshold moves on its scale: a typical step, and the width of its kernel at the start and at the end."""

    scale: Scale
    step: float
    bandwidth: float
    bandwidth_end: float

    def width(self, value: float) -> float:
        """Of the kernel around a value, at the start, in the threshold's own unit."""
        return self.bandwidth * self.scale.slope(value, self.bandwidth)


def rank_among(values: NDArray[np.floating], share: NDArray[np.floating], bounds: tuple[float, float]) -> Rank:
    """The rank among some values within bounds.

    Args:
        values: of the events.
        share: what each of them counts; not negative.
        bounds: of the threshold.
    """
    import os
    TAIL = float(os.environ.get("TAIL", "0.002"))
    low, high = bounds
    inside = (values > low) & (values < high)
    rising = np.argsort(values[inside])
    ordered = values[inside][rising].astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(share[inside][rising].astype(np.float64))])
    if below[-1] == 0:
        return Rank(np.array([low, high]), np.array([0.0, 1.0]))
    end = np.log((1 + TAIL) / TAIL)
    odds = np.exp(np.linspace(-end, end, KNOTS + 1)[1:-1])
    at = np.searchsorted(below[1:] / below[-1], ((1 + TAIL) * odds - TAIL) / (1 + odds))
    knots = np.unique(np.concatenate([[low], ordered[at], [high]]))
    ranks = below[np.searchsorted(ordered, knots, side="right")] / below[-1]
    ranks = (1 - EVEN) * ranks + EVEN * (knots - low) / (high - low)
    return Rank(knots, np.log((TAIL + ranks) / (TAIL + 1 - ranks)))
