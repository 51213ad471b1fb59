"""The smooth sibling of the hard analysis: what it yields on average when every threshold is smeared.

Each object meets a threshold of its own, drawn from the kernel of the cut about its nominal place. Far from all
thresholds an event has one outcome; near some it has several, one for each way in which its uncertain jets may be out,
in, or in and b-tagged. The yields are the expectation over these outcomes, each of them found by the very function of
the hard analysis (`pipeline.events.yields.outcome_of_jets`) for a definite set of jets. So counting, ordering, the choice of
the trijet and the regions stay what they are, there is no soft jet, and bandwidths that tend to 0 give back the hard
yields.

The expectation is a smooth function of the thresholds, and comes with its own exact derivative: what line searches and
quasi-Newton methods need. To first order in the bandwidth that derivative is the boundary flux.

The number of outcomes is a product over the uncertain jets of an event. Events are therefore not padded to a number of
outcomes: all of them are numbered through and visited in blocks, as flips are (`pipeline.events.flux.for_each`).
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Float64, Int, Int32, Int64, UInt32

from pipeline.analyses.observables import first_trijet
from pipeline.events.batch import CandidateGroup, Chunk, EventGroup
from pipeline.events.bin_edges import Edges, edge_flux
from pipeline.events.cuts import Count, Region, Selection, Thresholds, count_bits, pass_probability, present
from pipeline.events.flux import for_each, kernel_integral, pack, with_derivatives
from pipeline.events.yields import (
    HardAnalysis,
    JetsOutcome,
    Layout,
    columns_of,
    concerns,
    event_variables,
    hard_analysis,
    outcome_of_jets,
    sum_over_chunks,
)

__all__ = ["outcomes_per_event", "smeared_yields", "smeared_yields_and_slopes"]


class _States(eqx.Module, strict=True):
    """What each jet may be, as sets of jets: out, selected without a b-tag, selected with one."""

    out: UInt32[Array, " events"]
    plain: UInt32[Array, " events"]
    tagged: UInt32[Array, " events"]


class _Odds(eqx.Module, strict=True):
    """A probability, and its derivative by the thresholds that it depends on."""

    value: Float64[Array, " items"]
    slopes: dict[str, Float64[Array, " items"]]


def smeared_yields(
    selection: Selection, layout: Layout
) -> Callable[..., Float64[Array, "kinematics datasets bins columns"]]:
    """The smeared yields of all data sets, as a function that JAX can differentiate by the thresholds.

    Returns:
        `yields(thresholds, bandwidths, edges, groups, candidates)`, shape "kinematics datasets bins columns". Its
        derivative by a threshold that has a bandwidth is exact; any other threshold is hard, with derivative 0.
    """

    def value(thresholds: Thresholds, bandwidths: Thresholds, edges: Edges, *events: Any) -> Array:
        analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges)
        return sum_over_chunks(lambda chunk: _chunk_yields(analysis, (), chunk)[0], layout, *events)

    return with_derivatives(value, partial(smeared_yields_and_slopes, selection, layout))


def smeared_yields_and_slopes(
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
    """The smeared yields, and their derivative by each threshold that has a bandwidth, in one pass over the events."""
    analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges)
    return sum_over_chunks(partial(_chunk_yields, analysis, tuple(bandwidths)), layout, groups, candidates)


def outcomes_per_event(
    selection: Selection,
    layout: Layout,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    edges: Edges,
    groups: tuple[EventGroup, ...],
    candidates: tuple[CandidateGroup, ...],
) -> Float64[Array, ""]:
    """How many outcomes an event has on average: what the smeared yields cost, in hard ones."""
    analysis = hard_analysis(selection, layout, thresholds, bandwidths, edges)

    def outcomes_and_events(chunk: Chunk) -> Float64[Array, "1 2"]:
        outcomes = _count_outcomes(analysis, _jet_states(analysis, chunk), _lepton_odds(analysis, (), chunk))
        return jnp.stack([outcomes.sum(), jnp.count_nonzero(chunk.weight)]).astype(jnp.float64)[None]

    total = sum_over_chunks(outcomes_and_events, layout, groups, candidates).sum(axis=(0, 1, 2))
    return total[0] / total[1]


def _chunk_yields(
    analysis: HardAnalysis, by: tuple[str, ...], chunk: Chunk
) -> tuple[Float64[Array, "bins columns"], dict[str, Float64[Array, "bins columns"]]]:
    """Every outcome of every event, weighted with its probability; and the derivative by some thresholds."""
    columns, states, leptons = columns_of(chunk), _jet_states(analysis, chunk), _lepton_odds(analysis, by, chunk)
    nothing = jnp.zeros((analysis.selection.bins, 2 + analysis.layout.ranks))

    def visit(
        event: Int32[Array, " items"],
        number: Int64[Array, " items"],
        real: Bool[Array, " items"],
        total: tuple[Array, dict[str, Array]],
    ) -> tuple[Array, dict[str, Array]]:
        selected, btag = _nth_sets(states, len(columns.jets["pt"]), event, number)
        trijet = first_trijet(chunk, selected, btag, event)
        of_events = jax.tree.map(lambda column: column[..., event], columns)
        outcome = outcome_of_jets(analysis, of_events, selected, btag, trijet)
        variables = event_variables(of_events, selected, trijet)
        factors = (
            jax.tree.map(lambda one: jnp.where(real, one[event], 0), leptons),
            _jet_odds(analysis, by, {name: one[:, event] for name, one in chunk.jets.items()}, selected, btag),
            _event_odds(analysis, by, variables, outcome),
        )
        odds = _product(*factors)
        return jax.tree.map(jnp.add, total, _histograms(analysis, by, variables, outcome, odds))

    start = (nothing, dict.fromkeys(by, nothing))
    return for_each(_count_outcomes(analysis, states, leptons), visit, start)


# --- The outcomes of an event: which sets of jets are possible --------------------------------------------------------


def _jet_states(analysis: HardAnalysis, chunk: Chunk) -> _States:
    selected, tagged = (_pass_all(analysis, analysis.thresholds, kind, chunk.jets) for kind in ("jet", "bjet"))
    return _States(
        out=pack(selected < 1), plain=pack((selected > 0) & (tagged < 1)), tagged=pack((selected > 0) & (tagged > 0))
    )


def _count_outcomes(analysis: HardAnalysis, states: _States, leptons: _Odds) -> Int64[Array, " events"]:
    """Number of outcomes of each event: 0 where none can get into any region."""
    regions = analysis.selection.regions
    jets, tags = count_bits(states.plain | states.tagged), count_bits(states.tagged)
    possible = leptons.value > 0
    possible &= jets >= min(region.jets.minimum for region in regions)
    possible &= tags >= min(region.btags.minimum for region in regions)
    every = states.out & states.plain & states.tagged
    two = (states.out & states.plain) | (states.out & states.tagged) | (states.plain & states.tagged)
    twos, threes = (count_bits(one).astype(jnp.int64) for one in (two & ~every, every))
    choices = 2**twos * 3**threes
    return jnp.where(possible, choices, 0)


def _nth_sets(
    states: _States, jets: int, event: Int32[Array, " items"], number: Int64[Array, " items"]
) -> tuple[UInt32[Array, " items"], UInt32[Array, " items"]]:
    """Selected and b-tagged jets in the outcome of this number: its digits, one a jet, say which state each is in."""
    out, plain, tagged = states.out[event], states.plain[event], states.tagged[event]

    def add_jet(jet: Int[Array, ""], found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, selected, btag = found
        bit = jnp.uint32(1) << jet.astype(jnp.uint32)
        may_be_out, may_be_plain, may_be_tagged = (((one & bit) != 0).astype(jnp.int64) for one in (out, plain, tagged))
        choices = may_be_out + may_be_plain + may_be_tagged
        # Divisions by constants: by a variable they are ten times slower.
        rest = jnp.where(choices == 3, left // 3, jnp.where(choices == 2, left >> 1, left))
        digit = left - rest * choices
        is_in = digit >= may_be_out
        is_tagged = digit >= may_be_out + may_be_plain
        nothing = jnp.uint32(0)
        return rest, selected | jnp.where(is_in, bit, nothing), btag | jnp.where(is_tagged, bit, nothing)

    none = jnp.zeros_like(out)
    return jax.lax.fori_loop(0, jets, add_jet, (number, none, none))[1:]


# --- How probable an outcome is ---------------------------------------------------------------------------------------


def _lepton_odds(analysis: HardAnalysis, by: tuple[str, ...], chunk: Chunk) -> _Odds:
    """That the number of selected leptons is one that is asked for.

    Reverse mode through the counting, forward mode through the cuts: there are few leptons, and many cuts on them.
    """
    kinds = (("electron", chunk.electrons), ("muon", chunk.muons))

    def each(thresholds: Thresholds) -> Float64[Array, "leptons events"]:
        return jnp.concatenate([_pass_all(analysis, thresholds, kind, columns) for kind, columns in kinds])

    passes, slopes = _with_slopes(analysis, by, ("electron", "muon"), each)
    value, by_lepton = jax.vjp(partial(_number_within, analysis.selection.leptons), passes)
    (weight,) = by_lepton(jnp.ones_like(value))
    return _Odds(value=value, slopes={name: jnp.sum(weight * slope, axis=0) for name, slope in slopes.items()})


def _number_within(count: Count, passes: Float64[Array, "objects events"]) -> Float64[Array, " events"]:
    """The probability that so many objects pass: they are added one by one, each counts or does not."""
    most = len(passes) if count.maximum is None else min(count.maximum, len(passes))
    of_number = [jnp.ones(passes.shape[1])] + [jnp.zeros(passes.shape[1])] * most
    for one in passes:
        before = [jnp.zeros(passes.shape[1]), *of_number[:-1]]
        of_number = [same * (1 - one) + fewer * one for same, fewer in zip(of_number, before, strict=True)]
    return sum(of_number[count.minimum :], start=jnp.zeros(passes.shape[1]))


def _jet_odds(
    analysis: HardAnalysis,
    by: tuple[str, ...],
    jets: dict[str, Float32[Array, "jets items"]],
    selected: UInt32[Array, " items"],
    btag: UInt32[Array, " items"],
) -> _Odds:
    """That the jets are these ones: a factor for each, which is 1 for the certain ones and for absent ones."""
    bits = jnp.uint32(1) << jnp.arange(len(jets["pt"]), dtype=jnp.uint32)
    is_in, is_tagged = ((one[None] & bits[:, None]) != 0 for one in (selected, btag))

    def each(thresholds: Thresholds) -> Float64[Array, "jets items"]:
        selects, tags = (_pass_all(analysis, thresholds, kind, jets) for kind in ("jet", "bjet"))
        return jnp.where(is_in, selects * jnp.where(is_tagged, tags, 1 - tags), 1 - selects)

    factors, slopes = _with_slopes(analysis, by, ("jet", "bjet"), each)
    value = jnp.prod(factors, axis=0)
    inverse = jnp.where(factors > 0, 1 / jnp.where(factors > 0, factors, 1), 0)
    return _Odds(value=value, slopes={name: value * jnp.sum(slope * inverse, axis=0) for name, slope in slopes.items()})


def _event_odds(
    analysis: HardAnalysis,
    by: tuple[str, ...],
    variables: dict[str, Float32[Array, " items"]],
    outcome: JetsOutcome,
) -> _Odds:
    """That the event-level cuts which concern its region accept the event."""
    cuts = analysis.selection.on("event")

    def probability(thresholds: Thresholds) -> Float64[Array, " items"]:
        accepted = pass_probability(cuts, thresholds, analysis.bandwidths, variables)
        total = jnp.ones(outcome.region.shape)
        for cut in cuts:
            total *= jnp.where(concerns(cut, analysis.selection, outcome.region), accepted[cut.name], 1)
        return total

    value, slopes = _with_slopes(analysis, by, ("event",), probability)
    return _Odds(value=value, slopes=slopes)


def _pass_all(
    analysis: HardAnalysis, thresholds: Thresholds, kind: str, columns: dict[str, Float32[Array, "objects events"]]
) -> Float64[Array, "objects events"]:
    """The probability that an object passes all cuts on its kind, each smeared on its own."""
    passed = pass_probability(analysis.selection.on(kind), thresholds, analysis.bandwidths, columns)
    return reduce(jnp.multiply, passed.values(), present(columns).astype(jnp.float64))


def _with_slopes(
    analysis: HardAnalysis,
    by: tuple[str, ...],
    kinds: tuple[str, ...],
    function: Callable[[Thresholds], Float64[Array, "*shape"]],
) -> tuple[Float64[Array, "*shape"], dict[str, Float64[Array, "*shape"]]]:
    """A function of the thresholds, and its derivative by those that cut on some kinds of objects."""
    names = {cut.name for kind in kinds for cut in analysis.selection.on(kind)} & set(by)
    moving = {name: analysis.thresholds[name] for name in sorted(names)}
    if not moving:
        return function(analysis.thresholds), {}

    def twice(moving: Thresholds) -> tuple[Array, Array]:
        value = function(analysis.thresholds | moving)
        return value, value

    slopes, value = jax.jacfwd(twice, has_aux=True)(moving)
    return value, slopes


def _product(*factors: _Odds) -> _Odds:
    """All of them together. A threshold may act in several: an object of each kind may meet it."""
    value, slopes = jnp.ones_like(factors[0].value), dict[str, Array]()
    for factor in factors:
        slopes = {name: slope * factor.value for name, slope in slopes.items()}
        for name, slope in factor.slopes.items():
            slopes[name] = slopes.get(name, 0) + value * slope
        value *= factor.value
    return _Odds(value=value, slopes=slopes)


# --- Where an outcome goes --------------------------------------------------------------------------------------------


def _histograms(
    analysis: HardAnalysis,
    by: tuple[str, ...],
    variables: dict[str, Float32[Array, " items"]],
    outcome: JetsOutcome,
    odds: _Odds,
) -> tuple[Float64[Array, "bins columns"], dict[str, Float64[Array, "bins columns"]]]:
    """The histogram of outcomes, and its derivative by each threshold: of the odds, and of the edges of the bins."""
    selection = analysis.selection
    observables = {
        region.name: jnp.where(outcome.region == number, variables[region.observable], jnp.nan)
        for number, region in enumerate(selection.regions)
    }
    in_order = sorted(selection.regions, key=lambda region: region.offset)
    shares = jnp.concatenate(
        [_shares(analysis, region, observables[region.name], outcome.position) for region in in_order]
    )
    columns = outcome.columns.astype(jnp.float64)
    weights = jnp.stack([odds.value, *odds.slopes.values()])
    products = (weights[:, None] * columns[None]).reshape(-1, columns.shape[1])
    total = (
        jnp.matmul(shares, products.T, precision=jax.lax.Precision.HIGHEST)
        .reshape(len(shares), *weights.shape[:1], -1)
        .swapaxes(0, 1)
    )
    together = jnp.zeros(odds.value.shape, jnp.int32)
    by_edges = edge_flux(
        selection, analysis.bandwidths, analysis.edges, observables, odds.value[None] * columns, together, 1
    )
    slopes = dict(zip(odds.slopes, total[1:], strict=True)) | {name: one[0] for name, one in by_edges.items()}
    return total[0], {name: slopes.get(name, jnp.zeros_like(total[0])) for name in by}


def _shares(
    analysis: HardAnalysis,
    region: Region,
    observable: Float32[Array, " items"],
    position: Int32[Array, " items"],
) -> Float64[Array, "bins items"]:
    """Which part of an outcome is in each bin of a region: all of it in one, unless the edges move and are smeared."""
    if region.edges and region.edges[0] in analysis.bandwidths:
        distance = analysis.edges[region.name][:, None] - observable.astype(jnp.float64)[None]
        below = kernel_integral(distance, analysis.bandwidths[region.edges[0]])
        return below[1:] - below[:-1]
    bins = region.offset + jnp.arange(region.bins, dtype=position.dtype)
    return (position[None] == bins[:, None]).astype(jnp.float64)
