"""Fewer events for the same information: crowded places are thinned, and what stays counts for what went.

Every event is kept with a probability and its weight divided by it, so every expectation stays what it was. The
probability depends on where the AGC's selection puts the event: bins with few expected events are kept whole, crowded
bins are thinned towards the same relative error, and events that only a moved cut could select are kept less often.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from samples.settings import ThinningSettings

__all__ = ["thin"]

_Floats = NDArray[np.float64]


def thin(events: ak.Array, settings: ThinningSettings, *, target: int, rng: np.random.Generator) -> ak.Array:
    """About ``target`` of the events, ``genWeight`` divided by the probability to be kept.

    Args:
        events: as the detector and the skim leave them.
        settings: the cuts, bins and priorities.
        target: expected number of kept events; all are kept when there are fewer.
        rng: source of the random numbers.
    """
    if len(events) <= target:
        return events
    importance = _importance(events, settings)
    scale = brentq(lambda x: np.minimum(1.0, np.exp(x) * importance).sum() - target, -40.0, 40.0)
    probability = np.maximum(np.minimum(1.0, np.exp(scale) * importance), settings.min_probability)
    kept = rng.random(len(events)) < probability
    thinned = events[kept]
    thinned["genWeight"] = ak.to_numpy(thinned.genWeight) / probability[kept]
    return thinned


def _importance(events: ak.Array, settings: ThinningSettings) -> _Floats:
    """Weight of an event relative to the square root of all weight in its place: equal sums, equal chances."""
    weight = ak.to_numpy(events.genWeight).astype(np.float64)
    place, priority = _place(events, settings)
    total = np.bincount(place, weight)[place]
    return priority * weight / np.sqrt(total)


def _place(events: ak.Array, settings: ThinningSettings) -> tuple[NDArray[np.int64], _Floats]:
    """A number for the region and bin of each event, and the priority of its region."""
    jets = events.Jet[_selected_jets(events.Jet, settings.jet_pt, settings.jet_eta)]
    tags = ak.to_numpy(ak.sum(jets.btagCSVV2 > settings.btag, axis=1))
    lepton = ak.to_numpy(ak.any(events.Electron.pt > settings.lepton_pt, axis=1) & _any_tight(events))
    selected = lepton & (ak.to_numpy(ak.num(jets)) >= settings.min_jets) & (tags >= 1)
    near = _is_near(events, settings)
    edges = np.asarray(settings.edges)
    bins = len(edges) + 1
    place = np.where(near, 0, 1)
    priority = np.where(near, settings.near_priority, settings.far_priority)
    for region, (mask, observable) in enumerate(((tags == 1, _ht), (tags >= 2, _trijet_mass))):
        rows = np.flatnonzero(selected & mask)
        place[rows] = 2 + region * bins + np.searchsorted(edges, observable(jets[rows]))
        priority[rows] = 1.0
    return place, priority


def _is_near(events: ak.Array, settings: ThinningSettings) -> NDArray[np.bool_]:
    """Whether moderately looser cuts would select the event."""
    jets = events.Jet[_selected_jets(events.Jet, settings.near_jet_pt, settings.jet_eta)]
    tagged = ak.any(jets.btagCSVV2 > settings.near_btag, axis=1)
    return ak.to_numpy(_any_tight(events) & (ak.num(jets) >= settings.min_jets) & tagged)


def _any_tight(events: ak.Array) -> ak.Array:
    return ak.any(events.Electron.cutBased == 4, axis=1) | ak.any(events.Muon.tightId, axis=1)


def _selected_jets(jets: ak.Array, pt: float, eta: float) -> ak.Array:
    return (jets.pt > pt) & (abs(jets.eta) < eta) & (jets.jetId == 6)


def _ht(jets: ak.Array) -> _Floats:
    return ak.to_numpy(ak.sum(jets.pt, axis=1))


def _trijet_mass(jets: ak.Array) -> _Floats:
    """Mass of the three jets with the largest summed transverse momentum."""
    momenta = ak.zip(
        {
            "x": jets.pt * np.cos(jets.phi),
            "y": jets.pt * np.sin(jets.phi),
            "z": jets.pt * np.sinh(jets.eta),
            "t": np.hypot(jets.pt * np.cosh(jets.eta), jets.mass),
        }
    )
    first, second, third = ak.unzip(ak.combinations(momenta, 3))
    x, y, z, t = (first[axis] + second[axis] + third[axis] for axis in "xyzt")
    best = ak.argmax(x**2 + y**2, axis=1, keepdims=True)
    return ak.to_numpy(np.sqrt(np.maximum(t**2 - x**2 - y**2 - z**2, 0.0))[best][:, 0])
