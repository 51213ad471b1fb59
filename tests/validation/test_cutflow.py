"""The cut flow of a small analysis, counted once more with NumPy."""

from collections.abc import Iterator

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.config import load_config
from pipeline.population import nominal_scales, opened
from pipeline.problem import Problem
from pipeline.validation.cutflow import CutFlow, cut_flow

from analysis_data import ROOT
from small_analysis import SELECTION, THRESHOLDS, small_analysis, small_data

CONFIG = load_config(ROOT / "configs" / "every_threshold.yaml")
CLOSED = ("electron_pt", "jet_pt", "jet_btag", "ht")


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Bins so wide that no selected event is outside."""
    data = small_data()
    edges = {"CR": jnp.asarray([0.0, 350.0, 1e6]), "SR": jnp.asarray([-1.0, 200.0, 350.0, 1e6])}
    wide = eqx.tree_at(lambda data: data.events.edges, data, edges)
    return Problem(CONFIG, small_analysis(), wide, wide, None, ())


@pytest.fixture(scope="module")
def flow(problem: Problem) -> CutFlow:
    return cut_flow(problem, THRESHOLDS, ())


def test_steps_are_the_cuts_in_their_order(flow: CutFlow) -> None:
    assert flow.processes == ("signal", "background")
    assert flow.steps == ("all read", "no cut", *CLOSED)
    assert [cut.name for cut in SELECTION.cuts] == list(CLOSED)


def test_scales_are_those_of_the_nominal_samples() -> None:
    np.testing.assert_array_equal(nominal_scales(small_data(50)), [[0.1, 0, 0], [0, 0.3, 0]])


def test_an_open_cut_is_where_events_were_read() -> None:
    """At the end of its bounds, and a kernel beyond; the others stay."""
    at = opened(CONFIG, THRESHOLDS, ["electron_pt", "electron_eta"])
    cuts = CONFIG.cuts
    assert at["electron_pt"] == cuts["electron_pt"].bounds[0] - cuts["electron_pt"].bandwidth
    assert at["electron_eta"] == cuts["electron_eta"].bounds[1] + cuts["electron_eta"].bandwidth
    assert {name: at[name] for name in ("jet_pt", "jet_btag", "ht")} == {
        name: THRESHOLDS[name] for name in ("jet_pt", "jet_btag", "ht")
    }


def counted(problem: Problem, at: dict[str, float]) -> np.ndarray:
    """One lepton, four jets, a b-tag at least; HT is the sum over the selected jets."""
    events = np.zeros(2)
    for dataset, weight, electrons, muons, jets in chunks(problem):
        good = jets["pt"] > np.float32(at["jet_pt"])
        tags = (good & (jets["btag"] > np.float32(at["jet_btag"]))).sum(axis=0)
        # Muons have no cut in this analysis: each one that is there counts.
        leptons = (electrons > np.float32(at["electron_pt"])).sum(axis=0) + (~np.isnan(muons)).sum(axis=0)
        ht = np.where(good, jets["pt"], 0).sum(axis=0, dtype=np.float64)
        chosen = (leptons == 1) & (good.sum(axis=0) >= 4) & (tags >= 1) & (ht > at["ht"])
        if dataset < 2:
            events[dataset] += (0.1, 0.3)[dataset] * weight[chosen].sum(dtype=np.float64)
    return events


def chunks(problem: Problem) -> Iterator[tuple]:
    for group in problem.validation.events.groups:
        for chunk, dataset in enumerate(np.asarray(group.dataset)):
            electrons, muons = (
                np.asarray(kind["pt"])[chunk] for kind in (group.objects["electron"], group.objects["muon"])
            )
            jets = {
                "pt": np.asarray(group.varied_objects["jet"]["pt"])[0, chunk],
                "btag": np.asarray(group.objects["jet"]["btag"])[chunk],
            }
            yield int(dataset), np.asarray(group.weight)[chunk], electrons, muons, jets


def test_all_read_are_all_events(flow: CutFlow) -> None:
    np.testing.assert_allclose(flow.events[:, 0], [150, 450])


@pytest.mark.parametrize("closed", range(len(CLOSED) + 1))
def test_each_step_is_what_numpy_counts(problem: Problem, flow: CutFlow, closed: int) -> None:
    at = opened(CONFIG, THRESHOLDS, CLOSED[closed:])
    expected = counted(problem, at)
    assert expected.min() > 1
    np.testing.assert_allclose(flow.events[:, 1 + closed], expected, rtol=1e-6)
