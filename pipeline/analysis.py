"""The analysis, from thresholds and events to the expected significance: one pure, differentiable function.

    yields ─▶ templates ─▶ HistFactory numbers ─▶ figure of merit

Forward, each step is exact. Backward, the yields carry the boundary flux of the thresholds, templates and numbers are
smooth formulas, and the figure of merit needs no differentiation through its fit. `Analysis` is static (hashable);
`Data` is traced: events are arguments of a compiled function, never constants in it.

A sibling, `smeared_loss`, is smooth from end to end: the same chain behind the yields of `pipeline.events.smeared`.
"""

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from functools import partial
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float64

from pipeline.events.batch import CandidateGroup, EventGroup
from pipeline.events.bin_edges import Edges
from pipeline.events.cuts import Selection, Thresholds
from pipeline.events.smeared import outcomes_per_event, smeared_yields, smeared_yields_and_slopes
from pipeline.events.yields import Layout, hard_yields, yields_and_flux, yields_and_subsampled_flux
from pipeline.inference import measurement
from pipeline.inference.histfactory import Numbers, Structure
from pipeline.inference.objectives import Merit, Objective, figure_of_merit, loss_of
from pipeline.inference.templates import Recipe, Templates, make_templates, merge_bins

__all__ = [
    "Analysis",
    "Data",
    "Gradient",
    "expected_yields",
    "loss",
    "loss_and_gradient",
    "loss_and_gradient_of_parts",
    "loss_and_gradient_with_error",
    "loss_of_yields",
    "loss_of_yields_and_slope",
    "merit_of",
    "merit_of_parts",
    "merit_of_templates",
    "model_and_data",
    "model_numbers",
    "numbers_of",
    "smeared_loss",
    "smeared_loss_and_gradient",
    "smeared_outcomes",
    "templates",
    "templates_at",
    "yields_at",
]

Sums = TypeVar("Sums")


class Analysis(NamedTuple):
    """Everything that shapes the compiled function."""

    selection: Selection
    layout: Layout
    measurement: measurement.Measurement
    structure: Structure
    objective: Objective


class Data(eqx.Module):
    """Everything that is neither structure nor threshold: it may change without compiling again."""

    _: KW_ONLY
    groups: tuple[EventGroup, ...]
    candidates: tuple[CandidateGroup, ...]
    recipe: Recipe
    edges: Edges


class Gradient(eqx.Module):
    """The derivative of the loss by each threshold, per unit of it, and its statistical error.

    The error is that of the boundary flux: how many simulated events lie near the threshold, and how much each of them
    matters. The uncertainty of the slope of the loss by the yields is not in it.
    """

    _: KW_ONLY
    value: Thresholds
    error: Thresholds


def expected_yields(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data
) -> Float64[Array, "kinematics datasets bins columns"]:
    """Sums of event weights, exact; see `pipeline.events.yields`."""
    yields = hard_yields(analysis.selection, analysis.layout)
    return yields(thresholds, bandwidths, data.edges, data.groups, data.candidates)


def templates(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data) -> Templates:
    """Expected events of each process under each variation."""
    return make_templates(data.recipe, expected_yields(analysis, thresholds, bandwidths, data))


def model_numbers(analysis: Analysis, made: Templates) -> Numbers:
    """The numbers of the HistFactory model, with bins merged where the simulated background is thin."""
    return measurement.numbers(analysis.measurement, analysis.structure, _in_merged_bins(analysis, made))


def _in_merged_bins(analysis: Analysis, made: Templates) -> Templates:
    if not analysis.measurement.merges:
        return made
    return merge_bins(made, measurement.merged_bins(analysis.measurement, made))


def loss(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data
) -> tuple[Float64[Array, ""], Merit]:
    """The whole analysis: what an optimiser minimises (−Z, or the uncertainty), and the figure of merit."""
    return loss_of_yields(expected_yields(analysis, thresholds, bandwidths, data), analysis, data.recipe)


