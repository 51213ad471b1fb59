"""More events than memory: parts of the events, kept on disk in one shape and read one after another.

What follows from the events are sums over them, so an analysis can take them part by part
(`pipeline.analysis.evaluate`). Here the parts get room for as many chunks, objects and rows as the
largest of them has, so that one compiled function serves them all. The rest of the room holds no event, and no time is
spent on it.

While a part is used, a thread reads the next one; the operating system keeps of the files what it has room for. They
are read, not mapped into memory: mapped memory comes in small pages, and to compute with it takes longer.

A part is a folder with a file for each device, in which its share of every array stands as it stands in memory. The
folder is written beside its place and renamed: what is there is complete, whenever a run is killed.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.events.batch import EventGroup
from pipeline.events.devices import divided_axis, from_devices

__all__ = ["Each", "StoredParts", "store_parts"]

Groups = tuple[EventGroup, ...]
Columns = dict[str, Any]
"""A group on disk: its capacity, and the columns of its fields, with an axis of the devices in front."""
Each = Callable[[Callable[[int], None], Sequence[int]], Iterable[None]]
"""A function is called for each of some numbers."""

NO_EVENT = {"weight": 0, "index": -1, "collision": -1, "task_chunk": -1}
"""What fills the room in columns of these names; NaN or 0 in all others."""
ABOUT = "part.json"
CAPACITY = "capacity"
UNFINISHED = ".unfinished"
OLD = 3600.0
"""Seconds after which nobody writes a part any more."""
STATIC = (CAPACITY, "devices")
ALIGNMENT = 64
"""Bytes, of what XLA computes with."""


def _references(objects: Sequence[object], number: int) -> int:
    return sys.getrefcount(objects[number])


ALONE = _references([object()], 0)
"""References to what is in a list, and nowhere else."""


class Rooms:
    """Memory that is used again once nothing else looks at it: fresh pages take about as long as what is read."""

    def __init__(self) -> None:
        self._of_size: dict[int, list[NDArray[np.uint8]]] = {}

    def take(self, size: int) -> NDArray[np.uint8]:
        """So many bytes, at a place that XLA computes with."""
        rooms = self._of_size.setdefault(size, [])
        for number in range(len(rooms)):
            if _references(rooms, number) == ALONE:
                break
        else:
            number = len(rooms)
            rooms.append(np.empty(size + ALIGNMENT, np.uint8))
        start = -rooms[number].ctypes.data % ALIGNMENT
        return rooms[number][start : start + size]


@dataclass(frozen=True)
class StoredParts:
    """Parts on disk, all of one shape, to be read as often as one likes, while the folder exists."""

    folder: Path
    rooms: Rooms = field(default_factory=Rooms, compare=False, repr=False)

    def read(self, numbers: Sequence[int]) -> Iterator[Groups]:
        """Some parts, one after another; while one is used, the next is read."""
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._part, number) for number in numbers[:1]]
            for place in range(len(numbers)):
                part = coming.pop().result()
                coming += [reader.submit(self._part, number) for number in numbers[place + 1 : place + 2]]
                yield part

    def about(self, number: int) -> dict[str, Any]:
        """What was said of a part when it was stored."""
        return _about(_folder(self.folder, number)).about

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.folder.glob("part_*/*"))

    def _part(self, number: int) -> Groups:
        """A part in the memory of its devices."""
        place = _folder(self.folder, number)
        files = _about(place)
        on_devices = []
        for device, target in zip(range(files.devices), jax.local_devices(), strict=False):
            room = self.rooms.take(files.size)
            _fill(room, _file(place, device))
            on_devices.append(jax.device_put(files.views(room), target if files.devices > 1 else None))

        def of_field(field: str, number: int) -> jax.Array:
            return from_devices([arrays[number] for arrays in on_devices], divided_axis(field))

        return tuple(
            EventGroup(capacity=columns[CAPACITY], devices=files.devices, **_without_capacity(of_field, columns))
            for columns in files.groups
        )


class PartFiles(NamedTuple):
    """What is in the files of a part: groups with the numbers of their arrays; where each stands, its kind and shape.

    `size` is that of each file, in bytes; `about` is what was said of the part when it was stored.
    """

    groups: list[Columns]
    arrays: list[tuple[int, str, tuple[int, ...]]]
    devices: int
    size: int
    about: dict[str, Any]

    def views(self, content: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The arrays in the content of the file of a device."""
        return [
            content[start : start + np.dtype(kind).itemsize * math.prod(shape)].view(kind).reshape(shape)
            for start, kind, shape in self.arrays
        ]


