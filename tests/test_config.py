"""The YAML a user writes: shipped files load, and every rule has a bad example and its sentence."""

import copy
from pathlib import Path

import pytest
import yaml
from pipeline.config import Config, ConfigError, load_config
from pydantic import ValidationError

CONFIGS = Path(__file__).parent.parent / "configs"

JET = {"branch": "Jet", "variables": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "btag": "btagCSVV2"}}
BINS = {"start": 110, "stop": 550, "number": 11}
SMALL = {
    "name": "small",
    "luminosity": 100,
    "objects": {
        "electron": {"branch": "Electron", "variables": {"pt": "pt"}},
        "muon": {"branch": "Muon", "variables": {"pt": "pt"}},
        "jet": JET,
    },
    "cuts": {
        "jet_pt": {
            "objects": ["jet"],
            "variable": "pt",
            "keep": "above",
            "threshold": 30,
            "trainable": True,
            "bounds": [25, 60],
            "bandwidth": 3,
            "step": 1,
        }
    },
    "regions": {
        "SR": {
            "jets": {"min": 4},
            "btags": {"min": 2},
            "observable": "ht",
            "bins": BINS,
        }
    },
    "processes": {"ttbar": {"title": "ttbar"}},
    "variations": {"jet_pt_scale": {"pt_up": 1.03}},
    "systematics": {"one": {"title": "One", "type": "norm_plus_shape", "up": "pt_up"}},
    "measurement": {"name": "m", "poi": "mu", "signal": ["ttbar"]},
}
EVENT_CUT = {"objects": ["event"], "variable": "ht", "keep": "above", "threshold": 200}


def changed(key: str, value: object) -> dict:
    """The small config with one dotted key set; `...` removes it."""
    config = copy.deepcopy(SMALL)
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.fixture
def load(tmp_path):
    """Loads a document, or a text, as `run.yaml`."""

    def written(content, overrides=None) -> Config:
        path = tmp_path / "run.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return written


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.data.manifest == CONFIGS.parent / "data_manifest.yaml"


def test_the_small_config_is_good(load):
    config = load(SMALL)
    assert config.cuts["jet_pt"].threshold == 30
    assert config.regions["SR"].jets.max is None
    assert (config.leptons.min, config.leptons.max) == (1, 1)


def test_a_config_as_run_loads_again(load):
    """What a run folder keeps is itself a config, with the same meaning."""
    config = load_config(CONFIGS / "agc.yaml")
    assert load(config.model_dump(mode="json")) == config


