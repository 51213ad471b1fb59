"""One ROOT file in, its skim out.

The file is read in chunks of rows, only the branches that are needed, and each chunk is skimmed before the next is
read: memory holds one chunk and what passed. A chunk ends at a cluster border where it can, so that no basket is
decompressed twice. TTree and RNTuple are read alike; only their borders are asked for differently.

Whatever uproot has to say about a file that is missing, cut short or not what it seems becomes one sentence, with the
file and the way out.
"""

import contextlib
import dataclasses
import difflib
import itertools
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import awkward as ak
import cramjam
import numpy as np
import uproot
from numpy.typing import NDArray

from pipeline.ingest.branches import classes_for, is_complete
from pipeline.ingest.manifest import InputError
from pipeline.ingest.skim import Collection, Columns, Skim, skimmed, summed

__all__ = ["CHUNK", "FileSkim", "explained", "joined_parts", "skimmed_part"]

CHUNK = 100_000
"""Rows that are read at a time."""

PAUSES = (1.0, 4.0)
"""Seconds to wait before a remote file is tried again after the connection broke."""

_BROKEN_OFF = (aiohttp.ClientError, TimeoutError, ConnectionError)
# What a damaged file raises, seen by cutting it and by flipping its bytes.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AssertionError,
    uproot.DeserializationError,
    struct.error,
    zlib.error,
    cramjam.DecompressionError,
)


@dataclasses.dataclass(frozen=True)
class FileSkim:
    """What passed of a file, or of a part of it.

    Attributes:
        events: As `Skimmed.events`; `index` counts from the start of the file.
        entries: Rows of the whole file.
        odd: As `Skimmed.odd`.
    """

    events: ak.Array
    entries: int
    odd: dict[str, int]


