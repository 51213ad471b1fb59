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

from dataclasses import KW_ONLY
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, each, namespace, part
from pipeline.inference.histfactory.interpolation import histosys_expansion, normsys_expansion
from pipeline.inference.histfactory.likelihood import (
    Terms,
    constraint_masks,
    poisson_deviance,
    poisson_slopes,
    spread_auxdata,
)
from pipeline.inference.histfactory.model import Structure, channel_of_bins, first_parameter, modifiers_of, target_table
from pipeline.inference.histfactory.modifiers import Effects, bin_table, parameter_of_bins

__all__ = ["Expanded", "expanded_deviance", "rate_slopes", "varied_rates"]

NEARLY_ZERO = 1e-150  # of a factor; its square and the inverse of that are numbers still


class Expanded(eqx.Module):
    """The deviance at a point, its gradient and its Hessian."""

    _: KW_ONLY
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    hessian: Float64[Array, "parameters parameters"]


class _Wiring(NamedTuple):
    """Which parameter acts where: shared ones in the order [scalar, spread], local ones in (rank, bin).

    `interpolated` stand among the scalar ones where their names say; `normsys` and `histosys` are the rows of those
    modifiers among them, `*_rows` the other way round. `padded` are the bins of each channel, filled up.
    """

    scalar: Int[np.ndarray, " scalars"]
    normsys: Int[np.ndarray, " normsys"]
    histosys: Int[np.ndarray, " histosys"]
    normsys_rows: Int[np.ndarray, " scalars"]
    histosys_rows: Int[np.ndarray, " scalars"]
    interpolated: Int[np.ndarray, " interpolated"]
    factors: Bool[np.ndarray, "scalars samples channels"]
    spread: Int[np.ndarray, " spread"]
    spread_factors: Bool[np.ndarray, "spread samples bins"]
    local: Int[np.ndarray, "ranks bins"]
    local_factors: Bool[np.ndarray, "ranks samples bins"]
    channels: Int[np.ndarray, " bins"]
    padded: Int[np.ndarray, "channels width"]
    within: Int[np.ndarray, " bins"]
    order: Int[np.ndarray, " parameters"]


class _Samples(NamedTuple):
    """Every sample in every bin: its rate as product times sum, and the slopes of both.

    The slopes of the logarithm of the product are those of scalar parameters, the same in all bins of a channel, and
    those of spread and of local ones. `curvatures` are second derivatives, of a factor over itself.
    """

    total: Float64[Array, "samples bins"]
    product: Float64[Array, "samples bins"]
    log_slopes: Float64[Array, "scalars samples channels"]
    curvatures: Float64[Array, "scalars samples channels"]
    sum_slopes: Float64[Array, "histosys samples bins"]
    sum_curvatures: Float64[Array, "histosys samples bins"]
    spread_slopes: Float64[Array, "spread samples bins"]
    local_slopes: Float64[Array, "ranks samples bins"]


@part()
def expanded_deviance(
    structure: Structure,
    model: Terms,
    parameters: Float64[Array, " parameters"],
    data: Float64[Array, " data"],
) -> Expanded:
    """`likelihood.deviance` with its first and second derivatives by the parameters."""
    xp, wiring = namespace(model, parameters, data), _wiring(structure)
    samples = _samples(structure, wiring, model.effects, parameters)
    weighted = samples.product * samples.total
    rate, count = xp.sum(weighted, axis=0), data[: structure.bins]
    first, second = poisson_slopes(count, rate)
    shared, local = _slopes(wiring, samples)
    constraint = _constraints(structure, model, parameters, data)

    together = _together(wiring, samples, first)
    together = together + (shared * second[None]) @ shared.T
    across = _across(wiring, samples, first)
    across = across + second[None, None] * shared[:, None] * local[None]
    within = first[None, None] * xp.einsum("sb,psb,qsb->pqb", weighted, samples.local_slopes, samples.local_slopes)
    ranks = np.eye(len(wiring.local), dtype=bool)[:, :, None]
    within = xp.where(ranks, 0.0, within) + second[None, None] * local[:, None] * local[None]

    gradient = xp.concatenate([shared @ first, (local * first[None])[wiring.local < structure.size]])
    hessian = _assembled(structure, wiring, together, across, within)[wiring.order][:, wiring.order]
    return Expanded(
        value=xp.sum(poisson_deviance(count, rate)) + xp.sum(constraint[0]),
        gradient=gradient[wiring.order] + constraint[1],
        hessian=hessian + xp.diag(constraint[2]),
    )


