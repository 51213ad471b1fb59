"""Templates to the numbers of a HistFactory model, as cabinetry does it, but traced.

Every two-sided variation becomes a `normsys` (its change of the yield in a region) and a `histosys` (what is left
of its shape) of the same name, that is, one nuisance parameter. A one-sided variation is normalised first and mirrored
then: κ− = 2 − κ+, shape− = 2·nominal − shape+ (cabinetry `templates/postprocessor`,
`workspace.get_NormPlusShape_modifiers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Int32

from pipeline.inference.histfactory import Numbers, Structure, modifiers_of, neutral_numbers
from pipeline.inference.templates import Templates, populated_bins

__all__ = ["Channel", "Measurement", "Nuisance", "merged_bins", "numbers", "pseudodata", "skeleton"]

Positions = Int[np.ndarray, "..."]
"""Host-side indices."""

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

    A bin with fewer effective simulated background events than `minimum_effective_events`, or with fewer expected ones
    than `minimum_background`, is merged with its neighbour.
    `pseudodata` are shares of templates, (variation, process, share); without any, the data are what is expected.
    """

    name: str
    poi: str
    channels: tuple[Channel, ...]
    processes: tuple[str, ...]
    free: tuple[tuple[str, int], ...]
    nuisances: tuple[Nuisance, ...]
    bounds: tuple[float, float]
    minimum_effective_events: float
    minimum_background: float = 0.0
    pseudodata: tuple[tuple[int, int, float], ...] = ()

    @property
    def merges(self) -> bool:
        """Whether there is a minimum."""
        return self.minimum_effective_events > 0 or self.minimum_background > 0


def skeleton(measurement: Measurement) -> dict[str, Any]:
    """A pyhf workspace of the right structure whose numbers are placeholders: pyhf reads the wiring from it."""

    def modifiers(process: int, channel: Channel) -> list[dict[str, Any]]:
        ones = [1.0] * channel.bins
        free = [{"name": n, "type": "normfactor", "data": None} for n, scaled in measurement.free if scaled == process]
        constrained: list[dict[str, Any]] = []
        for nuisance in measurement.nuisances:
            if process in nuisance.processes:
                constrained.append({"name": nuisance.name, "type": "normsys", "data": {"hi": 1.0, "lo": 1.0}})
                if nuisance.up is not None and channel.bins > 1:  # one bin has no shape; cabinetry writes none either
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
    """The traced numbers of the model; `structure` is that of `skeleton(measurement)`.

    Factors and shapes are made for all variations at once and then sorted into the rows of the structure.
    """
    samples, bins, channels = _order(measurement, structure)
    by_name = {nuisance.name: nuisance for nuisance in measurement.nuisances}
    scales = [by_name[modifier.name] for modifier in modifiers_of(structure, "normsys")]
    shifts = [by_name[modifier.name] for modifier in modifiers_of(structure, "histosys")]
    nominal = templates.yields[0]
    factors, shapes = _factors_and_shapes(measurement, templates)
    hi, lo = _factors_of(scales, factors)
    up, down = _shapes_of(shifts, shapes, nominal)
    empty = neutral_numbers(structure)
    return Numbers(
        nominal=nominal[samples][:, bins],
        normsys_lo=lo[:, samples][:, :, channels],
        normsys_hi=hi[:, samples][:, :, channels],
        histosys_lo=down[:, samples][:, :, bins],
        histosys_hi=up[:, samples][:, :, bins],
        staterror=_root(templates.variance)[samples][:, bins],
        shapesys=empty.shapesys,
        constraint_width=empty.constraint_width,
    )


def pseudodata(measurement: Measurement, structure: Structure, templates: Templates) -> Float64[Array, " bins"]:
    """What the analysis observes if nature is as the measurement's pseudo-data say, bins in the order of the structure.

    The AGC fits ½ (ME variation + PS variation) of ttbar plus the nominal W+jets template (its `construct_pseudodata`).
    """
    _, bins, _ = _order(measurement, structure)
    parts = [share * templates.yields[variation, process] for variation, process, share in measurement.pseudodata]
    return jnp.sum(jnp.stack(parts), axis=0)[bins]


