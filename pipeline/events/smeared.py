"""The smooth sibling of the hard analysis: what it yields on average when every threshold is smeared.

Each object meets a threshold of its own, drawn from the kernel of the cut about its nominal place. Far from all
thresholds an event has one outcome; near some it has several: one for each subset of its uncertain objects, those that
may be in or out of a set. The yields are the expectation over these subsets, each of them judged by the very functions
of the hard analysis (`pipeline.events.yields`). So counting, ordering, the choice of objects and the regions stay what
they are, there is no soft object, and bandwidths that tend to 0 give back the hard yields.

The expectation is a smooth function of the thresholds, and JAX differentiates it: what line searches and quasi-Newton
methods need. To first order in the bandwidth that derivative is the boundary flux.

The number of subsets is 2 to the number of uncertain objects of an event. Events are therefore not padded to a number
of them: all subsets are numbered through and visited in blocks, as flips are (`pipeline.events.flux.for_each`).
"""

from collections.abc import Callable
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float64, Int32, Int64, UInt32

from pipeline.events.batch import Event, Events
from pipeline.events.binning import bin_index
from pipeline.events.calibration import calibrated
from pipeline.events.cuts import EVENT, Region, Thresholds, pass_probability, present, within
from pipeline.events.devices import summed
from pipeline.events.evaluation import (
    EventAnalysis,
    Point,
    as_variables,
    concerned,
    counts_of,
    factors_of,
    is_derived,
    point,
    variables_of,
)
from pipeline.events.filling import columns_of, kernel_widths
from pipeline.events.flux import for_each, kernel_integral, pack, with_derivatives
from pipeline.events.function import Sets, members
from pipeline.events.yields import sum_over_chunks

__all__ = ["outcomes_per_event", "smeared_yields"]


class _Odds(NamedTuple):
    """Of one set: who passes its own cuts for certain, who may, and with which probability."""

    certain: UInt32[Array, " events"]
    uncertain: UInt32[Array, " events"]
    passes: Float64[Array, "objects events"]


@lru_cache(maxsize=64)
def smeared_yields(analysis: EventAnalysis) -> Callable[..., Float64[Array, "kinematics datasets bins columns"]]:
    """The smeared yields of all data sets, as a function that JAX can differentiate by the thresholds.

    Returns:
        `yields(thresholds, bandwidths, events)`, shape "kinematics datasets bins columns". Its derivative by a
        threshold that has a bandwidth is exact; any other threshold is hard, with derivative 0.

    Raises:
        ValueError: a cut is on a variable of objects that the event function makes, or on two sets of a collection.
    """

    def value(thresholds: Thresholds, bandwidths: Thresholds, events: Events) -> Array:
        at = point(analysis, thresholds, bandwidths, events.edges)
        return sum_over_chunks(lambda event: _chunk_yields(at, event), analysis.layout, events)

    def value_and_slopes(
        thresholds: Thresholds, bandwidths: Thresholds, events: Events
    ) -> tuple[Array, dict[str, Array]]:
        def twice(moving: Thresholds) -> tuple[Array, Array]:
            yields = value(thresholds | moving, bandwidths, events)
            return yields, yields

        slopes, yields = jax.jacfwd(twice, has_aux=True)({name: thresholds[name] for name in bandwidths})
        return yields, {name: slope[:, :, :, None] for name, slope in slopes.items()}

    return with_derivatives(summed(value), summed(value_and_slopes))


def outcomes_per_event(
    analysis: EventAnalysis, thresholds: Thresholds, bandwidths: Thresholds, events: Events
) -> Float64[Array, ""]:
    """How many outcomes an event has on average: what the smeared yields cost, in hard ones."""
    outcomes, number = _outcomes_and_events(analysis, thresholds, bandwidths, events).sum(axis=(0, 1, 2))
    return outcomes / number


@partial(summed, static=(0,))
def _outcomes_and_events(
    analysis: EventAnalysis, thresholds: Thresholds, bandwidths: Thresholds, events: Events
) -> Float64[Array, "devices kinematics datasets 1 2"]:
    at = point(analysis, thresholds, bandwidths, events.edges)

    def outcomes_and_events(event: Event) -> Float64[Array, "1 2"]:
        event = calibrated(at.selection, at.thresholds, event)
        outcomes = _count_outcomes(at, event, _odds(at, event))
        return jnp.stack([outcomes.sum(), jnp.count_nonzero(event.weight)]).astype(jnp.float64)[None]

    return sum_over_chunks(outcomes_and_events, analysis.layout, events)


def _chunk_yields(at: Point, event: Event) -> Float64[Array, "bins columns"]:
    """Every outcome of every event, weighted with its probability."""
    event = calibrated(at.selection, at.thresholds, event)
    odds = _odds(at, event)
    start = jnp.zeros((at.selection.bins, 2 + len(at.analysis.layout.factors)))

    def visit(
        number: Int32[Array, " items"], outcome: Int64[Array, " items"], real: Bool[Array, " items"], total: Array
    ) -> Array:
        some = event.at(number)
        bits, probability = _nth_outcome(odds, number, outcome)
        sets = Sets(at.selection, some, members(at.selection, bits))
        variables = variables_of(at, some, sets)
        columns = columns_of(some.weight, factors_of(at, some, sets, variables)).astype(jnp.float64)
        shares = _shares(at, variables | as_variables(counts_of(at.selection, bits)), counts_of(at.selection, bits))
        weighted = jnp.where(real, probability, 0)[None] * columns
        return total + jnp.matmul(shares, weighted.T, precision=jax.lax.Precision.HIGHEST)

    return for_each(_count_outcomes(at, event, odds), visit, start)