def store_parts(
    make: Callable[[int], tuple[Groups, dict[str, Any]]],
    number: int,
    folder: Path,
    report: Callable[[int], None] = lambda _: None,
    each: Each = map,
) -> StoredParts:
    """Write parts into a folder, one at a time, then once more in their common shape; those that are there stay.

    Args:
        make: makes the groups of a part, given its number, and what is to be remembered of it (for JSON). The parts are
            divided among as many devices.
        number: of parts.
        folder: for these parts, and no others.
        report: hears how many parts are there.
        each: calls a function for each number, in this process or elsewhere.

    Raises:
        ValueError: there is no part.
        OSError: the folder cannot be written.
    """
    if not number:
        raise ValueError("there are no parts of events to store")
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    stored = [part for part in range(number) if _folder(folder, part).exists() or _raw(folder, part).exists()]
    missing = sorted(set(range(number)) - set(stored))
    for done, _ in enumerate(each(partial(_make_raw, make, folder), missing)):
        report(len(stored) + done + 1)
    raw = [part for part in range(number) if _raw(folder, part).exists()]
    if raw:
        room = _room([_outlines(folder, part) for part in range(number)])
        for _ in each(partial(_give_room, room, folder), raw):
            pass
    return StoredParts(folder)


def _make_raw(make: Callable[[int], tuple[Groups, dict[str, Any]]], folder: Path, number: int) -> None:
    groups, about = make(number)
    _write(_raw(folder, number), [_by_device(group) for group in groups], about)


def _give_room(room: dict[int, Columns], folder: Path, number: int) -> None:
    """A part in the shape of all. A run that was killed after that may have left something of the raw one."""
    if _folder(folder, number).exists():
        shutil.rmtree(_raw(folder, number), ignore_errors=True)
        return
    own = {columns[CAPACITY]: columns for columns in _read(_raw(folder, number))}
    roomy = [_with_room(own.get(capacity), outline) for capacity, outline in room.items()]
    _write(_folder(folder, number), roomy, _about(_raw(folder, number)).about)
    shutil.rmtree(_raw(folder, number), ignore_errors=True)


