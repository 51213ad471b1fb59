"""Proton-proton collisions with Pythia 8, down to what a detector would see.

One call of :func:`generate` makes one chunk of one process: hard process, parton shower, hadronisation, anti-kt jets.
Only the few numbers per event that the detector parametrisation needs are kept. Most collisions cannot pass an
analysis of, say, one electron and four jets, so they are dropped as early as that is certain: right after the hard
process (too few wanted leptons), after the shower (too few parton jets), and after hadronisation (too few jets). Every
collision is counted, with its weight, before the first of these filters; yields therefore stay absolute.
"""

from __future__ import annotations

import importlib
import math
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from scripts.samples.settings import GeneratorSettings, ProcessSettings

__all__ = ["Chunk", "generate"]

_ELECTRON, _MUON, _TAU = 11, 13, 15
_TOP, _W = 6, 24
_CHARM, _BOTTOM = 4, 5
_LIGHTEST_CHARM_MESON = 411
_NEUTRINOS = (12, 14, 16)
_RESONANCES = (_TOP, 23, 24, 25, 32, 37)  # top, Z, W, Higgs boson, Z', charged Higgs boson
_INCOMING_PARTON = 3


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Particle-level events of one process and what was counted on the way.

    Attributes:
        events: one record an event: ``weight``, ``met_x``, ``met_y`` (GeV, sum of the prompt neutrinos), ``lepton``
            (prompt electrons and muons: pt, eta, phi, pdg_id, from_tau) and ``jet`` (anti-kt 0.4 of all visible
            particles, leptons included: pt, eta, phi, mass, flavour 0, 4 or 5). Where fat jets are asked for, also
            ``fat_jet`` (pt, eta, phi, mass, quarks: how many of the three quarks of one top quark are inside). Where
            partons are asked for, also ``parton`` (last copies of the quarks of top quark decays: eta, phi, role 24
            from the W boson, 6 the b quark beside it, -6 the b quark beside a W boson that decays to leptons).
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
    fat = settings.fat_jet and pythia8.SlowJet(-1, settings.fat_jet.radius, settings.fat_jet.pt, settings.particle_eta)
    columns: dict[str, list[Any]] = defaultdict(list)
    while True:
        good = pythia.next()
        if early_filter.exhausted:
            break
        if good:
            _append_event(columns, pythia.event, clustering, fat, early_filter, settings)
    return Chunk(
        events=_as_array(columns, settings),
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
    """Decides after the hard process whether the event can have the wanted leptons.

    An event that needs a tau for it is worth its time only if the taus decay to wanted leptons. Where every tau is
    needed, what nature draws later is drawn at once, with the same branching fraction, and the decays are then forced.
    Nothing is reweighted.
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
        missing = self._settings.min_leptons - sum(
            p.idAbs() in self._wanted and self._is_near_acceptance(p) for p in leptons
        )
        if missing <= 0 or taus > missing:
            self._force_tau_decays(forced=False)
            return True
        if taus < missing:
            return False
        self._tau_fraction = self._tau_fraction or self._fraction_of_taus()
        if self._draw.random() >= self._tau_fraction**taus:
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
    columns: dict[str, list[Any]],
    event: Any,
    clustering: Any,
    fat_clustering: Any,
    early_filter: Any,
    settings: GeneratorSettings,
) -> None:
    """Reads one event off the generator and appends it, unless it has too few jets, fat jets or prompt leptons."""
    clustering.analyze(event)
    if clustering.sizeJet() < settings.min_jets_with_lepton:
        return
    leptons, neutrinos = _prompt_leptons(event)
    leptons = [(p, tau) for p, tau in leptons if p.pT() > settings.lepton_pt and abs(p.eta()) < settings.particle_eta]
    if len(leptons) < settings.min_leptons:
        return
    if fat_clustering and not _append_fat_jets(columns, event, fat_clustering, settings):
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
    if settings.partons:
        _append_partons(columns, event)
    heavy = _heavy_hadrons(event, early_filter.partons, settings.heavy_hadron_pt)
    for eta, phi in _append_jets(columns, "jet", clustering):
        columns["jet_flavour"].append(_flavour(eta, phi, heavy, settings.heavy_hadron_delta_r))


def _append_jets(columns: dict[str, list[Any]], name: str, clustering: Any) -> list[tuple[float, float]]:
    """Appends the clustered jets and returns their directions, eta and phi."""
    columns[f"n_{name}"].append(clustering.sizeJet())
    directions = []
    for i in range(clustering.sizeJet()):
        momentum = clustering.p(i)
        directions.append((momentum.eta(), momentum.phi()))
        columns[f"{name}_pt"].append(momentum.pT())
        columns[f"{name}_eta"].append(directions[-1][0])
        columns[f"{name}_phi"].append(directions[-1][1])
        columns[f"{name}_mass"].append(max(momentum.mCalc(), 0.0))
    return directions


def _append_fat_jets(columns: dict[str, list[Any]], event: Any, clustering: Any, settings: GeneratorSettings) -> bool:
    """Appends the fat jets with the number of quarks of a top quark inside; False where there is none."""
    assert settings.fat_jet is not None
    clustering.analyze(event)
    if clustering.sizeJet() == 0:
        return False
    tops = [[(p.eta(), p.phi()) for p in _decay_products(event, [i])] for i in _hadronic_tops(event)]
    for eta, phi in _append_jets(columns, "fat_jet", clustering):
        inside = (sum(_distance2(eta, phi, *quark) < settings.fat_jet.radius**2 for quark in top) for top in tops)
        columns["fat_jet_quarks"].append(max(inside, default=0))
    return True


def _append_partons(columns: dict[str, list[Any]], event: Any) -> None:
    """Appends the quarks of top quark decays with their roles."""
    partons = []
    for top in _tops(event):
        bosons = [i for i in event[top].daughterList() if event[i].idAbs() == _W]
        of_boson = _decay_products(event, bosons)
        hadronic = all(p.idAbs() <= _BOTTOM for p in of_boson)
        others = _decay_products(event, [i for i in event[top].daughterList() if i not in bosons])
        partons += [(p, 6 if hadronic else -6) for p in others if p.idAbs() <= _BOTTOM]
        partons += [(p, 24) for p in of_boson if hadronic]
    columns["n_parton"].append(len(partons))
    for parton, role in partons:
        for name, value in (("eta", parton.eta()), ("phi", parton.phi()), ("role", role)):
            columns[f"parton_{name}"].append(value)


def _tops(event: Any) -> list[int]:
    """Entries of the last copies of top quarks."""
    return [i for i in range(5, event.size()) if event[i].idAbs() == _TOP and event[i].iBotCopyId() == i]


def _hadronic_tops(event: Any) -> list[int]:
    """Entries of top quarks whose decay products, followed to their last copies, are quarks."""
    return [i for i in _tops(event) if all(p.idAbs() <= _BOTTOM for p in _decay_products(event, [i]))]


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
        if _distance2(eta, phi, hadron_eta, hadron_phi) < delta_r**2
    )
    return max(near, default=0)


def _distance2(eta: float, phi: float, other_eta: float, other_phi: float) -> float:
    return (eta - other_eta) ** 2 + ((phi - other_phi + math.pi) % (2 * math.pi) - math.pi) ** 2


def _as_array(columns: dict[str, list[Any]], settings: GeneratorSettings) -> ak.Array:
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
        }
        | (
            {"fat_jet": collection("fat_jet", pt="f4", eta="f4", phi="f4", mass="f4", quarks="i4")}
            if settings.fat_jet
            else {}
        )
        | ({"parton": collection("parton", eta="f4", phi="f4", role="i4")} if settings.partons else {}),
        depth_limit=1,
    )
