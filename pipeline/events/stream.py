"""More events than memory: the parts of a set of events, kept on disk in one shape and read one after another.

What follows from the events are sums over them, so an analysis can take them part by part
(`pipeline.analysis.evaluate`). Here the parts get room for as many chunks, objects and rows as the
largest of them has, so that one compiled function serves them all. The rest of the room holds no event, and no time is
spent on it. The files are mapped into memory, not read: the operating system keeps what it has room for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import GetAttrKey, PyTreeDef
from numpy.typing import NDArray

from pipeline.events.batch import EventGroup
from pipeline.events.devices import divided_axis, on_its_devices

__all__ = ["StoredParts", "store_parts"]

_Path = tuple[Any, ...]
Part = Any
"""A pytree whose `events` are a part of all (`pipeline.events.batch.Events`), such as `pipeline.analysis.Data`."""

NO_EVENT = {"weight": 0, "index": -1, "collision": -1, "task_chunk": -1}
"""What fills the room in columns of these names; NaN or 0 in all others."""


@dataclass(frozen=True)
class StoredParts:
    """Parts on disk, all of one shape: `for data in parts`, as often as you like, while the folder exists."""

    folder: Path
    number: int
    structure: PyTreeDef

    def __len__(self) -> int:
        """The number of parts."""
        return self.number

    def __iter__(self) -> Iterator[Part]:
        """One part after another."""
        for number in range(self.number):
            part = _read(self.folder, number, self.structure)
            # On a CPU this shares the memory of the files; `jnp.asarray` would copy it.
            groups = tuple(map(on_its_devices, part.events.groups))
            yield jax.device_put(eqx.tree_at(lambda data: data.events.groups, part, groups))


def store_parts(parts: Iterable[Part], folder: Path) -> StoredParts:
    """Write parts into an empty folder, one at a time, then once more in their common shape.

    All of them are divided among as many devices.

    Raises:
        ValueError: there is no part, or the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: parts of events need a folder of their own")
    rooms: list[dict[int, EventGroup]] = []
    structures: list[PyTreeDef] = []
    for part in parts:
        _write(part, folder, len(rooms))
        rooms.append({group.capacity: jax.tree.map(_outline, group) for group in part.events.groups})
        structures.append(jax.tree.structure(part))
    if not rooms:
        raise ValueError("there are no parts of events to store")
    room = {capacity: _largest([one[capacity] for one in rooms if capacity in one]) for capacity in set().union(*rooms)}
    for number, structure in enumerate(structures):
        part = _with_room(_read(folder, number, structure), room)
        _write(part, folder, number)
    return StoredParts(folder, len(rooms), jax.tree.structure(part))


def _outline(column: Any) -> NDArray[Any]:
    """Shape and kind of a column, without its memory."""
    return np.broadcast_to(np.zeros((), column.dtype), column.shape)


def _largest(groups: list[EventGroup]) -> EventGroup:
    """An outline with room for each of them along every axis."""

    def largest(*columns: NDArray[Any]) -> NDArray[Any]:
        shape = tuple(max(sizes) for sizes in zip(*(column.shape for column in columns), strict=True))
        return np.broadcast_to(np.zeros((), columns[0].dtype), shape)

    largest_of_all: EventGroup = jax.tree.map(largest, *groups)
    return largest_of_all


def _with_room(part: Part, room: dict[int, EventGroup]) -> Part:
    """The same events with room for more, in a group for each capacity that occurs in any part."""
    own = {group.capacity: group for group in part.events.groups}
    roomy: list[EventGroup] = []
    for capacity, outline in sorted(room.items()):
        group = own.get(capacity) or jax.tree.map(lambda column: np.empty((0,) * column.ndim, column.dtype), outline)
        filled_up = partial(_filled_up, outline.devices)
        roomy.append(jax.tree_util.tree_map_with_path(filled_up, group, outline))
    return eqx.tree_at(lambda data: data.events.groups, part, tuple(roomy))


def _filled_up(devices: int, path: _Path, column: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    """The room of each device begins with what it has."""
    nothing = np.nan if np.issubdtype(room.dtype, np.floating) else 0
    fill = NO_EVENT.get(path[-1].name, nothing) if isinstance(path[-1], GetAttrKey) else nothing
    axis = divided_axis(path)
    of_devices, whole = (
        (*shape[:axis], devices, shape[axis] // devices, *shape[axis + 1 :]) for shape in (column.shape, room.shape)
    )
    widths = [(0, size - own) for size, own in zip(whole, of_devices, strict=True)]
    return np.pad(column.reshape(of_devices), widths, constant_values=fill).reshape(room.shape)


def _write(part: Part, folder: Path, number: int) -> None:
    """One file an array; what is mapped into memory meanwhile stays as it is."""
    for place, leaf in enumerate(jax.tree.leaves(part)):
        file = _file(folder, number, place)
        unfinished = file.with_suffix(".part.npy")
        np.save(unfinished, np.asarray(leaf))
        unfinished.replace(file)


def _read(folder: Path, number: int, structure: PyTreeDef) -> Part:
    files = (_file(folder, number, place) for place in range(structure.num_leaves))
    part: Part = jax.tree.unflatten(structure, [np.load(file, mmap_mode="r") for file in files])
    return part


def _file(folder: Path, number: int, place: int) -> Path:
    return folder / f"part_{number:04}.array_{place:03}.npy"
