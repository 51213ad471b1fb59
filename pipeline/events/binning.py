"""Histograms: exact ones of hard values, and one derivative for whatever moves a value or an edge continuously.

Bins are closed on the left and open on the right; a value outside the edges, and NaN, belongs to no bin.

A value s that moves by ds, and an edge e that moves by de, let events flow across the edge: from the bin below it into
the bin above,

    dN = Σ_i w_i K_h(s_i − e) · (ds_i − de)

This is the derivative of a histogram that is smoothed with the kernel K_h, beside the content of the hard one. It is
linear in ds and de, so JAX turns it around for reverse mode by itself. It serves bin edges that are tuned, a
calibration of the observable, and the weights of a network that makes it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32

from pipeline.events.batch import Edges
from pipeline.events.cuts import Region, Selection, Thresholds
from pipeline.events.flux import for_each_flip, kernel

__all__ = [
    "add_to_histogram",
    "bin_index",
    "binned",
    "edge_flux",
    "edge_widths",
    "hard_histogram",
    "placed_edges",
    "value_flux",
]

PlacedEdges = dict[str, Float[Array, "_copies _edges"]]
"""Bin edges of each region where the thresholds put them; copies of them for disjoint parts of the events."""


def bin_index(
    values: Float32[Array, "*shape"], edges: Float32[Array, " edges"], overflow: bool = False
) -> Int32[Array, "*shape"]:
    """Bin of each value, and the number of bins where there is none; with `overflow`, only NaN is in none.

    A sum of comparisons, not a binary search: edges are few, and this vectorises over events.
    """
    bins = edges.shape[0] - 1
    below = jnp.zeros(values.shape, jnp.int32)
    for edge in range(bins + 1):
        below += (values >= edges[edge]).astype(jnp.int32)
    if overflow:
        return jnp.where(jnp.isnan(values), bins, jnp.clip(below - 1, 0, bins - 1))
    return jnp.where((below == 0) | (below == bins + 1), bins, below - 1)


def hard_histogram(
    positions: Int32[Array, " events"], columns: Float[Array, "events columns"], bins: int
) -> Float64[Array, "bins columns"]:
    """Sums of several columns in the bin of each event; positions outside [0, bins) are dropped.

    In float64: so they are the same, to the last digit that matters, in whatever order a device adds.
    """
    return add_to_histogram(jnp.zeros((bins, columns.shape[1]), jnp.float64), positions, columns)


def add_to_histogram(
    histogram: Float[Array, "bins columns"],
    positions: Int32[Array, " events"],
    columns: Float[Array, "events columns"],
) -> Float[Array, "bins columns"]:
    """The histogram with more events in it, in its own precision; positions outside of it are dropped.

    A scatter of short rows is fast on a CPU (measured: 5 to 12 ns an event for 1 to 18 columns) but serialises on a
    GPU, where all events meet in a few dozen addresses. There, a product with the one-hot matrix does the same sum.
    """
    bins = histogram.shape[0]

    def scatter(start: Array, positions: Int32[Array, " events"], columns: Float[Array, "events columns"]) -> Array:
        # JAX counts negative positions from the end.
        inside = jnp.where(positions < 0, bins, positions)
        return start.at[inside].add(columns.astype(start.dtype), mode="drop")

    def one_hot(start: Array, positions: Int32[Array, " events"], columns: Float[Array, "events columns"]) -> Array:
        belongs = (positions[None] == jnp.arange(bins, dtype=positions.dtype)[:, None]).astype(start.dtype)
        return start + jnp.matmul(belongs, columns.astype(start.dtype), precision=jax.lax.Precision.HIGHEST)

    total: Array = jax.lax.platform_dependent(histogram, positions, columns, cpu=scatter, default=one_hot)
    return total


def placed_edges(regions: Sequence[Region], thresholds: Thresholds, edges: Edges) -> PlacedEdges:
    """The edges of regions where the thresholds put them; those that do not move stay as given.

    A region has either no moving edges, or a moving range (`start`, `stop`: the inner edges keep their places in
    between), or one threshold an edge. Thresholds may be copies, shape "copies"; there is one copy of what stays.
    """
    return {region.name: _placed(region, thresholds, edges[region.name]) for region in regions}


def _placed(region: Region, thresholds: Thresholds, edges: Float[Array, " edges"]) -> Float[Array, "copies edges"]:
    if not region.edges:
        return edges[None]
    moving = jnp.stack([jnp.atleast_1d(jnp.asarray(thresholds[name], edges.dtype)) for name in region.edges], axis=1)
    return moving @ _shares(region, edges).T


def _shares(region: Region, edges: Float[Array, " edges"]) -> Float[Array, "edges moving"]:
    """How far each edge follows each of the thresholds that move them."""
    if len(region.edges) == len(edges):
        return jnp.eye(len(edges), dtype=edges.dtype)
    along = (edges - edges[0]) / (edges[-1] - edges[0])
    return jnp.stack([1 - along, along], axis=1)


def widths_beside(edges: Float[Array, " edges"]) -> Float[Array, " edges"]:
    """The mean width of the two bins beside each edge; of the one bin at either end."""
    widths = jnp.diff(edges)
    return 0.5 * (jnp.concatenate([widths[:1], widths]) + jnp.concatenate([widths, widths[-1:]]))


def edge_widths(region: Region, bandwidths: Thresholds, edges: Float[Array, "copies edges"]) -> Float[Array, " edges"]:
    """The kernel of each edge of a region: as it follows the thresholds that move the edges, so does its width."""
    widths = jnp.stack([jnp.asarray(bandwidths[name], edges.dtype) for name in region.edges])
    return _shares(region, edges[0]) @ widths


def edge_flux(
    region: Region,
    edges: Float[Array, "copies edges"],
    bandwidth: Float[Array, " edges"],
    values: Float32[Array, " events"],
    columns: Float[Array, "columns events"],
    copy: Int32[Array, " events"],
) -> dict[str, Float[Array, "copies bins columns"]]:
    """The derivative of the histogram of a region by each threshold that moves its edges, by copies of it.

    It is what `jax.jacfwd` of `binned` gives, without a tangent for each copy of each threshold.
    """
    places = edges.astype(columns.dtype)
    density = _densities(places, bandwidth, values, columns, copy)
    across = -jnp.einsum("kec,em->mkec", density, _shares(region, places[0]))
    return dict(zip(region.edges, _between(across, region), strict=True))


def value_flux(
    region: Region,
    edges: Float[Array, "copies edges"],
    bandwidth: Float[Array, ""],
    values: Float32[Array, " events"],
    speed: Float32[Array, " events"],
    columns: Float[Array, "columns events"],
    copy: Int32[Array, " events"],
) -> Float[Array, "copies bins columns"]:
    """The derivative of the histogram of a region by a parameter that the values follow, each with a speed of its own.

    The kernel is one in the parameter: at an edge it is as wide as the value moves in the bandwidth.
    """
    widths = jnp.broadcast_to(jnp.asarray(bandwidth, columns.dtype), edges.shape[1:])
    return _between(_densities(edges.astype(columns.dtype), widths, values, columns, copy, speed), region)


def _between(across: Float[Array, "*shape edges columns"], region: Region) -> Float[Array, "*shape bins columns"]:
    """What crosses an edge leaves the bin below it and enters the one above; nothing crosses the end of an open bin."""
    if region.overflow:
        inner = jnp.arange(1, across.shape[-2] + 1) % across.shape[-2] > 1
        across = jnp.where(inner[:, None], across, 0)
    return across[..., :-1, :] - across[..., 1:, :]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def binned(
    selection: Selection,
    position: Int32[Array, " events"],
    copy: Int32[Array, " events"],
    bandwidths: Thresholds,
    edges: PlacedEdges,
    observables: dict[str, Float32[Array, " events"]],
    columns: Float[Array, "columns events"],
) -> Float[Array, "bins columns"]:
    """The hard histogram of all regions, with the derivative that stands at the head of this module.

    Args:
        selection: with the regions.
        position: bin of each event on their joint axis; the number of bins for none.
        copy: which copy of the edges each event looks at.
        bandwidths: of the kernel of each edge, by region; a region without them has no derivative.
        edges: of each region.
        observables: of each region, NaN for events that are not in it.
        columns: what each event adds to its bin.
    """
    del copy, bandwidths, edges, observables  # they matter to the derivative only
    return hard_histogram(position, columns.T, selection.bins)


@partial(binned.defjvp, symbolic_zeros=True)
def _rule(selection: Selection, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    position, copy, bandwidths, edges, observables, columns = primals
    *_, d_edges, d_observables, d_columns = tangents
    histogram = binned(selection, *primals)
    tangent = jnp.zeros_like(histogram)
    if not isinstance(d_columns, SymbolicZero):
        tangent += hard_histogram(position, d_columns.T, selection.bins)
    for region in selection.regions:
        if region.name not in bandwidths:
            continue
        places = jnp.asarray(edges[region.name], columns.dtype)
        bandwidth = jnp.asarray(bandwidths[region.name], columns.dtype)
        values = jnp.asarray(observables[region.name], columns.dtype)
        across = jnp.zeros((places.shape[1], columns.shape[0]), columns.dtype)
        moved = d_edges[region.name]
        if not isinstance(moved, SymbolicZero):
            density = _densities(places, bandwidth, values, columns, copy)
            across -= jnp.einsum("kec,ke->ec", density, moved.astype(columns.dtype))
        moved = d_observables[region.name]
        if not isinstance(moved, SymbolicZero):
            at_edges = _at_edges(values, places[0], bandwidth)
            across += at_edges @ (columns * moved.astype(columns.dtype)[None]).T
        around = (region.offset, selection.bins - region.offset - region.bins)
        tangent += jnp.pad(_between(across, region), (around, (0, 0))).astype(tangent.dtype)
    return histogram, tangent


def _at_edges(
    values: Float[Array, " events"],
    edges: Float[Array, " edges"],
    bandwidth: Float[Array, " edges"],
    speed: Float[Array, " events"] | None = None,
) -> Float[Array, "edges events"]:
    """How much of each event lies at each edge; how much of it crosses the edge, with the speed of its value."""
    distance, width = values[None] - edges[:, None], bandwidth[:, None]
    return kernel(distance, width) if speed is None else speed[None] * kernel(distance, width * jnp.abs(speed)[None])


def _densities(
    edges: Float[Array, "copies edges"],
    bandwidth: Float[Array, " edges"],
    values: Float[Array, " events"],
    columns: Float[Array, "columns events"],
    copy: Int32[Array, " events"],
    speed: Float32[Array, " events"] | None = None,
) -> Float[Array, "copies edges columns"]:
    """How densely the events of each copy lie at each edge. Only those near an edge are looked at: few are.

    With a `speed`, how many of them cross it, by kernels as wide as they move: NaN of a value that is there stays NaN.
    """
    copies, number = edges.shape
    reach = jnp.ones((), values.dtype) if speed is None else jnp.abs(speed)

    def visit(
        event: Int32[Array, " some"],
        _: Int32[Array, " some"],
        real: Bool[Array, " some"],
        total: Float[Array, "copies terms"],
    ) -> Float[Array, "copies terms"]:
        at_edges = _at_edges(values[event], edges[0], bandwidth, None if speed is None else speed[event])
        terms = (at_edges[:, None] * columns[None, :, event]).reshape(total.shape[1], -1)
        return add_to_histogram(total, jnp.where(real, copy[event], copies), terms.T)

    near = jnp.zeros(values.shape, bool)
    for edge in range(number):
        near |= ~(jnp.abs(values - edges[0, edge]) >= bandwidth[edge] * reach)
    near &= ~jnp.isnan(values) & jnp.any(columns != 0, axis=0)
    start = jnp.zeros((copies, number * columns.shape[0]), columns.dtype)
    return for_each_flip(near.astype(jnp.uint32), 1, visit, start).reshape(copies, number, -1)
