"""Ragged events to dense groups.

Events are put together by their number of objects, on a grid of capacities, so that hardly any space is padding and no
event is cut short. What counts is the collection that has most objects; there is room for all objects of the others.
Within a group each data set is cut into chunks of equal size, the last one filled up with events of weight 0.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.events.batch import EventGroup, HostEvent
from pipeline.events.devices import deal, placed
from pipeline.events.flux import MAX_OBJECTS
from pipeline.events.function import call
from pipeline.events.ragged import Column, RaggedSample
from pipeline.events.variations import round_down, round_up

__all__ = ["dense_groups"]

# Each group is compiled by itself, and room for absent objects costs memory. So few groups for few events (a third cost
# the quickstart four seconds), in chunks so small that the events in each are alike; a finer grid for many events on a
# CPU; in between on a GPU, where each task has its price.
FINE_GRID_FROM = 300_000
COARSE = (16, MAX_OBJECTS)
FINE = (5, 7, 9, 12, 16, 22, MAX_OBJECTS)
OF_A_GPU = (8, 16, MAX_OBJECTS)
CHUNKS = {COARSE: 8, FINE: 1, OF_A_GPU: 1}
"""In how many chunks at least the largest data set of a group is cut."""

NO_EVENT = {"weight": 0.0, "index": -1.0, "collision": -1.0}
"""What every event has, where there is none."""
_Table = dict[str, Column]
_Prepare = Callable[[Mapping[str, _Table], _Table, tuple[int, int]], _Table]


class _Shape(NamedTuple):
    """Room in a group: objects of each collection, kinematic variations, events in a chunk, chunks of each data set."""

    capacity: int
    objects: Mapping[str, int]
    kinematics: int
    events: int
    chunks: tuple[int, ...]


def dense_groups(
    folds: Sequence[Sequence[RaggedSample]],
    function: object,
    *,
    chunk_size: int,
    asked: Collection[str] | None = None,
    read: Mapping[str, Collection[str]] | None = None,
    from_below: Collection[str] = (),
    devices: int = 1,
    of: int | None = None,
) -> list[tuple[EventGroup, ...]]:
    """Several disjoint parts of the same data sets as dense groups of equal shapes: compiled code serves all of them.

    Args:
        folds: for each part, one sample a data set, by its number; no event has more than `MAX_OBJECTS` of a kind.
        function: the event function, which prepares what no threshold changes.
        chunk_size: largest number of events in a chunk.
        asked: as in `HostEvent`.
        read: variables of each collection that are kept, once the event function has prepared; `None` for all.
        from_below: varied columns (`jet.pt`, `met`) that cuts keep below a threshold only. They are rounded down to
            float32, all others up, so that comparisons in float32 and float64 agree.
        devices: how many of them share the events (`pipeline.events.devices`).
        of: how many events there are in all, where these are not all.
    """
    prepare = partial(_prepared, function, asked)
    main = _most_frequent([sample for samples in folds for sample in samples])
    folds = [[_sorted(sample, main) for sample in samples] for samples in folds]
    kinematics = max(sample.kinematics for samples in folds for sample in samples)
    parts: list[list[EventGroup]] = [[] for _ in folds]
    loads = [np.zeros(devices) for _ in folds]
    events = of or sum(len(sample) for samples in folds for sample in samples)
    capacities = _capacities(events)
    for lower, capacity in itertools.pairwise((-1, *capacities)):
        within = [[_between(sample, main, lower, capacity) for sample in samples] for samples in folds]
        if not any(len(sample) for samples in within for sample in samples):
            continue
        shape = _common_shape(within, capacity, kinematics, chunk_size, CHUNKS[capacities])
        hosts = [_host(samples, shape, prepare, load) for samples, load in zip(within, loads, strict=True)]
        room = max(host.tasks for host in hosts), max(1, *(host.rows for host in hosts))
        for part, host in zip(parts, hosts, strict=True):
            part.append(_group(host if read is None else _without(host, read), shape, room, from_below))
    return [tuple(part) for part in parts]


def _capacities(events: int) -> tuple[int, ...]:
    """The grid for so many events."""
    if jax.default_backend() != "cpu":
        return OF_A_GPU
    return FINE if events >= FINE_GRID_FROM else COARSE


def _most_frequent(samples: Sequence[RaggedSample]) -> str | None:
    """The collection with most objects; None where there is none."""
    names = samples[0].objects
    totals = {name: sum(int(sample.objects[name].counts.sum()) for sample in samples) for name in names}
    return max(totals, key=lambda name: totals[name], default=None)


def _multiplicity(sample: RaggedSample, main: str | None) -> NDArray[np.int64]:
    return np.zeros(len(sample), np.int64) if main is None else sample.objects[main].counts


def _sorted(sample: RaggedSample, main: str | None) -> RaggedSample:
    """By number of objects, stably."""
    return sample.of_events(np.argsort(_multiplicity(sample, main), kind="stable"))


def _between(sample: RaggedSample, main: str | None, lower: int, upper: int) -> RaggedSample:
    """The events with more than `lower` and at most `upper` objects."""
    number = _multiplicity(sample, main)
    return sample.of_events(np.flatnonzero((number > lower) & (number <= upper)))


def _common_shape(
    folds: Sequence[Sequence[RaggedSample]], capacity: int, kinematics: int, chunk_size: int, least: int
) -> _Shape:
    """Room for the largest of the folds."""
    events = [max(len(samples[d]) for samples in folds) for d in range(len(folds[0]))]
    size = _chunk_size(max(events), chunk_size, least)
    every = [sample.objects for samples in folds for sample in samples]
    objects = {name: max(1, *(int(own[name].counts.max(initial=0)) for own in every)) for name in every[0]}
    return _Shape(capacity, objects, kinematics, size, tuple(-(-number // size) for number in events))


def _chunk_size(events: int, largest: int, least: int) -> int:
    """A power of two, so small that there are `least` chunks, and that the last, half-empty one wastes little."""
    smallest = 64
    return max(smallest, min(largest, (1 << max(events - 1, 0).bit_length() >> 1) // least))


class _Host(NamedTuple):
    """One group on the host, in full precision, its chunks dealt out to the devices.

    `hands` has how many kinematic variations each chunk of a device has; 0 where there is none. `prepared` is what the
    event function made of each task of each device.
    """

    objects: dict[str, dict[str, Column]]
    columns: dict[str, Column]
    plain: dict[str, Column]
    hands: NDArray[np.int64]
    prepared: list[list[_Table]]

    @property
    def tasks(self) -> int:
        """Most tasks of a device."""
        return max(map(len, self.prepared))

    @property
    def rows(self) -> int:
        """Most prepared rows of a device."""
        return max(sum(map(_rows, tables)) for tables in self.prepared)


def _host(samples: Sequence[RaggedSample], shape: _Shape, prepare: _Prepare, load: NDArray[np.float64]) -> _Host:
    blocks = [_block(sample, shape, chunks) for sample, chunks in zip(samples, shape.chunks, strict=True) if chunks]
    varied = np.repeat([sample.kinematics for sample in samples], shape.chunks)
    index = np.concatenate([block[2]["index"] for block in blocks])
    order = deal((index >= 0).sum(axis=1) * varied * float(shape.capacity), load)

    def joined(columns: Sequence[Column], axes: int, fill: float = np.nan) -> Column:
        """The chunks of all samples in the order of the devices; kinematic variations come before them, if any."""
        axis = columns[0].ndim - axes
        return _dealt(np.concatenate(columns, axis=axis), order, axis, fill)

    objects = {
        name: {variable: joined([block[0][name][variable] for block in blocks], 3) for variable in variables}
        for name, variables in blocks[0][0].items()
    }
    columns = {name: joined([block[1][name] for block in blocks], 2) for name in blocks[0][1]}
    plain = {name: joined([block[2][name] for block in blocks], 2, fill) for name, fill in NO_EVENT.items()}
    plain["dataset"] = _dealt(np.repeat(np.arange(len(samples), dtype=np.int32), shape.chunks), order, 0, 0)
    hands = _dealt(varied, order, 0, 0).reshape(order.shape)
    starts = range(0, order.size, order.shape[1])
    tasks = (_tasks(hand, start) for hand, start in zip(hands, starts, strict=True))
    prepared = [[prepare(objects, columns, task) for task in of_device] for of_device in tasks]
    return _Host(objects, columns, plain, hands, prepared)


def _without(host: _Host, read: Mapping[str, Collection[str]]) -> _Host:
    """Without variables of objects that nothing reads any more."""
    kept = {name: {v: own[v] for v in own if v in read[name]} for name, own in host.objects.items()}
    return host._replace(objects=kept)


def _dealt(column: Column, order: NDArray[np.int64], axis: int, fill: float | int) -> Column:
    """Chunks in the order of the devices, and `fill` where a device has fewer."""
    if len(order) == 1:
        return column
    dealt = np.take(column, order.ravel(), axis)
    np.moveaxis(dealt, axis, 0)[order.ravel() < 0] = fill
    return dealt


def _tasks(hand: NDArray[np.int64], start: int = 0) -> list[tuple[int, int]]:
    """The tasks of a device: each kinematic variation of each of its chunks, which are numbered from `start`."""
    varied = ((kinematic, np.flatnonzero(hand > kinematic).tolist()) for kinematic in range(hand.max()))
    return [(kinematic, start + chunk) for kinematic, chunks in varied for chunk in chunks]


def _prepared(
    function: object,
    asked: Collection[str] | None,
    objects: Mapping[str, _Table],
    columns: _Table,
    task: tuple[int, int],
) -> _Table:
    """What the event function prepares of one task."""

    def own(column: Column, varied: int) -> Column:
        return column[task] if column.ndim == varied else column[task[1]]

    event = HostEvent(
        objects={name: {v: own(each, 4) for v, each in variables.items()} for name, variables in objects.items()},
        columns={name: own(each, 3) for name, each in columns.items()},
        asked=asked,
    )
    return {name: np.atleast_2d(np.asarray(column)) for name, column in call(function, "prepare", event).items()}


def _rows(table: _Table) -> int:
    return max((len(column) for column in table.values()), default=0)


def _group(host: _Host, shape: _Shape, room: tuple[int, int], from_below: Collection[str]) -> EventGroup:
    """The group as the analysis sees it, with room for so many tasks and prepared rows of each device."""
    devices, chunks = host.hands.shape
    tasks = np.full((2, devices, room[0]), -1, np.int32)
    first, rows = (np.zeros((shape.kinematics, devices, chunks), np.int32) for _ in range(2))
    for device, (hand, tables) in enumerate(zip(host.hands, host.prepared, strict=True)):
        numbers = np.array([_rows(table) for table in tables], np.int32)
        kinematic, chunk = np.array(_tasks(hand), np.int32).reshape(-1, 2).T
        tasks[:, device, : len(tables)] = kinematic, chunk
        first[kinematic, device, chunk], rows[kinematic, device, chunk] = np.cumsum(numbers) - numbers, numbers
    objects: dict[str, dict[str, jnp.ndarray]] = {name: {} for name in host.objects}
    varied_objects: dict[str, dict[str, jnp.ndarray]] = {name: {} for name in host.objects}

    def single(column: Column, name: str, axes: int) -> jnp.ndarray:
        return placed(_single(column, name in from_below), devices, column.ndim - axes)

    for name, variables in host.objects.items():
        for variable, column in variables.items():
            of = varied_objects if column.ndim == 4 else objects
            of[name][variable] = single(column, f"{name}.{variable}", 3)
    columns = {name: single(column, name, 2) for name, column in host.columns.items()}
    return EventGroup(
        capacity=shape.capacity,
        devices=devices,
        objects=objects,
        varied_objects=varied_objects,
        columns={name: column for name, column in columns.items() if column.ndim == 2},
        varied_columns={name: column for name, column in columns.items() if column.ndim == 3},
        **{name: placed(column, devices) for name, column in host.plain.items()},
        task_kinematic=placed(tasks[0].ravel(), devices),
        task_chunk=placed(tasks[1].ravel(), devices),
        prepared={name: placed(column, devices) for name, column in _table(host.prepared, room[1]).items()},
        first=placed(first.reshape(shape.kinematics, -1), devices, 1),
        rows=placed(rows.reshape(shape.kinematics, -1), devices, 1),
    )


def _table(prepared: list[list[_Table]], rows: int) -> dict[str, Column]:
    """The rows of all tasks of a device, one after another, and of one device after another; 0 where it has fewer."""
    names = next(tables[0] for tables in prepared if tables)
    kinds = {name: (column.shape[1:], column.dtype) for name, column in names.items()}
    full = {name: np.zeros((len(prepared) * rows, *shape), dtype) for name, (shape, dtype) in kinds.items()}
    for device, tables in enumerate(prepared):
        place = device * rows
        for table in tables:
            for name, column in table.items():
                full[name][place : place + len(column)] = column
            place += _rows(table)
            table.clear()
    return full


def _single(column: Column, down: bool) -> Column:
    """A column in float32; one in float64 is rounded to one side."""
    if column.dtype == np.float64:
        column = round_down(column) if down else round_up(column)
    return column.astype(np.float32)


def _block(
    sample: RaggedSample, shape: _Shape, chunks: int
) -> tuple[dict[str, dict[str, Column]], dict[str, Column], dict[str, Column]]:
    """One sample, chunked: objects, columns, and what every event has; axes as in `EventGroup`."""

    def chunked(column: Column, fill: float | int = np.nan) -> Column:
        return _chunked(column, chunks, shape.events, fill)

    def varied(column: Column) -> Column:
        """Alternative samples have their nominal column in all variations."""
        return np.concatenate([column, np.repeat(column[:1], shape.kinematics - len(column), axis=0)])

    def dense(counts: NDArray[np.int64], column: Column, places: int) -> Column:
        if column.ndim == 2:
            return np.stack([chunked(_dense(counts, each, places)) for each in varied(column)])
        return chunked(_dense(counts, column, places))

    def of_event(column: Column, fill: float | int = np.nan) -> Column:
        if column.ndim == 2:
            return np.stack([chunked(each[None], fill)[:, 0] for each in varied(column)])
        return chunked(column[None], fill)[:, 0]

    objects = {
        name: {v: dense(ragged.counts, column, shape.objects[name]) for v, column in ragged.variables.items()}
        for name, ragged in sample.objects.items()
    }
    plain = {name: of_event(getattr(sample, name), fill) for name, fill in NO_EVENT.items()}
    return objects, {name: of_event(column) for name, column in sample.columns.items()}, plain


def _dense(counts: NDArray[np.int64], column: Column, places: int) -> Column:
    """Shape "places events"; absent objects are NaN."""
    dense = np.full((len(counts), places), np.nan, np.float64 if column.dtype == np.float64 else np.float32)
    dense[np.arange(places) < counts[:, None]] = column
    return dense.T


def _chunked(column: Column, chunks: int, size: int, fill: float | int) -> Column:
    """Shape "places events" to "chunks places size", filled up at the end."""
    places, events = column.shape
    full = np.full((places, chunks * size), fill, column.dtype)
    full[:, :events] = column
    return np.ascontiguousarray(full.reshape(places, chunks, size).swapaxes(0, 1))
