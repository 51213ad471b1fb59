"""The benchmark of the ingest: the wide file is a NanoAOD file like its source, and the script reads it."""

import importlib.util
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot


@pytest.fixture(scope="module")
def benchmark_ingest():
    path = Path(__file__).parents[2] / "scripts" / "benchmarks" / "ingest.py"
    spec = importlib.util.spec_from_file_location("benchmark_ingest", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_ingest"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_ingest"]


@pytest.mark.long
def test_the_wide_file_looks_like_its_source(benchmark_ingest, external_data, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_ingest, "CLUSTER", 300)
    source = external_data / "cms_open_data_200_events.root"
    wide = benchmark_ingest.wide_file(source, tmp_path, 0)
    with uproot.open(source) as one, uproot.open(wide) as other:
        assert set(other["Events"].keys()) == set(one["Events"].keys())
        true, drawn = (f["Events"].arrays(["Jet_pt", "Jet_jetId", "event"]) for f in (one, other))
    assert len(drawn) == 300
    assert drawn["event"].tolist() == list(range(len(drawn)))
    assert drawn.Jet_pt.type.content == true.Jet_pt.type.content
    assert set(np.unique(ak.flatten(drawn.Jet_jetId))) == {0, 2, 6}
    assert ak.mean(ak.num(drawn.Jet_pt)) == pytest.approx(ak.mean(ak.num(true.Jet_pt)), rel=0.15)
    entries, events = benchmark_ingest.with_pipeline([wide])
    assert entries == len(drawn)
    assert 0 < len(events) < entries
    assert benchmark_ingest.with_uproot([wide])[1]["event"].tolist() == events["event"].tolist()
