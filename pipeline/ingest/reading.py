"""Files and a skim in, one awkward array out.

Files are independent, so they are spread over processes, in parts where there are fewer files than processes; what
comes back is put together in the order of the list, whatever finished first. A file that is in the cache is not read.
Before a file is read, its size and its checksum are compared with what is stated of it. What passed of all files may be
more than memory shall hold: then it stays in the cache (`pipeline.ingest.stored`).
"""

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from pipeline.errors import InputError
from pipeline.ingest import cache as cache_of
from pipeline.ingest.content import Content, Verify, check_content, content_of, is_local
from pipeline.ingest.execution import outcomes, workers_that_pay
from pipeline.ingest.facts import FileFacts
from pipeline.ingest.fileskim import FileSkim, joined_parts, skimmed_part
from pipeline.ingest.identity import content_digest, joint_digest, of_file, repeated
from pipeline.ingest.progress import file_counter
from pipeline.ingest.remote import is_http
from pipeline.ingest.skim import Skim, summed
from pipeline.ingest.stored import StoredEvents, StoredFile

__all__ = ["Ingested", "StatedFile", "read"]

LOOKS = 8
"""Files that are looked at, before they are read, at the same time."""

_log = logging.getLogger(__name__)


@runtime_checkable
class StatedFile(Protocol):
    """What is stated of a file, as in a manifest.

    Attributes:
        path: A name that stays when all files move.
        size: Bytes, if known.
        sha256: Checksum, if known.
    """

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> int | None: ...  # noqa: D102

    @property
    def sha256(self) -> str | None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Ingested:
    """A data set in memory, or in the cache.

    Attributes:
        events: One record per event that passed, in file order: lists of object records by collection, the event
            variables, `event` (its number, or its row where it has none), `index` (row number over all files, from 0),
            `collision` (a hash that events of one collision share, and no others) and `weight`.
        files: What was found out about each file, in order; of one that was skipped, why.
        odd: Objects by collection, and events under `event`, with a NaN, an infinite value or a negative pt in what was
            read; a name that has none is not listed. `pipeline.ingest.skim` says how they are treated.
    """

    events: ak.Array | StoredEvents
    files: tuple[FileFacts, ...]
    odd: dict[str, int]

    @property
    def entries(self) -> tuple[int, ...]:
        """Entries of each file."""
        return tuple(file.entries for file in self.files)

    @property
    def entries_read(self) -> int:
        """Entries of all files."""
        return sum(self.entries)

    @property
    def skipped(self) -> tuple[FileFacts, ...]:
        """The files that could not be read."""
        return tuple(file for file in self.files if file.failure)

    @property
    def digest(self) -> str:
        """A checksum of the events, by which another reading of the same data is known."""
        return joint_digest(self.events.keys) if isinstance(self.events, StoredEvents) else content_digest(self.events)


def read(
    files: Sequence[str | Path],
    skim: Skim,
    *,
    tree: str = "Events",
    stated: Sequence[StatedFile] | None = None,
    verify: Verify = "sha256",
    skip_bad_files: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    cache: Path | None = None,
    memory: float = math.inf,
    progress: Progress | None = None,
    label: str = "reading",
) -> Ingested:
    """Read and skim the files of one data set: ROOT files (TTree or RNTuple) and parquet files.

    Args:
        files: Paths or URLs, in order.
        skim: What to read and what to keep.
        tree: Name of the TTree or RNTuple, perhaps in a folder, `ntuples/Events`.
        stated: What is stated of each file, say `Dataset.files`.
        verify: Take size and `sha256` of each file, for the record, and compare them with what is stated; its `size`
            only; or nothing (`no`). Remote files are not read whole, so of them only the size is known.
        skip_bad_files: Leave a file that cannot be used out, instead of ending; it is in `Ingested.skipped`.
        workers: Processes that read at the same time; 1 reads in this one. None takes as many as pay, from the time
            that the first file takes.
        executor: Where to read instead, for example `distributed.Client.get_executor()`.
        cache: Folder for skimmed columns; None keeps nothing.
        memory: Bytes that the events may take. More of them stay in the cache, if there is one.
        progress: A running display, as from `events_progress`, that gets a line for this data set; None shows nothing.
        label: Name of that line, and of the data set in messages.

    Raises:
        InputError: There are no files, one cannot be used or is another than stated, or none is left; or events that
            have to stay in the cache cannot be written there.
    """
    if not files:
        raise InputError(f"{label}: there are no files to read.")
    locations = [_expanded(str(file)) for file in files]
    names = locations if stated is None else [file.path for file in stated]
    contents, failures = _looked_at(locations, stated, verify, cache is not None, skip_bad_files)
    wanted = {number: location for number, location in enumerate(locations) if number not in failures}
    skims: dict[int, FileSkim] = {}
    keys: dict[int, str] = {}
    held = 0
    with file_counter(progress, label, len(locations)) as advance:
        for number, outcome in _read(wanted, contents, tree, skim, skip_bad_files, workers, executor, cache):
            if isinstance(outcome, InputError):
                failures[number] = outcome
                advance(0)
                continue
            advance(0 if outcome.cached else outcome.skim.entries)
            skims[number], keys[number] = outcome.skim, outcome.key
            held += outcome.skim.events.nbytes
            if cache and held > memory:
                skims = {number: each.without_columns() for number, each in skims.items()}
    for failure in failures.values():
        _log.warning("%s: a file is skipped: %s", label, failure)
    if not skims:
        raise next(iter(failures.values()))
    facts = [
        _facts(location, contents.get(number), skims.get(number), failures.get(number))
        for number, location in enumerate(locations)
    ]
    order = sorted(skims)
    kept = [skims[number] for number in order]
    starts = list(itertools.accumulate((file.entries for file in kept[:-1]), initial=0))
    collisions = _collisions(label, kept, [names[number] for number in order], skim)
    if cache and held > memory:
        stored = [
            StoredFile(keys[number], locations[number], start, len(file.events))
            for number, start, file in zip(order, starts, kept, strict=True)
        ]
        events = _left_in_cache(label, cache, stored, kept, collisions)
    else:
        events = _joined_events(kept, starts, collisions)
    ingested = Ingested(events=events, files=tuple(facts), odd=summed(file.odd for file in kept))
    _report(label, ingested)
    return ingested


