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
from functools import lru_cache, partial, reduce
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Float64, Int32, UInt32

from pipeline.events.batch import Event, EventGroup, Events, take_chunk
from pipeline.events.binning import PlacedEdges, add_to_histogram, binned, placed_edges
from pipeline.events.cuts import EVENT, ObjectSet, Region, Selection, Thresholds, cut_flux, side_flux, within
from pipeline.events.evaluation import (
    Evaluated,
    EventAnalysis,
    Layout,
    Point,
    accepted_by,
    as_variables,
    columns_of,
    counts_of,
    derived_bits,
    evaluated,
    factors_of,
    is_derived,
    observables_of,
    placed,
    point,
    variables_of,
)
from pipeline.events.flux import for_each_flip, pack, with_derivatives
from pipeline.events.function import Sets, members

__all__ = [
    "SUBSAMPLES",
    "EventOutcomes",
    "copies_of",
    "event_outcomes",
    "hard_yields",
    "sum_over_chunks",
    "yields_and_flux",
]

SUBSAMPLES = 16
"""Disjoint parts of the collisions whose fluxes are told apart: how they scatter is the error of their sum."""

Result = TypeVar("Result")


class EventOutcomes(eqx.Module, strict=True):
    """The fate of each event, all cuts included.

    `region` is −1 for none; `position` is the bin on the joint axis, and the number of bins for none. The observable is
    in its own unit, NaN outside the regions. An event inside a region may still lie in no bin.
    """

    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    observable: Float32[Array, " events"]
    columns: Float32[Array, "columns events"]


class _Boundary(NamedTuple):
    """Cuts on some sets of one collection: an object that crosses such a boundary does so in all of these sets at once.

    `flips` says for each set who enters or leaves it there: the objects that pass all other cuts on that set.
    """

    sets: tuple[ObjectSet, ...]
    flux: dict[str, Float32[Array, "objects events"]]
    flips: dict[str, UInt32[Array, " events"]]


class _Change(NamedTuple):
    """What flips in some sets may change: how members are counted, and sets whose cuts depend on their members."""

    by_one: frozenset[str]
    anew: tuple[ObjectSet, ...]
    unknown: frozenset[str]

    @property
    def sets(self) -> frozenset[str]:
        """All of them."""
        return self.by_one | self.unknown


# --- Yields and their derivatives -------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
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
    hard = evaluated(at, event)
    observable = jnp.full(hard.region.shape, jnp.nan, jnp.float32)
    for values in observables_of(at.selection, hard).values():
        observable = jnp.where(jnp.isnan(values), observable, values)
    return EventOutcomes(
        region=hard.region,
        position=hard.position,
        observable=observable,
        columns=columns_of(event.weight, hard.factors),
    )


def _chunk_yields(at: Point, event: Event) -> tuple[Float32[Array, "bins columns"], Evaluated]:
    hard = evaluated(at, event)
    return _histogram(at, event, hard, at.edges), hard


def _histogram(at: Point, event: Event, hard: Evaluated, edges: PlacedEdges) -> Float32[Array, "bins columns"]:
    return binned(
        at.selection,
        hard.position,
        _subsample(at, event),
        {region.name: at.bandwidths[region.edges[0]] for region in _moving_regions(at)},
        edges,
        observables_of(at.selection, hard),
        columns_of(event.weight, hard.factors),
    )


def _chunk_yields_and_flux(
    at: Point, event: Event
) -> tuple[Float32[Array, "bins columns"], dict[str, Float32[Array, "subsamples bins columns"]]]:
    """The yields, and their derivative by each threshold that has a bandwidth."""
    yields, hard = _chunk_yields(at, event)
    flux = _flux_of_edges(at, event, hard) | _flux_of_event_cuts(at, event, hard)
    for boundary in _boundaries(at, hard):
        # A cut may be on several collections: the objects of all of them flow through the same boundary.
        for name, part in _flux_of_flips(at, event, hard, boundary).items():
            flux[name] = flux[name] + part if name in flux else part
    return yields, flux


