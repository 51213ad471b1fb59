"""Which simulated events and objects are written: everything that a cut optimisation or a variation may reach."""

from __future__ import annotations

import awkward as ak
from scripts.samples.settings import SkimSettings

__all__ = ["skim"]

_IDENTIFIED_JET = 6


def skim(events: ak.Array, settings: SkimSettings, *, muons: bool) -> ak.Array:
    """Drops far-out leptons and jets, then events that no reasonable selection would keep."""
    electrons = events.Electron[_within(events.Electron, settings.lepton_pt, settings.lepton_eta)]
    found_muons = events.Muon[_within(events.Muon, settings.lepton_pt, settings.lepton_eta)]
    jets = events.Jet[_within(events.Jet, settings.jet_pt, settings.jet_eta)]
    if settings.identified:
        electrons, found_muons = electrons[electrons.cutBased == 4], found_muons[found_muons.tightId]
        jets = jets[jets.jetId == _IDENTIFIED_JET]
    events["Electron"], events["Muon"], events["Jet"] = electrons, found_muons, jets
    leptons = ak.num(electrons) + (ak.num(found_muons) if muons else 0)
    keep = (leptons >= settings.min_leptons) & (ak.num(jets) >= settings.min_jets) & (events.MET_pt > settings.min_met)
    if settings.min_discriminant is not None:
        keep = keep & ak.any(jets.btagCSVV2 > settings.min_discriminant, axis=1)
    if settings.opposite_sign:
        charges = ak.concatenate([electrons.charge, found_muons.charge], axis=1)
        keep = keep & ak.any(charges > 0, axis=1) & ak.any(charges < 0, axis=1)
    if settings.fat_jet_pt is not None:
        events["FatJet"] = events.FatJet[_within(events.FatJet, settings.fat_jet_pt, settings.jet_eta)]
        keep = keep & (ak.num(events.FatJet) >= 1)
    return events[keep]


def _within(objects: ak.Array, pt: float, eta: float) -> ak.Array:
    return (objects.pt > pt) & (abs(objects.eta) < eta)
