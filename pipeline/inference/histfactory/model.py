"""What a HistFactory model is made of: a static `Structure` and the `Numbers` that may be traced.

pyhf builds a model and its numbers in one go, so nothing of it can be differentiated. Here the two are apart.
`Structure` says which channels, samples, modifiers and parameters exist and how they are wired: tuples and strings,
hashable, a static argument of a compiled function. `Numbers` are the yields and uncertainties of the workspace, dense
float64 arrays: every derivative is taken with respect to them. Entries of `Numbers` that belong to no modifier of the
structure are never read.

Axes, everywhere in this package: `samples` and `channels` in pyhf's (sorted) order, `bins` of all channels one after
another, one row for each modifier of a kind in the order of `modifiers_of(structure, kind)`.
"""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property, lru_cache
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array

__all__ = [
    "Channel",
    "Modifier",
    "Numbers",
    "ParameterSet",
    "Structure",
    "channel_of_bins",
    "first_parameter",
    "modifiers_of",
    "neutral_numbers",
    "parameter_names",
    "target_table",
]

ModifierKind = Literal["normfactor", "shapefactor", "normsys", "histosys", "lumi", "shapesys", "staterror"]
ConstraintKind = Literal["none", "normal", "poisson"]
WidthSource = Literal["stated", "staterror", "shapesys"]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A region of the measurement and its number of bins."""

    name: str
    bins: int


@dataclass(frozen=True, kw_only=True)
class Modifier:
    """One modifier: the parameter set `name` acts as `kind` on each (channel, sample) of `targets`."""

    name: str
    kind: ModifierKind
    targets: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ParameterSet:
    """Parameters of one name: a scalar, or one for each bin.

    Attributes:
        name: pyhf's name of the set.
        scalar: whether the parameter is called `name`; otherwise `name[0]`, `name[1]`, ...
        constraint: the form of the auxiliary measurement, if there is one.
        initial: where a fit starts, one for each parameter.
        bounds: (lower, upper), one for each parameter.
        fixed: which parameters a fit holds at `initial`; `None` where it follows from the numbers: a staterror or
            shapesys parameter is held where its bin has no yield or no uncertainty.
        auxdata: the observed auxiliary data; `None` where they follow from the numbers (shapesys), empty without
            constraint.
        width: where the width of the constraint comes from: `Numbers.constraint_width`, or the bins' uncertainties.
    """

    name: str
    scalar: bool
    constraint: ConstraintKind
    initial: tuple[float, ...]
    bounds: tuple[tuple[float, float], ...]
    fixed: tuple[bool, ...] | None
    auxdata: tuple[float, ...] | None
    width: WidthSource = "stated"

    @property
    def size(self) -> int:
        """The number of parameters in the set."""
        return len(self.initial)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Everything about a model that is not a yield: static, hashable, the same for every point of an optimisation.

    Attributes:
        channels: in pyhf's order (sorted by name).
        samples: in pyhf's order (sorted by name, over all channels).
        modifiers: in pyhf's order (sorted by name, then kind).
        parameter_sets: in the order of pyhf's parameter vector.
        poi: name of the parameter of interest, if there is one.
        normsys_code: interpolation of normsys: 'code1' or 'code4'.
        histosys_code: interpolation of histosys: 'code0', 'code2' or 'code4p'.
    """

    channels: tuple[Channel, ...]
    samples: tuple[str, ...]
    modifiers: tuple[Modifier, ...]
    parameter_sets: tuple[ParameterSet, ...]
    poi: str | None
    normsys_code: Literal["code1", "code4"] = "code4"
    histosys_code: Literal["code0", "code2", "code4p"] = "code4p"

    def __hash__(self) -> int:
        """By its sizes: all that is compiled and every table is looked up by it, and the whole takes long to hash."""
        return hash((self.bins, self.size, len(self.modifiers), self.samples, self.poi))

    @cached_property
    def bins(self) -> int:
        """The number of bins of all channels together."""
        return sum(channel.bins for channel in self.channels)

    @cached_property
    def size(self) -> int:
        """The number of parameters."""
        return sum(parameter_set.size for parameter_set in self.parameter_sets)