def _odds(at: Point, event: Event) -> dict[str, _Odds]:
    """Of each set. Whether an object passes does not matter where it cannot be in the set around."""
    _check_independence(at)
    odds: dict[str, _Odds] = {}
    for each in at.selection.sets:
        if is_derived(at.selection, each, event):
            raise ValueError(
                f"sets.{each.name}: a cut on it is on a variable that the event function makes, which the smooth "
                "forward pass cannot smear; use 'forward: exact'"
            )
        columns = event.objects[each.collection]
        cuts = [pass_probability(cut, at.thresholds, at.bandwidths, columns) for cut in at.selection.on(each.name)]
        passes = reduce(jnp.multiply, cuts, present(columns).astype(jnp.float64))
        certain, uncertain = pack(passes >= 1), pack((passes > 0) & (passes < 1))
        if each.within is not None:
            around = odds[each.within]
            uncertain &= around.certain | around.uncertain
        odds[each.name] = _Odds(certain, uncertain, passes)
    return odds


def _check_independence(at: Point) -> None:
    """An object meets a threshold in each set by itself: one threshold of two sets of a collection would be two."""
    for sets, cuts in at.selection.by_sets().items():
        smeared = [cut.name for cut in cuts if any(side.threshold in at.bandwidths for side in cut.sides)]
        if len(sets) > 1 and smeared:
            names = "' and '".join(each.name for each in sets)
            raise ValueError(
                f"cuts.{smeared[0]}: is on '{names}', sets of one collection, whose thresholds the smooth forward pass "
                "would smear apart; use 'forward: exact', or a cut for each of them"
            )


def _count_outcomes(at: Point, event: Event, odds: dict[str, _Odds]) -> Int64[Array, " events"]:
    """Number of outcomes of each event: 0 where none can get into any region."""
    fewest = counts_of(at.selection, {name: own.certain for name, own in odds.items()})
    most = counts_of(at.selection, {name: own.certain | own.uncertain for name, own in odds.items()})
    possible = jnp.zeros(event.weight.shape, bool)
    for region in at.selection.regions:
        inside = event.weight != 0
        for requirement in region.requirements:
            if requirement.name in most:
                low = -jnp.inf if requirement.minimum is None else requirement.minimum
                high = jnp.inf if requirement.maximum is None else requirement.maximum
                inside &= most[requirement.name].astype(jnp.float32) >= low
                inside &= fewest[requirement.name].astype(jnp.float32) <= high
        possible |= inside
    uncertain = (jnp.bitwise_count(own.uncertain).astype(jnp.int64) for own in odds.values())
    return jnp.where(possible, 2 ** reduce(jnp.add, uncertain, jnp.zeros(possible.shape, jnp.int64)), 0)


def _nth_outcome(
    odds: dict[str, _Odds], event: Int32[Array, " items"], outcome: Int64[Array, " items"]
) -> tuple[dict[str, UInt32[Array, " items"]], Float64[Array, " items"]]:
    """Who passes in the outcome of this number, whose digits say it of the uncertain objects; and its probability."""
    bits, probability = {}, jnp.ones(outcome.shape)
    for name, own in odds.items():
        uncertain, passes = own.uncertain[event], own.passes[:, event]
        bit = (jnp.uint32(1) << jnp.arange(len(passes), dtype=jnp.uint32))[:, None]
        digit = jnp.bitwise_count(uncertain[None] & (bit - jnp.uint32(1))).astype(jnp.int64)
        passing = (outcome[None] >> digit) & 1 > 0
        concerned = uncertain[None] & bit != 0
        bits[name] = own.certain[event] | pack(concerned & passing)
        probability *= jnp.prod(jnp.where(concerned, jnp.where(passing, passes, 1 - passes), 1), axis=0)
        outcome = outcome >> jnp.bitwise_count(uncertain).astype(jnp.int64)
    return bits, probability


def _shares(
    at: Point, variables: dict[str, Array], counts: dict[str, Int32[Array, " items"]]
) -> Float64[Array, "bins items"]:
    """Which part of an outcome is in each bin: of the first region that it is in, of the second one if not, ….

    Cuts on events are smeared, and so are edges that move.
    """
    accepted = {
        cut.name: pass_probability(cut, at.thresholds, at.bandwidths, variables) for cut in at.selection.on(EVENT)
    }
    left: Any = jnp.ones(next(iter(variables.values())).shape)
    shares = {}
    for region in at.selection.regions:
        inside = reduce(jnp.multiply, (accepted[cut.name] for cut in concerned(at.selection, region)), left)
        for requirement in region.requirements:
            inside = jnp.where(within(requirement, {**variables, **counts}[requirement.name]), inside, 0)
        shares[region.offset] = inside[None] * _shares_of_region(at, region, variables[region.observable])
        left = left - inside
    return jnp.concatenate([shares[offset] for offset in sorted(shares)])


def _shares_of_region(at: Point, region: Region, observable: Array) -> Float64[Array, "bins items"]:
    """All of an outcome is in one bin, unless something moves: the edges, or the weights of the network behind it."""
    edges, widths = at.edges[region.name][0], kernel_widths(at)
    if region.name in widths:
        distance = edges[:, None] - observable.astype(jnp.float64)[None]
        below = kernel_integral(distance, widths[region.name][:, None])
        if region.overflow:
            below = below.at[0].set(0).at[-1].set(1)
        return jnp.where(jnp.isnan(observable)[None], 0, below[1:] - below[:-1])
    bins = jnp.arange(region.bins, dtype=jnp.int32)
    place = bin_index(observable, edges.astype(jnp.float32), region.overflow)
    return (place[None] == bins[:, None]).astype(jnp.float64)
