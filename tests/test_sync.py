"""Event by event against the AGC: 600 events with edges at every cut, run through its processor (coffea 0.7.21)."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from pipeline.sync import main

from ingest.small_files import write_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
AGC = ROOT / "configs" / "agc.yaml"
REGIONS = ("4j1b", "4j2b")
KINEMATIC = ("nominal", "pt_scale_up", "pt_res_up")
WEIGHTS = (*(f"btag_var_{jet}_{side}" for jet in range(4) for side in ("up", "down")), "scale_var_up", "scale_var_down")


@pytest.fixture(scope="module")
def truth(external_data):
    return json.loads((external_data / "agc_truth_events.json").read_text())["expected"]


@pytest.fixture(scope="module")
def found(external_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("sync") / "sync.json"
    assert main([str(external_data / "agc_truth_events.root"), "--config", str(AGC), "--output", str(output)]) == 0
    return json.loads(output.read_text())


def test_every_region_under_every_variation(found):
    assert set(found) == {f"{region}|{variation}" for region in REGIONS for variation in (*KINEMATIC, *WEIGHTS)}
    assert all(set(entry) == {"event_index", "observable", "weight"} for entry in found.values())


@pytest.mark.parametrize("variation", KINEMATIC)
@pytest.mark.parametrize("region", REGIONS)
def test_same_events_and_observables_as_the_agc(found, truth, region, variation):
    entry, expected = found[f"{region}|{variation}"], truth[f"{region}|{variation}"]
    assert len(expected["event_index"]) > 30
    assert entry["event_index"] == expected["event_index"]
    np.testing.assert_allclose(entry["observable"], expected["observable"], rtol=1e-5)
    assert entry["weight"] == [1.0] * len(expected["event_index"])


@pytest.mark.parametrize("variation", WEIGHTS)
@pytest.mark.parametrize("region", REGIONS)
def test_same_weights_as_the_agc(found, truth, region, variation):
    entry, nominal = found[f"{region}|{variation}"], truth[f"{region}|nominal"]
    assert entry["event_index"] == nominal["event_index"]
    np.testing.assert_allclose(entry["observable"], nominal["observable"], rtol=1e-5)
    np.testing.assert_allclose(entry["weight"], truth[f"{region}|{variation}"]["weight"], rtol=1e-6)


def test_variations_move_events_between_regions(found):
    """The truth would be weak if every variation had the events of the nominal analysis."""
    for variation in ("pt_scale_up", "pt_res_up"):
        assert any(found[f"{r}|{variation}"]["event_index"] != found[f"{r}|nominal"]["event_index"] for r in REGIONS)


def run(capsys, file, output, config=AGC):
    code = main([str(file), "--config", str(config), "--output", str(output)])
    return code, capsys.readouterr()


def test_a_file_without_a_usable_event_gives_empty_lists(external_data, tmp_path, capsys):
    output = tmp_path / "sync.json"
    code, text = run(capsys, external_data / "cms_open_data_ttbar_10_events_rntuple.root", output)
    assert code == 0
    assert "4j2b|nominal: 0 events" in text.out
    assert {"event_index": [], "observable": [], "weight": []} in json.loads(output.read_text()).values()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such file"),
        (b"This is no ROOT file.", "cannot be read"),
        ("Muon only", "has no branch 'Electron_pt'"),
    ],
)
def test_an_unusable_file_is_named_in_one_sentence(tmp_path, capsys, content, sentence):
    file, output = tmp_path / "events.root", tmp_path / "sync.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        write_file(file, {"event": np.arange(3, dtype=np.uint64), "Muon_pt": np.ones(3, np.float32)})
    code, text = run(capsys, file, output)
    assert code == 1
    assert text.err.startswith(f"error: {file}: ")
    assert sentence in text.err
    assert text.err.count("\n") == 1
    assert not output.exists()


def test_resolution_factors_of_a_file_may_be_of_any_size(tmp_path, capsys):
    """Soft jets that the factors of the file lift over the cut: far beyond what our own resolution would ever do."""
    file, output = tmp_path / "events.root", tmp_path / "sync.json"
    jets = {"pt": 14.0, "eta": 0.5, "mass": 5.0, "btagCSVV2": 0.9, "resfac": 2.5}
    columns = {f"Jet_{name}": ak.Array([[value] * 4]) for name, value in jets.items()}
    columns |= {
        f"Electron_{name}": ak.Array([[value]]) for name, value in {"pt": 40.0, "eta": 0.0, "sip3d": 1.0}.items()
    }
    columns |= {f"Muon_{name}": ak.Array([[]]) for name in ("pt", "eta", "sip3d", "pfRelIso04_all")}
    columns = {name: ak.values_astype(column, np.float32) for name, column in columns.items()}
    columns |= {
        "event": np.arange(1, dtype=np.uint64),
        "Jet_phi": ak.values_astype(ak.Array([[0.0, 1.0, 2.0, 3.0]]), np.float32),
        "Jet_jetId": ak.values_astype(ak.Array([[6] * 4]), np.int32),
        "Electron_cutBased": ak.values_astype(ak.Array([[4]]), np.int32),
        "Muon_tightId": ak.values_astype(ak.Array([[]]), bool),
    }
    write_file(file, columns)
    assert run(capsys, file, output)[0] == 0
    found = json.loads(output.read_text())
    assert found["4j2b|nominal"]["event_index"] == []
    assert found["4j2b|pt_res_up"]["event_index"] == [0]


def test_a_config_that_does_not_exist(tmp_path, capsys):
    code, text = run(capsys, tmp_path / "events.root", tmp_path / "sync.json", config=tmp_path / "no.yaml")
    assert code == 1
    assert "no.yaml: cannot be read" in text.err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    assert "Jet_resfac" in text
