"""The event function of H → ZZ → 4ℓ: the pairing of four leptons in the manner of the CMS open-data example.

Of the two ways to make pairs of one flavour and opposite charges, the one with the pair nearest to the mass of the Z
boson counts. Electrons and muons are numbered together, electrons first; every four of them are combined before any
cut, in float64, and the four selected ones pick theirs. Metric (+, −, −, −), natural units, GeV.
"""

from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np

Z_MASS, ELECTRON_MASS, MUON_MASS = 91.1876, 0.000511, 0.10566
PAIRINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))


def prepare(event):
    """Of every four leptons `m4l`, and `mz1` and `mz2`: the masses of the pairs nearer to the Z boson and farther."""
    electron, muon = event.objects["electron"], event.objects["muon"]
    leptons = np.concatenate([_momenta(electron, ELECTRON_MASS), _momenta(muon, MUON_MASS)], axis=1)
    # Flavour and charge as a number: two leptons make a pair if theirs add up to 0.
    kind = np.concatenate([electron["charge"], 2 * muon["charge"]], axis=0)
    places = np.flatnonzero(np.isfinite(kind).any(axis=1)).max(initial=-1) + 1
    rows = [_of_four(leptons[:, list(four)], kind[list(four)]) for four in fours(places)]
    return {
        name: np.array([row[number] for row in rows], np.float32).reshape(-1, kind.shape[1])
        for number, name in enumerate(("m4l", "mz1", "mz2"))
    }


def variables(event, sets):
    """`m4l`, `mz1`, `mz2` of four leptons, NaN where they are not four in two pairs; `pt_1`, `pt_2`: the largest pt."""
    selected = _of_leptons(sets, lambda members: members.mask)
    pt = _of_leptons(sets, lambda members: members.column("pt", 0.0))
    counted = jnp.cumsum(selected, axis=0)
    rank = sum(
        jnp.where(selected[place], jnp.array([comb(place, k) for k in range(5)])[jnp.minimum(counted[place], 4)], 0)
        for place in range(len(selected))
    )
    four = counted[-1] == 4
    rank = jnp.where(four, rank, 0).astype(jnp.int32)
    masses = {name: event.prepared.at(name, rank) for name in ("m4l", "mz1", "mz2")}
    first = jnp.max(pt, axis=0)
    second = jnp.max(jnp.where(jnp.arange(len(pt))[:, None] == jnp.argmax(pt, axis=0)[None], 0, pt), axis=0)
    return {name: jnp.where(four, mass, jnp.nan) for name, mass in masses.items()} | {"pt_1": first, "pt_2": second}


def fours(objects):
    """All sets of four, so that one of the places p₁ < p₂ < p₃ < p₄ has the number Σ (pₖ over k)."""
    return sorted(combinations(range(objects), 4), key=lambda four: four[::-1])


def _of_four(leptons, kind):
    """(m4l, mz1, mz2) of four leptons; the latter are NaN where they make no two pairs."""
    m4l = _mass(leptons.sum(axis=1))
    nearest = np.full(kind.shape[1:], np.inf)
    mz1 = mz2 = np.full(kind.shape[1:], np.nan)
    for pairing in PAIRINGS:
        masses = [_mass(leptons[:, i] + leptons[:, j]) for i, j in pairing]
        good = np.logical_and(*(kind[i] + kind[j] == 0 for i, j in pairing))
        for near, far in (masses, masses[::-1]):
            better = good & (np.abs(near - Z_MASS) < nearest)
            nearest = np.where(better, np.abs(near - Z_MASS), nearest)
            mz1, mz2 = np.where(better, near, mz1), np.where(better, far, mz2)
    return m4l, mz1, mz2


def _of_leptons(sets, column):
    return jnp.concatenate([column(sets["electron"]), column(sets["muon"])], axis=0)


def _momenta(columns, mass):
    """(px, py, pz, E) on the first axis, in float64."""
    pt, eta, phi = (np.asarray(columns[name], np.float64) for name in ("pt", "eta", "phi"))
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.hypot(pt * np.cosh(eta), mass)])


def _mass(momenta):
    px, py, pz, energy = momenta
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
