"""Ragged events to dense groups: where awkward ends.

Events are put together by their number of jets, on a grid of capacities, so that hardly any space is padding and no
event is cut short. Within a group each data set is cut into chunks of equal size, the last one filled up with events
of weight 0.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32
from numpy.typing import NDArray

from pipeline.analyses.observables import TRIJETS_AT_A_TIME
from pipeline.analyses.reconstruction import trijet_candidates
from pipeline.events.batch import CandidateGroup, EventGroup
from pipeline.events.flux import MAX_OBJECTS
from pipeline.events.variations import round_up
from pipeline.ingest.manifest import InputError

__all__ = ["RaggedSample", "dense_groups"]

# Each group is compiled by itself, and room for absent jets costs memory and a little time. Trijets need none: a chunk
# has no more of them than its busiest event, and events are sorted by number of jets. So few groups for few events,
# where compiling is what takes time, and a finer grid for many.
FINE_GRID_FROM = 300_000
COARSE = (8, 16, MAX_OBJECTS)
FINE = (5, 7, 9, 12, 16, 22, MAX_OBJECTS)


@dataclass(frozen=True)
class RaggedSample:
    """The events of one data set, with jets already varied.

    Attributes:
        name: for error messages.
        events: records with fields `electron`, `muon`, `jet` (lists of records), `index` (row in the file) and
            `collision` (a number shared by the events of one collision, below the number of events).
        jet_pt: for each kinematic variation, nominal first, the pt of every jet in GeV, ragged like `events.jet`.
        weight: of each event; 1 unless the sample has generator weights.
        variables: event-level columns.
    """

    name: str
    events: ak.Array
    jet_pt: Sequence[ak.Array]
    weight: NDArray[np.float32]
    variables: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def dense_groups(
    folds: Sequence[Sequence[RaggedSample]], *, chunk_size: int
) -> list[tuple[tuple[EventGroup, ...], tuple[CandidateGroup, ...]]]:
    """Several disjoint parts of the same data sets as dense groups of equal shapes: compiled code serves all of them.

    Args:
        folds: for each part, one sample a data set; the number of a data set is its place.
        chunk_size: largest number of events in a chunk.

    Raises:
        InputError: an event has more jets than fit a bit mask.
    """
    folds = [[_sorted(sample) for sample in samples] for samples in folds]
    kinematics = max(len(sample.jet_pt) for samples in folds for sample in samples)
    parts: list[list[tuple[EventGroup, CandidateGroup]]] = [[] for _ in folds]
    capacities = FINE if sum(len(s.events) for samples in folds for s in samples) >= FINE_GRID_FROM else COARSE
    for lower, capacity in itertools.pairwise((-1, *capacities)):
        within = [[_between(sample, lower, capacity) for sample in samples] for samples in folds]
        if not any(len(sample.events) for samples in within for sample in samples):
            continue
        shape = _common_shape(within, capacity, kinematics, chunk_size)
        made = [_group(samples, shape) for samples in within]
        rows = max(1, *(int(_first_rows(group)[1]) for group, _ in made))
        for part, (group, pt) in zip(parts, made, strict=True):
            part.append((group, _candidates(group, pt, rows)))
    return [(tuple(group for group, _ in part), tuple(trijets for _, trijets in part)) for part in parts]


@dataclass(frozen=True)
class _Shape:
    """Room in a group: places for objects, events in a chunk, and chunks for each data set."""

    jets: int
    leptons: Mapping[str, int]
    kinematics: int
    events: int
    chunks: tuple[int, ...]


def _sorted(sample: RaggedSample) -> RaggedSample:
    """By number of jets, stably; and none with more than a bit mask holds."""
    jets = ak.to_numpy(ak.num(sample.events.jet))
    if jets.size and jets.max() > MAX_OBJECTS:
        row = int(sample.events.index[int(jets.argmax())])
        raise InputError(
            f"{sample.name}: event {row} has {jets.max()} jets above the loosest threshold, and at most {MAX_OBJECTS} "
            "fit; raise the lower bound of the jet pt cut"
        )
    return _picked(sample, np.argsort(jets, kind="stable"))


def _between(sample: RaggedSample, lower: int, upper: int) -> RaggedSample:
    """The events with more than `lower` and at most `upper` jets."""
    jets = ak.to_numpy(ak.num(sample.events.jet))
    return _picked(sample, np.flatnonzero((jets > lower) & (jets <= upper)))


def _picked(sample: RaggedSample, rows: NDArray[np.int64]) -> RaggedSample:
    return RaggedSample(
        name=sample.name,
        events=sample.events[rows],
        jet_pt=[pt[rows] for pt in sample.jet_pt],
        weight=sample.weight[rows],
        variables={name: column[rows] for name, column in sample.variables.items()},
    )


def _common_shape(folds: Sequence[Sequence[RaggedSample]], jets: int, kinematics: int, chunk_size: int) -> _Shape:
    """Room for the largest of the folds."""
    events = [max(len(samples[d].events) for samples in folds) for d in range(len(folds[0]))]
    size = _chunk_size(max(events), chunk_size)
    every = [sample.events for samples in folds for sample in samples if len(sample.events)]
    leptons = {kind: max(1, *(int(ak.max(ak.num(sample[kind]))) for sample in every)) for kind in ("electron", "muon")}
    return _Shape(jets, leptons, kinematics, size, tuple(-(-number // size) for number in events))


def _chunk_size(events: int, largest: int) -> int:
    """A power of two, small enough that the last, half-empty chunk of a data set wastes little."""
    smallest = 64
    return max(smallest, min(largest, 1 << max(events - 1, 0).bit_length() >> 1))


def _group(samples: Sequence[RaggedSample], shape: _Shape) -> tuple[EventGroup, NDArray[np.float64]]:
    """One group, and its jet pt in float64 for the reconstruction."""
    blocks = [_block(sample, shape, chunks) for sample, chunks in zip(samples, shape.chunks, strict=True) if chunks]
    columns = _joined(blocks)
    dataset = np.repeat(np.arange(len(samples)), shape.chunks)
    varied = np.repeat([len(sample.jet_pt) for sample in samples], shape.chunks)
    tasks = np.array([(k, c) for k in range(shape.kinematics) for c in range(len(dataset)) if k < varied[c]], np.int32)
    pt = columns.pop("jet_pt")
    group = EventGroup(
        **jax.tree.map(jnp.asarray, columns),
        jet_pt=jnp.asarray(np.where(np.isnan(pt), np.float32(np.nan), round_up(pt))),
        dataset=jnp.asarray(dataset, jnp.int32),
        trijets=jnp.asarray(_trijets(pt), jnp.int32),
        task_kinematic=jnp.asarray(tasks[:, 0]),
        task_chunk=jnp.asarray(tasks[:, 1]),
    )
    return group, pt


def _first_rows(group: EventGroup) -> tuple[NDArray[np.int32], int]:
    """The first row of the trijets of each task's chunk, shape "kinematics chunks", and the number of rows.

    Chunks without a kinematic variation are nominal in it.
    """
    trijets = np.asarray(group.trijets)[np.asarray(group.task_chunk)]
    # Whole blocks of the search: what it looks at beyond the last trijet belongs to no other chunk.
    starts = np.cumsum([0, *(-(-trijets // TRIJETS_AT_A_TIME) * TRIJETS_AT_A_TIME)])
    first = np.zeros((group.jet_pt.shape[0], len(group.dataset)), np.int32)
    first[np.asarray(group.task_kinematic), np.asarray(group.task_chunk)] = starts[:-1]
    return first, int(starts[-1])


def _candidates(group: EventGroup, pt: NDArray[np.float64], rows: int) -> CandidateGroup:
    """The trijets of a group, task by task, so that memory is bounded, with room for so many rows."""
    first, _ = _first_rows(group)
    momenta = _in_trijets(pt, group.jets)
    make = jax.jit(trijet_candidates)
    columns = [np.zeros((rows, pt.shape[3]), dtype) for dtype in (np.uint32, np.float32, np.float32)]
    for kinematic, chunk in zip(np.asarray(group.task_kinematic), np.asarray(group.task_chunk), strict=True):
        direction = (group.jets[name][chunk] for name in ("eta", "phi", "mass"))
        number = int(group.trijets[chunk])
        inside = slice(first[kinematic, chunk], first[kinematic, chunk] + number)
        for column, made in zip(columns, make(jnp.asarray(momenta[kinematic, chunk]), *direction), strict=True):
            column[inside] = np.asarray(made)[:number]
    jets, mass, trijet_pt = map(jnp.asarray, columns)
    return CandidateGroup(jets=jets, mass=mass, pt=trijet_pt, first=jnp.asarray(first))


def _in_trijets(
    pt: NDArray[np.float64], jets: Mapping[str, Float32[Array, "chunks jets events"]]
) -> NDArray[np.float64]:
    """The pt of the jets that may be in a trijet, NaN for others; shape "kinematics chunks jets events".

    A jet whose b-tag is NaN is in none: the AGC asks whether the largest of the three tags is above the threshold, and
    NumPy's maximum with NaN is NaN. A mass that is NaN does not matter here: the choice is by pt.
    """
    incomplete = [np.isnan(column) for name, column in jets.items() if name != "mass"]
    return np.where(np.logical_or.reduce(incomplete), np.nan, pt)


def _trijets(pt: NDArray[np.float64]) -> NDArray[np.int64]:
    """Trijets of the busiest event of each chunk; pt has shape "kinematics chunks jets events"."""
    jets = np.isfinite(pt[0]).sum(axis=1).max(axis=1)
    return jets * (jets - 1) * (jets - 2) // 6


def _block(sample: RaggedSample, shape: _Shape, chunks: int) -> dict[str, Any]:
    """One sample, chunked: arrays with leading axis "chunks" (jet_pt: "kinematics chunks")."""
    events, last = sample.events, len(sample.jet_pt) - 1

    def chunked(column: NDArray[Any], fill: float = np.nan) -> NDArray[Any]:
        return _chunked(column, chunks, shape.events, fill)

    def objects(kind: str, places: int) -> dict[str, NDArray[np.floating[Any]]]:
        columns = {name: events[kind][name] for name in events[kind].fields}
        return {name: chunked(_dense(column, places, np.float32)) for name, column in columns.items()}

    jets = objects("jet", shape.jets)
    del jets["pt"]
    pt = [_dense(sample.jet_pt[min(k, last)], shape.jets, np.float64) for k in range(shape.kinematics)]
    return {
        "electrons": objects("electron", shape.leptons["electron"]),
        "muons": objects("muon", shape.leptons["muon"]),
        "jets": jets,
        "jet_pt": np.stack([chunked(column) for column in pt]),
        "variables": {name: chunked(column[None])[:, 0] for name, column in sample.variables.items()},
        "weight": chunked(sample.weight[None], fill=0.0)[:, 0],
        "index": chunked(ak.to_numpy(events.index).astype(np.int32)[None], fill=-1.0)[:, 0],
        "collision": chunked(ak.to_numpy(events.collision).astype(np.int32)[None], fill=-1.0)[:, 0],
    }


def _dense(column: ak.Array, places: int, dtype: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Shape "places events"; absent objects are NaN."""
    counts = ak.to_numpy(ak.num(column))
    dense = np.full((len(counts), places), np.nan, dtype)
    dense[np.arange(places) < counts[:, None]] = ak.to_numpy(ak.flatten(column))
    return dense.T


def _chunked(column: NDArray[Any], chunks: int, size: int, fill: float) -> NDArray[Any]:
    """Shape "places events" to "chunks places size", filled up at the end."""
    places, events = column.shape
    full = np.full((places, chunks * size), fill, column.dtype)
    full[:, :events] = column
    return np.ascontiguousarray(full.reshape(places, chunks, size).swapaxes(0, 1))


def _joined(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The chunks of all samples, one after another."""
    pt = np.concatenate([block.pop("jet_pt") for block in blocks], axis=1)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *blocks) | {"jet_pt": pt}
