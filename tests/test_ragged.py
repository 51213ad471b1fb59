"""Events under our names: columns varied, corrections as correctionlib evaluates them, objects dropped and counted."""

import gzip
from pathlib import Path

import awkward as ak
import correctionlib
import numpy as np
import pytest
import vector
import yaml
from correctionlib.schemav2 import Binning, Category, CategoryItem, Correction, CorrectionSet, Formula, Variable
from pipeline.config import Config, ConfigError, load_config
from pipeline.errors import InputError
from pipeline.events.evaluation import Factor
from pipeline.events.flux import MAX_OBJECTS
from pipeline.events.variations import resolution_factors
from pipeline.ingest.manifest import load_manifest
from pipeline.names import names_of
from pipeline.ragged import kinematics, ragged
from pipeline.translation import factors_of, make_selection

from analysis_data import ROOT
from test_config import BTAG_CUT, PT_CUT, SMALL

EVENTS = 300


def random_events(most: int = 6) -> ak.Array:
    """As they come out of the skim."""
    generator = np.random.default_rng(0)
    number = np.arange(EVENTS, dtype=np.uint64) // 2 + 17
    events = {"event": number, "index": np.arange(EVENTS), "nPV": generator.integers(1, 60, EVENTS).astype(np.int32)}
    events |= {name: generator.exponential(40, EVENTS).astype(np.float32) for name in ("MET_pt", "MET_up")}
    events |= {"collision": number * 7, "weight": np.ones(EVENTS)}
    for name, branches in {
        "Electron": ("pt",),
        "Muon": ("pt",),
        "Jet": ("pt", "eta", "phi", "mass", "btagCSVV2", "pt_jer", "resfac"),
    }.items():
        counts = generator.integers(0, most + 1, EVENTS)
        total = int(counts.sum())
        columns = {branch: generator.normal(0, 1, total) for branch in branches}
        columns |= {branch: generator.exponential(30, total) + 12 for branch in branches if "pt" in branch}
        records = ak.zip({branch: column.astype(np.float32) for branch, column in columns.items()})
        events[name] = ak.unflatten(records, counts)
    return ak.zip(events, depth_limit=1)


@pytest.fixture
def load(tmp_path):
    """The small config, counting jets and with MET, with some keys replaced."""

    def loaded(**keys) -> Config:
        regions = {"SR": SMALL["regions"]["SR"] | {"observable": "n_jet"}}
        content = SMALL | {"event_variables": {"met": "MET_pt", "npv": "nPV"}, "regions": regions} | keys
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_config(tmp_path / "run.yaml")

    return loaded


def flat(events: ak.Array, name: str) -> np.ndarray:
    collection, branch = name.split("_", 1)
    return ak.to_numpy(ak.flatten(events[collection][branch]))


# Looser than any object.
LOOSE = {"pt": PT_CUT | {"threshold": 5.0, "bounds": [4.0, 60.0], "bandwidth": 1.0}, "btag": BTAG_CUT}


def columns_of(config: Config, events: ak.Array, dataset=None):
    return ragged(config, names_of(config), dataset, events)


def test_columns_are_varied_in_float64(load):
    """A scale, a branch in the place of another one, and a resolution; each a row, nominal first."""
    variations = {
        "scaled": {"scale": {"jet.pt": 1.03, "met": 0.9}},
        "replaced": {"columns": {"jet.pt": "pt_jer", "met": "MET_up"}, "scale": {"jet.mass": 1.1}},
        "smeared": {"resolution": {"jet.pt": 0.05}},
        "weighted": {"weights": {"nominal": 1.1}},
    }
    config = load(variations=variations, systematics={}, cuts=LOOSE)
    assert kinematics(config) == ["scaled", "replaced", "smeared"]
    events = random_events()
    sample = columns_of(config, ak.with_field(events, ak.without_field(events.Jet, "resfac"), "Jet"))
    jets = sample.objects["jet"].variables
    pt, eta, phi, mass = (flat(events, f"Jet_{name}") for name in ("pt", "eta", "phi", "mass"))
    per_jet = np.repeat(ak.to_numpy(events.event), ak.to_numpy(ak.num(events.Jet)))
    factors = resolution_factors(per_jet, eta, phi, 0.05, config.seed)
    wide = pt.astype(np.float64)
    expected = [wide, wide * 1.03, flat(events, "Jet_pt_jer").astype(np.float64), wide * factors]
    np.testing.assert_array_equal(jets["pt"], expected)
    np.testing.assert_array_equal(jets["mass"][2], mass.astype(np.float64) * 1.1)
    np.testing.assert_array_equal(jets["mass"][[1, 3]], jets["mass"][[0, 0]])
    np.testing.assert_array_equal(jets["eta"], eta)
    met = ak.to_numpy(events.MET_pt).astype(np.float64)
    np.testing.assert_array_equal(sample.columns["met"], [met, 0.9 * met, ak.to_numpy(events.MET_up), met])
    assert sample.kinematics == 4
    assert jets["pt"].dtype == sample.columns["met"].dtype == np.float64
    assert sample.columns["npv"].dtype == np.float32