def loss_of_yields(
    yields: Float64[Array, "kinematics datasets bins columns"], analysis: Analysis, recipe: Recipe
) -> tuple[Float64[Array, ""], Merit]:
    """The second half of `loss`: it sees histograms only, wherever their events were summed."""
    merit = _merit_of_templates(make_templates(recipe, yields), analysis)
    return loss_of(analysis.objective, merit), merit


def _merit_of_templates(made: Templates, analysis: Analysis) -> Merit:
    return figure_of_merit(analysis.objective, analysis.structure, model_numbers(analysis, made))


def loss_and_gradient(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data
) -> tuple[tuple[Float64[Array, ""], Merit], Thresholds]:
    """`jax.value_and_grad(loss)` for the thresholds that have a bandwidth, in two compiled halves.

    Equal to the derivative of the composition; compiling the halves apart lets the second one serve every caller. The
    gradient is Σ ∂loss/∂yield · ∂yield/∂threshold.
    """
    events = (data.edges, data.groups, data.candidates)
    yields, flux = _yields_and_flux(analysis.selection, analysis.layout, thresholds, bandwidths, *events)
    result, slope = loss_of_yields_and_slope(yields, analysis, data.recipe)
    return result, {name: jnp.vdot(slope, one) for name, one in flux.items()}


def loss_and_gradient_with_error(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data
) -> tuple[tuple[Float64[Array, ""], Merit], Gradient]:
    """`loss_and_gradient` with the statistical error of each derivative, from the same pass over the events."""
    return loss_and_gradient_of_parts(thresholds, analysis, bandwidths, (data,))


def loss_and_gradient_of_parts(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, parts: Iterable[Data]
) -> tuple[tuple[Float64[Array, ""], Merit], Gradient]:
    """`loss_and_gradient_with_error` of events that come in parts, for more of them than memory holds.

    Yields and flux are sums over events, so those of the parts add up; templates, fit and gradient follow once. Memory
    holds the part in work and the next one. All parts have one recipe; parts of one shape are compiled once
    (`pipeline.events.stream`). For the errors, no collision should be in two parts.
    """

    def of_part(data: Data) -> tuple[Array, dict[str, Array]]:
        events = (data.edges, data.groups, data.candidates)
        return _yields_and_subsampled_flux(analysis.selection, analysis.layout, thresholds, bandwidths, *events)

    (yields, flux), recipe = _sum_over_parts(of_part, parts)
    result, slope = loss_of_yields_and_slope(yields, analysis, recipe)
    return result, _gradient(slope, flux)


@jax.jit
def _gradient(
    slope: Float64[Array, "kinematics datasets bins columns"],
    flux: dict[str, Float64[Array, "kinematics datasets subsamples bins columns"]],
) -> Gradient:
    """Subsamples of one data set are equally large: their scatter is the error of their sum (batch means)."""
    parts = {name: jnp.einsum("kdbc,kdsbc->ds", slope, one) for name, one in flux.items()}
    value = {name: part.sum() for name, part in parts.items()}
    error = {name: jnp.sqrt(part.shape[1] * jnp.sum(jnp.var(part, axis=1, ddof=1))) for name, part in parts.items()}
    return Gradient(value=value, error=error)


def smeared_loss(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data
) -> tuple[Float64[Array, ""], Merit]:
    """`loss`, where each threshold is smeared with its kernel: smooth, with a derivative that is its own.

    But for one thing: where bins with too little background are merged (`Measurement.merges`) it jumps, as the exact
    one does.
    """
    yields = smeared_yields(analysis.selection, analysis.layout)
    made = yields(thresholds, bandwidths, data.edges, data.groups, data.candidates)
    return loss_of_yields(made, analysis, data.recipe)


def smeared_loss_and_gradient(
    thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data
) -> tuple[tuple[Float64[Array, ""], Merit], Thresholds]:
    """`smeared_loss` and its derivative by the thresholds that have a bandwidth, in two compiled halves."""
    events = (data.edges, data.groups, data.candidates)
    yields, slopes = _smeared_yields_and_slopes(analysis.selection, analysis.layout, thresholds, bandwidths, *events)
    result, slope = loss_of_yields_and_slope(yields, analysis, data.recipe)
    return result, {name: jnp.vdot(slope, one) for name, one in slopes.items()}


