"""What a config may refer to: branches, counts, what the event function makes; and one sentence for what is wrong."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from pipeline.config import Config, ConfigError, load_config
from pipeline.names import Names, load_event_function, names_of, object_sets

from analysis_data import ROOT
from test_config import BTAG_CUT, PT_CUT, SMALL

FUNCTION = """
import jax.numpy as jnp

def object_variables(event, sets):
    return {"jet": {"dr": jnp.abs(event.objects["jet"]["eta"]) + sets["muon"].count.astype(jnp.float32)[None]}}

def variables(event, sets):
    return {"ht": jnp.sum(sets["jet"].column("pt", 0.0), axis=0), "met_2": event.columns["met"] ** 2}

def weights(event, sets):
    return {"heavy": jnp.ones_like(event.weight)}
"""


@pytest.fixture
def config(tmp_path):
    """The small config with some keys replaced, and an event function of so much text beside it."""

    def loaded(function: str | None = FUNCTION, **keys) -> Config:
        content = SMALL | {"event_variables": {"met": "MET_pt"}} | keys
        if function is not None:
            # A module is loaded once: each test has its own file.
            (tmp_path / "own.py").write_text(function)
            content = content | {"event_function": "own.py"}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_config(tmp_path / "run.yaml")

    return loaded


def test_the_names_of_the_agc():
    names = names_of(load_config(ROOT / "configs" / "agc.yaml"))
    assert names.branches == {}
    assert names.made == ("ht", "leading_jet_pt", "trijet_mass", "trijet_pt")
    assert names.counts == ("n_electron", "n_muon", "n_jet", "n_btag", "n_lepton")
    assert names.weights == ()


def test_what_nobody_makes_is_a_branch(config):
    cuts = {"jet_pt": PT_CUT, "btag": BTAG_CUT, "met": PT_CUT | {"objects": ["event"], "variable": "PV_npvs"}}
    weights = {"v": {"weights": {"puWeight": 1, "heavy": 1, "ht": 0.1, "n_jet": 0.1, "jet.0.pt": 1, "nominal": 1}}}
    regions = {"SR": SMALL["regions"]["SR"] | {"require": {"flag": 1, "jet": 2, "met": [20]}}}
    names = names_of(config(cuts=cuts, variations=SMALL["variations"] | weights, regions=regions))
    assert names.branches == {"met": "MET_pt", "PV_npvs": "PV_npvs", "puWeight": "puWeight", "flag": "flag"}
    assert names.made == ("ht", "met_2")
    assert names.weights == ("heavy",)


def test_a_misspelt_observable_is_taken_for_a_branch_and_the_known_names_are_there_for_a_hint(config):
    names = names_of(config(regions={"SR": SMALL["regions"]["SR"] | {"observable": "htt"}}))
    assert "htt" in names.branches
    assert set(names.known) >= {"ht", "n_jet", "heavy"}


def test_without_an_event_function_there_are_counts_and_branches(config):
    names = names_of(config(function=None))
    assert names == Names(
        names.function, {"met": "MET_pt", "ht": "ht"}, (), (), names.counts, frozenset({"ht"}), names.read
    )
    assert names.counts == ("n_electron", "n_muon", "n_jet", "n_btag", "n_lepton")


def test_an_event_function_may_be_an_object(config):
    class Own:
        def variables(self, event, sets):
            return {"ht": sets["jet"].nth("pt", 0)}

    own = Own()
    names = names_of(config(function=None), own)
    assert names.function is own
    assert names.made == ("ht",)


def test_sets_stand_behind_those_around_them(config):
    sets, unions = object_sets(config())
    assert [(each.name, each.collection, each.within) for each in sets] == [
        ("electron", "electron", None),
        ("muon", "muon", None),
        ("jet", "jet", None),
        ("btag", "jet", "jet"),
    ]
    assert [(union.name, union.sets) for union in unions] == [("lepton", ("electron", "muon"))]


def test_a_cut_may_be_on_an_object_variable_that_the_event_function_makes(config):
    dr = PT_CUT | {"variable": "dr", "threshold": 0.4, "bounds": [0.1, 2]}
    names_of(config(cuts={"jet_pt": PT_CUT, "btag": BTAG_CUT, "dr": dr}))


def failing(text: str) -> str:
    return f"def variables(event, sets):\n    {text}\n"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"cuts": {"btag": BTAG_CUT, "dr": PT_CUT | {"variable": "drr"}}},
            "cuts.dr.variable: neither objects.jet.variables nor the event function has 'drr'; did you mean 'dr'\\?",
        ),
        (
            {"event_variables": {"ht": "Own_ht", "met": "MET_pt"}},
            "event_variables.ht: is also what the event function makes; choose another name",
        ),
        (
            {"event_variables": {"n_jet": "nJet", "met": "MET_pt"}},
            "event_variables.n_jet: is also what the event function makes",
        ),
        (
            {"function": failing("return {'x': sets['jets'].count}")},
            "event_function: asks for .*no set is called 'jets'.* it has the sets electron, muon, jet, btag",
        ),
        (
            {"function": failing("return {'x': event.columns['mett']}")},
            "event_function: asks for 'mett', which the config does not define; .*event_variables met",
        ),
        (
            {"function": failing("return {'x': event.objects['tau']['pt'][0]}")},
            "event_function: asks for 'tau', which the config does not define",
        ),
        (
            {"function": failing("raise RuntimeError('no luck')")},
            r"event_function: fails for an event without objects \(RuntimeError: no luck\)",
        ),
        ({"function": "def variables(event"}, r"event_function: '.*own.py' cannot be loaded \(SyntaxError"),
        ({"function": None, "event_function": "nowhere.py"}, "event_function: '.*nowhere.py' cannot be loaded"),
        (
            {"function": None, "event_function": "pipeline.nowhere"},
            "event_function: 'pipeline.nowhere' cannot be loaded",
        ),
        ({"function": None, "event_function": "no_such_package"}, "event_function: 'no_such_package' cannot be loaded"),
    ],
)
def test_what_is_wrong_is_one_sentence(config, keys, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        names_of(config(**keys))
    assert "\n" not in str(caught.value)


def test_what_is_made_cannot_be_varied_by_itself(config):
    with pytest.raises(ConfigError, match=r"variations\.tilt: 'n_jet' is made from other columns"):
        names_of(config(variations=SMALL["variations"] | {"tilt": {"columns": {"n_jet": "n_jet_up"}}}))


def test_the_event_function_is_a_module_or_something_in_one(tmp_path: Path):
    assert load_event_function("pipeline.analyses.ttbar").__name__ == "pipeline.analyses.ttbar"
    assert type(load_event_function("pipeline.config.Data")).__name__ == "Data"
    assert not hasattr(load_event_function(None), "variables")
    (tmp_path / "own.py").write_text("answer = 42\n")
    assert load_event_function(str(tmp_path / "own.py")).answer == 42


PREPARES = """
def prepare(event):
    return {"pt": event.objects["jet"]["pt"]}

