"""Events that stay on disk: more of them than memory holds, in the cache of their skims, file by file."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.ingest import cache as cache_of

__all__ = ["StoredEvents", "StoredFile"]


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """An entry of the cache.

    Attributes:
        key: of the entry.
        location: of the file that it is the skim of, for messages.
        first: number of its first row among those of all files of the data set.
        events: how many passed.
    """

    key: str
    location: str
    first: int
    events: int


@dataclasses.dataclass(frozen=True)
class StoredEvents:
    """The events of a data set, as `pipeline.ingest.reading.Ingested.events`, of which memory holds two columns.

    `events[chosen]` reads those that a mask chooses, from the entries that have any of them.
    """

    folder: Path
    files: tuple[StoredFile, ...]
    collision: NDArray[np.uint64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of events."""
        return len(self.weight)

    @property
    def bounds(self) -> NDArray[np.int64]:
        """Where the events of each file begin, and after them those of none."""
        return np.cumsum([0, *(file.events for file in self.files)])

    @property
    def keys(self) -> Sequence[str]:
        """Of all entries: what the events are."""
        return [file.key for file in self.files]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> ak.Array:
        """The events that a mask chooses.

        Raises:
            InputError: an entry is not in the cache any more, or damaged.
        """
        bounds = self.bounds
        slices = [slice(start, stop) for start, stop in pairwise(bounds)]
        wanted = [number for number, part in enumerate(slices) if chosen[part].any()]
        # Without any there is one that is read for its types.
        wanted = wanted or [int(np.argmax(np.diff(bounds)))]
        return ak.concatenate([self._of_file(number, slices[number], chosen[slices[number]]) for number in wanted])

    def _of_file(self, number: int, part: slice, chosen: NDArray[np.bool_]) -> ak.Array:
        file = self.files[number]
        entry = cache_of.load(self.folder, file.key)
        if entry is None:
            raise InputError(
                f"{file.location}: what was read of it is not in {self.folder} any more; start the run again, and it "
                "is read again"
            )
        events = ak.with_field(entry.events, entry.events["index"] + file.first, "index")
        return ak.with_field(events, self.collision[part], "collision")[chosen]
