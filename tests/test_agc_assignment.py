"""configs/agc_assignment.yaml on all simulated events: cuts before a frozen BDT, exact and with right derivatives."""

import sys
from dataclasses import fields
from functools import cache
from typing import Any

import awkward as ak
import numpy as np
import pytest
from pipeline.analyses import assignment
from pipeline.analyses.assignment import MODELS
from pipeline.analysis import yields_at
from pipeline.config import load_config
from pipeline.errors import InputError
from pipeline.events.cuts import arrays
from pipeline.events.variations import resolution_factors
from pipeline.names import names_of
from pipeline.on_disk import _sources
from pipeline.validation.gradient_check import GradientCheck, check_gradients, with_unit_weights

from analysis_data import ROOT, default_thresholds, everything, file_of, random_thresholds
from reference import agc_selection as agc

pytest.importorskip("xgboost", reason="pip install '.[bdt]'")

from reference.assignment import Twin

CONFIG = "agc_assignment.yaml"
KINEMATICS = ("nominal", "pt_scale_up", "pt_res_up")


class Truth:
    """Counts of one data set under one kinematic variation, by an independent selection and a search of each event.

    What was found for an event and a selection is remembered: most of them come again with other thresholds.
    """

    def __init__(self, number: int, kinematic: int) -> None:
        events = agc.read(file_of(everything(CONFIG).samples[number]), extra=("event", "Jet_qgl"))
        jets = ak.with_field(events.Jet, events.Jet_qgl, "qgl")
        if kinematic == 1:
            jets = agc.scaled(jets, 1.03)
        if kinematic == 2:
            numbers = np.repeat(ak.to_numpy(events.event), ak.to_numpy(ak.num(jets)))
            eta, phi = (ak.to_numpy(ak.flatten(jets[name])) for name in ("eta", "phi"))
            seed = everything(CONFIG).config.seed
            jets = agc.scaled(jets, ak.unflatten(resolution_factors(numbers, eta, phi, 0.05, seed), ak.num(jets)))
        self.number = ak.to_numpy(events.event).tolist()
        self.jets = ak.with_field(jets, ak.local_index(jets.pt), "place")
        self.electrons = ak.with_field(events.Electron, ak.local_index(events.Electron.pt), "place")
        self.muons = events.Muon
        self.twin = Twin(MODELS / "even.ubj", MODELS / "odd.ubj")
        self.known: dict[Any, float] = {}

    def counts(self, thresholds: dict[str, float]) -> np.ndarray:
        """By bin: 4j1b, then 4j2b."""
        cuts = agc.Thresholds(**{name.replace("_eta", "_abs_eta"): value for name, value in thresholds.items()})
        electrons = agc.selected_electrons(self.electrons, cuts)
        jets = agc.selected_jets(self.jets, cuts)
        tags = ak.sum(jets.btagCSVV2 > agc.in_precision_of(jets.btagCSVV2, cuts.jet_btag), axis=1)
        leptons = ak.num(electrons) + ak.num(agc.selected_muons(self.muons, cuts))
        preselected = (leptons == 1) & (ak.num(jets) >= 4)
        control, signal = (np.flatnonzero(ak.to_numpy(preselected & of)) for of in (tags == 1, tags >= 2))
        masses = self.masses(signal, jets[signal], electrons[signal])
        histograms = [agc.histogram(values, 1.0)[0] for values in (ak.to_numpy(agc.ht(jets[control])), masses)]
        return np.concatenate(histograms)

    def masses(self, rows: np.ndarray, jets: ak.Array, electrons: ak.Array) -> np.ndarray:
        names = {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "btag": "btagCSVV2", "qgl": "qgl"}
        flat = {ours: ak.to_numpy(ak.flatten(jets[name])).astype(float) for ours, name in names.items()}
        last = np.cumsum(ak.to_numpy(ak.num(jets)))
        first = last - ak.to_numpy(ak.num(jets))
        lepton = {name: ak.to_numpy(electrons[name][:, 0]).astype(float) for name in ("pt", "eta", "phi", "mass")}
        four_to_six, one = map(tuple, jets.place[:, :6].tolist()), electrons.place[:, 0].tolist()
        keys = [*zip(rows.tolist(), four_to_six, one, strict=True)]
        unknown = {key: n for n, key in enumerate(keys) if key not in self.known}
        cases = [
            (
                {name: column[first[n] : last[n]] for name, column in flat.items()},
                {name: column[n] for name, column in lepton.items()},
                self.number[rows[n]],
            )
            for n in unknown.values()
        ]
        chosen = self.twin.chosen(cases)
        self.known |= {key: each["mass_w1w2btophad"] for key, each in zip(unknown, chosen, strict=True)}
        return np.array([self.known[key] for key in keys])


