"""One ROOT file: which rows make a chunk, and the columns of a chunk.

Everything that uproot can say about a file that is missing, cut short or not what it seems becomes one sentence here,
with the file and the way out. TTree and RNTuple are read alike; only their cluster borders are asked for differently.
A chunk ends at a border where it can, so that no basket is decompressed twice.
"""

import contextlib
import difflib
import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import awkward as ak
import cramjam
import numpy as np
import uproot
from numpy.typing import NDArray

from pipeline.ingest.skim import Collection, Columns, Skim
from pipeline.manifest import InputError

__all__ = ["chunks", "columns", "open_tree"]

# What a damaged file raises, seen by cutting it and by flipping its bytes.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, AssertionError, zlib.error, cramjam.DecompressionError)


@contextlib.contextmanager
def open_tree(location: str, tree: str, branches: tuple[str, ...]) -> Iterator[Any]:
    """The TTree or RNTuple of a file, checked to have the branches.

    Args:
        location: Path or URL.
        tree: Name of the TTree or RNTuple.
        branches: Branches that will be read.

    Raises:
        InputError: The file is missing, unreachable, damaged, or lacks the tree or a branch, now or while it is read.
    """
    with contextlib.ExitStack() as stack:
        with _explained(location):
            # No caches: a chunk is read once, and memory must not grow with the number of files.
            file = stack.enter_context(uproot.open(location, object_cache=None, array_cache=None))
        if tree not in file:
            names = ", ".join(sorted({name.split(";")[0] for name in file.keys(recursive=False)})) or "nothing"
            raise InputError(f"{location}: has no tree '{tree}'; it holds {names}.")
        with _explained(location):
            opened = file[tree]
            _check_branches(location, tree, branches, opened.keys())
            yield opened


def chunks(tree: Any, branches: tuple[str, ...], entries: int) -> list[tuple[int, int]]:
    """Row ranges that cover a tree, about `entries` long and ending at cluster borders where those are near enough.

    Args:
        tree: An open TTree or RNTuple.
        branches: Branches that will be read.
        entries: Wanted length; no chunk is longer than twice that.
    """
    starts = [0]
    for border in _borders(tree, branches):
        while border - starts[-1] > 2 * entries:
            starts.append(starts[-1] + entries)
        if border - starts[-1] >= entries:
            starts.append(border)
    if starts[-1] < tree.num_entries or tree.num_entries == 0:
        starts.append(tree.num_entries)
    return list(itertools.pairwise(starts))


def columns(location: str, tree: Any, skim: Skim, start: int, stop: int) -> Columns:
    """Read the columns that a skim needs.

    Args:
        location: Where the tree comes from, for messages.
        tree: An open TTree or RNTuple.
        skim: Says which branches are read.
        start: First row.
        stop: Row after the last.

    Raises:
        InputError: A branch has another shape than in NanoAOD, or the variables of a collection disagree on the number
            of objects.
    """
    arrays = tree.arrays(list(skim.branches), entry_start=start, entry_stop=stop, library="ak", how=dict)
    objects = {s.collection: _collection(location, s.collection, s.columns, arrays, start) for s in skim.objects}
    events = {name: _flat(location, name, arrays[name]) for name in skim.event_columns}
    return Columns(collections=objects, events=events)


@contextlib.contextmanager
def _explained(location: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"{location}: no such file; correct the path, or get it with scripts/fetch_data.py."
        ) from error
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        advice = (
            "check the address and the network"
            if "://" in location
            else "it is damaged or incomplete, fetch or make it again"
        )
        raise InputError(f"{location}: cannot be read ({type(error).__name__}: {reason}); {advice}.") from error


def _check_branches(location: str, tree: str, wanted: tuple[str, ...], present: list[str]) -> None:
    missing = [branch for branch in wanted if branch not in set(present)]
    if missing:
        near = difflib.get_close_matches(missing[0], present, n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else f"it has {len(present)} others"
        others = f" (and {len(missing) - 1} more that are wanted)" if len(missing) > 1 else ""
        raise InputError(f"{location}: '{tree}' has no branch '{missing[0]}'{others}; {hint}.")


def _borders(tree: Any, branches: tuple[str, ...]) -> list[int]:
    if hasattr(tree, "common_entry_offsets"):
        return [int(border) for border in tree.common_entry_offsets(filter_name=list(branches))]
    return [*(int(cluster.num_first_entry) for cluster in tree.cluster_summaries), int(tree.num_entries)]


def _collection(
    location: str, name: str, variables: tuple[str, ...], arrays: dict[str, ak.Array], start: int
) -> Collection:
    counts: NDArray[np.int64] | None = None
    flat = {}
    for variable in variables:
        array = arrays[f"{name}_{variable}"]
        if array.ndim != 2:
            raise InputError(
                f"{location}: branch '{name}_{variable}' is not a list per event, so it is no variable of '{name}'."
            )
        these = ak.to_numpy(ak.num(array)).astype(np.int64, copy=False)
        if counts is not None and not np.array_equal(these, counts):
            row = int(np.flatnonzero(these != counts)[0])
            raise InputError(
                f"{location}: in entry {start + row} the branches '{name}_{variables[0]}' and '{name}_{variable}' list "
                f"{counts[row]} and {these[row]} objects; the file is inconsistent and must be made again."
            )
        counts = these
        flat[variable] = ak.to_numpy(ak.flatten(array))
    assert counts is not None
    return Collection(counts=counts, variables=flat)


def _flat(location: str, name: str, array: ak.Array) -> NDArray[Any]:
    if array.ndim != 1:
        raise InputError(f"{location}: branch '{name}' is a list per event, but one value per event is needed.")
    values: NDArray[Any] = ak.to_numpy(array)
    return values
