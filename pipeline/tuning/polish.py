"""The last stage of a search: the exact loss alone, near the best place that the gradient has found.

The exact loss of a sample steps wherever an event is cut, and a gradient sees it smoothed by its kernels. Whoever wants
the best value of this very sample, as a search without gradients finds it, gets it here: quadratic models of the loss
within a trust region, by SciPy's COBYQA (Ragonneau, PhD thesis, Hong Kong Polytechnic University, 2022). It begins
within one typical step of every threshold, and again from the best place, within twice as many, as long as it may.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pipeline.tuning.ranges import Ordered, Range, in_order

__all__ = ["polished"]


FIRST_RADIUS = 1.0
FINEST_RADIUS = 0.02
"""Of the trust region, in typical steps."""


class Spent(Exception):
    """No evaluation is left."""


def polished(
    loss: Callable[[dict[str, float]], float],
    start: Mapping[str, float],
    ranges: Mapping[str, Range],
    ordered: Sequence[Ordered],
    evaluations: int,
) -> dict[str, float]:
    """The best of at most so many places near a start.

    Args:
        loss: of thresholds; infinite where it has no value.
        start: where it begins.
        ranges: of the thresholds, which move in units of their steps, on their scales.
        ordered: thresholds that have to keep their order.
        evaluations: of the loss.
    """
    best = loss(dict(start)), dict(start)
    worst = best[0] if np.isfinite(best[0]) else 0.0

    def thresholds_at(place: NDArray[np.float64]) -> dict[str, float]:
        spots = zip(ranges.items(), place, strict=True)
        values = {name: r.scale.value(float(spot) * r.step) for (name, r), spot in spots}
        inside = {name: min(max(value, ranges[name].lower), ranges[name].upper) for name, value in values.items()}
        return in_order(inside, ranges, ordered)

    def loss_at(place: NDArray[np.float64]) -> float:
        nonlocal best, worst, evaluations
        if evaluations <= 1:
            raise Spent
        evaluations -= 1
        thresholds = thresholds_at(place)
        value = loss(thresholds)
        best = min(best, (value, thresholds), key=lambda each: each[0])
        # A model of the loss has no use for infinity: no value is as bad as the worst one.
        worst = max(worst, value) if np.isfinite(value) else worst
        return value if np.isfinite(value) else worst

    def places_of(values: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([r.scale.place(values[name]) / r.step for name, r in ranges.items()])

    lower, upper = (places_of({name: getattr(r, side) for name, r in ranges.items()}) for side in ("lower", "upper"))
    bounds, radius = list(zip(lower, upper, strict=True)), FIRST_RADIUS
    with suppress(Spent):
        while True:
            options = {"initial_tr_radius": radius, "final_tr_radius": FINEST_RADIUS, "maxfev": evaluations}
            minimize(loss_at, places_of(best[1]), method="COBYQA", bounds=bounds, options=options)
            radius *= 2
    return best[1]