def rate_slopes(
    structure: Structure, effects: Effects, parameters: Float64[Array, " parameters"]
) -> Float64[Array, "bins parameters"]:
    """The slopes of the expected events of every bin."""
    xp, wiring = namespace(effects, parameters), _wiring(structure)
    shared, local = _slopes(wiring, _samples(structure, wiring, effects, parameters))
    spread = local[:, None, :] * np.eye(structure.bins)[None]  # ranks, bins, bins: a local parameter acts in its bin
    rows = xp.concatenate([shared, spread[wiring.local < structure.size]])
    return rows[wiring.order].T


def varied_rates(
    structure: Structure,
    effects: Effects,
    parameters: Float64[Array, " parameters"],
    points: Float64[Array, "points parameters"],
) -> Float64[Array, "points interpolated bins"]:
    """The expected events of every bin with one interpolated parameter at a point's value, the others as they are.

    The parameters stand in the order of `interpolated_positions`.
    """
    xp, wiring = namespace(effects, parameters), _wiring(structure)
    samples = _samples(structure, wiring, effects, parameters)
    scalars = parameters[wiring.scalar]
    factor = _off_zero(normsys_expansion(effects.normsys, scalars[wiring.normsys])[0])
    added = _shifts(effects, histosys_expansion(structure.histosys_code, scalars[wiring.histosys])[0])

    def events(scalars: Array) -> Array:
        table = normsys_expansion(effects.normsys, scalars[wiring.normsys])[0]
        scales = _rows_of(table / factor, wiring.normsys_rows, 1.0)
        whole = _summed(wiring, scales, (samples.product * samples.total)[None])[0]
        alpha = scalars[wiring.histosys]
        shift = _shifts(effects, histosys_expansion(structure.histosys_code, alpha)[0]) - added
        moved = xp.sum(samples.product[None] * scales[wiring.histosys][:, :, wiring.channels] * shift, axis=1)
        return (whole + _rows_of(moved, wiring.histosys_rows, 0.0))[wiring.interpolated]

    return each(events, points[:, wiring.scalar])


def _samples(
    structure: Structure, wiring: _Wiring, effects: Effects, parameters: Float64[Array, " parameters"]
) -> _Samples:
    xp = namespace(effects, parameters)
    norms, histos = parameters[wiring.scalar[wiring.normsys]], parameters[wiring.scalar[wiring.histosys]]
    factor, slope, curvature = normsys_expansion(effects.normsys, norms)
    factor = _off_zero(factor)
    weights, weight_slopes, weight_curvatures = histosys_expansion(structure.histosys_code, histos)
    others = _off_zero(parameters[wiring.scalar])[:, None, None]
    spread = _off_zero(parameters[wiring.spread])[:, None, None]
    with_one = xp.concatenate([parameters, xp.ones(1, np.float64)])
    local = _off_zero(with_one[wiring.local])[:, None, :]
    scaled = xp.prod(factor, axis=0) * xp.prod(xp.where(wiring.factors, others, 1.0), axis=0)
    product = scaled[:, wiring.channels] * xp.prod(xp.where(wiring.spread_factors, spread, 1.0), axis=0)
    return _Samples(
        total=effects.nominal + xp.sum(_shifts(effects, weights), axis=0),
        product=product * xp.prod(xp.where(wiring.local_factors, local, 1.0), axis=0),
        log_slopes=_rows_of(slope / factor, wiring.normsys_rows, 0.0) + xp.where(wiring.factors, 1.0 / others, 0.0),
        curvatures=_rows_of(curvature / factor, wiring.normsys_rows, 0.0),
        sum_slopes=_shifts(effects, weight_slopes),
        sum_curvatures=_shifts(effects, weight_curvatures),
        spread_slopes=xp.where(wiring.spread_factors, 1.0 / spread, 0.0),
        local_slopes=xp.where(wiring.local_factors, 1.0 / local, 0.0),
    )


