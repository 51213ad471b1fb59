"""The YAML a user writes: shipped files load, and every rule has a bad example and its sentence."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from pipeline.config import Config, ConfigError, load_config
from pydantic import ValidationError

CONFIGS = Path(__file__).parent.parent / "configs"

JET = {"branch": "Jet", "variables": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "btag": "btagCSVV2"}}
BINS = {"start": 110, "stop": 550, "number": 11}
PT_CUT = {
    "objects": ["jet"],
    "variable": "pt",
    "keep": "above",
    "threshold": 30,
    "trainable": True,
    "bounds": [25, 60],
    "bandwidth": 3,
    "step": 1,
}
BTAG_CUT = {"objects": ["btag"], "variable": "btag", "keep": "above", "threshold": 0.5}
SMALL = {
    "name": "small",
    "luminosity": 100,
    "objects": {
        "electron": {"branch": "Electron", "variables": {"pt": "pt"}},
        "muon": {"branch": "Muon", "variables": {"pt": "pt"}},
        "jet": JET,
    },
    "sets": {"btag": {"of": "jet", "within": "jet"}, "lepton": ["electron", "muon"]},
    "cuts": {"jet_pt": PT_CUT, "btag": BTAG_CUT},
    "require": {"lepton": 1},
    "regions": {"SR": {"require": {"jet": [4], "btag": [2, 3]}, "observable": "ht", "bins": BINS}},
    "processes": {"ttbar": {"title": "ttbar"}},
    "variations": {"pt_up": {"scale": {"jet.pt": 1.03}}},
    "systematics": {"one": {"title": "One", "type": "norm_plus_shape", "up": "pt_up"}},
    "measurement": {"name": "m", "poi": "mu", "signal": ["ttbar"]},
}
WINDOW = {"objects": ["event"], "variable": "mll", "keep": "outside", "between": [76, 106], "bounds": [60, 120]}
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
    asked = config.requirements("SR")
    assert {name: (each.min, each.max) for name, each in asked.items()} == {
        "lepton": (1, 1),
        "jet": (4, None),
        "btag": (2, 3),
    }
    assert {name: (each.of, each.within) for name, each in config.object_sets.items()} == {
        "electron": ("electron", None),
        "muon": ("muon", None),
        "jet": ("jet", None),
        "btag": ("jet", "jet"),
    }
    assert config.unions == {"lepton": ("electron", "muon")}


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        (2, (2, 2)),
        ([2], (2, None)),
        ([2, 4], (2, 4)),
        (-1.5, (-1.5, -1.5)),
        ({"max": 3}, (None, 3)),
        ({}, (None, None)),
    ],
)
def test_ranges_have_a_short_form(load, given, ends):
    asked = load(changed("regions.SR.require.jet", given)).requirements("SR")["jet"]
    assert (asked.min, asked.max) == ends


def test_a_region_says_more_than_all_regions_and_has_the_last_word(load):
    config = load(changed("regions.SR.require.lepton", [1, 2]))
    assert (config.requirements("SR")["lepton"].min, config.requirements("SR")["lepton"].max) == (1, 2)


def test_a_set_within_another_is_of_its_collection_and_stands_behind_it(load):
    sets = {"tight": {"within": "medium"}, "medium": {"within": "btag"}} | SMALL["sets"]
    content = changed("sets", sets)
    content["cuts"] |= {name: BTAG_CUT | {"objects": [name]} for name in ("tight", "medium")}
    found = load(content).object_sets
    assert list(found)[-3:] == ["btag", "medium", "tight"]
    assert {found[name].of for name in ("btag", "medium", "tight")} == {"jet"}


def test_a_window_has_two_thresholds(load):
    config = load(changed("cuts.veto", WINDOW | {"trainable": True, "label": "mass"}))
    low, high = config.thresholds["veto.low"], config.thresholds["veto.high"]
    assert (low.threshold, high.threshold) == (76, 106)
    assert (low.label, high.label) == ("mass, low", "mass, high")
    assert low.bounds == high.bounds == (60, 120)
    assert (("veto.low", "veto.high"), 0.0) in config.rising
    assert "veto" not in config.thresholds


def test_a_step_is_a_fiftieth_of_the_bounds_where_it_is_not_said(load):
    assert load(changed("cuts.jet_pt.step", ...)).thresholds["jet_pt"].typical_step == pytest.approx(35 / 50)


def test_a_calibration_stands_among_the_thresholds(load):
    given = {"scale": ["jet.pt"], "trainable": True, "bounds": [0.95, 1.05], "bandwidth": 0.02}
    config = load(changed("calibrations.energy", given))
    threshold = config.thresholds["energy"]
    assert (threshold.threshold, threshold.bounds, threshold.bandwidth) == (1.0, (0.95, 1.05), 0.02)
    assert threshold.typical_step == pytest.approx(0.002)
    assert config.calibrations["energy"].reach == pytest.approx((0.93, 1.07))


def test_sizes_up_and_down(load):
    lumi = {"title": "L", "type": "normalization"}
    assert load(changed("systematics.lumi", lumi | {"size": 0.03})).systematics["lumi"].sizes == (0.03, -0.03)
    two = load(changed("systematics.lumi", lumi | {"up": 0.2, "down": -0.1})).systematics["lumi"]
    assert two.sizes == (0.2, -0.1)
    assert two.variations == (None, None)
    assert load(SMALL).systematics["one"].sizes is None


def test_systematics_of_one_title_are_one_parameter_where_they_do_not_meet(load):
    content = changed("processes.wjets", {"title": "W"})
    one = {"title": "One", "type": "normalization", "size": 0.1}
    content["systematics"]["one"]["processes"] = ["ttbar"]
    content["systematics"]["two"] = one | {"processes": ["wjets"]}
    assert load(content).systematics["two"].title == load(content).systematics["one"].title


def test_a_flat_table_needs_no_collections(load):
    content = {key: value for key, value in SMALL.items() if key not in ("objects", "sets", "require", "variations")}
    cut = {key: value for key, value in PT_CUT.items() if key != "objects"} | {"objects": ["event"], "variable": "x"}
    regions = {"SR": {"require": {"flag": 1}, "observable": "x", "bins": BINS}}
    config = load(content | {"cuts": {"x": cut}, "regions": regions, "systematics": {}})
    assert config.object_sets == config.objects == {}


def test_the_manifest_is_beside_the_config_or_in_the_folder_above(load, tmp_path):
    """Where neither is there, it is said to be missing beside the config."""
    assert load(SMALL).data.manifest == tmp_path / "data_manifest.yaml"
    above, own = tmp_path / "data_manifest.yaml", tmp_path / "configs" / "data_manifest.yaml"
    own.parent.mkdir()
    config = own.parent / "run.yaml"
    config.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    for manifest in (above, own):
        manifest.write_text("")
        assert load_config(config).data.manifest == manifest


@pytest.mark.parametrize("where", ["require", "regions.SR.require"])
def test_formulas_of_branches_are_required_of_the_data(load, where):
    with pytest.raises(ConfigError, match=r"require: takes ranges of variables, .* belong in data.require"):
        load(changed(where, ["HLT_IsoMu24"]))


def test_the_home_folder_in_every_path(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    stored = {"network": {"file": "~/n.safetensors"}, "inputs": ["met"], "trainable": False}
    regions = {"SR": SMALL["regions"]["SR"] | {"observable": "score"}}
    base = SMALL | {
        "data": {"manifest": "~/m.yaml", "cache": "~/c", "certified": "~/g.json"},
        "observables": {"score": stored},
        "regions": regions,
        "event_function": "~/f.py",
    }
    (tmp_path / "home" / "base.yaml").write_text(yaml.safe_dump(base))
    config = load({"extends": "~/base.yaml"})
    places = (config.data.manifest, config.data.cache, config.data.certified, Path(config.event_function))
    assert [place.relative_to(tmp_path / "home").name for place in places] == ["m.yaml", "c", "g.json", "f.py"]
    assert config.observables["score"].network.file == tmp_path / "home" / "n.safetensors"
    set_by_hand = load_config("~/base.yaml", {"data": {"cache": "~/other"}})
    assert set_by_hand.data.cache == tmp_path / "home" / "other"


def test_an_event_function_in_a_file_stands_beside_the_config(load, tmp_path):
    assert load(changed("event_function", "own.py")).event_function == str(tmp_path / "own.py")
    assert load(changed("event_function", "pipeline.analyses.ttbar")).event_function == "pipeline.analyses.ttbar"


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
    "an unknown set": (
        "cuts.jet_pt.objects",
        ["jetz"],
        "cuts.jet_pt.objects: no set is called 'jetz'; did you mean 'jet'",
    ),
    "a cut on a union": (
        "cuts.lepton_pt",
        PT_CUT | {"objects": ["lepton"]},
        r"cuts.lepton_pt.objects: 'lepton' is a union; name its sets: \[electron, muon\]",
    ),
    "a set of a collection that is not there": (
        "sets.btag.of",
        "jets",
        "sets.btag.of: no collection is called 'jets'; did you mean 'jet'\\? there are: electron, muon, jet",
    ),
    "a set within one that is not there": ("sets.btag.within", "jets", "sets.btag.within: no set is called 'jets'"),
    "a set within another collection": (
        "sets.btag.within",
        "muon",
        "sets.btag: is of 'jet', but lies within 'muon', a set of 'muon'",
    ),
    "sets in a circle": ("sets.btag.within", "btag", "sets.btag.within: leads back to 'btag', or to a union"),
    "a set within a union": ("sets.btag.within", "lepton", "sets.btag.within: leads back to 'btag', or to a union"),
    "a set of nothing": ("sets.tight", {}, "sets.tight: say 'of' which collection it is, or 'within' which set"),
    "a misspelt key of a set": ("sets.btag.wihin", "jet", "sets.btag.wihin: unknown key; did you mean 'within'"),
    "a word for a set": ("sets.tight", "jet", "sets.tight: expected settings in the form 'key: value', found 'jet'"),
    "a number in a union": ("sets.lepton", ["electron", 3], "sets.lepton.1: Input should be a valid string"),
    "a set that no cut makes": (
        "sets.tight",
        {"within": "jet"},
        "sets.tight: no cut makes it, so it would be all of 'jet'",
    ),
    "a set called event": ("sets.event", {"of": "jet"}, "sets.event: 'event' stands for the event itself"),
    "a union of what is no set": (
        "sets.lepton",
        ["electron", "mion"],
        "sets.lepton: no set is called 'mion'; did you mean 'muon'",
    ),
    "a union with the name of a collection": (
        "sets.muon",
        ["muon", "electron"],
        "sets.muon: 'muon' is a collection; give the union another name",
    ),
    "an unknown direction": (
        "cuts.jet_pt.keep",
        "over",
        "cuts.jet_pt.keep: Input should be 'above', 'below', 'inside' or 'outside'",
    ),
    "a window with one threshold": (
        "cuts.jet_pt.keep",
        "inside",
        r"cuts.jet_pt: keep: inside needs 'between: \[low, high\]'",
    ),
    "a one-sided cut with two": ("cuts.veto", WINDOW | {"keep": "above"}, "cuts.veto: keep: above needs a 'threshold'"),
    "a window the wrong way round": (
        "cuts.veto",
        WINDOW | {"between": [106, 76]},
        "cuts.veto: between: 106.0 is not below 76.0",
    ),
    "a side of a window out of bounds": (
        "cuts.veto",
        WINDOW | {"between": [50, 106]},
        r"cuts.veto: threshold 50.0 lies outside its bounds \[60.0, 120.0\]",
    ),
    "no luminosity": ("luminosity", 0, "luminosity: Input should be greater than 0"),
    "no files": ("data.max_files", 0, "data: max_files is 0; give at least 1, or -1 for all files"),
    "a chunk of a few events": ("data.chunk", 10, "data.chunk: Input should be greater than or equal to 64"),
    "no workers": ("data.workers", 0, "data.workers: Input should be greater than or equal to 1"),
    "no bounds": ("cuts.jet_pt.bounds", ..., "cuts.jet_pt: what is trainable needs 'bounds'"),
    "a last bandwidth without a first": (
        "cuts.btag.bandwidth_end",
        0.1,
        "cuts.btag: 'bandwidth_end' needs a 'bandwidth' to start from",
    ),
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
    "an event among others": (
        "cuts.jet_pt.objects",
        ["event", "jet"],
        "cuts.jet_pt: 'event' cannot be combined with sets of objects in one cut",
    ),
    "regions of an object cut": ("cuts.jet_pt.regions", ["SR"], "cuts.jet_pt: 'regions' is for cuts on events"),
    "a region of a cut that is not there": (
        "cuts.ht",
        EVENT_CUT | {"regions": ["CR"]},
        "cuts.ht.regions: no region is called 'CR'; .*there are: SR",
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
    "a range of three numbers": (
        "regions.SR.require.jet",
        [1, 2, 3],
        r"regions.SR.require.jet: \[1, 2, 3\] is no range: give n \(exactly\), \[n, \] \(at least\) or \[n, m\]",
    ),
    "a word for a range": ("require.lepton", "one", "require.lepton: 'one' is no range: give n"),
    "bins the wrong way round": ("regions.SR.bins.start", 600, "regions.SR.bins: start 600.0 is not below stop 550.0"),
    "no bins": ("regions.SR.bins.number", 0, "regions.SR.bins.number: Input should be greater than or equal to 1"),
    "a normalization without size": (
        "systematics.lumi",
        {"title": "L", "type": "normalization"},
        "systematics.lumi: a normalization systematic needs 'size', or 'up' and 'down'",
    ),
    "a normalization with one of two sizes": (
        "systematics.lumi",
        {"title": "L", "type": "normalization", "up": 0.2},
        "systematics.lumi: a normalization systematic of two sizes needs numbers: up: 0.2, down: -0.1",
    ),
    "a size that leaves nothing": (
        "systematics.lumi",
        {"title": "L", "type": "normalization", "up": 0.2, "down": -1.0},
        "systematics.lumi: a change of the yield by -1 leaves nothing of it; it is relative: 0.2 is 20 %",
    ),
    "a systematic of no region": (
        "systematics.lumi",
        {"title": "L", "type": "normalization", "size": 0.1, "regions": ["CR"]},
        "systematics.lumi.regions: no region is called 'CR'; .*there are: SR",
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
        "measurement.signal: no process is called 'ttbr'; .*there are: ttbar",
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
        "cuts.jet_pt.variable: objects.jet.variables: no variable is called 'ptt'; did you mean 'pt'",
    ),
    "a b-tag cut on a variable that is not read": (
        "cuts.btag.variable",
        "csv",
        "cuts.btag.variable: objects.jet.variables: no variable is called 'csv'; there are: pt, eta, phi, mass, btag",
    ),
    "a collection without variables": (
        "objects.muon.variables",
        {},
        "objects.muon.variables: Dictionary should have at least 1 item",
    ),
    "a systematic without a variation": (
        "systematics.jes",
        {"title": "J", "type": "norm_plus_shape", "up": "jes_up"},
        "systematics.jes.up: no variation is called 'jes_up'; .*there are: pt_up",
    ),
    "a systematic without its down variation": (
        "systematics.jes",
        {"title": "J", "type": "norm_plus_shape", "up": "pt_up", "down": "pt_down"},
        "systematics.jes.down: no variation is called 'pt_down'; .*there are: pt_up",
    ),
    "two systematics under one title": (
        "systematics.two",
        {"title": "One", "type": "normalization", "size": 0.1},
        "systematics.two: has the title of 'one', so both are one parameter, but both say what it does to ttbar in SR",
    ),
    "two processes under one title": (
        "processes.wjets",
        {"title": "ttbar"},
        "processes.wjets.title: 'ttbar' is the title of another one already",
    ),
    "a weight of a process that is not there": (
        "variations.w_up",
        {"weights": {"nominal": 1.1}, "processes": ["wjets"]},
        "variations.w_up.processes: no process is called 'wjets'; there are: ttbar",
    ),
    "an alternative sample of a process that is not there": (
        "variations.ME",
        {"sample": "tt"},
        "variations.ME.sample: no process is called 'tt'; .*there are: ttbar",
    ),
    "an alternative sample that is also scaled": (
        "variations.ME",
        {"sample": "ttbar", "scale": {"jet.pt": 1.1}},
        "variations.ME: 'sample' stands alone",
    ),
    "a variation of nothing": ("variations.v", {}, "variations.v: say what varies: 'scale', 'resolution', "),
    "a variation called nominal": (
        "variations.nominal",
        {"weights": {"nominal": 1.1}},
        "variations.nominal: 'nominal' is what is varied; choose another name",
    ),
    "a varied column of a collection that is not there": (
        "variations.v",
        {"scale": {"jets.pt": 1.1}},
        "variations.v: jets.pt: no collection is called 'jets'; did you mean 'jet'",
    ),
    "a varied column that is not read": (
        "variations.v",
        {"resolution": {"jet.mas": 0.1}},
        "variations.v: jet.mas: no variable is called 'mas'; did you mean 'mass'",
    ),
    "a weight by a set that is not there": (
        "variations.v",
        {"weights": {"jets.0.pt": 0.1}},
        "variations.v.weights.jets.0.pt: no set is called 'jets'; did you mean 'jet'",
    ),
    "a weight by a variable that is not read": (
        "variations.v",
        {"weights": {"btag.0.p": 0.1}},
        "variations.v.weights.btag.0.p: no variable is called 'p'; ",
    ),
    "a correction of a collection that is not there": (
        "corrections.sf",
        {"file": "f.json", "correction": "c", "objects": "jets", "inputs": {}},
        "corrections.sf.objects: no collection is called 'jets'; did you mean 'jet'",
    ),
    "a calibration of a collection that is not there": (
        "calibrations.energy",
        {"scale": ["jets.pt"]},
        "calibrations.energy.scale: no collection is called 'jets'; did you mean 'jet'",
    ),
    "a calibration of a variable that is not there": (
        "calibrations.energy",
        {"scale": ["jet.p"]},
        "calibrations.energy.scale: objects.jet.variables: no variable is called 'p'; did you mean 'pt'",
    ),
    "a calibration with the name of a cut": (
        "calibrations.jet_pt",
        {"scale": ["jet.pt"]},
        "calibrations.jet_pt: a cut, an edge or a network has this name",
    ),
    "a calibration down to nothing": (
        "calibrations.energy",
        {"scale": ["jet.pt"], "bounds": [0.1, 1.1], "bandwidth": 0.2},
        "calibrations.energy: the lower bound less the bandwidth, 0.2, has to be above 0; state a smaller one",
    ),
    "a calibration outside of its bounds": (
        "calibrations.energy",
        {"scale": "jet.pt", "value": 1.2, "bounds": [0.9, 1.1]},
        r"calibrations.energy: value 1.2 lies outside its bounds \[0.9, 1.1\]",
    ),
    "a calibration of a column, twice": (
        "calibrations.energy",
        {"scale": ["jet.pt", "jet.pt"]},
        "calibrations.energy: scale: name at least one column, and each once",
    ),
    "a trainable calibration without bounds": (
        "calibrations.energy",
        {"scale": ["jet.pt"], "trainable": True},
        "calibrations.energy: what is trainable needs 'bounds'",
    ),
    "a count that nothing fulfils": ("regions.SR.require.jet", [4, 3], "regions.SR.require.jet: max 3 is below min 4"),
    "errors of variations without those of the nominal templates": (
        "measurement",
        {**SMALL["measurement"], "mc_statistics": "none", "variations": {"uncertainty": True}},
        "measurement: variations.uncertainty: the errors of variations join those of mc_statistics, which is none; ",
    ),
    "a smoothing to the left": (
        "measurement.variations",
        {"smoothing": -1},
        "measurement.variations.smoothing",
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


CORRECTION = {"file": "f.json", "correction": "c"}
ENERGY = {"scale": ["jet.pt"], "trainable": True, "bounds": [0.9, 1.1]}
IN_VAIN = {
    "what a correction has seen": (
        {"corrections": {"sf": CORRECTION | {"objects": "jet", "inputs": {"x": "pt"}}}, "calibrations": {"e": ENERGY}},
        "calibrations.e: the correction 'sf' is evaluated for 'jet.pt' as it is in the file",
    ),
    "what a correction has seen of missing momentum": (
        {
            "event_variables": {"met": "MET_pt", "met_phi": "MET_phi"},
            "missing_momentum": {"pt": "met", "phi": "met_phi", "of": ["jet"]},
            "corrections": {"sf": CORRECTION | {"inputs": {"x": "met"}}},
            "calibrations": {"e": ENERGY},
        },
        "calibrations.e: the correction 'sf' is evaluated for 'met' as it is in the file",
    ),
    "three boundaries at one place": (
        {
            "cuts": {
                **SMALL["cuts"],
                "met": {"objects": ["event"], "variable": "met", "keep": "above", "threshold": 50},
            },
            "regions": {"SR": {"require": {"met": [50]}, "observable": "met", "bins": {"edges": [50, 100, 200]}}},
            "calibrations": {"e": ENERGY},
        },
        r"calibrations: 3 boundaries of 'met' lie at 50 \(met; require met: \[50.0, None\]; the bins of SR\), and the",
    ),
    "what a correction makes": (
        {"corrections": {"sf": CORRECTION | {"inputs": {}}}, "calibrations": {"e": {"scale": ["sf"]}}},
        "calibrations.e.scale: 'sf' is made of other columns; scale those",
    ),
    "with smeared thresholds": (
        {"optimiser": {"forward": "smooth"}, "calibrations": {"e": ENERGY}},
        "calibrations.e: optimiser.forward: smooth has no derivative by a calibration",
    ),
}


@pytest.mark.parametrize("example", IN_VAIN)
def test_a_calibration_in_vain(load, example):
    keys, message = IN_VAIN[example]
    with pytest.raises(ConfigError, match=message):
        load(SMALL | keys)


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
    with pytest.raises(ConfigError, match=r"run.yaml: not valid YAML: .*line 2"):
        load("name: a\ncuts: ]\nseed: 1\n")


@pytest.mark.parametrize(("text", "found"), [("- 1\n- 2\n", "[1, 2]"), ("", "nothing"), ("hello", "'hello'")])
def test_a_file_without_settings(load, text, found):
    with pytest.raises(ConfigError, match=re.escape(f"expected settings in the form 'key: value', found {found}")):
        load(text)


FORMER = {
    "leptons": (
        "leptons",
        {"min": 1, "max": 1},
        r"leptons: is no key any more; write 'sets: {lepton: \[electron, muon\]}'",
    ),
    "bjet": (
        "cuts.btag.objects",
        ["bjet"],
        r"cuts.btag.objects: 'bjet' is no kind of object any more; write 'sets: {btag:",
    ),
    "jets": ("regions.SR.jets", {"min": 4}, "regions.SR.jets: is no key any more; write 'require: {jet: …}'"),
    "btags": ("regions.SR.btags", {"min": 1}, "regions.SR.btags: is no key any more; write 'require: {btag: …}'"),
    "scale": ("variations.jet_pt_scale", {"u": 1.03}, r"write 'pt_scale_up: {scale: {jet.pt: 1.03}}'"),
    "resolution": ("variations.jet_pt_resolution", {"u": 0.05}, r"write 'pt_res_up: {resolution: {jet.pt: 0.05}}'"),
    "branch": ("variations.resolution_branch", "resfac", r"write 'pt_res_up: .*branch: resfac}'"),
    "slope": ("variations.jet_weight_slope", {"b": [0, 1.0]}, r"write 'btag_var_0_up: {weights: {nominal: 1, jet.0.pt"),
    "weight": ("variations.process_weight", {"w": ["ttbar", 1.1]}, r"write 'scale_var_up: {weights: {nominal: 1.025}"),
    "samples": ("variations.samples", {"ME": "ttbar"}, r"write 'ME_var: {sample: ttbar}'"),
    "corrections": ("variations.corrections", {"file": "f"}, r"write 'corrections: {btag_up: {file"),
}


@pytest.mark.parametrize("example", FORMER)
def test_a_key_of_an_earlier_release_says_what_to_write_now(load, tmp_path, example):
    key, value, message = FORMER[example]
    with pytest.raises(ConfigError, match=message) as caught:
        load(changed(key, value))
    assert str(caught.value).startswith(f"{tmp_path / 'run.yaml'}: ")
    assert "\n" not in str(caught.value)


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


def test_null_where_nothing_else_is_said_is_an_error(load):
    sentence = (
        "luminosity: has no value here, and no config that this one extends says any; give one, or remove the line"
    )
    with pytest.raises(ConfigError, match=sentence):
        load(changed("luminosity", None))


@pytest.mark.parametrize("value", [3, "many", [1]])
def test_a_value_where_settings_are_expected(load, value):
    with pytest.raises(
        ConfigError, match=re.escape(f"cuts.jet_pt: expected settings in the form 'key: value', found {value!r}")
    ):
        load(changed("cuts.jet_pt", value))


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