# --- The flux of a threshold ------------------------------------------------------------------------------------------


def _flux_of_edges(at: Point, event: Event, hard: Evaluated) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """Edges move: the derivative of the histogram by copies of them, one for each subsample."""
    names = [name for region in _moving_regions(at) for name in region.edges]
    if not names:
        return {}

    regions = _moving_regions(at)
    edges = {region.name: at.edges[region.name][0] for region in regions}

    def histogram(moving: Thresholds) -> Array:
        return _histogram(at, event, hard, at.edges | placed_edges(regions, moving, edges))

    copies = {name: jnp.broadcast_to(at.thresholds[name], (at.subsamples,)) for name in names}
    slopes = jax.jacfwd(histogram)(copies)
    return {name: jnp.moveaxis(slope, -1, 0).astype(jnp.float32) for name, slope in slopes.items()}


def _moving_regions(at: Point) -> tuple[Region, ...]:
    """The regions whose edges move; one region has one kernel, that of its first edge."""
    return tuple(region for region in at.selection.regions if region.edges and region.edges[0] in at.bandwidths)


def _flux_of_event_cuts(
    at: Point, event: Event, hard: Evaluated
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """For a cut on events, the event itself is flipped: it leaves the place where it is and enters another one."""
    variables = hard.variables | as_variables(counts_of(at.selection, hard.bits))
    flux: dict[str, Array] = {}
    enters: list[Array] = []
    for cut in at.selection.on(EVENT):
        sides = side_flux(cut, at.thresholds, at.bandwidths, variables, ~jnp.isnan(variables[cut.variable]))
        accepted = hard.accepted | {cut.name: ~hard.accepted[cut.name]}
        _, position = placed(at, counts_of(at.selection, hard.bits), variables, accepted)
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


def _boundaries(at: Point, hard: Evaluated) -> list[_Boundary]:
    """The cuts on objects that have a flux, by the sets of a collection that they are on."""
    boundaries = []
    for sets, cuts in at.selection.by_sets().items():
        sides = [side.threshold for cut in cuts for side in cut.sides]
        widths = {name: at.bandwidths[name] for name in sides if name in at.bandwidths}
        if not widths:
            continue
        flux = [cut_flux(at.selection.on(each.name), at.thresholds, widths, hard.columns[each.name]) for each in sets]
        flips = {}
        for each, own in zip(sets, flux, strict=True):
            flips[each.name] = pack(reduce(jnp.logical_or, (part != 0 for part in own.values())))
            if each.within is not None and len(sets) == 1:
                flips[each.name] &= members(at.selection, hard.bits)[each.within]
        boundaries.append(_Boundary(sets, reduce(_united, flux), flips))
    return boundaries


def _united(flux: dict[str, Array], other: dict[str, Array]) -> dict[str, Array]:
    """An object has the same flux in all sets that it enters or leaves."""
    return {name: jnp.where(part == 0, other[name], part) for name, part in flux.items()}


def _flux_of_flips(
    at: Point, event: Event, hard: Evaluated, boundary: _Boundary
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """One object flipped: the event leaves the bin where it is and enters the one where it would be."""
    flux, change = boundary.flux, _change(at, event, hard, boundary.sets)
    near = jnp.where(_within_reach(at, hard, change), reduce(jnp.bitwise_or, boundary.flips.values()), jnp.uint32(0))
    bins, columns = at.selection.bins, columns_of(event.weight, hard.factors)
    first, end = _first_place(at, event), bins * at.subsamples

    def visit(
        number: Int32[Array, " flips"],
        place: Int32[Array, " flips"],
        real: Bool[Array, " flips"],
        total: Float32[Array, "places terms"],
    ) -> Float32[Array, "places terms"]:
        bit = jnp.uint32(1) << place.astype(jnp.uint32)
        position, factors = _flipped(at, event, hard, boundary, change, number, bit)
        terms = jnp.stack([term[place, number] for term in flux.values()])
        entering = real & (position < bins)
        enters = jnp.where(entering, first[number] + position, end)
        leaving = real & (hard.position[number] < bins)
        leaves = jnp.where(leaving, first[number] + hard.position[number], end)
        total = add_to_histogram(total, enters, _rows(terms, columns_of(event.weight[number], factors)))
        return add_to_histogram(total, leaves, _rows(-terms, columns[:, number]))

    start = jnp.zeros((end, len(flux) * columns.shape[0]), jnp.float32)
    objects = next(iter(flux.values())).shape[0]
    total = for_each_flip(near, objects, visit, start).reshape(at.subsamples, bins, len(flux), -1)
    return {name: total[:, :, number] for number, name in enumerate(flux)}


def _flipped(
    at: Point,
    event: Event,
    hard: Evaluated,
    boundary: _Boundary,
    change: _Change,
    number: Int32[Array, " flips"],
    bit: Array,
) -> tuple[Int32[Array, " flips"], Float32[Array, "factors flips"]]:
    """Position and factors of some events with one object flipped; only what may change is computed again."""
    some = event.at(number)
    # An object may cross a boundary of several sets, and be kept out of one of them by another cut.
    flips = {name: bit if len(boundary.sets) == 1 else bit & own[number] for name, own in boundary.flips.items()}
    bits = {name: own[number] ^ flips.get(name, jnp.uint32(0)) for name, own in hard.bits.items()}
    for place, each in enumerate(change.anew):
        waiting = {later.name for later in change.anew[place:]}
        known = {name: own for name, own in bits.items() if name not in waiting}
        own, _, _ = derived_bits(at, some, known, each)
        bits[each.name] = own ^ flips.get(each.name, jnp.uint32(0))
    variables = {name: value[number] for name, value in hard.variables.items()}
    factors = hard.factors[:, number]
    if change.sets & hard.used_by_variables:
        variables = variables_of(at, some, Sets(at.selection, some, members(at.selection, bits)))
    if change.sets & hard.used_by_factors:
        factors = factors_of(at, some, Sets(at.selection, some, members(at.selection, bits)), variables)
    counts = counts_of(at.selection, bits)
    _, position = placed(at, counts, variables, accepted_by(at, variables | as_variables(counts)))
    return position, factors


def _change(at: Point, event: Event, hard: Evaluated, sets: tuple[ObjectSet, ...]) -> _Change:
    """What flips in some sets may change."""
    selection = at.selection
    by_one = _with_inner(selection, {each.name for each in sets})
    derived = [other for other in selection.sets if is_derived(selection, other, event)]
    later = derived[min(derived.index(each) if each in derived else -1 for each in sets) + 1 :]
    anew = tuple(later) if by_one & hard.used_by_objects else ()
    return _Change(by_one, anew, _with_inner(selection, {other.name for other in anew}))


def _with_inner(selection: Selection, names: set[str]) -> frozenset[str]:
    """Sets, and those within them."""
    inner = set(names)
    for each in selection.sets:
        if each.within in inner:
            inner.add(each.name)
    return frozenset(inner)


def _within_reach(at: Point, hard: Evaluated, change: _Change) -> Bool[Array, " events"]:
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
    return event.collision % jnp.int32(at.subsamples)


def _first_place(at: Point, event: Event) -> Int32[Array, " events"]:
    """Where the bins of an event's subsample start, when those of all subsamples stand side by side."""
    return _subsample(at, event) * jnp.int32(at.selection.bins)


def _rows(
    terms: Float32[Array, "terms events"], columns: Float32[Array, "columns events"]
) -> Float32[Array, "events products"]:
    return (terms[:, None] * columns[None]).reshape(-1, columns.shape[1]).T
