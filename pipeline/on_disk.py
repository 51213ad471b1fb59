"""The events of a run on disk, part by part, where they are more than memory shall hold.

Every part is a random share of every data set, and no collision is in two parts. They are kept for the next run of the
same events, under a key of everything that made them: the events as they were read, the code, and what the analysis
says of them. As a check of the key itself, it also holds a checksum of the first events as they become arrays.
"""

import hashlib
import inspect
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from math import ceil, inf
from pathlib import Path
from typing import Any

import awkward as ak
import jax
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.event_data import Stream, Workers
from pipeline.events import split
from pipeline.events.batch import EventGroup
from pipeline.events.stream import store_parts
from pipeline.ingest.samples import Sample
from pipeline.ingest.stored import StoredEvents
from pipeline.memory import event_cache, memory_for
from pipeline.names import Names
from pipeline.parts import OTHER_CHUNK_SIZE, Part, chunk_size_of, dense, devices_for, left_out, pick, recipe_of
from pipeline.translation import make_edges

__all__ = ["stream", "too_large"]

Groups = tuple[EventGroup, ...]

SECTIONS = {
    "seed",
    "objects",
    "event_variables",
    "missing_momentum",
    "corrections",
    "sets",
    "cuts",
    "variations",
}
"""Of a config, that say what becomes of events as they were read."""
OTHER_LOTS = 1 << 62
LINES = 10
"""That tell how far the writing is."""
TRIAL = 20_000
"""Events that tell how much memory one takes."""
LIGHT = 2_000
"""Bytes: hardly an event takes more, so so many bytes for each are enough without a trial."""
MAKING = 3
"""While events become arrays, they take so many times the memory of these."""
ROOM = 8
"""Pieces that fit into memory: one that is being made takes several times its own, one that is used is not alone."""
PIECE = 1 << 28
"""Bytes of a piece at most: enough that what a piece costs by itself is little beside its events."""


def too_large(config: Config, names: Names, samples: Sequence[Sample], workers: Workers | None = None) -> Groups | None:
    """The first events as arrays, if all of them would take more memory than they may until they are; else None.

    On a cluster they are too large, however many they are.
    """
    number, memory = sum(len(sample.events) for sample in samples), _memory(config)
    if not workers and all(isinstance(sample.events, ak.Array) for sample in samples) and number * LIGHT < memory:
        return None
    trial = _trial(config, names, samples)
    return trial if workers or MAKING * number * _bytes_per_event(trial) > memory else None


