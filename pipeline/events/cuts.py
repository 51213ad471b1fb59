"""Named cuts, the objects and events they select, and regions.

Thresholds are a dict keyed by cut name; everything else about a selection is static. Comparisons are strict and made in
float32, the precision of the data: |eta| = float32(2.1) fails |eta| < 2.1, as it does in the AGC under NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Int32, UInt32

from pipeline.events.flux import boundary_flux, kernel_integral

__all__ = [
    "Count",
    "Cut",
    "Region",
    "Selection",
    "Thresholds",
    "arrays",
    "count_bits",
    "cut_flux",
    "in_region",
    "pass_probability",
    "passes",
    "present",
    "within",
]

Thresholds = dict[str, Float[Array, ""]]
"""One scalar a cut, keyed by the name of the cut, in the cut's own unit."""


@dataclass(frozen=True)
class Cut:
    """`variable > threshold` (keep above) or `< threshold` (keep below) on one or several kinds of objects."""

    name: str
    objects: tuple[str, ...]
    variable: str
    keep: Literal["above", "below"]
    absolute: bool = False
    regions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Count:
    """How many objects are asked for, both ends included."""

    minimum: int
    maximum: int | None = None


@dataclass(frozen=True)
class Region:
    """A region and its observable. Its bins stand at `offset` … in the joint axis of all regions.

    `observable` is any event-level variable: one that the selected jets make, or one of the file.
    `edges` names the thresholds that move the bin edges: none, or the first and the last edge, or each of them
    (`pipeline.events.bin_edges`).
    """

    name: str
    jets: Count
    btags: Count
    observable: str
    bins: int
    offset: int
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The static part of the analysis: what is cut on and which regions there are."""

    cuts: tuple[Cut, ...]
    leptons: Count
    regions: tuple[Region, ...]

    def on(self, kind: str) -> tuple[Cut, ...]:
        """The cuts on one kind of object: electron, muon, jet, bjet or event."""
        return tuple(cut for cut in self.cuts if kind in cut.objects)

    @property
    def bins(self) -> int:
        """Bins of all regions together."""
        return sum(region.bins for region in self.regions)


def arrays(values: Mapping[str, float]) -> Thresholds:
    """Thresholds, or bandwidths, as the analysis takes them: float64, so that a new value compiles nothing again."""
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}


def passes(
    cuts: tuple[Cut, ...], thresholds: Thresholds, columns: dict[str, Float32[Array, "*objects events"]]
) -> dict[str, Bool[Array, "*objects events"]]:
    """For each cut, which objects pass it. Absent objects (NaN) pass none."""
    return {cut.name: _passes(cut, thresholds[cut.name], _values(cut, columns)) for cut in cuts}


def cut_flux(
    cuts: tuple[Cut, ...],
    thresholds: Thresholds,
    bandwidths: Thresholds,
    columns: dict[str, Float32[Array, "*objects events"]],
) -> dict[str, Float32[Array, "*objects events"]]:
    """For each cut with a bandwidth, the boundary flux of every object that passes all other cuts on it."""
    passed = passes(cuts, thresholds, columns)
    flux = {}
    for cut in cuts:
        if cut.name not in bandwidths:
            continue
        values = _values(cut, columns)
        others = present(columns)
        for other in cuts:
            if other.name != cut.name:
                others &= passed[other.name]
        threshold, bandwidth = _float32(thresholds[cut.name]), _float32(bandwidths[cut.name])
        above = passed[cut.name] if cut.keep == "above" else ~passed[cut.name]
        flux[cut.name] = boundary_flux(values, threshold, bandwidth, above, others)
    return flux


def pass_probability(
    cuts: tuple[Cut, ...],
    thresholds: Thresholds,
    bandwidths: Thresholds,
    columns: dict[str, Float32[Array, "*objects events"]],
) -> dict[str, Float64[Array, "*objects events"]]:
    """For each cut, the probability that an object passes it if its threshold is smeared with the kernel.

    A cut without a bandwidth is as sharp as ever: 0 or 1. Smeared thresholds stay in float64, so that the probability
    changes smoothly with them.
    """
    probability = {}
    for cut in cuts:
        values = _values(cut, columns)
        if cut.name in bandwidths:
            side = 1 if cut.keep == "above" else -1
            distance = side * (values.astype(jnp.float64) - thresholds[cut.name])
            probability[cut.name] = kernel_integral(distance, bandwidths[cut.name])
        else:
            probability[cut.name] = _passes(cut, thresholds[cut.name], values).astype(jnp.float64)
    return probability


def present(columns: dict[str, Float32[Array, "*objects events"]]) -> Bool[Array, "*objects events"]:
    """Which places hold an object: absent ones have no pt. Another variable may be NaN in an object that is there."""
    column = columns["pt"] if "pt" in columns else next(iter(columns.values()))
    return ~jnp.isnan(column)


def in_region(region: Region, jets: Int32[Array, " events"], btags: Int32[Array, " events"]) -> Bool[Array, " events"]:
    """Whether the counts of selected and of b-tagged jets put an event into the region."""
    return within(region.jets, jets) & within(region.btags, btags)


def count_bits(bits: UInt32[Array, " events"]) -> Int32[Array, " events"]:
    """Number of objects in each set."""
    return jnp.bitwise_count(bits).astype(jnp.int32)


def within(count: Count, number: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Whether a number of objects is one that is asked for."""
    enough = number >= count.minimum
    return enough if count.maximum is None else enough & (number <= count.maximum)


def _passes(cut: Cut, threshold: Float[Array, ""], values: Float32[Array, "*shape"]) -> Bool[Array, "*shape"]:
    return values > _float32(threshold) if cut.keep == "above" else values < _float32(threshold)


def _values(cut: Cut, columns: dict[str, Float32[Array, "*objects events"]]) -> Float32[Array, "*objects events"]:
    values = columns[cut.variable]
    return jnp.abs(values) if cut.absolute else values


def _float32(value: Float[Array, ""]) -> Float32[Array, ""]:
    return jnp.asarray(value, jnp.float32)
