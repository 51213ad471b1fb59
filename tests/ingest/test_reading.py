"""Several files: order, row numbers, processes, remote files, the cache in use, progress, messages."""

import concurrent.futures
import copy
import dataclasses
import io

import awkward as ak
import numpy as np
import pytest
import urllib3
from pipeline.ingest import InputError, events_progress, fileskim, read, reading
from pipeline.ingest.fileskim import skimmed_part
from rich.console import Console
from small_files import random_branches

from range_server import Site, serving


@pytest.fixture
def three_files(make_file):
    """Of different lengths, one of them empty."""
    return [make_file(f"{n}.root", random_branches(events, n), cluster=40) for n, events in enumerate((150, 0, 90))]


@pytest.fixture
def whole(make_file, skim):
    """The three files as one."""
    first, second = random_branches(150, 0), random_branches(90, 2)
    together = {name: ak.concatenate([first[name], second[name]]) for name in first}
    return skimmed_part(str(make_file("together.root", together)), "Events", skim)


def test_files_one_after_the_other_are_one_data_set(three_files, whole, skim):
    ingested = read(three_files, skim)
    assert ingested.entries == (150, 0, 90)
    assert ingested.entries_read == 240
    assert ak.array_equal(ingested.events, whole.events)


def test_several_processes_give_the_same(three_files, skim):
    """Fewer files than processes, so that they are read in parts."""
    alone, together = read(three_files[:1], skim), read(three_files[:1], skim, workers=2)
    assert ak.array_equal(together.events, alone.events)
    assert together.entries == alone.entries


def test_any_executor_will_do(three_files, whole, skim):
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        ingested = read(three_files, skim, executor=threads, workers=4)
    assert ak.array_equal(ingested.events, whole.events)


def test_order_is_the_lists_whatever_ends_first(monkeypatch, three_files, whole, skim):
    def backwards(function, tasks, **_):
        return ((n, function(*tasks[n])) for n in reversed(range(len(tasks))))

    monkeypatch.setattr(reading, "outcomes", backwards)
    assert ak.array_equal(read(three_files, skim, workers=9).events, whole.events)


def test_ttree_and_rntuple_may_be_mixed(make_file, skim):
    branches = random_branches(100)
    files = [make_file("a.root", branches), make_file("b.root", branches, kind="rntuple")]
    events = read(files, skim).events
    half = len(events) // 2
    assert events[:half].Jet.tolist() == events[half:].Jet.tolist()


def test_no_files(skim):
    with pytest.raises(InputError, match="ttbar: there are no files to read"):
        read([], skim, label="ttbar")


def test_a_bad_file_is_named(three_files, skim):
    with pytest.raises(InputError, match=r"nowhere.root: no such file"):
        read([*three_files, three_files[0].with_name("nowhere.root")], skim)


def test_odd_values_are_reported_once(make_file, skim, caplog):
    branches = random_branches(60)
    pt = ak.to_numpy(ak.flatten(branches["Jet_pt"])).copy()
    pt[:3] = np.nan
    branches["Jet_pt"] = ak.unflatten(pt, ak.num(branches["Jet_pt"]))
    other = branches | {"event": branches["event"] ^ np.uint64(1)}
    ingested = read([make_file("a.root", branches), make_file("b.root", other)], skim, label="ttbar")
    assert ingested.odd == {"Jet": 6}
    assert [record.message for record in caplog.records] == [
        "ttbar: NaN, infinite or negative values in 6 of Jet; a cut on NaN is failed."
    ]


# --- remote files ---


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_url_is_read_in_ranges(make_file, skim, kind):
    file = make_file("a.root", random_branches(3000), kind=kind, cluster=1000)
    with serving(Site({"/a.root": file.read_bytes()})) as site:
        remote = read([f"{site.url}/a.root"], skim)
    assert ak.array_equal(remote.events, read([file], skim).events)
    spans = [asked.removeprefix("bytes=").split("-") for asked in site.ranges_asked("/a.root") if asked]
    assert spans
    assert sum(int(stop) - int(start) + 1 for start, stop in spans) < file.stat().st_size


def test_a_missing_url(skim):
    with serving(Site()) as site, pytest.raises(InputError, match=r"/a.root: no such file"):
        read([f"{site.url}/a.root"], skim)


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(fileskim, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(urllib3.Retry, "sleep", lambda *_: None)


@pytest.mark.parametrize("trouble", [{"drops": {"/a.root": 2}}, {"statuses": {"/a.root": [503, 500]}}])
def test_a_connection_that_breaks_is_tried_again(make_file, skim, no_pauses, trouble):
    file = make_file("a.root", random_branches(100))
    with serving(Site({"/a.root": file.read_bytes()}, **trouble)) as site:
        assert len(read([f"{site.url}/a.root"], skim).events) == len(read([file], skim).events)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"drops": {"/a.root": 99}}, r"cannot be reached \(.*\); check the address and the network"),
        ({"ranges": False}, r"the server does not send parts of a file; get the whole with python -m pipeline.fetch"),
        ({"statuses": {"/a.root": [401] * 9}}, r"the server wants a login \(401 Unauthorized\); use an address with"),
        ({"statuses": {"/a.root": [403] * 9}}, r"the server refuses access \(403 Forbidden\); ask its owner"),
        ({"statuses": {"/a.root": [404] * 9}}, r"no such file on the server \(404 Not Found\); check the manifest"),
        ({"statuses": {"/a.root": [410] * 9}}, r"no such file on the server \(410 Gone\); check the manifest"),
        (
            {"statuses": {"/a.root": [429] * 9}},
            r"the server is busy or fails \(429 Too Many Requests\), asked several times; try",
        ),
        (
            {"statuses": {"/a.root": [503] * 9}},
            r"the server is busy or fails \(503 Service Unavailable\), asked several times",
        ),
    ],
)
@pytest.mark.parametrize(("verify", "cached"), [("size", False), ("size", True), ("no", False)])
def test_a_server_that_does_not_do_is_given_up(make_file, skim, no_pauses, tmp_path, trouble, message, verify, cached):
    """The sentence is the same with a cache, and where nothing is verified."""
    file = make_file("a.root", random_branches(3000))
    trouble = copy.deepcopy(trouble)  # the server takes its answers out of it
    with (
        serving(Site({"/a.root": file.read_bytes()}, **trouble)) as site,
        pytest.raises(InputError, match=f"/a.root: {message}") as raised,
    ):
        read([f"{site.url}/a.root"], skim, verify=verify, cache=tmp_path / "cache" if cached else None)
    assert "\n" not in str(raised.value)


