"""The cache: what makes an entry another entry, and that a damaged one is never believed."""

import dataclasses
import os

import awkward as ak
import pytest
from pipeline.ingest.cache import entry_key, load, store, sweep
from pipeline.ingest.content import content_of
from pipeline.ingest.facts import RunSums, WeightSums
from pipeline.ingest.fileskim import FileSkim, skimmed_part
from small_files import random_branches


@pytest.fixture
def file(make_file):
    return make_file("a.root", random_branches(200))


@pytest.fixture
def entry(file, skim) -> FileSkim:
    return skimmed_part(str(file), "Events", skim)


def same(one: FileSkim | None, other: FileSkim | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        ak.array_equal(one.events, other.events)
        and one.events.type == other.events.type
        and (one.entries, one.odd, one.numbered) == (other.entries, other.odd, other.numbered)
        and (one.generated, one.runs) == (other.generated, other.runs)
    )


@pytest.mark.parametrize("events", [200, 0])
def test_what_is_stored_comes_back(tmp_path, make_file, skim, events):
    skimmed = skimmed_part(str(make_file("b.root", random_branches(events))), "Events", skim)
    skimmed = dataclasses.replace(skimmed, odd={"Jet": 3}, runs=RunSums(3, 0.1, 0.3), generated=WeightSums())
    store(tmp_path / "cache", "key", skimmed)
    assert same(load(tmp_path / "cache", "key"), skimmed)


def test_nothing_stored_nothing_found(tmp_path):
    assert load(tmp_path / "nowhere", "key") is None


@pytest.mark.parametrize("position", [0, 100, -1000, -30, -1])
def test_a_flipped_byte_is_noticed(tmp_path, entry, position, caplog):
    store(tmp_path, "key", entry)
    (path,) = tmp_path.glob("key.*.arrow")
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    path.write_bytes(content)
    assert load(tmp_path, "key") is None
    assert "damaged; it is deleted and made again" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_a_cut_entry_is_noticed(tmp_path, entry, length):
    store(tmp_path, "key", entry)
    (path,) = tmp_path.glob("key.*.arrow")
    path.write_bytes(path.read_bytes()[:length])
    assert load(tmp_path, "key") is None
    store(tmp_path, "key", entry)
    assert same(load(tmp_path, "key"), entry)


def test_a_killed_writer_leaves_no_entry(tmp_path, entry, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path, "key", entry)
    assert load(tmp_path, "key") is None


def test_a_full_disk_costs_only_the_entry(tmp_path, entry, monkeypatch, caplog):
    def half(path, content):
        with path.open("wb") as part:
            part.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", half)
    store(tmp_path, "key", entry)
    assert "cannot be written ([Errno 28] No space left on device)" in caplog.text
    assert list(tmp_path.iterdir()) == [tmp_path / "a.root"]


def test_a_folder_that_cannot_be_made_costs_only_the_entry(tmp_path, entry, caplog):
    (tmp_path / "file").write_text("not a folder")
    store(tmp_path / "file" / "cache", "key", entry)
    assert "cannot be written" in caplog.text


def test_parts_of_killed_runs_are_swept(tmp_path):
    old, new = tmp_path / "key.1.part", tmp_path / "key.2.part"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


# --- the key ---


def whole_key(file, skim, tree="Events") -> str:
    return entry_key(content_of(str(file), hashed=True), tree, skim)


def test_the_key_is_of_content_not_of_name_or_time(file, skim):
    key = whole_key(file, skim)
    copy = file.with_name("copy.root")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, (1, 1))
    assert whole_key(copy, skim) == key


def test_one_changed_byte_changes_the_key_even_at_the_same_time(file, skim):
    key, times = whole_key(file, skim), file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x01
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert whole_key(file, skim) != key


@pytest.mark.parametrize("position", [60, 5_000, -1])
def test_large_files_are_known_by_head_tail_and_time(file, skim, monkeypatch, position):
    monkeypatch.setattr("pipeline.ingest.content.BLOCK", 1000)
    key, times = entry_key(content_of(str(file), marked=True), "Events", skim), file.stat()
    content = bytearray(file.read_bytes())
    content[position] ^= 0x01
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + (1_000_000 if position == 5_000 else 0)))
    assert entry_key(content_of(str(file), marked=True), "Events", skim) != key


def test_skim_tree_and_code_are_in_the_key(file, skim, monkeypatch):
    keys = [whole_key(file, skim), whole_key(file, skim, "Tree")]
    keys.append(whole_key(file, dataclasses.replace(skim, event_variables=())))
    keys.append(whole_key(file, dataclasses.replace(skim, weight="generator")))
    jets = dataclasses.replace(skim.objects[2], requirements=skim.objects[2].requirements[:2])
    keys.append(whole_key(file, dataclasses.replace(skim, objects=(*skim.objects[:2], jets))))
    monkeypatch.setattr("pipeline.__version__", "0.0.0")
    keys.append(whole_key(file, skim))
    source = file.with_name("skim.py")
    source.write_text("changed")
    monkeypatch.setattr("pipeline.ingest.cache.SOURCES", (source,))
    keys.append(whole_key(file, skim))
    assert len(set(keys)) == len(keys)
