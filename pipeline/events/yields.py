"""The hard analysis of a chunk of events: cut, call the event function, histogram; and the flux of every threshold.

The analysis of an event is a function of the *sets* of its objects (`pipeline.events.function`), of which regions and
bins follow. The yields are the histogram of the outcomes. The flux is the histogram, again, of the outcomes for sets
that differ by one object near a boundary (`pipeline.events.flux`): one bit of one set is flipped, whichever it is, and
the very same functions are called. So there is no second analysis that could differ, and one rule for all.

The columns of the histogram are Σw, Σw² and Σ w·factor for the factors that variations of the weight name; every
template is linear in these. They are added in float64, and the normalisation of a data set multiplies the finished
sums; the flux, an estimate, is added in float32 within a chunk.

Thresholds may be copies, shape "datasets subsamples", all of one value: each disjoint part of the collisions then has
thresholds of its own, and how the derivatives by them scatter is the statistical error of their sum.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Float64, Int32, PyTree

from pipeline.events.batch import Event, EventGroup, Events, take_chunk
from pipeline.events.calibration import calibrated
from pipeline.events.cuts import Thresholds
from pipeline.events.devices import on_each_device, summed
from pipeline.events.evaluation import EventAnalysis, Layout, Point, evaluated, point
from pipeline.events.filling import columns_of, histogram, observables_of
from pipeline.events.flux import with_derivatives
from pipeline.events.scores import Network
from pipeline.events.threshold_flux import threshold_flux
from pipeline.events.weight_flux import weight_flux

__all__ = [
    "SUBSAMPLES",
    "EventOutcomes",
    "copies_of",
    "event_outcomes",
    "hard_yields",
    "sum_over_chunks",
    "total_over_chunks",
    "weight_gradient",
    "yields_and_flux",
    "yields_and_flux_of_devices",
    "yields_of_devices",
]

SUBSAMPLES = 16
"""Disjoint parts of the collisions whose fluxes are told apart: how they scatter is the error of their sum."""

Result = TypeVar("Result")

Place = tuple[Int32[Array, ""], Int32[Array, ""]]
"""Of a chunk: its kinematic variation and its data set."""


class EventOutcomes(eqx.Module, strict=True):
    """The fate of each event, all cuts included.

    `region` is −1 for none; `position` is the bin on the joint axis, and the number of bins for none. The observable is
    in its own unit, NaN outside the regions. An event inside a region may still lie in no bin.
    """

    region: Int32[Array, " events"]
    position: Int32[Array, " events"]
    observable: Float32[Array, " events"]
    columns: Float32[Array, "columns events"]


@lru_cache(maxsize=64)
def hard_yields(analysis: EventAnalysis) -> Callable[..., Float64[Array, "kinematics datasets bins columns"]]:
    """The yields of all data sets, exact, as a function that JAX can differentiate by the thresholds.

    Returns:
        `yields(thresholds, bandwidths, events)`, shape "kinematics datasets bins columns". Its derivative by a
        threshold that has a bandwidth is the boundary flux; by any other threshold it is 0. Thresholds are scalars, or
        copies of shape "datasets subsamples" (`copies_of`).
    """

    def value(thresholds: Thresholds, bandwidths: Thresholds, events: Events) -> Array:
        return yields_of_devices(analysis, _without_copies(thresholds), bandwidths, events)

    def value_and_flux(
        thresholds: Thresholds, bandwidths: Thresholds, events: Events
    ) -> tuple[Array, dict[str, Array]]:
        scalars = [each for each in thresholds.values() if not _is_network(each)]
        copies = max((each.shape[1] for each in scalars if each.ndim == 2), default=1)
        at = _without_copies(thresholds)
        return yields_and_flux_of_devices(analysis, at, bandwidths, events, copies)

    return with_derivatives(summed(value), summed(value_and_flux))


def copies_of(thresholds: Thresholds, layout: Layout) -> Thresholds:
    """The thresholds, once for each subsample of each data set."""
    axes = (layout.datasets, SUBSAMPLES)
    return {name: each if _is_network(each) else jnp.broadcast_to(each, axes) for name, each in thresholds.items()}


def _without_copies(thresholds: Thresholds) -> Thresholds:
    return {name: each if _is_network(each) or each.ndim == 0 else each[0, 0] for name, each in thresholds.items()}


def _is_network(parameter: Array | Network) -> bool:
    return isinstance(parameter, Network)


def yields_of_devices(
    analysis: EventAnalysis, thresholds: Thresholds, bandwidths: Thresholds, events: Events
) -> Float64[Array, "devices kinematics datasets bins columns"]:
    """The exact yields of the events of each device."""
    at = point(analysis, thresholds, bandwidths, events.edges)
    return sum_over_chunks(partial(_chunk_yields, at), analysis.layout, events)


def yields_and_flux_of_devices(
    analysis: EventAnalysis,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    events: Events,
    subsamples: int = 1,
) -> tuple[
    Float64[Array, "devices kinematics datasets bins columns"],
    dict[str, Float64[Array, "devices kinematics datasets subsamples bins columns"]],
]:
    """The exact yields, and the boundary flux for each threshold that has a bandwidth, in one pass over the events.

    A collision is in one subsample, in all its detector simulations and kinematic variations.
    """
    at = point(analysis, thresholds, bandwidths, events.edges, subsamples)
    return sum_over_chunks(partial(_chunk_yields_and_flux, at), analysis.layout, events)


def weight_gradient(
    analysis: EventAnalysis,
    thresholds: Thresholds,
    bandwidths: Thresholds,
    events: Events,
    slope: Float64[Array, "kinematics datasets bins columns"],
) -> dict[str, PyTree]:
    """The derivative of a loss by the weights of each network that has a bandwidth, given its slope by the yields.

    A second pass over the events, chunk by chunk: it takes the memory of one chunk and a few copies of the weights.

    Returns:
        by the name of the score, the weights with the axes "devices halves" in front: two disjoint halves of the
        collisions, whose sum is the derivative, and whose difference is as large as its statistical error.
    """
    at = point(analysis, thresholds, bandwidths, events.edges)
    return total_over_chunks(lambda event, place: weight_flux(at, _calibrated(at, event), slope[place]), events)


yields_and_flux = summed(yields_and_flux_of_devices, static=(0, 4))
"""The same for the events of all devices together, compiled: without their axis."""


def sum_over_chunks(of_chunk: Callable[[Event], Result], layout: Layout, events: Events) -> Result:
    """Chunk by chunk, so that memory is bounded by a chunk; added in float64 by kinematic variation and data set.

    Every array has the axes "devices kinematics datasets" in front.
    """
    return _sum_over_chunks(lambda event, _: of_chunk(event), (layout.kinematics, layout.datasets), events)


def total_over_chunks(of_chunk: Callable[[Event, Place], Result], events: Events) -> Result:
    """The sum over all chunks; `of_chunk` is told the kinematic variation and the data set of its events."""
    return _sum_over_chunks(of_chunk, (), events)


def _sum_over_chunks(of_chunk: Callable[[Event, Place], Result], axes: tuple[int, ...], events: Events) -> Result:
    def of_group(group: EventGroup) -> Result:
        def place_of(number: Array) -> Place:
            return group.task_kinematic[number], group.dataset[group.task_chunk[number]]

        @jax.jit  # so that it is traced once, for its shape and in the loop
        def of_task(number: Array) -> Result:
            event = take_chunk(group, group.task_kinematic[number], group.task_chunk[number])
            return of_chunk(event, place_of(number))

        def add(number: Array, sums: Result) -> Result:
            place = place_of(number) if axes else ...
            return jax.tree.map(
                lambda total, part: total.at[place].add(part.astype(total.dtype)), sums, of_task(number)
            )

        shapes = jax.eval_shape(of_task, jnp.int32(0))
        start = jax.tree.map(lambda part: jnp.zeros((*axes, *part.shape), jnp.float64), shapes)
        # A part of a larger set of events may have room for more tasks than it has: they come last, and are not done.
        return jax.lax.fori_loop(0, jnp.sum(group.task_chunk >= 0, dtype=jnp.int32), add, start)

    def of_groups(groups: tuple[EventGroup, ...]) -> Result:
        return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]), *map(of_group, groups))

    return on_each_device(of_groups, events.groups)


def event_outcomes(at: Point, event: Event) -> EventOutcomes:
    """What the analysis makes of every event of a chunk."""
    hard = evaluated(at, _calibrated(at, event))
    observable = jnp.full(hard.region.shape, jnp.nan, jnp.float32)
    for values in observables_of(at.selection, hard).values():
        observable = jnp.where(jnp.isnan(values), observable, values)
    return EventOutcomes(
        region=hard.region,
        position=hard.position,
        observable=observable,
        columns=columns_of(event.weight, hard.factors),
    )


def _chunk_yields(at: Point, event: Event) -> Float64[Array, "bins columns"]:
    event = _calibrated(at, event)
    return histogram(at, event, evaluated(at, event), at.edges)


def _chunk_yields_and_flux(
    at: Point, event: Event
) -> tuple[Float64[Array, "bins columns"], dict[str, Float32[Array, "subsamples bins columns"]]]:
    """The yields, and their derivative by each parameter that has a bandwidth."""
    event = _calibrated(at, event)
    hard = evaluated(at, event)
    return histogram(at, event, hard, at.edges), threshold_flux(at, event, hard)


def _calibrated(at: Point, event: Event) -> Event:
    return calibrated(at.selection, at.thresholds, event)
