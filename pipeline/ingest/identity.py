"""Which events are one collision, and therefore no two independent observations.

An event number starts again in every job of a production: only run, luminosity block and event number together name a
collision. What decides about parts, about the bootstrap and about errors is therefore a hash of all of them: a column
of 64 bits, equal where the collision is, and else different but for one chance in 10⁵ among ten million events.

Two files of one data set that name the same collisions are taken for jobs that forgot to number themselves: the file's
name then joins the hash, and a sentence says so. A file without event numbers is numbered by its rows. Several
detector simulations of one collision share what the manifest says they share (`collision: [event]`).
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.hashing import splitmix64

__all__ = ["NUMBERS", "collision_hash", "content_digest", "joint_digest", "of_file", "part_share", "repeated"]

_log = logging.getLogger(__name__)

NUMBERS = ("run", "luminosityBlock", "event")
"""The branches that name a collision, in NanoAOD."""


def collision_hash(numbers: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """A hash of several numbers of each event.

    Args:
        numbers: Columns of shape "events", integers or floats; their order matters, their types do not.

    Returns:
        Shape "events".
    """
    if len(numbers) == 1:
        return _bits(numbers[0])  # a number alone tells as much as its hash
    hashed = np.zeros(len(numbers[0]), np.uint64)
    for column in numbers:
        hashed = splitmix64(hashed ^ splitmix64(_bits(column)))
    return hashed


def of_file(hashes: NDArray[np.uint64], name: str) -> NDArray[np.uint64]:
    """The hashes of a file whose collisions have nothing to do with those of another.

    Args:
        hashes: Shape "events".
        name: What tells the file from others, and does not change when all of them move.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return splitmix64(hashes ^ np.frombuffer(digest, np.uint64))


def repeated(hashes: NDArray[np.uint64]) -> int:
    """How many events share their collision with an earlier one."""
    return len(hashes) - len(np.unique(hashes))


def part_share(weight: NDArray[Any], part: NDArray[np.bool_], label: str) -> float:
    """The share of a data set's weight that is in a part of its events; what normalises the part.

    A part holds its share of events, give or take the square root of their number; divided by the share that it really
    has, its yields add up to those of the whole. Where weights of both signs cancel, so that their sum says nothing of
    the size of a part, it is the share of their absolute values.

    Args:
        weight: Of each event of the data set.
        part: Which of them are in the part.
        label: Name of the data set, for a warning where it has events, and the part has none of them.

    Returns:
        1 if the part has no weight at all.
    """
    if len(part) and not part.any():
        _log.warning(
            "%s: one of the parts (training, validation) has none of its %d events, so its templates are empty there; "
            "use more events.",
            label,
            len(part),
        )
    size = weight if _is_significant(weight[part]) and _is_significant(weight) else np.abs(weight)
    inside, total = (float(values.sum(dtype=np.float64)) for values in (size[part], size))
    return inside / total if inside else 1.0


def _is_significant(weight: NDArray[Any]) -> bool:
    """Whether the weights add up to three times the error of their sum."""
    total, squares = (float((weight.astype(np.float64) ** power).sum()) for power in (1, 2))
    return total > 3 * squares**0.5


def content_digest(events: ak.Array) -> str:
    """A checksum of events in memory, of their values and their types: equal for equal data wherever they came from.

    Args:
        events: As `read` returns them, or any awkward array.
    """
    form, length, buffers = ak.to_buffers(ak.to_packed(events))
    digest = hashlib.sha256(f"{form.to_json()}{length}".encode())
    for name in sorted(buffers):
        digest.update(np.ascontiguousarray(buffers[name]).data)
    return digest.hexdigest()


def joint_digest(digests: Sequence[str]) -> str:
    """A checksum of several checksums, in order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _bits(column: NDArray[Any]) -> NDArray[np.uint64]:
    if column.dtype.kind == "f":
        return column.astype(np.float64).view(np.uint64)
    if column.dtype.kind not in "iub":
        raise InputError(f"a collision is numbered by integers, but one of its branches has the type {column.dtype}.")
    return column.astype(np.int64 if column.dtype.kind == "i" else np.uint64).view(np.uint64)