def test_numbers_of_events_stay_what_they_are(load):
    """Single precision holds whole numbers up to 2**24 only, and the parity of a number may decide something."""
    config = load(event_variables={"number": "event", "met": "MET_pt"}, variations={}, systematics={}, cuts=LOOSE)
    events = random_events()
    numbers = np.random.default_rng(2).integers(2**24, 2**53, EVENTS).astype(np.uint64)
    sample = columns_of(config, ak.with_field(events, numbers, "event"))
    np.testing.assert_array_equal(sample.columns["number"].astype(np.uint64), numbers)
    few = columns_of(config, ak.with_field(events, numbers % 2**24, "event"))
    assert few.columns["number"].dtype == np.float32


def test_factors_of_the_file_stand_in_the_place_of_random_ones(load):
    config = load(variations={"smeared": {"resolution": {"jet.pt": 0.05}}}, systematics={}, cuts=LOOSE)
    events = random_events()
    pt = flat(events, "Jet_pt").astype(np.float64)
    sample = columns_of(config, events)
    expected = pt * flat(events, "Jet_resfac").astype(np.float64)
    kept = (pt > 3) | (expected > 3)
    np.testing.assert_array_equal(sample.objects["jet"].variables["pt"][1], expected[kept])


def test_alternative_samples_have_no_kinematic_variations(load):
    config = load(cuts=LOOSE)
    manifest = load_manifest(ROOT / "data_manifest.yaml")
    nominal = columns_of(config, random_events(), manifest.dataset("simulated", "ttbar", "nominal"))
    alternative = columns_of(config, random_events(), manifest.dataset("simulated", "ttbar", "scaleup"))
    assert (nominal.kinematics, alternative.kinematics) == (2, 1)
    np.testing.assert_array_equal(
        alternative.objects["jet"].variables["pt"], nominal.objects["jet"].variables["pt"][:1]
    )


def test_objects_that_no_variation_selects_are_dropped(load):
    """The loosest threshold is the lower bound less a bandwidth: 25 − 3 GeV, also after 3 % more."""
    config, events = load(), random_events()
    sample = columns_of(config, events)
    pt = flat(events, "Jet_pt").astype(np.float64)
    expected = pt[1.03 * pt > 22.0]
    np.testing.assert_array_equal(sample.objects["jet"].variables["pt"][0], expected)
    assert 0 < len(expected) < len(pt)
    np.testing.assert_array_equal(sample.objects["muon"].variables["pt"], flat(events, "Muon_pt"))


def test_what_does_not_fit_a_bit_mask_is_left_out_and_counted(load):
    events = random_events(most=50)
    sample = columns_of(load(cuts=LOOSE), events)
    number = ak.to_numpy(ak.num(events.Jet))
    np.testing.assert_array_equal(sample.objects["jet"].counts, np.minimum(number, MAX_OBJECTS))
    assert sample.left_out["jet"] == np.maximum(number - MAX_OBJECTS, 0).sum() > 0


