"""Another file than the stated one is noticed before it is read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pipeline.ingest import InputError, read
from pipeline.ingest.content import content_of, sha256_of
from small_files import random_branches


@dataclass
class Stated:
    """What a manifest says of a file."""

    path: str
    size: int | None = None
    sha256: str | None = None


@pytest.fixture
def file(make_file) -> Path:
    return make_file("a.root", random_branches(300))


@pytest.fixture
def stated(file) -> Stated:
    content = file.read_bytes()
    return Stated("a.root", len(content), hashlib.sha256(content).hexdigest())


def test_the_stated_file_is_read(file, stated, skim):
    (facts,) = read([file], skim, stated=[stated]).files
    assert (facts.size, facts.sha256) == (stated.size, stated.sha256)


def test_what_nothing_is_stated_of_is_recorded_all_the_same(file, skim, tmp_path):
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    for cache in (None, tmp_path / "cache"):
        assert read([file], skim, cache=cache).files[0].sha256 == expected
    assert read([file], skim, verify="size").files[0].sha256 is None


@pytest.mark.parametrize("cached", [False, True])
def test_another_file_of_equal_size_is_refused(file, stated, skim, tmp_path, cached):
    """As many entries, as many bytes: nothing else would show that W+jets was replaced."""
    cache = tmp_path / "cache" if cached else None
    read([file], skim, stated=[stated], cache=cache)
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    message = rf"a.root: has the sha256 [0-9a-f]{{64}}, but the manifest says {stated.sha256}; it is another file or a"
    with pytest.raises(InputError, match=message):
        read([file], skim, stated=[stated], cache=cache)
    read([file], skim, stated=[stated], cache=cache, verify="size")
    with pytest.raises(InputError, match="has the sha256"):
        read([file], skim, stated=[stated], cache=cache)


def test_another_size_is_refused_unless_nothing_is_verified(file, stated, skim):
    other = Stated("a.root", stated.size - 1)
    for verify in ("size", "sha256"):
        with pytest.raises(InputError, match=rf"a.root: has {stated.size} bytes, but the manifest says {other.size};"):
            read([file], skim, stated=[other], verify=verify)
    assert read([file], skim, stated=[other], verify="no").entries == (300,)


def test_every_flipped_byte_is_noticed(file, stated, skim):
    """Of 110 copies with a flipped byte, 22 were read as good: the compression that ROOT prefers has no checksum."""
    content = file.read_bytes()
    for position in np.random.default_rng(0).choice(len(content), 20, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="has the sha256"):
            read([file], skim, stated=[stated])


def test_what_is_to_be_skipped_may_be_another_file(file, stated, skim, make_file):
    good = make_file("b.root", random_branches(50, 1))
    ingested = read(
        [file, good], skim, stated=[Stated("a.root", 1), Stated("b.root")], skip_bad_files=True, label="ttbar"
    )
    assert ingested.entries == (0, 50)
    (skipped,) = ingested.skipped
    assert (skipped.location, "but the manifest says 1" in skipped.failure) == (str(file), True)
    with pytest.raises(InputError, match="but the manifest says 1"):
        read([file], skim, stated=[Stated("a.root", 1)], skip_bad_files=True)


def test_a_checksum_is_that_of_the_standard_library(file):
    assert sha256_of(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"nowhere.root: no such file; correct the path, or get it with python -m pipe"
    ):
        content_of(str(tmp_path / "nowhere.root"))


@pytest.mark.parametrize(
    "name", ["a b.root", "a:b.root", "a#b.root", "50%.root", "ü.root", "a::b.root", "a?b*[1].root"]
)
def test_odd_names(file, skim, name, tmp_path):
    odd = file.rename(tmp_path / name)
    ingested = read([odd], skim, stated=[Stated(name, odd.stat().st_size, sha256_of(odd))], cache=tmp_path / "cache")
    assert ingested.entries == (300,)
