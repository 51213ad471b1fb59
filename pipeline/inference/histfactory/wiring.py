"""Which parameter of a model acts where, as the closed form of its derivatives (`expansion`) needs it."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from pipeline.inference.histfactory.model import Structure, channel_of_bins, first_parameter, modifiers_of, target_table
from pipeline.inference.histfactory.modifiers import bin_table, parameter_of_bins

__all__ = ["Wiring", "wiring_of"]


class Wiring(NamedTuple):
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


@lru_cache(maxsize=64)
def wiring_of(structure: Structure) -> Wiring:
    """The wiring of a structure."""
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
    return Wiring(
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