def test_events_of_a_collision_have_one_number_and_weights_are_in_their_unit(load):
    events = random_events()
    sample = ragged(load(), names_of(load()), None, events)
    np.testing.assert_array_equal(sample.collision, np.arange(EVENTS) // 2)
    assert np.all(sample.weight == 1)
    weights = np.random.default_rng(1).normal(3, 2, EVENTS)
    sample = ragged(load(), names_of(load()), None, ak.with_field(events, weights, "weight"), 2.5)
    np.testing.assert_allclose(2.5 * sample.weight, weights, rtol=1e-6)
    assert np.any(sample.weight < 0)


# --- Corrections ------------------------------------------------------------------------------------------------------


def written(path: Path, **corrections: Correction) -> Path:
    content = CorrectionSet(schema_version=2, corrections=list(corrections.values()))
    path.write_text(content.model_dump_json(exclude_unset=True))
    return path


def correction(name: str, inputs: dict[str, str], data) -> Correction:
    variables = [Variable(name=key, type=kind) for key, kind in inputs.items()]
    return Correction(name=name, version=1, inputs=variables, output=Variable(name="w", type="real"), data=data)


@pytest.fixture
def file(tmp_path) -> Path:
    """Bins of pt with a formula in one of them, by category; and a correction of events."""
    formula = Formula(nodetype="formula", expression="1 + 0.1*y/x", parser="TFormula", variables=["pt", "eta"])
    bins = Binning(nodetype="binning", input="pt", edges=[0, 30, 60, 100], content=[0.9, formula, 1.2], flow="clamp")
    tree = Category(nodetype="category", input="how", content=[CategoryItem(key="up", value=bins)], default=1.0)
    of_events = Binning(nodetype="binning", input="npv", edges=[0, 20, 40], content=[0.8, 1.1], flow="clamp")
    return written(
        tmp_path / "c.json",
        jets=correction("jets", {"how": "string", "pt": "real", "eta": "real"}, tree),
        pileup=correction("pileup", {"npv": "real"}, of_events),
    )


def corrections(file: Path) -> dict:
    inputs = {"how": "up", "pt": "pt", "eta": "eta"}
    return {
        "sf": {"file": str(file), "correction": "jets", "objects": "jet", "inputs": inputs},
        "pu": {"file": str(file), "correction": "pileup", "inputs": {"npv": "npv"}},
    }


def test_corrections_are_columns_as_correctionlib_evaluates_them(load, file):
    """Any formula of any variable; of varied columns, once for each variation."""
    config = load(corrections=corrections(file), cuts=LOOSE)
    events = random_events()
    sample = columns_of(config, events)
    theirs = correctionlib.CorrectionSet.from_file(str(file))
    pt, eta = (flat(events, f"Jet_{name}").astype(np.float64) for name in ("pt", "eta"))
    expected = [theirs["jets"].evaluate("up", varied, eta) for varied in (pt, 1.03 * pt)]
    np.testing.assert_array_equal(sample.objects["jet"].variables["sf"], expected)
    assert np.any(expected[0] != expected[1])
    npv = ak.to_numpy(events.nPV).astype(np.float64)
    np.testing.assert_array_equal(sample.columns["pu"], theirs["pileup"].evaluate(npv))


def test_weights_name_them(load, file):
    """The product over the members of a set, or that of one; an object that is not there is not corrected."""
    weights = {"all": {"weights": {"btag.sf": 1}}, "one": {"weights": {"jet.1.sf": 0.5, "jet.0.pt": 0.1, "pu": 1}}}
    config = load(corrections=corrections(file), variations=SMALL["variations"] | weights)
    assert factors_of(config) == {
        "btag.sf": Factor("sf", "btag", None, 1.0),
        "jet.1.sf": Factor("sf", "jet", 1, 1.0),
        "jet.0.pt": Factor("pt", "jet", 0, 0.0),
        "pu": Factor("pu"),
    }
    assert "pu" not in names_of(config).branches
    assert names_of(config).branches["npv"] == "nPV"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:60] + bytes([content[60] ^ 255]) + content[61:],
        lambda content: content[:-8] + bytes(8),
        lambda _: b"",
        lambda _: b"login please",
    ],
    ids=["cut", "flipped", "checksum", "empty", "other"],
)
def test_a_damaged_file_of_corrections_is_a_sentence(load, file, damage):
    packed = file.with_suffix(".json.gz")
    packed.write_bytes(damage(gzip.compress(file.read_bytes())))
    config = load(corrections=corrections(packed), cuts=LOOSE)
    with pytest.raises(InputError, match=rf"{packed}: no correction '\w+' can be read from it \(.*\); correct 'corr"):
        columns_of(config, random_events())


