"""A remote file made local, whole or not at all.

Bytes go to `<name>.part`, which becomes `<name>` by a rename when its size, and its checksum where one is known, are
right. A download that breaks off leaves the part, and the next attempt asks for the rest only. The tag that the server
gave to the version is kept beside the part, so that two versions of a file are never stitched together.

Connections and busy servers are tried again (`pipeline.ingest.remote`). What arrives under the name of a ROOT or
parquet file must be one, and as long as it says of itself: a login page, gzip bytes or half a file is refused. Other
protocols, such as `root://`, go through fsspec where its plugin is installed.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import fsspec
import urllib3

from pipeline.errors import InputError
from pipeline.ingest.content import sha256_of
from pipeline.ingest.failures import explained
from pipeline.ingest.filekind import check_local, expected_kind, kind_of
from pipeline.ingest.remote import UnreachableError, check_page, is_http, refusal, request, version

__all__ = ["UnreachableError", "download", "is_complete", "part_of"]

BLOCK = 1 << 20
"""Bytes that are written at a time."""
BREAKS = 5
"""Breaks in a row, without a new byte in between, after which a download is given up."""
PAUSE = 0.5
"""Seconds after the first break; after each further one in a row, twice as many."""


class _BrokenOffError(Exception):
    """The bytes stopped before the end; what came is kept."""


@dataclasses.dataclass(frozen=True)
class _Rest:
    """An answer of a server: from which byte it starts, how long the whole file is, its version, and the bytes."""

    start: int
    total: int | None
    tag: str
    blocks: Generator[bytes, None, None]


def download(
    location: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    advance: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> bool:
    """Fetch a file unless it is there; go on where an earlier attempt broke off.

    Args:
        location: URL.
        target: Where the file shall be.
        size: Its bytes, if known.
        sha256: Its checksum, if known.
        advance: Called with the bytes that are there, and how many there will be, if known.

    Returns:
        Whether anything was fetched.

    Raises:
        UnreachableError: The server does not answer.
        InputError: The file cannot be had, has another size or checksum than stated, or cannot be written.
    """
    if is_complete(target, size=size, sha256=sha256):
        return False
    part = part_of(target)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    breaks = 0
    while True:
        before = _length(part)
        try:
            _fetch_rest(location, part, size, advance)
            break
        except _BrokenOffError as error:
            breaks = 1 if _length(part) > before else breaks + 1
            if breaks >= BREAKS:
                raise InputError(
                    f"{location}: the download keeps breaking off ({error}); run again to go on."
                ) from error
            time.sleep(PAUSE * 2 ** (breaks - 1))
    _check_whole(location, part, target, sha256)
    with _writing(target):
        part.replace(target)
        _tag_file(part).unlink(missing_ok=True)
    return True


def part_of(target: Path) -> Path:
    """Where the bytes of a file are until it is whole."""
    return target.with_name(f"{target.name}.part")


def is_complete(target: Path, *, size: int | None = None, sha256: str | None = None) -> bool:
    """Whether a file is there, whole by its own account, with the size and the checksum that are known of it."""
    if not target.is_file() or size not in (None, target.stat().st_size):
        return False
    kind = expected_kind(target.name)
    try:
        if kind is not None:
            check_local(target, expected=kind)
    except InputError:
        return False
    return sha256 is None or sha256_of(target) == sha256


def _check_head(location: str, head: bytes, part: Path) -> None:
    """Do not begin to keep what is no data file: a login page, gzip bytes."""
    try:
        if expected_kind(part.stem) is not None:
            check_page(location, head)
            kind_of(location, head)
    except InputError:
        _delete(part)
        raise


def _delete(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _check_whole(location: str, part: Path, target: Path, sha256: str | None) -> None:
    """Delete what was fetched, if it is not what it should be."""
    try:
        kind = expected_kind(target.name)
        if kind is not None:
            check_local(part, expected=kind)
        if sha256 is not None and sha256_of(part) != sha256:
            raise InputError("its checksum is not that of the manifest")
    except InputError as error:
        _delete(part)
        reason = str(error).removeprefix(f"{part}: ").rstrip(".")
        raise InputError(f"{location}: {reason}; what was fetched is deleted, try again.") from error


def _fetch_rest(location: str, part: Path, size: int | None, advance: Callable[[int, int | None], None]) -> None:
    """Add to a part what it lacks."""
    rest = _rest(location, part)
    expected = rest.total if size is None else size
    if rest.total not in (None, expected):
        raise InputError(f"{location}: has {rest.total} bytes, but the manifest says {expected}; one of them is wrong.")
    with _writing(part):
        # The tag first: a part without its tag would be taken for this version.
        _tag_file(part).write_text(rest.tag)
        file = part.open("r+b" if rest.start else "wb")
    with file, contextlib.closing(rest.blocks):
        file.seek(rest.start)
        for block in rest.blocks:
            if file.tell() == 0:
                _check_head(location, block, part)
            with _writing(part):
                file.write(block)
                file.flush()
            advance(file.tell(), expected)
    if expected is not None and _length(part) > expected:
        part.unlink()
        raise InputError(
            f"{location}: sends more than the {expected} bytes it has; what was fetched is deleted, try again."
        )
    if expected is not None and _length(part) < expected:
        raise _BrokenOffError(f"{_length(part)} of {expected} bytes")


def _rest(location: str, part: Path) -> _Rest:
    have = _length(part)
    if not is_http(location):
        return _rest_by_fsspec(location, have)
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and _tag_file(part).exists() and (tag := _tag_file(part).read_text()):
        headers["If-Range"] = tag
    answer = request(location, headers)
    rest = _understood(location, answer, have)
    if rest is None:
        part.unlink()
        raise _BrokenOffError("what was there before is longer than the file")
    return rest


def _understood(location: str, answer: urllib3.BaseHTTPResponse, have: int) -> _Rest | None:
    """What a server's answer means for a part of a given length; None if the part is longer than the file."""
    tag = version(answer)
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status == 200:
        length = answer.headers.get("Content-Length")
        return _Rest(start=0, total=int(length) if length else None, tag=tag, blocks=_blocks(answer))
    if answer.status == 206 and span and span[1] == str(have):
        total = None if span[2] == "*" else int(span[2])
        return _Rest(start=have, total=total, tag=tag, blocks=_blocks(answer))
    answer.release_conn()
    if answer.status == 416:
        whole = span is not None and span[2] == str(have)
        return _Rest(start=have, total=have, tag=tag, blocks=_no_blocks()) if whole else None
    raise InputError(refusal(location, answer.status, answer.reason or ""))


def _blocks(answer: urllib3.BaseHTTPResponse) -> Generator[bytes, None, None]:
    """What is not read to its end cannot be used again: its connection is closed."""
    try:
        yield from answer.stream(BLOCK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise _BrokenOffError(str(error.args[0] if error.args else error)) from error
    finally:
        answer.close()


def _no_blocks() -> Generator[bytes, None, None]:
    yield from ()


def _rest_by_fsspec(location: str, have: int) -> _Rest:
    with explained(location):
        system, path = fsspec.core.url_to_fs(location)
        total = system.info(path)["size"]
    start = have if have <= total else 0

    def blocks() -> Generator[bytes, None, None]:
        try:
            with system.open(path, "rb") as remote:
                remote.seek(start)
                while block := remote.read(BLOCK):
                    yield block
        except OSError as error:
            raise _BrokenOffError(str(error)) from error

    return _Rest(start=start, total=total, tag="", blocks=blocks())


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); make room and run again, it goes on."
        ) from error


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
