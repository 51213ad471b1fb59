"""The data sets of a config, as the command line lists and reads them."""

import pytest
import yaml
from pipeline.config import ConfigError, load_config
from pipeline.ingest import InputError
from pipeline.ingest.samples import check_read, listed_datasets, read_samples
from small_files import random_branches

from analysis_data import ROOT

CUT = {"objects": ["event"], "variable": "MET_pt", "keep": "above", "threshold": 1.0, "step": 1.0}
CUT |= {"trainable": True, "bounds": [0.0, 5.0], "bandwidth": 1.0}
SOURCE = {"description": "d", "licence": "l", "citation": "c", "simulated": True, "prefixes": {"local": "."}}


@pytest.fixture
def config(tmp_path, make_file):
    """A config of one process with files in a pattern, its data section as given."""

    def make(**data):
        make_file("b.root", random_branches(3))
        make_file("a.root", random_branches(3))
        entry = {"source": "mine", "process": "p", "variation": "nominal", "cross_section_pb": 1.0, "files": ["*.root"]}
        manifest = {"sources": {"mine": SOURCE}, "datasets": {"s/p__nominal": entry}}
        (tmp_path / "data_manifest.yaml").write_text(yaml.safe_dump(manifest))
        (tmp_path / "config.yaml").write_text(
            yaml.safe_dump(
                {
                    "name": "n",
                    "luminosity": 1,
                    "data": {"set": "s", **data},
                    "cuts": {"met": CUT},
                    "processes": {"p": {"title": "p"}},
                    "regions": {"all": {"observable": "MET_pt", "bins": {"start": 0, "stop": 9, "number": 3}}},
                    "measurement": {"name": "m", "poi": "mu", "signal": ["p"]},
                }
            )
        )
        return load_config(tmp_path / "config.yaml")

    return make


def test_a_pattern_stands_for_its_files(config):
    (dataset,) = listed_datasets(config(max_files=1, weights="none"))
    assert [file.path for file in dataset.files] == ["a.root"]
    assert dataset.weights == "none"


def test_a_pattern_that_fits_nothing_is_a_sentence(config, tmp_path):
    with pytest.raises(InputError, match=r"s/p__nominal: '\*.root' fits no ROOT or parquet file in .*/nowhere"):
        listed_datasets(config(location=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("word", ["no", False])
def test_no_is_what_yaml_calls_false(config, word):
    assert config(verify=word).data.verify == "no"


@pytest.mark.parametrize("factor", [1, 500])
def test_a_weight_without_the_generators_is_a_correction(config, factor):
    """As LHEWeight_originalXWGTUP, of some hundreds: the yields would be as many times too high."""
    run = config(weights=f"{factor} + 0 * MET_pt")
    if factor == 1:
        assert len(read_samples(run, ("MET_pt",))) == 1
        return
    with pytest.raises(InputError, match=r"s/p__nominal: the weight '500 \+ 0 \* MET_pt' is 500 on average"):
        read_samples(run, ("MET_pt",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"require": "MET_pt >"}, "data.require.0: 'MET_pt >' is not"),
        ({"weights": "a["}, "data.weights: 'a.' is not"),
    ],
)
def test_a_wrong_formula_is_told_with_its_key(config, data, message):
    with pytest.raises(InputError, match=message):
        listed_datasets(config(**data))


def test_a_formula_alone_is_a_list_of_it(config):
    assert config(require="HLT_IsoMu24").data.require == ("HLT_IsoMu24",)


# --- data sets of which nothing passes ---


def test_a_skim_without_events_is_an_empty_data_set(config, tmp_path, make_file, caplog):
    """Its normalisation is known, and that none of its events passed is a result."""
    run = config()
    (tmp_path / "b.root").unlink()
    make_file("a.root", random_branches(0))
    manifest = yaml.safe_load(run.data.manifest.read_text())
    manifest["datasets"]["s/q__nominal"] = manifest["datasets"]["s/p__nominal"] | {"process": "q", "files": ["q.root"]}
    manifest["datasets"]["s/p__nominal"]["files"] = [{"path": "a.root", "events": 100, "entries": 0}]
    run.data.manifest.write_text(yaml.safe_dump(manifest))
    make_file("q.root", random_branches(3))
    both = run.model_copy(update={"processes": run.processes | {"q": run.processes["p"]}})
    empty, full = read_samples(both, ("MET_pt",))
    assert (len(empty.events), empty.dataset.normalisation(1.0), len(full.events)) == (0, 0.01, 3)
    assert empty.events.type.content == full.events.type.content
    assert "s/p__nominal: none of 0 events passes the loosest cuts, so its templates are empty" in caplog.text
    with pytest.raises(InputError, match=r"no event of any data set passes the loosest cuts; widen the bounds"):
        read_samples(run, ("MET_pt",))


def test_files_without_events_that_nothing_is_stated_of_are_refused(config, tmp_path, make_file):
    run = config()
    for name in ("a.root", "b.root"):
        make_file(name, random_branches(0))
    with pytest.raises(InputError, match=r"s/p__nominal: its files hold no events; take them out"):
        read_samples(run, ("MET_pt",))


def test_thresholds_beyond_what_was_read_are_refused():
    """Objects below the bounds of a cut, less its kernel, are not there: they would be missing without a word."""
    scale = {"scale": ["jet.pt"], "trainable": True, "bounds": [0.95, 1.05], "bandwidth": 0.02}
    config = load_config(ROOT / "configs" / "quickstart.yaml", {"calibrations": {"jet_scale": scale}})
    check_read(config, {"jet_pt": 22.0, "jet_btag": 0.0, "jet_scale": 1.07})
    for name, value, message in (
        ("jet_pt", 21.9, "jet_pt: 21.9 is asked for, but objects are read above 22 only, for its bounds; widen"),
        ("jet_eta", 2.9, "jet_eta: 2.9 is asked for, but objects are read below"),
        ("jet_scale", 1.08, "jet_scale: 1.08 is asked for, but objects are read for values from 0.93 to 1.07"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_read(config, {name: value})
