"""A data set against what was read of it: weights are decided, sums compared, patterns expanded, periods told apart."""

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from pipeline.ingest import InputError, Skim, read
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.ingest.periods import check_periods
from small_files import write_file


def loaded(folder, *, periods: dict | None = None, **datasets: dict) -> Manifest:
    source = {"description": "d", "licence": "l", "citation": "c", "simulated": True, "prefixes": {"local": "."}}
    entries = {}
    for name, fields in datasets.items():
        process, variation, *period = name.split("__")
        entries[f"mine/{name}"] = (
            {"source": "s", "process": process, "variation": variation, "cross_section_pb": 2.0}
            | ({"period": period[0]} if period else {})
            | fields
        )
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"sources": {"s": source}, "periods": periods or {}, "datasets": entries}))
    return load_manifest(path)


def events_file(path, weights: list[float] | None, *, runs: tuple[int, float, float] | None = None, suffix: str = ""):
    count = 4 if weights is None else len(weights)
    branches = {"MET_pt": np.arange(count, dtype=np.float32), "event": np.arange(count, dtype=np.uint64)}
    if weights is not None:
        branches["genWeight"] = np.array(weights, np.float32)
    write_file(path, {name: ak.Array(values) for name, values in branches.items()})
    if runs is not None:
        with uproot.update(path) as file:
            names = (f"genEventCount{suffix}", f"genEventSumw{suffix}", f"genEventSumw2{suffix}")
            file.mktree("Runs", dict(zip(names, ("int64", "float64", "float64"), strict=True)))
            file["Runs"].extend({name: np.array([value]) for name, value in zip(names, runs, strict=True)})
    return path


def as_read(dataset: Dataset, **options) -> Dataset:
    skim = Skim(event_variables=("MET_pt",), weight=dataset.weights)
    return dataset.as_read(read(dataset.locations(), skim, stated=dataset.files, **options).files)


# --- the decision about weights ---


def test_weights_that_differ_need_a_decision(tmp_path):
    """Negative weights, as in the README's own example: unweighted, the yield was 2.25 times the right one."""
    events_file(tmp_path / "a.root", [1.0, 1.0, -1.0])
    files = {"files": ["a.root"]}
    with pytest.raises(InputError, match=r"mine/p__nominal: its genWeight goes from -1 to 1, and nothing says whether"):
        as_read(loaded(tmp_path, p__nominal=files).dataset("mine", "p"))
    weighted = as_read(loaded(tmp_path, p__nominal=files | {"weights": "generator"}).dataset("mine", "p"))
    assert weighted.normalisation(10.0) == pytest.approx(2.0 * 10 / 1)
    counted = as_read(loaded(tmp_path, p__nominal=files | {"weights": "none"}).dataset("mine", "p"))
    assert counted.normalisation(10.0) == pytest.approx(2.0 * 10 / 3)


@pytest.mark.parametrize("weights", [None, [2.0, 2.0, 2.0]])
def test_weights_that_make_no_difference_need_none(tmp_path, weights):
    events_file(tmp_path / "a.root", weights)
    dataset = as_read(loaded(tmp_path, p__nominal={"files": ["a.root"]}).dataset("mine", "p"))
    assert dataset.weights == "none"
    assert dataset.normalisation(1.0) == 2.0 / (4 if weights is None else 3)


def test_constant_weights_that_differ_between_files_need_a_decision(tmp_path):
    events_file(tmp_path / "a.root", [1.0, 1.0])
    events_file(tmp_path / "b.root", [3.0, 3.0])
    with pytest.raises(InputError, match="its genWeight goes from 1 to 3"):
        as_read(loaded(tmp_path, p__nominal={"files": ["a.root", "b.root"]}).dataset("mine", "p"))


@pytest.mark.parametrize("stated", [1 / 3, 632.0])
def test_a_wrong_sum_of_weights_is_noticed(tmp_path, stated):
    events_file(tmp_path / "a.root", [1.0, 1.0, -1.0])
    entry = {"weights": "generator", "files": [{"path": "a.root", "events": 3, "sum_of_weights": stated}]}
    with pytest.raises(InputError, match=r"a.root add up to .*, but all its genWeight add up to 1; correct"):
        as_read(loaded(tmp_path, p__nominal=entry).dataset("mine", "p"))


@pytest.mark.parametrize("suffix", ["", "_"])
def test_the_tree_runs_knows_the_sums_before_a_skim(tmp_path, suffix):
    events_file(tmp_path / "a.root", [1.0, 1.0, -1.0], runs=(1000, 800.0, 1000.0), suffix=suffix)
    entry = {"weights": "generator", "files": ["a.root"]}
    dataset = as_read(loaded(tmp_path, p__nominal=entry).dataset("mine", "p"))
    (file,) = dataset.files
    assert (file.events, file.entries, file.sum_of_weights, file.sum_of_squared_weights) == (1000, 3, 800.0, 1000.0)
    assert dataset.normalisation(1.0) == 2.0 / 800
    wrong = {"weights": "generator", "files": [{"path": "a.root", "sum_of_weights": 1.0}]}
    with pytest.raises(InputError, match=r"add up to 1, but its tree Runs says 800; correct 'sum_of_weights'"):
        as_read(loaded(tmp_path, p__nominal=wrong).dataset("mine", "p"))


