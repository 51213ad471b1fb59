"""The loose cuts that decide what is kept: objects first, then events by how many objects they have left.

A skim stands below every threshold that an analysis may take, so that it changes memory and time and never a result.
It is stated as data (`Skim`), and applied here to flat columns: one NumPy comparison per cut over all objects of a
chunk, no loop over events. The order of the objects is the file's.

NaN and infinity are treated as the AGC's processor does, where they have a meaning. A comparison with NaN is false, so
the object fails that cut, and only that one: a jet whose b-tag is NaN counts as a jet without a tag (and makes no
trijet, see `pipeline.events.dense`). What is not cut on is kept as it is: a jet whose mass is NaN counts, and a trijet
with it has a mass in no bin, as in the AGC, where it lands in the overflow. An event variable, such as a MET, is
treated likewise. Where the AGC's answer hangs on the order of the jets (the direction of a jet that passes the cuts is
NaN: its `argmax` takes a NaN that comes first), where a sum becomes infinite (pt), and where there is no answer (a
generator weight), the file is refused with branch and entry. A negative pt fails every cut on pt; without such a cut
it is refused, too. Objects and events with such values are counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.manifest import InputError

__all__ = ["Collection", "Columns", "ObjectSkim", "Requirement", "Skim", "Skimmed", "skimmed", "summed"]


MOMENTUM = ("pt", "eta", "phi")
"""Without one of these, an object has no momentum; a mass is no part of the momentum."""
WEIGHT = "genWeight"


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
        odd: Objects by collection, and events under `event`, of the whole chunk that have a NaN, an infinite value or a
            negative pt; a name that has none is not listed.
    """

    events: ak.Array
    odd: dict[str, int]


def skimmed(columns: Columns, skim: Skim, *, first_index: int = 0, location: str = "events") -> Skimmed:
    """Apply a skim to a chunk of events.

    Args:
        columns: The chunk; it must hold the columns that the skim names.
        skim: What to keep.
        first_index: Row number of the chunk's first event.
        location: Name of the file, for messages.

    Raises:
        InputError: An object that is kept has no momentum, or an event no weight: NaN, infinite, or a negative pt.
    """
    passing = {s.collection: _meets(columns.collections[s.collection], s.requirements) for s in skim.objects}
    multiplicity = {name: _per_event(mask, columns.collections[name].counts) for name, mask in passing.items()}
    keep = np.ones(len(columns.events["event"]), dtype=bool)
    for names, minimum in skim.at_least:
        keep &= sum(multiplicity[name] for name in names) >= minimum
    _check_momenta(columns, skim, passing, keep, location, first_index)
    _check_weights(columns, keep, location, first_index)
    events = {name: values[keep] for name, values in columns.events.items()}
    events["index"] = first_index + np.flatnonzero(keep)
    objects = {
        s.collection: ak.unflatten(
            _records(columns.collections[s.collection], s.variables, passing[s.collection], keep),
            multiplicity[s.collection][keep],
        )
        for s in skim.objects
    }
    return Skimmed(events=ak.zip(objects | events, depth_limit=1), odd=_odd(columns))


def summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    return dict(sum((Counter(count) for count in counts), Counter()))


def _odd(columns: Columns) -> dict[str, int]:
    counts = {
        name: _number_of_odd(collection.variables.values(), collection.variables.get("pt"))
        for name, collection in columns.collections.items()
    }
    counts["event"] = _number_of_odd(columns.events.values(), None)
    return {name: count for name, count in counts.items() if count}


def _number_of_odd(columns: Iterable[NDArray[Any]], pt: NDArray[Any] | None) -> int:
    """Rows with a value that is NaN or infinite, or with a negative pt."""
    masks = [~np.isfinite(values) for values in columns if values.dtype.kind == "f"]
    masks += [] if pt is None else [pt < 0]
    return int(np.count_nonzero(np.logical_or.reduce(masks))) if masks else 0


def _check_momenta(
    columns: Columns,
    skim: Skim,
    passing: dict[str, NDArray[np.bool_]],
    keep: NDArray[np.bool_],
    location: str,
    first_index: int,
) -> None:
    for s in skim.objects:
        collection = columns.collections[s.collection]
        kept = passing[s.collection] & np.repeat(keep, collection.counts)
        for variable in (name for name in MOMENTUM if name in s.variables):
            values = collection.variables[variable]
            bad = kept & ~np.isfinite(values) if variable != "pt" else kept & ~((values >= 0) & (values < np.inf))
            if bad.any():
                place = int(bad.argmax())
                entry = first_index + int(np.searchsorted(np.cumsum(collection.counts), place, side="right"))
                raise InputError(
                    f"{location}: in entry {entry} '{s.collection}_{variable}' is {values[place]} for an object that "
                    "passes the loosest cuts, so it has no momentum; leave the file out or make it again."
                )


def _check_weights(columns: Columns, keep: NDArray[np.bool_], location: str, first_index: int) -> None:
    if WEIGHT not in columns.events:
        return
    bad = keep & ~np.isfinite(columns.events[WEIGHT])
    if bad.any():
        place = int(bad.argmax())
        raise InputError(
            f"{location}: in entry {first_index + place} '{WEIGHT}' is {columns.events[WEIGHT][place]}, so the event "
            "cannot be counted; leave the file out or make it again."
        )


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
