"""Events that are in memory already, or in one table file, as one data set: the same skim and checks as for files."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from pipeline.errors import InputError
from pipeline.ingest.columns import columns_of
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.facts import RunSums
from pipeline.ingest.identity import content_digest
from pipeline.ingest.reading import read
from pipeline.ingest.rows import CHUNK, check_branches, key_of, nested
from pipeline.ingest.samples import Sample
from pipeline.ingest.skim import Skim, skimmed
from pipeline.ingest.sources import File
from pipeline.ingest.tables import table_source

__all__ = ["Table", "sample_of"]

Table = Any
"""A mapping of arrays, a DataFrame (pandas, polars), a pyarrow Table, a structured NumPy array, an awkward array of
records, or the path of a parquet or ROOT file."""


@dataclass(frozen=True)
class TableRows:
    """A table in memory as the skim asks for it (`pipeline.ingest.rows.Rows`)."""

    columns: Mapping[str, Any]
    entries: int

    @property
    def branches(self) -> Collection[str]:
        """Names of the columns; those of records as `Jet.pt`."""
        records = {name: column for name, column in self.columns.items() if isinstance(column, ak.Array)}
        inner = (f"{name}.{field}" for name, column in records.items() for field in column.fields)
        return (*self.columns, *inner)

    def chunks(self, branches: Iterable[str]) -> list[tuple[int, int]]:  # noqa: ARG002 (the same for all columns)
        """Ranges of rows of which copies take little memory."""
        return list(itertools.pairwise([*range(0, self.entries, CHUNK), self.entries]))

    def arrays(self, branches: Sequence[str], start: int, stop: int) -> dict[str, ak.Array]:
        """Columns by name, for a range of rows."""
        keys = {branch: key_of(branch, self.branches) or branch for branch in branches}
        return {branch: nested(self.columns, key)[start:stop] for branch, key in keys.items()}

    def run_sums(self) -> RunSums | None:
        """None: nothing is known of the events before."""
        return None


def sample_of(process: str, table: Table, skim: Skim) -> Sample:
    """One process as a data set that counts its events by their weights alone.

    Args:
        process: its name.
        table: its events.
        skim: what is taken of them.

    Raises:
        InputError: the table has no events, or lacks a column that is wanted, or it is no column of numbers.
    """
    if isinstance(table, str | Path):
        ingested = read([Path(table).expanduser()], skim, label=process)
        facts = ingested.files[0]
        file = File(path=Path(table).name, events=facts.entries, entries=facts.entries, size=facts.size)
        file = file.model_copy(update={"sha256": facts.sha256})
        return _sample(process, skim, file, ingested.events)
    rows = _rows(process, table, skim)
    parts = [
        skimmed(columns_of(process, rows, skim, start, stop), skim, first_index=start, location=process).events
        for start, stop in rows.chunks(skim.branches)
    ]
    file = File(path=process, events=rows.entries, entries=rows.entries)
    return _sample(process, skim, file, ak.concatenate(parts))


def _sample(process: str, skim: Skim, file: File, events: ak.Array) -> Sample:
    entries = int(file.entries or 0)
    dataset = Dataset(
        key=f"arrays/{process}__nominal",
        source=table_source("memory", "."),
        process=process,
        variation="nominal",
        cross_section_pb=1.0,
        in_expected_events=True,
        weights=skim.weight or "none",
        files=(file,),
    )
    return Sample(dataset, events, entries, content_digest(events))


def _rows(process: str, table: Table, skim: Skim) -> TableRows:
    """The columns that are wanted: others, such as names, may be of any type."""
    columns = _columns(process, table)
    if not columns or not len(next(iter(columns.values()))):
        raise InputError(f"{process}: the table has no events; give a table with one row an event.")
    known = TableRows(columns, 0).branches
    check_branches(process, "the table", skim.branches, known)
    keys = [key_of(branch, known) for branch in (*skim.branches, *skim.optional)]
    names = dict.fromkeys(key.partition(".")[0] if key not in columns else key for key in keys if key is not None)
    wanted = {name: _column(process, name, columns[name]) for name in names}
    lengths = sorted({len(column) for column in wanted.values()})
    if len(lengths) > 1:
        raise InputError(f"{process}: the table has columns of different lengths {lengths}; give one row an event.")
    return TableRows(wanted, lengths[0] if lengths else len(next(iter(columns.values()))))


def _columns(process: str, table: Table) -> dict[str, Any]:
    """Whatever a table is, its columns by name."""
    if isinstance(table, ak.Array):
        return {name: table[name] for name in table.fields}
    if isinstance(table, Mapping):
        return {str(name): values for name, values in table.items()}
    if isinstance(table, np.ndarray) and table.dtype.names is not None:
        return {name: table[name] for name in table.dtype.names}
    if hasattr(table, "column_names"):
        arrow = ak.from_arrow(table)
        return {name: arrow[name] for name in arrow.fields}
    if hasattr(table, "columns"):
        return {str(name): table[name] for name in table.columns}
    raise InputError(
        f"{process}: a {type(table).__name__} is no table; give a dict of arrays, a DataFrame, a pyarrow table, an "
        "awkward array of records, or the path of a parquet or ROOT file."
    )


def _column(process: str, name: str, values: Any) -> ak.Array:
    if isinstance(values, ak.Array):
        return values
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(
            f"{process}: the column '{name}' is no column of numbers (shape {array.shape}, type {array.dtype}); "
            "convert it, or leave it out of the table."
        )
    return ak.from_numpy(array)
