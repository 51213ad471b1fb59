"""What each cut cuts, against plain NumPy and awkward."""

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from pipeline.config import Config, load_config
from pipeline.population import nominal_scales, opened
from pipeline.problem import Problem
from pipeline.validation.distributions import distributions, histogram_at_cut

from analysis_data import ROOT
from small_analysis import THRESHOLDS, small_analysis, small_data

slow = pytest.mark.long


def small_problem() -> Problem:
    data = small_data()
    return Problem(load_config(ROOT / "configs" / "every_threshold.yaml"), small_analysis(), data, data, None, ())


def wjets(config: Config, problem: Problem) -> tuple[ak.Array, np.ndarray, int]:
    """All events of one process as they were read, with what each stands for, and its row."""
    (sample,) = (one for one in problem.samples if (one.dataset.process, one.dataset.role) == ("wjets", "nominal"))
    weights = ak.to_numpy(sample.events.weight).astype(np.float64) * sample.dataset.normalisation(config.luminosity)
    return sample.events, weights, list(config.processes).index("wjets")


def indices(problem: Problem, row: int) -> np.ndarray:
    """Of the validation events of a process."""
    dataset = int(nominal_scales(problem.validation)[row].argmax())
    groups = problem.validation.events.groups
    return np.concatenate([np.asarray(group.index)[np.asarray(group.dataset) == dataset].ravel() for group in groups])


def chosen(events: ak.Array, cuts: dict[str, float]) -> dict[str, ak.Array]:
    """Masks of good leptons and jets, written out once more in awkward."""
    t = {name: np.float32(value) for name, value in cuts.items()}
    electron, muon, jet = events.Electron, events.Muon, events.Jet
    return {
        "electron": (electron.pt > t["electron_pt"])
        & (abs(electron.eta) < t["electron_eta"])
        & (electron.sip3d < t["electron_sip3d"]),
        "muon": (muon.pt > t["muon_pt"])
        & (abs(muon.eta) < t["muon_eta"])
        & (muon.sip3d < t["muon_sip3d"])
        & (muon.pfRelIso04_all < t["muon_isolation"]),
        "jet": (jet.pt > t["jet_pt"]) & (abs(jet.eta) < t["jet_eta"]),
        "tag": jet.btagCSVV2 > t["jet_btag"],
    }


@slow
def test_distributions_hold_what_awkward_finds(config: Config, problem: Problem, optimum: dict[str, float]) -> None:
    """Objects that pass all cuts but one, in events that are selected without it; both halves are all events."""
    bandwidths = dict.fromkeys(config.cuts, 1.0)
    halves = [problem, replace(problem, validation=problem.training)]
    found = [{one.cut: one for one in distributions(half, optimum, optimum, bandwidths)} for half in halves]
    events, weights, row = wjets(config, problem)
    shares = [weights[np.isin(ak.to_numpy(events.index), indices(half, row))].sum() for half in halves]
    accepted = {}
    for cut, kind, values in (
        ("electron_pt", "electron", events.Electron.pt),
        ("jet_pt", "jet", events.Jet.pt),
        ("jet_btag", "jet", events.Jet.btagCSVV2),
    ):
        good = chosen(events, opened(config, optimum, [cut]))
        leptons = ak.sum(good["electron"], axis=1) + ak.sum(good["muon"], axis=1)
        jets, tags = ak.sum(good["jet"], axis=1), ak.sum(good["jet"] & good["tag"], axis=1)
        accepted[cut] = (good[kind] & ((leptons == 1) & (jets >= 4) & (tags >= 1)), values)
    assert set(found[0]) == set(accepted)
    for cut, (mask, values) in accepted.items():
        each = ak.flatten(ak.broadcast_arrays(weights, values)[0][mask])
        edges = found[0][cut].edges
        expected = np.histogram(ak.to_numpy(ak.flatten(values[mask])), edges, weights=ak.to_numpy(each))[0]
        assert expected.sum() > 0
        # Each part stands for all events, so much more as it has a smaller share of their weights.
        mean = np.average([part[cut].values[row] for part in found], axis=0, weights=shares)
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6 * expected.sum())