BAD = {
    "a misspelt key": ("cuts.jet_pt.bandwith", 3, "cuts.jet_pt.bandwith: unknown key; did you mean 'bandwidth'?"),
    "a misspelt section": ("optimizer", {}, "optimizer: unknown key; did you mean 'optimiser'?"),
    "a misspelt key of an optional section": ("data.worker", 2, "data.worker: unknown key; did you mean 'workers'?"),
    "a misspelt key in a region": (
        "regions.SR.bins.stopp",
        1,
        "regions.SR.bins.stopp: unknown key; did you mean 'stop'?",
    ),
    "an unheard-of key": ("cuts.jet_pt.xyzzy", 3, "cuts.jet_pt.xyzzy: unknown key; remove it"),
    "a missing key": ("luminosity", ..., "luminosity: Field required"),
    "a word for a number": ("cuts.jet_pt.threshold", "many", "cuts.jet_pt.threshold: Input should be a valid number"),
    "an unknown kind of object": (
        "cuts.jet_pt.objects",
        ["tau"],
        "cuts.jet_pt.objects.0: Input should be 'electron', 'muon'",
    ),
    "an unknown direction": ("cuts.jet_pt.keep", "over", "cuts.jet_pt.keep: Input should be 'above' or 'below'"),
    "no luminosity": ("luminosity", 0, "luminosity: Input should be greater than 0"),
    "no files": ("data.max_files", 0, "data: max_files is 0; give at least 1, or -1 for all files"),
    "no workers": ("data.workers", 0, "data.workers: Input should be greater than or equal to 1"),
    "no bounds": ("cuts.jet_pt.bounds", ..., "cuts.jet_pt: a trainable cut needs 'bounds' and 'step'"),
    "no step": ("cuts.jet_pt.step", ..., "cuts.jet_pt: a trainable cut needs 'bounds' and 'step'"),
    "a bandwidth of zero": ("cuts.jet_pt.bandwidth", 0, "cuts.jet_pt.bandwidth: Input should be greater than 0"),
    "a last bandwidth of zero": (
        "cuts.jet_pt.bandwidth_end",
        0,
        "cuts.jet_pt.bandwidth_end: Input should be greater than 0",
    ),
    "a negative step": ("cuts.jet_pt.step", -1, "cuts.jet_pt.step: Input should be greater than 0"),
    "bounds the wrong way round": (
        "cuts.jet_pt.bounds",
        [60, 25],
        "cuts.jet_pt: the lower bound 60.0 is not below the upper bound 25.0",
    ),
    "a threshold above its bounds": (
        "cuts.jet_pt.threshold",
        61,
        r"cuts.jet_pt: threshold 61.0 lies outside its bounds \[25.0, 60.0\]",
    ),
    "a threshold below its bounds": (
        "cuts.jet_pt.threshold",
        20,
        r"cuts.jet_pt: threshold 20.0 lies outside its bounds \[25.0, 60.0\]",
    ),
    "a b-jet among others": (
        "cuts.jet_pt.objects",
        ["bjet", "jet"],
        "cuts.jet_pt: 'bjet' and 'event' cannot be combined",
    ),
    "an event among others": (
        "cuts.jet_pt.objects",
        ["event", "jet"],
        "cuts.jet_pt: 'bjet' and 'event' cannot be combined",
    ),
    "regions of an object cut": ("cuts.jet_pt.regions", ["SR"], "cuts.jet_pt: 'regions' is for event-level cuts"),
    "a region of a cut that is not there": (
        "cuts.ht",
        EVENT_CUT | {"regions": ["CR"]},
        "cuts.ht.regions: no region is called 'CR'; there are: SR",
    ),
    "two rules in one requirement": (
        "objects.jet.require",
        [{"variable": "jetId", "bits": 4, "equal": 1}],
        "objects.jet.require.0: give exactly one of 'equal'",
    ),
    "no rule in a requirement": (
        "objects.jet.require",
        [{"variable": "jetId"}],
        "objects.jet.require.0: give exactly one of 'equal'",
    ),
    "a negative number of jets": (
        "regions.SR.jets.min",
        -1,
        "regions.SR.jets.min: Input should be greater than or equal to 0",
    ),
    "bins the wrong way round": ("regions.SR.bins.start", 600, "regions.SR.bins: start 600.0 is not below stop 550.0"),
    "no bins": ("regions.SR.bins.number", 0, "regions.SR.bins.number: Input should be greater than or equal to 1"),
    "a normalization without size": (
        "systematics.lumi",
        {"title": "L", "type": "normalization"},
        "systematics.lumi: a normalization systematic needs 'size'",
    ),
    "a shape without variation": (
        "systematics.jes",
        {"title": "J", "type": "norm_plus_shape"},
        "systematics.jes: a norm_plus_shape systematic needs 'up'",
    ),
    "a systematic of no process": (
        "systematics.lumi",
        {"title": "L", "type": "normalization", "size": 0.1, "processes": ["wjets"]},
        "systematics.lumi.processes: no process is called 'wjets'; there are: ttbar",
    ),
    "a signal that is no process": (
        "measurement.signal",
        ["ttbr"],
        "measurement.signal: no process is called 'ttbr'; there are: ttbar",
    ),
    "a free process that is none": (
        "measurement.free",
        {"tW": "norm"},
        "measurement.free: no process is called 'tW'; there are: ttbar",
    ),
    "a negative demand on bins": (
        "measurement.minimum_effective_events",
        -1,
        "measurement.minimum_effective_events: Input should be greater",
    ),
    "an unknown objective": ("objective.name", "luck", "objective.name: Input should be 'discovery_significance', "),
    "no learning rate": ("optimiser.learning_rate", 0, "optimiser.learning_rate: Input should be greater than 0"),
    "no steps": ("optimiser.steps", 0, "optimiser.steps: Input should be greater than or equal to 1"),
    "a growing learning rate": ("optimiser.decay_to", 2, "optimiser.decay_to: Input should be less than or equal to 1"),
    "nothing to validate on": ("validation.fraction", 0, "validation.fraction: Input should be greater than 0"),
    "nothing to train on": ("validation.fraction", 1, "validation.fraction: Input should be less than 1"),
    "one bootstrap replica": (
        "validation.bootstrap",
        1,
        "validation.bootstrap: Input should be greater than or equal to 2",
    ),
    "a cut on a variable that is not read": (
        "cuts.jet_pt.variable",
        "ptt",
        "cuts.jet_pt.variable: objects.jet.variables has no 'ptt'; there are: pt, eta, phi, mass, btag",
    ),
    "a b-tag cut on a variable that is not read": (
        "cuts.btag",
        {"objects": ["bjet"], "variable": "csv", "keep": "above", "threshold": 0.5},
        "cuts.btag.variable: objects.jet.variables has no 'csv'; there are: pt, eta, phi, mass, btag",
    ),
    "jets without direction": (
        "objects.jet.variables",
        {"pt": "pt", "eta": "eta", "mass": "mass"},
        "objects.jet.variables: trijets need 'phi'; add it",
    ),
    "a systematic without a variation": (
        "systematics.jes",
        {"title": "J", "type": "norm_plus_shape", "up": "jes_up"},
        "systematics.jes.up: no variation is called 'jes_up'; there are: pt_up",
    ),
    "a systematic without its down variation": (
        "systematics.jes",
        {"title": "J", "type": "norm_plus_shape", "up": "pt_up", "down": "pt_down"},
        "systematics.jes.down: no variation is called 'pt_down'; there are: pt_up",
    ),
    "two systematics under one title": (
        "systematics.two",
        {"title": "One", "type": "normalization", "size": 0.1},
        "systematics.two.title: 'One' is the title of another one already",
    ),
    "two processes under one title": (
        "processes.wjets",
        {"title": "ttbar"},
        "processes.wjets.title: 'ttbar' is the title of another one already",
    ),
    "a weight of a process that is not there": (
        "variations.process_weight",
        {"w_up": ["wjets", 1.1]},
        "variations.process_weight.w_up: no process is called 'wjets'; there are: ttbar",
    ),
    "an alternative sample of a process that is not there": (
        "variations.samples",
        {"ME": "tt"},
        "variations.samples.ME: no process is called 'tt'; there are: ttbar",
    ),
    "a negative rank": (
        "variations.jet_weight_slope",
        {"b_up": [-1, 0.1]},
        "variations.jet_weight_slope.b_up.0: Input should be greater than or equal to 0",
    ),
    "a count that nothing fulfils": ("regions.SR.jets.max", 3, "regions.SR.jets: max 3 is below min 4"),
    "regions that overlap": (
        "regions.CR",
        {"jets": {"min": 2, "max": 4}, "btags": {"min": 1, "max": 2}, "observable": "ht", "bins": BINS},
        "regions.CR: overlaps with 'SR'; an event may be in one region only",
    ),
    "no trainable cut": (
        "cuts.jet_pt.trainable",
        False,
        "cuts: no cut is trainable; set 'trainable: true' on at least one",
    ),
}