def smeared_outcomes(thresholds: Thresholds, analysis: Analysis, bandwidths: Thresholds, data: Data) -> float:
    """How many outcomes of its smeared cuts an event has on average: the price of `smeared_loss`."""
    events = (data.edges, data.groups, data.candidates)
    return float(_outcomes_per_event(analysis.selection, analysis.layout, thresholds, bandwidths, *events))


def merit_of(thresholds: Thresholds, analysis: Analysis, data: Data) -> Merit:
    """The exact figure of merit, without gradient, in two compiled halves."""
    return merit_of_parts(thresholds, analysis, (data,))


def merit_of_parts(thresholds: Thresholds, analysis: Analysis, parts: Iterable[Data]) -> Merit:
    """`merit_of` events that come in parts; see `loss_and_gradient_of_parts`."""
    yields, recipe = _sum_over_parts(lambda data: yields_at(thresholds, analysis, data), parts)
    return loss_of_yields_and_slope(yields, analysis, recipe)[0][1]


def _sum_over_parts(of_part: Callable[[Data], Sums], parts: Iterable[Data]) -> tuple[Sums, Recipe]:
    """The sum, and the recipe of the parts."""
    total = None
    for part in parts:
        one = of_part(part)
        # Waiting for the sum so far keeps JAX, which computes in the background, from holding part after part.
        total = one if total is None else jax.tree.map(lambda so_far, x: so_far.block_until_ready() + x, total, one)
        recipe = part.recipe
    if total is None:
        raise ValueError("there are no events: pass one part at least")
    return total, recipe


def numbers_of(thresholds: Thresholds, analysis: Analysis, data: Data) -> Numbers:
    """The numbers of the exact model."""
    return _model_of_yields(yields_at(thresholds, analysis, data), analysis, data.recipe)[0]


def model_and_data(
    thresholds: Thresholds, analysis: Analysis, data: Data
) -> tuple[Numbers, Float64[Array, " bins"] | None]:
    """The numbers of the exact model and the data that it is to be fitted to; None for what it expects."""
    return _model_of_yields(yields_at(thresholds, analysis, data), analysis, data.recipe)


_yields_and_flux = jax.jit(yields_and_flux, static_argnums=(0, 1))
_yields_and_subsampled_flux = jax.jit(yields_and_subsampled_flux, static_argnums=(0, 1))


_smeared_yields_and_slopes = jax.jit(smeared_yields_and_slopes, static_argnums=(0, 1))
_outcomes_per_event = jax.jit(outcomes_per_event, static_argnums=(0, 1))
loss_of_yields_and_slope = jax.jit(jax.value_and_grad(loss_of_yields, has_aux=True), static_argnums=1)


merit_of_templates = jax.jit(_merit_of_templates, static_argnums=1)


def templates_at(thresholds: Thresholds, analysis: Analysis, data: Data) -> Templates:
    """The exact templates, compiled."""
    return make_templates(data.recipe, yields_at(thresholds, analysis, data))


@partial(jax.jit, static_argnums=1)
def yields_at(
    thresholds: Thresholds, analysis: Analysis, data: Data
) -> Float64[Array, "kinematics datasets bins columns"]:
    """The exact yields, compiled."""
    return expected_yields(analysis, thresholds, {}, data)


@partial(jax.jit, static_argnums=1)
def _model_of_yields(
    yields: Float64[Array, "k d b c"], analysis: Analysis, recipe: Recipe
) -> tuple[Numbers, Float64[Array, " bins"] | None]:
    made = make_templates(recipe, yields)
    measured, structure = analysis.measurement, analysis.structure
    merged = _in_merged_bins(analysis, made)
    data = measurement.pseudodata(measured, structure, merged) if measured.pseudodata else None
    return model_numbers(analysis, made), data
