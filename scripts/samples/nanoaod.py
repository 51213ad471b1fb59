"""Simulated events as files in NanoAOD format: the AGC's branch names and types, written with uproot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from scripts.samples.settings import Settings

__all__ = ["DTYPES", "reduce_precision", "write"]

DTYPES = {
    "pt": "f4",
    "eta": "f4",
    "phi": "f4",
    "mass": "f4",
    "charge": "i4",
    "cutBased": "i4",
    "tightId": "?",
    "sip3d": "f4",
    "pfRelIso03_all": "f4",
    "pfRelIso04_all": "f4",
    "btagCSVV2": "f4",
    "jetId": "i4",
    "qgl": "f4",
    "hadronFlavour": "i4",
    "score": "f4",
    "role": "i4",
}
"""Type of a branch by its name without the collection."""
# What is cut on has the ten bits of NanoAOD. The others are rounded by less than a quarter of their resolution.
_MANTISSA_BITS = {"pt": 10, "eta": 10, "phi": 8, "mass": 6, "btagCSVV2": 10, "sip3d": 6, "qgl": 4, "score": 10}
_OTHER_MANTISSA_BITS = 6
_COLLISIONS_IN_BLOCK = 1000
_ENTRIES_IN_CLUSTER = 200_000


def write(path: Path, parts: Iterable[ak.Array], settings: Settings) -> int:
    """Writes tree ``Events``; the file appears under its name only when it is whole. Returns the number of entries.

    ``event`` numbers the generated collisions and ``run`` the draws of the detector for one collision. Entries that
    share ``event`` are therefore correlated: a statistical error has to add their weights before it squares them, and a
    split into training and validation by event number keeps them together.

    Args:
        path: the file; an older one is replaced.
        parts: records as :func:`scripts.samples.detector.simulate` returns them, with ``genWeight`` final; at least one
            part, which may be empty.
        settings: which branches to write.
    """
    partial = path.with_suffix(".partial")
    with uproot.recreate(partial, compression=uproot.LZMA(6)) as file:
        tree = None
        for events in _clusters(parts):
            branches = _branches(events, settings)
            if tree is None:
                types = {
                    name: getattr(values, "dtype", None) or values.type.content for name, values in branches.items()
                }
                tree = file.mktree("Events", types, counter_name=lambda name: f"n{name}", title="Simulated events")
            if len(events):
                tree.extend(branches)
        entries = int(tree.num_entries)
    partial.replace(path)
    return entries


def _clusters(parts: Iterable[ak.Array]) -> Iterator[ak.Array]:
    """The events in few large pieces, which compress better and are faster to read than many small ones."""
    waiting: list[ak.Array] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _ENTRIES_IN_CLUSTER:
            yield ak.concatenate(waiting)
            waiting = []
    if waiting:
        yield ak.concatenate(waiting)


def _branches(events: ak.Array, settings: Settings) -> dict[str, NDArray[np.generic] | ak.Array]:
    collision = ak.to_numpy(events.collision)
    met_bits = _MANTISSA_BITS["pt"] if settings.cut_on_met else _OTHER_MANTISSA_BITS
    scalars = {
        "run": ak.to_numpy(events.draw).astype("u4"),
        "luminosityBlock": (collision // _COLLISIONS_IN_BLOCK + 1).astype("u4"),
        "event": collision.astype("u8"),
        "genWeight": ak.to_numpy(events.genWeight).astype("f4"),
        "MET_pt": reduce_precision(ak.to_numpy(events.MET_pt).astype("f4"), bits=met_bits),
        "MET_phi": reduce_precision(ak.to_numpy(events.MET_phi).astype("f4"), bits=_OTHER_MANTISSA_BITS),
    }
    return scalars | {name: _with_types(events[name], fields) for name, fields in settings.branches.items()}


def _with_types(objects: ak.Array, fields: Iterable[str]) -> ak.Array:
    counts = ak.num(objects, axis=1)
    return ak.zip({name: ak.unflatten(_column(objects[name], name), counts) for name in fields})


def _column(column: ak.Array, name: str) -> NDArray[np.generic]:
    values = ak.to_numpy(ak.flatten(column, axis=1)).astype(DTYPES[name])
    if values.dtype.kind != "f":
        return values
    return reduce_precision(values, bits=_MANTISSA_BITS.get(name, _OTHER_MANTISSA_BITS))


def reduce_precision(values: NDArray[np.float32], *, bits: int) -> NDArray[np.float32]:
    """Rounds float32 numbers to a mantissa of so many bits, as NanoAOD does, so that they compress.

    Args:
        values: any finite numbers.
        bits: explicit mantissa bits kept, 1 to 22 of 23; the relative error is at most 2**-(bits + 1).
    """
    dropped = np.uint32(23 - bits)
    half = np.uint32(1) << (dropped - np.uint32(1))
    rounded = (values.view(np.uint32) + half) >> dropped << dropped
    return rounded.view(np.float32)
