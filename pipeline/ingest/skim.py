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

from pipeline.errors import InputError
from pipeline.ingest.expression import Expression
from pipeline.ingest.facts import WeightSums
from pipeline.ingest.identity import NUMBERS, collision_hash

__all__ = ["Certified", "Collection", "Columns", "ObjectSkim", "Requirement", "Skim", "Skimmed", "skimmed", "summed"]

MOMENTUM = ("pt", "eta", "phi")
"""Without one of these, an object has no momentum; a mass is no part of the momentum."""
GENERATOR_WEIGHT = "genWeight"


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


Certified = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""Good luminosity blocks: (run, ((first, last), …)), as `certified_blocks` reads them from a file."""


@dataclasses.dataclass(frozen=True)
class Skim:
    """What is read, and which events are kept.

    Attributes:
        objects: Collections; none for a flat table.
        event_variables: Branches with one value per event to keep.
        at_least: Pairs (collections, minimum): the objects left in these collections together must be that many.
        require: Formulas that an event must meet, `HLT_IsoMu24 or HLT_IsoTkMu24`, `MET_pt > 100`.
        weight: The weight of an event: `none` (1), `generator` (`genWeight`), or a formula. None is no decision yet:
            events weigh 1, and whether `genWeight` would make a difference is found out.
        collision: Branches that together name a collision; None takes those of `NUMBERS` that a file has, and tells
            files that use the same numbers apart.
        certified: Good luminosity blocks; events of others are dropped. None keeps all.
    """

    objects: tuple[ObjectSkim, ...] = ()
    event_variables: tuple[str, ...] = ()
    at_least: tuple[tuple[tuple[str, ...], int], ...] = ()
    require: tuple[str, ...] = ()
    weight: str | None = None
    collision: tuple[str, ...] | None = None
    certified: Certified | None = None

    def __post_init__(self) -> None:
        taken = {"index", "collision", *(() if self.weight_formula == "weight" else ("weight",))}
        for name in taken.intersection((*self.event_variables, *(skim.collection for skim in self.objects))):
            raise InputError(f"the name '{name}' is taken for what the reading adds to an event; rename the branch.")
        _ = self.formulas  # a formula is checked when it is made

    @property
    def formulas(self) -> tuple[Expression, ...]:
        """All formulas of the skim, the weight first."""
        return tuple(Expression(text) for text in (*(t for t in (self.weight_formula,) if t), *self.require))

    @property
    def weight_formula(self) -> str:
        """The weight as a formula; empty where every event weighs 1."""
        if self.weight in (None, "none"):
            return ""
        return GENERATOR_WEIGHT if self.weight == "generator" else str(self.weight)

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Branches with one value per event that must be there."""
        blocks = ("run", "luminosityBlock") if self.certified is not None else ()
        formulas = (branch for formula in self.formulas for branch in formula.branches)
        return tuple(dict.fromkeys((*self.event_variables, *formulas, *(self.collision or ()), *blocks)))

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of them that hold text."""
        return tuple(dict.fromkeys(name for formula in self.formulas for name in formula.texts))

    @property
    def elements(self) -> tuple[tuple[str, int], ...]:
        """(branch, number) of values of lists."""
        return tuple(dict.fromkeys(element for formula in self.formulas for element in formula.elements))

    @property
    def branches(self) -> tuple[str, ...]:
        """Every branch that must be there."""
        objects = (f"{skim.collection}_{variable}" for skim in self.objects for variable in skim.columns)
        return tuple(dict.fromkeys((*objects, *self.event_columns, *(branch for branch, _ in self.elements))))

    @property
    def optional(self) -> tuple[str, ...]:
        """Branches that are read where a file has them."""
        numbers = NUMBERS if self.collision is None else ("event",)
        generator = (GENERATOR_WEIGHT,) if self.weight is None else ()
        return tuple(name for name in (*numbers, *generator) if name not in self.branches)


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
        entries: How many events.
        collections: By name.
        events: Columns with one value per event, by name; values of lists under `branch[number]`.
    """

    entries: int
    collections: dict[str, Collection]
    events: dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Skimmed:
    """What is left of a chunk.

    Attributes:
        events: One record per event that passed: lists of object records by collection, the event variables, `event`
            (its number, or its row in the file if it has none), `index` (its row), `collision` (a hash that events of
            one collision share) and `weight`.
        odd: Objects by collection, and events under `event`, of the whole chunk that have a NaN, an infinite value or a
            negative pt; a name that has none is not listed.
        generated: Sums of the generator weights of the whole chunk; None where they were not read.
    """

    events: ak.Array
    odd: dict[str, int]
    generated: WeightSums | None


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
    keep = _kept(columns, skim, multiplicity)
    _check_momenta(columns, skim, passing, keep, location, first_index)
    objects = {
        s.collection: ak.unflatten(
            _records(columns.collections[s.collection], s.variables, passing[s.collection], keep),
            multiplicity[s.collection][keep],
        )
        for s in skim.objects
    }
    index = first_index + np.arange(columns.entries)
    ours = {
        "event": columns.events.get("event", index.astype(np.uint64)),
        "index": index,
        "collision": _collisions(columns, skim, index),
        "weight": _weight(columns, skim, keep, location, first_index),
    }
    events = {name: columns.events[name] for name in skim.event_variables} | ours
    kept = {name: values[keep] for name, values in events.items()}
    return Skimmed(ak.zip(objects | kept, depth_limit=1), _odd(columns), _weight_sums(columns))


