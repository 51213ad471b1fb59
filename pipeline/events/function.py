"""The one extension point: what an analysis makes of an event and of the sets of its objects.

An event function is a module, or any object, with some of the functions of `EventFunction`. They are pure, hard and
vectorised: arrays with events last. They need not be differentiable. The engine flips one object of one set and calls
them again, so whatever they compute has a right gradient (`pipeline.events.yields`).

They may look at sets only, to know which objects are selected: a cut written inside of an event function has no
threshold, and therefore no derivative.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from pipeline.events.batch import Event, HostEvent
from pipeline.events.cuts import Selection
from pipeline.events.stacking import stacked

__all__ = ["EventFunction", "Members", "Sets", "call", "members"]


class EventFunction(Protocol):
    """Every method may be left out."""

    @property
    def files(self) -> Sequence[Path]:
        """What `prepare` reads, a frozen model say: events that are kept on disk are made anew when it changes."""
        ...

    @property
    def FOLLOWS(self) -> Collection[str]:
        """Columns ("jet.pt") that calibrations may scale although `prepare` has seen them as they were.

        Of an event that is calibrated, `event.before` is the one that was prepared.
        """
        ...

    def prepare(self, event: HostEvent) -> Mapping[str, Any]:
        """What no threshold changes: columns of shape "rows events", made once, on the host, by any library.

        It is called for the events of a chunk under one kinematic variation; each call may make another number of
        rows. Columns that kinematic variations change are float64 here. See `Prepared` for how the rows come back. What
        serves none of the variables in `event.asked` may be left out, and those variables from `variables`, too.

        Variables of objects that nobody but this looks at take no memory afterwards. Which ones the other functions
        look at is found by a call with an event without objects, so it must not depend on how many there is room for.
        """
        ...

    def object_variables(self, event: Event, sets: "Sets") -> Mapping[str, Mapping[str, Array]]:
        """Variables of objects that cuts may name, by collection, shape "objects events".

        They may depend on the sets whose own cuts use no such variables, and on those that the config names before.
        """
        ...

    def variables(self, event: Event, sets: "Sets") -> Mapping[str, Array]:
        """Variables of events, which cuts on events, regions and observables may name; shape "events"."""
        ...

    def weights(self, event: Event, sets: "Sets") -> Mapping[str, Array]:
        """Factors that a variation of the weight may name; shape "events"."""
        ...


class Members(eqx.Module, strict=True):
    """The members of one set in each event, and the variables of its collection."""

    bits: UInt32[Array, " events"]
    columns: dict[str, Array]

    @property
    def mask(self) -> Bool[Array, "objects events"]:
        """Who is a member."""
        objects = next(iter(self.columns.values())).shape[0]
        bits = jnp.uint32(1) << jnp.arange(objects, dtype=jnp.uint32)
        return (self.bits[None] & bits[:, None]) != 0

    @property
    def count(self) -> Int32[Array, " events"]:
        """Number of members."""
        return jnp.bitwise_count(self.bits).astype(jnp.int32)

    def column(self, variable: str, fill: float = jnp.nan) -> Float32[Array, "objects events"]:
        """A variable of the members, and `fill` in the places of all others."""
        return jnp.where(self.mask, self.columns[variable], jnp.float32(fill))

    def nth(self, variable: str, n: int, fill: float = jnp.nan) -> Float32[Array, " events"]:
        """A variable of the nth member in stored order, from 0; `fill` where there are fewer."""
        return self.ranked(variable, (n,), fill)[0]

    def ranked(self, variable: str, ranks: Sequence[int], fill: float = jnp.nan) -> Float32[Array, "ranks events"]:
        """A variable of the members of some ranks in stored order, from 0; `fill` where there are fewer.

        The rank of a member is the number of members before it. Taking the lowest bit off the set, again and again,
        does the same in fewer operations, but XLA repeats such a chain for every object: the whole analysis took a
        third longer.
        """
        column, wanted = self.columns[variable], jnp.asarray(ranks, jnp.uint32)[:, None, None]
        bits = jnp.uint32(1) << jnp.arange(column.shape[0], dtype=jnp.uint32)[:, None]
        rank = jnp.bitwise_count(self.bits[None] & (bits - jnp.uint32(1))).astype(jnp.uint32)[None]
        chosen = (rank == wanted) & (self.bits[None] & bits != 0)[None]
        values = jnp.sum(jnp.where(chosen, column[None], 0), axis=1)
        return (
            values
            if fill == 0
            else jnp.where(self.count.astype(jnp.uint32)[None] > wanted[:, 0], values, jnp.float32(fill))
        )

    def first(self, variables: Sequence[str], number: int) -> Float32[Array, "variables number events"]:
        """Variables of the first so many members in stored order; NaN where there are fewer.

        Each member is looked up, which pays where there are several variables of many members: `ranked` computes.
        """
        left, places = self.bits, []
        for _ in range(number):
            places.append(jnp.bitwise_count((left & (~left + jnp.uint32(1))) - jnp.uint32(1)))
            left &= left - jnp.uint32(1)
        # XLA would repeat the chain wherever a place is used.
        place: Array = jax.lax.optimization_barrier(stacked(places).astype(jnp.int32))  # type: ignore[no-untyped-call]
        there = jnp.arange(number, dtype=jnp.int32)[:, None] < self.count[None]
        values = [jnp.take_along_axis(self.columns[name], jnp.where(there, place, 0), axis=0) for name in variables]
        return jnp.where(there[None], stacked(values), jnp.float32(jnp.nan))


class Sets(Mapping[str, Members]):
    """The sets of each event by name: `sets["jet"]`. It remembers which of them were asked for.

    So the engine knows what an event function depends on, and calls it again for those flips only that may change it.
    """

    def __init__(self, selection: Selection, event: Event, bits: Mapping[str, UInt32[Array, " events"]]) -> None:
        self._selection = selection
        self._event = event
        self._bits = bits
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Members:
        """The members of a set.

        Raises:
            KeyError: there is no such set, or its members are not known yet.
        """
        if name not in self._bits:
            if self._selection.parts(name):
                raise KeyError(
                    f"'{name}' is a union, or a set whose members are not known yet; ask for one of: {', '.join(self)}"
                )
            raise KeyError(f"no set is called '{name}'; there are: {', '.join(self)}")
        self.used.add(name)
        collection = next(each.collection for each in self._selection.sets if each.name == name)
        return Members(bits=self._bits[name], columns=self._event.objects[collection])

    def __contains__(self, name: object) -> bool:
        """Whether there is a set of this name; to ask is no use of it."""
        return name in self._bits

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)


def call(function: object, name: str, *arguments: Any) -> dict[str, Any]:
    """What one of the functions of an event function returns; nothing where it has none of that name."""
    method = getattr(function, name, None)
    return {} if method is None else dict(method(*arguments))


def members(selection: Selection, bits: Mapping[str, UInt32[Array, " events"]]) -> dict[str, UInt32[Array, " events"]]:
    """The members of each set, from the objects that pass its own cuts: those that are in the set around it, too.

    Sets that are not known yet, and what lies within them, are left out.
    """
    inside: dict[str, UInt32[Array, " events"]] = {}
    for each in selection.sets:
        if each.name in bits and (each.within is None or each.within in inside):
            own = bits[each.name]
            inside[each.name] = own if each.within is None else own & inside[each.within]
    return inside