def skimmed_part(location: str, tree: str, skim: Skim, part: int = 0, parts: int = 1) -> FileSkim:
    """Read and skim one of several equal shares of a file; if the connection to a remote one breaks, try again twice.

    Args:
        location: Path or URL.
        tree: Name of the TTree or RNTuple.
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
            if not _may_pass(error.__cause__):
                raise
        time.sleep(pause)
    return _skimmed_part(location, tree, skim, part, parts)


def _skimmed_part(location: str, tree: str, skim: Skim, part: int, parts: int) -> FileSkim:
    with _rows(location, tree, skim) as rows:
        with explained(location):
            chunks = _chunks(rows, skim.branches)
        share = chunks[len(chunks) * part // parts : len(chunks) * (part + 1) // parts]
        # A share without chunks still reads no rows, so that its columns have their types.
        pieces = [
            skimmed(_columns(location, rows, skim, start, stop), skim, first_index=start, location=location)
            for start, stop in share or [(0, 0)]
        ]
        return FileSkim(
            events=ak.concatenate([piece.events for piece in pieces]),
            entries=int(rows.num_entries),
            odd=summed(piece.odd for piece in pieces),
        )


def joined_parts(parts: Sequence[FileSkim]) -> FileSkim:
    """All parts of one file, in order, as one."""
    return FileSkim(
        events=ak.concatenate([part.events for part in parts]),
        entries=parts[0].entries,
        odd=summed(part.odd for part in parts),
    )


@contextlib.contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one sentence.

    Args:
        location: The path or URL that is being read.

    Raises:
        InputError: Instead of whatever the libraries raised.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        message = f"{location}: no such file; correct the path, or get it with scripts/fetch_data.py."
        raise InputError(message) from error
    except IsADirectoryError as error:
        raise InputError(f"{location}: is a folder; give the path of a ROOT file.") from error
    except ImportError as error:
        message = f"{location}: this protocol needs another package ({' '.join(str(error).split())[:200]})."
        raise InputError(message) from error
    except (*_BROKEN_OFF, *_DAMAGED) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        remote = "check the address and the network, or get it with scripts/fetch_data.py"
        advice = remote if "://" in location else "it is damaged or incomplete, so fetch or make it again"
        raise InputError(f"{location}: cannot be read ({reason}); {advice}.") from error


def _may_pass(error: BaseException | None) -> bool:
    """Whether another attempt may end better: a connection that broke, a server that is busy."""
    status = getattr(error, "status", None)
    return isinstance(error, _BROKEN_OFF) and (status is None or status == 429 or status >= 500)


@contextlib.contextmanager
def _rows(location: str, tree: str, skim: Skim) -> Iterator[Any]:
    """The tree with the branches of a skim, opened for these only where that is possible."""
    counters = [f"n{name}" for name in (*skim.branches, *(s.collection for s in skim.objects))]
    with _opened(location, classes_for(frozenset((*skim.branches, *counters)))) as file:
        with explained(location):
            rows = _tree(location, file, tree)
            complete = is_complete(rows, skim.branches)
        if complete:
            yield rows
            return
    with _opened(location, None) as file:
        with explained(location):
            rows = _tree(location, file, tree)
            _check_branches(location, tree, skim.branches, rows.keys())
        yield rows


@contextlib.contextmanager
def _opened(location: str, classes: Mapping[str, Any] | None) -> Iterator[Any]:
    with explained(location):
        # No caches: a chunk is read once, and memory must not grow with the number of files.
        file = uproot.open(location, custom_classes=classes, object_cache=None, array_cache=None)
    with file:
        yield file


def _tree(location: str, file: Any, name: str) -> Any:
    names = {key.split(";")[0] for key in file.keys(recursive=False)}
    if name in names:
        return file[name]
    raise InputError(f"{location}: has no tree '{name}'; it holds {', '.join(sorted(names)) or 'nothing'}.")


def _check_branches(location: str, tree: str, wanted: tuple[str, ...], present: Sequence[str]) -> None:
    known = set(present)
    missing = [branch for branch in wanted if branch not in known]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], present, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"its {len(present)} branches have other names"
    others = f" (and {len(missing) - 1} more that are wanted)" if len(missing) > 1 else ""
    raise InputError(f"{location}: '{tree}' has no branch '{missing[0]}'{others}; {hint}.")


def _chunks(tree: Any, branches: tuple[str, ...]) -> list[tuple[int, int]]:
    """Row ranges that cover a tree: `CHUNK` long or up to twice that, but the last; cut at borders where possible."""
    starts = [0]
    for border in _borders(tree, branches):
        while border - starts[-1] > 2 * CHUNK:
            starts.append(starts[-1] + CHUNK)
        if border - starts[-1] >= CHUNK:
            starts.append(border)
    if starts[-1] < tree.num_entries:
        starts.append(int(tree.num_entries))
    return list(itertools.pairwise(starts))


def _borders(tree: Any, branches: tuple[str, ...]) -> list[int]:
    """Rows at which all needed baskets, or a cluster, end."""
    if hasattr(tree, "cluster_summaries"):
        return [int(cluster.num_first_entry) for cluster in tree.cluster_summaries] + [int(tree.num_entries)]
    return sorted(set.intersection(*(set(map(int, tree[branch].entry_offsets)) for branch in branches)))


def _columns(location: str, tree: Any, skim: Skim, start: int, stop: int) -> Columns:
    with explained(location):
        arrays = tree.arrays(list(skim.branches), entry_start=start, entry_stop=stop, library="ak", how=dict)
    objects = {s.collection: _collection(location, s.collection, s.columns, arrays, start) for s in skim.objects}
    _check_types(location, skim, objects)
    events = {name: _flat(location, name, arrays[name]) for name in skim.event_columns}
    return Columns(collections=objects, events=events)


def _collection(
    location: str, name: str, variables: tuple[str, ...], arrays: dict[str, ak.Array], start: int
) -> Collection:
    counts: dict[str, NDArray[np.int64]] = {}
    for variable in variables:
        array = arrays[f"{name}_{variable}"]
        if array.ndim != 2:
            raise InputError(f"{location}: branch '{name}_{variable}' is not a list per event; '{name}' must be lists.")
        counts[variable] = ak.to_numpy(ak.num(array)).astype(np.int64, copy=False)
        _check_counts(location, name, (variables[0], variable), counts, start)
    flat = {variable: ak.to_numpy(ak.flatten(arrays[f"{name}_{variable}"])) for variable in variables}
    return Collection(counts=counts[variables[0]], variables=flat)


def _check_types(location: str, skim: Skim, objects: dict[str, Collection]) -> None:
    for s in skim.objects:
        for requirement in s.requirements:
            kind = objects[s.collection].variables[requirement.variable].dtype
            if requirement.op == "bits" and kind.kind not in "iub":
                raise InputError(
                    f"{location}: branch '{s.collection}_{requirement.variable}' has the type {kind}, but bits are "
                    "required of it; require a value with 'equal', or make the file again with integers."
                )


def _check_counts(
    location: str, name: str, pair: tuple[str, str], counts: dict[str, NDArray[np.int64]], start: int
) -> None:
    first, second = (counts[variable] for variable in pair)
    if np.array_equal(first, second):
        return
    row = int(np.flatnonzero(first != second)[0])
    raise InputError(
        f"{location}: in entry {start + row} the branches '{name}_{pair[0]}' and '{name}_{pair[1]}' list {first[row]} "
        f"and {second[row]} objects; the file contradicts itself and must be made again."
    )


def _flat(location: str, name: str, array: ak.Array) -> NDArray[Any]:
    if array.ndim != 1:
        raise InputError(f"{location}: branch '{name}' is a list per event, but one value per event is needed.")
    values: NDArray[Any] = ak.to_numpy(array)
    return values