@pytest.mark.parametrize("example", BAD)
def test_a_bad_config_is_one_sentence_that_names_file_and_key(load, tmp_path, example):
    key, value, message = BAD[example]
    with pytest.raises(ConfigError, match=message) as caught:
        load(changed(key, value))
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / 'run.yaml'}: ")
    assert "\n" not in sentence


def test_values_cannot_be_changed_afterwards(load):
    with pytest.raises(ValidationError):
        load(SMALL).cuts["jet_pt"].threshold = 1.0


def test_a_missing_file():
    with pytest.raises(
        ConfigError, match=r"nowhere.yaml: cannot be read \(No such file or directory\); check the path"
    ):
        load_config(Path("nowhere.yaml"))


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_broken_yaml_names_the_line(load):
    with pytest.raises(ConfigError, match=r"run.yaml, line 2: not valid YAML"):
        load("name: a\ncuts: ]\nseed: 1\n")


@pytest.mark.parametrize(("text", "found"), [("- 1\n- 2\n", "list"), ("", "NoneType"), ("hello", "str")])
def test_a_file_without_settings(load, text, found):
    with pytest.raises(ConfigError, match=f"expected a mapping of settings, found {found}"):
        load(text)


def test_extends_merges_mappings_and_replaces_the_rest(load, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    child = {"extends": "base.yaml", "name": "child", "cuts": {"jet_pt": {"threshold": 40, "bounds": [35, 45]}}}
    config = load(child)
    assert config.name == "child"
    cut = config.cuts["jet_pt"]
    assert (cut.threshold, cut.bounds, cut.bandwidth) == (40, (35, 45), 3)
    assert config.luminosity == 100


def test_null_takes_out_what_the_other_file_says(load, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(changed("seed", 7)), encoding="utf-8")
    config = load({"extends": "base.yaml", "seed": None, "systematics": {"one": None}})
    assert config.seed == 1
    assert config.systematics == {}


def test_null_hides_no_misspelt_key(load, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    with pytest.raises(ConfigError, match="sed: unknown key; did you mean 'seed'"):
        load({"extends": "base.yaml", "sed": None})


def test_extends_goes_over_several_files_and_folders(load, tmp_path):
    """Paths count from the folder of the file that states them."""
    (tmp_path / "deep").mkdir()
    grandparent = changed("data.manifest", "own.yaml")
    (tmp_path / "deep" / "grandparent.yaml").write_text(yaml.safe_dump(grandparent), encoding="utf-8")
    (tmp_path / "deep" / "parent.yaml").write_text("extends: grandparent.yaml\nseed: 7\n", encoding="utf-8")
    config = load({"extends": "deep/parent.yaml", "data": {"cache": "cached"}})
    assert config.seed == 7
    assert config.data.manifest == tmp_path / "deep" / "own.yaml"
    assert config.data.cache == tmp_path / "cached"


def test_extends_in_a_circle(load):
    with pytest.raises(ConfigError, match=r"run.yaml: 'extends' leads back to this file"):
        load({"extends": "run.yaml"})


def test_extends_a_missing_file(load):
    with pytest.raises(ConfigError, match=r"other.yaml: cannot be read"):
        load({"extends": "other.yaml"})


def test_overrides_have_the_last_word(load):
    config = load(SMALL, {"cuts": {"jet_pt": {"threshold": 50}}, "optimiser": {"steps": 3}})
    assert config.cuts["jet_pt"].threshold == 50
    assert config.cuts["jet_pt"].step == 1
    assert config.optimiser.steps == 3


def test_overrides_are_checked_too(load):
    with pytest.raises(ConfigError, match=r"cuts.jet_pt.threshold_: unknown key; did you mean 'threshold'\?"):
        load(SMALL, {"cuts": {"jet_pt": {"threshold_": 50}}})
