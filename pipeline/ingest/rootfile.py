"""The rows of a ROOT file: TTree and RNTuple alike, only the branches that are needed, in chunks.

A chunk ends at a cluster border where it can, so that no basket is decompressed twice.
"""

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import uproot

from pipeline.errors import InputError
from pipeline.ingest import rows as rows_of
from pipeline.ingest.branches import classes_for, is_complete
from pipeline.ingest.content import is_local
from pipeline.ingest.facts import RunSums
from pipeline.ingest.failures import explained, may_pass
from pipeline.ingest.rows import check_branches, key_of, nested

__all__ = ["RootRows", "root_rows"]

MOST_ROWS = 10**11
"""More rows than a file has: a number like that is damage, and cutting it into chunks would not end."""
_RUNS = "Runs"
"""NanoAOD's tree of the sums before every skim; its branches end in an underscore in some versions."""
_SUMS = ("genEventCount", "genEventSumw", "genEventSumw2")
_RUN_SUMS = (*_SUMS, *(f"{name}_" for name in _SUMS))


@dataclass(frozen=True)
class RootRows:
    """A TTree or RNTuple of an open file.

    Attributes:
        location: Path or URL.
        file: As uproot opened it.
        tree: Likewise.
        keys: Of all its branches, and of those inside records.
    """

    location: str
    file: Any
    tree: Any
    keys: frozenset[str]

    @property
    def entries(self) -> int:
        """How many rows."""
        return int(self.tree.num_entries)

    @property
    def branches(self) -> Collection[str]:
        """Names of the columns."""
        return self.keys

    def chunks(self, branches: Iterable[str]) -> list[tuple[int, int]]:
        """Ranges of rows: `CHUNK` long or up to twice that, but the last; cut at borders where possible."""
        with explained(self.location):
            borders = self._borders(branches)
        if self.entries > MOST_ROWS or any(not 0 <= border <= self.entries for border in borders):
            raise InputError(
                f"{self.location}: cannot be read (it claims {self.entries} rows, in clusters that end at "
                f"{max(borders, default=0)}); it is damaged, so fetch or make it again."
            )
        starts = [0]
        for border in borders:
            while border - starts[-1] > 2 * rows_of.CHUNK:
                starts.append(starts[-1] + rows_of.CHUNK)
            if border - starts[-1] >= rows_of.CHUNK:
                starts.append(border)
        if starts[-1] < self.entries:
            starts.append(self.entries)
        return list(itertools.pairwise(starts))

    def _borders(self, branches: Iterable[str]) -> list[int]:
        """Rows at which all needed baskets, or a cluster, end."""
        if hasattr(self.tree, "cluster_summaries"):
            return [int(cluster.num_first_entry) for cluster in self.tree.cluster_summaries] + [self.entries]
        offsets = [set(map(int, self.tree[key_of(branch, self.keys)].entry_offsets)) for branch in branches]
        return sorted(set.intersection(*offsets)) if offsets else [self.entries]

    def arrays(self, branches: Sequence[str], start: int, stop: int) -> dict[str, ak.Array]:
        """Columns by name, for a range of rows."""
        keys = {branch: key_of(branch, self.keys) or branch for branch in branches}
        with explained(self.location):
            read = self.tree.arrays(
                list(dict.fromkeys(keys.values())), entry_start=start, entry_stop=stop, library="ak", how=dict
            )
            return {branch: nested(read, key) for branch, key in keys.items()}

    def run_sums(self) -> RunSums | None:
        """What the tree `Runs` says, if there is one with generator weights."""
        with explained(self.location):
            names = {name.split(";")[0] for name in self.file.keys(recursive=False)}
            if _RUNS not in names:
                return None
            runs = self.file[_RUNS]
            known = runs.keys()
            wanted = [next((key for key in (name, f"{name}_") if key in known), None) for name in _SUMS]
            if None in wanted:
                return None
            events, total, squares = (runs[key].array(library="np").sum() for key in wanted)
            return RunSums(int(events), float(total), float(squares))


@contextlib.contextmanager
def root_rows(location: str, tree: str, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[RootRows]:
    """Open a tree with the branches that are needed; with these only where that is possible.

    Args:
        location: Path or URL.
        tree: Name of the TTree or RNTuple, `Events` or `folder/Events`.
        required: Branches that must be there, unless the tree has neither branches nor rows.
        optional: Branches that are wanted if they are there.

    Raises:
        InputError: The file is missing, unreachable or damaged, lacks the tree or a branch.
    """
    names = frozenset((*required, *optional, *_RUN_SUMS))
    counters = {f"n{name}" for name in names} | {f"n{name.split('_')[0]}" for name in names}
    with contextlib.ExitStack() as stack:
        rows = _narrow(stack, location, tree, names | counters, required)
        if rows is None:
            rows = _opened(stack, location, tree, None)
        if rows.entries or rows.keys:
            check_branches(location, tree, required, rows.keys)
        yield rows


def _narrow(
    stack: contextlib.ExitStack, location: str, tree: str, names: frozenset[str], required: Sequence[str]
) -> RootRows | None:
    """A tree with these branches only; None where that does not work, and the whole tree shows why."""
    try:
        rows = _opened(stack, location, tree, classes_for(names))
        with explained(location):
            return rows if is_complete(rows.tree, required) else None
    except InputError as error:
        if may_pass(error.__cause__):
            raise
        return None


def _opened(stack: contextlib.ExitStack, location: str, tree: str, classes: Mapping[str, Any] | None) -> RootRows:
    with explained(location):
        # No caches: a chunk is read once, and memory must not grow with the number of files. A dictionary and a
        # handler, since a path may hold the colons that divide file and tree, or one file system from another, in
        # strings. A copy of the classes, since uproot takes out of it what a damaged file made it misunderstand.
        file = stack.enter_context(
            uproot.open(
                {location: None},
                handler=uproot.MemmapSource if is_local(location) else None,
                custom_classes=None if classes is None else dict(classes),
                object_cache=None,
                array_cache=None,
            )
        )
        here = _tree(location, file, tree)
        return RootRows(location, file, here, frozenset(here.keys()))


def _tree(location: str, file: Any, name: str) -> Any:
    """The tree of a name, which may lie in a folder of the file."""
    here, folder = file, ""
    for part in name.strip("/").split("/"):
        names = sorted({key.split(";")[0] for key in here.keys(recursive=False)}) if hasattr(here, "keys") else []
        if part not in names or isinstance(here, uproot.TTree):
            inside = f" in '{folder.rstrip('/')}'" if folder else ""
            raise InputError(f"{location}: has no tree '{name}'; it holds {', '.join(names) or 'nothing'}{inside}.")
        here, folder = here[part], f"{folder}{part}/"
    if not hasattr(here, "num_entries"):
        if hasattr(here, "keys"):
            inside = ", ".join(f"'{folder}{key.split(';')[0]}'" for key in here.keys(recursive=False)) or "nothing"
            raise InputError(f"{location}: '{name}' is no tree but a folder; it holds {inside}.")
        raise InputError(f"{location}: '{name}' is no tree but a {type(here).__name__.removeprefix('Model_')}.")
    return here
