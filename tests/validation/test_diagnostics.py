"""What the report computes beside the result, against the optimiser's own gradient, awkward, pyhf and Minuit."""

from typing import Any

import awkward as ak
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.analysis import loss_and_gradient, merit_of, numbers_of
from pipeline.config import Config
from pipeline.inference.histfactory.to_pyhf import to_pyhf
from pipeline.problem import Problem
from pipeline.report import cutflow
from pipeline.report.gallery import Scene, pictures
from pipeline.report.histograms import merged
from pipeline.tuning.descent import descend
from pipeline.tuning.tune import evaluation, ranges, schedule, starts
from pipeline.validation import diagnostics

from small_analysis import THRESHOLDS, small_analysis, small_data

schema = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
slow = pytest.mark.slow


def arrays(values: dict[str, float]) -> dict[str, Any]:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}


@slow
def test_contributions_add_up_to_the_gradient(config: Config, problem: Problem, optimum: dict[str, float]) -> None:
    bandwidths = arrays(diagnostics.final_bandwidths(config))
    _, gradient = loss_and_gradient(arrays(optimum), problem.analysis, bandwidths, problem.training)
    found = diagnostics.contributions(config, problem.analysis, problem.training, optimum)
    assert {one.cut for one in found} == set(gradient)
    for one in found:
        # Z is minus the loss.
        assert one.values.sum() == pytest.approx(-one.step * float(gradient[one.cut]), rel=1e-9)


@slow
def test_profile_goes_through_the_optimum(config: Config, problem: Problem, optimum: dict[str, float]) -> None:
    profiles = diagnostics.profile(config, problem.analysis, problem.training, problem.validation, optimum, points=3)
    for part, data in (("training", problem.training), ("validation", problem.validation)):
        expected = float(merit_of(arrays(optimum), problem.analysis, data).value)
        for one in profiles:
            (place,) = np.flatnonzero(one.thresholds == optimum[one.cut])
            assert getattr(one, part)[place] == expected


@slow
@schema
def test_regions_are_the_templates_of_the_workspace(
    config: Config, problem: Problem, optimum: dict[str, float]
) -> None:
    """Merged, they are what the model of the fit has; varied, they are its normsys times its histosys."""
    numbers = numbers_of(arrays(optimum), problem.analysis, problem.validation)
    workspace = to_pyhf(problem.analysis.structure, numbers, measurement="m")
    regions = diagnostics.regions(config, problem.analysis, problem.validation, optimum)
    for region in regions:
        fitted = merged(region)
        assert fitted is not None
        (channel,) = (one for one in workspace["channels"] if one["name"] == region.name)
        filled = np.unique(region.merged_into)
        for sample in channel["samples"]:
            row = region.processes.index(sample["name"])
            np.testing.assert_allclose(np.array(sample["data"])[filled], fitted.nominal[row], rtol=1e-12)
            parts = {(one["name"], one["type"]): one["data"] for one in sample["modifiers"]}
            for name in region.up:
                norm, shape = parts.get((name, "normsys")), parts.get((name, "histosys"))
                for table, factor, varied in ((fitted.up, "hi", "hi_data"), (fitted.down, "lo", "lo_data")):
                    model = np.array(shape[varied] if shape else sample["data"])[filled]
                    model = model * (norm[factor] if norm else 1.0)
                    np.testing.assert_allclose(table[name][row], model, rtol=1e-9, atol=1e-9)


def wjets(config: Config, problem: Problem) -> tuple[ak.Array, np.ndarray, int]:
    """All events of one process as they were read, with what each stands for, and the row of the process."""
    (sample,) = (one for one in problem.samples if (one.dataset.process, one.dataset.role) == ("wjets", "nominal"))
    own = ak.to_numpy(sample.events.genWeight).astype(np.float64) if sample.dataset.weights == "generator" else 1.0
    weights = np.broadcast_to(own * sample.dataset.normalisation(config.luminosity), len(sample.events))
    return sample.events, weights, list(config.processes).index("wjets")


