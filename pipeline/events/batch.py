"""Events as the analysis sees them: dense arrays, grouped by jet multiplicity, events last.

A hard analysis of ragged events needs no padding to the largest event if events of like multiplicity stand
together. An `EventGroup` holds events with at most `jets` jets each (the capacities are a grid, see
`pipeline.events.dense`), cut into chunks of one data set each. Inside a chunk the event axis comes last:
every operation of the analysis is then one vector operation over contiguous events.

Absent objects are NaN in every column: NaN fails every comparison, so an absent object passes no cut and lies
on no boundary, without a mask beside the data. An object that is there has a pt; another variable of it may be NaN in
the file, and then fails the cuts on that variable only.

Axes: `kinematics` (nominal first, then the jet-pt variations), `chunks`, `jets`, `electrons`, `muons`,
`rows` (trijets), `events` (within a chunk).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt32

__all__ = ["CandidateGroup", "Chunk", "EventGroup", "take_chunk"]


class EventGroup(eqx.Module, strict=True):
    """Events of like jet multiplicity, `chunks` × `events` of them; padding events have weight 0.

    The columns are open sets, keyed by the variable names of the config (`pt`, `eta`, `btag`, …); units are those
    of the input file (GeV). Only the jet transverse momentum knows kinematic variations. `index` is the row of the
    event in its file; events of one `collision` (several detector simulations of it) are not independent; `trijets`
    is the number of trijets of the busiest event of a chunk. A `task` is a pair of a kinematic variation and a chunk:
    alternative samples, for which the AGC defines no further variation, have nominal tasks only.
    """

    electrons: dict[str, Float32[Array, "chunks electrons events"]]
    muons: dict[str, Float32[Array, "chunks muons events"]]
    jets: dict[str, Float32[Array, "chunks jets events"]]
    jet_pt: Float32[Array, "kinematics chunks jets events"]
    variables: dict[str, Float32[Array, "chunks events"]]
    weight: Float32[Array, "chunks events"]
    index: Int32[Array, "chunks events"]
    collision: Int32[Array, "chunks events"]
    dataset: Int32[Array, " chunks"]
    trijets: Int32[Array, " chunks"]
    task_kinematic: Int32[Array, " tasks"]
    task_chunk: Int32[Array, " tasks"]


class CandidateGroup(eqx.Module, strict=True):
    """All trijets of an `EventGroup`, sorted by falling transverse momentum (ties: first in lexicographic order).

    `jets` is a set of three jets as a bit mask; `mass` and `pt` are in GeV. No threshold enters here: which trijet
    an event uses is decided by the first one whose bits are all selected and of which one is b-tagged.

    A chunk has as many rows as its busiest event has trijets, from row `first` on, for each kinematic variation; an
    alternative sample has those of the nominal one only. So there is no padding but that within a chunk.
    """

    jets: UInt32[Array, "rows events"]
    mass: Float32[Array, "rows events"]
    pt: Float32[Array, "rows events"]
    first: Int32[Array, "kinematics chunks"]


class Chunk(eqx.Module, strict=True):
    """The events of one data set under one kinematic variation; jets carry the varied pt, trijets fall in pt.

    The trijets stay in the arrays of the group, which are larger than all the rest: only rows are taken.
    """

    electrons: dict[str, Float32[Array, "electrons events"]]
    muons: dict[str, Float32[Array, "muons events"]]
    jets: dict[str, Float32[Array, "jets events"]]
    variables: dict[str, Float32[Array, " events"]]
    weight: Float32[Array, " events"]
    collision: Int32[Array, " events"]
    trijets: Int32[Array, ""]
    first_trijet: Int32[Array, ""]
    candidates: CandidateGroup

    def trijet(
        self, rank: Int32[Array, ""]
    ) -> tuple[UInt32[Array, " events"], Float32[Array, " events"], Float32[Array, " events"]]:
        """(jets, mass, pt) of the trijet of this rank in each event."""
        row = self.first_trijet + rank
        return self.candidates.jets[row], self.candidates.mass[row], self.candidates.pt[row]

    def trijet_of(
        self, rank: Int32[Array, " rows"], event: Int32[Array, " rows"]
    ) -> tuple[Float32[Array, " rows"], Float32[Array, " rows"]]:
        """(mass, pt) of one trijet in each of some events; of the hardest one where the rank is negative."""
        place = self.first_trijet + jnp.maximum(rank, 0), event
        return self.candidates.mass[place], self.candidates.pt[place]


def take_chunk(
    group: EventGroup, candidates: CandidateGroup, kinematic: Int32[Array, ""], chunk: Int32[Array, ""]
) -> Chunk:
    """One task of a group."""
    return Chunk(
        electrons={name: column[chunk] for name, column in group.electrons.items()},
        muons={name: column[chunk] for name, column in group.muons.items()},
        jets={name: column[chunk] for name, column in group.jets.items()} | {"pt": group.jet_pt[kinematic, chunk]},
        variables={name: column[chunk] for name, column in group.variables.items()},
        weight=group.weight[chunk],
        collision=group.collision[chunk],
        trijets=group.trijets[chunk],
        first_trijet=candidates.first[kinematic, chunk],
        candidates=candidates,
    )
