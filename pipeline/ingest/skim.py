"""The loose cuts that decide what is kept: objects first, then events by how many objects they have left.

A skim stands below every threshold that an analysis may take, so that it changes memory and time and never a result.
It is stated as data (`Skim`), and applied here to flat columns: one NumPy comparison per cut over all objects of a
chunk, no loop over events. The order of the objects is the file's.

Unusable values have one rule. An object with a NaN or an infinite value in any variable that is read, or with a
negative `pt`, is not a measurement: it is left out before any cut, as if it had not been reconstructed, and counted. An
event with such a value among its event variables (a weight, a MET) is left out and counted in the same way. In the AGC
such an object fails the cuts on that variable, because every comparison with NaN is false; here it can also not poison
what is not cut on, such as a mass or a gradient.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import awkward as ak
import numpy as np
from numpy.typing import NDArray

__all__ = ["Collection", "Columns", "ObjectSkim", "Requirement", "Skim", "Skimmed", "skimmed", "summed"]


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A cut on one variable of an object.

    Attributes:
        variable: Name without the collection, `pt`.
        op: `above` and `below` are strict; `bits` asks for any of the bits of `value`.
        value: Threshold, compared in the precision of the file's column.
        absolute: Whether the cut is on the absolute value.
    """

    variable: str
    op: Literal["above", "below", "equal", "bits"]
    value: float | int
    absolute: bool = False


@dataclasses.dataclass(frozen=True)
class ObjectSkim:
    """What is read and kept of a collection.

    Attributes:
        collection: Name in front of the underscore of the branches, `Jet`.
        variables: Columns to keep, `("pt", "eta")`.
        requirements: Cuts that an object must pass; a variable that is only cut on is read and not kept.
    """

    collection: str
    variables: tuple[str, ...]
    requirements: tuple[Requirement, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Variables to read: those kept, then those only cut on."""
        return tuple(dict.fromkeys((*self.variables, *(r.variable for r in self.requirements))))


@dataclasses.dataclass(frozen=True)
class Skim:
    """What is read and kept of an event.

    Attributes:
        objects: One entry per collection.
        event_variables: Branches with one value per event to keep, beside `event`, which is always kept.
        at_least: Pairs (collections, minimum): the objects left in these collections together must be that many.
    """

    objects: tuple[ObjectSkim, ...]
    event_variables: tuple[str, ...] = ()
    at_least: tuple[tuple[tuple[str, ...], int], ...] = ()

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Event branches to read."""
        return tuple(dict.fromkeys(("event", *self.event_variables)))

    @property
    def branches(self) -> tuple[str, ...]:
        """Every branch that must be read."""
        objects = (f"{skim.collection}_{variable}" for skim in self.objects for variable in skim.columns)
        return tuple(dict.fromkeys((*objects, *self.event_columns)))


@dataclasses.dataclass(frozen=True)
class Collection:
    """The objects of a chunk of events, laid end to end.

    Attributes:
        counts: Objects per event.
        variables: Flat columns by name, one value per object.
    """

    counts: NDArray[np.int64]
    variables: dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Columns:
    """A chunk of events as read.

    Attributes:
        collections: By name.
        events: Columns with one value per event, by name.
    """

    collections: dict[str, Collection]
    events: dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Skimmed:
    """What is left of a chunk.

    Attributes:
        events: One record per event that passed: lists of object records by collection, event variables, `index`.
        unusable: Objects by collection, and events under `event`, left out because of NaN, infinite or negative values;
            a name that lost none is not listed.
    """

    events: ak.Array
    unusable: dict[str, int]


def skimmed(columns: Columns, skim: Skim, *, first_index: int = 0) -> Skimmed:
    """Apply a skim to a chunk of events.

    Args:
        columns: The chunk; it must hold the columns that the skim names.
        skim: What to keep.
        first_index: Row number of the chunk's first event.
    """
    usable = {name: _usable_objects(collection) for name, collection in columns.collections.items()}
    passing = {
        s.collection: usable[s.collection] & _meets(columns.collections[s.collection], s.requirements)
        for s in skim.objects
    }
    multiplicity = {name: _per_event(mask, columns.collections[name].counts) for name, mask in passing.items()}
    usable["event"] = _finite(columns.events.values(), len(columns.events["event"]))
    keep = usable["event"].copy()
    for names, minimum in skim.at_least:
        keep &= sum(multiplicity[name] for name in names) >= minimum
    events = {name: values[keep] for name, values in columns.events.items()}
    events["index"] = first_index + np.flatnonzero(keep)
    objects = {
        s.collection: ak.unflatten(
            _records(columns.collections[s.collection], s.variables, passing[s.collection], keep),
            multiplicity[s.collection][keep],
        )
        for s in skim.objects
    }
    lost = {name: int(np.count_nonzero(~mask)) for name, mask in usable.items() if not mask.all()}
    return Skimmed(events=ak.zip(objects | events, depth_limit=1), unusable=lost)


def summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    return dict(sum((Counter(count) for count in counts), Counter()))


def _finite(columns: Iterable[NDArray[Any]], size: int) -> NDArray[np.bool_]:
    finite = np.ones(size, dtype=bool)
    for values in columns:
        if values.dtype.kind == "f":
            finite &= np.isfinite(values)
    return finite


def _usable_objects(collection: Collection) -> NDArray[np.bool_]:
    usable = _finite(collection.variables.values(), int(collection.counts.sum()))
    if "pt" in collection.variables:
        usable &= collection.variables["pt"] >= 0
    return usable


def _meets(collection: Collection, requirements: tuple[Requirement, ...]) -> NDArray[np.bool_]:
    met = np.ones(int(collection.counts.sum()), dtype=bool)
    for requirement in requirements:
        values = collection.variables[requirement.variable]
        met &= _compared(np.abs(values) if requirement.absolute else values, requirement)
    return met


def _compared(values: NDArray[Any], requirement: Requirement) -> NDArray[np.bool_]:
    # A Python number does not widen a column, so a float32 column is compared in float32, as in the AGC.
    met: NDArray[np.bool_]
    match requirement.op:
        case "above":
            met = values > requirement.value
        case "below":
            met = values < requirement.value
        case "equal":
            met = values == requirement.value
        case "bits":
            met = (values & int(requirement.value)) != 0
    return met


def _per_event(mask: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many objects of each event are in the mask."""
    running: NDArray[np.int64] = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
    ends = np.cumsum(counts)
    inside: NDArray[np.int64] = running[ends] - running[ends - counts]
    return inside


def _records(
    collection: Collection, variables: tuple[str, ...], passing: NDArray[np.bool_], keep: NDArray[np.bool_]
) -> ak.Array:
    """The passing objects of the kept events, end to end."""
    kept = np.flatnonzero(passing & np.repeat(keep, collection.counts))
    return ak.zip({variable: collection.variables[variable][kept] for variable in variables})
