"""The likelihood to second order in closed form: what a Newton fit needs at each of its steps.

A sample's rate in a bin is a sum times a product, `A * F`. With `a` the slopes of A and `g` those of log F, its second
derivatives are `F * (A g g' + a g' + g a')` off the diagonal and `F * (A f''/f + 2 a g + A'')` on it: one outer product
for each sample and bin instead of one pass of automatic differentiation for each parameter. All of them together are
one matrix product.

Parameters that act in one bin only, as those of staterror and shapesys do, have no second derivatives with those of
other bins. They never enter that product: they get a block of their own.

A factor that is exactly zero has no logarithm. It is moved off zero by less than anything can notice, and its slope
over itself is so large that the product of both is right.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import lru_cache, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int

from pipeline.inference.histfactory.interpolation import histosys_weights, normsys_expansion, normsys_sides
from pipeline.inference.histfactory.likelihood import Terms, constraint_masks, poisson_deviance, spread_auxdata
from pipeline.inference.histfactory.model import Structure, channel_of_bins, first_parameter, modifiers_of
from pipeline.inference.histfactory.modifiers import (
    Effects,
    bin_table,
    bins_of_parameters,
    parameter_of_bins,
    scalar_positions,
)

__all__ = ["Expanded", "expanded_deviance", "rate_slopes", "varied_rates"]

NEARLY_ZERO = 1e-150  # of a factor; its square and the inverse of that are numbers still


class Expanded(eqx.Module):
    """The deviance at a point, its gradient and its Hessian."""

    _: KW_ONLY
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    hessian: Float64[Array, "parameters parameters"]


class _Wiring(NamedTuple):
    """Which parameter acts where: shared parameters in the order [interpolated, others], local ones in (rank, bin)."""

    normsys_rows: Int[np.ndarray, " interpolated"]
    histosys_rows: Int[np.ndarray, " interpolated"]
    shared: Int[np.ndarray, " shared"]
    factors: Bool[np.ndarray, "others samples bins"]
    local: Int[np.ndarray, "ranks bins"]
    local_factors: Bool[np.ndarray, "ranks samples bins"]


class _Samples(NamedTuple):
    """Every sample in every bin: its rate as product times sum, and the slopes of both.

    `log_slopes`, `sum_slopes` and `curvatures` (the second derivative of a factor over itself) have a row for each
    shared parameter; `local_slopes` for each rank of local ones.
    """

    total: Float64[Array, "samples bins"]
    product: Float64[Array, "samples bins"]
    log_slopes: Float64[Array, "shared samples bins"]
    sum_slopes: Float64[Array, "shared samples bins"]
    factor_curvatures: Float64[Array, "shared samples bins"]
    sum_curvatures: Float64[Array, "shared samples bins"]
    local_slopes: Float64[Array, "ranks samples bins"]


@partial(jax.jit, static_argnums=0)
def expanded_deviance(
    structure: Structure,
    model: Terms,
    parameters: Float64[Array, " parameters"],
    data: Float64[Array, " data"],
) -> Expanded:
    """`likelihood.deviance` with its first and second derivatives by the parameters."""
    wiring = _wiring(structure)
    samples = _samples(structure, wiring, model.effects, parameters)
    weighted = samples.product * samples.total
    rate = jnp.sum(weighted, axis=0)
    count = data[: structure.bins]
    value, first, second = _elementwise(lambda r: poisson_deviance(count, r), rate)
    shared, local = _slopes(samples)
    constraint = _constraints(structure, model, parameters, data)

    # Shared with shared: left right' + right left', bins after samples.
    half = (
        first[None, None]
        * samples.product[None]
        * (0.5 * samples.total[None] * samples.log_slopes + samples.sum_slopes)
    )
    left = jnp.concatenate([_flat(samples.log_slopes), shared], axis=1)
    right = jnp.concatenate([_flat(half), 0.5 * second[None] * shared], axis=1)
    block = left @ right.T
    curvature = first[None] * jnp.sum(
        samples.product[None]
        * (
            samples.total[None] * samples.factor_curvatures
            + 2.0 * samples.sum_slopes * samples.log_slopes
            + samples.sum_curvatures
        ),
        axis=1,
    )
    diagonal = jnp.sum(curvature + second[None] * shared**2, axis=1)
    together = _with_diagonal(block + block.T, diagonal)

    # Shared with local, and local with local of the same bin.
    pull = samples.product[None] * (samples.total[None] * samples.log_slopes + samples.sum_slopes)
    across = first[None, None] * jnp.einsum("psb,qsb->pqb", pull, samples.local_slopes)
    across = across + second[None, None] * shared[:, None] * local[None]
    within = first[None, None] * jnp.einsum("sb,psb,qsb->pqb", weighted, samples.local_slopes, samples.local_slopes)
    ranks = np.eye(len(wiring.local), dtype=bool)[:, :, None]
    within = jnp.where(ranks, 0.0, within) + second[None, None] * local[:, None] * local[None]

    gradient = jnp.concatenate([shared @ first, (local * first[None])[wiring.local < structure.size]])
    order = _order(structure, wiring)
    hessian = _assembled(structure, wiring, together, across, within)[order][:, order]
    return Expanded(
        value=jnp.sum(value) + jnp.sum(constraint[0]),
        gradient=gradient[order] + constraint[1],
        hessian=hessian + jnp.diag(constraint[2]),
    )


def rate_slopes(
    structure: Structure, effects: Effects, parameters: Float64[Array, " parameters"]
) -> Float64[Array, "bins parameters"]:
    """The slopes of the expected events of every bin."""
    wiring = _wiring(structure)
    shared, local = _slopes(_samples(structure, wiring, effects, parameters))
    spread = local[:, None, :] * np.eye(structure.bins)[None]  # ranks, bins, bins: a local parameter acts in its bin
    rows = jnp.concatenate([shared, spread[wiring.local < structure.size]])
    return rows[_order(structure, wiring)].T


def varied_rates(
    structure: Structure, effects: Effects, parameters: Float64[Array, " parameters"]
) -> tuple[
    Float64[Array, "interpolated bins"], Float64[Array, "interpolated bins"], Float64[Array, "interpolated bins"]
]:
    """The expected events of every bin with each interpolated parameter at -1, at 0 and at +1, the others as they are.

    The parameters stand in the order of `interpolated_positions`.
    """
    wiring, channels = _wiring(structure), channel_of_bins(structure)
    samples = _samples(structure, wiring, effects, parameters)
    norms, histos = (parameters[scalar_positions(structure, kind)] for kind in ("normsys", "histosys"))
    factor = _off_zero(normsys_expansion(effects.normsys, norms)[0])
    low, high = normsys_sides(effects.normsys)

    def scales(table: Float64[Array, "normsys samples channels"]) -> Float64[Array, "interpolated samples bins"]:
        return _rows_of(table / factor, wiring.normsys_rows, 1.0)[:, :, channels]

    def added(alpha: Float64[Array, " histosys"]) -> Float64[Array, "interpolated samples bins"]:
        weights = jnp.stack(histosys_weights(structure.histosys_code, alpha))
        return _rows_of(_shifts(effects, weights), wiring.histosys_rows, 0.0)

    without, one = samples.total[None] - added(histos), jnp.ones_like(histos)

    def events(
        scale: Float64[Array, "interpolated samples bins"], shift: Float64[Array, "interpolated samples bins"]
    ) -> Float64[Array, "interpolated bins"]:
        return jnp.sum(samples.product[None] * scale * (without + shift), axis=1)

    middle = events(scales(jnp.ones_like(factor)), jnp.zeros_like(without))
    return events(scales(low), added(-one)), middle, events(scales(high), added(one))


def _samples(
    structure: Structure, wiring: _Wiring, effects: Effects, parameters: Float64[Array, " parameters"]
) -> _Samples:
    channels = channel_of_bins(structure)
    norms, histos = (parameters[scalar_positions(structure, kind)] for kind in ("normsys", "histosys"))
    factor, slope, curvature = normsys_expansion(effects.normsys, norms)
    factor = _off_zero(factor)
    weights, weight_slopes, weight_curvatures = _elementwise(
        lambda alpha: jnp.stack(histosys_weights(structure.histosys_code, alpha)), histos
    )

    def shifts(weights: Float64[Array, "two histosys"]) -> Float64[Array, "histosys samples bins"]:
        return _shifts(effects, weights)

    def rows(
        table: Float64[Array, "rows samples columns"], places: Int[np.ndarray, " interpolated"]
    ) -> Float64[Array, "interpolated samples columns"]:
        return _rows_of(table, places, 0.0)

    others = _off_zero(parameters[wiring.shared[len(wiring.normsys_rows) :]])[:, None, None]
    with_one = jnp.concatenate([parameters, jnp.ones(1, jnp.float64)])
    local = _off_zero(with_one[wiring.local])[:, None, :]
    product = jnp.prod(factor, axis=0)[:, channels]
    product = product * jnp.prod(jnp.where(wiring.factors, others, 1.0), axis=0)
    product = product * jnp.prod(jnp.where(wiring.local_factors, local, 1.0), axis=0)
    nothing = jnp.zeros(wiring.factors.shape, jnp.float64)

    def padded(table: Float64[Array, "interpolated samples bins"]) -> Float64[Array, "shared samples bins"]:
        return jnp.concatenate([table, nothing])

    return _Samples(
        total=effects.nominal + jnp.sum(shifts(weights), axis=0),
        product=product,
        log_slopes=jnp.concatenate(
            [rows(slope / factor, wiring.normsys_rows)[:, :, channels], jnp.where(wiring.factors, 1.0 / others, 0.0)]
        ),
        sum_slopes=padded(rows(shifts(weight_slopes), wiring.histosys_rows)),
        factor_curvatures=padded(rows(curvature / factor, wiring.normsys_rows)[:, :, channels]),
        sum_curvatures=padded(rows(shifts(weight_curvatures), wiring.histosys_rows)),
        local_slopes=jnp.where(wiring.local_factors, 1.0 / local, 0.0),
    )


def _slopes(samples: _Samples) -> tuple[Float64[Array, "shared bins"], Float64[Array, "ranks bins"]]:
    """Of the rate of every bin, by shared and by local parameters."""
    summed = samples.total[None] * samples.log_slopes + samples.sum_slopes
    shared = jnp.sum(samples.product[None] * summed, axis=1)
    return shared, jnp.sum((samples.product * samples.total)[None] * samples.local_slopes, axis=1)


def _constraints(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"], data: Float64[Array, " data"]
) -> tuple[Float64[Array, " parameters"], Float64[Array, " parameters"], Float64[Array, " parameters"]]:
    """Every parameter's constraint in the deviance, with its slope and its curvature."""
    measured = spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    pull = jnp.where(is_normal, (parameters - measured) / model.width, 0.0)
    value, slope, curvature = pull**2, 2.0 * pull / model.width, jnp.where(is_normal, 2.0 / model.width**2, 0.0)
    if is_poisson.any():
        count = jnp.where(is_poisson, measured, 1.0)
        rate = jnp.where(is_poisson, model.width * parameters, 1.0)
        terms = _elementwise(lambda r: poisson_deviance(count, r), rate)
        value = value + terms[0]
        slope = slope + jnp.where(is_poisson, model.width * terms[1], 0.0)
        curvature = curvature + jnp.where(is_poisson, model.width**2 * terms[2], 0.0)
    return value, slope, curvature