def _slopes(wiring: _Wiring, samples: _Samples) -> tuple[Float64[Array, "shared bins"], Float64[Array, "ranks bins"]]:
    """Of the rate of every bin, by shared and by local parameters."""
    xp, weighted = namespace(samples), samples.product * samples.total
    added = xp.sum(samples.product[None] * samples.sum_slopes, axis=1)
    scalar = _summed(wiring, samples.log_slopes, weighted[None])[0] + _rows_of(added, wiring.histosys_rows, 0.0)
    spread = xp.sum(weighted[None] * samples.spread_slopes, axis=1)
    return xp.concatenate([scalar, spread]), xp.sum(weighted[None] * samples.local_slopes, axis=1)


def _together(wiring: _Wiring, samples: _Samples, first: Float64[Array, " bins"]) -> Float64[Array, "shared shared"]:
    """What the second derivatives of the rates say of two shared parameters, weighed with the slopes by the rates.

    Sums over the bins of a channel come first: what then is left of a product of two slopes has an entry for each
    sample and channel.
    """
    xp = namespace(samples, first)
    by_sum = first[None] * samples.product
    weighted = by_sum * samples.total
    added, spread = by_sum[None] * samples.sum_slopes, weighted[None] * samples.spread_slopes
    in_channels = wiring.channels[:, None] == np.arange(samples.log_slopes.shape[2])[None]
    in_channels = in_channels.astype(np.float64)
    weight, of_added, of_spread = weighted @ in_channels, _flat(added @ in_channels), _flat(spread @ in_channels)
    slopes = _flat(samples.log_slopes)

    block = (slopes * weight.reshape(1, -1)) @ slopes.T
    crossed = _rows_of(of_added @ slopes.T, wiring.histosys_rows, 0.0)
    between = slopes @ of_spread.T
    between = between + _rows_of(_flat(added) @ _flat(samples.spread_slopes).T, wiring.histosys_rows, 0.0)
    corner = _flat(spread) @ _flat(samples.spread_slopes).T
    matrix = xp.block([[block + crossed + crossed.T, between], [between.T, corner]])

    of_sum = 2.0 * xp.sum(of_added * slopes[wiring.histosys], axis=1)
    of_sum = of_sum + xp.sum(by_sum[None] * samples.sum_curvatures, axis=(1, 2))
    curvature = xp.sum(weight[None] * samples.curvatures, axis=(1, 2)) + _rows_of(of_sum, wiring.histosys_rows, 0.0)
    diagonal = xp.concatenate([curvature, xp.zeros(len(wiring.spread), np.float64)])
    return xp.where(np.eye(len(diagonal), dtype=bool), diagonal[:, None], matrix)


def _across(wiring: _Wiring, samples: _Samples, first: Float64[Array, " bins"]) -> Float64[Array, "shared ranks bins"]:
    """The same of a shared and a local parameter."""
    xp = namespace(samples, first)
    by_sum = first[None] * samples.product
    weighted = by_sum * samples.total
    scalar = xp.moveaxis(_summed(wiring, samples.log_slopes, weighted[None] * samples.local_slopes), 0, 1)
    added = xp.einsum("hsb,rsb->hrb", by_sum[None] * samples.sum_slopes, samples.local_slopes)
    spread = xp.einsum("qsb,rsb->qrb", weighted[None] * samples.spread_slopes, samples.local_slopes)
    return xp.concatenate([scalar + _rows_of(added, wiring.histosys_rows, 0.0), spread])


