"""Templates to the numbers of a HistFactory model, as cabinetry does it, but traced.

Every two-sided variation becomes a `normsys` (its change of the yield in a region) and a `histosys` (what is left
of its shape) of the same name, that is, one nuisance parameter. A one-sided variation is normalised first and mirrored
then: κ− = 2 − κ+, shape− = 2·nominal − shape+ (cabinetry `templates/postprocessor`,
`workspace.get_NormPlusShape_modifiers`). A nuisance parameter that is not `split` keeps its varied templates as they
are, yield and shape together, in a `histosys` alone: linear in the yield, where a normsys is exponential.

The finite number of simulated events is constrained in one of two ways, or not at all ('none'). 'gaussian': one
`staterror` in each bin for the total of all processes (Barlow and Beeston as Conway simplified it, arXiv:1103.0354),
pyhf's and cabinetry's. 'poisson': one `shapesys` for each process and bin (Barlow and Beeston, Comput. Phys. Commun. 77
(1993) 219), which counts τ = (Σw)²/Σw² effective events: what ROOT and Combine do where few events were simulated. pyhf
allows a Poisson constraint to no more than one sample, so there is none for the total.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Int32
from numpy.typing import NDArray

from pipeline.inference.histfactory import Numbers, Structure, modifiers_of, neutral_numbers
from pipeline.inference.templates import Templates, merge_bins, populated_bins

__all__ = [
    "Channel",
    "Measurement",
    "Nuisance",
    "factors_and_shapes",
    "in_merged_bins",
    "merged_bins",
    "numbers",
    "observations",
    "pseudodata",
    "skeleton",
    "within_channels",
]

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
    """A constrained nuisance parameter, acting on some processes in some channels; in all of them without `channels`.

    `up` and `down` number variations of the templates; without `down` the up variation is mirrored. `sizes` stand for
    fixed relative changes of the yield, up and down. Several with one name are one parameter: what they say of
    different processes or channels is fully correlated. `split`: templates become a normsys and a histosys, not a
    histosys alone.
    """

    name: str
    processes: tuple[int, ...]
    up: int | None = None
    down: int | None = None
    sizes: tuple[float, float] | None = None
    channels: tuple[str, ...] | None = None
    split: bool = True

    @property
    def scales(self) -> bool:
        """Whether there is a factor on the yield."""
        return self.split or self.up is None

    def acts_on(self, process: int, channel: "Channel") -> bool:
        """Whether it changes a process in a channel."""
        return process in self.processes and (self.channels is None or channel.name in self.channels)


@dataclass(frozen=True)
class Measurement:
    """The static part: names, and which variation belongs to which parameter. `processes` are sample names.

    A bin with fewer effective simulated background events than `minimum_effective_events`, or with fewer expected ones
    than `minimum_background`, is merged with its neighbour.
    `pseudodata` are shares of templates, (variation, process, share); without any, the data are what is expected.
    `mc_statistics` is the constraint of the finite number of simulated events. `smoothing`, `pruning` and
    `variation_errors` say what is done about that of the varied templates (`pipeline.inference.varied`).
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
    mc_statistics: Literal["gaussian", "poisson", "none"] = "gaussian"
    smoothing: float = 0.0
    pruning: float = 0.0
    variation_errors: bool = False

    @property
    def treats_variations(self) -> bool:
        """Whether anything is done about their noise."""
        return self.smoothing > 0 or self.pruning > 0 or self.variation_errors

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
            if nuisance.acts_on(process, channel):
                if nuisance.scales:
                    constrained.append({"name": nuisance.name, "type": "normsys", "data": {"hi": 1.0, "lo": 1.0}})
                # One bin has no shape; cabinetry writes none either.
                if nuisance.up is not None and (channel.bins > 1 or not nuisance.split):
                    shape = {"hi_data": ones, "lo_data": ones}
                    constrained.append({"name": nuisance.name, "type": "histosys", "data": shape})
        counted = {
            "poisson": [{"name": _shapesys(channel, measurement.processes[process]), "type": "shapesys", "data": ones}],
            "gaussian": [{"name": _staterror(channel), "type": "staterror", "data": ones}],
            "none": [],
        }
        return [*free, *constrained, *counted[measurement.mc_statistics]]

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
    scales = _wiring(measurement, [modifier.name for modifier in modifiers_of(structure, "normsys")])
    shifts = _wiring(measurement, [modifier.name for modifier in modifiers_of(structure, "histosys")])
    nominal = templates.yields[0]
    factors, shapes = factors_and_shapes(measurement, templates)
    hi, lo = _factors_of(scales, factors)
    up, down = _shapes_of(shifts, _channel_of_bins(measurement), shapes, templates.yields)
    empty = neutral_numbers(structure)
    uncertainty = _root(templates.variance)[samples][:, bins]
    counted = [structure.samples.index(modifier.targets[0][1]) for modifier in modifiers_of(structure, "shapesys")]
    return Numbers(
        nominal=nominal[samples][:, bins],
        normsys_lo=lo[:, samples][:, :, channels],
        normsys_hi=hi[:, samples][:, :, channels],
        histosys_lo=down[:, samples][:, :, bins],
        histosys_hi=up[:, samples][:, :, bins],
        staterror=uncertainty,
        shapesys=uncertainty[np.array(counted, dtype=int)],
        constraint_width=empty.constraint_width,
    )


def pseudodata(measurement: Measurement, structure: Structure, templates: Templates) -> Float64[Array, " bins"]:
    """What the analysis observes if nature is as the measurement's pseudo-data say, bins in the order of the structure.

    The AGC fits ½ (ME variation + PS variation) of ttbar plus the nominal W+jets template (its `construct_pseudodata`).
    """
    parts = [share * templates.yields[variation, process] for variation, process, share in measurement.pseudodata]
    return observations(measurement, structure, jnp.sum(jnp.stack(parts), axis=0))


