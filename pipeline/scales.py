"""In what a threshold moves: in its own unit, or in its rank among the events.

A score piles up at 1: no step and no bandwidth in its own unit serve edges at 0.4 and at 0.999. What matters is how
many events lie on either side: a share r below, 1 − r above. The place of a value is log(r / (1 − r)), so a step
changes the smaller of the two numbers by some per cent wherever it is made, and a kernel sees a part of them. Nobody
needs to know the unit, or where the events are.

The flux through a boundary stays as it is (`pipeline.events.flux`): its kernel is in the threshold's own unit, as wide
as the width on the scale is at this place. A derivative by the place is one by the threshold, times the slope of the
scale.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OWN_UNIT", "Kernel", "OwnUnit", "Rank", "Scale", "apart", "rank_among"]

STEPS = 50
"""Typical steps from bound to bound."""

KNOTS = 1000
"""Quantiles between which a rank is interpolated."""

TAIL = 0.002
"""What is added to the shares of the events on either side: beyond, there are too few of them to tell places apart."""

EVEN = 0.001
"""The part of a share that grows evenly with the value: where there are no events, it still tells values apart."""


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
    """The odds of the events below a value to those above it, as a logarithm.

    Attributes:
        values: rising, from bound to bound.
        places: of these values, rising as well; in between they are interpolated.
    """

    values: NDArray[np.float64]
    places: NDArray[np.float64]

    @property
    def span(self) -> float:
        """From bound to bound."""
        return float(self.places[-1] - self.places[0])

    def place(self, value: float) -> float:
        """Of a value."""
        return float(np.interp(value, self.values, self.places))

    def value(self, place: float) -> float:
        """The quantile at a place."""
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


def apart(span: float, number: int) -> float:
    """How far thresholds that must rise stay apart in rank: a step, or less where many of them share the span.

    Kernels of half this width do not look across a neighbour.
    """
    return span / max(STEPS, 4 * number)


def rank_among(values: NDArray[np.floating], share: NDArray[np.floating], bounds: tuple[float, float]) -> Rank:
    """The rank among some values within bounds.

    Args:
        values: of the events.
        share: what each of them counts; not negative.
        bounds: of the threshold.
    """
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
