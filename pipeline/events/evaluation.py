"""The hard analysis of some events: who is in which set, what the event function makes of it, where the event goes.

It is a function of the *sets* of its objects (`pipeline.events.function`), of which variables, regions and bins follow.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from pipeline.events.batch import Edges, Event
from pipeline.events.binning import PlacedEdges, bin_index, placed_edges
from pipeline.events.cuts import (
    EVENT,
    Cut,
    ObjectSet,
    Region,
    Requirement,
    Selection,
    Thresholds,
    passes,
    passes_all,
    within,
)
from pipeline.events.flux import pack
from pipeline.events.function import Sets, call, members
from pipeline.events.scores import Score, in_blocks, inputs_of, score_of, standardised
from pipeline.events.stacking import stacked

__all__ = [
    "Evaluated",
    "EventAnalysis",
    "Factor",
    "Layout",
    "Point",
    "Unscored",
    "accepted_by",
    "as_variables",
    "call_variables",
    "concerned",
    "counts_of",
    "derived_bits",
    "evaluated",
    "factors_of",
    "inside_regions",
    "is_derived",
    "network_inputs",
    "of_some",
    "placed",
    "placed_events",
    "point",
    "scores_of",
    "unscored",
    "variables_of",
]

Bits = dict[str, UInt32[Array, " events"]]
Variables = dict[str, Array]
Accepted = dict[str | Requirement, Bool[Array, " events"]]
"""Which events pass each cut on events, by its name, and meet each requirement of a variable."""


@dataclass(frozen=True)
class Factor:
    """A number for each event that multiplies its weight in a column of the yields.

    With a `set`, it is a variable of the `nth` member in stored order, `fill` where there are fewer; or, without `nth`,
    the product over all members. Without a set it is a variable of the event, or a weight of the event function.
    """

    variable: str
    set: str | None = None
    nth: int | None = None
    fill: float = 0.0


class Layout(NamedTuple):
    """Static sizes of the yields: data sets, kinematic variations, and factors of the weight."""

    datasets: int
    kinematics: int
    factors: tuple[Factor, ...] = ()


class EventAnalysis(NamedTuple):
    """The static part of the hard analysis. `scores` are variables of the events that networks make."""

    selection: Selection
    function: object
    layout: Layout
    scores: tuple[Score, ...] = ()


class Point(NamedTuple):
    """The hard analysis at some thresholds, with the edges of the bins where these put them.

    Networks stand among the thresholds, by the names of their scores.
    """

    analysis: EventAnalysis
    thresholds: Thresholds
    bandwidths: Thresholds
    edges: PlacedEdges
    subsamples: int

    @property
    def selection(self) -> Selection:
        """Of the analysis."""
        return self.analysis.selection


class Evaluated(NamedTuple):
    """The hard analysis of some events. `bits`: who passes the own cuts of each set; `columns`: what these cut on.

    `used_by_*` are the sets that the variables of objects and of events and the factors depend on.
    """

    bits: Bits
    columns: dict[str, dict[str, Array]]
    variables: Variables
    factors: Float32[Array, "factors events"]
    accepted: Accepted
    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    used_by_objects: frozenset[str]
    used_by_variables: frozenset[str]
    used_by_factors: frozenset[str]


def point(
    analysis: EventAnalysis, thresholds: Thresholds, bandwidths: Thresholds, edges: Edges, subsamples: int = 1
) -> Point:
    """The hard analysis at some thresholds."""
    at_thresholds = placed_edges(analysis.selection.regions, thresholds, edges)
    return Point(analysis, thresholds, bandwidths, at_thresholds, subsamples)


class Unscored(NamedTuple):
    """The hard analysis of some events before networks are asked.

    `candidate`: events that meet the requirements of a region, whatever networks say. Networks are dear, and most
    events are nowhere. Cuts on events do not count: who is near one of them is flipped.
    """

    bits: Bits
    columns: dict[str, dict[str, Array]]
    variables: Variables
    candidate: Bool[Array, " events"]
    used_by_objects: frozenset[str]
    used: set[str]


def evaluated(at: Point, event: Event) -> Evaluated:
    """Sets, variables, factors and place of some events."""
    bare = unscored(at, event)
    variables = bare.variables | _scores_of_candidates(at, event, bare)
    used_by_variables = frozenset(bare.used)
    sets = Sets(at.selection, event, members(at.selection, bare.bits))
    factors = factors_of(at, event, sets, variables)
    used_by_factors = frozenset(sets.used)
    if any(factor.set is None and factor.variable in variables for factor in at.analysis.layout.factors):
        used_by_factors |= used_by_variables
    used = (bare.used_by_objects, used_by_variables, used_by_factors)
    return placed_events(at, bare.bits, bare.columns, variables, factors, used)


def placed_events(
    at: Point,
    bits: Bits,
    columns: dict[str, dict[str, Array]],
    variables: Variables,
    factors: Float32[Array, "factors events"],
    used: tuple[frozenset[str], frozenset[str], frozenset[str]],
) -> Evaluated:
    """Events of which everything is known but their place."""
    counts = counts_of(at.selection, bits)
    accepted = accepted_by(at, variables | as_variables(counts))
    return Evaluated(bits, columns, variables, factors, accepted, *placed(at, counts, variables, accepted), *used)


def unscored(at: Point, event: Event) -> Unscored:
    """Sets and variables of some events, without what networks say of them."""
    bits, columns, used_by_objects = _own_bits(at, event)
    sets = Sets(at.selection, event, members(at.selection, bits))
    variables = call_variables(at, event, sets)
    counts = counts_of(at.selection, bits)
    learned = {score.name for score in at.analysis.scores}
    values = {**as_variables(counts), **variables, **counts}
    candidate = jnp.zeros(event.weight.shape, bool)
    for region in at.selection.regions if learned else ():
        requirements = [each for each in region.requirements if each.name not in learned]
        met = [within(each, values[each.name]) for each in requirements]
        candidate |= reduce(jnp.logical_and, met, jnp.ones(event.weight.shape, bool))
        # An event that a flip brings into a region has no score yet.
        named = {name for each in requirements for name in (each.name, each.name.removeprefix("n_"))}
        sets.used.update(part for name in named for part in at.selection.parts(name))
    return Unscored(bits, columns, variables, candidate, used_by_objects, sets.used)


def _own_bits(at: Point, event: Event) -> tuple[Bits, dict[str, dict[str, Array]], frozenset[str]]:
    """Who passes the own cuts of each set; the columns cut on; the sets that variables of objects depend on."""
    bits: Bits = {}
    columns = {each.name: dict(event.objects[each.collection]) for each in at.selection.sets}
    for each in at.selection.sets:
        if not is_derived(at.selection, each, event):
            own = passes_all(at.selection.on(each.name), at.thresholds, columns[each.name])
            bits[each.name] = pack(own)
    used: set[str] = set()
    for each in at.selection.sets:
        if is_derived(at.selection, each, event):
            bits[each.name], columns[each.name], asked = derived_bits(at, event, bits, each)
            used |= asked
    return bits, columns, frozenset(used)


def is_derived(selection: Selection, each: ObjectSet, event: Event) -> bool:
    """Whether a cut on the set is on a variable that the event function makes."""
    return any(cut.variable not in event.objects[each.collection] for cut in selection.on(each.name))


def derived_bits(
    at: Point, event: Event, bits: Bits, each: ObjectSet
) -> tuple[UInt32[Array, " events"], dict[str, Array], set[str]]:
    """The objects that pass the own cuts of a set some of which are on variables that the event function makes."""
    sets = Sets(at.selection, event, members(at.selection, bits))
    by_collection = call(at.analysis.function, "object_variables", event, sets)
    columns = event.objects[each.collection] | dict(by_collection.get(each.collection, {}))
    return pack(passes_all(at.selection.on(each.name), at.thresholds, columns)), columns, sets.used


def variables_of(at: Point, event: Event, sets: Sets) -> Variables:
    """Variables of the events: those of the file, of the event function, and of networks."""
    variables = call_variables(at, event, sets)
    return variables | scores_of(at, sets, variables) if at.analysis.scores else variables


def call_variables(at: Point, event: Event, sets: Sets) -> Variables:
    """Variables of the events that no network makes."""
    return event.columns | call(at.analysis.function, "variables", event, sets)


def network_inputs(at: Point, score: Score, sets: Sets, variables: Variables) -> Float32[Array, "inputs events"]:
    """What a network is told of events, standardised."""
    parts = {union.name: union.sets for union in at.selection.unions}
    return standardised(at.thresholds[score.name], inputs_of(score, parts, sets, variables))


def scores_of(at: Point, sets: Sets, variables: Variables) -> Variables:
    """What the networks say of events."""
    return {
        score.name: score_of(score, at.thresholds[score.name].weights, network_inputs(at, score, sets, variables))
        for score in at.analysis.scores
    }


def _scores_of_candidates(at: Point, event: Event, bare: Unscored) -> Variables:
    """What networks say of candidates; NaN for all others."""
    names = [score.name for score in at.analysis.scores]
    if not names:
        return {}

    def of_events(number: Int32[Array, " some"]) -> Float32[Array, "scores some"]:
        sets, variables = of_some(at, event, bare, number)
        scores = scores_of(at, sets, variables)
        bare.used.update(sets.used)
        return stacked([scores[name] for name in names])

    return dict(zip(names, in_blocks(bare.candidate, of_events, len(names)), strict=True))


def of_some(at: Point, event: Event, bare: Unscored, number: Int32[Array, " some"]) -> tuple[Sets, Variables]:
    """The sets and variables of some of the events."""
    bits = {name: each[number] for name, each in bare.bits.items()}
    sets = Sets(at.selection, event.at(number), members(at.selection, bits))
    return sets, {name: each[number] for name, each in bare.variables.items()}


def counts_of(selection: Selection, bits: Bits) -> dict[str, Int32[Array, " events"]]:
    """Number of members of each set and union."""
    counts = {name: jnp.bitwise_count(own).astype(jnp.int32) for name, own in members(selection, bits).items()}
    for union in selection.unions:
        counts[union.name] = reduce(jnp.add, (counts[name] for name in union.sets))
    return counts


def factors_of(at: Point, event: Event, sets: Sets, variables: Variables) -> Float32[Array, "factors events"]:
    """The factors of the weight that variations name."""
    weights = call(at.analysis.function, "weights", event, sets)
    values: list[Array] = []
    for (name, variable, fill, by_rank), group in groupby(at.analysis.layout.factors, _together):
        factors = list(group)
        if name is None:
            values += [weights[variable] if variable in weights else variables[variable]] * len(factors)
        elif by_rank:
            values += list(sets[name].ranked(variable, [factor.nth or 0 for factor in factors], fill))
        else:
            values += [jnp.prod(sets[name].column(variable, 1.0), axis=0)] * len(factors)
    return stacked([each.astype(jnp.float32) for each in values]) if values else _no_factors(event)


def _together(factor: Factor) -> tuple[str | None, str, float, bool]:
    """Factors that are computed at once, where they stand side by side."""
    return factor.set, factor.variable, factor.fill, factor.nth is not None


def _no_factors(event: Event) -> Float32[Array, "0 events"]:
    return jnp.zeros((0, *event.weight.shape), jnp.float32)


def accepted_by(at: Point, variables: Variables) -> Accepted:
    """Which events pass each cut on events, and meet each requirement of a variable."""
    accepted: Accepted = {cut.name: passes(cut, at.thresholds, variables) for cut in at.selection.on(EVENT)}
    for requirement in at.selection.requirements_of_variables():
        accepted[requirement] = within(requirement, variables[requirement.name])
    return accepted


def inside_regions(
    at: Point,
    counts: dict[str, Int32[Array, " events"]],
    variables: Variables,
    accepted: Accepted,
) -> list[Bool[Array, " events"]]:
    """For each region, which events meet its requirements and pass the cuts that concern it."""
    events = next(iter({**counts, **variables}.values())).shape
    inside = []
    for region in at.selection.regions:
        met = [
            within(requirement, counts[requirement.name]) if requirement.name in counts else accepted[requirement]
            for requirement in region.requirements
        ]
        passed = [accepted[cut.name] for cut in concerned(at.selection, region)]
        inside.append(reduce(jnp.logical_and, (*met, *passed), jnp.ones(events, bool)))
    return inside


def placed(
    at: Point,
    counts: dict[str, Int32[Array, " events"]],
    variables: Variables,
    accepted: Accepted,
) -> tuple[Int32[Array, " events"], Int32[Array, " events"]]:
    """Region of each event, −1 for none, and its bin on the joint axis, the number of bins for none."""
    inside = inside_regions(at, counts, variables, accepted)
    values = {**as_variables(counts), **variables}
    region_of = jnp.full(inside[0].shape, -1, jnp.int32)
    position = jnp.full(inside[0].shape, at.selection.bins, jnp.int32)
    # An event in several regions is in the first of them.
    for number, region in reversed(list(enumerate(at.selection.regions))):
        bin_ = bin_index(values[region.observable], at.edges[region.name][0].astype(jnp.float32), region.overflow)
        place = jnp.where(bin_ < region.bins, region.offset + bin_, at.selection.bins)
        region_of = jnp.where(inside[number], number, region_of)
        position = jnp.where(inside[number], place, position)
    return region_of, position


def as_variables(counts: dict[str, Int32[Array, " events"]]) -> Variables:
    """Counts as variables: `n_<set>`."""
    return {f"n_{name}": count.astype(jnp.float32) for name, count in counts.items()}


def concerned(selection: Selection, region: Region) -> tuple[Cut, ...]:
    """The cuts on events that hold in a region."""
    return tuple(cut for cut in selection.on(EVENT) if cut.regions is None or region.name in cut.regions)
