"""Are the tuned cuts better, by how much, and can one believe it?

The same numbers are computed on training and on validation events.

The optimiser has seen the training events, so what it gained there is partly luck. The claim of a run is the gain on
the validation events, with the bootstrap error of the difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.analysis import Data
from pipeline.bootstrap import bootstrap
from pipeline.objective import Merit
from pipeline.selection import Thresholds

__all__ = ["Comparison", "Estimate", "compare"]


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap error."""

    value: float
    error: float

    @property
    def pull(self) -> float:
        """How many errors it is away from zero."""
        return self.value / self.error if self.error > 0 else float("nan")


@dataclass(frozen=True)
class Comparison:
    """The figure of merit before and after, on one part of the events. `change` is after − before."""

    before: Estimate
    after: Estimate
    change: Estimate
    converged: bool


def compare(
    merit: Callable[[Thresholds, Data], Merit],
    before: Thresholds,
    after: Thresholds,
    parts: Mapping[str, Data],
    replicas: int,
    seed: int,
) -> dict[str, Comparison]:
    """Both points on each part of the events, with bootstrap errors."""

    def value(thresholds: Thresholds, data: Data) -> float:
        return float(merit(thresholds, data).value)

    compared = {}
    for number, (name, data) in enumerate(parts.items()):
        exact = [merit(point, data) for point in (before, after)]
        values = [float(one.value) for one in exact]
        spread = bootstrap(value, [before, after], data, replicas, seed + number)
        errors = np.std(spread, axis=0, ddof=1)
        change = float(np.std(spread[:, 1] - spread[:, 0], ddof=1))
        compared[name] = Comparison(
            before=Estimate(values[0], float(errors[0])),
            after=Estimate(values[1], float(errors[1])),
            change=Estimate(values[1] - values[0], change),
            converged=all(bool(one.converged) for one in exact),
        )
    return compared
