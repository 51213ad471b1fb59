"""The rows of a parquet file: flat columns, lists and lists of records; a chunk is a row group."""

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import fsspec
import pyarrow.parquet

from pipeline.ingest.facts import RunSums
from pipeline.ingest.failures import explained
from pipeline.ingest.rows import check_branches, key_of, nested

__all__ = ["ParquetRows", "parquet_rows"]

_LIST = re.compile(r"\.list\.(element|item)|\.bag\.array_element")
"""How parquet writes that a column is a list."""


@dataclass(frozen=True)
class ParquetRows:
    """An open parquet file.

    Attributes:
        location: Path or URL.
        file: As pyarrow opened it.
        columns: Parquet's own path of each column, by key: `Jet.list.element.pt` for `Jet.pt`.
    """

    location: str
    file: Any
    columns: Mapping[str, str]

    @property
    def entries(self) -> int:
        """How many rows."""
        return int(self.file.metadata.num_rows)

    @property
    def branches(self) -> Collection[str]:
        """Names of the columns."""
        return self.columns.keys()

    def chunks(self, branches: Iterable[str]) -> list[tuple[int, int]]:  # noqa: ARG002 (all columns have these borders)
        """The row groups."""
        return list(itertools.pairwise(self._borders()))

    def _borders(self) -> list[int]:
        sizes = (self.file.metadata.row_group(number).num_rows for number in range(self.file.num_row_groups))
        return list(itertools.accumulate(sizes, initial=0))

    def arrays(self, branches: Sequence[str], start: int, stop: int) -> dict[str, ak.Array]:
        """Columns by name, for a range of rows."""
        keys = {branch: key_of(branch, self.columns) or branch for branch in branches}
        borders = self._borders()
        spans = enumerate(itertools.pairwise(borders))
        groups = [number for number, (first, last) in spans if first < stop and last > start]
        with explained(self.location):
            table = self.file.read_row_groups(groups, columns=[self.columns[key] for key in keys.values()])
            table = table.slice(start - borders[groups[0]] if groups else 0, stop - start)
            read = {name: ak.from_arrow(table[name].combine_chunks()) for name in table.column_names}
            return {branch: nested(read, key) for branch, key in keys.items()}

    def run_sums(self) -> RunSums | None:
        """None: parquet files have no place for it."""
        return None


@contextlib.contextmanager
def parquet_rows(location: str, required: Sequence[str]) -> Iterator[ParquetRows]:
    """Open a parquet file.

    Args:
        location: Path or URL.
        required: Columns that must be there.

    Raises:
        InputError: The file is missing, unreachable or damaged, or lacks a column.
    """
    with contextlib.ExitStack() as stack:
        with explained(location):
            place = location if "://" not in location else stack.enter_context(fsspec.open(location, "rb"))
            file = stack.enter_context(pyarrow.parquet.ParquetFile(place))
            paths = [file.schema.column(number).path for number in range(len(file.schema.names))]
        rows = ParquetRows(location, file, {_LIST.sub("", path): path for path in paths})
        check_branches(location, "the table", required, rows.branches)
        yield rows
