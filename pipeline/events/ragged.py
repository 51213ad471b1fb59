"""Events as they are read: objects laid end to end, as many as there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.events.flux import MAX_OBJECTS

__all__ = ["Column", "Ragged", "RaggedSample"]

Column = NDArray[Any]


@dataclass(frozen=True)
class Ragged:
    """The objects of one collection, laid end to end: how many each event has, and their variables.

    A variable has shape "objects"; one that is varied has a column for each kinematic variation, nominal first, in
    float64: shape "kinematics objects".
    """

    counts: NDArray[np.int64]
    variables: Mapping[str, Column]

    def of_events(self, events: NDArray[np.int64]) -> "Ragged":
        """The objects of some events."""
        counts = self.counts[events]
        first = np.cumsum(self.counts)[events] - counts
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        place = np.repeat(first, counts) + number
        return Ragged(counts, {name: column[..., place] for name, column in self.variables.items()})

    def where(self, keep: NDArray[np.bool_]) -> "Ragged":
        """Without the objects that are not to be kept."""
        event = np.repeat(np.arange(len(self.counts)), self.counts)
        counts = np.bincount(event[keep], minlength=len(self.counts))
        return Ragged(counts, {name: column[..., keep] for name, column in self.variables.items()})

    def hardest(self, number: int = MAX_OBJECTS) -> "Ragged":
        """At most so many objects an event: those of largest nominal pt, or else the first ones, in stored order."""
        if not len(self.counts) or self.counts.max() <= number:
            return self
        event = np.repeat(np.arange(len(self.counts)), self.counts)
        pt = np.atleast_2d(self.variables.get("pt", -np.arange(len(event))))[0]
        order = np.lexsort((-pt, event))
        rank = np.empty(len(event), np.int64)
        rank[order] = np.arange(len(event)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        return self.where(rank < number)


@dataclass(frozen=True)
class RaggedSample:
    """The events of one data set, with everything that kinematic variations change.

    Attributes:
        objects: the collections.
        columns: with one value an event: shape "events", or "kinematics events" in float64 where they are varied.
        weight: of each event; 1 unless the sample has weights.
        index: row in the file.
        collision: a number that the events of one collision share, below the number of events.
        kinematics: how many kinematic variations the sample has, the nominal one included.
        left_out: objects of each collection that are in no bit mask any more (`Ragged.hardest`).
    """

    objects: Mapping[str, Ragged]
    columns: Mapping[str, Column]
    weight: NDArray[np.float32]
    index: NDArray[np.int32]
    collision: NDArray[np.int32]
    kinematics: int = 1
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of events."""
        return len(self.weight)

    def of_events(self, events: NDArray[np.int64]) -> "RaggedSample":
        """Some of the events."""
        return replace(
            self,
            objects={name: ragged.of_events(events) for name, ragged in self.objects.items()},
            columns={name: column[..., events] for name, column in self.columns.items()},
            weight=self.weight[events],
            index=self.index[events],
            collision=self.collision[events],
        )
