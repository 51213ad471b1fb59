"""The analysis, from thresholds and events to the expected significance: one pure, differentiable function.

    events ─▶ yields ─▶ templates ─▶ HistFactory numbers ─▶ figure of merit

Forward, each step is exact. Backward, the yields carry the boundary flux of the thresholds, templates and numbers are
smooth formulas, and the figure of merit needs no differentiation through its fit. `loss` is what an optimiser
minimises, and `jax.value_and_grad(loss)` is what `evaluate` calls. `Analysis` is static (hashable); `Data` is traced:
events are arguments of a compiled function, never constants in it.

Events may come in parts, for more of them than memory holds: yields are sums over events, so those of the parts add up.
With `smooth=True` every threshold is smeared with its kernel (`pipeline.events.smeared`): the same chain behind other
yields, smooth from end to end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from pipeline.events import smeared
from pipeline.events.batch import Events
from pipeline.events.cuts import Selection, Thresholds
from pipeline.events.design_effect import design_effects
from pipeline.events.evaluation import EventAnalysis, Layout
from pipeline.events.smeared import smeared_yields
from pipeline.events.table import EventList, list_events
from pipeline.events.yields import copies_of, hard_yields
from pipeline.inference import measurement
from pipeline.inference.histfactory import Numbers, Structure
from pipeline.inference.objectives import Merit, Objective, figure_of_merit, loss_of
from pipeline.inference.templates import Recipe, Templates, make_templates, merge_bins

__all__ = [
    "Analysis",
    "Data",
    "Evaluation",
    "Gradient",
    "evaluate",
    "event_table",
    "expected_yields",
    "loss",
    "loss_of_yields",
    "loss_of_yields_and_slope",
    "merit_of",
    "merit_of_templates",
    "model_and_data",
    "model_numbers",
    "numbers_of",
    "outcomes_per_event",
    "templates_at",
    "with_design_effects",
    "yields_at",
]

Yields = Float64[Array, "kinematics datasets bins columns"]


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


class Data(eqx.Module):
    """Everything that is neither structure nor threshold: it may change without compiling again."""

    _: KW_ONLY
    events: Events
    recipe: Recipe


Parts = Data | Iterable[Data]
"""All events, or part after part of them; the parts have one recipe, and no collision is in two of them."""


class Gradient(eqx.Module):
    """The derivative of the loss by each threshold, per unit of it, and its statistical error.

    The error is that of the boundary flux: how many simulated events lie near the threshold, and how much each of them
    matters. The uncertainty of the slope of the loss by the yields is not in it.
    """

    _: KW_ONLY
    value: Thresholds
    error: Thresholds


class Evaluation(eqx.Module):
    """The loss somewhere, the figure of merit that it stands for, and its gradient."""

    _: KW_ONLY
    loss: Float64[Array, ""]
    merit: Merit
    gradient: Gradient


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
    yields, recipe = _sum_over_parts(analysis, thresholds, bandwidths, data, smooth=smooth)
    return _compiled_loss_of_yields(yields, analysis, recipe)


def evaluate(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, *, smooth: bool = False
) -> Evaluation:
    """`jax.value_and_grad(loss)` by the thresholds that have a bandwidth, with the statistical errors of the gradient.

    Every subsample of every data set has its own copies of the thresholds. The derivatives by the copies add up to the
    gradient, and scatter by its error. The smooth loss is not an estimate, and its gradient has no error.
    """
    moving = {name: thresholds[name] for name in bandwidths}
    if not smooth:
        moving = copies_of(moving, analysis.layout)

    def of_moving(moving: Thresholds) -> tuple[Float64[Array, ""], Merit]:
        return loss(analysis, thresholds | moving, bandwidths, data, smooth=smooth)

    (value, merit), slopes = jax.value_and_grad(of_moving, has_aux=True)(moving)
    return Evaluation(loss=value, merit=merit, gradient=_gradient(slopes))


@jax.jit
def _gradient(slopes: dict[str, Float64[Array, "..."]]) -> Gradient:
    """Subsamples of one data set are equally large: their scatter is the error of their sum (batch means)."""

    def error(parts: Float64[Array, "..."]) -> Float64[Array, ""]:
        if parts.ndim == 0:
            return jnp.zeros(())
        return jnp.sqrt(parts.shape[1] * jnp.sum(jnp.var(parts, axis=1, ddof=1)))

    return Gradient(
        value={name: parts.sum() for name, parts in slopes.items()},
        error={name: error(parts) for name, parts in slopes.items()},
    )


def expected_yields(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, events: Events, *, smooth: bool = False
) -> Yields:
    """Sums of event weights; see `pipeline.events.yields` and, for the smooth ones, `pipeline.events.smeared`."""
    yields = smeared_yields(analysis.events) if smooth else hard_yields(analysis.events)
    return yields(thresholds, bandwidths, events)


_compiled_yields = jax.jit(expected_yields, static_argnums=0, static_argnames="smooth")


def _sum_over_parts(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Parts, *, smooth: bool = False
) -> tuple[Yields, Recipe]:
    total = None
    for part in (data,) if isinstance(data, Data) else data:
        yields = _compiled_yields(analysis, thresholds, bandwidths, part.events, smooth=smooth)
        # Waiting for the sum so far keeps JAX, which computes in the background, from holding part after part.
        total = yields if total is None else jax.block_until_ready(total) + yields  # type: ignore[no-untyped-call]
        recipe = part.recipe
    if total is None:
        raise ValueError("there are no events: pass one part at least")
    return total, recipe


def loss_of_yields(yields: Yields, analysis: Analysis, recipe: Recipe) -> tuple[Float64[Array, ""], Merit]:
    """The second half of `loss`: it sees histograms only, wherever their events were summed."""
    merit = _merit_of_templates(analysis, make_templates(recipe, yields))
    return loss_of(analysis.objective, merit), merit


loss_of_yields_and_slope = jax.jit(jax.value_and_grad(loss_of_yields, has_aux=True), static_argnums=1)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _compiled_loss_of_yields(yields: Yields, analysis: Analysis, recipe: Recipe) -> tuple[Float64[Array, ""], Merit]:
    """`loss_of_yields`, by the one compiled function that gives value and slope: fits take long to compile."""
    return loss_of_yields_and_slope(yields, analysis, recipe)[0]


@_compiled_loss_of_yields.defjvp
def _slope_of_loss(analysis: Analysis, recipe: Recipe, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (loss_value, merit), slope = loss_of_yields_and_slope(primals[0], analysis, recipe)
    tangent = jnp.vdot(slope, tangents[0])
    sign = loss_of(analysis.objective, eqx.tree_at(lambda each: each.value, merit, jnp.ones(())))
    still: Any = jax.tree.map(_zero_tangent, merit)
    return (loss_value, merit), (tangent, eqx.tree_at(lambda each: each.value, still, sign * tangent))


def _zero_tangent(value: Array) -> Any:
    """How fit diagnostics change is not followed; what is no real number has no tangent at all."""
    is_real = jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.zeros_like(value) if is_real else np.zeros(value.shape, jax.dtypes.float0)


def _merit_of_templates(analysis: Analysis, templates: Templates) -> Merit:
    return figure_of_merit(analysis.objective, analysis.structure, model_numbers(analysis, templates))


merit_of_templates = jax.jit(_merit_of_templates, static_argnums=0)


def model_numbers(analysis: Analysis, templates: Templates) -> Numbers:
    """The numbers of the HistFactory model, with bins merged where the simulated background is thin."""
    return measurement.numbers(analysis.measurement, analysis.structure, _in_merged_bins(analysis, templates))


def _in_merged_bins(analysis: Analysis, templates: Templates) -> Templates:
    if not analysis.measurement.merges:
        return templates
    return merge_bins(templates, measurement.merged_bins(analysis.measurement, templates))


def yields_at(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Yields:
    """The exact yields, compiled."""
    return _sum_over_parts(analysis, thresholds, {}, data)[0]


def templates_at(analysis: Analysis, thresholds: Thresholds, data: Parts) -> Templates:
    """The exact templates: expected events of each process under each variation."""
    yields, recipe = _sum_over_parts(analysis, thresholds, {}, data)
    return make_templates(recipe, yields)


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


@partial(jax.jit, static_argnums=0)
def _model_of_templates(analysis: Analysis, templates: Templates) -> tuple[Numbers, Float64[Array, " bins"] | None]:
    measured, structure = analysis.measurement, analysis.structure
    merged = _in_merged_bins(analysis, templates)
    data = measurement.pseudodata(measured, structure, merged) if measured.pseudodata else None
    return measurement.numbers(measured, structure, merged), data


def event_table(analysis: Analysis, thresholds: Thresholds, data: Data) -> EventList:
    """The exact analysis event by event (`pipeline.events.table`)."""
    return list_events(analysis.events, thresholds, data.events)


def outcomes_per_event(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data) -> float:
    """How many outcomes of its smeared cuts an event has on average: the price of a smooth loss."""
    return float(_outcomes_per_event(analysis.events, thresholds, bandwidths, data.events))


_outcomes_per_event = jax.jit(smeared.outcomes_per_event, static_argnums=0)


def with_design_effects(analysis: Analysis, thresholds: Thresholds, parts: Sequence[Data]) -> list[Data]:
    """The same parts of the events, with variances of templates that know which events belong together."""
    lists = [event_table(analysis, thresholds, part) for part in parts]
    effects = jnp.asarray(design_effects(lists, analysis.layout.datasets, analysis.selection.bins))
    return [
        eqx.tree_at(lambda part: part.recipe.variance, part, part.recipe.variance * effects[None]) for part in parts
    ]
