"""The derivative of a loss by the weights of networks, given its slope by the yields of a chunk of events.

When weights move, the score of every event does, and events flow across the edges of bins by the rule of the binning
(`pipeline.events.binning`); across a cut on the score they flow as across that of a threshold. Both are linear in what
the score moves by, so each event has a number: how much the loss gains if its score rises. The networks turn these into
derivatives by weights, by their own reverse mode, a block of events at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree

from pipeline.events.batch import Event
from pipeline.events.binning import binned
from pipeline.events.cuts import EVENT, Cut, side_flux
from pipeline.events.evaluation import (
    Evaluated,
    Point,
    as_variables,
    counts_of,
    factors_of,
    network_inputs,
    of_some,
    placed,
    placed_events,
    unscored,
)
from pipeline.events.filling import columns_of, kernel_widths, learned_regions, observables_of, subsample_of
from pipeline.events.flux import for_each
from pipeline.events.function import Sets, members
from pipeline.events.scores import score_of

__all__ = ["HALVES", "weight_flux"]

HALVES = 2
"""Disjoint halves of the collisions whose derivatives are told apart: their difference is the error of their sum."""

NO_SETS = (frozenset[str](), frozenset[str](), frozenset[str]())


def weight_flux(at: Point, event: Event, slope: Float[Array, "bins columns"]) -> dict[str, PyTree]:
    """For each network that has a bandwidth, the derivative by its weights, with an axis "halves" in front."""
    bare, slope = unscored(at, event), slope.astype(jnp.float32)
    factors = factors_of(at, event, Sets(at.selection, event, members(at.selection, bare.bits)), bare.variables)
    weights = {score.name: at.thresholds[score.name].weights for score in at.analysis.scores}

    def visit(number: Int32[Array, " some"], _: Array, real: Bool[Array, " some"], total: Any) -> Any:
        some = event.at(number)
        sets, variables = of_some(at, event, bare, number)
        inputs = {score.name: network_inputs(at, score, sets, variables) for score in at.analysis.scores}

        def said(weights: dict[str, PyTree]) -> dict[str, Array]:
            return {each.name: score_of(each, weights[each.name], inputs[each.name]) for each in at.analysis.scores}

        scores, pull = jax.vjp(said, weights)
        bits = {name: own[number] for name, own in bare.bits.items()}
        hard = placed_events(at, bits, {}, variables | scores, factors[:, number], NO_SETS)
        worth = _worth_of_rising(at, some, hard, slope)
        half = some.collision % jnp.int32(HALVES)
        of_half = real[None] & (jnp.arange(HALVES, dtype=jnp.int32)[:, None] == half[None])
        (part,) = jax.vmap(pull)({name: jnp.where(of_half, own[None], 0) for name, own in worth.items()})
        return jax.tree.map(jnp.add, total, part)

    start = jax.tree.map(lambda leaf: jnp.zeros((HALVES, *leaf.shape), leaf.dtype), weights)
    total = for_each(bare.candidate.astype(jnp.int32), visit, start)
    return {name: own for name, own in total.items() if name in at.bandwidths}


def _worth_of_rising(
    at: Point, event: Event, hard: Evaluated, slope: Float32[Array, "bins columns"]
) -> dict[str, Float32[Array, " events"]]:
    """The derivative of the loss by each score of each event; 0 for a score of which the weights do not move."""
    observables, columns = observables_of(at.selection, hard), columns_of(event.weight, hard.factors)

    def histogram(moving: dict[str, Array]) -> Array:
        copy = subsample_of(at, event)
        return binned(at.selection, hard.position, copy, kernel_widths(at), at.edges, observables | moving, columns)

    learned = {region.name: region.observable for region in learned_regions(at)}
    _, pull = jax.vjp(histogram, {name: observables[name] for name in learned})
    (by_region,) = pull(slope.astype(jnp.float64))
    worth = {score.name: jnp.zeros(event.weight.shape, jnp.float32) for score in at.analysis.scores}
    for region, score in learned.items():
        worth[score] += by_region[region]
    for cut in at.selection.on(EVENT):
        if cut.variable in set(learned.values()):
            worth[cut.variable] += _worth_of_crossing(at, hard, cut, columns, slope)
    return worth


def _worth_of_crossing(
    at: Point,
    hard: Evaluated,
    cut: Cut,
    columns: Float32[Array, "columns events"],
    slope: Float32[Array, "bins columns"],
) -> Float32[Array, " events"]:
    """Of a score that is cut on: as if the threshold fell instead. The event goes where it would be, flipped."""
    counts = counts_of(at.selection, hard.bits)
    variables = hard.variables | as_variables(counts)
    sides = side_flux(cut, at.thresholds, at.bandwidths, variables, ~jnp.isnan(variables[cut.variable]))
    _, flipped = placed(at, counts, variables, hard.accepted | {cut.name: ~hard.accepted[cut.name]})
    nowhere = jnp.concatenate([slope, jnp.zeros_like(slope[:1])])
    gained = jnp.sum(columns * (nowhere[flipped] - nowhere[hard.position]).T, axis=0)
    crossing = -sum(sides.values(), start=jnp.zeros_like(gained)) * gained
    # |s| falls where a negative score rises.
    return crossing * jnp.sign(variables[cut.variable]) if cut.absolute else crossing