def _shifts(effects: Effects, weights: Float64[Array, "two histosys"]) -> Float64[Array, "histosys samples bins"]:
    """What each histosys adds, from the weights of its odd and even part."""
    odd, even = weights[:, :, None, None]
    return odd * effects.odd + even * effects.even


def _rows_of(
    table: Float64[Array, "rows samples columns"], places: Int[np.ndarray, " interpolated"], fill: float
) -> Float64[Array, "interpolated samples columns"]:
    """A table's row for every interpolated parameter; a constant for those that it does not know."""
    return jnp.concatenate([table, jnp.full((1, *table.shape[1:]), fill, jnp.float64)])[places]


def _assembled(
    structure: Structure,
    wiring: _Wiring,
    together: Float64[Array, "shared shared"],
    across: Float64[Array, "shared ranks bins"],
    within: Float64[Array, "ranks ranks bins"],
) -> Float64[Array, "parameters parameters"]:
    """The Hessian in the order [shared, local]."""
    if not wiring.local.size:
        return together
    present = np.flatnonzero(wiring.local.ravel() < structure.size)
    ranks = len(wiring.local)
    spread = within[:, None, :, :].transpose(0, 3, 2, 1) * np.eye(structure.bins)[None, :, None, :]
    spread = spread.reshape(ranks * structure.bins, ranks * structure.bins)[present][:, present]
    across = across.reshape(len(together), ranks * structure.bins)[:, present]
    return jnp.block([[together, across], [across.T, spread]])


