"""Where thresholds may be: within bounds, on a scale, and in order where they must rise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pipeline.scales import OWN_UNIT, Scale

__all__ = ["Ordered", "Range", "in_order"]


@dataclass(frozen=True)
class Range:
    """How a trainable threshold may move: between bounds in its own unit, by steps and with kernels on its scale."""

    lower: float
    upper: float
    step: float
    bandwidth: float
    bandwidth_end: float
    scale: Scale = OWN_UNIT


@dataclass(frozen=True)
class Ordered:
    """Thresholds that must rise: the edges of bins. They share their bounds and their scale.

    Attributes:
        names: in their order.
        distance: of neighbours at least, in their own unit.
        apart: likewise on their scale. Two edges pressed together would stay so: the derivative does not tell what the
            bin between them could be worth.
    """

    names: tuple[str, ...]
    distance: float
    apart: float = 0.0


def in_order(position: dict[str, float], ranges: Mapping[str, Range], ordered: Sequence[Ordered]) -> dict[str, float]:
    """The nearest position in which all ordered thresholds keep their distance: on their scale, then in their unit."""
    for edges in ordered:
        limits = ranges[edges.names[0]]
        scale = limits.scale
        values = np.array([position[name] for name in edges.names])
        if edges.apart > 0:
            bounds = scale.place(limits.lower), scale.place(limits.upper)
            places = _spaced(np.array([scale.place(value) for value in values]), edges.apart, *bounds)
            values = np.array([scale.value(place) for place in places])
        values = _spaced(values, edges.distance, limits.lower, limits.upper)
        position = position | dict(zip(edges.names, values.tolist(), strict=True))
    return position


def _spaced(values: NDArray[np.float64], distance: float, lower: float, upper: float) -> NDArray[np.float64]:
    """The nearest values that rise by a distance: isotonic regression, then bounds."""
    offsets = distance * np.arange(len(values))
    rising = isotonic_regression(values - offsets).x
    return np.asarray(np.clip(rising, lower, upper - offsets[-1]) + offsets)
