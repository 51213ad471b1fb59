"""Are the tuned cuts better, by how much, and can one believe it?

The same numbers are computed on training and on validation events.

The optimiser has seen the training events, so what it gained there is partly luck. The claim of a run is the gain on
the validation events, with the bootstrap error of the difference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, merit_of_templates, templates_at
from pipeline.event_data import Data, Stream
from pipeline.events.cuts import Thresholds
from pipeline.inference.objectives import Merit
from pipeline.inference.templates import average
from pipeline.validation.bootstrap import bootstrap, resampled
from pipeline.validation.rounding import with_error

__all__ = ["Comparison", "Estimate", "compare", "cross_validate"]


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap error."""

    value: float
    error: float

    @property
    def pull(self) -> float:
        """How many errors it is away from zero."""
        return self.value / self.error if self.error > 0 else float("nan")

    def __format__(self, options: str) -> str:
        """`12.34 ± 0.56`; with `+` a sign in front of what is positive."""
        return with_error(self.value, self.error, sign=options == "+")

    def __str__(self) -> str:
        """`12.34 ± 0.56`."""
        return format(self)


@dataclass(frozen=True)
class Comparison:
    """The figure of merit before and after, on one part of the events. `change` is after − before."""

    before: Estimate
    after: Estimate
    change: Estimate
    converged: bool


def compare(
    merit: Callable[[Thresholds, Data | Stream], Merit],
    before: Thresholds,
    after: Thresholds,
    parts: Mapping[str, Data | Stream],
    replicas: int,
    seed: int,
) -> dict[str, Comparison]:
    """Both points on each part of the events, with bootstrap errors."""

    def value(thresholds: Thresholds, data: Data | Stream) -> float:
        return float(merit(thresholds, data).value)

    compared = {}
    for number, (name, data) in enumerate(parts.items()):
        exact = [merit(point, data) for point in (before, after)]
        compared[name] = _comparison(exact, bootstrap(value, [before, after], data, replicas, seed + number))
    return compared


def cross_validate(
    analysis: Analysis, folds: Sequence[tuple[Data | Stream, Thresholds, Thresholds]], replicas: int, seed: int
) -> Comparison:
    """All events, each judged by thresholds that were tuned without it: the templates of the folds are added up.

    Args:
        analysis: the static part.
        folds: disjoint parts of the events, equally large, and where the tuning on all the others began and ended:
            thresholds begin at the same place for all folds, networks and their bins do not.
        replicas: of the bootstrap; tuning is not repeated for them.
        seed: of the bootstrap.
    """

    def merits(parts: Sequence[Data | Stream]) -> list[Merit]:
        return [
            merit_of_templates(
                analysis, average([templates_at(analysis, at, data) for at, data in zip(points, parts, strict=True)])
            )
            for points in ([before for _, before, _ in folds], [after for _, _, after in folds])
        ]

    generator = np.random.default_rng(seed)
    exact = merits([data for data, _, _ in folds])
    spread = np.array(
        [
            [float(merit.value) for merit in merits([resampled(data, generator) for data, _, _ in folds])]
            for _ in range(replicas)
        ]
    )
    return _comparison(exact, spread)


def _comparison(exact: Sequence[Merit], spread: NDArray[np.float64]) -> Comparison:
    """From the two merits, and their values on bootstrap replicas, shape "replicas 2"."""
    before, after = (float(merit.value) for merit in exact)
    errors = np.std(spread, axis=0, ddof=1)
    return Comparison(
        before=Estimate(before, float(errors[0])),
        after=Estimate(after, float(errors[1])),
        change=Estimate(after - before, float(np.std(spread[:, 1] - spread[:, 0], ddof=1))),
        converged=all(bool(merit.converged) for merit in exact),
    )
