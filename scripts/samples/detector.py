"""A parametrised detector: particle-level events in, NanoAOD objects out.

Nothing here is a simulation of CMS. Efficiencies, resolutions and the b-tag discriminant are smooth functions with the
numbers of ``settings.yaml``, tuned until the simulated samples look like the published histograms of the Analysis
Grand Challenge. Every random number comes from one generator, so a seed fixes the outcome.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scripts.samples.settings import (
    DetectorSettings,
    EfficiencyCurve,
    ElectronSettings,
    FatJetSettings,
    JetSettings,
    MuonSettings,
)

__all__ = ["simulate"]

_Flat = NDArray[np.float64]


def simulate(events: ak.Array, settings: DetectorSettings, rng: np.random.Generator, *, muons: bool) -> ak.Array:
    """Electrons, muons, jets and missing transverse momentum of every event.

    Args:
        events: particle level, as :class:`scripts.samples.generator.Chunk` describes it, with numbers
            ``collision`` and ``draw``.
        settings: the numbers of the parametrisation.
        rng: source of every random number.
        muons: whether muons can pass the tight identification, and are no jets then. In the AGC's input files none
            passes, so the AGC's selection is an electron selection; the same is our default.

    Returns:
        Records ``Electron``, ``Muon``, ``Jet``, ``MET_pt``, ``MET_phi``, ``genWeight``, ``collision``, ``draw``, and
        ``FatJet`` where the generator clustered some, and its partons as ``Parton``; objects in descending pt.
    """
    is_electron = abs(events.lepton.pdg_id) == 11
    electrons = _electrons(events.lepton[is_electron], settings.electron, rng)
    muon_objects = _muons(events.lepton[~is_electron], settings.muon, rng, identified=muons)
    jets = _jets(events.jet, events.lepton if muons else events.lepton[is_electron], settings.jet, rng)
    met = _missing_momentum(events, settings.met_resolution, rng)
    fat = "fat_jet" in events.fields
    fat_jets = {"FatJet": _fat_jets(events.fat_jet, events.lepton, settings.fat_jet, rng)} if fat else {}
    truth = {"Parton": events.parton} if "parton" in events.fields else {}
    return ak.zip(
        {
            "Electron": electrons,
            "Muon": muon_objects,
            "Jet": jets,
            "MET_pt": abs(met),
            "MET_phi": np.angle(met),
            "genWeight": ak.to_numpy(events.weight),
            "collision": ak.to_numpy(events.collision),
            "draw": ak.to_numpy(events.draw),
        }
        | fat_jets
        | truth,
        depth_limit=1,
    )


def _electrons(leptons: ak.Array, settings: ElectronSettings, rng: np.random.Generator) -> ak.Array:
    """Found electrons; ``cutBased`` runs from 0 (fail) to 4 (tight), isolation is part of it as in CMS."""
    pt, eta = _flat(leptons.pt), _flat(leptons.eta)
    measured = pt * (1 + settings.resolution * rng.standard_normal(pt.size))
    tight = rng.random(pt.size) < _efficiency(settings.tight, pt, eta)
    looser = rng.choice(len(settings.looser_shares), size=pt.size, p=settings.looser_shares)
    found = _like(leptons, rng.random(pt.size) < settings.reconstruction)
    significance = _impact_significance(_flat(leptons.from_tau), settings.sip3d_scale, settings.sip3d_tau_scale, rng)
    electrons = ak.zip(
        {
            "pt": _like(leptons, measured),
            "eta": leptons.eta,
            "phi": leptons.phi,
            "mass": _like(leptons, np.full(pt.size, settings.mass)),
            "charge": _charge(leptons),
            "cutBased": _like(leptons, np.where(tight, 4, looser)),
            "sip3d": _like(leptons, significance),
            "pfRelIso03_all": _like(leptons, rng.exponential(settings.isolation_scale, pt.size)),
        }
    )
    return _descending_pt(electrons[found])


def _muons(leptons: ak.Array, settings: MuonSettings, rng: np.random.Generator, *, identified: bool) -> ak.Array:
    """Found muons; none is tight unless asked for."""
    pt, eta = _flat(leptons.pt), _flat(leptons.eta)
    measured = pt * (1 + settings.resolution * rng.standard_normal(pt.size))
    tight = (rng.random(pt.size) < _efficiency(settings.tight, pt, eta)) & identified
    found = _like(leptons, (rng.random(pt.size) < settings.reconstruction) & (abs(eta) < settings.max_eta))
    significance = _impact_significance(_flat(leptons.from_tau), settings.sip3d_scale, settings.sip3d_tau_scale, rng)
    muons = ak.zip(
        {
            "pt": _like(leptons, measured),
            "eta": leptons.eta,
            "phi": leptons.phi,
            "mass": _like(leptons, np.full(pt.size, settings.mass)),
            "charge": _charge(leptons),
            "tightId": _like(leptons, tight),
            "sip3d": _like(leptons, significance),
            "pfRelIso04_all": _like(leptons, rng.exponential(settings.isolation_scale, pt.size)),
        }
    )
    return _descending_pt(muons[found])


def _impact_significance(from_tau: _Flat, scale: float, tau_scale: float, rng: np.random.Generator) -> _Flat:
    """Length of a three-dimensional displacement in units of its error: wider for leptons from taus."""
    displacement = rng.standard_normal((from_tau.size, 3))
    return np.where(from_tau, tau_scale, scale) * np.linalg.norm(displacement, axis=1)


def _jets(jets: ak.Array, leptons: ak.Array, settings: JetSettings, rng: np.random.Generator) -> ak.Array:
    """Smeared, tagged and identified jets, and the leptons among them, which fail the lepton-veto bit."""
    pt, eta, mass, flavour = (_flat(jets[name]) for name in ("pt", "eta", "mass", "flavour"))
    noise, stochastic, constant = settings.resolution
    width = np.sqrt((noise / pt) ** 2 + stochastic**2 / pt + constant**2)
    response = (settings.response + settings.offset / pt) * (1 + width * rng.standard_normal(pt.size))
    tails = rng.random(pt.size) < settings.tail_fraction
    response = np.where(tails, response * rng.uniform(*settings.tail_range, pt.size), response)
    response = np.maximum(response, settings.min_response)
    discriminant = _discriminant(pt, eta, flavour, settings, rng)
    fraction = _flat(_lepton_fraction(jets, leptons, settings.electron_delta_r))
    good = rng.random(pt.size) < settings.good_fraction
    vetoed = fraction > settings.electron_veto_fraction
    breadth = mass / pt
    measured = ak.zip(
        {
            "pt": _like(jets, pt * response),
            "eta": _like(jets, eta + settings.direction_resolution * rng.standard_normal(pt.size)),
            "phi": _like(jets, _wrap(_flat(jets.phi) + settings.direction_resolution * rng.standard_normal(pt.size))),
            "mass": _like(jets, mass * response * np.exp(settings.mass_resolution * rng.standard_normal(pt.size))),
            "btagCSVV2": _like(jets, np.where(vetoed, settings.untagged, discriminant)),
            "jetId": _like(jets, np.where(good, np.where(vetoed, 2, 6), 0)),
            "qgl": _like(jets, _quark_likeness(breadth, settings, rng)),
            "hadronFlavour": jets.flavour,
        }
    )
    return _descending_pt(measured)


def _fat_jets(jets: ak.Array, leptons: ak.Array, settings: FatJetSettings, rng: np.random.Generator) -> ak.Array:
    """Smeared large-radius jets with a score for top quarks; what is mostly a prompt lepton is left out."""
    pt, mass, quarks = _flat(jets.pt), _flat(jets.mass), _flat(jets.quarks)
    response = np.maximum(1 + settings.resolution * rng.standard_normal(pt.size), 0.1)
    uniform = rng.random(pt.size)
    score = np.empty(pt.size)
    for name, of_kind in (("top", quarks == 3), ("part", quarks == 2), ("other", quarks < 2)):
        share, value = np.asarray(settings.score[name]).T
        score[of_kind] = np.interp(uniform[of_kind], share, value)
    measured = ak.zip(
        {
            "pt": _like(jets, pt * response),
            "eta": _like(jets, _flat(jets.eta) + settings.direction_resolution * rng.standard_normal(pt.size)),
            "phi": _like(jets, _wrap(_flat(jets.phi) + settings.direction_resolution * rng.standard_normal(pt.size))),
            "mass": _like(jets, mass * response * np.exp(settings.mass_resolution * rng.standard_normal(pt.size))),
            "score": _like(jets, score),
        }
    )
    return _descending_pt(measured[_lepton_fraction(jets, leptons, 0.8) < 0.5])


def _lepton_fraction(jets: ak.Array, leptons: ak.Array, delta_r: float) -> ak.Array:
    """Share of each jet's transverse momentum that is a prompt lepton inside it."""
    jet, lepton = ak.unzip(ak.cartesian([jets, leptons], nested=True))
    near = (jet.eta - lepton.eta) ** 2 + _wrap(jet.phi - lepton.phi) ** 2 < delta_r**2
    return ak.sum(ak.where(near, lepton.pt, 0.0), axis=-1) / jets.pt