def chosen(events: ak.Array, cuts: dict[str, float], without: str = "") -> dict[str, ak.Array]:
    """Masks of good leptons and jets, written out once more in awkward."""
    t = {name: np.float32(value) for name, value in cuts.items()} | ({without: np.float32(-1e9)} if without else {})
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
def test_cut_flow_counts_leptons_as_awkward_does(config: Config, problem: Problem, optimum: dict[str, float]) -> None:
    """Both halves together are all events, so their mean is the count of the whole sample."""
    flows = []
    for data in (problem.training, problem.validation):
        regions = diagnostics.regions(config, problem.analysis, data, optimum)
        flows.append(cutflow.cut_flow(config, problem.analysis, data, optimum, regions))
        np.testing.assert_allclose(flows[-1].events[:, -2], regions[0].nominal.sum(axis=1))
    events, weights, row = wjets(config, problem)
    good = chosen(events, optimum)
    one_lepton = ak.to_numpy(ak.sum(good["electron"], axis=1) + ak.sum(good["muon"], axis=1)) == 1
    four_jets = one_lepton & ak.to_numpy(ak.sum(good["jet"], axis=1) >= 4)
    expected = [weights[mask].sum() for mask in (one_lepton, four_jets)]
    np.testing.assert_allclose(np.mean([flow.events[row, 1:3] for flow in flows], axis=0), expected, rtol=1e-5)


@slow
def test_distributions_hold_what_awkward_finds(config: Config, problem: Problem, optimum: dict[str, float]) -> None:
    """Objects that pass all cuts but one, in events that are selected once the object is accepted."""
    found = [
        {one.cut: one for one in cutflow.distributions(config, problem.analysis, data, optimum, optimum)}
        for data in (problem.training, problem.validation)
    ]
    events, weights, row = wjets(config, problem)
    good = chosen(events, optimum)
    leptons = ak.sum(good["electron"], axis=1) + ak.sum(good["muon"], axis=1)
    jets, tags = ak.sum(good["jet"], axis=1), ak.sum(good["jet"] & good["tag"], axis=1)
    loose_electron, loose_jet = (chosen(events, optimum, cut) for cut in ("electron_pt", "jet_pt"))
    # A b-tag that is accepted makes one tag at least; an accepted jet adds itself, and its tag if it has one.
    accepted = {
        "electron_pt": (
            loose_electron["electron"] & (leptons + ~good["electron"] == 1) & ((jets >= 4) & (tags >= 1)),
            events.Electron.pt,
        ),
        "jet_pt": (
            loose_jet["jet"] & (leptons == 1) & (jets + ~good["jet"] >= 4) & (tags + (~good["jet"] & good["tag"]) >= 1),
            events.Jet.pt,
        ),
        "jet_btag": (good["jet"] & ((leptons == 1) & (jets >= 4)), events.Jet.btagCSVV2),
    }
    assert set(found[0]) == set(accepted)
    for cut, (mask, values) in accepted.items():
        each = ak.flatten(ak.broadcast_arrays(weights, values)[0][mask])
        edges = found[0][cut].edges
        expected = np.histogram(ak.to_numpy(ak.flatten(values[mask])), edges, weights=ak.to_numpy(each))[0]
        mean = np.mean([part[cut].values[row] for part in found], axis=0)
        assert expected.sum() > 0
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6 * expected.sum())


