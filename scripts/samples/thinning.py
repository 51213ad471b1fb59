"""Fewer events for the same information: crowded places are thinned, and what stays counts for what went.

Every event is kept with a probability and its weight divided by it, so every expectation stays what it was. The
probability depends on where the AGC's selection puts the event: bins with few expected events are kept whole, crowded
bins are thinned towards the same relative error, and of the events that only a moved cut could select, a share is kept
that the priorities state. Within a bin, kept events have equal weights where they can.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scripts.samples.settings import ThinningSettings

__all__ = ["Places", "Plan", "make_plan", "places_of", "thin"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Places:
    """Where the AGC's selection puts each event: region and bin as a number, the place's priority, and the weight."""

    number: NDArray[np.int64]
    priority: _Floats
    weight: _Floats


@dataclass(frozen=True)
class Plan:
    """What decides the probability of an event to be kept: a factor for each place, and the least probability."""

    settings: ThinningSettings
    factor: _Floats

    def probability(self, places: Places) -> _Floats:
        """For each event; proportional to its weight within a place, up to 1."""
        wanted = self.factor[places.number] * places.priority * places.weight
        return np.maximum(np.minimum(1.0, wanted), self.settings.min_probability)


def places_of(events: ak.Array, settings: ThinningSettings) -> Places:
    """The place of each event, as the detector and the skim leave them."""
    number, priority = _place(events, settings)
    return Places(number, priority, ak.to_numpy(events.genWeight).astype(np.float64))


def make_plan(parts: Iterable[Places], settings: ThinningSettings, *, target: int) -> Plan | None:
    """A plan that keeps about so many events of all parts together; None when there are fewer.

    Args:
        parts: all events, in as many parts as is convenient.
        settings: the cuts, bins and priorities.
        target: expected number of kept events, apart from what the least probability adds.
    """
    parts = list(parts)
    every = Places(*(np.concatenate([getattr(part, name) for part in parts]) for name in Places.__dataclass_fields__))
    if len(every.weight) <= target:
        return None
    total = np.bincount(every.number, every.weight, minlength=_number_of_places(settings))
    level = np.maximum(total, np.finfo(float).tiny) ** (settings.crowding - 1)
    importance = level[every.number] * every.priority * every.weight
    scale = brentq(lambda x: np.minimum(1.0, np.exp(x) * importance).sum() - target, -60.0, 60.0)
    return Plan(settings, np.exp(scale) * level)


def thin(events: ak.Array, plan: Plan | None, rng: np.random.Generator) -> ak.Array:
    """The events that are kept, ``genWeight`` divided by the probability to be kept; all of them without a plan."""
    if plan is None:
        return events
    probability = plan.probability(places_of(events, plan.settings))
    kept = rng.random(len(events)) < probability
    thinned = events[kept]
    thinned["genWeight"] = ak.to_numpy(thinned.genWeight) / probability[kept]
    return thinned


def _number_of_places(settings: ThinningSettings) -> int:
    return 2 + 2 * (len(settings.edges) + 1)


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
