"""Files and a skim in, one awkward array out.

Files are independent, so they are spread over processes, in parts where there are fewer files than processes; what
comes back is put together in the order of the list, whatever finished first. A file that is in the cache is not read.
"""

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import awkward as ak
from rich.progress import Progress

from pipeline.ingest.cache import entry_key, load, store
from pipeline.ingest.execution import outcomes
from pipeline.ingest.manifest import InputError
from pipeline.ingest.progress import file_counter
from pipeline.ingest.rootfile import FileSkim, joined_parts, skimmed_part
from pipeline.ingest.skim import Skim, summed

__all__ = ["Ingested", "read"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Ingested:
    """A data set in memory.

    Attributes:
        events: One record per event that passed, in file order: lists of object records by collection, the event
            variables, `event` (the NanoAOD event number) and `index` (row number over all files, from 0).
        entries: Entries of each file.
        odd: Objects by collection, and events under `event`, with a NaN, an infinite value or a negative pt in what was
            read; a name that has none is not listed. `pipeline.ingest.skim` says how they are treated.
    """

    events: ak.Array
    entries: tuple[int, ...]
    odd: dict[str, int]

    @property
    def entries_read(self) -> int:
        """Entries of all files."""
        return sum(self.entries)


def read(
    files: Sequence[str | Path],
    skim: Skim,
    *,
    tree: str = "Events",
    workers: int = 1,
    executor: Executor | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    label: str = "reading",
) -> Ingested:
    """Read and skim the files of one data set.

    Args:
        files: Paths or URLs, in order.
        skim: What to read and what to keep.
        tree: Name of the TTree or RNTuple.
        workers: Processes that read at the same time; 1 reads in this one.
        executor: Where to read instead, for example `distributed.Client.get_executor()`.
        cache: Folder for skimmed columns; None keeps nothing.
        progress: A running display, as from `events_progress`, that gets a line for this data set; None shows nothing.
        label: Name of that line, and of the data set in messages.

    Raises:
        InputError: There are no files, or one cannot be used.
    """
    if not files:
        raise InputError(f"{label}: there are no files to read.")
    locations = [str(file) for file in files]
    keys = [entry_key(location, tree, skim) for location in locations] if cache else []
    done = {number: entry for number, key in enumerate(keys) if (entry := load(cache, key))} if cache else {}
    missing = {number: location for number, location in enumerate(locations) if number not in done}
    with file_counter(progress, label, len(locations)) as advance:
        for _ in done:
            advance(0)
        for number, fresh in _as_completed(missing, tree, skim, workers, executor):
            advance(fresh.entries)
            done[number] = fresh
            if cache:
                store(cache, keys[number], fresh)
    ingested = _data_set([done[number] for number in range(len(locations))])
    _report_odd(label, ingested.odd)
    return ingested


def _as_completed(
    files: Mapping[int, str], tree: str, skim: Skim, workers: int, executor: Executor | None
) -> Iterator[tuple[int, FileSkim]]:
    """Read files and yield each, under its number, when its last part is there."""
    if not files:
        return
    parts = math.ceil(workers / len(files))
    numbers = [number for number in files for _ in range(parts)]
    tasks = [(location, tree, skim, part, parts) for location in files.values() for part in range(parts)]
    waiting: dict[int, dict[int, FileSkim]] = {number: {} for number in files}
    for position, piece in outcomes(skimmed_part, tasks, workers=workers, executor=executor):
        pieces = waiting[numbers[position]]
        pieces[position % parts] = piece
        if len(pieces) == parts:
            del waiting[numbers[position]]
            yield numbers[position], joined_parts([pieces[part] for part in range(parts)])


def _data_set(files: Sequence[FileSkim]) -> Ingested:
    """All files of a data set, in order; `index` goes on from file to file."""
    starts = itertools.accumulate((file.entries for file in files[:-1]), initial=0)
    shifted = [
        ak.with_field(file.events, file.events["index"] + start, "index")
        for file, start in zip(files, starts, strict=True)
    ]
    return Ingested(
        events=ak.concatenate(shifted),
        entries=tuple(file.entries for file in files),
        odd=summed(file.odd for file in files),
    )


def _report_odd(label: str, odd: Mapping[str, int]) -> None:
    counted = ", ".join(f"{number} of {name}" for name, number in odd.items())
    if counted:
        _log.warning("%s: NaN, infinite or negative values in %s; a cut on NaN is failed.", label, counted)
