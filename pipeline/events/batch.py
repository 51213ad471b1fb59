"""Events as the analysis sees them: dense arrays, grouped by multiplicity, events last.

A hard analysis of ragged events needs no padding to the largest event if events of like multiplicity stand
together. An `EventGroup` holds events with about as many objects each (the capacities are a grid, see
`pipeline.events.dense`), cut into chunks of one data set each. Inside a chunk the event axis comes last:
every operation of the analysis is then one vector operation over contiguous events.

Absent objects are NaN in every column: NaN fails every comparison, so an absent object passes no cut and lies
on no boundary, without a mask beside the data. An object that is there has a pt; another variable of it may be NaN in
the file, and then fails the cuts on that variable only.

Axes: `kinematics` (nominal first, then the kinematic variations), `chunks`, `objects` (of a collection), `rows` (of
what an event function has prepared), `events` (within a chunk).
"""

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

__all__ = ["Edges", "Event", "EventGroup", "Events", "HostEvent", "Prepared", "take_chunk"]

Edges = dict[str, Float[Array, " _edges"]]
"""Bin edges of each region, keyed by its name, in the unit of its observable."""


class EventGroup(eqx.Module, strict=True):
    """Events of like multiplicity, `chunks` × `events` of them; padding events have weight 0.

    The columns are open sets, keyed by the names of the config; units are those of the input file (GeV). `varied_*`
    are the columns that some kinematic variation changes. `index` is the row of the event in its file; events of one
    `collision` (several detector simulations of it) are not independent. A `task` is a pair of a kinematic variation
    and a chunk: alternative samples, for which the AGC defines no further variation, have nominal tasks only.

    `prepared` is what the event function made of the events before any threshold (`pipeline.events.function`): the
    rows of all tasks, one after another. Those of a task begin at `first`, and are `rows` many. `capacity` is how many
    objects of the most frequent collection an event of the group may have, in whatever part of the events.

    Chunks, tasks and prepared rows are divided among so many `devices` (`pipeline.events.devices`), which have as many
    of each; `task_chunk` and `first` count within those of a device. Tasks that are none have chunk −1, and come last.
    """

    capacity: int = eqx.field(static=True)
    devices: int = eqx.field(static=True)
    objects: dict[str, dict[str, Float32[Array, "chunks _objects events"]]]
    varied_objects: dict[str, dict[str, Float32[Array, "kinematics chunks _objects events"]]]
    columns: dict[str, Float32[Array, "chunks events"]]
    varied_columns: dict[str, Float32[Array, "kinematics chunks events"]]
    weight: Float32[Array, "chunks events"]
    index: Int32[Array, "chunks events"]
    collision: Int32[Array, "chunks events"]
    dataset: Int32[Array, " chunks"]
    task_kinematic: Int32[Array, " tasks"]
    task_chunk: Int32[Array, " tasks"]
    prepared: dict[str, Array]
    first: Int32[Array, "kinematics chunks"]
    rows: Int32[Array, "kinematics chunks"]


class Events(eqx.Module, strict=True):
    """All events, and the edges of the bins that they fall into."""

    _: KW_ONLY
    groups: tuple[EventGroup, ...]
    edges: Edges


class Prepared(eqx.Module, strict=True):
    """What an event function prepared for the events of a chunk: columns of so many `rows`, shape "rows events".

    The rows of a whole group stay in one array, which may be larger than all the rest of the events. So nothing is
    taken of it but what is asked for, row by row.
    """

    table: dict[str, Array]
    first: Int32[Array, ""]
    rows: Int32[Array, ""]
    event: Int32[Array, " items"] | None = None

    def row(self, name: str, rank: Int32[Array, ""] | int) -> Array:
        """One row of a column: a value for each event."""
        row = self.table[name][self.first + rank]
        return row if self.event is None else row[self.event]

    def at(self, name: str, rank: Int32[Array, "*rows items"]) -> Array:
        """The value in another row for each event."""
        event = jnp.arange(rank.shape[-1], dtype=jnp.int32) if self.event is None else self.event
        event = jnp.broadcast_to(event, rank.shape)
        return self.table[name][self.first + rank, event]

    def column(self, name: str, rows: int) -> Array:
        """The first so many rows, shape "rows events", for an event function that always makes as many."""
        return jnp.stack([self.row(name, rank) for rank in range(rows)])


class Event(eqx.Module):
    """The events of one data set under one kinematic variation, or some of them, as an event function sees them.

    `objects` are the variables of each collection, shape "objects events", NaN where there is no object; `columns` have
    one value an event; `prepared` is what `EventFunction.prepare` made, which saw the events `before` calibrations.
    """

    _: KW_ONLY
    objects: dict[str, dict[str, Float32[Array, "_objects events"]]]
    columns: dict[str, Float32[Array, " events"]]
    weight: Float32[Array, " events"]
    collision: Int32[Array, " events"]
    prepared: Prepared
    before: "Event | None" = None

    def at(self, event: Int32[Array, " items"]) -> "Event":
        """Some of the events, as often as they are named."""
        take: Any = jax.tree.map(
            lambda column: column[..., event], (self.objects, self.columns, self.weight, self.collision)
        )
        table = Prepared(table=self.prepared.table, first=self.prepared.first, rows=self.prepared.rows, event=event)
        before = None if self.before is None else self.before.at(event)
        return Event(objects=take[0], columns=take[1], weight=take[2], collision=take[3], prepared=table, before=before)


class HostEvent(NamedTuple):
    """What `EventFunction.prepare` sees of the same: NumPy arrays, in which varied columns are float64.

    `asked` are the variables of events that the config names: what serves no other one need not be prepared. `None`
    for all of them.
    """

    objects: Mapping[str, Mapping[str, Float[np.ndarray, "_objects events"]]]
    columns: Mapping[str, Float[np.ndarray, " events"]]
    asked: Collection[str] | None = None


def take_chunk(group: EventGroup, kinematic: Int32[Array, ""], chunk: Int32[Array, ""]) -> Event:
    """One task of a group."""
    objects = {
        name: {variable: column[chunk] for variable, column in columns.items()}
        | {variable: column[kinematic, chunk] for variable, column in group.varied_objects.get(name, {}).items()}
        for name, columns in group.objects.items()
    }
    columns = {name: column[chunk] for name, column in group.columns.items()}
    return Event(
        objects=objects,
        columns=columns | {name: column[kinematic, chunk] for name, column in group.varied_columns.items()},
        weight=group.weight[chunk],
        collision=group.collision[chunk],
        prepared=Prepared(table=group.prepared, first=group.first[kinematic, chunk], rows=group.rows[kinematic, chunk]),
    )
