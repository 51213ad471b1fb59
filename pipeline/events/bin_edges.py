"""Bin edges that move: where they are, and how the content of the bins changes with them.

A bin edge is a cut on the observable. Raising the edge e between two bins moves the events right above it from the
upper bin into the lower one: dN/de = ∓ρ(e), with ρ the density of the events there, which a kernel estimates. This is
the derivative of a histogram that is smoothed with the same kernel (`pipeline.events.binning.smooth_histogram`), beside the
content of the hard one.

A region has either no moving edges, or a moving range (`start`, `stop`: the inner edges keep their places in between),
or one threshold an edge.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from pipeline.events.binning import add_to_histogram
from pipeline.events.cuts import Region, Selection, Thresholds
from pipeline.events.flux import for_each_flip, kernel

__all__ = ["Edges", "edge_flux", "placed_edges"]

Edges = dict[str, Float[Array, " _edges"]]
"""Bin edges of each region, keyed by its name, in the unit of its observable."""


def placed_edges(selection: Selection, thresholds: Thresholds, edges: Edges) -> Edges:
    """The edges of every region where the thresholds put them; those that do not move stay as given."""
    return {region.name: _placed(region, thresholds, edges[region.name]) for region in selection.regions}


def _placed(region: Region, thresholds: Thresholds, edges: Float[Array, " edges"]) -> Float[Array, " edges"]:
    if not region.edges:
        return edges
    moving = jnp.stack([jnp.asarray(thresholds[name], edges.dtype) for name in region.edges])
    return _shares(region, edges) @ moving


def _shares(region: Region, edges: Float[Array, " edges"]) -> Float[Array, "edges moving"]:
    """How far each edge follows each of the thresholds that move them."""
    if len(region.edges) == len(edges):
        return jnp.eye(len(edges), dtype=edges.dtype)
    along = (edges - edges[0]) / (edges[-1] - edges[0])
    return jnp.stack([1 - along, along], axis=1)


def edge_flux(
    selection: Selection,
    bandwidths: Thresholds,
    placed: Edges,
    observables: dict[str, Float32[Array, " events"]],
    columns: Float[Array, "columns events"],
    subsample: Int32[Array, " events"],
    subsamples: int,
) -> dict[str, Float[Array, "subsamples bins columns"]]:
    """Derivative of the joint histogram by each threshold that moves edges and has a bandwidth.

    Args:
        selection: with the regions.
        bandwidths: of the kernel, by threshold. One region has one kernel: that of its first moving edge.
        placed: where the edges are.
        observables: of each region, NaN for events that are not in it.
        columns: what each event adds to its bin.
        subsample: which of the `subsamples` each event is in.
        subsamples: the derivative is given for each of them; they add up.
    """
    flux = {}
    for region in selection.regions:
        if not region.edges or region.edges[0] not in bandwidths:
            continue
        bandwidth = jnp.asarray(bandwidths[region.edges[0]], columns.dtype)
        edges, values = (jnp.asarray(one, columns.dtype) for one in (placed[region.name], observables[region.name]))
        density = _densities(edges, bandwidth, values, columns, subsample, subsamples)
        shares = _shares(region, edges)
        for number, name in enumerate(region.edges):
            moved = shares[None, :, number, None] * density
            inside = slice(region.offset, region.offset + region.bins)
            nothing = jnp.zeros((subsamples, selection.bins, columns.shape[0]), columns.dtype)
            flux[name] = nothing.at[:, inside].set(moved[:, 1:] - moved[:, :-1])
    return flux


def _densities(
    edges: Float[Array, " edges"],
    bandwidth: Float[Array, ""],
    values: Float[Array, " events"],
    columns: Float[Array, "columns events"],
    subsample: Int32[Array, " events"],
    subsamples: int,
) -> Float[Array, "subsamples edges columns"]:
    """How densely events lie at each edge.

    Of several subsamples only the events near an edge are looked at: few are in a region at all.
    """
    if subsamples == 1:
        return jnp.stack([columns @ kernel(values - edge, bandwidth) for edge in edges])[None]

    def visit(
        event: Int32[Array, " some"],
        _: Int32[Array, " some"],
        real: Bool[Array, " some"],
        total: Float[Array, "subsamples terms"],
    ) -> Float[Array, "subsamples terms"]:
        at_edges = kernel(values[event][None] - edges[:, None], bandwidth)
        terms = (at_edges[:, None] * columns[None, :, event]).reshape(total.shape[1], -1)
        return add_to_histogram(total, jnp.where(real, subsample[event], subsamples), terms.T)

    near = jnp.zeros(values.shape, bool)
    for edge in edges:
        near |= jnp.abs(values - edge) < bandwidth
    start = jnp.zeros((subsamples, len(edges) * columns.shape[0]), columns.dtype)
    near &= jnp.any(columns != 0, axis=0)
    return for_each_flip(near.astype(jnp.uint32), 1, visit, start).reshape(subsamples, len(edges), -1)
