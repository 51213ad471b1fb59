"""Templates to the numbers of a HistFactory model, as cabinetry does it, but traced.

Every two-sided variation becomes a `normsys` (its change of the yield in a region) and a `histosys` (what is left
of its shape) of the same name, that is, one nuisance parameter. A one-sided variation is normalised first and mirrored
then: κ− = 2 − κ+, shape− = 2·nominal − shape+ (cabinetry `templates/postprocessor`, `workspace.get_NormPlusShape_modifiers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64

from pipeline.histfactory import Numbers, Structure, modifiers_of, neutral_numbers
from pipeline.templates import Templates, effective_events

__all__ = ["Channel", "Measurement", "Nuisance", "numbers", "skeleton", "well_populated"]

SMALLEST_FACTOR = 0.01
"""κ is kept above this: at κ ≤ 0 HistFactory's exponential interpolation has no value (pyhf returns NaN)."""


@dataclass(frozen=True)
class Channel:
    """A region as a HistFactory channel; its bins stand at `offset` on the joint axis of the templates."""

    name: str
    bins: int
    offset: int


@dataclass(frozen=True)
class Nuisance:
    """A constrained nuisance parameter, acting on some processes.

    `up` and `down` number variations of the templates; without `down` the up variation is mirrored. A `size`
    stands for a fixed relative change of the yield.
    """

    name: str
    processes: tuple[int, ...]
    up: int | None = None
    down: int | None = None
    size: float | None = None


@dataclass(frozen=True)
class Measurement:
    """The static part: names, and which variation belongs to which parameter. `processes` are sample names.

    A bin with fewer effective simulated background events than `minimum_effective_events` is not used.
    """

    name: str
    poi: str
    channels: tuple[Channel, ...]
    processes: tuple[str, ...]
    free: tuple[tuple[str, int], ...]
    nuisances: tuple[Nuisance, ...]
    bounds: tuple[float, float]
    minimum_effective_events: float


def skeleton(measurement: Measurement) -> dict[str, Any]:
    """A pyhf workspace of the right structure whose numbers are placeholders: pyhf reads the wiring from it."""

    def modifiers(process: int, channel: Channel) -> list[dict[str, Any]]:
        ones = [1.0] * channel.bins
        free = [{"name": n, "type": "normfactor", "data": None} for n, scaled in measurement.free if scaled == process]
        constrained: list[dict[str, Any]] = []
        for nuisance in measurement.nuisances:
            if process in nuisance.processes:
                constrained.append({"name": nuisance.name, "type": "normsys", "data": {"hi": 1.0, "lo": 1.0}})
                if nuisance.up is not None:
                    shape = {"hi_data": ones, "lo_data": ones}
                    constrained.append({"name": nuisance.name, "type": "histosys", "data": shape})
        return [*free, *constrained, {"name": _staterror(channel), "type": "staterror", "data": ones}]

    return {
        "version": "1.0.0",
        "channels": [
            {
                "name": channel.name,
                "samples": [
                    {"name": name, "data": [1.0] * channel.bins, "modifiers": modifiers(process, channel)}
                    for process, name in enumerate(measurement.processes)
                ],
            }
            for channel in measurement.channels
        ],
        "measurements": [
            {
                "name": measurement.name,
                "config": {
                    "poi": measurement.poi,
                    "parameters": [
                        {"name": name, "inits": [1.0], "bounds": [list(measurement.bounds)]}
                        for name in dict.fromkeys(name for name, _ in measurement.free)
                    ],
                },
            }
        ],
        "observations": [{"name": channel.name, "data": [1.0] * channel.bins} for channel in measurement.channels],
    }


def numbers(measurement: Measurement, structure: Structure, templates: Templates) -> Numbers:
    """The traced numbers of the model; `structure` is that of `skeleton(measurement)`."""
    order = _Order(measurement, structure)
    nominal = templates.yields[0]
    empty = neutral_numbers(structure)
    normsys_lo, normsys_hi = empty.normsys_lo, empty.normsys_hi
    histosys_lo = histosys_hi = jnp.broadcast_to(order(nominal), empty.histosys_lo.shape)
    norm_rows = {modifier.name: row for row, modifier in enumerate(modifiers_of(structure, "normsys"))}
    shape_rows = {modifier.name: row for row, modifier in enumerate(modifiers_of(structure, "histosys"))}
    for nuisance in measurement.nuisances:
        row = norm_rows[nuisance.name]
        if nuisance.up is None:
            normsys_hi = normsys_hi.at[row].set(1.0 + _size(nuisance))
            normsys_lo = normsys_lo.at[row].set(1.0 - _size(nuisance))
            continue
        factors, shapes = _two_sided(measurement, templates, nuisance)
        normsys_lo = normsys_lo.at[row].set(order.channels(factors[0]))
        normsys_hi = normsys_hi.at[row].set(order.channels(factors[1]))
        histosys_lo = histosys_lo.at[shape_rows[nuisance.name]].set(order(shapes[0]))
        histosys_hi = histosys_hi.at[shape_rows[nuisance.name]].set(order(shapes[1]))
    return Numbers(
        nominal=order(nominal),
        normsys_lo=normsys_lo,
        normsys_hi=normsys_hi,
        histosys_lo=histosys_lo,
        histosys_hi=histosys_hi,
        staterror=_root(order(templates.variance)),
        shapesys=empty.shapesys,
        constraint_width=empty.constraint_width,
    )


