"""Proton-proton collisions with Pythia 8, down to what a detector would see.

One call of :func:`generate` makes one chunk of one process: hard process, parton shower, hadronisation, anti-kt jets.
Only the few numbers per event that the detector parametrisation needs are kept. Most collisions cannot pass an
analysis of one electron and four jets, so they are dropped as early as that is certain: right after the hard process
(no wanted lepton), after the shower (too few parton jets), and after hadronisation (too few jets). Every collision is
counted, with its weight, before the first of these filters; yields therefore stay absolute.
"""

from __future__ import annotations

import importlib
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np

from samples.settings import GeneratorSettings, ProcessSettings

__all__ = ["Chunk", "generate"]

_ELECTRON, _MUON, _TAU = 11, 13, 15
_CHARM, _BOTTOM = 4, 5
_LIGHTEST_CHARM_MESON = 411
_NEUTRINOS = (12, 14, 16)
_RESONANCES = (6, 24, 37)
_INCOMING_PARTON = 3


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Particle-level events of one process and what was counted on the way.

    Attributes:
        events: one record an event: ``weight``, ``met_x``, ``met_y`` (GeV, sum of the prompt neutrinos), ``lepton``
            (prompt electrons and muons: pt, eta, phi, pdg_id, from_tau) and ``jet`` (anti-kt 0.4 of all visible
            particles, leptons included: pt, eta, phi, mass, flavour 0, 4 or 5).
        generated: number of collisions before every filter.
        sum_of_weights: sum of their weights.
    """

    events: ak.Array
    generated: int
    sum_of_weights: float


def generate(process: ProcessSettings, settings: GeneratorSettings, *, events: int, seed: int) -> Chunk:
    """One chunk of one process.

    Args:
        process: its Pythia settings and weights.
        settings: what all processes share.
        events: number of collisions to try, before every filter.
        seed: 1 to 900000000; the same seed gives the same chunk.

    Raises:
        ModuleNotFoundError: when pythia8mc is not installed.
        ValueError: when Pythia does not know a setting, or cannot start with them.
    """
    pythia8 = importlib.import_module("pythia8mc")
    pythia = pythia8.Pythia("", False)
    early_filter = _early_filter(pythia8, pythia, process, settings, events=events, seed=seed)
    pythia.setUserHooksPtr(early_filter)
    for line in (*settings.pythia, *process.pythia, f"Random:seed = {seed}"):
        if not pythia.readString(line):
            raise ValueError(f"{process.name}: Pythia does not know the setting {line!r}; correct it in settings.yaml.")
    if not pythia.init():
        raise ValueError(f"{process.name}: Pythia cannot start with these settings; its own message stands above.")
    clustering = _clustering(pythia8, settings)
    columns: dict[str, list[Any]] = defaultdict(list)
    while True:
        good = pythia.next()
        if early_filter.exhausted:
            break
        if good:
            _append_event(columns, pythia.event, clustering, early_filter, settings)
    return Chunk(
        events=_as_array(columns),
        generated=early_filter.seen,
        sum_of_weights=early_filter.sum_of_weights,
    )


def _clustering(pythia8: Any, settings: GeneratorSettings) -> Any:
    return pythia8.SlowJet(-1, settings.jet_radius, settings.jet_pt, settings.particle_eta, 2, 1)


def _early_filter(
    pythia8: Any, pythia: Any, process: ProcessSettings, settings: GeneratorSettings, *, events: int, seed: int
) -> Any:
    """The hook that Pythia calls after the hard process and after the shower; it counts, and vetoes what is hopeless.

    Pythia tries again silently after a veto. The call after the last wanted collision is therefore let through and
    marks the chunk as exhausted; the caller drops that event.
    """
    draw = random.Random(seed)
    choose_leptons = _LeptonFilter(pythia, settings, draw)

    class EarlyFilter(pythia8.UserHooks):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0
            self.sum_of_weights = 0.0
            self.weight = 1.0
            self.partons = 0
            self.exhausted = False
            self.parton_jets = _clustering(pythia8, settings)

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, hard_process: Any) -> bool:
            if self.seen == events:
                self.exhausted = True
                return False
            particles = [hard_process[i] for i in range(5, hard_process.size())]
            weight = process.bias.weight(particles[0].pT()) if process.bias else 1.0
            self.seen += 1
            self.sum_of_weights += weight
            final = [particle for particle in particles if particle.isFinal()]
            parton_ht = sum(particle.pT() for particle in final if particle.idAbs() <= _BOTTOM)
            kept = process.hard_process_acceptance(parton_ht)
            self.weight = weight / kept
            return draw.random() >= kept or not choose_leptons(final)

        def canVetoPartonLevel(self) -> bool:
            return True

        def doVetoPartonLevel(self, shower: Any) -> bool:
            if self.exhausted:
                return False
            self.partons = shower.size()
            self.parton_jets.analyze(shower)
            return bool(self.parton_jets.sizeJet() < settings.min_jets_with_lepton)

    return EarlyFilter()


class _LeptonFilter:
    """Decides after the hard process whether the event can have a wanted lepton.

    An event with taus only is worth its time only if one of them decays to a wanted lepton. Nature draws that later;
    here it is drawn at once, with the same branching fraction, and the decay is then forced. Nothing is reweighted.
    """

    def __init__(self, pythia: Any, settings: GeneratorSettings, draw: random.Random) -> None:
        self._particle_data = pythia.particleData
        self._wanted = settings.wanted_leptons
        self._settings = settings
        self._draw = draw
        self._forced = False
        self._tau_fraction = 0.0

    def __call__(self, final: Iterable[Any]) -> bool:
        leptons = [p for p in final if p.idAbs() in (_ELECTRON, _MUON, _TAU)]
        taus = sum(p.idAbs() == _TAU for p in leptons)
        if any(p.idAbs() in self._wanted and self._is_near_acceptance(p) for p in leptons) or taus > 1:
            self._force_tau_decays(forced=False)
            return True
        if taus == 0:
            return False
        self._tau_fraction = self._tau_fraction or self._fraction_of_taus()
        if self._draw.random() >= self._tau_fraction:
            return False
        self._force_tau_decays(forced=True)
        return True

    def _is_near_acceptance(self, lepton: Any) -> bool:
        return lepton.pT() > self._settings.hard_lepton_pt and abs(lepton.eta()) < self._settings.particle_eta

    def _fraction_of_taus(self) -> float:
        tau = self._particle_data.particleDataEntryPtr(_TAU)
        channels = [tau.channel(i) for i in range(tau.sizeChannels())]
        return sum(c.bRatio() for c in channels if any(c.contains(kind) for kind in self._wanted))

    def _force_tau_decays(self, *, forced: bool) -> None:
        if forced is self._forced:
            return
        self._forced = forced
        self._particle_data.readString(f"{_TAU}:onMode = {'off' if forced else 'on'}")
        if forced:
            self._particle_data.readString(f"{_TAU}:onIfAny = {' '.join(map(str, self._wanted))}")


def _append_event(
    columns: dict[str, list[Any]], event: Any, clustering: Any, early_filter: Any, settings: GeneratorSettings
) -> None:
    """Reads one event off the generator and appends it, unless it has too few jets or no prompt lepton."""
    clustering.analyze(event)
    if clustering.sizeJet() < settings.min_jets_with_lepton:
        return
    leptons, neutrinos = _prompt_leptons(event)
    leptons = [(p, tau) for p, tau in leptons if p.pT() > settings.lepton_pt and abs(p.eta()) < settings.particle_eta]
    if not leptons:
        return
    columns["weight"].append(early_filter.weight)
    columns["met_x"].append(sum(p.px() for p in neutrinos))
    columns["met_y"].append(sum(p.py() for p in neutrinos))
    columns["n_lepton"].append(len(leptons))
    for particle, from_tau in leptons:
        for name, value in (("pt", particle.pT()), ("eta", particle.eta()), ("phi", particle.phi())):
            columns[f"lepton_{name}"].append(value)
        columns["lepton_pdg_id"].append(particle.id())
        columns["lepton_from_tau"].append(from_tau)
    heavy = _heavy_hadrons(event, early_filter.partons, settings.heavy_hadron_pt)
    columns["n_jet"].append(clustering.sizeJet())
    for i in range(clustering.sizeJet()):
        momentum = clustering.p(i)
        eta, phi = momentum.eta(), momentum.phi()
        columns["jet_pt"].append(momentum.pT())
        columns["jet_eta"].append(eta)
        columns["jet_phi"].append(phi)
        columns["jet_mass"].append(max(momentum.mCalc(), 0.0))
        columns["jet_flavour"].append(_flavour(eta, phi, heavy, settings.heavy_hadron_delta_r))


def _prompt_leptons(event: Any) -> tuple[list[tuple[Any, bool]], list[Any]]:
    """Final electrons and muons from W bosons, directly or through a tau, and the neutrinos of the same decays."""
    leptons, neutrinos = [], []
    for particle in _decay_products(event, [i for i in range(5, 9) if event[i].mother1() == _INCOMING_PARTON]):
        kind = particle.idAbs()
        if kind in _NEUTRINOS:
            neutrinos.append(particle)
        elif kind == _TAU:
            decay = [event[j] for j in particle.daughterListRecursive()]
            decay = [p for p in decay if p.isFinal()]
            leptons += [(p, True) for p in decay if p.idAbs() in (_ELECTRON, _MUON)]
            neutrinos += [p for p in decay if p.idAbs() in _NEUTRINOS]
        elif kind in (_ELECTRON, _MUON):
            leptons.append((particle, False))
    return leptons, neutrinos


def _decay_products(event: Any, indices: Iterable[int]) -> list[Any]:
    """What the heavy resonances among these entries decay to, each followed to its last copy."""
    products = []
    for index in indices:
        last = event[event[index].iBotCopyId()]
        if last.idAbs() in _RESONANCES:
            products += _decay_products(event, last.daughterList())
        else:
            products.append(last)
    return products


def _heavy_hadrons(event: Any, first: int, min_pt: float) -> list[tuple[int, float, float]]:
    """Flavour (4 or 5), pseudorapidity and azimuth of charm and bottom hadrons above a transverse momentum.

    Args:
        event: the full record.
        first: number of its entries before hadronisation.
        min_pt: GeV.
    """
    found = []
    for i in range(first, event.size()):
        code = event[i].idAbs()
        if code < _LIGHTEST_CHARM_MESON:
            continue
        flavour = _heaviest_quark(code)
        if flavour in (_CHARM, _BOTTOM) and event[i].pT() > min_pt:
            found.append((flavour, event[i].eta(), event[i].phi()))
    return found


def _heaviest_quark(hadron: int) -> int:
    """The leading digit of a hadron's PDG code, without the digits for excitations."""
    code = hadron % 10_000
    return code // 1000 or code // 100


def _flavour(eta: float, phi: float, heavy: Iterable[tuple[int, float, float]], delta_r: float) -> int:
    near = (
        flavour
        for flavour, hadron_eta, hadron_phi in heavy
        if (eta - hadron_eta) ** 2 + ((phi - hadron_phi + np.pi) % (2 * np.pi) - np.pi) ** 2 < delta_r**2
    )
    return max(near, default=0)


def _as_array(columns: dict[str, list[Any]]) -> ak.Array:
    def collection(name: str, **dtypes: str) -> ak.Array:
        fields = {key: np.asarray(columns[f"{name}_{key}"], dtype) for key, dtype in dtypes.items()}
        return ak.unflatten(ak.zip(fields), np.asarray(columns[f"n_{name}"], "i8"))

    return ak.zip(
        {
            "weight": np.asarray(columns["weight"], "f8"),
            "met_x": np.asarray(columns["met_x"], "f4"),
            "met_y": np.asarray(columns["met_y"], "f4"),
            "lepton": collection("lepton", pt="f4", eta="f4", phi="f4", pdg_id="i4", from_tau="?"),
            "jet": collection("jet", pt="f4", eta="f4", phi="f4", mass="f4", flavour="i4"),
        },
        depth_limit=1,
    )
