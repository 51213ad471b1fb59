"""The hard histogram of evaluated events, and what moves in it: edges that are tuned, scores of trained networks."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Float64, Int32

from pipeline.events.batch import Event
from pipeline.events.binning import PlacedEdges, binned, edge_widths, widths_beside
from pipeline.events.cuts import Region, Selection
from pipeline.events.evaluation import Evaluated, Point, as_variables, counts_of
from pipeline.events.stacking import joined

__all__ = [
    "columns_of",
    "histogram",
    "kernel_widths",
    "learned_regions",
    "moving_regions",
    "observables_of",
    "subsample_of",
]


def observables_of(selection: Selection, hard: Evaluated) -> dict[str, Float32[Array, " events"]]:
    """The observable of each region, NaN for events outside it."""
    variables = hard.variables | as_variables(counts_of(selection, hard.bits))
    return {
        region.name: jnp.where(hard.region == number, variables[region.observable], jnp.float32(jnp.nan))
        for number, region in enumerate(selection.regions)
    }


def columns_of(
    weight: Float32[Array, " events"], factors: Float32[Array, "factors events"]
) -> Float32[Array, "columns events"]:
    """What each event adds to the columns of its bin: w, w², and w times each factor."""
    # An event that fills up a chunk has weight 0, and its factors may be NaN.
    weighted = jnp.where(weight[None] == 0, 0, weight[None] * factors)
    return joined([weight[None], (weight * weight)[None], weighted])


def histogram(at: Point, event: Event, hard: Evaluated, edges: PlacedEdges) -> Float64[Array, "bins columns"]:
    """The hard histogram of some events; it can be differentiated by the edges."""
    return binned(
        at.selection,
        hard.position,
        subsample_of(at, event),
        kernel_widths(at),
        edges,
        observables_of(at.selection, hard),
        columns_of(event.weight, hard.factors),
    )


def kernel_widths(at: Point) -> dict[str, Float[Array, " _edges"]]:
    """The kernel at each edge of the regions where something moves.

    The bandwidth of a score has no unit: it is in widths of the bins beside the edge.
    """
    widths = {region.name: edge_widths(region, at.bandwidths, at.edges[region.name]) for region in moving_regions(at)}
    for region in learned_regions(at):
        widths[region.name] = at.bandwidths[region.observable] * widths_beside(at.edges[region.name][0])
    return widths


def learned_regions(at: Point) -> tuple[Region, ...]:
    """The regions in which events move when the weights of a network do."""
    names = {score.name for score in at.analysis.scores} & set(at.bandwidths)
    return tuple(region for region in at.selection.regions if region.observable in names)


def moving_regions(at: Point) -> tuple[Region, ...]:
    """The regions whose edges move; all of a region have a kernel, or none."""
    return tuple(region for region in at.selection.regions if region.edges and region.edges[0] in at.bandwidths)


def subsample_of(at: Point, event: Event) -> Int32[Array, " events"]:
    """Which part of the events each one is in."""
    return event.collision % jnp.int32(at.subsamples)