def observations(
    measurement: Measurement, structure: Structure, counts: Float64[Array, " bins"]
) -> Float64[Array, " bins"]:
    """Counts of the joint axis of bins in the order of the structure."""
    return counts[_order(measurement, structure)[1]]


def in_merged_bins(measurement: Measurement, templates: Templates) -> Templates:
    """What the likelihood sees: the templates with bins merged where the simulated background is thin."""
    return merge_bins(templates, merged_bins(measurement, templates)) if measurement.merges else templates


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


def within_channels(channels: Sequence[Channel]) -> Float64[np.ndarray, "bins channels"]:
    """1 where a bin of the joint axis belongs to a channel, else 0: sums over channels are products with it."""
    inside = np.zeros((sum(channel.bins for channel in channels), len(channels)))
    for number, channel in enumerate(channels):
        inside[channel.offset : channel.offset + channel.bins, number] = 1
    return inside


def factors_and_shapes(
    measurement: Measurement, templates: Templates
) -> tuple[Float64[Array, "variations processes channels"], Float64[Array, "variations processes bins"]]:
    """κ = Σ varied / Σ nominal in each channel, and the varied template over κ; neutral where a sum is not positive."""
    inside = within_channels(measurement.channels)
    totals = templates.yields @ inside
    usable = (totals > 0) & (totals[:1] > 0)
    factors = _bounded(jnp.where(usable, totals, 1.0) / jnp.where(usable, totals[:1], 1.0))
    shapes = templates.yields / (factors @ inside.T)
    return factors, jnp.where((usable.astype(jnp.float64) @ inside.T) > 0, shapes, templates.yields[:1])


class _Wiring(NamedTuple):
    """Where each nuisance parameter takes its templates from, for each process and channel; 0 is the nominal one."""

    up: Positions
    down: Positions
    mirrored: NDArray[np.bool_]
    sizes: NDArray[np.float64]
    fixed: NDArray[np.bool_]
    whole: NDArray[np.bool_]


def _wiring(measurement: Measurement, names: Sequence[str]) -> _Wiring:
    """Of the parameters of these names; arrays of shape "nuisances processes channels"."""
    shape = (len(names), len(measurement.processes), len(measurement.channels))
    up, down = np.zeros(shape, int), np.zeros(shape, int)
    mirrored, fixed, whole = (np.zeros(shape, bool) for _ in range(3))
    sizes = np.zeros((2, *shape))
    for nuisance in measurement.nuisances:
        for process in nuisance.processes:
            for number, channel in enumerate(measurement.channels):
                if nuisance.name not in names or not nuisance.acts_on(process, channel):
                    continue
                place = names.index(nuisance.name), process, number
                up[place], down[place] = nuisance.up or 0, nuisance.down or 0
                mirrored[place], fixed[place] = nuisance.down is None, nuisance.up is None
                whole[place] = not nuisance.scales
                sizes[(slice(None), *place)] = nuisance.sizes or (0.0, 0.0)
    return _Wiring(up, down, mirrored, sizes, fixed, whole)


def _factors_of(
    wiring: _Wiring, factors: Float64[Array, "variations processes channels"]
) -> tuple[Float64[Array, "normsys processes channels"], Float64[Array, "normsys processes channels"]]:
    """(high, low) of each nuisance: from templates, mirrored where there is no down variation, or of fixed sizes."""
    process, channel = np.indices(wiring.up.shape)[1:]
    high, low = factors[wiring.up, process, channel], factors[wiring.down, process, channel]
    low = jnp.where(wiring.mirrored, _bounded(2.0 - high), low)
    high, low = (jnp.where(wiring.whole, 1.0, factor) for factor in (high, low))
    return (
        jnp.where(wiring.fixed, 1.0 + wiring.sizes[0], high),
        jnp.where(wiring.fixed, 1.0 + wiring.sizes[1], low),
    )


def _shapes_of(
    wiring: _Wiring,
    channel_of_bins: Positions,
    shapes: Float64[Array, "variations processes bins"],
    yields: Float64[Array, "variations processes bins"],
) -> tuple[Float64[Array, "histosys processes bins"], Float64[Array, "histosys processes bins"]]:
    """(high, low) of each nuisance with templates."""
    process, bins = np.indices((len(wiring.up), *yields.shape[1:]))[1:]
    mirrored, whole = wiring.mirrored[:, :, channel_of_bins], wiring.whole[:, :, channel_of_bins]
    up, down = (
        jnp.where(whole, yields[rows, process, bins], shapes[rows, process, bins])
        for rows in (wiring.up[:, :, channel_of_bins], wiring.down[:, :, channel_of_bins])
    )
    return up, jnp.where(mirrored, 2.0 * yields[:1] - up, down)


def _channel_of_bins(measurement: Measurement) -> Positions:
    """Number of the channel of each bin of the joint axis."""
    channel_of = np.zeros(sum(channel.bins for channel in measurement.channels), int)
    for number, channel in enumerate(measurement.channels):
        channel_of[channel.offset : channel.offset + channel.bins] = number
    return channel_of


def _bounded(factor: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    return jnp.maximum(factor, SMALLEST_FACTOR)


def _root(variance: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Sqrt with derivative 0 at 0: an empty bin has no error and no gradient of it."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _staterror(channel: Channel) -> str:
    """Cabinetry's name of the parameter set."""
    return f"staterror_{channel.name.replace(' ', '-')}"


def _shapesys(channel: Channel, process: str) -> str:
    return f"mcstat_{channel.name}_{process}".replace(" ", "-")