def _kept(columns: Columns, skim: Skim, multiplicity: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Which events pass."""
    keep = np.ones(columns.entries, dtype=bool)
    for names, minimum in skim.at_least:
        keep &= sum(multiplicity[name] for name in names) >= minimum
    for text in skim.require:
        keep &= np.asarray(Expression(text).value(columns.events)) != 0
    if skim.certified is not None:
        keep &= _is_certified(columns.events["run"], columns.events["luminosityBlock"], skim.certified)
    return keep


def _is_certified(run: NDArray[Any], block: NDArray[Any], certified: Certified) -> NDArray[np.bool_]:
    good = np.zeros(len(run), dtype=bool)
    for number, ranges in certified:
        rows = np.flatnonzero(run == number)
        inside = [(block[rows] >= first) & (block[rows] <= last) for first, last in ranges]
        good[rows] = np.logical_or.reduce(inside) if inside else False
    return good


def _collisions(columns: Columns, skim: Skim, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of what names a collision; of the row in the file where there is no event number."""
    if skim.collision is None and "event" not in columns.events:
        return collision_hash([index])
    names = NUMBERS if skim.collision is None else skim.collision
    return collision_hash([columns.events[name] for name in names if name in columns.events])


def _weight(
    columns: Columns, skim: Skim, keep: NDArray[np.bool_], location: str, first_index: int
) -> NDArray[np.float64]:
    formula = skim.weight_formula
    if not formula:
        return np.ones(columns.entries)
    expression = Expression(formula)
    names = (*expression.branches, *(f"{branch}[{number}]" for branch, number in expression.elements))
    values = expression.value({name: columns.events[name].astype(np.float64) for name in names})
    weight: NDArray[np.float64] = np.broadcast_to(np.asarray(values, np.float64), columns.entries)
    bad = keep & ~np.isfinite(weight)
    if bad.any():
        place = int(bad.argmax())
        raise InputError(
            f"{location}: in entry {first_index + place} the weight '{formula}' is {weight[place]}, so the event "
            "cannot be counted; leave the file out or make it again."
        )
    return weight


def _weight_sums(columns: Columns) -> WeightSums | None:
    if GENERATOR_WEIGHT not in columns.events:
        return None
    weight = columns.events[GENERATOR_WEIGHT].astype(np.float64)
    if not len(weight):
        return WeightSums()
    return WeightSums(
        len(weight), float(weight.sum()), float((weight**2).sum()), float(weight.min()), float(weight.max())
    )


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
            # A bit that the type does not have is not set.
            unsigned = values.view(f"u{values.dtype.itemsize}")
            met = (unsigned & unsigned.dtype.type(int(requirement.value) & np.iinfo(unsigned.dtype).max)) != 0
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