class Numbers(eqx.Module):
    """The numbers of a workspace, as they stand in the JSON: what a template-making analysis produces.

    Attributes:
        nominal: expected events.
        normsys_lo: factor on the sample's yield at -1 sigma.
        normsys_hi: factor on the sample's yield at +1 sigma.
        histosys_lo: expected events at -1 sigma (absolute, not a difference).
        histosys_hi: expected events at +1 sigma.
        staterror: absolute statistical uncertainty of `nominal`. One table serves all staterror modifiers, each of
            which reads its own channels; with a leading axis, one table for each modifier.
        shapesys: absolute uncertainty in each bin. A shapesys acts on one sample in one channel, so there is no axis
            of samples.
        constraint_width: for every parameter the width of a Gaussian constraint (lumi) or the factor of a Poisson one,
            where the measurement states it; 1 everywhere else.
    """

    _: KW_ONLY
    nominal: Float64[Array, "samples bins"]
    normsys_lo: Float64[Array, "normsys samples channels"]
    normsys_hi: Float64[Array, "normsys samples channels"]
    histosys_lo: Float64[Array, "histosys samples bins"]
    histosys_hi: Float64[Array, "histosys samples bins"]
    staterror: Float64[Array, "*staterrors samples bins"]
    shapesys: Float64[Array, "shapesys bins"]
    constraint_width: Float64[Array, " parameters"]


def modifiers_of(structure: Structure, kind: ModifierKind) -> tuple[Modifier, ...]:
    """The modifiers of one kind, in the order of their rows in `Numbers`."""
    return tuple(modifier for modifier in structure.modifiers if modifier.kind == kind)


def parameter_names(structure: Structure) -> tuple[str, ...]:
    """Pyhf's name of every parameter: `name`, or `name[i]` in a set of several."""
    return tuple(
        parameter_set.name if parameter_set.scalar else f"{parameter_set.name}[{i}]"
        for parameter_set in structure.parameter_sets
        for i in range(parameter_set.size)
    )


@lru_cache(maxsize=64)
def first_parameter(structure: Structure) -> dict[str, int]:
    """The position of each parameter set's first parameter in the parameter vector."""
    sizes = [parameter_set.size for parameter_set in structure.parameter_sets]
    starts = np.cumsum([0, *sizes])[:-1]
    return {s.name: int(start) for s, start in zip(structure.parameter_sets, starts, strict=True)}


def channel_of_bins(structure: Structure) -> Int[np.ndarray, " bins"]:
    """The position of each bin's channel in `structure.channels`."""
    return np.repeat(np.arange(len(structure.channels)), [channel.bins for channel in structure.channels])


def target_table(structure: Structure, modifier: Modifier) -> Bool[np.ndarray, "samples channels"]:
    """Where a modifier acts."""
    channels = {channel.name: c for c, channel in enumerate(structure.channels)}
    samples = {sample: s for s, sample in enumerate(structure.samples)}
    table = np.zeros((len(samples), len(channels)), dtype=bool)
    for channel, sample in modifier.targets:
        table[samples[sample], channels[channel]] = True
    return table


def neutral_numbers(structure: Structure) -> Numbers:
    """Numbers of the right shapes in which nothing is expected and nothing varies: fill in what is known.

    Histosys templates are zero like the yields, so they must be replaced together with `nominal`.
    """
    samples, bins, channels = len(structure.samples), structure.bins, len(structure.channels)
    norms, histos = len(modifiers_of(structure, "normsys")), len(modifiers_of(structure, "histosys"))
    return Numbers(
        nominal=jnp.zeros((samples, bins), jnp.float64),
        normsys_lo=jnp.ones((norms, samples, channels), jnp.float64),
        normsys_hi=jnp.ones((norms, samples, channels), jnp.float64),
        histosys_lo=jnp.zeros((histos, samples, bins), jnp.float64),
        histosys_hi=jnp.zeros((histos, samples, bins), jnp.float64),
        staterror=jnp.zeros((samples, bins), jnp.float64),
        shapesys=jnp.zeros((len(modifiers_of(structure, "shapesys")), bins), jnp.float64),
        constraint_width=jnp.ones(structure.size, jnp.float64),
    )
