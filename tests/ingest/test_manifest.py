"""The manifest: the AGC's numbers, the schema's complaints, and the weight of an event."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pipeline.ingest.manifest import Dataset, InputError, Manifest, dataset_key, default_manifest, load_manifest

LUMINOSITY = 3378.0
"""1/pb, as the AGC."""

# Files and events of all nine data sets for a limit of n files each: from the AGC's utils/file_input.py at c37bf59.
LIMITS = {
    1: (9, 10_455_719),
    2: (18, 19_497_435),
    5: (43, 47_996_231),
    10: (79, 90_546_458),
    20: (140, 163_123_242),
    50: (255, 297_247_463),
    100: (395, 470_397_795),
    200: (595, 705_273_291),
    -1: (787, 940_160_174),
}
# Data set: files, events, weight with all files, weight with one file.
WEIGHTS = {
    "ttbar__nominal": (243, 276_079_127, 0.008930046783, 1.847532816),
    "ttbar__scaledown": (32, 39_329_663, 0.06268549822, 1.943941185),
    "ttbar__scaleup": (33, 38_424_467, 0.0641622308, 1.928059091),
    "ttbar__ME_var": (16, 19_098_219, 0.1290905461, 1.817069222),
    "ttbar__PS_var": (15, 19_337_064, 0.1274960625, 1.881651127),
    "single_top_s_chan__nominal": (6, 2_867_199, 0.003881308273, 0.01760835949),
    "single_top_t_chan__nominal": (90, 109_305_936, 0.007256083077, 0.6729221411),
    "single_top_tW__nominal": (3, 1_999_400, 0.1281355787, 0.3022584663),
    "wjets__nominal": (349, 433_719_099, 0.1206210197, 41.88347226),
}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest()


def agc(manifest: Manifest) -> dict[str, Dataset]:
    return {key.removeprefix("agc/"): dataset for key, dataset in manifest.datasets.items() if key.startswith("agc/")}


@pytest.mark.parametrize("max_files", LIMITS)
def test_limits_on_files_give_the_agc_numbers(manifest, max_files):
    limited = [dataset.first(max_files) for dataset in agc(manifest).values()]
    assert (sum(len(d.files) for d in limited), sum(d.events for d in limited)) == LIMITS[max_files]


@pytest.mark.parametrize("key", WEIGHTS)
def test_weights_are_those_of_the_agc(manifest, key):
    dataset = agc(manifest)[key]
    weights = dataset.normalisation(LUMINOSITY), dataset.first(1).normalisation(LUMINOSITY)
    assert (len(dataset.files), dataset.events) == WEIGHTS[key][:2]
    assert weights == pytest.approx(WEIGHTS[key][2:], rel=1e-9)


def test_every_file_and_weight_against_the_agc_lists(manifest, external_data):
    lists = json.loads((external_data / "nanoaod_inputs.json").read_text())
    facts = json.loads((external_data / "manifest_facts.json").read_text())["processes"]
    compared = 0
    for process, variations in lists.items():
        for variation, listed in variations.items():
            dataset = manifest.dataset("agc", process, variation)
            files = [(f"{location}", f.events) for location, f in zip(dataset.locations(), dataset.files, strict=True)]
            assert files == [(f["path"], f["nevts"]) for f in listed["files"]]
            expected = facts[process]["variations"][variation]
            assert list(dataset.records) == [int(r["opendata_record"]) for r in expected["records_in_order"]]
            for limit, numbers in expected["by_max_files"].items():
                limited = dataset.first(None if limit == "all" else int(limit))
                assert (len(limited.files), limited.events) == (numbers["n_files"], numbers["nevts"])
                assert limited.normalisation(LUMINOSITY) == pytest.approx(numbers["weight"], rel=1e-14)
                compared += 1
    assert compared == 9 * 9


def test_prefixes(manifest):
    dataset = manifest.dataset("agc", "ttbar").first(1)
    path = dataset.files[0].path
    assert dataset.locations() == ("https://xrootd-local.unl.edu:1094//store/user/AGC/nanoAOD/" + path,)
    assert dataset.locations("eos") == ("root://eospublic.cern.ch//eos/opendata/cms/upload/agc/1.0.0/" + path,)
    assert dataset.locations("/scratch/agc") == ("/scratch/agc/" + path,)


def test_simulated_data_lie_beside_the_manifest_and_are_what_it_says(manifest):
    simulated = [dataset for key, dataset in manifest.datasets.items() if key.startswith("simulated/")]
    assert simulated
    for dataset in simulated:
        assert dataset.source.simulated
        for location, file in zip(dataset.locations(), dataset.files, strict=True):
            content = Path(location).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256), file.path


def test_simulated_data_play_every_role_of_the_agc(manifest):
    for key in agc(manifest):
        process, _, variation = key.partition("__")
        assert manifest.dataset("simulated", process, variation).role == variation


def test_neither_jax_nor_awkward_is_needed():
    code = "import sys, pipeline.ingest.manifest as m; m.load_manifest(); print({'jax', 'numpy'} & set(sys.modules))"
    folder = default_manifest().parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == "set()"


# --- a small manifest of our own ---


def document(**changes) -> dict:
    """A manifest with one source and one data set; `changes` replace its keys, None leaves one out."""
    dataset = {
        "source": "made",
        "process": "ttbar",
        "variation": "nominal",
        "cross_section_pb": 2.0,
        "weights": "generator",
        "files": [
            {"path": "a.root", "events": 10, "entries": 4, "sum_of_weights": 5.0},
            {"path": "b.root", "events": 30, "sum_of_weights": 20.0},
        ],
    } | changes
    source = {"description": "d", "licence": "l", "citation": "c", "simulated": True, "prefixes": {"local": "data"}}
    return {
        "sources": {"made": source},
        "datasets": {"mine/ttbar__nominal": {k: v for k, v in dataset.items() if v is not None}},
    }


def written(folder: Path, content: dict | str) -> Path:
    path = folder / "data_manifest.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_generator_weights_set_the_normalisation(tmp_path):
    dataset = load_manifest(written(tmp_path, document())).dataset("mine", "ttbar")
    assert dataset.normalisation(100.0) == 2.0 * 100.0 / 25.0
    assert dataset.first(1).normalisation(100.0) == 2.0 * 100.0 / 5.0
    assert dataset.model_copy(update={"weights": "none"}).normalisation(100.0) == 2.0 * 100.0 / 40
    assert dataset.locations() == (str(tmp_path / "data/a.root"), str(tmp_path / "data/b.root"))


def test_a_role_names_a_variation(tmp_path):
    content = document(variation="vincia_shower", role="PS_var")
    content["datasets"]["mine/ttbar__vincia_shower"] = content["datasets"].pop("mine/ttbar__nominal")
    manifest = load_manifest(written(tmp_path, content))
    assert manifest.dataset("mine", "ttbar", "PS_var") is manifest.dataset("mine", "ttbar", "vincia_shower")
    assert dataset_key("mine", "ttbar", "vincia_shower") == manifest.dataset("mine", "ttbar", "PS_var").key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_section": 1.0}, r"datasets.mine/ttbar__nominal.cross_section: extra inputs are not permitted"),
        ({"cross_section_pb": -1.0}, r"datasets.mine/ttbar__nominal.cross_section_pb: input should be greater than 0"),
        ({"cross_section_pb": float("nan")}, r"cross_section_pb: input should be"),
        ({"cross_section_pb": None}, r"datasets.mine/ttbar__nominal.cross_section_pb: field required"),
        ({"process": "wjets"}, r"the key must end in 'wjets__nominal'"),
        ({"source": "elsewhere"}, r"datasets.mine/ttbar__nominal.source is 'elsewhere', .* the sources made"),
        ({"weights": "genWeight **"}, r"weights: 'genWeight \*\*' is not a formula"),
        ({"weights": "open('x')"}, r"weights: 'open\('x'\)' is not allowed in a formula"),
        ({"files": []}, r"files: tuple should have at least 1 item"),
        ({"files": [{"path": "a.root", "events": 1}] * 2, "weights": "none"}, r"a file is listed twice"),
        ({"files": ["a.root", "./a.root"], "weights": "none"}, r"a file is listed twice"),
        ({"files": [{"path": "a.root", "events": -1}]}, r"files.0.events: input should be greater than or equal to 0"),
        ({"files": [{"path": "a.root", "events": 1, "sha256": "abc"}]}, r"files.0.sha256: string should match pattern"),
        ({"files": [{"path": "../a.root", "events": 1}]}, r"files.0.path: must be relative"),
        ({"files": [{"path": "https://x/a.root", "events": 1}]}, r"files.0.path: must be relative"),
    ],
)
def test_the_schema_says_where_and_what(tmp_path, changes, message):
    path = written(tmp_path, document(**changes))
    with pytest.raises(InputError, match=message) as raised:
        load_manifest(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "sources: {}", "sources: 3\ndatasets: {}"])
def test_both_sections_are_needed(tmp_path, content):
    with pytest.raises(InputError, match="must have the two sections 'sources' and 'datasets'"):
        load_manifest(written(tmp_path, content))


def test_bad_yaml_and_missing_files_are_sentences(tmp_path):
    with pytest.raises(InputError, match=r"data_manifest.yaml: not valid YAML: .* in line 2, column 1"):
        load_manifest(written(tmp_path, "sources: ["))
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        load_manifest(tmp_path / "nowhere.yaml")


def test_an_unknown_data_set_gets_its_nearest_names(manifest):
    with pytest.raises(InputError, match=r"no data set 'agc/ttbar__nominl'; did you mean agc/ttbar__nominal"):
        manifest.dataset("agc", "ttbar", "nominl")


@pytest.mark.parametrize("max_files", [0, -2])
def test_a_limit_must_make_sense(manifest, max_files):
    with pytest.raises(InputError, match=f"max_files is {max_files}, but it must be at least 1, or -1 for all files"):
        manifest.dataset("agc", "ttbar").first(max_files)


def test_no_events_no_weight(tmp_path):
    content = document(weights="none", files=[{"path": "a.root", "events": 0}])
    with pytest.raises(InputError, match="mine/ttbar__nominal: the weights of its files add up to 0"):
        load_manifest(written(tmp_path, content)).dataset("mine", "ttbar").normalisation(1.0)


def test_the_place_that_configs_start_with_is_told_apart_from_a_folder():
    """`local` is the default of a config, and the AGC's files have no such place."""
    dataset = load_manifest().dataset("agc", "ttbar", "nominal")
    with pytest.raises(InputError, match=r"no location 'local'; set data\.location to unl or eos"):
        dataset.locations("local")


def test_a_config_may_weigh_events_in_another_way_than_the_manifest():
    simulated = load_manifest().dataset("simulated", "wjets", "nominal")
    assert simulated.weighted(None) == simulated
    unweighted = simulated.weighted("none")
    assert unweighted.normalisation(1.0) == simulated.cross_section_pb / simulated.events
    assert unweighted.weighted("generator").normalisation(1.0) == simulated.normalisation(1.0)
    with pytest.raises(InputError, match=r"the sum_of_weights of .*.root are not known before it is read"):
        load_manifest().dataset("agc", "wjets", "nominal").weighted("generator").normalisation(1.0)
    with pytest.raises(InputError, match=r"'\(genWeight,\)' is not allowed in a formula"):
        simulated.weighted("genWeight,")