def test_a_value_out_of_the_range_of_a_correction_is_a_sentence(load, tmp_path):
    bins = Binning(nodetype="binning", input="npv", edges=[0.0, 10.0], content=[1.0], flow="error")
    file = written(tmp_path / "narrow.json", pileup=correction("pileup", {"npv": "real"}, bins))
    config = load(corrections={"pu": {"file": str(file), "correction": "pileup", "inputs": {"npv": "npv"}}}, cuts=LOOSE)
    with pytest.raises(InputError, match=r"narrow.json: the correction 'pileup' cannot be evaluated \(.*\); check"):
        columns_of(config, random_events())


def test_a_cut_may_be_on_a_correction(load, file):
    """A regressed or calibrated variable, say."""
    sf = {"objects": ["jet"], "variable": "sf", "keep": "above", "threshold": 0.95}
    config = load(corrections=corrections(file), cuts=LOOSE | {"sf": sf})
    names_of(config)
    assert [cut.variable for cut in make_selection(config).on("jet")] == ["pt", "sf"]


def test_the_weights_of_the_agc_are_those_of_its_file(external_data, load):
    """`event_systematics` of the AGC, by correctionlib, beside the slope that configs/agc.yaml has."""
    inputs = {"syst_name": "btag_var", "direction": "up", "pt": "pt"}
    entry = {"file": str(external_data / "corrections.json"), "correction": "event_systematics"}
    config = load(corrections={"btag_up": entry | {"objects": "jet", "inputs": inputs}}, cuts=LOOSE)
    events = random_events()
    jets = columns_of(config, events).objects["jet"].variables
    np.testing.assert_allclose(jets["btag_up"], 1 + 0.0015 * jets["pt"], rtol=1e-13)


def test_a_relative_path_counts_from_the_config(load, tmp_path, file):
    (tmp_path / "deep").mkdir()
    file.rename(tmp_path / "deep" / "c.json")
    config = load(corrections=corrections(Path("deep/c.json")))
    assert config.corrections["sf"].file == tmp_path / "deep" / "c.json"


def test_missing_momentum_takes_what_jets_lose(load):
    """Vector by vector, by the library `vector`; jets below 15 GeV do not count, whether a cut selects them or not."""
    jet = {"branch": "Jet", "variables": {"pt": "pt", "phi": "phi", "btag": "btagCSVV2"}}
    config = load(
        objects=SMALL["objects"] | {"jet": jet},
        event_variables={"met": "MET_pt", "met_phi": "MET_phi"},
        missing_momentum={"pt": "met", "phi": "met_phi", "of": ["jet"]},
        variations={"up": {"scale": {"jet.pt": 1.1}}, "loose": {"resolution": {"jet.pt": 0.1}}},
        systematics={},
    )
    events = random_events()
    events["MET_phi"] = np.random.default_rng(1).uniform(-np.pi, np.pi, EVENTS).astype(np.float32)
    sample = ragged(config, names_of(config), None, events)
    jets = vector.zip({"pt": events.Jet.pt, "phi": events.Jet.phi})
    missing = vector.zip({"pt": events.MET_pt, "phi": events.MET_phi})
    hard = jets[jets.pt > 15]
    x, y = (ak.sum(0.1 * component, axis=1) for component in (hard.px, hard.py))
    expected = vector.zip({"px": missing.px - x, "py": missing.py - y})
    np.testing.assert_allclose(sample.columns["met"][0], events.MET_pt, rtol=1e-6)
    np.testing.assert_allclose(sample.columns["met"][1], expected.pt, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.cos(sample.columns["met_phi"][1] - expected.phi), 1, atol=1e-5)
    assert (sample.columns["met"][2] != sample.columns["met"][0]).mean() > 0.5
    with pytest.raises(ConfigError, match="'met' follows the objects already"):
        load(
            objects=SMALL["objects"] | {"jet": jet},
            event_variables={"met": "MET_pt", "met_phi": "MET_phi"},
            missing_momentum={"pt": "met", "phi": "met_phi", "of": ["jet"]},
            variations={"up": {"scale": {"jet.pt": 1.1, "met": 1.1}}},
            systematics={},
        )