def test_the_tree_runs_counts_the_events_of_an_unweighted_skim(tmp_path, caplog):
    events_file(tmp_path / "a.root", [1.0, 1.0, -1.0], runs=(1000, 800.0, 1000.0))
    unstated = {"weights": "none", "files": ["a.root"]}
    assert as_read(loaded(tmp_path, p__nominal=unstated).dataset("mine", "p")).normalisation(1.0) == 2.0 / 1000
    assert caplog.text == ""
    stated = {"weights": "none", "files": [{"path": "a.root", "events": 3}]}
    assert as_read(loaded(tmp_path, p__nominal=stated).dataset("mine", "p")).normalisation(1.0) == 2.0 / 3
    assert "says that 3 events were generated for a.root, and its events are weighted by that, but its" in caplog.text


def test_weights_that_are_no_numbers_cannot_be_decided_about(tmp_path):
    events_file(tmp_path / "a.root", [1.0, float("nan")])
    with pytest.raises(InputError, match=r"mine/p__nominal: its genWeight is NaN or infinite in some events; leave"):
        as_read(loaded(tmp_path, p__nominal={"files": ["a.root"]}).dataset("mine", "p"))


def test_a_skim_without_its_sum_is_refused(tmp_path):
    events_file(tmp_path / "a.root", [1.0, 2.0])
    entry = {"weights": "generator", "files": [{"path": "a.root", "events": 100, "entries": 2}]}
    with pytest.raises(InputError, match=r"the sum of the generator weights before the skim is neither stated nor in"):
        as_read(loaded(tmp_path, p__nominal=entry).dataset("mine", "p"))


def test_a_formula_weighs_events_and_the_generator_weight_normalises(tmp_path):
    events_file(tmp_path / "a.root", [1.0, 3.0])
    dataset = loaded(tmp_path, p__nominal={"weights": "genWeight * (MET_pt + 1)", "files": ["a.root"]}).dataset(
        "mine", "p"
    )
    assert dataset.is_weighted
    events = read(dataset.locations(), Skim(weight=dataset.weights)).events
    assert events["weight"].tolist() == [1.0, 6.0]
    assert as_read(dataset).sum_of_weights == 4.0
    unit = loaded(tmp_path, p__nominal={"weights": "MET_pt + 1", "files": ["a.root"]}).dataset("mine", "p")
    assert as_read(unit).sum_of_weights == 2.0


# --- what was read is what is recorded ---


def test_the_record_is_of_the_bytes_that_were_read(tmp_path):
    import hashlib

    file = events_file(tmp_path / "a.root", None)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    dataset = loaded(tmp_path, p__nominal={"files": [{"path": "a.root", "sha256": sha256}]}).dataset("mine", "p")
    (recorded,) = as_read(dataset).files
    assert (recorded.size, recorded.sha256) == (file.stat().st_size, sha256)
    (by_size,) = as_read(dataset, verify="size").files
    assert (by_size.size, by_size.sha256) == (file.stat().st_size, None)
    (unknown,) = as_read(dataset, verify="no").files
    assert (unknown.size, unknown.sha256) == (None, None)


def test_files_that_are_skipped_do_not_normalise(tmp_path, caplog):
    for name in "abc":
        events_file(tmp_path / f"{name}.root", None)
    (tmp_path / "b.root").write_bytes((tmp_path / "a.root").read_bytes()[:-500])
    entry = {"files": [{"path": f"{name}.root", "events": 4} for name in "abc"]}
    dataset = loaded(tmp_path, p__nominal=entry).dataset("mine", "p")
    with pytest.raises(InputError, match=r"b.root: cannot be read"):
        as_read(dataset)
    rest = as_read(dataset, skip_bad_files=True)
    assert [file.path for file in rest.files] == ["a.root", "c.root"]
    assert rest.events == 8
    assert "a file is skipped: " in caplog.text


# --- patterns and folders ---


