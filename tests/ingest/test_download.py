"""Downloads from a real server that misbehaves: nothing half-written is ever taken for a file."""

import errno
import gzip
import hashlib
import importlib.util
import struct
from pathlib import Path

import fsspec
import pytest
import urllib3
from pipeline.ingest import InputError, download
from pipeline.ingest.download import is_complete

from range_server import Site, serving

LENGTH = 256 * 5000
CONTENT = struct.pack(">4siii", b"root", 62400, 100, LENGTH) + (bytes(range(256)) * 5000)[16:]
"""As long as its header says, as a ROOT file is."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def small_blocks_and_no_waiting(monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 100_000)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(urllib3.Retry, "sleep", lambda *_: None)


@pytest.fixture
def site():
    with serving(Site({"/a.root": CONTENT})) as running:
        yield running


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "folder" / "a.root"


def part(target: Path) -> Path:
    return target.with_name("a.root.part")


def left_behind(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def fetch(site: Site, target: Path, **known) -> bool:
    return download.download(f"{site.url}/a.root", target, **known)


def test_a_file_is_fetched_once(site, target):
    assert fetch(site, target, size=len(CONTENT), sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == {"a.root"}
    assert not fetch(site, target, size=len(CONTENT), sha256=SHA256)
    assert len(site.requests) == 1


def test_progress_is_told(site, target):
    seen = []
    fetch(site, target, advance=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 5


def test_a_dropped_connection_is_gone_on_with(site, target):
    site.drops["/a.root"] = 3
    fetch(site, target)
    assert target.read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in site.ranges_asked("/a.root")[1:]]
    assert starts == sorted(set(starts))
    assert starts[0] == len(CONTENT) // 2
    assert len(starts) == 3


def test_a_dropped_connection_without_ranges_starts_again(site, target):
    site.ranges, site.drops["/a.root"] = False, 1
    fetch(site, target)
    assert target.read_bytes() == CONTENT


def test_a_connection_that_keeps_dropping_leaves_a_part_and_no_file(site, target):
    site.ranges, site.drops["/a.root"] = False, 100
    with pytest.raises(InputError, match=r"/a.root: the download keeps breaking off .*; run again to go on"):
        fetch(site, target)
    assert not target.exists()
    assert part(target).stat().st_size == len(CONTENT) // 2


def test_a_later_run_goes_on(site, target):
    part(target).parent.mkdir()
    part(target).write_bytes(CONTENT[:70_000])
    fetch(site, target, sha256=SHA256)
    assert site.ranges_asked("/a.root") == ["bytes=70000-"]
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_bytes(site, target):
    part(target).parent.mkdir()
    part(target).write_bytes(CONTENT)
    fetch(site, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_starts_again(site, target):
    part(target).parent.mkdir()
    part(target).write_bytes(CONTENT + b"x")
    fetch(site, target)
    assert target.read_bytes() == CONTENT


def test_two_versions_are_never_stitched_together(site, target):
    site.tags["/a.root"] = '"one"'
    site.drops["/a.root"] = 100
    site.ranges = False
    with pytest.raises(InputError):
        fetch(site, target)
    site.ranges, site.drops["/a.root"] = True, 0
    other = CONTENT[:16] + CONTENT[:15:-1]
    site.files["/a.root"], site.tags["/a.root"] = other, '"two"'
    fetch(site, target)
    assert target.read_bytes() == other


def test_another_size_than_the_manifests_is_refused_before_a_byte_is_kept(site, target):
    with pytest.raises(InputError, match=rf"has {len(CONTENT)} bytes, but the manifest says 17; one of them is wrong"):
        fetch(site, target, size=17)
    assert left_behind(target) == set()


def test_an_announced_size_that_is_not_kept_is_no_file(site, target):
    site.ranges, site.announced["/a.root"] = False, len(CONTENT) + 1000
    with pytest.raises(InputError, match="keeps breaking off"):
        fetch(site, target)
    assert not target.exists()


def test_another_checksum_is_refused_and_deleted(site, target):
    with pytest.raises(InputError, match="its checksum is not that of the manifest; what was fetched is deleted"):
        fetch(site, target, sha256="0" * 64)
    assert not target.exists()
    assert not part(target).exists()


@pytest.mark.parametrize("known", [{"size": len(CONTENT)}, {"sha256": SHA256}])
def test_a_wrong_file_in_the_place_is_replaced(site, target, known):
    target.parent.mkdir()
    target.write_bytes(b"half")
    assert fetch(site, target, **known)
    assert target.read_bytes() == CONTENT


def test_a_missing_file_is_a_sentence(site, target):
    with pytest.raises(InputError, match=r"/b.root: no such file on the server \(404 Not Found\); check"):
        download.download(f"{site.url}/b.root", target)
    assert left_behind(target) == set()


def test_a_refusal_is_a_sentence(site, target):
    site.statuses["/a.root"] = [403]
    with pytest.raises(InputError, match=r"/a.root: the server refuses access \(403 Forbidden\); ask its owner"):
        fetch(site, target)
    assert left_behind(target) == set()


def test_a_busy_server_is_asked_again(site, target):
    site.statuses["/a.root"] = [503, 500, 429]
    fetch(site, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up(site, target):
    site.statuses["/a.root"] = [503] * 100
    with pytest.raises(InputError, match=r"the server is busy or fails \(503 .*\), asked several times; try"):
        fetch(site, target)


def test_an_unreachable_host_is_a_sentence(target):
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/a.root: cannot be reached .* check the address"):
        download.download("http://127.0.0.1:9/a.root", target)


class _FullDisk:
    """A file that takes some bytes and no more."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def write(self, block: bytes) -> int:
        self._room -= len(block)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(block)


