"""The event function of Z′ → top quark pairs: a muon, missing momentum, a b-jet, and a fat jet for the other top quark.

Whatever needs a mass or a distance is computed for every combination of objects before any cut, in float64; what is
selected only picks among them. Metric (+, −, −, −), natural units, GeV.
"""

import jax.numpy as jnp
import numpy as np

MUON_MASS = 0.10566


def prepare(event):
    """`distance` of each fat jet to each jet (ΔR), and `mtt`, the mass of each muon, fat jet and jet, and of MET."""
    muon, fatjet, jet = (event.objects[name] for name in ("muon", "fatjet", "jet"))
    missing = {"pt": event.columns["met"], "eta": 0 * event.columns["met"], "phi": event.columns["met_phi"]}
    total = (
        _momenta(muon, MUON_MASS)[:, :, None, None]
        + _momenta(fatjet, fatjet["mass"])[:, None, :, None]
        + _momenta(jet, jet["mass"])[:, None, None, :]
        + _momenta(missing, 0)[:, None, None, None]
    )
    eta, phi = (fatjet[name][:, None].astype(np.float64) - jet[name][None] for name in ("eta", "phi"))
    distance = np.hypot(eta, (phi + np.pi) % (2 * np.pi) - np.pi)
    rows = {"mtt": _mass(total), "distance": distance}
    return {name: values.reshape(-1, values.shape[-1]).astype(np.float32) for name, values in rows.items()}


def object_variables(event, sets):
    """`jet.distance`: ΔR to the nearest selected fat jet, infinite where there is none."""
    fat = sets["fatjet"].mask
    jets = event.objects["jet"]["pt"].shape[0]
    distance = event.prepared.column("distance", fat.shape[0] * jets).reshape(fat.shape[0], jets, -1)
    return {"jet": {"distance": jnp.min(jnp.where(fat[:, None], distance, jnp.inf), axis=0)}}


def variables(event, sets):
    """`mtt` of the hardest muon, fat jet, b-jet and of MET, NaN where one is missing; `lepton_ht`: pt(µ) + MET."""
    chosen = [sets[name].mask for name in ("muon", "fatjet", "btag")]
    muon, fatjet, jet = (jnp.argmax(mask, axis=0) for mask in chosen)
    row = (muon * chosen[1].shape[0] + fatjet) * chosen[2].shape[0] + jet
    complete = jnp.all(jnp.stack([jnp.any(mask, axis=0) for mask in chosen]), axis=0)
    mtt = event.prepared.at("mtt", row.astype(jnp.int32))
    return {
        "mtt": jnp.where(complete, mtt, jnp.nan),
        "lepton_ht": sets["muon"].nth("pt", 0, fill=0.0) + event.columns["met"],
    }


def _momenta(columns, mass):
    """(px, py, pz, E) on the first axis, in float64."""
    pt, eta, phi = (np.asarray(columns[name], np.float64) for name in ("pt", "eta", "phi"))
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.hypot(pt * np.cosh(eta), mass)])


def _mass(momenta):
    px, py, pz, energy = momenta
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
