"""Trijet candidates: everything about an event that no threshold can change.

Cuts choose among the trijets of an event but never move one. So all of them are formed once, for each kinematic
variation, and sorted by transverse momentum; after that, the AGC's choice (highest-pt trijet of selected jets with a
b-tag) is a search for the first admissible bit mask.

Four-vectors are summed in float64, once. The mass is then rounded *down* to float32: for every bin edge that float32
can represent, `mass >= edge` keeps its truth value, so histograms of the float32 mass equal those of the float64 mass.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, UInt32

from pipeline.events import CandidateGroup
from pipeline.kinematics import FourVector, invariant_mass, px_py_pz_energy, transverse_momentum

__all__ = ["trijet_candidates"]

Trijets = tuple[
    UInt32[Array, "candidates events"], Float32[Array, "candidates events"], Float32[Array, "candidates events"]
]


def trijet_candidates(
    pt: Float64[Array, "kinematics chunks jets events"],
    eta: Float32[Array, "chunks jets events"],
    phi: Float32[Array, "chunks jets events"],
    mass: Float32[Array, "chunks jets events"],
) -> CandidateGroup:
    """All 3-combinations of the jets of every event, by falling transverse momentum.

    The jet mass is not scaled with pt, as in the AGC (`processor`, `four_vecs`). Works chunk by chunk, to bound memory.
    """
    kinematics, chunks = pt.shape[:2]

    def of_chunk(task: tuple[Array, Array]) -> Trijets:
        kinematic, chunk = task
        jet = [column[chunk].astype(jnp.float64) for column in (eta, phi, mass)]
        return _sorted_trijets(px_py_pz_energy(pt[kinematic, chunk], *jet))

    tasks = jnp.meshgrid(jnp.arange(kinematics), jnp.arange(chunks), indexing="ij")
    flat = jax.lax.map(of_chunk, (tasks[0].ravel(), tasks[1].ravel()))
    jets, trijet_mass, trijet_pt = (column.reshape(kinematics, chunks, *column.shape[1:]) for column in flat)
    return CandidateGroup(jets=jets, mass=trijet_mass, pt=trijet_pt)


def _sorted_trijets(jets: FourVector) -> Trijets:
    """(bit mask, mass, pt) of the trijets of one chunk; the jets' components have shape "jets events"."""
    triples = np.array(list(combinations(range(jets[0].shape[0]), 3)))
    px, py, pz, energy = (
        component[triples[:, 0]] + component[triples[:, 1]] + component[triples[:, 2]] for component in jets
    )
    pt = transverse_momentum(px, py)
    order = jnp.argsort(-pt, axis=0, stable=True)
    masks = jnp.asarray((1 << triples).sum(axis=1), jnp.uint32)
    mass = _round_down(jnp.take_along_axis(invariant_mass(px, py, pz, energy), order, axis=0))
    return masks[order], mass, jnp.take_along_axis(pt, order, axis=0).astype(jnp.float32)


def _round_down(value: Float64[Array, "..."]) -> Float32[Array, "..."]:
    """The largest float32 that is not above the value."""
    nearest = value.astype(jnp.float32)
    below = jnp.nextafter(nearest, jnp.full_like(nearest, -jnp.inf))
    return jnp.where(nearest.astype(jnp.float64) > value, below, nearest)