def _charge(leptons: ak.Array) -> ak.Array:
    """Never mistaken; leptons have positive PDG codes, their antiparticles negative ones."""
    return ak.where(leptons.pdg_id > 0, -1, 1)


def _discriminant(pt: _Flat, eta: _Flat, flavour: _Flat, settings: JetSettings, rng: np.random.Generator) -> _Flat:
    """A b-tag discriminant in the manner of CSVV2: by flavour a quantile function, shifted with pt and eta."""
    uniform = rng.random(pt.size)
    shift = _tag_shift(pt, eta, settings)
    discriminant = np.empty(pt.size)
    for name, code in (("light", 0), ("charm", 4), ("bottom", 5)):
        table = np.asarray(settings.discriminant[name])
        of_flavour = flavour == code
        quantile = norm.cdf(norm.ppf(uniform[of_flavour]) + settings.tag_shift_size[name] * shift[of_flavour])
        discriminant[of_flavour] = _quantile_function(quantile, table, settings.untagged)
    return discriminant


def _tag_shift(pt: _Flat, eta: _Flat, settings: JetSettings) -> _Flat:
    """How much worse than at best, below 0, tracks tag this jet: at low pt and at large eta."""
    softness = np.log(settings.tag_best_pt / np.minimum(pt, settings.tag_best_pt))
    forward = np.maximum(abs(eta) - settings.tag_flat_eta, 0.0)
    return -(softness**2) - settings.tag_eta_slope * forward