def _expanded(location: str) -> str:
    return str(Path(location).expanduser()) if is_local(location) and location.startswith("~") else location


def _looked_at(
    locations: Sequence[str], stated: Sequence[StatedFile] | None, verify: Verify, cached: bool, skip: bool
) -> tuple[dict[int, Content], dict[int, InputError]]:
    """The content of each file, compared with what is stated; and what is wrong with those to be skipped.

    A web server is asked in any case: what is wrong with it, nobody could tell from what a reader then fails at.
    """
    wanted = [number for number, place in enumerate(locations) if verify != "no" or cached or is_http(place)]

    def look(number: int) -> Content | InputError:
        location, file = locations[number], None if stated is None else stated[number]
        try:
            content = _content(location, verify == "sha256", cached)
            if file is not None and verify != "no":
                sha256 = file.sha256 if verify == "sha256" else None
                check_content(location, content, size=file.size, sha256=sha256)
        except InputError as error:
            return error
        return content

    with ThreadPoolExecutor(LOOKS) as threads:
        looks = dict(zip(wanted, threads.map(look, wanted), strict=True))
    failures = {number: look for number, look in looks.items() if isinstance(look, InputError)}
    if failures and not skip:
        raise next(iter(failures.values()))
    return {number: look for number, look in looks.items() if isinstance(look, Content)}, failures


def _content(location: str, verified: bool, cached: bool) -> Content:
    content = content_of(location, hashed=verified and is_local(location))
    if not cached or content.sha256 is not None:
        return content
    whole = is_local(location) and content.size <= cache_of.WHOLE
    return content_of(location, hashed=whole, marked=not whole)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """The skim of a file; with its key, where there is a cache."""

    skim: FileSkim
    key: str = ""
    cached: bool = False


def _read(
    files: Mapping[int, str],
    contents: Mapping[int, Content],
    tree: str,
    skim: Skim,
    skip: bool,
    workers: int | None,
    executor: Executor | None,
    cache: Path | None,
) -> Iterator[tuple[int, _Outcome | InputError]]:
    """Take files from the cache or read them; what could not be read, if that shall not end it, is an error."""
    keys: dict[int, str] = {}
    missing = dict(files)
    if cache:
        cache_of.sweep(cache)
        keys = {number: cache_of.entry_key(contents[number], tree, skim) for number in files}
        for number, key in keys.items():
            entry = cache_of.load(cache, key)
            if entry is not None:
                del missing[number]
                yield number, _Outcome(entry, key, cached=True)
    for number, outcome in _as_completed(missing, contents, tree, skim, skip, workers, executor):
        if isinstance(outcome, InputError):
            yield number, outcome
            continue
        if cache:
            cache_of.store(cache, keys[number], outcome)
        yield number, _Outcome(outcome, keys.get(number, ""))


