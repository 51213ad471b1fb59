"""The derivative of a loss by the weights of a network, given its slope by the yields of a chunk of events.

When weights move, the score of every event does, and events flow across the edges of bins by the rule of the binning
(`pipeline.events.binning`); across a cut on the score they flow as across that of a threshold. Both are linear in what
the score moves by, so each event has a number: how much the loss gains if its score rises. The networks turn these into
derivatives by weights, by their own reverse mode, a block of events at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, PyTree

from pipeline.events.batch import Event
from pipeline.events.binning import binned
from pipeline.events.cuts import EVENT, Cut, side_flux
from pipeline.events.evaluation import (
    Evaluated,
    Point,
    as_variables,
    columns_of,
    counts_of,
    kernel_widths,
    learned_regions,
    network_inputs,
    observables_of,
    placed,
    subsample_of,
)
from pipeline.events.flux import for_each
from pipeline.events.function import Sets, members
from pipeline.events.scores import Score, score_of

__all__ = ["HALVES", "weight_flux"]

HALVES = 2
"""Disjoint halves of the collisions whose derivatives are told apart: their difference is the error of their sum."""


def weight_flux(at: Point, event: Event, hard: Evaluated, slope: Float[Array, "bins columns"]) -> dict[str, PyTree]:
    """For each network that has a bandwidth, the derivative by its weights, with an axis "halves" in front."""
    moving = [score for score in at.analysis.scores if score.name in at.bandwidths]
    worth = _worth_of_rising(at, event, hard, slope.astype(jnp.float32))
    return {score.name: _by_weights(at, event, hard, score, worth[score.name]) for score in moving}


def _worth_of_rising(
    at: Point, event: Event, hard: Evaluated, slope: Float32[Array, "bins columns"]
) -> dict[str, Float32[Array, " events"]]:
    """The derivative of the loss by the score of each event."""
    observables, columns = observables_of(at.selection, hard), columns_of(event.weight, hard.factors)

    def histogram(moving: dict[str, Array]) -> Array:
        copy = subsample_of(at, event)
        return binned(at.selection, hard.position, copy, kernel_widths(at), at.edges, observables | moving, columns)

    learned = {region.name: region.observable for region in learned_regions(at)}
    _, pull = jax.vjp(histogram, {name: observables[name] for name in learned})
    (by_region,) = pull(slope)
    worth = {score.name: jnp.zeros(event.weight.shape, jnp.float32) for score in at.analysis.scores}
    for region, score in learned.items():
        worth[score] += by_region[region]
    for cut in at.selection.on(EVENT):
        if cut.variable in worth:
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
    return -sum(sides.values(), start=jnp.zeros_like(gained)) * gained


def _by_weights(at: Point, event: Event, hard: Evaluated, score: Score, worth: Float32[Array, " events"]) -> PyTree:
    """Events of which nothing depends on the score are not looked at."""
    weights = at.thresholds[score.name].weights

    def visit(number: Int32[Array, " some"], _: Array, real: Array, total: Any) -> Any:
        some, own = event.at(number), {name: bits[number] for name, bits in hard.bits.items()}
        variables = {name: values[number] for name, values in hard.variables.items()}
        inputs = network_inputs(at, score, Sets(at.selection, some, members(at.selection, own)), variables)
        _, pull = jax.vjp(lambda moving: score_of(score, moving, inputs), weights)
        half = some.collision % jnp.int32(HALVES)
        of_half = jnp.arange(HALVES, dtype=jnp.int32)[:, None] == half[None]
        (part,) = jax.vmap(pull)(jnp.where(real[None] & of_half, worth[number][None], jnp.float32(0)))
        return jax.tree.map(jnp.add, total, part)

    start = jax.tree.map(lambda leaf: jnp.zeros((HALVES, *leaf.shape), leaf.dtype), weights)
    return for_each((worth != 0).astype(jnp.int32), visit, start)
