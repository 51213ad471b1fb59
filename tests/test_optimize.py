"""The command line: what it prints, and that every bad input is one sentence, exit code 1, and no run folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import awkward as ak
import jax
import numpy as np
import pytest
import uproot
import yaml
from pipeline import run as run_module
from pipeline.analysis import templates_at
from pipeline.config import load_config
from pipeline.optimize import main
from pipeline.problem import Problem
from pipeline.translation import default_thresholds

from analysis_data import ROOT

CONFIG = {
    "name": "tiny",
    "luminosity": 100,
    "data": {"manifest": "manifest.yaml"},
    "objects": {
        "electron": {
            "branch": "Electron",
            "variables": {"pt": "pt"},
            "require": [{"variable": "cutBased", "equal": 4}],
        },
        "muon": {"branch": "Muon", "variables": {"pt": "pt"}},
        "jet": {
            "branch": "Jet",
            "variables": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "btag": "btagCSVV2"},
        },
    },
    "event_function": "pipeline.analyses.ttbar",
    "sets": {"btag": {"of": "jet", "within": "jet"}},
    "cuts": {
        "electron_pt": {"objects": ["electron"], "variable": "pt", "keep": "above", "threshold": 30},
        "muon_pt": {"objects": ["muon"], "variable": "pt", "keep": "above", "threshold": 30},
        "jet_pt": {
            "objects": ["jet"],
            "variable": "pt",
            "keep": "above",
            "threshold": 30,
            "trainable": True,
            "bounds": [25, 60],
            "bandwidth": 3,
            "step": 1,
        },
        "jet_btag": {"objects": ["btag"], "variable": "btag", "keep": "above", "threshold": 0.5},
    },
    "regions": {
        "SR": {
            "require": {"electron": 1, "jet": [4], "btag": [1]},
            "observable": "ht",
            "bins": {"start": 110, "stop": 550, "number": 4},
        }
    },
    "processes": {"ttbar": {"title": "ttbar"}, "wjets": {"title": "W+jets"}},
    "measurement": {"name": "m", "poi": "mu", "signal": ["ttbar"]},
}
EVENTS = 20


def branches() -> dict[str, ak.Array]:
    """Events with an electron and five hard jets, all of which pass."""
    generator = np.random.default_rng(0)

    def column(objects: int, low: float, high: float) -> ak.Array:
        return ak.unflatten(generator.uniform(low, high, EVENTS * objects).astype(np.float32), objects)

    jets = {"pt": (40, 200), "eta": (-2, 2), "phi": (-3, 3), "mass": (1, 10), "btagCSVV2": (0, 1)}
    return {
        "Electron_pt": column(1, 40, 100),
        "Electron_cutBased": ak.unflatten(np.full(EVENTS, 4, np.int32), 1),
        "Muon_pt": column(1, 1, 5),
        **{f"Jet_{name}": column(5, *interval) for name, interval in jets.items()},
        "event": ak.Array(np.arange(EVENTS, dtype=np.uint64)),
    }


def write_root(path: Path, content: dict[str, ak.Array]) -> None:
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: values.type.content for name, values in content.items()}).extend(content)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with a config, its manifest and its files, all of them good."""
    monkeypatch.chdir(tmp_path)
    source = {
        "description": "made here",
        "licence": "CC0",
        "citation": "none",
        "simulated": True,
        "prefixes": {"local": "."},
    }
    datasets = {
        f"simulated/{process}__nominal": {
            "source": "own",
            "process": process,
            "variation": "nominal",
            "cross_section_pb": 10.0,
            "files": [{"path": f"{process}.root", "events": EVENTS}],
        }
        for process in CONFIG["processes"]
    }
    Path("manifest.yaml").write_text(yaml.safe_dump({"sources": {"own": source}, "datasets": datasets}))
    Path("tiny.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    for process in CONFIG["processes"]:
        write_root(tmp_path / f"{process}.root", branches())
    return tmp_path


@pytest.fixture
def refused(folder, capsys):
    """Runs a command that must fail, and gives back its one sentence."""

    def run(*arguments: str) -> str:
        before = sorted(folder.rglob("*"))
        assert main(["--config", "tiny.yaml", *arguments]) == 1
        assert sorted(path for path in folder.rglob("*") if path != folder / "runs") == before
        assert list((folder / "runs").glob("*")) == []
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def captured(monkeypatch) -> list:
    """What the command line would run, in place of running it."""
    calls = []
    monkeypatch.setattr(
        run_module, "run", lambda config, output, **options: calls.append((config, output, options)) or 0
    )
    return calls


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "python -m pipeline.optimize --config configs/quickstart.yaml" in text
    options = (
        "config",
        "output",
        "overwrite",
        "set",
        "device",
        "cores",
        "cluster",
        "dry-run",
        "quiet",
        "no-plots",
        "debug",
    )
    assert [option for option in options if f"--{option}" not in text] == []


@pytest.mark.parametrize("arguments", [["--config", "tiny.yaml", "--device", "abacus"], ["--config", "a", "--wrong"]])
def test_wrong_usage_is_argparses_business(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_dry_run_lists_the_inputs_and_writes_nothing(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main(["--config", "tiny.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"simulated/ttbar__nominal: 1 files, {EVENTS} events",
        f"simulated/wjets__nominal: 1 files, {EVENTS} events",
    ]
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_may_look_at_an_existing_output(folder):
    (folder / "runs" / "tiny").mkdir(parents=True)
    assert main(["--config", "tiny.yaml", "--dry-run"]) == 0


def test_the_output_is_named_after_the_config(folder, captured):
    assert main(["--config", "tiny.yaml"]) == 0
    ((config, output, options),) = captured
    assert config.name == "tiny"
    assert output == Path("runs/tiny")
    assert options == {"overwrite": False, "resume": False, "quiet": False, "plots": True, "cluster": None}


def test_options_are_passed_on(folder, captured):
    (folder / "mine").mkdir()
    assert (
        main(
            [
                "--config",
                "tiny.yaml",
                "--output",
                "mine",
                "--overwrite",
                "--quiet",
                "--no-plots",
                "--cluster",
                "local:2",
            ]
        )
        == 0
    )
    ((_, output, options),) = captured
    assert output == Path("mine")
    assert options == {"overwrite": True, "resume": False, "quiet": True, "plots": False, "cluster": "local:2"}


def test_settings_are_read_as_yaml(folder, captured):
    settings = [
        "cuts.jet_pt.threshold=35.5",
        "optimiser.steps=7",
        "cuts.jet_pt.bounds=[30, 40]",
        "title=a = b",
        "seed=3",
    ]
    assert main(["--config", "tiny.yaml", *(part for one in settings for part in ("--set", one))]) == 0
    config = captured[0][0]
    assert config.cuts["jet_pt"].threshold == 35.5
    assert config.cuts["jet_pt"].bounds == (30, 40)
    assert config.cuts["jet_pt"].step == 1
    assert (config.optimiser.steps, config.title, config.seed) == (7, "a = b", 3)


BAD_SETTINGS = {
    "no value": ("optimiser.steps", r"--set optimiser.steps: expected KEY=VALUE, for example"),
    "no key": ("=3", r"--set =3: expected KEY=VALUE"),
    "an unknown key": ("optimiser.step=3", r"tiny.yaml: optimiser.step: unknown key; did you mean 'steps'\?"),
    "a bad value": ("optimiser.steps=many", r"tiny.yaml: optimiser.steps: Input should be a valid integer"),
    "a threshold out of bounds": ("cuts.jet_pt.threshold=10", r"cuts.jet_pt: threshold 10.0 lies outside its bounds"),
    "broken YAML": ("cuts.jet_pt.bounds=[1", r"--set cuts.jet_pt.bounds=\[1: not valid YAML"),
    "an unknown optimiser": ("optimiser.name=adamm", r"optimiser.name: optax has no optimiser 'adamm'"),
    "a search on the exact loss": (
        "optimiser.name=lbfgs",
        r"lbfgs searches .* set 'optimiser.forward: smooth', or use",
    ),
    "a wrong argument": ("optimiser.arguments={momentum: 1}", r"optimiser.arguments: optax.adam: .*'momentum'"),
    "an unknown set of data": (
        "data.set=cms",
        r"no data set 'cms/ttbar__nominal'; did you mean simulated/ttbar__nominal",
    ),
    "a missing manifest": ("data.manifest=nowhere.yaml", r"nowhere.yaml: the manifest cannot be read"),
    "a missing process": ("processes.tW={title: tW}", r"no data set 'simulated/tW__nominal'"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry-run"])
def test_a_bad_setting_is_one_sentence(refused, case, dry):
    """Before any event is read."""
    setting, message = BAD_SETTINGS[case]
    sentence = refused("--set", setting, *(["--dry-run"] if dry else []))
    assert re.search(message, sentence), sentence


@pytest.mark.parametrize("setting", ["optimiser.name=adamm", "data.set=cms"])
def test_a_wrong_name_is_told_before_anything_heavy_is_imported(folder, setting):
    """In a second or two; the events' libraries alone take longer."""
    program = f"import sys; from pipeline.optimize import main; main(['--config', 'tiny.yaml', '--set', '{setting}']); "
    command = [sys.executable, "-c", program + "print(*sys.modules)"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stderr.startswith("error: ")
    assert not {"pyhf", "equinox", "scipy.stats", "pipeline.run"} & set(done.stdout.split())


def test_without_a_config_there_is_nothing_to_do(capsys):
    assert main([]) == 1
    assert "--config YAML is needed" in capsys.readouterr().err


def test_a_setting_inside_a_setting(refused):
    assert "--set seed.x=2: seed is set twice" in refused("--set", "seed=1", "--set", "seed.x=2")


def test_a_missing_config(capsys, folder):
    assert main(["--config", "nowhere.yaml"]) == 1
    assert "nowhere.yaml: cannot be read" in capsys.readouterr().err


def test_an_existing_output_is_kept(capsys, folder):
    mine = folder / "mine"
    mine.mkdir()
    (mine / "result.json").write_text("precious")
    assert main(["--config", "tiny.yaml", "--output", "mine"]) == 1
    assert capsys.readouterr().err == "error: mine exists already; choose another --output or add --overwrite\n"
    assert (mine / "result.json").read_text() == "precious"


def test_a_name_nearby_is_suggested(capsys, folder):
    assert main(["--config", "tinny.yaml"]) == 1
    assert "did you mean tiny.yaml?" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(folder, capsys):
    (folder / "file").write_text("in the way")
    before = sorted(folder.rglob("*"))
    assert main(["--config", "tiny.yaml", "--output", "file/run", "--quiet"]) == 1
    assert re.match(r"error: file/run: cannot be written \(.*\); choose another --output\n", capsys.readouterr().err)
    assert sorted(folder.rglob("*")) == before


def test_nothing_to_resume_from_is_told_before_events_are_read(refused, monkeypatch):
    monkeypatch.setattr(run_module, "read", lambda *_: pytest.fail("events were read"))
    assert "no checkpoint to resume from; start without --resume" in refused("--resume")


def test_no_cores(refused):
    assert refused("--cores", "0") == "--cores 0: give at least 1"


def test_cores_are_chosen_before_anything_is_computed(refused):
    here = jax.local_device_count("cpu")
    assert refused("--cores", f"{here + 1}") == f"--cores {here + 1}: JAX computes already, with {here}"


@pytest.mark.parametrize(("arguments", "devices"), [((), "min(cores(), 5)"), ((3,), "3")])
def test_a_process_has_as_many_devices_as_cores(arguments, devices):
    """All that it may use, where nothing else is said."""
    program = (
        f"from pipeline.command import use_cores; use_cores({', '.join(map(str, arguments))})\n"
        "import jax; from pipeline.ingest.execution import cores\n"
        f"assert min(jax.local_device_count(), 5) == {devices}, jax.local_devices()"
    )
    unset = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    subprocess.run([sys.executable, "-c", program], check=True, env={**unset, "PYTHONPATH": str(ROOT)})


@pytest.mark.long
def test_a_device_that_is_not_there(folder):
    command = [sys.executable, "-m", "pipeline.optimize", "--config", "tiny.yaml", "--device", "gpu", "--quiet"]
    nowhere = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --device gpu: JAX finds none here; install")


def test_a_dry_run_misses_a_file(folder, refused):
    (folder / "wjets.root").unlink()
    assert "wjets.root: no such file" in refused("--dry-run")


def test_a_missing_file(folder, refused):
    (folder / "wjets.root").unlink()
    assert "wjets.root: no such file" in refused("--quiet")


def test_a_truncated_file(folder, refused):
    whole = (folder / "wjets.root").read_bytes()
    (folder / "wjets.root").write_bytes(whole[: len(whole) // 2])
    assert "wjets.root" in refused("--quiet")


def test_a_file_that_is_something_else(folder, refused):
    (folder / "wjets.root").write_text("not a ROOT file at all, but long enough to look like one" * 10)
    assert "wjets.root" in refused("--quiet")


@pytest.mark.parametrize("branch", ["Jet_btagCSVV2", "Electron_cutBased"])
def test_a_missing_branch(folder, refused, branch):
    content = branches()
    del content[branch]
    write_root(folder / "ttbar.root", content)
    sentence = refused("--quiet")
    assert "ttbar.root" in sentence
    assert branch in sentence


def test_a_dry_run_counts_the_entries(folder, refused):
    write_root(folder / "ttbar.root", {name: values[:15] for name, values in branches().items()})
    assert "ttbar.root has 15 entries, but the manifest says 20" in refused("--dry-run")


def test_a_dry_run_knows_mev_from_gev(folder, capsys):
    content = branches()
    content["Jet_pt"] = content["Jet_pt"] * np.float32(1000)
    write_root(folder / "ttbar.root", content)
    assert main(["--config", "tiny.yaml", "--dry-run", "--set", "cuts.jet_pt.unit=GeV"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: simulated/ttbar__nominal: cuts.jet_pt: the median of jet.pt is 1" in said
    assert "is it in MeV?" in said
    assert said.count("warning") == 1


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--quiet"]])
def test_a_threshold_out_of_everything_fails_at_once(refused, monkeypatch, arguments):
    monkeypatch.setattr(run_module, "read", lambda *_: pytest.fail("events were read"))
    sentence = refused("--set", "cuts.jet_btag.threshold=50", *arguments)
    assert re.match(r"cuts.jet_btag: keeps nothing: jet.btag is between 0\.\d+ and 0\.9\d+ in the first", sentence)


def test_a_file_of_another_length(folder, refused):
    write_root(folder / "ttbar.root", {name: values[:15] for name, values in branches().items()})
    assert "simulated/ttbar__nominal: ttbar.root has 15 entries, but the manifest says 20" in refused("--quiet")


def test_a_process_of_which_no_event_is_left_is_an_empty_template(folder, caplog):
    content = branches()
    content["Jet_pt"] = content["Jet_pt"] / np.float32(100)
    write_root(folder / "ttbar.root", content)
    problem = Problem.from_config(load_config("tiny.yaml"))
    assert "simulated/ttbar__nominal" in caplog.text
    for part in (problem.training, problem.validation):
        yields = np.asarray(templates_at(problem.analysis, default_thresholds(problem.config), part).yields)
        assert (yields[0, 0] == 0).all()
        assert yields[0, 1].sum() > 0


def test_an_event_keeps_as_many_jets_as_fit_and_the_others_are_counted(folder):
    content = branches()
    for name in [name for name in content if name.startswith("Jet_")]:
        content[name] = ak.concatenate([content[name]] * 7, axis=1)
    write_root(folder / "ttbar.root", content)
    assert Problem.from_config(load_config("tiny.yaml")).left_out == {"jet": EVENTS * (35 - 31)}


def test_debug_shows_the_traceback(folder):
    (folder / "wjets.root").unlink()
    with pytest.raises(ValueError, match="no such file"):
        main(["--config", "tiny.yaml", "--debug", "--quiet"])
    assert list((folder / "runs").glob("*")) == []


def test_an_interrupt_is_no_crash(folder, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "read", interrupted)
    assert main(["--config", "tiny.yaml", "--quiet"]) == 130
    assert capsys.readouterr().err == "stopped: nothing was written\n"
    assert list((folder / "runs").glob("*")) == []
