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
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float64, Int

from pipeline.inference.histfactory.arrays import Array, each, namespace, part
from pipeline.inference.histfactory.interpolation import NormsysCurve, histosys_expansion, normsys_expansion
from pipeline.inference.histfactory.likelihood import (
    Terms,
    constraint_masks,
    poisson_deviance,
    poisson_slopes,
    spread_auxdata,
)
from pipeline.inference.histfactory.model import Structure
from pipeline.inference.histfactory.modifiers import Effects
from pipeline.inference.histfactory.wiring import Wiring, wiring_of

__all__ = ["Expanded", "expanded_deviance", "interplay", "rate_slopes", "varied_rates"]

NEARLY_ZERO = 1e-150  # of a factor; its square and the inverse of that are numbers still


class Expanded(eqx.Module):
    """The deviance at a point, its gradient and its Hessian."""

    _: KW_ONLY
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    hessian: Float64[Array, "parameters parameters"]


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
    xp, wiring = namespace(model, parameters, data), wiring_of(structure)
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
    xp, wiring = namespace(effects, parameters), wiring_of(structure)
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
    xp, wiring = namespace(effects, parameters), wiring_of(structure)
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


def interplay(
    structure: Structure,
    effects: Effects,
    parameters: Float64[Array, " parameters"],
    points: Float64[Array, "points parameters"],
    chosen: Int[Array, " chosen"],
) -> Float64[Array, "points*chosen points*chosen bins"]:
    """By how much the events change when two of `varied_rates`' moves are made together, besides the changes of both.

    A factor of one move acts on what the other one does to the same sample. Rows and columns are points and chosen
    interpolated parameters; where both are the same parameter, the entry says nothing.
    """
    xp, wiring = namespace(effects, parameters), wiring_of(structure)
    samples = _samples(structure, wiring, effects, parameters)
    scalars = xp.asarray(wiring.interpolated)[chosen]
    among = _of_scalars(effects, wiring, scalars)

    def effect(point: Array) -> tuple[Array, Array]:
        alpha = point[wiring.scalar][scalars]
        shift = _shifts(among, histosys_expansion(structure.histosys_code, alpha)[0])
        return normsys_expansion(among.normsys, alpha)[0], shift

    factor, added = effect(parameters)

    def of_samples(point: Array) -> Array:
        there, shift = effect(point)
        scales, shift = (there / _off_zero(factor))[:, :, wiring.channels], shift - added
        events = samples.product[None] * (0.5 * samples.total[None] * (scales - 1.0) + scales * shift)
        return xp.stack([scales - 1.0, events])

    factors, events = xp.moveaxis(each(of_samples, points), 1, 0).reshape(2, -1, *samples.total.shape)
    crossed = xp.moveaxis(events, 2, 0) @ xp.moveaxis(factors, 2, 0).transpose(0, 2, 1)
    return xp.moveaxis(crossed + crossed.transpose(0, 2, 1), 0, 2)


def _of_scalars(effects: Effects, wiring: Wiring, scalars: Int[Array, " chosen"]) -> Effects:
    """The same effects with a normsys and a histosys for each of these scalar parameters, some without any effect."""
    xp, curve = namespace(effects), effects.normsys
    normsys, histosys = (xp.asarray(rows)[scalars] for rows in (wiring.normsys_rows, wiring.histosys_rows))
    powers = xp.moveaxis(curve.coefficients, 1, 0)
    always_one = xp.broadcast_to(xp.asarray(np.eye(1, powers.shape[1]))[:, :, None, None], (1, *powers.shape[1:]))
    return Effects(
        nominal=effects.nominal,
        odd=_rows_of(effects.odd, histosys, 0.0),
        even=_rows_of(effects.even, histosys, 0.0),
        normsys=NormsysCurve(
            odd=_rows_of(curve.odd, normsys, 0.0),
            even=_rows_of(curve.even, normsys, 0.0),
            coefficients=xp.moveaxis(xp.concatenate([powers, always_one])[normsys], 0, 1),
        ),
    )


def _samples(
    structure: Structure, wiring: Wiring, effects: Effects, parameters: Float64[Array, " parameters"]
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


def _slopes(wiring: Wiring, samples: _Samples) -> tuple[Float64[Array, "shared bins"], Float64[Array, "ranks bins"]]:
    """Of the rate of every bin, by shared and by local parameters."""
    xp, weighted = namespace(samples), samples.product * samples.total
    added = xp.sum(samples.product[None] * samples.sum_slopes, axis=1)
    scalar = _summed(wiring, samples.log_slopes, weighted[None])[0] + _rows_of(added, wiring.histosys_rows, 0.0)
    spread = xp.sum(weighted[None] * samples.spread_slopes, axis=1)
    return xp.concatenate([scalar, spread]), xp.sum(weighted[None] * samples.local_slopes, axis=1)


def _together(wiring: Wiring, samples: _Samples, first: Float64[Array, " bins"]) -> Float64[Array, "shared shared"]:
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


def _across(wiring: Wiring, samples: _Samples, first: Float64[Array, " bins"]) -> Float64[Array, "shared ranks bins"]:
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
    wiring: Wiring, slopes: Float64[Array, "rows samples channels"], weights: Float64[Array, "sets samples bins"]
) -> Float64[Array, "sets rows bins"]:
    """The sum over samples, in every bin, of weights times what is the same in all bins of a channel."""
    xp = namespace(slopes, weights)
    with_none = xp.concatenate([weights, xp.zeros((*weights.shape[:2], 1), np.float64)], axis=2)
    by_channel = xp.moveaxis(with_none[:, :, wiring.padded], 1, 2)  # sets, channels, samples, bins
    total = xp.moveaxis(xp.moveaxis(slopes, 2, 0)[None] @ by_channel, 1, 2)
    return total.reshape(len(weights), len(slopes), wiring.padded.size)[:, :, wiring.within]


def _rows_of(
    table: Float64[Array, "rows *shape"], places: Int[Array, " scalars"], fill: float
) -> Float64[Array, "scalars *shape"]:
    """A table's row for every scalar parameter; a constant for those that it does not know."""
    xp = namespace(table)
    return xp.concatenate([table, xp.full((1, *table.shape[1:]), fill, np.float64)])[places]


def _assembled(
    structure: Structure,
    wiring: Wiring,
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
