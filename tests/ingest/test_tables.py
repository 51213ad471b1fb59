"""Flat tables that a config names itself: a file for each process, one for all of them, a tree without collections."""

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
import yaml
from pipeline.config import ConfigError, load_config
from pipeline.ingest import InputError
from pipeline.ingest.samples import listed_datasets, read_samples
from pipeline.problem import Problem

CODES = {"signal": 1, "qcd": 2, "top": 3}
REST = {
    "name": "n",
    "cuts": {"met": {"objects": ["event"], "variable": "met", "keep": "above", "threshold": 50, "trainable": True}},
    "regions": {"SR": {"observable": "mass", "bins": {"start": 100, "stop": 500, "number": 4}}},
    "processes": {name: {"title": name} for name in CODES},
    "measurement": {"name": "m", "poi": "mu", "signal": ["signal"]},
}
REST["cuts"]["met"] |= {"bounds": [0, 200], "bandwidth": 5.0}
EACH = {"tables": {name: f"{name}.parquet" for name in CODES}, "weights": "w"}
ONE = {"table": "events.parquet", "process": "kind", "weights": "w"}
TREE = {
    "tables": {name: {"files": "events.root", "where": f"code == {code}"} for name, code in CODES.items()},
    "weights": "w",
    "tree": "ntuple",
}


def events(number: int, code: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(code)
    return {
        "met": generator.exponential(60.0, number),
        "mass": generator.uniform(50.0, 600.0, number),
        "w": generator.uniform(-0.5, 2.0, number),
        "code": np.full(number, code),
    }


TABLES = {name: events(300 + 100 * code, code) for name, code in CODES.items()}


@pytest.fixture
def make(tmp_path):
    for name, table in TABLES.items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    everything = {column: np.concatenate([table[column] for table in TABLES.values()]) for column in TABLES["qcd"]}
    kind = np.repeat(list(TABLES), [len(table["w"]) for table in TABLES.values()])
    pq.write_table(pa.table(everything | {"kind": kind}), tmp_path / "events.parquet")
    with uproot.recreate(tmp_path / "events.root") as file:
        file["ntuple"] = everything

    def config(data, **changes):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(REST | {"data": data} | changes))
        return load_config(tmp_path / "mine.yaml")

    return config


def test_a_config_with_tables_as_run_loads_again(make, tmp_path):
    config = make(EACH)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("data", [EACH, ONE, TREE], ids=["a file each", "a column names the process", "a ROOT tree"])
def test_templates_are_sums_of_weights(make, data):
    """Whatever way the tables come: weights are in expected events, and no manifest is there."""
    config = make(data)
    templates = Problem.from_config(config).templates({"met": 40.0}, part="all")["SR"]
    for name, table in TABLES.items():
        passes = table["met"].astype(np.float32) > 40
        wanted, _ = np.histogram(table["mass"][passes], np.linspace(100, 500, 5), weights=table["w"][passes])
        np.testing.assert_allclose(templates[name, "nominal", :].values(), wanted, rtol=1e-5)


def test_rows_count_one_without_weights(make):
    samples = read_samples(make({"tables": EACH["tables"]}), ("mass", "met"))
    assert all(sample.dataset.normalisation(36000.0) == 1 for sample in samples)
    assert all(ak.all(sample.events.weight == 1) for sample in samples)


def test_several_files_and_patterns(make):
    data = {"tables": EACH["tables"] | {"qcd": ["qcd.parquet", "to*.parquet"]}}
    assert {each.process: len(each.files) for each in listed_datasets(make(data))} == {"signal": 1, "qcd": 2, "top": 1}


def test_a_process_may_have_another_table_for_a_variation(make):
    changes = {
        "variations": {"generator": {"sample": "top"}},
        "systematics": {"generator": {"title": "Generator", "type": "norm_plus_shape", "up": "generator"}},
    }
    data = EACH | {"tables": EACH["tables"] | {"top__generator": "qcd.parquet"}}
    problem = Problem.from_config(make(data, **changes))
    templates = problem.templates(part="all")["SR"]
    np.testing.assert_allclose(templates["top", "generator", :].values(), templates["qcd", "nominal", :].values())
    with pytest.raises(InputError, match=r"data.tables: there is no 'top__generator'; name its files"):
        listed_datasets(make(EACH, **changes))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (ONE | {"process": "code"}, "branch 'code' is compared with text, but holds int64"),
        (ONE | {"process": "kin"}, "has no branch 'kin'"),
        (EACH | {"weights": "weight"}, "has no branch 'weight'"),
        ({"tables": {"signal": "signal.parquet"}}, "data.tables: there is no 'qcd'"),
        ({"tables": EACH["tables"] | {"top": "tpo.parquet"}}, "tpo.parquet: there is no such file"),
        ({"tables": EACH["tables"] | {"top": "https://a.b/c.root"}}, "c.root is a URL; fetch it"),
        ({"tables": TREE["tables"]}, "Events"),
        (
            TREE | {"tables": TREE["tables"] | {"top": {"files": "events.root", "where": "code == 4"}}},
            "tables/top__nominal: no event of its files meets code == 4",
        ),
    ],
)
def test_what_is_wrong_with_tables_is_a_sentence(make, data, sentence):
    with pytest.raises(InputError, match=sentence):
        read_samples(make(data), ("mass", "met"))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (EACH | {"table": "events.parquet", "process": "kind"}, "give 'table', one for all processes, or 'tables'"),
        ({"table": "events.parquet"}, "'table' goes with 'process'"),
        (EACH | {"set": "simulated"}, "'set' names data sets of a manifest, but tables are given"),
        ({"tables": {"signl": "signal.parquet"}}, "data.tables: no process is called 'signl'; did you mean 'signal'"),
        ({"tables": {"signal": []}}, "data.tables.signal.files"),
    ],
)
def test_what_is_wrong_with_keys_is_a_sentence(make, data, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make(data)