def test_an_unreachable_host(skim, no_pauses):
    message = r"http://127.0.0.1:9/a.root: cannot be reached \(.*\); check the address and the network"
    with pytest.raises(InputError, match=message):
        read(["http://127.0.0.1:9/a.root"], skim)


# --- the cache in use ---


def refuse_to_read(*_, **__):
    raise AssertionError("a file was read although its skim is in the cache")


def test_a_second_reading_comes_from_the_cache(three_files, skim, tmp_path, monkeypatch):
    first = read(three_files, skim, cache=tmp_path / "cache")
    monkeypatch.setattr(reading, "skimmed_part", refuse_to_read)
    second = read(three_files, skim, cache=tmp_path / "cache")
    assert ak.array_equal(first.events, second.events)
    assert (first.entries, first.odd) == (second.entries, second.odd)


def test_only_what_is_missing_is_read(three_files, whole, skim, tmp_path, monkeypatch):
    read(three_files[1:], skim, cache=tmp_path / "cache")
    asked = []
    monkeypatch.setattr(
        reading, "skimmed_part", lambda location, *rest: asked.append(location) or skimmed_part(location, *rest)
    )
    ingested = read(three_files, skim, cache=tmp_path / "cache")
    assert asked == [str(three_files[0])]
    assert ak.array_equal(ingested.events, whole.events)


def test_what_was_read_before_a_failure_is_kept(three_files, skim, tmp_path):
    with pytest.raises(InputError):
        read([three_files[0], tmp_path / "nowhere.root"], skim, cache=None)
    bad = three_files[1].with_name("bad.root")
    bad.write_bytes(b"root" * 10)
    with pytest.raises(InputError):
        read([three_files[0], bad], skim, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


def test_remote_files_are_cached(make_file, skim, tmp_path, monkeypatch):
    file = make_file("a.root", random_branches(200))
    with serving(Site({"/a.root": file.read_bytes()})) as site:
        first = read([f"{site.url}/a.root"], skim, cache=tmp_path / "cache")
        site.files["/a.root"] = make_file("b.root", random_branches(200, 1)).read_bytes()
        changed = read([f"{site.url}/a.root"], skim, cache=tmp_path / "cache")
        monkeypatch.setattr(reading, "skimmed_part", refuse_to_read)
        again = read([f"{site.url}/a.root"], skim, cache=tmp_path / "cache")
    assert first.events["event"].tolist() != changed.events["event"].tolist()
    assert ak.array_equal(again.events, changed.events)


# --- progress ---


def shown(**options) -> str:
    terminal = io.StringIO()
    with events_progress(quiet=options.pop("quiet", False), console=Console(file=terminal, width=120)) as progress:
        read(progress=progress, **options)
    return terminal.getvalue()


def test_progress_counts_files_and_events(three_files, skim, tmp_path):
    assert "3/3 files 240 events" in shown(files=three_files, skim=skim, label="ttbar", cache=tmp_path / "cache")
    assert "from the cache" in shown(files=three_files, skim=skim, label="ttbar", cache=tmp_path / "cache")


def test_quiet_shows_nothing(three_files, skim):
    assert shown(files=three_files, skim=skim, quiet=True) == ""


# --- where it runs, and what is left ---


def test_dask_runs_it_unchanged(three_files, whole, skim):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        ingested = read(three_files, skim, executor=client.get_executor(), workers=2)
    assert ak.array_equal(ingested.events, whole.events)


def test_the_number_of_processes_is_chosen_after_the_first_file(three_files, whole, skim, monkeypatch):
    asked = []

    def choose(first: float, share: float, files: int) -> int:
        asked.append((share > 0, files))
        return 1

    monkeypatch.setattr(reading, "workers_that_pay", choose)
    assert ak.array_equal(read(three_files, skim).events, whole.events)
    assert asked == [(True, 2)]


def test_a_data_set_of_which_nothing_passes_is_empty_and_said(make_file, skim, caplog):
    impossible = dataclasses.replace(skim, at_least=((("Jet",), 99),))
    ingested = read([make_file("a.root", random_branches(60))], impossible, label="qcd")
    assert (len(ingested.events), ingested.entries_read) == (0, 60)
    assert ingested.events.type.content == read([make_file("a.root", random_branches(60))], skim).events.type.content
    assert "qcd: none of 60 events passes the loosest cuts, so its templates are empty" in caplog.text


def test_a_bad_file_is_skipped_in_processes_too(three_files, skim, tmp_path):
    bad = tmp_path / "bad.root"
    bad.write_bytes(three_files[0].read_bytes()[:5000])
    files = [bad, *three_files]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        ingested = read(files, skim, executor=threads, workers=2, skip_bad_files=True)
    assert ingested.entries == (0, 150, 0, 90)
    assert [file.location for file in ingested.skipped] == [str(bad)]
    assert ak.array_equal(ingested.events, read(three_files, skim).events)