def _constraints(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"], data: Float64[Array, " data"]
) -> tuple[Float64[Array, " parameters"], Float64[Array, " parameters"], Float64[Array, " parameters"]]:
    """Every parameter's constraint in the deviance, with its slope and its curvature."""
    xp, measured = namespace(model, parameters, data), spread_auxdata(structure, data)
    is_normal, is_poisson = constraint_masks(structure)
    pull = xp.where(is_normal, (parameters - measured) / model.width, 0.0)
    value, slope, curvature = pull**2, 2.0 * pull / model.width, xp.where(is_normal, 2.0 / model.width**2, 0.0)
    if is_poisson.any():
        count = xp.where(is_poisson, measured, 1.0)
        rate = xp.where(is_poisson, model.width * parameters, 1.0)
        first, second = poisson_slopes(count, rate)
        value = value + poisson_deviance(count, rate)
        slope = slope + xp.where(is_poisson, model.width * first, 0.0)
        curvature = curvature + xp.where(is_poisson, model.width**2 * second, 0.0)
    return value, slope, curvature


def _shifts(effects: Effects, weights: Float64[Array, "two histosys"]) -> Float64[Array, "histosys samples bins"]:
    """What each histosys adds, from the weights of its odd and even part."""
    odd, even = weights[:, :, None, None]
    return odd * effects.odd + even * effects.even


def _summed(
    wiring: _Wiring, slopes: Float64[Array, "rows samples channels"], weights: Float64[Array, "sets samples bins"]
) -> Float64[Array, "sets rows bins"]:
    """The sum over samples, in every bin, of weights times what is the same in all bins of a channel."""
    xp = namespace(slopes, weights)
    with_none = xp.concatenate([weights, xp.zeros((*weights.shape[:2], 1), np.float64)], axis=2)
    by_channel = xp.moveaxis(with_none[:, :, wiring.padded], 1, 2)  # sets, channels, samples, bins
    total = xp.moveaxis(xp.moveaxis(slopes, 2, 0)[None] @ by_channel, 1, 2)
    return total.reshape(len(weights), len(slopes), wiring.padded.size)[:, :, wiring.within]


def _rows_of(
    table: Float64[Array, "rows *shape"], places: Int[np.ndarray, " scalars"], fill: float
) -> Float64[Array, "scalars *shape"]:
    """A table's row for every scalar parameter; a constant for those that it does not know."""
    xp = namespace(table)
    return xp.concatenate([table, xp.full((1, *table.shape[1:]), fill, np.float64)])[places]


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
    xp, present = namespace(together), np.flatnonzero(wiring.local.ravel() < structure.size)
    ranks = len(wiring.local)
    spread = within[:, None, :, :].transpose(0, 3, 2, 1) * np.eye(structure.bins)[None, :, None, :]
    spread = spread.reshape(ranks * structure.bins, ranks * structure.bins)[present][:, present]
    across = across.reshape(len(together), ranks * structure.bins)[:, present]
    return xp.block([[together, across], [across.T, spread]])


