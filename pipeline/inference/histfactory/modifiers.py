"""From numbers and parameters to expected events: every modifier of HistFactory, wired once, evaluated densely.

The expected events of a bin are `sum over samples of [product of factors] * [nominal + sum of histosys shifts]`.
Factors come in two sorts. A normsys factor is a curve in its parameter. All others (normfactor, shapefactor, lumi,
shapesys, staterror) *are* a parameter, so they are one gather: for every sample and bin the positions of the parameters
that multiply it, filled up with the position of a constant one. How long that list gets is the depth of the busiest
bin, not the number of modifiers.
"""

from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, constant, namespace
from pipeline.inference.histfactory.interpolation import NormsysCurve, histosys_weights, normsys_curve, normsys_factor
from pipeline.inference.histfactory.model import (
    Modifier,
    ModifierKind,
    Numbers,
    Structure,
    channel_of_bins,
    first_parameter,
    modifiers_of,
    target_table,
)

__all__ = ["Effects", "bin_table", "effects", "parameter_of_bins", "rates", "scalar_positions"]


class Effects(eqx.Module):
    """The part of expected events that does not depend on the parameters; computed once for a fit.

    Attributes:
        nominal: expected events.
        odd: of each histosys, half the difference of high and low; 0 where the modifier does not act.
        even: of each histosys, the mean of high and low, minus nominal.
        normsys: the normsys curves; a factor of 1 where the modifier does not act.
    """

    _: KW_ONLY
    nominal: Float64[Array, "samples bins"]
    odd: Float64[Array, "histosys samples bins"]
    even: Float64[Array, "histosys samples bins"]
    normsys: NormsysCurve


def effects(structure: Structure, numbers: Numbers) -> Effects:
    """Prepare the numbers of a model for many evaluations.

    Raises:
        TypeError: numbers of 32 bits, which know a likelihood of many events to a hundredth of an event at best.
    """
    if {numbers.nominal.dtype, jnp.result_type(float)} != {jnp.dtype(jnp.float64)}:
        raise TypeError(
            f"the numbers are {numbers.nominal.dtype}, and JAX computes in {jnp.result_type(float)}: a likelihood "
            "needs 64 bits. Import pipeline.inference.histfactory before arrays are made, and leave jax_enable_x64 "
            "switched on."
        )
    xp = namespace(numbers)
    shifts = _tables(structure, "histosys")[:, :, channel_of_bins(structure)]
    scales = _tables(structure, "normsys")
    high, low, nominal = numbers.histosys_hi, numbers.histosys_lo, numbers.nominal
    return Effects(
        nominal=nominal,
        odd=xp.where(shifts, 0.5 * (high - low), 0.0),
        even=xp.where(shifts, 0.5 * ((high - nominal[None]) + (low - nominal[None])), 0.0),
        normsys=normsys_curve(
            structure.normsys_code,
            xp.where(scales, numbers.normsys_lo, 1.0),
            xp.where(scales, numbers.normsys_hi, 1.0),
        ),
    )


def rates(structure: Structure, effects: Effects, parameters: Float64[Array, " parameters"]) -> Float64[Array, " bins"]:
    """Expected events in every bin."""
    histosys, normsys = scalar_positions(structure, "histosys"), scalar_positions(structure, "normsys")
    direct = _direct_positions(structure)
    # All parameters in one gather: its derivative is one scatter, and those are slow to compile.
    xp = namespace(effects, parameters)
    with_one = xp.concatenate([parameters, xp.ones(1, np.float64)])
    picked = with_one[np.concatenate([histosys, normsys, direct.ravel()])]
    for_histosys, for_normsys, factors = xp.split(picked, [len(histosys), len(histosys) + len(normsys)])

    odd, even = histosys_weights(structure.histosys_code, for_histosys)
    shifted = effects.nominal + xp.tensordot(odd, effects.odd, 1) + xp.tensordot(even, effects.even, 1)
    scaled = _product(normsys_factor(effects.normsys, for_normsys)) @ _channel_indicator(structure)
    for factor in factors.reshape(direct.shape):
        scaled = scaled * factor
    return xp.sum(shifted * scaled, axis=0)


def parameter_of_bins(structure: Structure, modifier: Modifier) -> Int[np.ndarray, " bins"]:
    """Which parameter a modifier with a parameter for each bin uses in each bin; -1 in channels it does not touch.

    A staterror or shapesys counts its parameters through its channels; a shapefactor starts again in each channel.
    """
    channels = channel_of_bins(structure)
    touched = np.any(target_table(structure, modifier), axis=0)[channels]
    if modifier.kind == "shapefactor":
        within = np.concatenate([np.arange(channel.bins) for channel in structure.channels])
    else:
        within = np.cumsum(touched) - 1
    return np.where(touched, first_parameter(structure)[modifier.name] + within, -1)


def bin_table(structure: Structure, modifier: Modifier) -> Bool[np.ndarray, "samples bins"]:
    """Where a modifier acts, bin by bin."""
    table: Bool[np.ndarray, "samples bins"] = target_table(structure, modifier)[:, channel_of_bins(structure)]
    return table


def _tables(structure: Structure, kind: ModifierKind) -> Bool[np.ndarray, "modifiers samples channels"]:
    tables = [target_table(structure, modifier) for modifier in modifiers_of(structure, kind)]
    return np.array(tables, dtype=bool).reshape(-1, len(structure.samples), len(structure.channels))


def _channel_indicator(structure: Structure) -> Float64[np.ndarray, "channels bins"]:
    channels = np.arange(len(structure.channels))
    return np.asarray(channels[:, None] == channel_of_bins(structure)[None, :], dtype=np.float64)


def scalar_positions(structure: Structure, kind: ModifierKind) -> Int[np.ndarray, " modifiers"]:
    """The parameter of every modifier of a kind that has one for all bins."""
    first = first_parameter(structure)
    return np.array([first[modifier.name] for modifier in modifiers_of(structure, kind)], dtype=np.int64)


def _direct_positions(structure: Structure) -> Int[np.ndarray, "depth samples bins"]:
    """For every sample and bin, the positions of the parameters that multiply it; the constant one comes last."""
    lists: list[list[list[int]]] = [[[] for _ in range(structure.bins)] for _ in structure.samples]
    first = first_parameter(structure)
    for modifier in structure.modifiers:
        match modifier.kind:
            case "normsys" | "histosys":
                continue
            case "normfactor" | "lumi":
                positions = np.full(structure.bins, first[modifier.name])
            case "shapefactor" | "shapesys" | "staterror":
                positions = parameter_of_bins(structure, modifier)
        for sample, b in zip(*np.nonzero(bin_table(structure, modifier)), strict=True):
            lists[sample][b].append(int(positions[b]))
    depth = max((len(entry) for row in lists for entry in row), default=0)
    filled = [[entry + [structure.size] * (depth - len(entry)) for entry in row] for row in lists]
    return np.moveaxis(np.array(filled, dtype=np.int64).reshape(len(structure.samples), structure.bins, depth), 2, 0)


def _product(factors: Float64[Array, "factors samples channels"]) -> Float64[Array, "samples channels"]:
    """The product over the first axis, by logarithms: a sum has a shorter Hessian than a chain of products.

    A factor of exactly zero, where the polynomial of code 4 crosses from plus to minus, is the only one that this
    cannot differentiate; it is moved off zero by less than anything can notice.
    """
    xp = namespace(factors)
    size = xp.maximum(xp.abs(factors), np.finfo(np.float64).tiny)
    return xp.prod(xp.sign(constant(factors)), axis=0) * xp.exp(xp.sum(xp.log(size), axis=0))
