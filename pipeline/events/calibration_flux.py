"""The derivative of hard yields by a calibration: everything moves, each with a speed of its own.

When a jet energy scale rises, jets cross the boundaries of cuts, events those of cuts on events and the edges of bins,
and weights change. JAX knows how fast each number of the hard analysis moves, at fixed sets. What crosses a boundary at
x = t with the speed v = dx/dc is the boundary flux again (`pipeline.events.flux`), with a kernel in c itself:

    dN/dc = Σ_i w_i Σ_o v_io · K_{h |v|}(x_io − t) · ( f(S_i ∪ o) − f(S_i ∖ o) ) + …

In the same way, events cross the edges of bins with the speed of their observable. As for thresholds, a cut inside of
an event function has no part in it.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from pipeline.events.batch import Event
from pipeline.events.binning import add_to_histogram, value_flux
from pipeline.events.calibration import calibrated
from pipeline.events.cuts import EVENT, Calibration, Cut, Requirement, Selection, Thresholds, side_flux, within
from pipeline.events.evaluation import Evaluated, Point, evaluated
from pipeline.events.filling import columns_of, observables_of, subsample_of
from pipeline.events.flux import boundary_flux

__all__ = ["Speeds", "flux_of_moving_events", "rising_flux", "speeds_of"]

Columns = dict[str, Array]


class Speeds(NamedTuple):
    """How fast numbers of the hard analysis move with one calibration, at fixed sets; what stands still is left out.

    `columns`: what each set cuts on; `variables`: of the events; `factors`: of the weights.
    """

    columns: dict[str, Columns]
    variables: Columns
    factors: Float32[Array, "factors events"]


def speeds_of(at: Point, calibration: Calibration, event: Event) -> Speeds:
    """The derivatives by one calibration of what the analysis makes of some events, which are calibrated already."""
    raw = event if event.before is None else event.before

    def numbers(value: Array) -> tuple[dict[str, Columns], Columns, Float32[Array, "factors events"]]:
        thresholds = at.thresholds | {calibration.name: value}
        hard = evaluated(at._replace(thresholds=thresholds), calibrated(at.selection, thresholds, raw))
        return hard.columns, hard.variables, hard.factors

    value = at.thresholds[calibration.name]
    _, (columns, variables, factors) = jax.jvp(numbers, (value,), (jnp.ones_like(value),))
    collections = {each.name: each.collection for each in at.selection.sets}
    moving = {
        name: _moving(at.selection, calibration, collections[name], own, event.objects[collections[name]])
        for name, own in columns.items()
    }
    return Speeds(moving, _moving(at.selection, calibration, EVENT, variables, event.columns), factors)


def _moving(selection: Selection, calibration: Calibration, of: str, speeds: Columns, stored: Iterable[str]) -> Columns:
    """Without what stands still: stored columns that are not scaled, and whole numbers."""
    missing = selection.missing_momentum
    scaled = {variable for name, variable in calibration.columns if name == of}
    if of == EVENT and missing is not None and any((name, "pt") in calibration.columns for name in missing.of):
        scaled |= {missing.pt, missing.phi}
    return {
        name: speed
        for name, speed in speeds.items()
        if (name in scaled or name not in stored) and speed.dtype != jax.dtypes.float0
    }


def rising_flux(
    cut: Cut | Requirement,
    thresholds: Thresholds,
    bandwidth: Array,
    columns: Columns,
    speeds: Columns,
    others: Bool[Array, "*objects events"],
) -> Float32[Array, "*objects events"] | None:
    """The flux of what crosses a boundary because a calibration rises; None where nothing moves.

    Args:
        cut: the cut, or the range of a variable that a region requires.
        thresholds: of the analysis.
        bandwidth: of the calibration, in its own unit: the kernel of a boundary is as wide as objects move in it.
        columns: what is cut on.
        speeds: the derivatives of these by the calibration.
        others: who passes all other cuts.
    """
    variable = cut.name if isinstance(cut, Requirement) else cut.variable
    if variable not in speeds:
        return None
    values, speed = columns[variable], speeds[variable]
    if isinstance(cut, Cut) and cut.absolute:
        speed = speed * jnp.sign(values)
    width = jnp.asarray(bandwidth, jnp.float32) * jnp.abs(speed)
    if isinstance(cut, Requirement):
        sides = _flux_of_limits(cut, values, width, others)
    else:
        widths = {side.threshold: width for side in cut.sides}
        sides = list(side_flux(cut, thresholds, widths, columns, others).values())
    # Where x rises it crosses a boundary as it does where the threshold falls.
    flux: Array = reduce(jnp.add, (-speed * own for own in sides))
    # An absent object does not move. The speed of one that is there may be NaN, and then the derivative is.
    return jnp.where(jnp.isnan(values), jnp.zeros_like(flux), flux)


def _flux_of_limits(
    requirement: Requirement,
    values: Float32[Array, " events"],
    width: Float32[Array, " events"],
    others: Bool[Array, " events"],
) -> list[Float32[Array, " events"]]:
    """The boundary flux at each end of a range, whose ends are in it."""
    flux = []
    for limit, is_lower in ((requirement.minimum, True), (requirement.maximum, False)):
        if limit is None:
            continue
        end = jnp.float32(limit)
        opposite = replace(requirement, minimum=None) if is_lower else replace(requirement, maximum=None)
        above = values >= end if is_lower else values > end
        flux.append(boundary_flux(values, end, width, above, others & within(opposite, values)))
    return flux


def flux_of_moving_events(
    at: Point, calibration: Calibration, event: Event, hard: Evaluated, speeds: Speeds
) -> Float32[Array, "subsamples bins columns"]:
    """What crosses the edges of bins because its observable moves, and what its bin gains because its weight does."""
    selection, copy = at.selection, subsample_of(at, event)
    columns, observables = columns_of(event.weight, hard.factors), observables_of(selection, hard)
    total = _gain_of_weights(at, event, hard, speeds)
    for region in selection.regions:
        if region.observable not in speeds.variables:
            continue
        edges = jnp.broadcast_to(at.edges[region.name][:1], (at.subsamples, region.bins + 1))
        speed = speeds.variables[region.observable].astype(jnp.float32)
        values, width = observables[region.name], at.bandwidths[calibration.name]
        own = value_flux(region, edges, width, values, speed, columns, copy)
        total = total.at[:, region.offset : region.offset + region.bins].add(own.astype(total.dtype))
    return total


def _gain_of_weights(
    at: Point, event: Event, hard: Evaluated, speeds: Speeds
) -> Float32[Array, "subsamples bins columns"]:
    bins, factors = at.selection.bins, len(at.analysis.layout.factors)
    start = jnp.zeros((at.subsamples * bins, 2 + factors), jnp.float32)
    if factors:
        gained = columns_of(event.weight, speeds.factors).at[:2].set(0)
        place = jnp.where(hard.position < bins, subsample_of(at, event) * jnp.int32(bins) + hard.position, len(start))
        start = add_to_histogram(start, place, gained.T)
    return start.reshape(at.subsamples, bins, -1)
