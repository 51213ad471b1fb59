"""Named cuts, the sets of objects that they make, and regions.

Thresholds are a dict keyed by name; everything else about a selection is static. Comparisons are strict and made in
float32, the precision of the data: |eta| = float32(2.1) fails |eta| < 2.1, as it does in the AGC under NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Float64

from pipeline.events.flux import boundary_flux, kernel_integral

__all__ = [
    "EVENT",
    "Calibration",
    "Cut",
    "MissingMomentum",
    "ObjectSet",
    "Region",
    "Requirement",
    "Selection",
    "Side",
    "Thresholds",
    "Union",
    "arrays",
    "cut_flux",
    "pass_probability",
    "passes",
    "passes_all",
    "present",
    "side_flux",
    "with_others",
    "within",
]

Thresholds = dict[str, Any]
"""A number a threshold, keyed by its name, in its own unit; or copies of it (`pipeline.events.yields`).

The networks that make variables stand beside them (`pipeline.events.scores`): all parameters are one pytree.
"""

EVENT = "event"
"""What a cut on events names in the place of sets."""


class Side(NamedTuple):
    """One boundary of a cut: the name of its threshold, and whether values above it pass."""

    threshold: str
    above: bool


@dataclass(frozen=True)
class Cut:
    """A condition on a variable of the members of some sets, or of events.

    `above` and `below` have one threshold, which has the name of the cut. The windows `inside` and `outside` have two:
    `<cut>.low` and `<cut>.high`. A cut on events may concern some `regions` only.
    """

    name: str
    objects: tuple[str, ...]
    variable: str
    keep: Literal["above", "below", "inside", "outside"]
    absolute: bool = False
    regions: tuple[str, ...] | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """Its boundaries."""
        if self.keep in ("above", "below"):
            return (Side(self.name, self.keep == "above"),)
        return (Side(f"{self.name}.low", self.keep == "inside"), Side(f"{self.name}.high", self.keep == "outside"))


@dataclass(frozen=True)
class ObjectSet:
    """The objects of a collection that pass the cuts on the set, and, `within` another set, are members of that one."""

    name: str
    collection: str
    within: str | None = None


@dataclass(frozen=True)
class Union:
    """Sets whose members are counted together."""

    name: str
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Requirement:
    """How many members a set or a union has, or what a variable is: a range, both ends included."""

    name: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Region:
    """The events that meet all requirements and all cuts on events that concern the region, and their observable.

    Its bins stand at `offset` … in the joint axis of all regions. `edges` names the thresholds that move the bin edges:
    none, or the first and the last edge, or each of them (`pipeline.events.binning`). With `overflow`, the outer bins
    are open: what lies beyond the edges is in them.
    """

    name: str
    requirements: tuple[Requirement, ...]
    observable: str
    bins: int
    offset: int
    edges: tuple[str, ...] = ()
    overflow: bool = False


@dataclass(frozen=True)
class Calibration:
    """A number that multiplies columns of the events: (collection, variable), or (`EVENT`, variable)."""

    name: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MissingMomentum:
    """Variables of the events that take the opposite of what the objects `of` some collections gain above a pt."""

    pt: str
    phi: str
    of: tuple[str, ...]
    above: float


@dataclass(frozen=True)
class Selection:
    """The static part of the analysis: what is cut on and which regions there are. A set stands after that around it.

    An event that is in several regions counts in the first of them. Calibrations come before all cuts, and missing
    momentum follows them.
    """

    sets: tuple[ObjectSet, ...]
    unions: tuple[Union, ...]
    cuts: tuple[Cut, ...]
    regions: tuple[Region, ...]
    calibrations: tuple[Calibration, ...] = ()
    missing_momentum: MissingMomentum | None = None

    def on(self, name: str) -> tuple[Cut, ...]:
        """The cuts on a set, or on events."""
        return tuple(cut for cut in self.cuts if name in cut.objects)

    def by_sets(self) -> dict[tuple[ObjectSet, ...], list[Cut]]:
        """The cuts on objects by the sets of one collection that they are on.

        An object that crosses the boundary of a cut does so in all of these sets at once.
        """
        cuts: dict[tuple[ObjectSet, ...], list[Cut]] = {}
        for cut in self.cuts:
            on = [each for each in self.sets if each.name in cut.objects]
            for collection in dict.fromkeys(each.collection for each in on):
                cuts.setdefault(tuple(each for each in on if each.collection == collection), []).append(cut)
        return cuts

    @property
    def bins(self) -> int:
        """Length of the joint axis of all regions."""
        return sum(region.bins for region in self.regions)

    def requirements_of_variables(self) -> tuple[Requirement, ...]:
        """What regions ask of variables, not of numbers of members; each once."""
        asked = (each for region in self.regions for each in region.requirements if not self.parts(each.name))
        return tuple(dict.fromkeys(asked))

    def parts(self, name: str) -> tuple[str, ...]:
        """The sets whose members count under a name: itself, or those of a union; none for what is no set."""
        sets = {union.name: union.sets for union in self.unions} | {each.name: (each.name,) for each in self.sets}
        return sets.get(name, ())


Columns = Mapping[str, Float32[Array, "*objects events"]]
"""Variables of objects, or of events; NaN where there is none."""


def arrays(values: Mapping[str, Any]) -> Thresholds:
    """Thresholds from numbers; networks stay as they are."""
    return {
        name: value if isinstance(value, eqx.Module) else jnp.asarray(value, jnp.float64)
        for name, value in values.items()
    }


def passes(cut: Cut, thresholds: Thresholds, columns: Columns) -> Bool[Array, "*objects events"]:
    """Who passes a cut. Absent objects (NaN) pass none."""
    values = _values(cut, columns)
    sides = [_passes(side, thresholds, values) for side in cut.sides]
    return reduce(jnp.logical_or if cut.keep == "outside" else jnp.logical_and, sides)


def passes_all(cuts: Sequence[Cut], thresholds: Thresholds, columns: Columns) -> Bool[Array, "*objects events"]:
    """Which objects are there and pass all cuts."""
    return reduce(jnp.logical_and, (passes(cut, thresholds, columns) for cut in cuts), present(columns))


def cut_flux(
    cuts: Sequence[Cut], thresholds: Thresholds, bandwidths: Thresholds, columns: Columns
) -> dict[str, Float32[Array, "*objects events"]]:
    """For each threshold with a bandwidth, the boundary flux of every object that passes all other cuts on it."""
    flux: dict[str, Array] = {}
    for cut, others in with_others(cuts, thresholds, columns):
        flux |= side_flux(cut, thresholds, bandwidths, columns, others)
    return flux


def with_others(
    cuts: Sequence[Cut], thresholds: Thresholds, columns: Columns
) -> list[tuple[Cut, Bool[Array, "*objects events"]]]:
    """Each cut, with the objects that are there and pass all the others."""
    passed = {cut.name: passes(cut, thresholds, columns) for cut in cuts}
    pairs = []
    for cut in cuts:
        others = present(columns)
        for name, passing in passed.items():
            others &= passing | (name == cut.name)
        pairs.append((cut, others))
    return pairs


def side_flux(
    cut: Cut, thresholds: Thresholds, bandwidths: Thresholds, columns: Columns, others: Bool[Array, "*objects events"]
) -> dict[str, Float32[Array, "*objects events"]]:
    """The boundary flux at each side of one cut that has a bandwidth; `others`: who passes all other cuts.

    A bandwidth is a number, or one for each object. At one side of a window matters only who would pass (inside) or
    fail (outside) at its other side.
    """
    values = _values(cut, columns)
    flux = {}
    for side in cut.sides:
        if side.threshold not in bandwidths:
            continue
        passed = _passes(side, thresholds, values)
        concerned = others
        for other in cut.sides:
            if other != side:
                concerned &= _passes(other, thresholds, values) ^ (cut.keep == "outside")
        flux[side.threshold] = boundary_flux(
            values,
            _float32(thresholds[side.threshold]),
            _float32(bandwidths[side.threshold]),
            passed if side.above else ~passed,
            concerned,
        )
    return flux


def pass_probability(
    cut: Cut, thresholds: Thresholds, bandwidths: Thresholds, columns: Columns
) -> Float64[Array, "*objects events"]:
    """The probability that an object passes a cut if its thresholds are smeared with their kernels.

    A threshold without a bandwidth is as sharp as ever: 0 or 1. Smeared thresholds stay in float64, so that the
    probability changes smoothly with them. The two sides of a window move independently.
    """
    values = _values(cut, columns)
    odds = [_probability(side, thresholds, bandwidths, values) for side in cut.sides]
    if cut.keep == "outside":
        return 1 - reduce(jnp.multiply, [1 - each for each in odds])
    return reduce(jnp.multiply, odds)


def present(columns: Columns) -> Bool[Array, "*objects events"]:
    """Which places hold an object: absent ones have no pt. Another variable may be NaN in an object that is there."""
    column = columns["pt"] if "pt" in columns else next(iter(columns.values()))
    return ~jnp.isnan(column)


def within(requirement: Requirement, number: Array, slack: int = 0) -> Bool[Array, "*shape"]:
    """Whether a number meets a requirement, or may after it has changed by up to `slack`."""
    met = number == number
    if requirement.minimum is not None:
        met &= number >= jnp.asarray(requirement.minimum - slack, number.dtype)
    if requirement.maximum is not None:
        met &= number <= jnp.asarray(requirement.maximum + slack, number.dtype)
    return met


def _probability(
    side: Side, thresholds: Thresholds, bandwidths: Thresholds, values: Float32[Array, "*objects events"]
) -> Float64[Array, "*objects events"]:
    if side.threshold not in bandwidths:
        return _passes(side, thresholds, values).astype(jnp.float64)
    distance = values.astype(jnp.float64) - thresholds[side.threshold]
    return kernel_integral(distance if side.above else -distance, bandwidths[side.threshold])


def _passes(
    side: Side, thresholds: Thresholds, values: Float32[Array, "*objects events"]
) -> Bool[Array, "*objects events"]:
    threshold = _float32(thresholds[side.threshold])
    return values > threshold if side.above else values < threshold


def _values(cut: Cut, columns: Columns) -> Float32[Array, "*objects events"]:
    values = columns[cut.variable]
    return jnp.abs(values) if cut.absolute else values


def _float32(value: Float[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return jnp.asarray(value, jnp.float32)