def test_patterns_and_folders_stand_for_their_files(tmp_path):
    for name in ("x/b.root", "x/a.root", "x/deep/c.root", "x/d.parquet", "x/e.root.part", "x/notes.txt", "y/f[1].root"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def paths(*files: str) -> list[str]:
        dataset = loaded(tmp_path, p__nominal={"files": list(files)}).dataset("mine", "p")
        return [file.path for file in dataset.expanded().files]

    assert paths("x/*.root") == ["x/a.root", "x/b.root"]
    assert paths("x") == paths("x/") == ["x/a.root", "x/b.root", "x/d.parquet", "x/deep/c.root"]
    assert paths("x/b.root", "x/*.root") == ["x/b.root", "x/a.root"]
    assert paths("y/f[1].root") == ["y/f[1].root"], "a file of that name is no pattern"
    with pytest.raises(InputError, match=r"mine/p__nominal: 'z/\*.root' fits no ROOT or parquet file in"):
        paths("z/*.root")


def test_a_pattern_states_nothing_else(tmp_path):
    (tmp_path / "a.root").write_bytes(b"")
    dataset = loaded(tmp_path, p__nominal={"files": [{"path": "*.root", "events": 3}]}).dataset("mine", "p")
    with pytest.raises(InputError, match=r"'\*.root' stands for several files, but states facts as of one"):
        dataset.expanded()
    with pytest.raises(InputError, match="is a pattern, and https://x/ cannot be listed"):
        dataset.expanded("https://x/")


def test_events_of_a_pattern_are_those_of_its_files(tmp_path):
    for name in "ab":
        events_file(tmp_path / f"{name}.root", None)
    dataset = loaded(tmp_path, p__nominal={"files": ["*.root"]}).dataset("mine", "p").expanded()
    with pytest.raises(InputError, match=r"the events of a.root are not known before it is read"):
        _ = dataset.events
    assert as_read(dataset).events == 8


# --- several data-taking periods ---


def test_each_period_has_its_luminosity(tmp_path):
    file = {"files": [{"path": "a.root", "events": 4}]}
    manifest = loaded(
        tmp_path,
        periods={"2016": 36_000.0, "2017": 41_000.0},
        p__nominal__2016=file,
        p__nominal__2017=file,
        q__nominal=file,
    )
    first, second = manifest.every_period("mine", "p")
    assert (first.period, first.normalisation(1.0)) == ("2016", 2.0 * 36_000 / 4)
    assert (second.period, second.normalisation(1.0)) == ("2017", 2.0 * 41_000 / 4)
    (only,) = manifest.every_period("mine", "q")
    assert only.normalisation(10.0) == 2.0 * 10 / 4


def test_a_year_may_be_a_number(tmp_path):
    file = {"files": [{"path": "a.root", "events": 4}], "period": 2016}
    manifest = loaded(tmp_path, periods={2016: 36_000.0}, p__nominal__2016=file)
    (dataset,) = manifest.every_period("mine", "p")
    assert (dataset.period, dataset.luminosity) == ("2016", 36_000.0)


def two_periods(tmp_path, **others: dict) -> Manifest:
    file = {"files": [{"path": "a.root", "events": 4}]}
    known = {"p__nominal__2016": file, "p__nominal__2017": file} | {
        name: file | entry for name, entry in others.items()
    }
    return loaded(tmp_path, periods={"2016": 36_000.0, "2017": 41_000.0}, **known)


def test_a_process_that_lacks_a_period_is_refused(tmp_path):
    """It would be counted for a part of the data, and the others for all."""
    manifest = two_periods(tmp_path, q__nominal__2016={})
    datasets = [*manifest.every_period("mine", "p"), *manifest.every_period("mine", "q")]
    with pytest.raises(InputError, match=r"mine/q__nominal__2016: there is no such data set for the period 2017"):
        check_periods(datasets, 77_000.0)
    check_periods(datasets[:2], 1.0)


def test_a_process_without_a_period_stands_for_all(tmp_path):
    manifest = two_periods(tmp_path, q__nominal={})
    datasets = [*manifest.every_period("mine", "p"), *manifest.every_period("mine", "q")]
    check_periods(datasets, 77_000.0)
    with pytest.raises(
        InputError, match=r"mine/q__nominal: has no period, so .* config .3000/pb. .* add up to 77000/pb"
    ):
        check_periods(datasets, 3_000.0)


def test_a_process_is_with_or_without_periods(tmp_path):
    with pytest.raises(InputError, match=r"mine/p__nominal: has no period, but mine/p__nominal__2016 has"):
        two_periods(tmp_path, p__nominal={}).every_period("mine", "p")


def test_an_unknown_period_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"p__nominal__2018.period is '2018', which is not among the periods \(2016\)"):
        loaded(tmp_path, periods={"2016": 1.0}, p__nominal__2018={"files": ["a.root"]})


def test_a_data_set_that_is_stated_twice_is_refused(tmp_path):
    """The second used to replace the first, so a sample lost what its extension did not have."""
    path = tmp_path / "manifest.yaml"
    loaded(tmp_path, p__nominal={"files": ["a.root"]})
    text = path.read_text()
    entry = text[text.index("  mine/p__nominal:") : text.index("periods:")]
    path.write_text(text.replace(entry, entry + entry.replace("a.root", "a_ext1.root")))
    with pytest.raises(InputError, match=r"manifest.yaml: line \d+: the key 'mine/p__nominal' is stated twice"):
        load_manifest(path)


def test_a_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    events_file(tmp_path / "a.root", None)
    dataset = loaded(tmp_path, p__nominal={"files": ["a.root"]}).dataset("mine", "p")
    assert dataset.locations("~") == (str(tmp_path / "a.root"),)
    assert load_manifest("~/manifest.yaml").dataset("mine", "p") == dataset
    assert read(["~/a.root"], Skim(event_variables=("MET_pt",))).entries == (4,)