def test_events_near_an_event_level_cut_are_those_that_numpy_finds() -> None:
    """One lepton, four jets, a b-tag; HT is the sum over the selected jets, and nothing of its cut is left."""
    analysis, data = small_analysis(), small_data()
    edges = np.linspace(100, 600, 11)
    (cut,) = analysis.selection.on("event")
    found = cutflow.histogram_of_events(analysis, data, cut, THRESHOLDS, edges)
    expected = np.zeros_like(found)
    for group in data.groups:
        pt, btag = np.asarray(group.jet_pt)[0], np.asarray(group.jets["btag"])
        good = pt > np.float32(THRESHOLDS["jet_pt"])
        tags = (good & (btag > np.float32(THRESHOLDS["jet_btag"]))).sum(axis=1)
        electrons = (np.asarray(group.electrons["pt"]) > np.float32(THRESHOLDS["electron_pt"])).sum(axis=1)
        # Muons have no cut in this analysis: each one that is there counts.
        leptons = electrons + (~np.isnan(np.asarray(group.muons["pt"]))).sum(axis=1)
        chosen = (leptons == 1) & (good.sum(axis=1) >= 4) & (tags >= 1)
        ht = np.where(good, pt, 0).sum(axis=1, dtype=np.float64)
        for dataset, process, scale in ((0, 0, 0.1), (1, 1, 0.3)):
            mine = chosen & (np.asarray(group.dataset) == dataset)[:, None]
            expected[process] += scale * np.histogram(ht[mine], edges, weights=np.asarray(group.weight)[mine])[0]
    assert expected.sum() > 10
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@slow
@schema
def test_all_pictures_are_made_and_a_broken_one_is_a_warning(
    problem: Problem, optimum: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = numbers_of(arrays(optimum), problem.analysis, problem.validation)
    config = problem.config
    steps = tuple(descend(evaluation(problem), ranges(config), starts(config), schedule(config)))
    scene = Scene(
        problem=problem,
        before=optimum,
        after=optimum | steps[-1].best,
        steps=steps,
        workspace=to_pyhf(problem.analysis.structure, numbers, measurement="m"),
        symbol="Z",
        source="Simulated",
    )
    said: list[str] = []
    monkeypatch.setattr(diagnostics, "profile", lambda *_: 1 / 0)
    names = [picture.name for picture in pictures(scene, said.append)]
    assert len(names) == 8
    assert "profiles" not in names
    (sentence,) = said
    assert "'profiles'" in sentence
    assert "ZeroDivisionError" in sentence


@schema
def test_impacts_are_those_of_refits_by_minuit() -> None:
    """Hold a parameter one post-fit standard deviation up, fit the rest: μ moves by the impact."""
    tilt = {"hi_data": [5040.0, 3970.0], "lo_data": [4960.0, 4030.0]}
    workspace = {
        "version": "1.0.0",
        "channels": [
            {
                "name": "c",
                "samples": [
                    {
                        "name": "signal",
                        "data": [400.0, 900.0],
                        "modifiers": [
                            {"name": "mu", "type": "normfactor", "data": None},
                            {"name": "size", "type": "normsys", "data": {"hi": 1.02, "lo": 0.98}},
                        ],
                    },
                    {
                        "name": "background",
                        "data": [5000.0, 4000.0],
                        "modifiers": [
                            {"name": "tilt", "type": "histosys", "data": tilt},
                            {"name": "size", "type": "normsys", "data": {"hi": 1.01, "lo": 0.99}},
                        ],
                    },
                ],
            }
        ],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
        "observations": [{"name": "c", "data": [5400.0, 4900.0]}],
    }  # fmt: skip
    found = {one.parameter: one for one in diagnostics.impacts(workspace)}
    assert set(found) == {"size", "tilt"}
    backend, optimizer = pyhf.get_backend()
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-4))
    try:
        model = pyhf.Workspace(workspace).model()
        data = [5400.0, 4900.0, *model.config.auxdata]
        free, uncertainty = pyhf.infer.mle.fit(data, model, return_uncertainties=True).T
        for name, one in found.items():
            place = model.config.par_names.index(name)
            assert one.width == pytest.approx(uncertainty[place], rel=0.01)
            start, held = list(free), model.config.suggested_fixed()
            start[place] += uncertainty[place]
            held[place] = True
            moved = pyhf.infer.mle.fit(data, model, init_pars=start, fixed_params=held)
            shift = moved[model.config.poi_index] - free[model.config.poi_index]
            assert one.shift == pytest.approx(shift, rel=0.05, abs=1e-3)
    finally:
        pyhf.set_backend(backend, optimizer)


@pytest.mark.parametrize("center", [25.0, 30.0, 60.0])
def test_grid_contains_the_center_and_respects_bounds(center: float) -> None:
    grid = diagnostics.around(center, 9.0, (25.0, 60.0), 7)
    assert center in grid
    assert grid.min() >= 25
    assert grid.max() <= 60
    assert np.all(np.diff(grid) > 0)
