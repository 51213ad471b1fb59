"""The command that writes a manifest: what it writes is read, and agrees with what NumPy finds in the files."""

import hashlib
import subprocess
import sys

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from pipeline.ingest import InputError, Skim, read
from pipeline.ingest.manifest import load_manifest
from pipeline.manifest import main


def events_file(path, weights: np.ndarray, *, runs: bool = False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        file.mktree("Events", {"genWeight": "float32", "event": "uint64"})
        file["Events"].extend({"genWeight": weights, "event": np.arange(len(weights), dtype=np.uint64)})
        if runs:
            file.mktree("Runs", {"genEventCount": "int64", "genEventSumw": "float64", "genEventSumw2": "float64"})
            sums = {"genEventCount": [1000], "genEventSumw": [900.0], "genEventSumw2": [1100.0]}
            file["Runs"].extend({name: np.array(value) for name, value in sums.items()})
    return path


@pytest.fixture
def files(tmp_path):
    weights = np.array([1.0, -1.0, 2.0], np.float32)
    events_file(tmp_path / "data/ttbar/a.root", weights)
    events_file(tmp_path / "data/ttbar/b.root", weights[:2], runs=True)
    events_file(tmp_path / "data/wjets__scaleup.root", np.ones(5, np.float32))
    ak.to_parquet(ak.zip({"mass": ak.Array([1.0, 2.0])}), tmp_path / "data/qcd.parquet")
    return tmp_path / "data"


def written(files, tmp_path, *arguments: str):
    output = tmp_path / "out" / "manifest.yaml"
    output.parent.mkdir()
    assert main([*arguments, "--output", str(output)]) == 0
    return load_manifest(output)


def test_what_is_written_is_what_the_files_hold(files, tmp_path, capsys):
    patterns = (f"ttbar={files}/ttbar/*.root", str(files / "wjets__scaleup.root"), str(files / "qcd.parquet"))
    manifest = written(
        files, tmp_path, *patterns, "--cross-sections", "ttbar=831.76", "wjets=3", "qcd=1e9", "--set", "own"
    )
    assert list(manifest.datasets) == ["own/ttbar__nominal", "own/wjets__scaleup", "own/qcd__nominal"]
    ttbar = manifest.dataset("own", "ttbar")
    assert (ttbar.weights, ttbar.cross_section_pb) == ("generator", 831.76)
    first, second = ttbar.files
    content = (files / "ttbar/a.root").read_bytes()
    assert (first.size, first.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (first.events, first.entries, first.sum_of_weights, first.sum_of_squared_weights) == (3, 3, 2.0, 6.0)
    assert (second.events, second.entries, second.sum_of_weights, second.sum_of_squared_weights) == (1000, 2, 900, 1100)
    assert manifest.dataset("own", "wjets", "scaleup").weights == "none"
    assert manifest.dataset("own", "qcd").events == 2
    for dataset in manifest.datasets.values():
        ingested = read(dataset.locations(), Skim(weight=dataset.weights), stated=dataset.files)
        assert dataset.as_read(ingested.files).normalisation(1.0) == dataset.normalisation(1.0)
    assert "own/ttbar__nominal: 2 files, weights: generator\n" in capsys.readouterr().out


def test_folders_and_missing_cross_sections(files, tmp_path, capsys):
    (files / "qcd.parquet").unlink()
    written_text = written_raw(files, tmp_path, f"all={files}")
    assert [file["path"] for file in written_text["datasets"]["mine/all__nominal"]["files"]] == [
        "ttbar/a.root",
        "ttbar/b.root",
        "wjets__scaleup.root",
    ]
    assert "fill in its cross_section_pb" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"mine/all__nominal.cross_section_pb: input should be a valid number"):
        load_manifest(tmp_path / "manifest.yaml")


def written_raw(files, tmp_path, *arguments: str) -> dict:
    assert main([*arguments, "--output", str(tmp_path / "manifest.yaml")]) == 0
    return yaml.safe_load((tmp_path / "manifest.yaml").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=nowhere/*.root"], "nowhere/*.root: there is no ROOT or parquet file of this name"),
        (["ttbar={files}/ttbar", "--cross-sections", "tt=1"], "there is no process 'tt'; it has ttbar"),
        (["ttbar={files}/ttbar", "--cross-sections", "ttbar=a"], "'a' is no number; give it in pb"),
        (["ttbar={files}/ttbar", "--tree", "Tree"], "has no tree 'Tree'; it holds Events"),
        (["https://x/a.root"], "https://x/a.root: is a URL, and a checksum needs the whole file; fetch it"),
        (["p={files}/nan.root"], "nan.root: its genWeight is NaN or infinite in some events; make it again."),
        (["p={files}/ttbar", "p={files}/qcd.parquet"], "qcd.parquet: has no genWeight, but other files of the same"),
    ],
)
def test_mistakes_are_sentences(files, tmp_path, capsys, arguments, message):
    events_file(files / "nan.root", np.array([1.0, np.nan], np.float32))
    arguments = [argument.format(files=files) for argument in arguments]
    assert main([*arguments, "--output", str(tmp_path / "m.yaml")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m.yaml").exists()


def test_a_folder_is_a_process(files, tmp_path):
    entry = written_raw(files, tmp_path, str(files / "ttbar"))["datasets"]["mine/ttbar__nominal"]
    assert [file["path"] for file in entry["files"]] == ["a.root", "b.root"]


def test_a_manifest_is_not_written_over(files, tmp_path, capsys):
    (tmp_path / "m.yaml").write_text("mine")
    assert main([f"ttbar={files}/ttbar", "--output", str(tmp_path / "m.yaml")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "m.yaml").read_text() == "mine"


def test_the_module_is_a_command():
    command = [sys.executable, "-m", "pipeline.manifest", "--help"]
    assert "ttbar=ttbar/*.root" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