class _Order:
    """Reorders (processes, bins) of the templates to (samples, bins) of the structure, which pyhf sorts by name."""

    def __init__(self, measurement: Measurement, structure: Structure) -> None:
        by_name = {channel.name: n for n, channel in enumerate(measurement.channels)}
        self._channels = np.array([by_name[channel.name] for channel in structure.channels])
        channels = [measurement.channels[n] for n in self._channels]
        self._bins = np.concatenate([channel.offset + np.arange(channel.bins) for channel in channels])
        self._samples = np.array([measurement.processes.index(sample) for sample in structure.samples])

    def __call__(self, values: Float64[Array, "processes bins"]) -> Float64[Array, "samples bins"]:
        return values[self._samples][:, self._bins]

    def channels(self, values: Float64[Array, "processes channels"]) -> Float64[Array, "samples channels"]:
        return values[self._samples][:, self._channels]


def well_populated(measurement: Measurement, templates: Templates) -> Bool[Array, " bins"]:
    """The bins that are used: those with enough simulated background events to know what is expected there.

    An optimiser finds bins without simulated background, where the significance is infinite and means nothing; a
    statistical error does not help, because an empty bin has none. Such bins are left out of the likelihood.
    """
    signal = {process for name, process in measurement.free if name == measurement.poi}
    background = [process for process in range(len(measurement.processes)) if process not in signal]
    return effective_events(templates, background) >= measurement.minimum_effective_events


def _two_sided(
    measurement: Measurement, templates: Templates, nuisance: Nuisance
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """((κ−, κ+), (shape−, shape+)) of a nuisance, for all processes, whether it acts on them or not."""
    nominal, up = templates.yields[0], templates.yields[nuisance.up]
    factor_up, shape_up = _normalised(measurement, nominal, up)
    if nuisance.down is None:
        return (_bounded(2.0 - factor_up), factor_up), (2.0 * nominal - shape_up, shape_up)
    factor_down, shape_down = _normalised(measurement, nominal, templates.yields[nuisance.down])
    return (factor_down, factor_up), (shape_down, shape_up)


def _normalised(
    measurement: Measurement, nominal: Float64[Array, "processes bins"], varied: Float64[Array, "processes bins"]
) -> tuple[Float64[Array, "processes channels"], Float64[Array, "processes bins"]]:
    """κ = Σ varied / Σ nominal in each channel, and varied / κ; neutral where either sum is not positive."""
    factors, shapes = [], []
    for channel in measurement.channels:
        bins = slice(channel.offset, channel.offset + channel.bins)
        total, total_varied = nominal[:, bins].sum(axis=1), varied[:, bins].sum(axis=1)
        usable = (total > 0) & (total_varied > 0)
        factor = jnp.where(usable, total_varied, 1.0) / jnp.where(usable, total, 1.0)
        factors.append(_bounded(factor))
        shapes.append(jnp.where(usable[:, None], varied[:, bins] / factor[:, None], nominal[:, bins]))
    order = np.argsort([channel.offset for channel in measurement.channels])
    return jnp.stack(factors, axis=1), jnp.concatenate([shapes[n] for n in order], axis=1)


def _bounded(factor: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    return jnp.maximum(factor, SMALLEST_FACTOR)


def _root(variance: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """sqrt with derivative 0 at 0: an empty bin has no error and no gradient of it."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _size(nuisance: Nuisance) -> float:
    if nuisance.size is None:
        raise ValueError(f"nuisance parameter '{nuisance.name}' has neither templates nor a size")
    return nuisance.size


def _staterror(channel: Channel) -> str:
    """cabinetry's name of the parameter set."""
    return f"staterror_{channel.name.replace(' ', '-')}"
