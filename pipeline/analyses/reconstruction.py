"""Trijet candidates: everything about an event that no threshold can change.

Cuts choose among the trijets of an event but never move one. So all of them are formed once, for each kinematic
variation, and sorted by transverse momentum; after that, the AGC's choice (highest-pt trijet of selected jets with a
b-tag) is a search for the first admissible bit mask.

Four-vectors are summed in float64, once. The mass is then rounded *down* to float32: for every bin edge that float32
can represent, `mass >= edge` keeps its truth value, so histograms of the float32 mass equal those of the float64 mass.
"""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, UInt32

from pipeline.analyses.kinematics import invariant_mass, px_py_pz_energy, transverse_momentum

__all__ = ["Trijets", "trijet_candidates"]

Trijets = tuple[
    UInt32[Array, "candidates events"], Float32[Array, "candidates events"], Float32[Array, "candidates events"]
]
"""(bit mask of three jets, mass, pt), both in GeV."""


def trijet_candidates(
    pt: Float64[Array, "jets events"],
    eta: Float32[Array, "jets events"],
    phi: Float32[Array, "jets events"],
    mass: Float32[Array, "jets events"],
) -> Trijets:
    """All 3-combinations of the jets of every event, by falling transverse momentum.

    The jet mass is not scaled with pt, as in the AGC (`processor`, `four_vecs`). Trijets of absent jets come last.
    """
    jets = px_py_pz_energy(pt, *(column.astype(jnp.float64) for column in (eta, phi, mass)))
    triples = np.array(list(combinations(range(pt.shape[0]), 3)))
    px, py, pz, energy = (
        component[triples[:, 0]] + component[triples[:, 1]] + component[triples[:, 2]] for component in jets
    )
    trijet_pt = transverse_momentum(px, py)
    order = jnp.argsort(-trijet_pt, axis=0, stable=True)
    masks = jnp.asarray((1 << triples).sum(axis=1), jnp.uint32)
    trijet_mass = _round_down(jnp.take_along_axis(invariant_mass(px, py, pz, energy), order, axis=0))
    return masks[order], trijet_mass, jnp.take_along_axis(trijet_pt, order, axis=0).astype(jnp.float32)


def _round_down(value: Float64[Array, "..."]) -> Float32[Array, "..."]:
    """The largest float32 that is not above the value."""
    nearest = value.astype(jnp.float32)
    below = jnp.nextafter(nearest, jnp.full_like(nearest, -jnp.inf))
    return jnp.where(nearest.astype(jnp.float64) > value, below, nearest)