def variables(event, sets):
    return {"ht": event.columns["met"]}
"""
ENERGY = {"energy": {"scale": ["jet.pt"]}}


def test_a_calibration_leaves_nothing_behind_that_was_prepared(config):
    with pytest.raises(ConfigError, match=r"calibrations.energy.scale: the event function prepares .* 'jet.pt' before"):
        names_of(config(PREPARES, calibrations=ENERGY))


def test_an_event_function_may_follow_calibrations(config):
    follows = 'FOLLOWS = frozenset({"jet.pt"})' + PREPARES
    assert "ht" in names_of(config(follows, calibrations=ENERGY)).made


def test_a_calibration_of_what_is_made_is_refused(config):
    with pytest.raises(ConfigError, match=r"calibrations.energy.scale: 'ht' is made from other columns"):
        names_of(config(calibrations={"energy": {"scale": ["ht"]}}))


def test_a_calibration_reads_its_branch(config):
    assert names_of(config(calibrations={"energy": {"scale": ["PV_npvs"]}})).branches["PV_npvs"] == "PV_npvs"


def test_what_nobody_reads_after_the_event_function_has_prepared_is_not_kept(config):
    """Cuts, networks, weights and the event function read variables of objects; calibrations may read all."""

    class Own:
        FOLLOWS = ("jet.pt",)

        def prepare(self, event):
            return {"energy": np.hypot(event.objects["jet"]["pt"], event.objects["jet"]["mass"])}

        def variables(self, event, sets):
            return {"ht": jnp.sum(sets["jet"].column("eta", 0.0), axis=0)}

    jet = SMALL["objects"]["jet"] | {
        "variables": {"pt": "pt", "eta": "eta", "mass": "mass", "btag": "btag", "qgl": "qgl"}
    }
    objects = SMALL["objects"] | {"jet": jet}
    assert names_of(config(function=None, objects=objects), Own()).read["jet"] == {"pt", "eta", "btag"}
    heavier = SMALL["variations"] | {"heavier": {"weights": {"jet.qgl": 1}}}
    assert names_of(config(function=None, objects=objects, variations=heavier), Own()).read["jet"] >= {"qgl"}
    scale = {"jet_scale": {"scale": ["jet.pt"]}}
    assert names_of(config(function=None, objects=objects, calibrations=scale), Own()).read["jet"] == set(
        jet["variables"]
    )


def test_one_variable_stays_that_says_which_objects_there_are(config):
    """The first one, where there is no pt: another may be NaN in an object that is there."""
    towers = {"objects": SMALL["objects"] | {"tower": {"branch": "T", "variables": {"energy": "e", "phi": "phi"}}}}

    class Own:
        def variables(self, event, sets):
            return {"ht": jnp.sum(event.objects["tower"]["phi"], axis=0)}

    assert names_of(config(function=None, **towers), Own()).read["tower"] == {"energy", "phi"}
    assert names_of(config(function=None, event_variables={"ht": "HT"}, **towers)).read["tower"] == {"energy"}
