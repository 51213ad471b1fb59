"""More events than memory: parts of the events, kept on disk in one shape and read one after another.

What follows from the events are sums over them, so an analysis can take them part by part
(`pipeline.analysis.evaluate`). Here the parts get room for as many chunks, objects and rows as the
largest of them has, so that one compiled function serves them all. The rest of the room holds no event, and no time is
spent on it. The files are mapped into memory, not read: the operating system keeps what it has room for.

A part is a folder with a file an array, the share of each device first, so that a CPU can compute with the file itself.
It is written beside its place and renamed: what is there is complete, whenever a run is killed.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from pipeline.events.batch import EventGroup
from pipeline.events.devices import divided_axis, from_devices

__all__ = ["StoredParts", "store_parts"]

Groups = tuple[EventGroup, ...]
Columns = dict[str, Any]
"""A group on disk: its capacity, and the columns of its fields, with an axis of the devices in front."""

NO_EVENT = {"weight": 0, "index": -1, "collision": -1, "task_chunk": -1}
"""What fills the room in columns of these names; NaN or 0 in all others."""
ABOUT = "part.json"
CAPACITY = "capacity"
STATIC = (CAPACITY, "devices")


@dataclass(frozen=True)
class StoredParts:
    """Parts on disk, all of one shape: as many as there are, as often as one likes, while the folder exists."""

    folder: Path
    number: int

    def read(self, numbers: Sequence[int]) -> Iterator[Groups]:
        """Some parts, one after another; while one is used, the next is on its way."""
        ahead = [self._part(number) for number in numbers[:1]]
        for place in range(len(numbers)):
            for number in numbers[place + 2 : place + 3]:
                _will_need(_folder(self.folder, number))
            ahead += [self._part(number) for number in numbers[place + 1 : place + 2]]
            yield ahead.pop(0)

    def about(self, number: int) -> dict[str, Any]:
        """What was said of a part when it was stored."""
        about: dict[str, Any] = _about(_folder(self.folder, number))["about"]
        return about

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.folder.glob("part_*/*"))

    def _part(self, number: int) -> Groups:
        return tuple(map(_placed, _read(_folder(self.folder, number))))


def store_parts(
    makers: Sequence[Callable[[], tuple[Groups, dict[str, Any]]]],
    folder: Path,
    report: Callable[[int], None] = lambda _: None,
) -> StoredParts:
    """Write parts into a folder, one at a time, then once more in their common shape; those that are there stay.

    Args:
        makers: make the groups of each part, and what is to be remembered of it (for JSON). The parts are divided
            among as many devices.
        folder: for these parts, and no others.
        report: hears how many parts are there.

    Raises:
        ValueError: there is no part.
        OSError: the folder cannot be written.
    """
    if not makers:
        raise ValueError("there are no parts of events to store")
    folder.mkdir(parents=True, exist_ok=True)
    for number, make in enumerate(makers):
        if not _folder(folder, number).exists() and not _raw(folder, number).exists():
            groups, about = make()
            _write(_raw(folder, number), tuple(map(_by_device, groups)), about)
        report(number + 1)
    raw = [number for number in range(len(makers)) if _raw(folder, number).exists()]
    if raw:
        room = _room([_outlines(folder, number) for number in range(len(makers))])
        for number in raw:
            own = {columns[CAPACITY]: columns for columns in _read(_raw(folder, number))}
            roomy = tuple(_with_room(own.get(capacity), outline) for capacity, outline in room.items())
            _write(_folder(folder, number), roomy, _about(_raw(folder, number))["about"])
            shutil.rmtree(_raw(folder, number))
    return StoredParts(folder, len(makers))


def _outlines(folder: Path, number: int) -> dict[int, Columns]:
    """Shapes and kinds of the columns of a part, by the capacity of the group, without their memory."""
    place = _folder(folder, number)
    groups = _read(place if place.exists() else _raw(folder, number))
    return {
        columns[CAPACITY]: _mapped(lambda column: np.broadcast_to(np.zeros((), column.dtype), column.shape), columns)
        for columns in groups
    }


def _room(outlines: Sequence[dict[int, Columns]]) -> dict[int, Columns]:
    """For each capacity an outline with room for every part along every axis."""

    def largest(*columns: NDArray[Any]) -> NDArray[Any]:
        shape = tuple(max(sizes) for sizes in zip(*(column.shape for column in columns), strict=True))
        return np.broadcast_to(np.zeros((), columns[0].dtype), shape)

    capacities = sorted(set[int]().union(*outlines))
    groups = {capacity: [each[capacity] for each in outlines if capacity in each] for capacity in capacities}
    return {capacity: _mapped(largest, *own) for capacity, own in groups.items()}


def _with_room(own: Columns | None, room: Columns) -> Columns:
    """The events of a group with room for more; of none, where there is no such group."""
    if own is None:
        own = _mapped(lambda column: np.empty((len(column), *(0,) * (column.ndim - 1)), column.dtype), room)
    return {
        field: column if field == CAPACITY else jax.tree.map(partial(_filled_up, field), own[field], column)
        for field, column in room.items()
    }


def _filled_up(field: str, column: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    """The room of each device begins with what it has."""
    fill = NO_EVENT.get(field, np.nan if np.issubdtype(room.dtype, np.floating) else 0)
    widths = [(0, size - own) for size, own in zip(room.shape, column.shape, strict=True)]
    return np.pad(column, widths, constant_values=fill)


def _by_device(group: EventGroup) -> Columns:
    """The columns of a group with an axis of the devices in front."""

    def of_field(field: str, column: Any) -> NDArray[Any]:
        axis, shape = divided_axis(field), np.shape(column)
        each = (*shape[:axis], group.devices, shape[axis] // group.devices, *shape[axis + 1 :])
        return np.moveaxis(np.asarray(column).reshape(each), axis, 0)

    columns = {field.name: getattr(group, field.name) for field in fields(group) if field.name not in STATIC}
    return {CAPACITY: group.capacity} | {
        name: jax.tree.map(partial(of_field, name), column) for name, column in columns.items()
    }


def _placed(columns: Columns) -> EventGroup:
    """A group in the memory of its devices; on a CPU this shares the memory of the files."""
    devices = len(columns["weight"])

    def of_field(field: str, column: NDArray[Any]) -> jax.Array:
        return from_devices(list(column), divided_axis(field))

    arrays = {name: jax.tree.map(partial(of_field, name), each) for name, each in columns.items() if name != CAPACITY}
    return EventGroup(capacity=columns[CAPACITY], devices=devices, **arrays)


def _mapped(function: Callable[..., Any], *groups: Columns) -> Columns:
    """A function of every array of groups of one capacity."""
    first = groups[0]
    return {
        field: column if field == CAPACITY else jax.tree.map(function, *(each[field] for each in groups))
        for field, column in first.items()
    }


def _write(place: Path, groups: Sequence[Columns], about: dict[str, Any]) -> None:
    """One file an array, and how they belong together; the folder is there when all of them are."""
    unfinished = place.with_name(f"{place.name}.{os.getpid()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    number = itertools.count()

    def written(column: NDArray[Any]) -> int:
        np.save(unfinished / _file(own := next(number)), np.ascontiguousarray(column))
        return own

    (unfinished / ABOUT).write_text(json.dumps({"groups": [_mapped(written, each) for each in groups], "about": about}))
    try:
        unfinished.rename(place)
    except OSError:
        shutil.rmtree(unfinished)
        if not place.exists():  # another run of the same analysis was quicker
            raise


def _read(place: Path) -> list[Columns]:
    """The groups of a part, each array mapped into memory."""

    def column(number: int) -> NDArray[Any]:
        mapped: NDArray[Any] = np.load(place / _file(number), mmap_mode="r")
        return mapped

    return [_mapped(column, each) for each in _about(place)["groups"]]


def _about(place: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((place / ABOUT).read_text())
    return about


def _will_need(place: Path) -> None:
    """Ask the operating system to read a part, in the background."""
    if hasattr(os, "posix_fadvise"):
        for path in place.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _folder(folder: Path, number: int) -> Path:
    return folder / f"part_{number:05}"


def _raw(folder: Path, number: int) -> Path:
    return folder / f"raw_{number:05}"


def _file(number: int) -> str:
    return f"array_{number:03}.npy"
