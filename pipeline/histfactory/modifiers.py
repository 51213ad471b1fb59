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
from jaxtyping import Array, Bool, Float64, Int

from pipeline.histfactory.interpolation import NormsysCurve, histosys_weights, normsys_curve, normsys_factor
from pipeline.histfactory.model import (
    Modifier,
    ModifierKind,
    Numbers,
    Structure,
    channel_of_bins,
    first_parameter,
    modifiers_of,
    target_table,
)

__all__ = ["Effects", "bin_table", "effects", "parameter_of_bins", "rates"]


class Effects(eqx.Module):
    """The part of expected events that does not depend on the parameters; computed once for a fit.

    Attributes:
        nominal: expected events.
        shift_up: histosys, high minus nominal; 0 where the modifier does not act.
        shift_down: histosys, nominal minus low.
        normsys: the normsys curves; a factor of 1 where the modifier does not act.
    """

    _: KW_ONLY
    nominal: Float64[Array, "samples bins"]
    shift_up: Float64[Array, "histosys samples bins"]
    shift_down: Float64[Array, "histosys samples bins"]
    normsys: NormsysCurve


def effects(structure: Structure, numbers: Numbers) -> Effects:
    """Prepare the numbers of a model for many evaluations."""
    acts = _tables(structure, "histosys")[:, :, channel_of_bins(structure)]
    scales = _tables(structure, "normsys")
    return Effects(
        nominal=numbers.nominal,
        shift_up=jnp.where(acts, numbers.histosys_hi - numbers.nominal[None], 0.0),
        shift_down=jnp.where(acts, numbers.nominal[None] - numbers.histosys_lo, 0.0),
        normsys=normsys_curve(
            structure.normsys_code,
            jnp.where(scales, numbers.normsys_lo, 1.0),
            jnp.where(scales, numbers.normsys_hi, 1.0),
        ),
    )


def rates(structure: Structure, effects: Effects, parameters: Float64[Array, " parameters"]) -> Float64[Array, " bins"]:
    """Expected events in every bin."""
    up, down = histosys_weights(structure.histosys_code, parameters[_scalar_positions(structure, "histosys")])
    shifted = effects.nominal + jnp.tensordot(up, effects.shift_up, 1) + jnp.tensordot(down, effects.shift_down, 1)
    normsys = _product(normsys_factor(effects.normsys, parameters[_scalar_positions(structure, "normsys")]))
    with_one = jnp.concatenate([parameters, jnp.ones(1, jnp.float64)])
    direct = _product(with_one[_direct_positions(structure)])
    return jnp.sum(shifted * normsys[:, channel_of_bins(structure)] * direct, axis=0)


def parameter_of_bins(structure: Structure, modifier: Modifier) -> Int[np.ndarray, " bins"]:
    """Which parameter a modifier with a parameter for each bin uses in each bin; -1 in channels it does not touch.

    A staterror or shapesys counts its parameters through its channels; a shapefactor starts again in each channel.
    """
    channels = channel_of_bins(structure)
    touched = target_table(structure, modifier).any(axis=0)[channels]
    if modifier.kind == "shapefactor":
        within = np.concatenate([np.arange(channel.bins) for channel in structure.channels])
    else:
        within = np.cumsum(touched) - 1
    return np.where(touched, first_parameter(structure)[modifier.name] + within, -1)


def bin_table(structure: Structure, modifier: Modifier) -> Bool[np.ndarray, "samples bins"]:
    """Where a modifier acts, bin by bin."""
    return target_table(structure, modifier)[:, channel_of_bins(structure)]


def _tables(structure: Structure, kind: ModifierKind) -> Bool[np.ndarray, "modifiers samples channels"]:
    tables = [target_table(structure, modifier) for modifier in modifiers_of(structure, kind)]
    return np.array(tables, dtype=bool).reshape(-1, len(structure.samples), len(structure.channels))


def _scalar_positions(structure: Structure, kind: ModifierKind) -> Int[np.ndarray, " modifiers"]:
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


def _product(factors: Float64[Array, "factors samples columns"]) -> Float64[Array, "samples columns"]:
    """The product over the first axis, by halves: plain multiplications, whose derivatives are exact also at zero."""
    while len(factors) > 1:
        half, odd = divmod(len(factors), 2)
        factors = (
            jnp.concatenate([factors[:half] * factors[half : 2 * half], factors[2 * half :]])
            if odd
            else (factors[:half] * factors[half:])
        )
    return factors[0] if len(factors) else jnp.ones(factors.shape[1:], jnp.float64)