def test_a_full_disk_is_a_sentence_and_the_part_is_gone_on_with(site, target, monkeypatch):
    with monkeypatch.context() as full:
        ordinary = Path.open
        full.setattr(Path, "open", lambda path, mode="r", **rest: _FullDisk(ordinary(path, mode, **rest), 450_000))
        full.setattr(Path, "write_text", lambda *_: None)
        with pytest.raises(InputError, match=r"a.root.part: cannot be written \(No space left on device\); make room"):
            fetch(site, target)
    assert not target.exists()
    assert part(target).read_bytes() == CONTENT[:400_000]
    fetch(site, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges_asked("/a.root") == [None, "bytes=400000-"]


def test_a_folder_that_cannot_be_made_is_a_sentence(site, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written \(.*\); make room"):
        fetch(site, tmp_path / "file" / "folder" / "a.root")


# --- what is no data file is no file ---


def test_half_a_file_without_a_length_is_refused_and_fetched_again(site, target):
    """Nothing but the file's own header says that half of it is missing."""
    site.files["/a.root"] = CONTENT[: LENGTH // 2]
    message = rf"/a.root: cannot be read \(it has {LENGTH // 2} bytes of the {LENGTH} that its header states\).*deleted"
    with pytest.raises(InputError, match=message):
        fetch(site, target)
    assert left_behind(target) == set()
    target.write_bytes(CONTENT[: LENGTH // 2])
    site.files["/a.root"] = CONTENT
    assert fetch(site, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"<!DOCTYPE html><title>Sign in</title>" * 9000,
            "the server sends a web page, perhaps a login, instead of the file; log in",
        ),
        (b"\n<html>" + bytes(9000), "the server sends a web page"),
        (gzip.compress(CONTENT), "is compressed by gzip"),
        (b"PAR1" + bytes(100) + b"PAR1", "is a parquet file, but its name says root"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
def test_what_is_no_root_file_is_not_kept(site, target, content, message):
    site.files["/a.root"] = content
    with pytest.raises(InputError, match=rf"/a.root: .*{message}|{message}"):
        fetch(site, target)
    assert left_behind(target) == set()


def test_a_parquet_file_has_its_own_marks(site, tmp_path):
    content = b"PAR1" + bytes(100) + b"PAR1"
    site.files["/a.parquet"] = content
    assert download.download(f"{site.url}/a.parquet", tmp_path / "a.parquet")
    site.files["/a.parquet"] = content[:-4]
    with pytest.raises(InputError, match="the end of a parquet file is missing"):
        download.download(f"{site.url}/a.parquet", tmp_path / "b.parquet")


# --- what is not http goes through fsspec ---


@pytest.fixture
def memory_file():
    system = fsspec.filesystem("memory")
    system.pipe_file("/a.root", CONTENT)
    yield "memory://a.root"
    system.rm("/a.root")


@pytest.mark.parametrize("have", [0, 70_000, len(CONTENT), len(CONTENT) + 5])
def test_other_protocols_go_on_too(memory_file, target, have):
    part(target).parent.mkdir()
    part(target).write_bytes((CONTENT + b"12345")[:have])
    assert download.download(memory_file, target, size=len(CONTENT), sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.skipif(importlib.util.find_spec("fsspec_xrootd") is not None, reason="fsspec-xrootd is installed")
def test_a_protocol_without_its_package_is_a_sentence(target):
    with pytest.raises(InputError, match=r"root://eos/a.root: this protocol needs another package \(.*xrootd"):
        download.download("root://eos/a.root", target)


def test_complete_is_what_is_known_to_be(tmp_path):
    file = tmp_path / "a.root"
    assert not is_complete(file)
    file.write_bytes(CONTENT[:-1])
    assert not is_complete(file)
    file.write_bytes(CONTENT)
    assert is_complete(file)
    assert is_complete(file, size=len(CONTENT), sha256=SHA256)
    assert not is_complete(file, size=1)
    assert not is_complete(file, sha256="0" * 64)