def _quantile_function(quantile: _Flat, table: _Flat, untagged: float) -> _Flat:
    """Inverse of a piecewise linear cumulative distribution; below its first entry the jet has no tag at all."""
    cumulative, values = table[:, 0], table[:, 1]
    return np.where(quantile < cumulative[0], untagged, np.interp(quantile, cumulative, values))


def _quark_likeness(breadth: _Flat, settings: JetSettings, rng: np.random.Generator) -> _Flat:
    """Narrow jets look like quarks (1), broad ones like gluons (0); a few have no value (-1)."""
    slope, centre, noise = settings.quark_likeness
    value = norm.cdf(slope * (centre - breadth) + noise * rng.standard_normal(breadth.size))
    return np.where(rng.random(breadth.size) < settings.no_quark_likeness, -1.0, value)


def _missing_momentum(events: ak.Array, resolution: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Prompt neutrinos, smeared, as a complex number in the transverse plane."""
    truth = ak.to_numpy(events.met_x) + 1j * ak.to_numpy(events.met_y)
    return truth + resolution * (rng.standard_normal(len(events)) + 1j * rng.standard_normal(len(events)))


def _efficiency(curve: EfficiencyCurve, pt: _Flat, eta: _Flat) -> _Flat:
    """Rises with pt to its plateau, and is lower beyond the barrel."""
    turn_on = curve.plateau * (1 - curve.loss * np.exp(-pt / curve.pt_scale))
    return turn_on * np.where(abs(eta) > curve.barrel_eta, curve.endcap_factor, 1.0)


def _wrap(angle: _Flat) -> _Flat:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _flat(column: ak.Array) -> _Flat:
    return ak.to_numpy(ak.flatten(column, axis=1)).astype(np.float64)


def _like(collection: ak.Array, flat: NDArray[np.generic]) -> ak.Array:
    return ak.unflatten(flat, ak.num(collection, axis=1))


def _descending_pt(objects: ak.Array) -> ak.Array:
    return objects[ak.argsort(objects.pt, axis=1, ascending=False)]