def _as_completed(
    files: Mapping[int, str],
    contents: Mapping[int, Content],
    tree: str,
    skim: Skim,
    skip: bool,
    workers: int | None,
    executor: Executor | None,
) -> Iterator[tuple[int, FileSkim | InputError]]:
    """Read files and yield each, under its number, when its last part is there."""
    left = dict(files)
    if executor is None and workers is None and len(left) > 1:
        first, start = next(iter(left)), time.perf_counter()
        yield first, _attempt(left[first], tree, skim, 0, 1, skip)
        took = time.perf_counter() - start
        del left[first]
        sizes = [contents[number].size for number in files if number in contents]
        share = sum(sizes[1:]) / max(sizes[0], 1) if len(sizes) == len(files) else float(len(left))
        workers = workers_that_pay(took, share, len(left))
    if not left:
        return
    parts = math.ceil((workers or 1) / len(left))
    numbers = [number for number in left for _ in range(parts)]
    tasks = [(location, tree, skim, part, parts, skip) for location in left.values() for part in range(parts)]
    waiting: dict[int, dict[int, FileSkim | InputError]] = {number: {} for number in left}
    for position, piece in outcomes(_attempt, tasks, workers=workers or 1, executor=executor):
        pieces = waiting[numbers[position]]
        pieces[position % parts] = piece
        if len(pieces) == parts:
            del waiting[numbers[position]]
            yield numbers[position], _joined([pieces[part] for part in range(parts)])


def _attempt(location: str, tree: str, skim: Skim, part: int, parts: int, skip: bool) -> FileSkim | InputError:
    """The skim of a part of a file, or what is wrong with it."""
    try:
        return skimmed_part(location, tree, skim, part, parts)
    except InputError as error:
        if not skip:
            raise
        return error


def _joined(pieces: Sequence[FileSkim | InputError]) -> FileSkim | InputError:
    skims = [piece for piece in pieces if isinstance(piece, FileSkim)]
    failures = [piece for piece in pieces if isinstance(piece, InputError)]
    return failures[0] if failures else joined_parts(skims)


def _facts(location: str, content: Content | None, skim: FileSkim | None, failure: InputError | None) -> FileFacts:
    return FileFacts(
        location=location,
        entries=0 if skim is None else skim.entries,
        size=None if content is None else content.size,
        sha256=None if content is None else content.sha256,
        generated=None if skim is None else skim.generated,
        runs=None if skim is None else skim.runs,
        failure="" if failure is None else str(failure),
    )


def _joined_events(
    files: Sequence[FileSkim], starts: Sequence[int], collisions: Sequence[NDArray[np.uint64]]
) -> ak.Array:
    """The events of all files of a data set, in order; `index` goes on from file to file."""
    shifted = [
        ak.with_field(ak.with_field(file.events, file.events["index"] + start, "index"), hashes, "collision")
        for file, start, hashes in zip(files, starts, collisions, strict=True)
    ]
    # A file without rows may know no types; it would lend those that it guesses to the others.
    return ak.concatenate([events for file, events in zip(files, shifted, strict=True) if file.entries] or shifted[:1])


def _left_in_cache(
    label: str,
    cache: Path,
    stored: Sequence[StoredFile],
    files: Sequence[FileSkim],
    collisions: Sequence[NDArray[np.uint64]],
) -> StoredEvents:
    """The events of all files of a data set where they are; those without any are left out."""
    for file in stored:
        if not cache_of.is_kept(cache, file.key):
            raise InputError(
                f"{label}: its events are more than memory shall hold (data.memory), and cannot be kept in {cache}; "
                "say with data.cache where there is room, or allow more memory"
            )
    return StoredEvents(
        folder=cache,
        files=tuple(file for file in stored if file.events),
        collision=np.concatenate(collisions),
        weight=np.concatenate([ak.to_numpy(file.events["weight"]) for file in files]),
    )


def _collisions(label: str, files: Sequence[FileSkim], names: Sequence[str], skim: Skim) -> list[NDArray[np.uint64]]:
    """What names the collisions of each file: their numbers, and the file where these are not enough."""
    hashes = [ak.to_numpy(file.events["collision"]) for file in files]
    apart = [not file.numbered for file in files]
    if skim.collision is None and all(file.numbered for file in files if file.entries):
        within = sum(repeated(column) for column in hashes)
        across = repeated(np.concatenate(hashes)) - within
        if across:
            _log.warning(
                "%s: run, luminosity block and event number of %d events are those of events in another file; events "
                "of different files are taken for different collisions. If they are the same, list their file once; "
                "if they are simulations of one collision, say in the manifest which branches name it (collision).",
                label,
                across,
            )
            apart = [True] * len(files)
        if within:
            _log.warning(
                "%s: run, luminosity block and event number of %d events are those of an earlier event of the same "
                "file; they are taken for one collision, so they count as one in every error. If they are simulations "
                "of one collision, say in the manifest which branches name it (collision).",
                label,
                within,
            )
    columns = zip(hashes, names, apart, strict=True)
    return [of_file(column, name) if alone else column for column, name, alone in columns]


def _report(label: str, ingested: Ingested) -> None:
    counted = ", ".join(f"{number} of {name}" for name, number in ingested.odd.items())
    if counted:
        _log.warning("%s: NaN, infinite or negative values in %s; a cut on NaN is failed.", label, counted)
    if not len(ingested.events):
        _log.warning(
            "%s: none of %d events passes the loosest cuts, so its templates are empty; if it should have some, widen "
            "the bounds of the cuts or check what is required.",
            label,
            ingested.entries_read,
        )
