"""Files and a skim in, one awkward array out.

Each file is read in chunks, and each chunk is skimmed before the next is read, so memory holds one chunk and what
passed. Files are independent, so they are spread over processes, in parts where there are fewer files than processes;
what comes back is put together in the order of the list, whatever finished first.
"""

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import awkward as ak
from rich.progress import Progress

from pipeline.ingest import rootfile
from pipeline.ingest.execution import outcomes
from pipeline.ingest.skim import Skim, skimmed
from pipeline.manifest import InputError

__all__ = ["CHUNK", "Ingested", "read"]

CHUNK = 100_000
"""Rows that are read at a time."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Ingested:
    """A data set in memory.

    Attributes:
        events: One record per event that passed, in file order: lists of object records by collection, the event
            variables, `event` (the NanoAOD event number) and `index` (row number over all files, from 0).
        entries: Entries of each file.
        unusable: Objects by collection, and events under `event`, left out because of NaN, infinite or negative values.
    """

    events: ak.Array
    entries: tuple[int, ...]
    unusable: dict[str, int]

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
        progress: A running display that gets a line for this data set; None shows nothing.
        label: Name of that line.

    Raises:
        InputError: There are no files, or one cannot be used.
    """
    if not files:
        raise InputError("There are no files to read: the data set has none.")
    locations = [str(file) for file in files]
    parts = math.ceil(workers / len(locations))
    tasks = [(location, tree, skim, part, parts) for location in locations for part in range(parts)]
    done = dict(outcomes(_part_of_a_file, tasks, workers=workers, executor=executor))
    by_file = [[done[n * parts + part] for part in range(parts)] for n in range(len(locations))]
    return _data_set([_file(pieces) for pieces in by_file])


def _part_of_a_file(location: str, tree: str, skim: Skim, part: int, parts: int) -> Ingested:
    """What passes in one of several equal shares of the chunks of a file; `index` counts from the start of the file."""
    with rootfile.open_tree(location, tree, skim.branches) as opened:
        chunks = rootfile.chunks(opened, skim.branches, CHUNK)
        share = chunks[len(chunks) * part // parts : len(chunks) * (part + 1) // parts]
        # A share without chunks still reads no rows, so that its columns have their types.
        rows = share or [(0, 0)]
        pieces = [skimmed(rootfile.columns(location, opened, skim, *c), skim, first_index=c[0]) for c in rows]
        return Ingested(
            events=ak.concatenate([piece.events for piece in pieces]),
            entries=(int(opened.num_entries),),
            unusable=_sums(piece.unusable for piece in pieces),
        )


def _file(parts: Sequence[Ingested]) -> Ingested:
    """The parts of one file put together."""
    return Ingested(
        events=ak.concatenate([part.events for part in parts]),
        entries=parts[0].entries,
        unusable=_sums(part.unusable for part in parts),
    )


def _data_set(files: Sequence[Ingested]) -> Ingested:
    """The files of a data set put together; `index` goes on from file to file."""
    entries = tuple(n for file in files for n in file.entries)
    starts = itertools.accumulate(entries, initial=0)
    shifted = [
        ak.with_field(f.events, f.events["index"] + start, "index") for f, start in zip(files, starts, strict=False)
    ]
    return Ingested(events=ak.concatenate(shifted), entries=entries, unusable=_sums(file.unusable for file in files))


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return total
