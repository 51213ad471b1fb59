"""An exact figure of merit that counts what it costs, and that ends a method whose budget is spent.

Methods that need numbers of one size search the unit cube; users and results see thresholds. One evaluation without
gradient is the unit of cost.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pipeline.tuning.ranges import Ordered, Range, in_order

__all__ = ["BudgetSpent", "Counted", "Visit", "best_of"]


class BudgetSpent(Exception):
    """The evaluations of a method are used up."""


@dataclass(frozen=True)
class Visit:
    """One evaluation: where it was, what was found, and what everything had cost by then.

    `loss` is infinite where the fit did not converge.
    """

    evaluations: float
    seconds: float
    loss: float
    thresholds: dict[str, float]


class Counted:
    """A loss of thresholds, or of places in the unit cube that their bounds span; it remembers every visit.

    Args:
        loss: of thresholds, and whether the fit behind it converged.
        ranges: of the thresholds.
        budget: evaluations that may be spent.
        ordered: thresholds that have to keep their order; a place that breaks it means the nearest one that does not.
        clock: seconds.
    """

    def __init__(
        self,
        loss: Callable[[Mapping[str, float]], tuple[float, bool]],
        ranges: Mapping[str, Range],
        budget: float,
        ordered: Sequence[Ordered] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.loss, self.ranges, self.ordered = loss, dict(ranges), tuple(ordered)
        self.budget, self.clock = budget, clock
        self.started, self.spent, self.worst = clock(), 0.0, -np.inf
        self.visits: list[Visit] = []

    def __call__(self, place: NDArray[np.float64]) -> float:
        """The loss at a place of the unit cube; outside of it, at the nearest place inside."""
        return self.at(self.thresholds_at(place))

    def at(self, thresholds: Mapping[str, float]) -> float:
        """The loss; where the fit does not converge, the worst one so far, which every method understands.

        Raises:
            BudgetSpent: nothing is left for this evaluation.
        """
        if self.spent + 1 > self.budget:
            raise BudgetSpent
        loss, converged = self.loss(thresholds)
        return self.record(thresholds, loss, converged, cost=1.0)

    def record(self, thresholds: Mapping[str, float], loss: float, converged: bool, cost: float) -> float:
        """Note an evaluation that somebody else has made; returns the loss that a method should believe."""
        good = converged and bool(np.isfinite(loss))
        self.spent += cost
        seen = loss if good else np.inf
        self.visits.append(Visit(self.spent, self.clock() - self.started, seen, dict(thresholds)))
        if good:
            self.worst = max(self.worst, loss)
            return loss
        return self.worst if np.isfinite(self.worst) else 0.0

    def thresholds_at(self, place: NDArray[np.float64]) -> dict[str, float]:
        """What a place of the unit cube means."""
        inside = np.clip(np.asarray(place, float), 0.0, 1.0)
        spanned = {
            name: r.lower + float(part) * (r.upper - r.lower)
            for (name, r), part in zip(self.ranges.items(), inside, strict=True)
        }
        return in_order(spanned, self.ranges, self.ordered)

    def place_of(self, thresholds: Mapping[str, float]) -> NDArray[np.float64]:
        """The place of the unit cube at which thresholds stand."""
        return np.array([(thresholds[n] - r.lower) / (r.upper - r.lower) for n, r in self.ranges.items()])


def best_of(visits: Sequence[Visit], evaluations: float = np.inf, seconds: float = np.inf) -> Visit:
    """The visit of lowest loss among those that were paid for by then; at least the first one counts."""
    paid = [visit for visit in visits if visit.evaluations <= evaluations and visit.seconds <= seconds]
    return min(paid or visits[:1], key=lambda visit: visit.loss)