def merged_bins(measurement: Measurement, templates: Templates) -> Int32[Array, " bins"]:
    """Which bin each bin is merged into, so that the simulated background of every bin in use is known.

    An optimiser finds bins without simulated background, where the significance is infinite and means nothing; a
    statistical error does not help, because an empty bin has none. So a bin with too few effective background events
    is merged with its neighbours, as one does by hand, before the likelihood sees it.
    """
    signal = {process for name, process in measurement.free if name == measurement.poi}
    background = np.array([process for process in range(len(measurement.processes)) if process not in signal])
    yields, variance = templates.yields[0][background].sum(axis=0), templates.variance[background].sum(axis=0)
    into = []
    for channel in measurement.channels:
        bins = slice(channel.offset, channel.offset + channel.bins)
        least = (measurement.minimum_effective_events, measurement.minimum_background)
        into.append(populated_bins(yields[bins], variance[bins], *least, channel.offset))
    order = np.argsort([channel.offset for channel in measurement.channels])
    return jnp.concatenate([into[number] for number in order])


def _order(measurement: Measurement, structure: Structure) -> tuple[Positions, Positions, Positions]:
    """Where samples, bins and channels of the structure, which pyhf sorts by name, are in the templates."""
    by_name = {channel.name: number for number, channel in enumerate(measurement.channels)}
    channels = np.array([by_name[channel.name] for channel in structure.channels])
    bins = [measurement.channels[c].offset + np.arange(measurement.channels[c].bins) for c in channels]
    samples = np.array([measurement.processes.index(sample) for sample in structure.samples])
    return samples, np.concatenate(bins), channels


def _factors_and_shapes(
    measurement: Measurement, templates: Templates
) -> tuple[Float64[Array, "variations processes channels"], Float64[Array, "variations processes bins"]]:
    """κ = Σ varied / Σ nominal in each channel, and the varied template over κ; neutral where a sum is not positive."""
    inside = np.zeros((templates.yields.shape[2], len(measurement.channels)))
    for number, channel in enumerate(measurement.channels):
        inside[channel.offset : channel.offset + channel.bins, number] = 1
    totals = templates.yields @ inside
    usable = (totals > 0) & (totals[:1] > 0)
    factors = _bounded(jnp.where(usable, totals, 1.0) / jnp.where(usable, totals[:1], 1.0))
    shapes = templates.yields / (factors @ inside.T)
    return factors, jnp.where((usable.astype(jnp.float64) @ inside.T) > 0, shapes, templates.yields[:1])


def _factors_of(
    nuisances: Sequence[Nuisance], factors: Float64[Array, "variations processes channels"]
) -> tuple[Float64[Array, "normsys processes channels"], Float64[Array, "normsys processes channels"]]:
    """(high, low) of each nuisance: from templates, mirrored where there is no down variation, or of a fixed size."""
    if not nuisances:
        nothing = jnp.zeros((0, *factors.shape[1:]), jnp.float64)
        return nothing, nothing
    high = factors[np.array([nuisance.up or 0 for nuisance in nuisances])]
    low = factors[np.array([nuisance.down or 0 for nuisance in nuisances])]
    size = np.array([nuisance.size or 0.0 for nuisance in nuisances])[:, None, None]
    fixed = np.array([nuisance.up is None for nuisance in nuisances])[:, None, None]
    mirrored = np.array([nuisance.down is None for nuisance in nuisances])[:, None, None]
    high = jnp.where(fixed, 1.0 + size, high)
    return high, jnp.where(fixed, 1.0 - size, jnp.where(mirrored, _bounded(2.0 - high), low))


def _shapes_of(
    nuisances: Sequence[Nuisance],
    shapes: Float64[Array, "variations processes bins"],
    nominal: Float64[Array, "processes bins"],
) -> tuple[Float64[Array, "histosys processes bins"], Float64[Array, "histosys processes bins"]]:
    """(high, low) of each nuisance with templates."""
    if not nuisances:
        nothing = jnp.zeros((0, *nominal.shape), jnp.float64)
        return nothing, nothing
    up = shapes[np.array([nuisance.up or 0 for nuisance in nuisances])]
    down = shapes[np.array([nuisance.down or 0 for nuisance in nuisances])]
    mirrored = np.array([nuisance.down is None for nuisance in nuisances])[:, None, None]
    return up, jnp.where(mirrored, 2.0 * nominal[None] - up, down)


def _bounded(factor: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    return jnp.maximum(factor, SMALLEST_FACTOR)


def _root(variance: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Sqrt with derivative 0 at 0: an empty bin has no error and no gradient of it."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _staterror(channel: Channel) -> str:
    """Cabinetry's name of the parameter set."""
    return f"staterror_{channel.name.replace(' ', '-')}"
