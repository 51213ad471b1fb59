"""The flux of every threshold through the hard analysis of a chunk of events.

Objects near the boundary of a cut are flipped, one bit of one set at a time, and what depends on that set is computed
again (`pipeline.events.flux` has the formula). Events near the boundary of a cut on events are flipped as a whole, and
edges of bins move by the rule of the binning. Only what a flip may change is computed again, and only for the events
that it may bring into a region, or out of one. Calibrations let objects and events cross the same boundaries
(`pipeline.events.calibration_flux`).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from pipeline.events.batch import Event
from pipeline.events.binning import add_to_histogram, edge_flux, edge_widths
from pipeline.events.calibration import calibrations_with
from pipeline.events.calibration_flux import Speeds, flux_of_moving_events, rising_flux, speeds_of
from pipeline.events.cuts import (
    EVENT,
    Cut,
    ObjectSet,
    Requirement,
    Selection,
    cut_flux,
    side_flux,
    with_others,
    within,
)
from pipeline.events.evaluation import (
    Evaluated,
    Point,
    accepted_by,
    as_variables,
    concerned,
    counts_of,
    derived_bits,
    factors_of,
    inside_regions,
    is_derived,
    placed,
    scores_of,
    variables_of,
)
from pipeline.events.filling import columns_of, moving_regions, observables_of, subsample_of
from pipeline.events.flux import MAX_OBJECTS, for_each_flip, pack
from pipeline.events.function import Sets, members
from pipeline.events.stacking import stacked

__all__ = ["threshold_flux"]


class _Boundary(NamedTuple):
    """Cuts on some sets of one collection: an object that crosses such a boundary does so in all of these sets at once.

    `flips` says for each set who enters or leaves it there: the objects that pass all other cuts on that set.
    """

    sets: tuple[ObjectSet, ...]
    flux: dict[str, Float32[Array, "objects events"]]
    flips: dict[str, UInt32[Array, " events"]]


class _Crossing(NamedTuple):
    """How much of each event crosses the boundaries of a cut on events, or of a requirement, as a parameter rises."""

    parameter: str
    cut: str | Requirement
    flux: Float32[Array, " events"]


class _Change(NamedTuple):
    """What flips in some sets may change: how members are counted, and sets whose cuts depend on their members."""

    by_one: frozenset[str]
    anew: tuple[ObjectSet, ...]
    unknown: frozenset[str]

    @property
    def sets(self) -> frozenset[str]:
        """All of them."""
        return self.by_one | self.unknown


def threshold_flux(at: Point, event: Event, hard: Evaluated) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """The derivative of the histogram of a chunk by each threshold, and each calibration, that has a bandwidth."""
    flux: dict[str, Array] = {}
    # A cut may be on several collections, and a calibration moves much: all that flows adds up.
    for name, part in _parts(at, event, hard):
        flux[name] = flux[name] + part if name in flux else part
    return flux


def _parts(at: Point, event: Event, hard: Evaluated) -> Iterator[tuple[str, Float32[Array, "subsamples bins columns"]]]:
    """What flows, and by which parameter."""
    calibrations = calibrations_with(at.selection, at.bandwidths)
    speeds = {each.name: speeds_of(at, each, event) for each in calibrations}
    yield from _flux_of_edges(at, event, hard).items()
    for each in calibrations:
        yield each.name, flux_of_moving_events(at, each, event, hard, speeds[each.name])
    yield from _flux_of_event_cuts(at, event, hard, speeds)
    for boundary in _boundaries(at, hard, speeds):
        yield from _flux_of_flips(at, event, hard, boundary).items()


def _flux_of_edges(at: Point, event: Event, hard: Evaluated) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """Edges move: the derivative of the histogram by copies of them, one for each subsample."""
    observables, columns = observables_of(at.selection, hard), columns_of(event.weight, hard.factors)
    flux: dict[str, Array] = {}
    for region in moving_regions(at):
        edges = jnp.broadcast_to(at.edges[region.name][:1], (at.subsamples, region.bins + 1))
        width = edge_widths(region, at.bandwidths, at.edges[region.name]).astype(columns.dtype)
        values = observables[region.name]
        around = ((0, 0), (region.offset, at.selection.bins - region.offset - region.bins), (0, 0))
        for name, own in edge_flux(region, edges, width, values, columns, subsample_of(at, event)).items():
            flux[name] = jnp.pad(own, around)
    return flux


def _flux_of_event_cuts(
    at: Point, event: Event, hard: Evaluated, speeds: Mapping[str, Speeds]
) -> Iterator[tuple[str, Float32[Array, "subsamples bins columns"]]]:
    """For a cut on events, the event itself is flipped: it leaves the place where it is and enters another one."""
    counts = counts_of(at.selection, hard.bits)
    variables = hard.variables | as_variables(counts)
    crossings: list[_Crossing] = []
    for cut in at.selection.on(EVENT):
        matters = _matters(at, hard, counts, cut) & ~jnp.isnan(variables[cut.variable])
        sides = side_flux(cut, at.thresholds, at.bandwidths, variables, matters)
        crossings += [_Crossing(name, cut.name, own) for name, own in sides.items()]
    boundaries: tuple[Cut | Requirement, ...] = (*at.selection.on(EVENT), *at.selection.requirements_of_variables())
    for boundary in boundaries if speeds else ():
        matters = _matters(at, hard, counts, boundary)
        for name, own in speeds.items():
            flux = rising_flux(boundary, at.thresholds, at.bandwidths[name], variables, own.variables, matters)
            crossings += [] if flux is None else [_Crossing(name, _key(boundary), flux)]
    for start in range(0, len(crossings), MAX_OBJECTS):
        some = crossings[start : start + MAX_OBJECTS]
        total = _flux_of_crossings(at, event, hard, counts, variables, some)
        yield from zip((each.parameter for each in some), total, strict=True)


def _matters(
    at: Point, hard: Evaluated, counts: dict[str, Int32[Array, " events"]], cut: Cut | Requirement
) -> Bool[Array, " events"]:
    """For which events a cut decides, because everything else lets them into a region: most fail another one."""
    opened = hard.accepted | {_key(cut): jnp.ones(hard.region.shape, bool)}
    inside = inside_regions(at, counts, hard.variables, opened)
    regions = zip(at.selection.regions, inside, strict=True)
    return reduce(
        jnp.logical_or,
        (own for region, own in regions if cut in (*concerned(at.selection, region), *region.requirements)),
        jnp.zeros(hard.region.shape, bool),
    )


def _key(cut: Cut | Requirement) -> str | Requirement:
    """Of what events are accepted by."""
    return cut if isinstance(cut, Requirement) else cut.name


def _flux_of_crossings(
    at: Point,
    event: Event,
    hard: Evaluated,
    counts: dict[str, Int32[Array, " events"]],
    variables: dict[str, Array],
    crossings: Sequence[_Crossing],
) -> Float32[Array, "crossings subsamples bins columns"]:
    """Only events near a boundary are placed again."""
    columns, bins, first = columns_of(event.weight, hard.factors), at.selection.bins, _first_place(at, event)
    terms, end = stacked([each.flux for each in crossings]), len(crossings) * at.subsamples * bins
    crossed = {key: jnp.asarray([key == each.cut for each in crossings]) for key in {each.cut for each in crossings}}
    unscored = at.analysis.scores and any(isinstance(each.cut, Requirement) for each in crossings)

    def visit(
        number: Int32[Array, " flips"],
        name: Int32[Array, " flips"],
        real: Bool[Array, " flips"],
        total: Float32[Array, "places columns"],
    ) -> Float32[Array, "places columns"]:
        accepted = {key: own[number] for key, own in hard.accepted.items()}
        accepted |= {key: accepted[key] ^ own[name] for key, own in crossed.items()}
        own_counts = {key: own[number] for key, own in counts.items()}
        own_variables = {key: own[number] for key, own in variables.items()}
        if unscored:  # an event that does not meet a requirement has not been shown to networks
            bits = {key: own[number] for key, own in hard.bits.items()}
            sets = Sets(at.selection, event.at(number), members(at.selection, bits))
            own_variables |= scores_of(at, sets, own_variables)
        _, enters = placed(at, own_counts, own_variables, accepted)
        leaves, rows = hard.position[number], (terms[name, number][None] * columns[:, number]).T
        for position, row in ((enters, rows), (leaves, -rows)):
            inside = real & (enters != leaves) & (position < bins)
            place = jnp.where(inside, name * at.subsamples * bins + first[number] + position, end)
            total = add_to_histogram(total, place, row)
        return total

    start = jnp.zeros((end, columns.shape[0]), jnp.float32)
    total = for_each_flip(pack(terms != 0), len(crossings), visit, start)
    return total.reshape(len(crossings), at.subsamples, bins, -1)


def _boundaries(at: Point, hard: Evaluated, speeds: Mapping[str, Speeds]) -> list[_Boundary]:
    """The cuts on objects that have a flux, by the sets of a collection that they are on."""
    boundaries = []
    for sets, cuts in at.selection.by_sets().items():
        flux = [_flux_of_objects(at, hard, speeds, each, cuts) for each in sets]
        if not flux[0]:
            continue
        flips = {}
        for each, own in zip(sets, flux, strict=True):
            flips[each.name] = pack(reduce(jnp.logical_or, (part != 0 for part in own.values())))
            if each.within is not None and len(sets) == 1:
                flips[each.name] &= members(at.selection, hard.bits)[each.within]
        boundaries.append(_Boundary(sets, reduce(_united, flux), flips))
    return boundaries


def _flux_of_objects(
    at: Point, hard: Evaluated, speeds: Mapping[str, Speeds], own: ObjectSet, cuts: Sequence[Cut]
) -> dict[str, Float32[Array, "objects events"]]:
    """The flux of the objects of a set through some of the cuts on it, by each parameter that lets them flow."""
    columns, sides = hard.columns[own.name], [side.threshold for cut in cuts for side in cut.sides]
    widths = {name: at.bandwidths[name] for name in sides if name in at.bandwidths}
    flux = cut_flux(at.selection.on(own.name), at.thresholds, widths, columns) if widths else {}
    for name, speed in speeds.items():
        for cut, others in with_others(at.selection.on(own.name), at.thresholds, columns):
            moved = speed.columns[own.name]
            rising = (
                rising_flux(cut, at.thresholds, at.bandwidths[name], columns, moved, others) if cut in cuts else None
            )
            if rising is not None:
                flux[name] = flux[name] + rising if name in flux else rising
    return flux


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
        terms = stacked([term[place, number] for term in flux.values()])
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


def _first_place(at: Point, event: Event) -> Int32[Array, " events"]:
    """Where the bins of an event's subsample start, when those of all subsamples stand side by side."""
    return subsample_of(at, event) * jnp.int32(at.selection.bins)


def _rows(
    terms: Float32[Array, "terms events"], columns: Float32[Array, "columns events"]
) -> Float32[Array, "events products"]:
    return (terms[:, None] * columns[None]).reshape(-1, columns.shape[1]).T
