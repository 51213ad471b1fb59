"""The hard analysis of a chunk of events: cut, count, choose, histogram; and the boundary flux of every threshold.

`outcome_of_jets` is the analysis of each event given the *sets* of its selected and b-tagged jets. The yields are the
histogram of the outcomes; the flux is the histogram, again, of the outcomes for sets that differ by one object near a
boundary (`pipeline.events.flux`). Both use the very same function, so there is no second analysis that could differ.

The columns of the histogram are Σw, Σw² and Σ w·pt of the first selected jets; every template is linear in these.
Weights are those of single events (1 in most samples), so plain counts stay exact in float32 within a chunk; chunks are
added in float64, and the normalisation of a data set multiplies the finished sums.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32, UInt32

from pipeline.analyses.observables import TRIJET_OBSERVABLES, first_trijet, jet_observables, ranked_pt
from pipeline.events.batch import CandidateGroup, Chunk, EventGroup, take_chunk
from pipeline.events.bin_edges import Edges, edge_flux, placed_edges
from pipeline.events.binning import add_to_histogram, bin_index, hard_histogram
from pipeline.events.cuts import (
    Cut,
    Selection,
    Thresholds,
    count_bits,
    cut_flux,
    in_region,
    passes,
    present,
    within,
)
from pipeline.events.flux import for_each_flip, pack, with_derivatives

__all__ = [
    "SUBSAMPLES",
    "Columns",
    "EventOutcomes",
    "HardAnalysis",
    "JetsOutcome",
    "Layout",
    "columns_of",
    "concerns",
    "event_outcomes",
    "event_variables",
    "hard_analysis",
    "hard_yields",
    "outcome_of_jets",
    "sum_over_chunks",
    "yields_and_flux",
    "yields_and_subsampled_flux",
]

SUBSAMPLES = 16
"""Disjoint parts of the collisions whose fluxes are told apart: how they scatter is the error of their sum."""

Result = TypeVar("Result")


class Layout(NamedTuple):
    """Static sizes of the yields: data sets, kinematic variations, and jet ranks whose pt is summed."""

    datasets: int
    kinematics: int
    ranks: int


class JetsOutcome(eqx.Module, strict=True):
    """What the analysis makes of each event for given sets of jets, leptons left aside.

    `region` counts in the order of the selection, −1 for none; `position` is the bin on the joint axis of all regions,
    and the number of bins for none. `accepted`: all event-level cuts pass. `columns` are the per-event terms of the
    sums.
    """

    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    accepted: dict[str, Bool[Array, " events"]]
    columns: Float32[Array, "columns events"]


class EventOutcomes(eqx.Module, strict=True):
    """The fate of each event, all cuts included.

    `region` is −1 for none; `position` is the bin on the joint axis. The observable is in GeV, NaN outside the regions.
    An event inside a region may still lie in no bin.
    """

    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    observable: Float32[Array, " events"]
    columns: Float32[Array, "columns events"]


class _Objects(eqx.Module, strict=True):
    """The sets of objects of each event: selected jets, jets that pass the b-tag cuts, number of selected leptons."""

    selected: UInt32[Array, " events"]
    btag: UInt32[Array, " events"]
    leptons: Int32[Array, " events"]


class Columns(eqx.Module, strict=True):
    """What the analysis of given sets of jets looks at."""

    jets: dict[str, Float32[Array, "jets events"]]
    weight: Float32[Array, " events"]
    variables: dict[str, Float32[Array, " events"]]


_Trijet = tuple[Float32[Array, " events"], Float32[Array, " events"]]
"""Mass and pt of the chosen trijet in GeV; NaN without one."""

_Visit = Callable[[Array, Array, Array, Array], Array]
"""What `for_each_flip` calls."""


class HardAnalysis(NamedTuple):
    """What stays the same for all chunks and flips. `edges` are where the thresholds put them."""

    selection: Selection
    layout: Layout
    thresholds: Thresholds
    bandwidths: Thresholds
    edges: Edges
    subsamples: int


def hard_analysis(
    selection: Selection,
    layout: Layout,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    edges: Edges,
    subsamples: int = 1,
) -> HardAnalysis:
    """The hard analysis at some thresholds, with the edges of the bins where these put them."""
    placed = placed_edges(selection, thresholds, edges)
    return HardAnalysis(selection, layout, thresholds, bandwidths, placed, subsamples)


def hard_yields(
    selection: Selection, layout: Layout
) -> Callable[..., Float64[Array, "kinematics datasets bins columns"]]:
    """The yields of all data sets, exact, as a function that JAX can differentiate by the thresholds.

    Returns:
        `yields(thresholds, bandwidths, edges, groups, candidates)`, shape "kinematics datasets bins columns". Its
        derivative by a threshold that has a bandwidth is the boundary flux; by any other threshold it is 0.
    """

    def value(thresholds: Thresholds, bandwidths: Thresholds, edges: Edges, *events: Any) -> Array:
        analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges)
        return sum_over_chunks(partial(_chunk_yields, analysis), layout, *events)

    return with_derivatives(value, partial(yields_and_flux, selection, layout))


def yields_and_flux(
    selection: Selection,
    layout: Layout,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    edges: Edges,
    groups: tuple[EventGroup, ...],
    candidates: tuple[CandidateGroup, ...],
) -> tuple[
    Float64[Array, "kinematics datasets bins columns"], dict[str, Float64[Array, "kinematics datasets bins columns"]]
]:
    """The exact yields, and the boundary flux for each threshold that has a bandwidth, in one pass over the events."""
    analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges)
    yields, flux = sum_over_chunks(partial(_chunk_yields_and_flux, analysis), layout, groups, candidates)
    return yields, {name: one[:, :, 0] for name, one in flux.items()}


def yields_and_subsampled_flux(
    selection: Selection,
    layout: Layout,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    edges: Edges,
    groups: tuple[EventGroup, ...],
    candidates: tuple[CandidateGroup, ...],
) -> tuple[
    Float64[Array, "kinematics datasets bins columns"],
    dict[str, Float64[Array, "kinematics datasets subsamples bins columns"]],
]:
    """`yields_and_flux` with the flux of `SUBSAMPLES` parts of the events.

    A collision is in one part, in all its detector simulations and kinematic variations.
    """
    analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges, SUBSAMPLES)
    return sum_over_chunks(partial(_chunk_yields_and_flux, analysis), layout, groups, candidates)


def sum_over_chunks(
    of_chunk: Callable[[Chunk], Result],
    layout: Layout,
    groups: tuple[EventGroup, ...],
    candidates: tuple[CandidateGroup, ...],
) -> Result:
    """Chunk by chunk, so that memory is bounded by a chunk; added in float64 by kinematic variation and data set."""

    def of_group(group: EventGroup, trijets: CandidateGroup) -> Result:
        def of_task(number: Array) -> Result:
            return of_chunk(take_chunk(group, trijets, group.task_kinematic[number], group.task_chunk[number]))

        def add(number: Array, sums: Result) -> Result:
            place = group.task_kinematic[number], group.dataset[group.task_chunk[number]]
            return jax.tree.map(lambda total, one: total.at[place].add(one.astype(total.dtype)), sums, of_task(number))

        shapes = jax.eval_shape(of_task, jnp.int32(0))
        axes = (layout.kinematics, layout.datasets)
        nothing = jax.tree.map(lambda one: jnp.zeros((*axes, *one.shape), jnp.float64), shapes)
        # A part of a larger set of events may have room for more tasks than it has: they come last, and are not done.
        return jax.lax.fori_loop(0, jnp.sum(group.task_chunk >= 0, dtype=jnp.int32), add, nothing)

    results = [of_group(group, trijets) for group, trijets in zip(groups, candidates, strict=True)]
    return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]), *results)


def event_outcomes(
    selection: Selection, layout: Layout, thresholds: Thresholds, edges: Edges, chunk: Chunk
) -> EventOutcomes:
    """What the analysis makes of every event of a chunk, one by one."""
    return _event_outcomes(hard_analysis(selection, layout, thresholds, {}, edges), chunk)


def _event_outcomes(analysis: HardAnalysis, chunk: Chunk) -> EventOutcomes:
    selection = analysis.selection
    objects = _objects(analysis, chunk)
    trijet = first_trijet(chunk, objects.selected, objects.btag)
    outcome = _unflipped(analysis, chunk, objects, trijet)
    keep = within(selection.leptons, objects.leptons) & _all(outcome.accepted, objects.leptons)
    observable = jnp.full(chunk.weight.shape, jnp.nan, jnp.float32)
    for values in _observables(analysis, chunk, objects, trijet, outcome).values():
        observable = jnp.where(jnp.isnan(values), observable, values)
    return EventOutcomes(
        region=jnp.where(keep, outcome.region, -1),
        position=jnp.where(keep, outcome.position, selection.bins),
        observable=jnp.where(keep, observable, jnp.nan),
        columns=outcome.columns,
    )


def _observables(
    analysis: HardAnalysis, chunk: Chunk, objects: _Objects, trijet: _Trijet, outcome: JetsOutcome
) -> dict[str, Float32[Array, " events"]]:
    """The observable of each region, NaN for events outside it."""
    values = event_variables(columns_of(chunk), objects.selected, trijet)
    nothing = jnp.float32(jnp.nan)
    return {
        region.name: jnp.where(outcome.region == number, values[region.observable], nothing)
        for number, region in enumerate(analysis.selection.regions)
    }


def _chunk_yields(analysis: HardAnalysis, chunk: Chunk) -> Float32[Array, "bins columns"]:
    outcome = _event_outcomes(analysis, chunk)
    return hard_histogram(outcome.position, outcome.columns.T, analysis.selection.bins)


def _chunk_yields_and_flux(
    analysis: HardAnalysis, chunk: Chunk
) -> tuple[Float32[Array, "bins columns"], dict[str, Float32[Array, "subsamples bins columns"]]]:
    """The yields, and their boundary flux for each threshold that has a bandwidth."""
    selection, bins = analysis.selection, analysis.selection.bins
    objects = _objects(analysis, chunk)
    trijet = first_trijet(chunk, objects.selected, objects.btag)
    outcome = _unflipped(analysis, chunk, objects, trijet)
    one_lepton = within(selection.leptons, objects.leptons)
    accepted = _all(outcome.accepted, objects.leptons)
    position = jnp.where(one_lepton & accepted, outcome.position, bins)
    yields = hard_histogram(position, outcome.columns.T, bins)

    unflipped = _lepton_terms(analysis, chunk, objects, accepted) | _event_terms(
        analysis, chunk, objects, trijet, outcome, one_lepton
    )
    flux = _histogram_of_terms(analysis, chunk, unflipped, outcome)
    for kind in ("jet", "bjet"):
        # A cut may be on leptons and on jets: both flow through the same boundary.
        for name, one in _terms_of_flips(analysis, chunk, kind, objects, outcome, one_lepton).items():
            flux[name] = flux[name] + one if name in flux else one
    observables = _observables(analysis, chunk, objects, trijet, outcome)
    selected = jnp.where(one_lepton & accepted, outcome.columns, 0)
    subsample = _subsample(analysis, chunk)
    flux |= edge_flux(
        selection, analysis.bandwidths, analysis.edges, observables, selected, subsample, analysis.subsamples
    )
    return yields, flux


def _subsample(analysis: HardAnalysis, chunk: Chunk) -> Int32[Array, " events"]:
    """Which part of the events each one is in."""
    return chunk.collision % jnp.int32(analysis.subsamples)


def _objects(analysis: HardAnalysis, chunk: Chunk) -> _Objects:
    return _Objects(
        selected=pack(_pass_all(analysis, "jet", chunk.jets)),
        btag=pack(_pass_all(analysis, "bjet", chunk.jets)),
        leptons=_pass_all(analysis, "electron", chunk.electrons).sum(axis=0, dtype=jnp.int32)
        + _pass_all(analysis, "muon", chunk.muons).sum(axis=0, dtype=jnp.int32),
    )


def _pass_all(analysis: HardAnalysis, kind: str, columns: dict[str, Array]) -> Bool[Array, "objects events"]:
    passed = present(columns)
    for one in passes(analysis.selection.on(kind), analysis.thresholds, columns).values():
        passed &= one
    return passed


def _flux(analysis: HardAnalysis, kind: str, columns: dict[str, Array]) -> dict[str, Float32[Array, "*objects events"]]:
    return cut_flux(analysis.selection.on(kind), analysis.thresholds, analysis.bandwidths, columns)


def columns_of(chunk: Chunk) -> Columns:
    """What the analysis looks at once it knows the sets of jets."""
    return Columns(jets=chunk.jets, weight=chunk.weight, variables=chunk.variables)


def _unflipped(analysis: HardAnalysis, chunk: Chunk, objects: _Objects, trijet: _Trijet) -> JetsOutcome:
    return outcome_of_jets(analysis, columns_of(chunk), objects.selected, objects.btag, trijet)


def outcome_of_jets(
    analysis: HardAnalysis,
    of_events: Columns,
    selected: UInt32[Array, " events"],
    btag: UInt32[Array, " events"],
    trijet: _Trijet,
) -> JetsOutcome:
    """The hard analysis of each event for the given sets of jets and the trijet chosen from them."""
    selection, weight = analysis.selection, of_events.weight
    jets, btags = count_bits(selected), count_bits(selected & btag)
    variables = event_variables(of_events, selected, trijet)
    region_of = jnp.full(jets.shape, -1, jnp.int32)
    position = jnp.full(jets.shape, selection.bins, jnp.int32)
    for number, region in enumerate(selection.regions):
        inside = in_region(region, jets, btags)
        bin_ = bin_index(variables[region.observable], _float32(analysis.edges[region.name]))
        region_of = jnp.where(inside, number, region_of)
        position = jnp.where(inside & (bin_ < region.bins), region.offset + bin_, position)
    accepted = passes(selection.on("event"), analysis.thresholds, variables)
    for cut in selection.on("event"):
        accepted[cut.name] |= ~concerns(cut, selection, region_of)
    ranked = ranked_pt(of_events.jets["pt"], selected, analysis.layout.ranks)
    columns = jnp.stack([weight, weight * weight, *(weight[None] * ranked)])
    return JetsOutcome(region=region_of, position=position, accepted=accepted, columns=columns)


def _lepton_terms(
    analysis: HardAnalysis, chunk: Chunk, objects: _Objects, accepted: Bool[Array, " events"]
) -> dict[str, Float32[Array, " events"]]:
    """A lepton that flips changes nothing but the number of leptons: the event enters or leaves where it stands."""
    count = analysis.selection.leptons
    now = within(count, objects.leptons).astype(jnp.float32)
    terms: dict[str, Float32[Array, " events"]] = {}
    for kind, leptons in (("electron", chunk.electrons), ("muon", chunk.muons)):
        step = jnp.where(_pass_all(analysis, kind, leptons), jnp.int32(-1), jnp.int32(1))
        change = within(count, objects.leptons[None] + step).astype(jnp.float32) - now[None]
        for name, flux in _flux(analysis, kind, leptons).items():
            term = jnp.where(accepted, (flux * change).sum(axis=0), 0)
            terms[name] = terms[name] + term if name in terms else term
    return terms


def _event_terms(
    analysis: HardAnalysis, chunk: Chunk, objects: _Objects, trijet: _Trijet, outcome: JetsOutcome, one_lepton: Array
) -> dict[str, Float32[Array, " events"]]:
    """For an event-level cut the event itself is the object."""
    cuts = analysis.selection.on("event")
    variables = event_variables(columns_of(chunk), objects.selected, trijet)
    terms = {}
    for cut in cuts:
        if cut.name not in analysis.bandwidths:
            continue
        others = one_lepton & concerns(cut, analysis.selection, outcome.region)
        for other in cuts:
            if other.name != cut.name:
                others &= outcome.accepted[other.name]
        flux = cut_flux((cut,), analysis.thresholds, analysis.bandwidths, {cut.variable: variables[cut.variable]})[
            cut.name
        ]
        change = jnp.where(outcome.accepted[cut.name], jnp.float32(-1), jnp.float32(1))
        terms[cut.name] = jnp.where(others, flux * change, 0)
    return terms


def _terms_of_flips(
    analysis: HardAnalysis,
    chunk: Chunk,
    kind: str,
    objects: _Objects,
    outcome: JetsOutcome,
    one_lepton: Bool[Array, " events"],
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """One jet, or one b-tag, flipped: the event leaves the bin where it is and enters the one where it would be."""
    flux = _flux(analysis, kind, chunk.jets)
    if not flux:
        return {}
    bins, columns = analysis.selection.bins, columns_of(chunk)
    first, end = _first_bin(analysis, chunk), bins * analysis.subsamples
    may_matter = one_lepton & _within_one_jet(analysis.selection, objects.selected)
    near = pack(may_matter[None] & _any_flux(flux))
    if kind == "bjet":
        near &= objects.selected
    stays = _all(outcome.accepted, objects.leptons) & (outcome.position < bins)

    def visit(
        event: Int32[Array, " flips"],
        jet: Int32[Array, " flips"],
        real: Bool[Array, " flips"],
        total: Float32[Array, "places terms"],
    ) -> Float32[Array, "places terms"]:
        flip = jnp.uint32(1) << jet.astype(jnp.uint32)
        selected, btag = objects.selected[event], objects.btag[event]
        selected, btag = (selected ^ flip, btag) if kind == "jet" else (selected, btag ^ flip)
        of_events = jax.tree.map(lambda column: column[..., event], columns)
        flipped = outcome_of_jets(analysis, of_events, selected, btag, first_trijet(chunk, selected, btag, event))
        terms = jnp.stack([one[jet, event] for one in flux.values()])
        entering = real & _all(flipped.accepted, jet) & (flipped.position < bins)
        enters = jnp.where(entering, first[event] + flipped.position, end)
        leaves = jnp.where(real & stays[event], first[event] + outcome.position[event], end)
        total = add_to_histogram(total, enters, _rows(terms, flipped.columns))
        return add_to_histogram(total, leaves, _rows(-terms, outcome.columns[:, event]))

    return _collected(analysis, near, len(chunk.jets["pt"]), visit, tuple(flux), outcome.columns.shape[0])


def _histogram_of_terms(
    analysis: HardAnalysis, chunk: Chunk, terms: dict[str, Float32[Array, " events"]], outcome: JetsOutcome
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """One histogram a term, each event weighted with the term where it is; few events have any."""
    if not terms:
        return {}
    bins, stacked = analysis.selection.bins, jnp.stack(list(terms.values()))
    inside = outcome.position < bins
    place = jnp.where(inside, _first_bin(analysis, chunk) + outcome.position, bins * analysis.subsamples)

    def visit(
        event: Int32[Array, " some"],
        _: Int32[Array, " some"],
        real: Bool[Array, " some"],
        total: Float32[Array, "places products"],
    ) -> Float32[Array, "places products"]:
        position = jnp.where(real, place[event], bins * analysis.subsamples)
        return add_to_histogram(total, position, _rows(stacked[:, event], outcome.columns[:, event]))

    near = jnp.any(stacked != 0, axis=0).astype(jnp.uint32)
    return _collected(analysis, near, 1, visit, tuple(terms), outcome.columns.shape[0])


def _first_bin(analysis: HardAnalysis, chunk: Chunk) -> Int32[Array, " events"]:
    """Where the bins of an event's subsample start, when those of all subsamples stand side by side."""
    return _subsample(analysis, chunk) * jnp.int32(analysis.selection.bins)


