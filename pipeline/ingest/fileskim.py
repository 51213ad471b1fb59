"""One file in, its skim out.

The file is read in chunks of rows, only the branches that are needed, and each chunk is skimmed before the next is
read: memory holds one chunk and what passed.
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

import awkward as ak

from pipeline.errors import InputError
from pipeline.ingest.columns import columns_of, no_columns
from pipeline.ingest.content import is_local
from pipeline.ingest.facts import RunSums, WeightSums
from pipeline.ingest.failures import explained, may_pass
from pipeline.ingest.filekind import check_local, expected_kind
from pipeline.ingest.parquet import parquet_rows
from pipeline.ingest.rootfile import root_rows
from pipeline.ingest.rows import Rows, key_of
from pipeline.ingest.skim import Skim, Skimmed, skimmed, summed

__all__ = ["FileSkim", "joined_parts", "rows_of_file", "skimmed_part"]

PAUSES = (1.0, 4.0)
"""Seconds to wait before a remote file is tried again after the connection broke."""


@dataclasses.dataclass(frozen=True)
class FileSkim:
    """What passed of a file, or of a part of it.

    Attributes:
        events: As `Skimmed.events`; `index` counts from the start of the file.
        entries: Rows of the whole file.
        odd: As `Skimmed.odd`.
        numbered: Whether its events have numbers, or only rows.
        generated: As `Skimmed.generated`, of the rows that were read.
        runs: What the file says of the events before every skim, if it does.
    """

    events: ak.Array
    entries: int
    odd: dict[str, int]
    numbered: bool
    generated: WeightSums | None = None
    runs: RunSums | None = None

    def without_columns(self) -> "FileSkim":
        """With nothing of its events but what names their collisions, and their weights."""
        return dataclasses.replace(self, events=ak.to_packed(self.events[["collision", "weight"]]))


def skimmed_part(location: str, tree: str, skim: Skim, part: int = 0, parts: int = 1) -> FileSkim:
    """Read and skim one of several equal shares of a file; if the connection to a remote one breaks, try again twice.

    Args:
        location: Path or URL.
        tree: Name of the TTree or RNTuple; a parquet file has none.
        skim: What to read and what to keep.
        part: Which share, from 0.
        parts: How many shares.

    Raises:
        InputError: The file is missing, unreachable or damaged, lacks the tree or a branch, or has one of another shape
            than in NanoAOD, the variables of a collection disagree on the number of objects, or an object has no
            momentum.
    """
    for pause in PAUSES:
        try:
            return _skimmed_part(location, tree, skim, part, parts)
        except InputError as error:
            if not may_pass(error.__cause__):
                raise
        time.sleep(pause)
    return _skimmed_part(location, tree, skim, part, parts)


def _skimmed_part(location: str, tree: str, skim: Skim, part: int, parts: int) -> FileSkim:
    with rows_of_file(location, tree, skim.branches, skim.optional) as rows:
        pieces = _pieces(location, rows, skim, part, parts)
        return FileSkim(
            events=ak.concatenate([piece.events for piece in pieces]),
            entries=rows.entries,
            odd=summed(piece.odd for piece in pieces),
            numbered=skim.collision is not None or key_of("event", rows.branches) is not None,
            generated=_total([piece.generated for piece in pieces]),
            runs=rows.run_sums(),
        )


def _pieces(location: str, rows: Rows, skim: Skim, part: int, parts: int) -> list[Skimmed]:
    if not rows.entries and not rows.branches:
        return [skimmed(no_columns(skim), skim, location=location)]
    optional = [name for name in skim.optional if key_of(name, rows.branches) is not None]
    chunks = rows.chunks([*skim.branches, *optional])
    share = chunks[len(chunks) * part // parts : len(chunks) * (part + 1) // parts]
    # A share without chunks still reads no rows, so that its columns have their types.
    return [
        skimmed(columns_of(location, rows, skim, start, stop), skim, first_index=start, location=location)
        for start, stop in share or [(0, 0)]
    ]


def joined_parts(parts: Sequence[FileSkim]) -> FileSkim:
    """All parts of one file, in order, as one."""
    return dataclasses.replace(
        parts[0],
        events=ak.concatenate([part.events for part in parts]),
        odd=summed(part.odd for part in parts),
        generated=_total([part.generated for part in parts]),
    )


def rows_of_file(
    location: str, tree: str, required: Sequence[str], optional: Sequence[str] = ()
) -> contextlib.AbstractContextManager[Rows]:
    """Open a file by what it is; a remote one by its name.

    Args:
        location: Path or URL of a ROOT or parquet file.
        tree: Name of the TTree or RNTuple.
        required: Branches that must be there.
        optional: Branches that are wanted if they are there.

    Raises:
        InputError: The file is missing, unreachable, damaged or something else, lacks the tree or a branch.
    """
    if is_local(location):
        with explained(location):
            kind = check_local(Path(location))
    else:
        kind = expected_kind(location) or "root"
    return parquet_rows(location, required) if kind == "parquet" else root_rows(location, tree, required, optional)


def _total(sums: Sequence[WeightSums | None]) -> WeightSums | None:
    known = [sum_ for sum_ in sums if sum_ is not None]
    return reduce(add, known) if known else None