def stream(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    trial: Groups,
    report: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> tuple[list[Stream], dict[str, int]]:
    """Parts of the events on disk, each to be read in pieces; and the objects that are in no bit mask.

    Args:
        config: the run.
        names: of it.
        analysis: its static part.
        samples: all data sets.
        parts: which events of each sample are in each part; each stands for all of them.
        trial: from `too_large`.
        report: gets a line while pieces are made.
        workers: who makes them, and computes with them; this process, if nobody does.

    Raises:
        InputError: they cannot be written.
    """
    size = max(1, int(_piece_bytes(config) / _bytes_per_event(trial)))
    least = workers.number if workers else 1
    numbers = [max(least, ceil(sum(int(mask.sum()) for mask in part) / size)) for part in parts]
    devices = 1 if workers else devices_for(min(size, sum(len(sample.events) for sample in samples)))
    places = [_places(config, sample) for sample in samples]
    pieces = [
        [_piece(mask, place, own) for mask, place in zip(part, places, strict=True)]
        for part, own in zip(parts, numbers, strict=True)
    ]
    make = partial(_made, config, names, samples, pieces, numbers, devices)
    key = _key(config, names, samples, parts, trial, (*numbers, devices))
    folder = (config.data.cache or event_cache()) / "parts" / key

    def progress(done: int) -> None:
        if done * LINES // sum(numbers) > (done - 1) * LINES // sum(numbers):
            report(f"writing events to disk: {done} of {sum(numbers)} parts")

    try:
        stored = store_parts(make, sum(numbers), folder, progress, workers.each if workers else map)
    except OSError as error:
        raise InputError(
            f"{folder}: the events are more than memory shall hold (data.memory) and cannot be kept there ({error}); "
            "say with data.cache where there is room, or allow more memory"
        ) from error
    report(f"events are read from disk, {stored.bytes / 1e9:.2g} GB in {folder}")
    edges, ends = make_edges(config), [0, *accumulate(numbers)]
    streams = [
        Stream(
            stored,
            tuple(range(start, stop)),
            edges,
            recipe_of(config, analysis, samples, part),
            workers=workers,
        )
        for part, (start, stop) in zip(parts, pairwise(ends), strict=True)
    ]
    unseen = sum((Counter(stored.about(number)["left_out"]) for number in range(sum(numbers))), Counter[str]())
    return streams, dict(unseen)


def _memory(config: Config) -> float:
    """Bytes that events may take: of this machine, or of its GPU where that computes."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", inf) for device in jax.local_devices()]
    return min(memory_for(config.data.memory), sum(limits) / 2)


def _piece_bytes(config: Config) -> float:
    """A power of two, so that pieces stay what they are while what is free changes a little."""
    return min(float(PIECE), 2.0 ** np.floor(np.log2(_memory(config) / ROOM)))


def _trial(config: Config, names: Names, samples: Sequence[Sample]) -> Groups:
    """The first events of every data set as arrays."""
    share = min(1.0, TRIAL / sum(len(sample.events) for sample in samples))
    first = [np.arange(len(sample.events)) < share * len(sample.events) for sample in samples]
    total = sum(len(sample.events) for sample in samples)
    picked = pick(config, names, samples, first)
    (groups,) = dense(config, names, [picked], devices=1, of=total, largest=_largest_chunk())
    return groups


def _bytes_per_event(groups: Groups) -> float:
    """Without those of empty places in chunks: larger parts have hardly any."""
    filled = [float(np.mean(np.asarray(group.index) >= 0)) for group in groups]
    taken = [sum(leaf.nbytes for leaf in jax.tree.leaves(group)) for group in groups]
    events = sum(int(np.count_nonzero(np.asarray(group.index) >= 0)) for group in groups)
    return sum(share * size for share, size in zip(filled, taken, strict=True)) / events


def _places(config: Config, sample: Sample) -> NDArray[np.float64]:
    """Where each event stands among those of its data set, from 0 to 1: file after file, in a random order in each.

    So making a piece reads few files, and whole collisions are in it.
    """
    events = sample.events
    bounds = events.bounds if isinstance(events, StoredEvents) else np.array([0, len(events)])
    # Other lots than those of training and validation: a piece has as much of either.
    lots = split.lots(config.seed ^ OTHER_LOTS, ak.to_numpy(events.collision).astype(np.uint64))
    counts = np.diff(bounds)
    return (np.repeat(bounds[:-1], counts) + lots * np.repeat(counts, counts)) / max(1, len(events))


def _piece(mask: NDArray[np.bool_], place: NDArray[np.float64], number: int) -> NDArray[np.int32]:
    """The piece of each event, of so many; −1 for events of other parts. A place may be rounded to 1."""
    return np.where(mask, np.minimum(place * number, number - 1), -1).astype(np.int32)


def _largest_chunk() -> int:
    """Of a CPU, half of what it has in memory: less of a part is empty, and less is read."""
    return 2048 if jax.default_backend() == "cpu" else OTHER_CHUNK_SIZE


def _made(
    config: Config,
    names: Names,
    samples: Sequence[Sample],
    pieces: Sequence[Sequence[NDArray[np.int32]]],
    numbers: Sequence[int],
    devices: int,
    number: int,
) -> tuple[Groups, dict[str, Any]]:
    """The groups of a piece, and what is to be remembered of it; pieces are numbered through all parts."""
    ends = list(accumulate(numbers))
    part = bisect_right(ends, number)
    place = number - ends[part] + numbers[part]
    own = pieces[part]
    picked = pick(config, names, samples, [each == place for each in own], whole=[each >= 0 for each in own])
    total = sum(len(sample.events) for sample in samples)
    (groups,) = dense(config, names, [picked], devices, of=total, largest=_largest_chunk())
    return groups, {"left_out": left_out(picked), "events": sum(map(len, picked))}


def _key(
    config: Config,
    names: Names,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    trial: Groups,
    sizes: tuple[int, ...],
) -> str:
    """A checksum of all that decides what is in the parts."""
    about = {
        "samples": [sample.digest for sample in samples],
        "config": config.model_dump(mode="json", include=SECTIONS),
        "asked": sorted(names.asked or ()),
        "read": {name: sorted(variables) for name, variables in names.read.items()},
        "sizes": [chunk_size_of(config), *sizes],
        "device": jax.default_backend(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for source in _sources(config, names):
        digest.update(source)
    for leaf in jax.tree.leaves(trial):
        digest.update(np.ascontiguousarray(leaf).data)
    for part in parts:
        for mask in part:
            digest.update(np.packbits(mask).data)
    return digest.hexdigest()[:32]


def _sources(config: Config, names: Names) -> Iterator[bytes]:
    """What makes arrays of events: this package, corrections, the event function with its file, and what it reads."""
    package, function = Path(__file__).parent, names.function
    files = [*package.glob("*.py"), *package.glob("*/*.py"), *(each.file for each in config.corrections.values())]
    files += getattr(function, "files", ())
    for file in sorted(files):
        yield file.read_bytes()
    module = function if inspect.ismodule(function) else inspect.getmodule(type(function))
    for source in (module, function, type(function)):
        with suppress(OSError, TypeError):  # of what was typed at a prompt, or is built in, there is none
            yield inspect.getsource(source).encode()  # type: ignore[arg-type]
