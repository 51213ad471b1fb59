"""The slow twin against the AGC's own processor: 600 events with edges at every cut, run through coffea 0.7.21."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest

from reference import agc_selection as agc


@pytest.fixture(scope="module")
def truth(external_data):
    return json.loads((external_data / "agc_truth_events.json").read_text())["expected"]


@pytest.fixture(scope="module")
def events(external_data):
    return agc.read(external_data / "agc_truth_events.root", extra=("Jet_resfac",))


@pytest.fixture(scope="module")
def selected(events):
    factors = {"nominal": None, "pt_scale_up": 1.03, "pt_res_up": events.Jet_resfac}
    return {name: agc.select(events, jet_pt_factor=factor) for name, factor in factors.items()}


@pytest.mark.parametrize("variation", ["nominal", "pt_scale_up", "pt_res_up"])
@pytest.mark.parametrize("region", ["4j1b", "4j2b"])
def test_same_events_and_observables_as_the_agc(selected, truth, region, variation):
    expected = truth[f"{region}|{variation}"]
    found = selected[variation][region]
    np.testing.assert_array_equal(found.index, expected["event_index"])
    np.testing.assert_allclose(found.observable, expected["observable"], rtol=1e-5)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("jet", range(4))
@pytest.mark.parametrize("region", ["4j1b", "4j2b"])
def test_same_btag_weights_as_the_agc(selected, truth, region, jet, direction):
    expected = truth[f"{region}|btag_var_{jet}_{direction}"]["weight"]
    np.testing.assert_allclose(agc.btag_weight(selected["nominal"][region], jet, direction), expected, rtol=1e-6)


def test_a_threshold_has_the_precision_of_its_column():
    column = ak.values_astype(ak.Array([[2.1]]), np.float32)
    assert not (column < agc.in_precision_of(column, 2.1))[0, 0]


def test_bins_hold_their_lower_edge_only():
    content, variance = agc.histogram(np.asarray([109.9, 110.0, 150.0, 549.9, 550.0]), 2.0)
    assert content.tolist() == [2.0, 2.0, *[0.0] * 8, 2.0]
    assert variance.tolist() == [4.0, 4.0, *[0.0] * 8, 4.0]