def _elementwise(f: Callable[[Array], Array], x: Array) -> tuple[Array, Array, Array]:
    """A function of which every value depends on one entry of `x` only, with its first and second derivatives."""

    def slope(at: Array) -> tuple[Array, Array]:
        return jax.jvp(f, (at,), (jnp.ones_like(at),))

    (value, first), (_, second) = jax.jvp(slope, (x,), (jnp.ones_like(x),))
    return value, first, second


def _off_zero(factor: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    return jnp.where(jnp.abs(factor) < NEARLY_ZERO, NEARLY_ZERO, factor)


def _flat(table: Float64[Array, "rows samples bins"]) -> Float64[Array, "rows entries"]:
    return table.reshape(len(table), table.shape[1] * table.shape[2])


def _with_diagonal(
    matrix: Float64[Array, "parameters parameters"], diagonal: Float64[Array, " parameters"]
) -> Float64[Array, "parameters parameters"]:
    return jnp.where(np.eye(len(matrix), dtype=bool), diagonal[:, None], matrix)


def _order(structure: Structure, wiring: _Wiring) -> Int[np.ndarray, " parameters"]:
    """Where each parameter stands in [shared, local]."""
    internal = np.concatenate([wiring.shared, wiring.local[wiring.local < structure.size]])
    return np.argsort(internal)


@lru_cache(maxsize=64)
def _wiring(structure: Structure) -> _Wiring:
    first, acts = first_parameter(structure), bins_of_parameters(structure)
    by_bin = [m for m in structure.modifiers if m.kind in ("shapefactor", "shapesys", "staterror")]
    per_bin = {m.name for m in by_bin}
    sets = [s.name for s in structure.parameter_sets for _ in range(s.size)]
    single = np.array([name in per_bin for name in sets], dtype=bool) & (acts.sum(axis=1) == 1)
    rows = {kind: [m.name for m in modifiers_of(structure, kind)] for kind in ("normsys", "histosys")}
    interpolated = [s.name for s in structure.parameter_sets if s.name in {*rows["normsys"], *rows["histosys"]}]
    taken = np.isin(np.arange(structure.size), [first[name] for name in interpolated])
    others = np.flatnonzero(~single & ~taken)
    factors = np.zeros((structure.size, len(structure.samples), structure.bins), dtype=bool)
    for modifier in structure.modifiers:
        if modifier.kind in ("normsys", "histosys"):
            continue
        per_bin_positions = modifier in by_bin
        position = (
            parameter_of_bins(structure, modifier)
            if per_bin_positions
            else np.full(structure.bins, first[modifier.name])
        )
        for sample, b in zip(*np.nonzero(bin_table(structure, modifier)), strict=True):
            factors[position[b], sample, b] = True
    local = _local(single, acts, structure)
    with_none = np.concatenate([factors, np.zeros((1, *factors.shape[1:]), dtype=bool)])
    bins = np.arange(structure.bins)
    return _Wiring(
        normsys_rows=_rows(rows["normsys"], interpolated),
        histosys_rows=_rows(rows["histosys"], interpolated),
        shared=np.concatenate([[first[name] for name in interpolated], others]).astype(np.int64),
        factors=factors[others],
        local=local,
        local_factors=np.moveaxis(with_none[local, :, bins[None]], 2, 1),
    )


def _rows(names: list[str], interpolated: list[str]) -> Int[np.ndarray, " interpolated"]:
    """The row of each interpolated parameter; behind the last one if it has none."""
    return np.array([names.index(name) if name in names else len(names) for name in interpolated], dtype=np.int64)


def _local(
    single: Bool[np.ndarray, " parameters"], acts: Bool[np.ndarray, "parameters bins"], structure: Structure
) -> Int[np.ndarray, "ranks bins"]:
    """The first, the second, ... of the parameters that act in each bin only; `structure.size` where there is none."""
    lists = [np.flatnonzero(single & acts[:, b]) for b in range(structure.bins)]
    depth = max((len(entry) for entry in lists), default=0)
    table = np.full((depth, structure.bins), structure.size, dtype=np.int64)
    for b, entry in enumerate(lists):
        table[: len(entry), b] = entry
    return table
