"""The event function of the dilepton analysis: two leptons, their mass and charges, and the mass of lepton and b-jet.

Electrons and muons are numbered together, electrons first. Every pair of leptons and every lepton with every jet is
combined before any cut, in float64; what is selected only picks among them. Metric (+, −, −, −), natural units, GeV.
"""

from itertools import combinations

import jax.numpy as jnp
import numpy as np

ELECTRON_MASS, MUON_MASS = 0.000511, 0.10566


def prepare(event):
    """`mll`, the mass of each pair of leptons, and `mlj`, that of each lepton with each jet."""
    leptons = np.concatenate(
        [_momenta(event.objects["electron"], ELECTRON_MASS), _momenta(event.objects["muon"], MUON_MASS)], axis=1
    )
    jets = _momenta(event.objects["jet"], event.objects["jet"]["mass"])
    first, second = np.array(pairs(leptons.shape[1])).T
    with_jets = leptons[:, :, None] + jets[:, None, :]
    return {
        "mll": _mass(leptons[:, first] + leptons[:, second]).astype(np.float32),
        "mlj": _mass(with_jets).reshape(-1, leptons.shape[2]).astype(np.float32),
    }


def variables(event, sets):
    """`opposite_sign` (1 or 0) and `mll` of two leptons; `mlb`: the smallest mass of a lepton and a b-jet.

    `mlb` is NaN where no jet is b-tagged.
    """
    selected = _of_leptons(sets, lambda members: members.mask)
    tagged = sets["btag"].mask
    charge = _of_leptons(sets, lambda members: members.column("charge", 0.0)).sum(axis=0)
    mlj = event.prepared.column("mlj", selected.shape[0] * tagged.shape[0]).reshape(-1, *tagged.shape)
    mlb = jnp.min(jnp.where(selected[:, None] & tagged[None], mlj, jnp.inf), axis=(0, 1))
    return {
        "opposite_sign": (charge == 0).astype(jnp.float32),
        "mll": _of_pair(event, selected),
        "mlb": jnp.where(mlb < jnp.inf, mlb, jnp.nan),
    }


def weights(_event, sets):
    """`trigger`: how much more often the trigger would fire one standard deviation up; soft leptons matter most."""
    leading = _of_leptons(sets, lambda members: members.column("pt", 0.0)).max(axis=0)
    return {"trigger": 1 + 0.5 / jnp.maximum(leading, 1)}


def pairs(objects):
    """All pairs, so that a pair of the places p < q has the number p + q (q − 1) / 2."""
    return sorted(combinations(range(objects), 2), key=lambda pair: pair[::-1])


def _of_pair(event, selected):
    """The mass of two selected leptons; NaN where there are not just two."""
    counted = jnp.cumsum(selected, axis=0)
    place = np.arange(len(selected))[:, None]
    number = jnp.sum(jnp.where(selected, jnp.where(counted == 1, place, place * (place - 1) // 2), 0), axis=0)
    two = counted[-1] == 2
    mass = event.prepared.at("mll", jnp.where(two, number, 0).astype(jnp.int32))
    return jnp.where(two, mass, jnp.nan)


def _of_leptons(sets, column):
    return jnp.concatenate([column(sets["electron"]), column(sets["muon"])], axis=0)


def _momenta(columns, mass):
    """(px, py, pz, E) on the first axis, in float64."""
    pt, eta, phi = (np.asarray(columns[name], np.float64) for name in ("pt", "eta", "phi"))
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.hypot(pt * np.cosh(eta), mass)])


def _mass(momenta):
    px, py, pz, energy = momenta
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
