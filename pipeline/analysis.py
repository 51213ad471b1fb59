"""The analysis, from thresholds and events to the expected significance: one pure, differentiable function.

    events ─▶ yields ─▶ templates ─▶ HistFactory numbers ─▶ figure of merit

Forward, each step is exact. Backward, the yields carry the boundary flux of the thresholds, templates and numbers are
smooth formulas, and the figure of merit needs no differentiation through its fit. `loss` is what an optimiser
minimises; `evaluate` is `jax.value_and_grad(loss)`, compiled in pieces, with the statistical error of the gradient.
`Analysis` is static (hashable); `Data` is traced: events are arguments of a compiled function, never constants in it.

Events may come in parts, for more of them than memory holds, and are divided among devices: yields are sums over
events, so those of the parts and of the devices add up.
With `smooth=True` every threshold is smeared with its kernel (`pipeline.events.smeared`): the same chain behind other
yields, smooth from end to end.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import KW_ONLY
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, PyTree

from pipeline.event_data import Data, KeptFlux, Parts, Stream, parts_of, sum_over_parts
from pipeline.events import smeared
from pipeline.events.batch import Events
from pipeline.events.cuts import Selection, Thresholds
from pipeline.events.design_effect import design_effects
from pipeline.events.devices import added, compiled, summed
from pipeline.events.evaluation import EventAnalysis, Layout
from pipeline.events.scores import Network
from pipeline.events.smeared import smeared_yields
from pipeline.events.table import EventList, joined, list_events, shared_events
from pipeline.events.yields import (
    SUBSAMPLES,
    hard_yields,
    weight_gradient,
    yields_and_flux_of_devices,
    yields_of_devices,
)
from pipeline.inference import measurement
from pipeline.inference.histfactory import Numbers, Structure
from pipeline.inference.histfactory.arrays import hosted
from pipeline.inference.histfactory.scaling import scaled, systematics
from pipeline.inference.objectives import Merit, Objective, figure_of_merit, loss_of
from pipeline.inference.slopes import with_slope, with_weights
from pipeline.inference.templates import Recipe, Templates, make_templates
from pipeline.inference.varied import fitted

__all__ = [
    "Analysis",
    "Data",
    "Evaluation",
    "Gradient",
    "Parts",
    "Stream",
    "effects_of_design",
    "evaluate",
    "event_table",
    "events_in_two_regions",
    "expected_yields",
    "gradient_of_subsamples",
    "gradient_of_weights",
    "loss",
    "loss_of_yields",
    "loss_of_yields_and_slope",
    "merit_of",
    "merit_of_templates",
    "model_and_data",
    "model_numbers",
    "numbers_of",
    "outcomes_per_event",
    "parts_of",
    "templates_at",
    "yields_and_flux_at",
    "yields_at",
]

Yields = Float64[Array, "kinematics datasets bins columns"]
Flux = dict[str, Float64[Array, "devices kinematics datasets subsamples bins columns"]]
Sizes = Float64[Array | np.ndarray, " sizes"]


class Analysis(NamedTuple):
    """Everything that shapes the compiled function."""

    events: EventAnalysis
    measurement: measurement.Measurement
    structure: Structure
    objective: Objective

    @property
    def selection(self) -> Selection:
        """Sets, cuts and regions."""
        return self.events.selection

    @property
    def layout(self) -> Layout:
        """Static sizes of the yields."""
        return self.events.layout


class Gradient(eqx.Module):
    """The derivative of the loss by each threshold, per unit of it, and its statistical error.

    The error is that of the boundary flux: how many simulated events lie near the threshold, and how much each of them
    matters. The uncertainty of the slope of the loss by the yields is not in it.

    The derivative by a network has the structure of its weights; its error is one number, the length of its noise: that
    of a single weight says little (there are many, and most are within their error of zero).
    """

    _: KW_ONLY
    value: Thresholds
    error: Thresholds

    def __repr__(self) -> str:
        """With its numbers."""
        return str(eqx.tree_pformat(self, short_arrays=False))


class Evaluation(eqx.Module):
    """The loss somewhere, the figure of merit that it stands for, and its gradient."""

    _: KW_ONLY
    loss: Float64[Array, ""]
    merit: Merit
    gradient: Gradient

    def __repr__(self) -> str:
        """With its numbers."""
        return str(eqx.tree_pformat(self, short_arrays=False))


def loss(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, *, smooth: bool = False
) -> tuple[Float64[Array, ""], Merit]:
    """The whole analysis: what an optimiser minimises (−Z, or the uncertainty), and the figure of merit.

    JAX can differentiate it by the thresholds. Those may be scalars, or copies of shape "datasets subsamples"
    (`pipeline.events.yields.copies_of`), each of which moves its part of the events.

    Args:
        analysis: the static part.
        thresholds: all of them, each in its own unit.
        bandwidths: of those by which the loss has a derivative.
        data: the events.
        smooth: smear the thresholds that have a bandwidth. Where bins with too little background are merged
            (`Measurement.merges`) it jumps, as the exact loss does.

    Raises:
        ValueError: there is no part.
    """
    yields, recipe = sum_over_parts(_yields_of_part, analysis, (thresholds, bandwidths, smooth), data)
    # One compiled function for value and slope serves every caller: fits take long to compile.
    (value, merit), slope = loss_of_yields_and_slope(jax.lax.stop_gradient(yields), analysis, recipe)
    value = with_slope(value, slope, yields)
    networks = {score.name: thresholds[score.name] for score in analysis.events.scores if score.name in bandwidths}
    if networks and not smooth:
        parts = data if isinstance(data, Data) else tuple(data)
        value = with_weights(
            partial(_weight_gradient, analysis), value, networks, (thresholds, bandwidths, parts, slope)
        )
    # The loss is the figure of merit or minus it, and the other way round.
    return value, eqx.tree_at(lambda each: each.value, merit, -value if analysis.objective.larger_is_better else value)


def evaluate(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, *, smooth: bool = False
) -> Evaluation:
    """`jax.value_and_grad(loss)` by the thresholds that have a bandwidth, with the statistical errors of the gradient.

    Every subsample of every data set has its own copies of the thresholds. The derivatives by the copies add up to the
    gradient, and scatter by its error. The smooth loss is not an estimate, and its gradient has no error.

    What JAX would do is done here with the three compiled functions that it would call: to trace `loss` anew takes some
    20 ms of a core at every step, and to compile it as a whole compiles the fit once more.
    """
    if smooth:
        moving = {name: thresholds[name] for name in bandwidths}

        def of_moving(moving: Thresholds) -> tuple[Float64[Array, ""], Merit]:
            return loss(analysis, thresholds | moving, bandwidths, data, smooth=True)

        (value, merit), slopes = jax.value_and_grad(of_moving, has_aux=True)(moving)
        errors = dict.fromkeys(slopes, jnp.zeros(()))
        return Evaluation(loss=value, merit=merit, gradient=Gradient(value=slopes, error=errors))

    kept, recipe = _kept_flux(analysis, thresholds, bandwidths, data)
    (value, merit), slope = loss_of_yields_and_slope(kept.yields, analysis, recipe)
    gradient = _gradient_of_parts(kept.gradient(slope))
    if any(score.name in bandwidths for score in analysis.events.scores):
        by_weights = gradient_of_weights(analysis, thresholds, bandwidths, data, slope)
        gradient = Gradient(value=gradient.value | by_weights.value, error=gradient.error | by_weights.error)
    return Evaluation(loss=value, merit=merit, gradient=gradient)


def yields_and_flux_at(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts
) -> tuple[Yields, Flux, Recipe]:
    """The exact yields, the boundary flux of each threshold that has a bandwidth, and the recipe of the templates."""
    (yields, flux), recipe = sum_over_parts(_flux_of_part, analysis, (thresholds, bandwidths), data)
    return added(yields), flux, recipe


def _kept_flux(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts
) -> tuple[KeptFlux, Recipe]:
    if isinstance(data, Stream) and data.workers is not None:
        return data.workers.flux(_flux_of_part, analysis, (thresholds, bandwidths), data), data.recipe
    yields, flux, recipe = yields_and_flux_at(analysis, thresholds, bandwidths, data)
    return KeptFlux(yields, lambda slope: gradient_of_subsamples(slope, flux)), recipe


def _flux_of_part(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, part: Data) -> tuple[Array, Flux]:
    """Yields and flux, with an axis of the devices in front."""
    widths = {name: width for name, width in bandwidths.items() if not isinstance(thresholds[name], Network)}
    arguments = (analysis.events, thresholds, widths, part.events)
    if jax.default_backend() == "cpu":
        return _yields_and_flux(*arguments, SUBSAMPLES)
    # A GPU computes the flux while the CPU fits the yields, which it has computed before.
    return _yields(*arguments), _yields_and_flux(*arguments, SUBSAMPLES)[1]


def gradient_of_weights(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, slope: Yields
) -> Gradient:
    """The derivative by the weights of each network that has a bandwidth, given the slope of the loss by the yields."""
    return _of_weights(_weight_gradient(analysis, thresholds, bandwidths, data, slope))


def _weight_gradient(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, slope: Yields
) -> dict[str, PyTree]:
    """By the weights of each network that has a bandwidth, in two halves: a second pass over the events."""
    return sum_over_parts(_weight_gradient_of_part, analysis, (thresholds, bandwidths, slope), data)[0]


def _weight_gradient_of_part(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, slope: Yields, part: Data
) -> dict[str, PyTree]:
    return _compiled_weight_gradient(analysis.events, thresholds, bandwidths, part.events, slope)


_compiled_weight_gradient = summed(weight_gradient, static=(0,))


@jax.jit
def _of_weights(halves: dict[str, PyTree]) -> Gradient:
    """Two halves of the events: what they disagree by is as long as the noise of their sum."""
    value = jax.tree.map(lambda each: each.sum(axis=0), halves)
    noise = {
        name: jnp.sqrt(sum(jnp.sum((each[0] - each[1]) ** 2) for each in jax.tree.leaves(own)))
        for name, own in halves.items()
    }
    return Gradient(value=value, error=noise)


_yields = compiled(yields_of_devices, static=(0,))
_yields_and_flux = compiled(yields_and_flux_of_devices, static=(0, 4))


def gradient_of_subsamples(slope: Yields, flux: Flux) -> dict[str, Float64[Array, "datasets subsamples"]]:
    """What each adds to it. Every device keeps its flux, which is large, and gets the slope by the yields instead."""
    return added(_contracted(slope, flux))


@jax.jit
def _contracted(slope: Yields, flux: Flux) -> dict[str, Float64[Array, "devices datasets subsamples"]]:
    # Summed over k last: XLA contracts what lies together ten times as fast.
    return {name: jnp.einsum("kdbc,nkdsbc->nkds", slope, each).sum(axis=1) for name, each in flux.items()}


@hosted
def _gradient_of_parts(parts: dict[str, Float64[Array, "datasets subsamples"]]) -> Gradient:
    """Subsamples of one data set are equally large: their scatter is the error of their sum (batch means)."""
    error = {name: jnp.sqrt(part.shape[1] * jnp.sum(jnp.var(part, axis=1, ddof=1))) for name, part in parts.items()}
    return Gradient(value={name: part.sum() for name, part in parts.items()}, error=error)


def expected_yields(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, events: Events, *, smooth: bool = False
) -> Yields:
    """Sums of event weights; see `pipeline.events.yields` and, for the smooth ones, `pipeline.events.smeared`."""
    yields = smeared_yields(analysis.events) if smooth else hard_yields(analysis.events)
    return yields(thresholds, bandwidths, events)


def _yields_of_part(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, smooth: bool, part: Data
) -> Yields:
    return expected_yields(analysis, thresholds, bandwidths, part.events, smooth=smooth)


def loss_of_yields(
    yields: Yields, analysis: Analysis, recipe: Recipe, sizes: Sizes | None = None
) -> tuple[Float64[Array, ""], Merit]:
    """The second half of `loss`: it sees histograms only, wherever their events were summed.

    `sizes` are factors on those of the systematic uncertainties (`pipeline.inference.histfactory.scaling`), and last
    on the luminosity.
    """
    numbers = model_numbers(analysis, make_templates(recipe, yields))
    if sizes is not None:
        numbers = scaled(analysis.structure, numbers, sizes[:-1], sizes[-1])
    merit = figure_of_merit(analysis.objective, analysis.structure, numbers)
    return loss_of(analysis.objective, merit), merit


def loss_of_yields_and_slope(
    yields: Yields, analysis: Analysis, recipe: Recipe, sizes: Sizes | None = None
) -> tuple[tuple[Float64[Array, ""], Merit], Yields]:
    """Its value and its derivative by the yields: one compiled function for all sizes, which takes long to compile."""
    as_stated = np.ones(len(systematics(analysis.structure)) + 1)
    return _loss_of_yields_and_slope(yields, analysis, recipe, as_stated if sizes is None else sizes)


_loss_of_yields_and_slope = hosted(jax.value_and_grad(loss_of_yields, has_aux=True), static_argnums=1)


@partial(hosted, static_argnums=0)
def merit_of_templates(analysis: Analysis, templates: Templates) -> Merit:
    """The figure of merit of histograms."""
    return figure_of_merit(analysis.objective, analysis.structure, model_numbers(analysis, templates))


def model_numbers(analysis: Analysis, templates: Templates) -> Numbers:
    """The numbers of the HistFactory model, with bins merged where the simulated background is thin."""
    return measurement.numbers(analysis.measurement, analysis.structure, fitted(analysis.measurement, templates))


def yields_at(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Yields:
    """The exact yields, compiled."""
    return sum_over_parts(_yields_of_part, analysis, (thresholds, {}, False), data)[0]


def templates_at(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Templates:
    """The exact templates: expected events of each process under each variation."""
    yields, recipe = sum_over_parts(_yields_of_part, analysis, (thresholds, {}, False), data)
    return _templates(recipe, yields)


_templates = hosted(make_templates)


def merit_of(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Merit:
    """The exact figure of merit, without gradient."""
    return loss(analysis, thresholds, {}, data)[1]


def numbers_of(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Numbers:
    """The numbers of the exact model."""
    return model_and_data(analysis, thresholds, data)[0]


def model_and_data(
    analysis: Analysis, thresholds: Thresholds, data: Parts
) -> tuple[Numbers, Float64[Array, " bins"] | None]:
    """The numbers of the exact model and the data that it is to be fitted to; None for what it expects."""
    return _model_of_templates(analysis, templates_at(analysis, thresholds, data))


@partial(hosted, static_argnums=0)
def _model_of_templates(analysis: Analysis, templates: Templates) -> tuple[Numbers, Float64[Array, " bins"] | None]:
    measured, structure = analysis.measurement, analysis.structure
    merged = measurement.in_merged_bins(measured, templates)
    data = measurement.pseudodata(measured, structure, merged) if measured.pseudodata else None
    return model_numbers(analysis, templates), data


def event_table(analysis: Analysis, thresholds: Thresholds, data: Parts) -> EventList:
    """The exact analysis event by event (`pipeline.events.table`)."""
    lists = (list_events(analysis.events, thresholds, part.events) for part in parts_of(data))
    return joined(list(lists))


def events_in_two_regions(analysis: Analysis, thresholds: Thresholds, data: Parts) -> dict[tuple[str, str], int]:
    """How many events, in all kinematic variations, are in both of two regions; pairs that share none are left out."""
    shared = (Counter(shared_events(analysis.events, thresholds, part.events)) for part in parts_of(data))
    return dict(sum(shared, Counter[tuple[str, str]]()))


def outcomes_per_event(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data) -> float:
    """How many outcomes of its smeared cuts an event has on average: the price of a smooth loss."""
    return float(smeared.outcomes_per_event(analysis.events, thresholds, bandwidths, data.events))


def effects_of_design(
    analysis: Analysis, thresholds: Thresholds, events: Iterable[Data]
) -> Float64[Array, " datasets"]:
    """By how much the variance of each data set is larger, because some of its events belong together."""
    lists = (list_events(analysis.events, thresholds, part.events) for part in events)
    return jnp.asarray(design_effects(lists, analysis.layout.datasets, analysis.selection.bins))