def _outlines(folder: Path, number: int) -> dict[int, Columns]:
    """Shapes and kinds of the columns of a part, by the capacity of the group, without their memory."""
    place = _folder(folder, number)
    files = _about(place if place.exists() else _raw(folder, number))
    outlines = [np.broadcast_to(np.zeros((), kind), (files.devices, *shape)) for _, kind, shape in files.arrays]
    return {columns[CAPACITY]: _mapped(outlines.__getitem__, columns) for columns in files.groups}


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

    def later(field: str, column: NDArray[Any], outline: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        return partial(_filled_up, field, column, outline)

    return {
        field: outline if field == CAPACITY else jax.tree.map(partial(later, field), own[field], outline)
        for field, outline in room.items()
    }


def _filled_up(field: str, column: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    """The room of each device begins with what it has. Arrays are made when they are written, one after another."""
    fill = NO_EVENT.get(field, np.nan if np.issubdtype(room.dtype, np.floating) else 0)
    widths = [(0, size - own) for size, own in zip(room.shape, column.shape, strict=True)]
    return np.pad(column, widths, constant_values=fill)


def _by_device(group: EventGroup) -> Columns:
    """The columns of a group with an axis of the devices in front."""

    def of_field(field: str, column: Any) -> NDArray[Any]:
        axis, shape = divided_axis(field), np.shape(column)
        each = (*shape[:axis], group.devices, shape[axis] // group.devices, *shape[axis + 1 :])
        return np.moveaxis(np.asarray(column).reshape(each), axis, 0)

    columns = {each.name: getattr(group, each.name) for each in fields(group) if each.name not in STATIC}
    return {CAPACITY: group.capacity} | _without_capacity(of_field, columns)


def _without_capacity(function: Callable[[str, Any], Any], columns: Columns) -> Columns:
    """A function of the field and of each array in it."""
    return {name: jax.tree.map(partial(function, name), each) for name, each in columns.items() if name != CAPACITY}


def _mapped(function: Callable[..., Any], *groups: Columns) -> Columns:
    """A function of every array of groups of one capacity."""
    return {
        name: column if name == CAPACITY else jax.tree.map(function, *(each[name] for each in groups))
        for name, column in groups[0].items()
    }


def _write(place: Path, groups: Sequence[Columns], about: dict[str, Any]) -> None:
    """One file a device, and what is in them; the folder is there when all of it is."""
    unfinished = place.with_name(f"{place.name}.{os.getpid()}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    places: list[tuple[int, str, tuple[int, ...]]] = []
    end = 0

    def written(array: NDArray[Any] | Callable[[], NDArray[Any]]) -> int:
        nonlocal end
        array = array() if callable(array) else array
        for device, own in enumerate(array):
            with _file(unfinished, device).open("ab") as file:
                file.write(np.ascontiguousarray(own).data)
                file.truncate(end + -(-own.nbytes // ALIGNMENT) * ALIGNMENT)
        places.append((end, array.dtype.str, array.shape[1:]))
        end += -(-array[0].nbytes // ALIGNMENT) * ALIGNMENT
        return len(places) - 1

    named = [_mapped(written, columns) for columns in groups]
    devices = len(list(unfinished.iterdir()))
    (unfinished / ABOUT).write_text(json.dumps(PartFiles(named, places, devices, end, about)._asdict()))
    try:
        unfinished.rename(place)
    except OSError:
        shutil.rmtree(unfinished)
        if not place.exists():  # another run of the same analysis was quicker
            raise


def _fill(room: NDArray[np.uint8], path: Path) -> None:
    """Read a file into memory of its size.

    Raises:
        InputError: the file is gone, or of another size.
    """
    try:
        with path.open("rb") as file:
            complete = file.readinto(room.data) == len(room) and not file.read(1)
    except FileNotFoundError:
        complete = False
    if not complete:
        raise InputError(
            f"{path}: the events that were kept here are gone or damaged; delete {path.parent.parent} and start the "
            "run again, and they are made again"
        )


def _sweep(folder: Path) -> None:
    """Delete what killed runs left half written; what is young, another run may be writing."""
    for unfinished in folder.glob(f"*{UNFINISHED}"):
        if time.time() - unfinished.stat().st_mtime > OLD:
            shutil.rmtree(unfinished, ignore_errors=True)


def _read(place: Path) -> list[Columns]:
    """The groups of a part, with an axis of the devices in front."""
    files = _about(place)
    pieces = [files.views(np.memmap(_file(place, device), np.uint8, "r")) for device in range(files.devices)]
    arrays = [np.stack(each) if len(each) > 1 else each[0][None] for each in zip(*pieces, strict=True)]
    return [_mapped(arrays.__getitem__, columns) for columns in files.groups]


def _about(place: Path) -> PartFiles:
    about: dict[str, Any] = json.loads((place / ABOUT).read_text())
    return PartFiles(**about)


def _folder(folder: Path, number: int) -> Path:
    return folder / f"part_{number:05}"


def _raw(folder: Path, number: int) -> Path:
    return folder / f"raw_{number:05}"


def _file(place: Path, device: int) -> Path:
    return place / f"device_{device:02}.bin"
