"""The analysis event by event: region, bin, observable and weights of every event, as plain NumPy arrays.

For comparing with another framework, for plots, and for the statistical error of a finite difference. The numbers come
from the very function that fills the histograms.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32

from pipeline.events.batch import Edges, Event, EventGroup, Events, take_chunk
from pipeline.events.calibration import calibrated
from pipeline.events.cuts import EVENT, Thresholds
from pipeline.events.devices import on_each_device, summed
from pipeline.events.evaluation import EventAnalysis, counts_of, evaluated, inside_regions, point
from pipeline.events.function import Sets, members
from pipeline.events.scores import Score, inputs_of
from pipeline.events.yields import EventOutcomes, event_outcomes, sum_over_chunks

__all__ = [
    "EventList",
    "InputList",
    "ObjectList",
    "joined",
    "list_events",
    "list_inputs",
    "list_objects",
    "shared_events",
]

Result = TypeVar("Result")


@dataclass(frozen=True)
class EventList:
    """All events of all data sets, once for each kinematic variation.

    Attributes:
        kinematic: number of the kinematic variation.
        dataset: number of the data set.
        index: row of the event in its data set.
        collision: shared by the events of one collision, which are not independent.
        region: −1 for none.
        position: bin on the joint axis of all regions; the number of bins for none.
        observable: in its own unit; NaN outside the regions.
        columns: terms of the sums: w, w², and w·factor for each factor that a variation of the weight names.
    """

    kinematic: Int32[np.ndarray, " rows"]
    dataset: Int32[np.ndarray, " rows"]
    index: Int32[np.ndarray, " rows"]
    collision: Int32[np.ndarray, " rows"]
    region: Int32[np.ndarray, " rows"]
    position: Int32[np.ndarray, " rows"]
    observable: Float32[np.ndarray, " rows"]
    columns: Float32[np.ndarray, "columns rows"]


@dataclass(frozen=True)
class ObjectList:
    """The members of a set in all nominal events.

    Attributes:
        dataset: number of the data set of the event.
        region: of the event; −1 for none.
        weight: of the event.
        value: of a variable of the object.
    """

    dataset: Int32[np.ndarray, " rows"]
    region: Int32[np.ndarray, " rows"]
    weight: Float32[np.ndarray, " rows"]
    value: Float32[np.ndarray, " rows"]


@dataclass(frozen=True)
class InputList:
    """What a network is told of all nominal events.

    Attributes:
        inputs: not yet standardised, NaN where there is none.
        dataset: number of the data set of the event.
        inside: of which regions it meets the requirements and passes the cuts on events.
        weight: of the event.
    """

    inputs: Float32[np.ndarray, "inputs rows"]
    dataset: Int32[np.ndarray, " rows"]
    inside: Bool[np.ndarray, "regions rows"]
    weight: Float32[np.ndarray, " rows"]


def list_inputs(
    analysis: EventAnalysis, thresholds: Thresholds, events: Events, score: Score, *, opened: bool = False
) -> InputList:
    """What the network of a score is told of all nominal events that are not padding; cuts on scores may be `opened`.

    An event that is in several regions is in the first of them, but where the cuts between them are open.
    """
    parts = []
    for group in events.groups:
        inputs, inside = _joined(_inputs_of_chunks(analysis, score, opened, thresholds, events.edges, group))
        weight = np.asarray(group.weight)
        real = weight != 0
        dataset = np.broadcast_to(np.asarray(group.dataset)[:, None], real.shape)
        columns = (np.moveaxis(each, 1, 0)[:, real] for each in (inputs, inside))
        parts.append((next(columns), dataset[real], next(columns), weight[real]))
    return InputList(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _inputs_of_chunks(
    analysis: EventAnalysis, score: Score, opened: bool, thresholds: Thresholds, edges: Edges, group: EventGroup
) -> tuple[jax.Array, jax.Array]:
    """Inputs, shape "devices chunks inputs events", and whether the events are in each region, likewise."""
    at = point(analysis, thresholds, {}, edges)
    learned = {each.name for each in analysis.scores}

    def of_chunk(group: EventGroup, chunk: jax.Array) -> tuple[jax.Array, jax.Array]:
        event = calibrated(at.selection, at.thresholds, take_chunk(group, jnp.int32(0), chunk))
        hard = evaluated(at, event)
        sets = Sets(at.selection, event, members(at.selection, hard.bits))
        parts = {union.name: union.sets for union in at.selection.unions}
        inside = hard.region[None] == jnp.arange(len(at.selection.regions), dtype=jnp.int32)[:, None]
        if opened:
            of_scores = [cut.name for cut in at.selection.on(EVENT) if cut.variable in learned]
            accepted = hard.accepted | dict.fromkeys(of_scores, jnp.ones(event.weight.shape, bool))
            inside = jnp.stack(inside_regions(at, counts_of(at.selection, hard.bits), hard.variables, accepted))
        return inputs_of(score, parts, sets, hard.variables), inside

    def of_group(groups: tuple[EventGroup, ...]) -> tuple[jax.Array, jax.Array]:
        (group,) = groups
        return jax.lax.map(partial(of_chunk, group), jnp.arange(group.dataset.shape[0], dtype=jnp.int32))

    return on_each_device(of_group, (group,))


def list_objects(
    analysis: EventAnalysis, thresholds: Thresholds, events: Events, name: str, variable: str
) -> ObjectList:
    """The members of a set, with a variable that one of its cuts is on."""
    which = jnp.int32(_cut_on(analysis).index((name, variable)))
    tables = _of_groups(partial(_members_of_chunks, analysis, which, thresholds, events.edges), events)
    parts = []
    for group, (value, is_member, region) in zip(events.groups, tables, strict=True):
        chosen = np.asarray(is_member)
        of_event = (np.asarray(group.dataset)[:, None], np.asarray(region), np.asarray(group.weight))
        columns = (np.broadcast_to(each, region.shape)[:, None] for each in of_event)
        dataset, regions, weight = (np.broadcast_to(each, chosen.shape)[chosen] for each in columns)
        parts.append((dataset, regions, weight, np.asarray(value)[chosen]))
    return ObjectList(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _cut_on(analysis: EventAnalysis) -> list[tuple[str, str]]:
    """Each set with each variable of its objects that it is cut on."""
    selection = analysis.selection
    return list(dict.fromkeys((each.name, cut.variable) for each in selection.sets for cut in selection.on(each.name)))


def shared_events(analysis: EventAnalysis, thresholds: Thresholds, events: Events) -> dict[tuple[str, str], int]:
    """How many events, in all kinematic variations, are in both of two regions; pairs that share none are left out."""
    names = [region.name for region in analysis.selection.regions]
    numbers = np.asarray(_shared(analysis, thresholds, events)).sum(axis=(0, 1))
    pairs = {(names[a], names[b]): int(numbers[a, b]) for a in range(len(names)) for b in range(a + 1, len(names))}
    return {pair: number for pair, number in pairs.items() if number}


@partial(summed, static=(0,))
def _shared(analysis: EventAnalysis, thresholds: Thresholds, events: Events) -> jax.Array:
    at = point(analysis, thresholds, {}, events.edges)

    def of_chunk(event: Event) -> jax.Array:
        hard = evaluated(at, calibrated(at.selection, at.thresholds, event))
        counts = counts_of(at.selection, hard.bits)
        inside = jnp.stack(inside_regions(at, counts, hard.variables, hard.accepted)) & (event.weight != 0)[None]
        return inside.astype(jnp.float32) @ inside.astype(jnp.float32).T

    return sum_over_chunks(of_chunk, analysis.layout, events)


def list_events(analysis: EventAnalysis, thresholds: Thresholds, events: Events) -> EventList:
    """Every event that is not padding, group by group."""
    outcomes = _of_groups(partial(_outcomes_of_tasks, analysis, thresholds, events.edges), events)
    parts = [
        _empty(analysis),  # of the right types, when there is no group
        *(_list_group(group, own) for group, own in zip(events.groups, outcomes, strict=True)),
    ]
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    return EventList(**joined)


def joined(lists: Sequence[EventList]) -> EventList:
    """The events of disjoint lists."""
    if len(lists) == 1:
        return lists[0]
    columns = [field.name for field in fields(EventList)]
    return EventList(**{name: np.concatenate([getattr(each, name) for each in lists], axis=-1) for name in columns})


def _empty(analysis: EventAnalysis) -> dict[str, np.ndarray]:
    integers = dict.fromkeys(
        ("kinematic", "dataset", "index", "collision", "region", "position"), np.zeros(0, np.int32)
    )
    columns = np.zeros((2 + len(analysis.layout.factors), 0), np.float32)
    return integers | {"observable": np.zeros(0, np.float32), "columns": columns}


def _list_group(group: EventGroup, outcomes: EventOutcomes) -> dict[str, np.ndarray]:
    """`outcomes` of all tasks, with an axis of them in front."""
    kinematic, chunk, is_task = _tasks(group)
    index = np.asarray(group.index)[chunk]
    real = (index >= 0) & is_task[:, None]
    columns = np.moveaxis(np.asarray(outcomes.columns), 1, 0)
    return {
        "kinematic": np.broadcast_to(kinematic[:, None], index.shape)[real],
        "dataset": np.broadcast_to(np.asarray(group.dataset)[chunk][:, None], index.shape)[real],
        "index": index[real],
        "collision": np.asarray(group.collision)[chunk][real],
        "region": outcomes.region[real],
        "position": outcomes.position[real],
        "observable": outcomes.observable[real],
        "columns": columns[:, real],
    }


def _tasks(group: EventGroup) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinematic variation and chunk of each task, and which of them are tasks at all."""
    chunk = np.asarray(group.task_chunk).reshape(group.devices, -1)
    first = np.arange(group.devices)[:, None] * (group.dataset.shape[0] // group.devices)
    return np.asarray(group.task_kinematic), (first + chunk).ravel(), chunk.ravel() >= 0


def _of_groups(work: Callable[[EventGroup], Result], events: Events) -> list[Result]:
    """`_joined` results of each group; each has a program of its own, and they are compiled side by side."""
    with ThreadPoolExecutor(max(1, len(events.groups))) as pool:
        return list(pool.map(lambda group: _joined(work(group)), events.groups))


def _joined(results: Result) -> Result:
    """What the devices made of their tasks or chunks, one after another."""
    return jax.tree.map(lambda each: np.asarray(each).reshape(-1, *each.shape[2:]), results)


@partial(jax.jit, static_argnums=0)
def _outcomes_of_tasks(
    analysis: EventAnalysis, thresholds: Thresholds, edges: Edges, group: EventGroup
) -> EventOutcomes:
    at = point(analysis, thresholds, {}, edges)

    def outcomes(groups: tuple[EventGroup, ...]) -> EventOutcomes:
        tasks = groups[0].task_kinematic, groups[0].task_chunk
        return jax.lax.map(lambda task: event_outcomes(at, take_chunk(groups[0], *task)), tasks)

    return on_each_device(outcomes, (group,))


@partial(jax.jit, static_argnums=0)
def _members_of_chunks(
    analysis: EventAnalysis, which: Int32[jax.Array, ""], thresholds: Thresholds, edges: Edges, group: EventGroup
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One of what sets are cut on, and who is a member, shape "devices chunks objects events"; region of the events.

    `which` is no part of the program: one serves all of them, and takes seconds to compile.
    """
    at = point(analysis, thresholds, {}, edges)

    def of_chunk(group: EventGroup, chunk: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        hard = evaluated(at, calibrated(at.selection, at.thresholds, take_chunk(group, jnp.int32(0), chunk)))
        sets = members(analysis.selection, hard.bits)
        choices = [(hard.columns[name][variable], sets[name]) for name, variable in _cut_on(analysis)]
        rows = max(value.shape[0] for value, _ in choices)
        values = jnp.stack([jnp.pad(value, ((0, rows - value.shape[0]), (0, 0))) for value, _ in choices])
        bits = jnp.uint32(1) << jnp.arange(rows, dtype=jnp.uint32)
        is_member = (jnp.stack([own for _, own in choices])[which][None] & bits[:, None]) != 0
        return values[which], is_member, hard.region

    def of_chunks(groups: tuple[EventGroup, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        numbers = jnp.arange(groups[0].dataset.shape[0], dtype=jnp.int32)
        return jax.lax.map(partial(of_chunk, groups[0]), numbers)

    return on_each_device(of_chunks, (group,))
