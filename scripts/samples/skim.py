"""Which simulated events and objects are written: everything that a cut optimisation or a jet variation may reach."""

from __future__ import annotations

import awkward as ak

from samples.settings import SkimSettings

__all__ = ["skim"]


def skim(events: ak.Array, settings: SkimSettings, *, muons: bool) -> ak.Array:
    """Drops far-out leptons and jets, then events that no reasonable selection would keep."""
    events["Electron"] = events.Electron[_within(events.Electron, settings.lepton_pt, settings.lepton_eta)]
    events["Muon"] = events.Muon[_within(events.Muon, settings.lepton_pt, settings.lepton_eta)]
    events["Jet"] = events.Jet[_within(events.Jet, settings.jet_pt, settings.jet_eta)]
    leptons = ak.num(events.Electron) + (ak.num(events.Muon) if muons else 0)
    tagged = ak.any(events.Jet.btagCSVV2 > settings.min_discriminant, axis=1)
    return events[(leptons >= 1) & (ak.num(events.Jet) >= settings.min_jets) & tagged]


def _within(objects: ak.Array, pt: float, eta: float) -> ak.Array:
    return (objects.pt > pt) & (abs(objects.eta) < eta)
