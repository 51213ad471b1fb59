"""The hard analysis of a chunk of events: cut, call the event function, histogram; and the flux of every threshold.

The analysis of an event is a function of the *sets* of its objects (`pipeline.events.function`), of which regions and
bins follow. The yields are the histogram of the outcomes. The flux is the histogram, again, of the outcomes for sets
that differ by one object near a boundary (`pipeline.events.flux`): one bit of one set is flipped, whichever it is, and
the very same functions are called. So there is no second analysis that could differ, and one rule for all.

The columns of the histogram are Σw, Σw² and Σ w·factor for the factors that variations of the weight name; every
template is linear in these. Weights are those of single events (1 in most samples), so plain counts stay exact in
float32 within a chunk; chunks are added in float64, and the normalisation of a data set multiplies the finished sums.

Thresholds may be copies, shape "datasets subsamples", all of one value: each disjoint part of the collisions then has
thresholds of its own, and how the derivatives by them scatter is the statistical error of their sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Float64, Int32, UInt32

from pipeline.events.batch import Edges, Event, EventGroup, Events, take_chunk
from pipeline.events.binning import PlacedEdges, add_to_histogram, bin_index, binned, placed_edges
from pipeline.events.cuts import (
    EVENT,
    Cut,
    ObjectSet,
    Region,
    Selection,
    Thresholds,
    cut_flux,
    passes,
    passes_all,
    side_flux,
    within,
)
from pipeline.events.flux import for_each_flip, pack, with_derivatives
from pipeline.events.function import Sets, call, members

__all__ = [
    "SUBSAMPLES",
    "EventAnalysis",
    "EventOutcomes",
    "Factor",
    "Layout",
    "Point",
    "as_variables",
    "columns_of",
    "concerned",
    "copies_of",
    "counts_of",
    "event_outcomes",
    "factors_of",
    "hard_yields",
    "is_derived",
    "point",
    "sum_over_chunks",
    "variables_of",
    "yields_and_flux",
]

SUBSAMPLES = 16
"""Disjoint parts of the collisions whose fluxes are told apart: how they scatter is the error of their sum."""

Result = TypeVar("Result")
Bits = dict[str, UInt32[Array, " events"]]
Variables = dict[str, Array]


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
    """The static part of the hard analysis."""

    selection: Selection
    function: object
    layout: Layout


class Point(NamedTuple):
    """The hard analysis at some thresholds, with the edges of the bins where these put them."""

    analysis: EventAnalysis
    thresholds: Thresholds
    bandwidths: Thresholds
    edges: PlacedEdges
    subsamples: int

    @property
    def selection(self) -> Selection:
        """Of the analysis."""
        return self.analysis.selection


class EventOutcomes(eqx.Module, strict=True):
    """The fate of each event, all cuts included.

    `region` is −1 for none; `position` is the bin on the joint axis, and the number of bins for none. The observable is
    in its own unit, NaN outside the regions. An event inside a region may still lie in no bin.
    """

    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    observable: Float32[Array, " events"]
    columns: Float32[Array, "columns events"]


class _Evaluation(NamedTuple):
    """The hard analysis of some events. `bits`: who passes the own cuts of each set; `columns`: what these cut on.

    `used_by_*` are the sets that the variables of objects and of events and the factors depend on.
    """

    bits: Bits
    columns: dict[str, dict[str, Array]]
    variables: Variables
    factors: Float32[Array, "factors events"]
    accepted: dict[str, Bool[Array, " events"]]
    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    used_by_objects: frozenset[str]
    used_by_variables: frozenset[str]
    used_by_factors: frozenset[str]


class _Change(NamedTuple):
    """What a flip in a set may change: how members are counted there, and sets whose cuts depend on its members."""

    set: ObjectSet
    by_one: frozenset[str]
    anew: tuple[ObjectSet, ...]
    unknown: frozenset[str]

    @property
    def sets(self) -> frozenset[str]:
        """All of them."""
        return self.by_one | self.unknown


# --- Yields and their derivatives -------------------------------------------------------------------------------------


def point(
    analysis: EventAnalysis, thresholds: Thresholds, bandwidths: Thresholds, edges: Edges, subsamples: int = 1
) -> Point:
    """The hard analysis at some thresholds."""
    placed = placed_edges(analysis.selection, thresholds, edges)
    return Point(analysis, thresholds, bandwidths, placed, subsamples)


def hard_yields(analysis: EventAnalysis) -> Callable[..., Float64[Array, "kinematics datasets bins columns"]]:
    """The yields of all data sets, exact, as a function that JAX can differentiate by the thresholds.

    Returns:
        `yields(thresholds, bandwidths, events)`, shape "kinematics datasets bins columns". Its derivative by a
        threshold that has a bandwidth is the boundary flux; by any other threshold it is 0. Thresholds are scalars, or
        copies of shape "datasets subsamples" (`copies_of`).
    """

    def value(thresholds: Thresholds, bandwidths: Thresholds, events: Events) -> Array:
        at = point(analysis, _without_copies(thresholds), bandwidths, events.edges)
        return sum_over_chunks(lambda event: _chunk_yields(at, event)[0], analysis.layout, events)

    def value_and_flux(
        thresholds: Thresholds, bandwidths: Thresholds, events: Events
    ) -> tuple[Array, dict[str, Array]]:
        copies = max((each.shape[1] for each in thresholds.values() if each.ndim == 2), default=1)
        at = _without_copies(thresholds)
        return yields_and_flux(analysis, at, bandwidths, events, subsamples=copies)

    return with_derivatives(value, value_and_flux)


def copies_of(thresholds: Thresholds, layout: Layout) -> Thresholds:
    """The thresholds, once for each subsample of each data set."""
    return {name: jnp.broadcast_to(each, (layout.datasets, SUBSAMPLES)) for name, each in thresholds.items()}


def _without_copies(thresholds: Thresholds) -> Thresholds:
    return {name: each if each.ndim == 0 else each[0, 0] for name, each in thresholds.items()}


def yields_and_flux(
    analysis: EventAnalysis,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    events: Events,
    subsamples: int = 1,
) -> tuple[
    Float64[Array, "kinematics datasets bins columns"],
    dict[str, Float64[Array, "kinematics datasets subsamples bins columns"]],
]:
    """The exact yields, and the boundary flux for each threshold that has a bandwidth, in one pass over the events.

    A collision is in one subsample, in all its detector simulations and kinematic variations.
    """
    at = point(analysis, thresholds, bandwidths, events.edges, subsamples)
    return sum_over_chunks(partial(_chunk_yields_and_flux, at), analysis.layout, events)


def sum_over_chunks(of_chunk: Callable[[Event], Result], layout: Layout, events: Events) -> Result:
    """Chunk by chunk, so that memory is bounded by a chunk; added in float64 by kinematic variation and data set."""

    def of_group(group: EventGroup) -> Result:
        def of_task(number: Array) -> Result:
            return of_chunk(take_chunk(group, group.task_kinematic[number], group.task_chunk[number]))

        def add(number: Array, sums: Result) -> Result:
            place = group.task_kinematic[number], group.dataset[group.task_chunk[number]]
            return jax.tree.map(
                lambda total, part: total.at[place].add(part.astype(total.dtype)), sums, of_task(number)
            )

        shapes = jax.eval_shape(of_task, jnp.int32(0))
        axes = (layout.kinematics, layout.datasets)
        start = jax.tree.map(lambda part: jnp.zeros((*axes, *part.shape), jnp.float64), shapes)
        # A part of a larger set of events may have room for more tasks than it has: they come last, and are not done.
        return jax.lax.fori_loop(0, jnp.sum(group.task_chunk >= 0, dtype=jnp.int32), add, start)

    results = [of_group(group) for group in events.groups]
    return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]), *results)


def event_outcomes(at: Point, event: Event) -> EventOutcomes:
    """What the analysis makes of every event of a chunk."""
    hard = _evaluated(at, event)
    observable = jnp.full(hard.region.shape, jnp.nan, jnp.float32)
    for values in _observables(at.selection, hard).values():
        observable = jnp.where(jnp.isnan(values), observable, values)
    return EventOutcomes(
        region=hard.region,
        position=hard.position,
        observable=observable,
        columns=columns_of(event.weight, hard.factors),
    )


def _chunk_yields(at: Point, event: Event) -> tuple[Float32[Array, "bins columns"], _Evaluation]:
    hard = _evaluated(at, event)
    return _histogram(at, event, hard, at.edges), hard


def _histogram(at: Point, event: Event, hard: _Evaluation, edges: PlacedEdges) -> Float32[Array, "bins columns"]:
    return binned(
        at.selection,
        hard.position,
        _subsample(at, event),
        {region.name: at.bandwidths[region.edges[0]] for region in _moving_regions(at)},
        edges,
        _observables(at.selection, hard),
        columns_of(event.weight, hard.factors),
    )


def _chunk_yields_and_flux(
    at: Point, event: Event
) -> tuple[Float32[Array, "bins columns"], dict[str, Float32[Array, "subsamples bins columns"]]]:
    """The yields, and their derivative by each threshold that has a bandwidth."""
    yields, hard = _chunk_yields(at, event)
    flux = _flux_of_edges(at, event, hard) | _flux_of_event_cuts(at, event, hard)
    for each in at.selection.sets:
        # A cut may be on several sets: the objects of all of them flow through the same boundary.
        for name, part in _flux_of_flips(at, event, hard, each).items():
            flux[name] = flux[name] + part if name in flux else part
    return yields, flux


# --- The analysis of an event -----------------------------------------------------------------------------------------


def _evaluated(at: Point, event: Event) -> _Evaluation:
    """Sets, variables, factors and place of some events."""
    bits, columns, used = _own_bits(at, event)
    sets = Sets(at.selection, event, members(at.selection, bits))
    variables = variables_of(at, event, sets)
    used_by_variables = frozenset(sets.used)
    sets = Sets(at.selection, event, members(at.selection, bits))
    factors = factors_of(at, event, sets, variables)
    used_by_factors = frozenset(sets.used)
    if any(factor.set is None and factor.variable in variables for factor in at.analysis.layout.factors):
        used_by_factors |= used_by_variables
    counts = counts_of(at.selection, bits)
    accepted = _accepted(at, variables | as_variables(counts))
    region, position = _placed(at, counts, variables, accepted)
    return _Evaluation(
        bits, columns, variables, factors, accepted, region, position, used, used_by_variables, used_by_factors
    )


def _own_bits(at: Point, event: Event) -> tuple[Bits, dict[str, dict[str, Array]], frozenset[str]]:
    """The objects that pass the own cuts of each set; the columns of these; the sets that object variables depend on."""
    bits: Bits = {}
    columns = {each.name: dict(event.objects[each.collection]) for each in at.selection.sets}
    for each in at.selection.sets:
        if not is_derived(at.selection, each, event):
            own = passes_all(at.selection.on(each.name), at.thresholds, columns[each.name])
            bits[each.name] = pack(own)
    used: set[str] = set()
    for each in at.selection.sets:
        if is_derived(at.selection, each, event):
            bits[each.name], columns[each.name], asked = _derived_bits(at, event, bits, each)
            used |= asked
    return bits, columns, frozenset(used)


def is_derived(selection: Selection, each: ObjectSet, event: Event) -> bool:
    """Whether a cut on the set is on a variable that the event function makes."""
    return any(cut.variable not in event.objects[each.collection] for cut in selection.on(each.name))


def _derived_bits(
    at: Point, event: Event, bits: Bits, each: ObjectSet
) -> tuple[UInt32[Array, " events"], dict[str, Array], set[str]]:
    """The objects that pass the own cuts of a set some of which are on variables that the event function makes."""
    sets = Sets(at.selection, event, members(at.selection, bits))
    by_collection = call(at.analysis.function, "object_variables", event, sets)
    columns = event.objects[each.collection] | dict(by_collection.get(each.collection, {}))
    return pack(passes_all(at.selection.on(each.name), at.thresholds, columns)), columns, sets.used


def variables_of(at: Point, event: Event, sets: Sets) -> Variables:
    """Variables of the events: those of the file, and those of the event function."""
    return event.columns | call(at.analysis.function, "variables", event, sets)


def counts_of(selection: Selection, bits: Bits) -> dict[str, Int32[Array, " events"]]:
    """Number of members of each set and union."""
    counts = {name: jnp.bitwise_count(own).astype(jnp.int32) for name, own in members(selection, bits).items()}
    for union in selection.unions:
        counts[union.name] = reduce(jnp.add, (counts[name] for name in union.sets))
    return counts


def factors_of(at: Point, event: Event, sets: Sets, variables: Variables) -> Float32[Array, "factors events"]:
    weights = call(at.analysis.function, "weights", event, sets)

    def value(factor: Factor) -> Array:
        if factor.set is None:
            return weights[factor.variable] if factor.variable in weights else variables[factor.variable]
        if factor.nth is None:
            return jnp.prod(sets[factor.set].column(factor.variable, 1.0), axis=0)
        return sets[factor.set].nth(factor.variable, factor.nth, factor.fill)

    values = [value(factor).astype(jnp.float32) for factor in at.analysis.layout.factors]
    assert event.weight is not None
    return jnp.stack(values) if values else jnp.zeros((0, *event.weight.shape), jnp.float32)


def _accepted(at: Point, variables: Variables) -> dict[str, Bool[Array, " events"]]:
    """Which events pass each cut on events."""
    return {cut.name: passes(cut, at.thresholds, variables) for cut in at.selection.on(EVENT)}


def _placed(
    at: Point,
    counts: dict[str, Int32[Array, " events"]],
    variables: Variables,
    accepted: dict[str, Bool[Array, " events"]],
) -> tuple[Int32[Array, " events"], Int32[Array, " events"]]:
    """Region of each event, −1 for none, and its bin on the joint axis, the number of bins for none."""
    events = next(iter(counts.values() or variables.values())).shape
    region_of = jnp.full(events, -1, jnp.int32)
    position = jnp.full(events, at.selection.bins, jnp.int32)
    for number, region in reversed(list(enumerate(at.selection.regions))):
        inside = jnp.ones(events, bool)
        for requirement in region.requirements:
            inside &= within(requirement, {**as_variables(counts), **variables, **counts}[requirement.name])
        for cut in concerned(at.selection, region):
            inside &= accepted[cut.name]
        values = {**as_variables(counts), **variables}[region.observable]
        bin_ = bin_index(values, at.edges[region.name][0].astype(jnp.float32))
        place = jnp.where(bin_ < region.bins, region.offset + bin_, at.selection.bins)
        region_of, position = jnp.where(inside, number, region_of), jnp.where(inside, place, position)
    return region_of, position


def as_variables(counts: dict[str, Int32[Array, " events"]]) -> Variables:
    """Counts as variables: `n_<set>`."""
    return {f"n_{name}": count.astype(jnp.float32) for name, count in counts.items()}


def concerned(selection: Selection, region: Region) -> tuple[Cut, ...]:
    """The cuts on events that hold in a region."""
    return tuple(cut for cut in selection.on(EVENT) if cut.regions is None or region.name in cut.regions)


def _observables(selection: Selection, hard: _Evaluation) -> dict[str, Float32[Array, " events"]]:
    """The observable of each region, NaN for events outside it."""
    variables = hard.variables | as_variables(counts_of(selection, hard.bits))
    return {
        region.name: jnp.where(hard.region == number, variables[region.observable], jnp.float32(jnp.nan))
        for number, region in enumerate(selection.regions)
    }


def columns_of(
    weight: Float32[Array, " events"], factors: Float32[Array, "factors events"]
) -> Float32[Array, "columns events"]:
    # An event that fills up a chunk has weight 0, and its factors may be NaN.
    weighted = jnp.where(weight[None] == 0, 0, weight[None] * factors)
    return jnp.concatenate([jnp.stack([weight, weight * weight]), weighted])


# --- The flux of a threshold ------------------------------------------------------------------------------------------


def _flux_of_edges(at: Point, event: Event, hard: _Evaluation) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """Edges move: the derivative of the histogram by copies of them, one for each subsample."""
    names = [name for region in _moving_regions(at) for name in region.edges]
    if not names:
        return {}

    def histogram(moving: Thresholds) -> Array:
        edges = {region.name: at.edges[region.name] for region in at.selection.regions}
        return _histogram(at, event, hard, edges | placed_edges(_only(at), moving, edges_of_regions))

    edges_of_regions = {region.name: at.edges[region.name][0] for region in _moving_regions(at)}
    copies = {name: jnp.broadcast_to(at.thresholds[name], (at.subsamples,)) for name in names}
    slopes = jax.jacfwd(histogram)(copies)
    return {name: jnp.moveaxis(slope, -1, 0).astype(jnp.float32) for name, slope in slopes.items()}


def _moving_regions(at: Point) -> tuple[Region, ...]:
    """The regions whose edges move; one region has one kernel, that of its first edge."""
    return tuple(region for region in at.selection.regions if region.edges and region.edges[0] in at.bandwidths)


def _only(at: Point) -> Selection:
    return at.selection.__class__(sets=(), unions=(), cuts=(), regions=_moving_regions(at))


def _flux_of_event_cuts(
    at: Point, event: Event, hard: _Evaluation
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """For a cut on events, the event itself is flipped: it leaves the place where it is and enters another one."""
    variables = hard.variables | as_variables(counts_of(at.selection, hard.bits))
    flux: dict[str, Array] = {}
    enters: list[Array] = []
    for cut in at.selection.on(EVENT):
        sides = side_flux(cut, at.thresholds, at.bandwidths, variables, ~jnp.isnan(variables[cut.variable]))
        accepted = hard.accepted | {cut.name: ~hard.accepted[cut.name]}
        _, position = _placed(at, counts_of(at.selection, hard.bits), variables, accepted)
        flux |= sides
        enters += [position] * len(sides)
    if not flux:
        return {}
    terms = jnp.where(jnp.stack(enters) == hard.position[None], 0, jnp.stack(list(flux.values())))
    columns, names, bins = columns_of(event.weight, hard.factors), len(flux), at.selection.bins
    first, end = _first_place(at, event), at.subsamples * bins

    def visit(
        event: Int32[Array, " some"],
        _: Int32[Array, " some"],
        real: Bool[Array, " some"],
        total: Float32[Array, "places columns"],
    ) -> Float32[Array, "places columns"]:
        rows = (terms[:, event][..., None] * columns[:, event].T[None]).reshape(-1, columns.shape[0])
        for position, row in ((jnp.stack(enters)[:, event], rows), (hard.position[event][None], -rows)):
            inside = real[None] & (position < bins) & (terms[:, event] != 0)
            place = jnp.arange(names, dtype=jnp.int32)[:, None] * end + first[event][None] + position
            total = add_to_histogram(total, jnp.where(inside, place, names * end).reshape(-1), row)
        return total

    near = jnp.any(terms != 0, axis=0).astype(jnp.uint32)
    start = jnp.zeros((names * end, columns.shape[0]), jnp.float32)
    total = for_each_flip(near, 1, visit, start).reshape(names, at.subsamples, bins, -1)
    return dict(zip(flux, total, strict=True))


def _flux_of_flips(
    at: Point, event: Event, hard: _Evaluation, each: ObjectSet
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """One object of a set flipped: the event leaves the bin where it is and enters the one where it would be."""
    flux = cut_flux(at.selection.on(each.name), at.thresholds, at.bandwidths, hard.columns[each.name])
    if not flux:
        return {}
    change = _change(at, event, hard, each)
    may_matter = _within_reach(at, hard, change)
    near = pack(may_matter[None] & reduce(jnp.logical_or, (term != 0 for term in flux.values())))
    if each.within is not None:
        near &= members(at.selection, hard.bits)[each.within]
    bins, columns = at.selection.bins, columns_of(event.weight, hard.factors)
    first, end = _first_place(at, event), bins * at.subsamples

    def visit(
        number: Int32[Array, " flips"],
        place: Int32[Array, " flips"],
        real: Bool[Array, " flips"],
        total: Float32[Array, "places terms"],
    ) -> Float32[Array, "places terms"]:
        bit = jnp.uint32(1) << place.astype(jnp.uint32)
        position, factors = _flipped(at, event, hard, change, number, bit)
        terms = jnp.stack([term[place, number] for term in flux.values()])
        entering = real & (position < bins)
        enters = jnp.where(entering, first[number] + position, end)
        leaving = real & (hard.position[number] < bins)
        leaves = jnp.where(leaving, first[number] + hard.position[number], end)
        total = add_to_histogram(total, enters, _rows(terms, columns_of(event.weight[number], factors)))
        return add_to_histogram(total, leaves, _rows(-terms, columns[:, number]))

    start = jnp.zeros((end, len(flux) * columns.shape[0]), jnp.float32)
    objects = next(iter(hard.columns[each.name].values())).shape[0]
    total = for_each_flip(near, objects, visit, start).reshape(at.subsamples, bins, len(flux), -1)
    return {name: total[:, :, number] for number, name in enumerate(flux)}


def _flipped(
    at: Point, event: Event, hard: _Evaluation, change: _Change, number: Int32[Array, " flips"], bit: Array
) -> tuple[Int32[Array, " flips"], Float32[Array, "factors flips"]]:
    """Position and factors of some events with one bit of one set flipped; only what may change is computed again."""
    some = event.at(number)
    bits = {name: own[number] for name, own in hard.bits.items()}
    bits[change.set.name] = bits[change.set.name] ^ bit
    for each in change.anew:
        bits[each.name], _, _ = _derived_bits(at, some, {n: b for n, b in bits.items() if n != each.name}, each)
    variables = {name: value[number] for name, value in hard.variables.items()}
    factors = hard.factors[:, number]
    if change.sets & hard.used_by_variables:
        variables = variables_of(at, some, Sets(at.selection, some, members(at.selection, bits)))
    if change.sets & hard.used_by_factors:
        factors = factors_of(at, some, Sets(at.selection, some, members(at.selection, bits)), variables)
    counts = counts_of(at.selection, bits)
    _, position = _placed(at, counts, variables, _accepted(at, variables | as_variables(counts)))
    return position, factors


def _change(at: Point, event: Event, hard: _Evaluation, each: ObjectSet) -> _Change:
    """What a flip in a set may change."""
    selection = at.selection
    by_one = _with_inner(selection, {each.name})
    derived = [other for other in selection.sets if is_derived(selection, other, event)]
    later = derived[derived.index(each) + 1 :] if each in derived else derived
    anew = tuple(later) if by_one & hard.used_by_objects else ()
    return _Change(each, by_one, anew, _with_inner(selection, {other.name for other in anew}))


def _with_inner(selection: Selection, names: set[str]) -> frozenset[str]:
    """Sets, and those within them."""
    inner = set(names)
    for each in selection.sets:
        if each.within in inner:
            inner.add(each.name)
    return frozenset(inner)


def _within_reach(at: Point, hard: _Evaluation, change: _Change) -> Bool[Array, " events"]:
    """Which events a flip may bring into a region, or out of one: most are further away, and stay out."""
    counts = counts_of(at.selection, hard.bits)
    variables_stay = not change.sets & hard.used_by_variables
    reachable = jnp.zeros(hard.region.shape, bool)
    for region in at.selection.regions:
        possible = jnp.ones(hard.region.shape, bool)
        for requirement in region.requirements:
            parts = at.selection.parts(requirement.name)
            if parts and not change.unknown & set(parts):
                possible &= within(requirement, counts[requirement.name], len(change.by_one & set(parts)))
            elif not parts and variables_stay and requirement.name in hard.variables:
                possible &= within(requirement, hard.variables[requirement.name])
        reachable |= possible
    return reachable


def _subsample(at: Point, event: Event) -> Int32[Array, " events"]:
    """Which part of the events each one is in."""
    assert event.collision is not None
    return event.collision % jnp.int32(at.subsamples)


def _first_place(at: Point, event: Event) -> Int32[Array, " events"]:
    """Where the bins of an event's subsample start, when those of all subsamples stand side by side."""
    return _subsample(at, event) * jnp.int32(at.selection.bins)


def _rows(
    terms: Float32[Array, "terms events"], columns: Float32[Array, "columns events"]
) -> Float32[Array, "events products"]:
    return (terms[:, None] * columns[None]).reshape(-1, columns.shape[1]).T