def test_events_near_an_event_level_cut_are_those_that_numpy_finds() -> None:
    """One lepton, four jets, a b-tag; HT is the sum over the selected jets, and nothing of its cut is left."""
    problem, edges = small_problem(), np.linspace(100, 600, 11)
    (cut,) = problem.analysis.selection.on("event")
    found = histogram_at_cut(problem, cut, opened(problem.config, THRESHOLDS, [cut.name]), edges)
    expected = np.zeros_like(found)
    for group in problem.validation.events.groups:
        pt, btag = np.asarray(group.varied_objects["jet"]["pt"])[0], np.asarray(group.objects["jet"]["btag"])
        good = pt > np.float32(THRESHOLDS["jet_pt"])
        tags = (good & (btag > np.float32(THRESHOLDS["jet_btag"]))).sum(axis=1)
        electrons = (np.asarray(group.objects["electron"]["pt"]) > np.float32(THRESHOLDS["electron_pt"])).sum(axis=1)
        # Muons have no cut in this analysis: each one that is there counts.
        leptons = electrons + (~np.isnan(np.asarray(group.objects["muon"]["pt"]))).sum(axis=1)
        chosen = (leptons == 1) & (good.sum(axis=1) >= 4) & (tags >= 1)
        ht = np.where(good, pt, 0).sum(axis=1, dtype=np.float64)
        for dataset, process, scale in ((0, 0, 0.1), (1, 1, 0.3)):
            mine = chosen & (np.asarray(group.dataset) == dataset)[:, None]
            expected[process] += scale * np.histogram(ht[mine], edges, weights=np.asarray(group.weight)[mine])[0]
    assert expected.sum() > 10
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["electron_pt", "jet_pt", "jet_btag"])
def test_objects_near_a_cut_are_those_that_numpy_finds(name: str) -> None:
    """Objects that pass the other cuts on them, in events that are selected without this one."""
    problem = small_problem()
    (cut,) = (cut for cut in problem.analysis.selection.cuts if cut.name == name)
    edges = np.linspace(0, 1, 6) if name == "jet_btag" else np.linspace(20, 100, 9)
    at = opened(problem.config, THRESHOLDS, [cut.name])
    found = histogram_at_cut(problem, cut, at, edges)
    expected = np.zeros_like(found)
    for group in problem.validation.events.groups:
        pt, btag = np.asarray(group.varied_objects["jet"]["pt"])[0], np.asarray(group.objects["jet"]["btag"])
        electron = np.asarray(group.objects["electron"]["pt"])
        good, tagged = pt > np.float32(at["jet_pt"]), btag > np.float32(at["jet_btag"])
        leptons = (electron > np.float32(at["electron_pt"])).sum(axis=1)
        leptons = leptons + (~np.isnan(np.asarray(group.objects["muon"]["pt"]))).sum(axis=1)
        ht = np.where(good, pt, 0).sum(axis=1, dtype=np.float64)
        chosen = (leptons == 1) & (good.sum(axis=1) >= 4) & ((good & tagged).sum(axis=1) >= 1) & (ht > at["ht"])
        objects, values = {
            "electron_pt": (electron > np.float32(at["electron_pt"]), electron),
            "jet_pt": (good, pt),
            "jet_btag": (good & tagged, btag),
        }[name]
        weights = np.broadcast_to(np.asarray(group.weight)[:, None], values.shape)
        for dataset, scale in ((0, 0.1), (1, 0.3)):
            mine = objects & chosen[:, None] & (np.asarray(group.dataset) == dataset)[:, None, None]
            expected[dataset] += scale * np.histogram(values[mine], edges, weights=weights[mine])[0]
    assert expected.sum() > 10
    np.testing.assert_allclose(found, expected, rtol=1e-6)