def _off_zero(factor: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    xp = namespace(factor)
    return xp.where(xp.abs(factor) < NEARLY_ZERO, NEARLY_ZERO, factor)


def _flat(table: Float64[Array, "rows samples columns"]) -> Float64[Array, "rows entries"]:
    return table.reshape(len(table), table.shape[1] * table.shape[2])


@lru_cache(maxsize=64)
def _wiring(structure: Structure) -> _Wiring:
    first, channels = first_parameter(structure), channel_of_bins(structure)
    kinds = {kind: modifiers_of(structure, kind) for kind in ("normsys", "histosys", "normfactor", "lumi")}
    scalar = np.array(sorted({first[m.name] for group in kinds.values() for m in group}), dtype=np.int64)
    row = {int(position): i for i, position in enumerate(scalar)}
    rows = {kind: np.array([row[first[m.name]] for m in group], dtype=np.int64) for kind, group in kinds.items()}
    factors = np.zeros((len(scalar), len(structure.samples), len(structure.channels)), dtype=bool)
    for modifier in (*kinds["normfactor"], *kinds["lumi"]):
        factors[row[first[modifier.name]]] |= target_table(structure, modifier)
    spread, spread_factors, local, local_factors = _by_bin(structure)
    starts = np.searchsorted(channels, np.arange(len(structure.channels)))
    inside = np.arange(structure.bins) - starts[channels]
    padded = np.full((len(starts), int(inside.max(initial=-1)) + 1), structure.bins)
    padded[channels, inside] = np.arange(structure.bins)
    return _Wiring(
        scalar=scalar,
        normsys=rows["normsys"],
        histosys=rows["histosys"],
        normsys_rows=_inverse(rows["normsys"], len(scalar)),
        histosys_rows=_inverse(rows["histosys"], len(scalar)),
        interpolated=np.union1d(rows["normsys"], rows["histosys"]),
        factors=factors,
        spread=spread,
        spread_factors=spread_factors,
        local=local,
        local_factors=local_factors,
        channels=channels,
        padded=padded,
        within=channels * padded.shape[1] + inside,
        order=np.argsort(np.concatenate([scalar, spread, local[local < structure.size]])),
    )


def _inverse(rows: Int[np.ndarray, " modifiers"], size: int) -> Int[np.ndarray, " scalars"]:
    """The modifier of each parameter; behind the last one if it has none."""
    places = np.full(size, len(rows))
    places[rows] = np.arange(len(rows))
    return places


def _by_bin(
    structure: Structure,
) -> tuple[
    Int[np.ndarray, " spread"],
    Bool[np.ndarray, "spread samples bins"],
    Int[np.ndarray, "ranks bins"],
    Bool[np.ndarray, "ranks samples bins"],
]:
    """The parameters of modifiers with one for each bin: those that act in several bins, and the others.

    The first, the second, ... of those that act in each bin only; `structure.size` where there is none.
    """
    by_bin = [m for m in structure.modifiers if m.kind in ("shapefactor", "shapesys", "staterror")]
    names, sets = {m.name for m in by_bin}, [s.name for s in structure.parameter_sets for _ in range(s.size)]
    # Every (bin, parameter, sample) in which one acts.
    acting = [np.zeros((0, 3), dtype=np.int64)]
    for modifier in by_bin:
        sample, b = np.nonzero(bin_table(structure, modifier))
        acting.append(np.stack([b, parameter_of_bins(structure, modifier)[b], sample], axis=1))
    entries = np.unique(np.concatenate(acting), axis=0)
    pairs = np.unique(entries[:, :2], axis=0)
    bins = np.bincount(pairs[:, 1], minlength=structure.size)
    single = bins == 1
    spread = np.flatnonzero(np.array([name in names for name in sets], dtype=bool) & ~single)
    spread_factors = np.zeros((len(spread), len(structure.samples), structure.bins), dtype=bool)
    several = entries[~single[entries[:, 1]]]
    spread_factors[np.searchsorted(spread, several[:, 1]), several[:, 2], several[:, 0]] = True

    alone = pairs[single[pairs[:, 1]]]
    rank = np.arange(len(alone)) - np.searchsorted(alone[:, 0], alone[:, 0])
    rank_of = np.zeros(structure.size, dtype=np.int64)
    rank_of[alone[:, 1]] = rank
    local = np.full((int(rank.max(initial=-1)) + 1, structure.bins), structure.size)
    local[rank, alone[:, 0]] = alone[:, 1]
    local_factors = np.zeros((len(local), len(structure.samples), structure.bins), dtype=bool)
    one = entries[single[entries[:, 1]]]
    local_factors[rank_of[one[:, 1]], one[:, 2], one[:, 0]] = True
    return spread, spread_factors, local, local_factors