@cache
def truth(number: int, kinematic: int) -> Truth:
    return Truth(number, kinematic)


def assert_counts(thresholds: dict[str, float], kinematics: tuple[int, ...]) -> int:
    """Integer by integer, of every data set; returns how many events there are in 4j2b."""
    all_ = everything(CONFIG)
    found = np.asarray(yields_at(all_.analysis, arrays(thresholds), with_unit_weights(all_.data)))[..., 0]
    compared = 0
    for number, sample in enumerate(all_.samples):
        for kinematic in kinematics if sample.dataset.role == "nominal" else kinematics[:1]:
            expected = truth(number, kinematic).counts(thresholds)
            label = f"{sample.dataset.process}, {sample.dataset.variation}, {KINEMATICS[kinematic]}, at {thresholds}"
            np.testing.assert_array_equal(found[kinematic, number], expected, err_msg=label)
            compared += int(expected[11:].sum())
    return compared


def test_without_xgboost_the_config_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    assignment._bdt.cache_clear()
    with pytest.raises(InputError, match=r"^event_function: the BDT .* is not installed; pip install"):
        names_of(load_config(ROOT / "configs" / CONFIG))


def test_events_on_disk_are_made_anew_for_other_bdts():
    config = load_config(ROOT / "configs" / CONFIG)
    sources = [*_sources(config, names_of(config))]
    assert all((MODELS / f"{name}.ubj").read_bytes() in sources for name in ("even", "odd"))


@pytest.mark.long
def test_counts_equal_the_twin_at_the_default_thresholds():
    assert assert_counts(default_thresholds(everything(CONFIG).config), (0, 1, 2)) > 50_000


@pytest.mark.long
def test_every_derivative_is_that_of_the_exact_histograms():
    """Of all counts by every threshold, for every data set, kinematic variation and bin.

    But the first of 4j1b: four jets above the threshold have an HT near its lower end, and a finite step sees that.
    """
    all_ = everything(CONFIG)
    widths = {name: each.bandwidth for name, each in all_.config.thresholds.items() if each.trainable}
    checks = check_gradients(all_.analysis, default_thresholds(all_.config), widths, with_unit_weights(all_.data))
    assert set(checks) == {"electron_pt", "jet_pt", "jet_btag"}
    for name, check in checks.items():
        parts = (getattr(check, each.name)[:, :, 1:] for each in fields(check))
        pulls = GradientCheck(*parts).pulls()
        assert pulls.size > 50, name
        assert np.sqrt(np.mean(pulls**2)) < 0.5, name
        assert np.abs(pulls).max() < 3, name


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_counts_equal_the_twin_at_random_thresholds(seed):
    """The first two under every kinematic variation, the others nominal."""
    config = everything(CONFIG).config
    drawn = random_thresholds(config, np.random.default_rng(seed))
    moved = {name: drawn[name] for name, each in config.thresholds.items() if each.trainable}
    assert assert_counts(default_thresholds(config) | moved, (0, 1, 2) if seed < 2 else (0,)) > 500