def _collected(
    analysis: HardAnalysis,
    near: UInt32[Array, " events"],
    objects: int,
    visit: _Visit,
    names: tuple[str, ...],
    columns: int,
) -> dict[str, Float32[Array, "subsamples bins columns"]]:
    """The sum of what `visit` adds, a histogram for each name; its columns are the products that `_rows` makes."""
    subsamples, bins = analysis.subsamples, analysis.selection.bins
    start = jnp.zeros((subsamples * bins, len(names) * columns), jnp.float32)
    total = for_each_flip(near, objects, visit, start).reshape(subsamples, bins, len(names), columns)
    return {name: total[:, :, number] for number, name in enumerate(names)}


def _any_flux(flux: dict[str, Float32[Array, "jets events"]]) -> Bool[Array, "jets events"]:
    near = jnp.zeros(next(iter(flux.values())).shape, bool)
    for one in flux.values():
        near |= one != 0
    return near


def _rows(
    terms: Float32[Array, "terms events"], columns: Float32[Array, "columns events"]
) -> Float32[Array, "events products"]:
    return (terms[:, None] * columns[None]).reshape(-1, columns.shape[1]).T


def event_variables(
    columns: Columns, selected: UInt32[Array, " events"], trijet: _Trijet
) -> dict[str, Float32[Array, " events"]]:
    """The event-level variables: those of the file, and those that the selected jets make."""
    made = jet_observables(columns.jets, selected) | dict(zip(TRIJET_OBSERVABLES, trijet, strict=True))
    return columns.variables | made


def _within_one_jet(selection: Selection, selected: UInt32[Array, " events"]) -> Bool[Array, " events"]:
    """An event that is two jets short of every region stays out whatever single object is flipped."""
    return count_bits(selected) + 1 >= min(region.jets.minimum for region in selection.regions)


def concerns(cut: Cut, selection: Selection, region_of: Int32[Array, " events"]) -> Bool[Array, " events"]:
    """Whether an event-level cut applies to the region that each event is in."""
    concerned = jnp.zeros(region_of.shape, bool)
    for number, region in enumerate(selection.regions):
        if cut.regions is None or region.name in cut.regions:
            concerned |= region_of == number
    return concerned


def _all(conditions: dict[str, Bool[Array, " events"]], like: Array) -> Bool[Array, " events"]:
    met = jnp.ones(like.shape, bool)
    for condition in conditions.values():
        met &= condition
    return met


def _float32(value: Float[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return jnp.asarray(value, jnp.float32)
