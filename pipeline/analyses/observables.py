"""Observables: pure functions of the jets of an event and of which of them are selected and b-tagged.

Whatever stands in `JET_OBSERVABLES` can be histogrammed in a region and cut on, under its name there.

The trijet is a search: with all trijets of an event sorted by transverse momentum once and for all, the one that the
analysis chooses is the first whose three jets are all selected and of which one is b-tagged. That is integer work on
bit masks.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32, UInt32

from pipeline.events.batch import Chunk

__all__ = [
    "JET_OBSERVABLES",
    "TRIJETS_AT_A_TIME",
    "TRIJET_OBSERVABLES",
    "first_trijet",
    "ht",
    "jet_observables",
    "leading_jet_pt",
    "ranked_pt",
]

JetColumns = dict[str, Float32[Array, "jets events"]]
"""The variables of the jets, under the names of the config; NaN where there is no jet."""

TRIJETS_AT_A_TIME = 5
"""Trijets in a block: each block has a price of its own, and the last one may look at too many. With five, an event of
five or seven jets has none too many, and most have no more jets."""


def ht(jets: JetColumns, selected: UInt32[Array, " events"]) -> Float32[Array, " events"]:
    """HT in GeV: scalar sum of the transverse momenta of the selected jets, added in stored order, in float32."""
    return jnp.sum(_of_selected(jets["pt"], selected), axis=0)


def leading_jet_pt(jets: JetColumns, selected: UInt32[Array, " events"]) -> Float32[Array, " events"]:
    """Largest transverse momentum of the selected jets in GeV; 0 where none is selected."""
    return jnp.max(_of_selected(jets["pt"], selected), axis=0)


JET_OBSERVABLES = {"ht": ht, "leading_jet_pt": leading_jet_pt}
"""Observables of the selected jets, by the name a config uses: to add one, write the function and name it here."""

TRIJET_OBSERVABLES = ("trijet_mass", "trijet_pt")
"""What `first_trijet` finds, in its order."""


def jet_observables(jets: JetColumns, selected: UInt32[Array, " events"]) -> dict[str, Float32[Array, " events"]]:
    """All of `JET_OBSERVABLES`; only those that somebody asks for are left in the compiled analysis."""
    return {name: observable(jets, selected) for name, observable in JET_OBSERVABLES.items()}


def ranked_pt(
    pt: Float32[Array, "jets events"], selected: UInt32[Array, " events"], ranks: int
) -> Float32[Array, "ranks events"]:
    """Transverse momentum of the first `ranks` selected jets in stored order (never sorted), 0 where absent.

    The rank of a jet is the number of selected ones before it. Taking the lowest bit off the set, again and again, does
    the same in fewer operations, but XLA repeats such a chain for every jet: the whole analysis took a third longer.
    """
    bits = jnp.uint32(1) << jnp.arange(pt.shape[0], dtype=jnp.uint32)[:, None]
    rank = jnp.bitwise_count(selected[None] & (bits - jnp.uint32(1)))[None]
    wanted = jnp.arange(ranks, dtype=rank.dtype)[:, None, None]
    return jnp.sum(jnp.where((rank == wanted) & (selected[None] & bits != 0)[None], pt[None], 0), axis=1)


def first_trijet(
    chunk: Chunk,
    selected: UInt32[Array, " rows"],
    btag: UInt32[Array, " rows"],
    event: Int32[Array, " rows"] | None = None,
) -> tuple[Float32[Array, " rows"], Float32[Array, " rows"]]:
    """(mass, pt) in GeV of the highest-pt trijet of selected jets with a b-tag; NaN where there is none.

    Trijets are visited from the softest to the hardest, a few at a time, and each admissible one replaces what was
    found before. For the events themselves nothing is looked up, everything streams (a look-up of the chosen one alone
    took longer). Rows that have to be gathered anyway look up mass and pt of the chosen one at the end: one gather a
    trijet instead of three.

    Args:
        chunk: the events.
        selected: selected jets.
        btag: jets that pass the b-tag cuts, selected or not.
        event: of each row, where the rows are not the events themselves: with different sets, one may have many.
    """
    tagged = selected & btag
    blocks = (chunk.trijets + (TRIJETS_AT_A_TIME - 1)) // TRIJETS_AT_A_TIME

    def ranks(done: Int[Array, ""]) -> list[Int32[Array, ""]]:
        block = blocks - 1 - done.astype(jnp.int32)
        return [block * TRIJETS_AT_A_TIME + number for number in reversed(range(TRIJETS_AT_A_TIME))]

    def admissible(jets: UInt32[Array, " rows"]) -> Bool[Array, " rows"]:
        return ((jets & ~selected) == 0) & ((jets & tagged) != 0)

    def streamed(
        done: Int[Array, ""], found: tuple[Float32[Array, " rows"], Float32[Array, " rows"]]
    ) -> tuple[Float32[Array, " rows"], Float32[Array, " rows"]]:
        found_mass, found_pt = found
        for rank in ranks(done):
            jets, mass, pt = chunk.trijet(rank)
            better = admissible(jets)
            found_mass, found_pt = jnp.where(better, mass, found_mass), jnp.where(better, pt, found_pt)
        return found_mass, found_pt

    def looked_up(done: Int[Array, ""], found: Int32[Array, " rows"]) -> Int32[Array, " rows"]:
        for rank in ranks(done):
            found = jnp.where(admissible(chunk.trijet(rank)[0][event]), rank, found)
        return found

    nothing = jnp.full(selected.shape, jnp.nan, jnp.float32)
    if event is None:
        return jax.lax.fori_loop(0, blocks, streamed, (nothing, nothing))
    rank = jax.lax.fori_loop(0, blocks, looked_up, jnp.full(selected.shape, -1, jnp.int32))
    mass, pt = chunk.trijet_of(rank, event)
    return jnp.where(rank < 0, nothing, mass), jnp.where(rank < 0, nothing, pt)


def _of_selected(
    column: Float32[Array, "jets events"], selected: UInt32[Array, " events"]
) -> Float32[Array, "jets events"]:
    """A variable of the jets in the set of each event; 0 for the others."""
    bits = jnp.uint32(1) << jnp.arange(column.shape[0], dtype=jnp.uint32)
    return jnp.where((selected[None] & bits[:, None]) != 0, column, 0)
