"""A remote file made local, whole or not at all.

Bytes go to `<name>.part`, which becomes `<name>` by a rename when its size, and its checksum where one is known, are
right. A download that breaks off leaves the part, and the next attempt asks for the rest only. The tag that the server
gave to the version is kept beside the part, so that two versions of a file are never stitched together.

Connections and busy servers are tried again by urllib3. Other protocols, such as `root://`, go through fsspec where its
plugin is installed.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import urllib3

from pipeline.ingest.manifest import InputError
from pipeline.ingest.rootfile import explained

__all__ = ["UnreachableError", "download", "is_complete"]

BLOCK = 1 << 20
"""Bytes that are written at a time."""
BREAKS = 5
"""Breaks in a row, without a new byte in between, after which a download is given up."""

_http = urllib3.PoolManager(
    maxsize=16,
    timeout=urllib3.Timeout(connect=20, read=60),
    retries=urllib3.Retry(total=5, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504)),
)


class UnreachableError(InputError):
    """The server does not answer, so there is no need to ask it for another file."""


class _BrokenOffError(Exception):
    """The bytes stopped before the end; what came is kept."""


@dataclasses.dataclass(frozen=True)
class _Rest:
    """An answer of a server: from which byte it starts, how long the whole file is, its version, and the bytes."""

    start: int
    total: int | None
    tag: str
    blocks: Iterator[bytes]


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
    part = target.with_name(f"{target.name}.part")
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
    if sha256 is not None and _sha256(part) != sha256:
        part.unlink()
        raise InputError(
            f"{location}: the checksum is not that of the manifest; what was fetched is deleted, try again."
        )
    with _writing(target):
        part.replace(target)
        _tag_file(part).unlink(missing_ok=True)
    return True


def is_complete(target: Path, *, size: int | None = None, sha256: str | None = None) -> bool:
    """Whether a file is there, with the size and the checksum that are known of it."""
    return (
        target.is_file()
        and (size is None or target.stat().st_size == size)
        and (sha256 is None or _sha256(target) == sha256)
    )


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
    with file:
        file.seek(rest.start)
        for block in rest.blocks:
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
    if not re.match("https?://", location):
        return _rest_by_fsspec(location, have)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and _tag_file(part).exists() and (tag := _tag_file(part).read_text()):
        headers["If-Range"] = tag
    try:
        answer = _http.request("GET", location, headers=headers, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:200]
        message = f"{location}: cannot be reached ({reason}); check the address and the network."
        raise UnreachableError(message) from error
    rest = _understood(location, answer, have)
    if rest is None:
        part.unlink()
        raise _BrokenOffError("what was there before is longer than the file")
    return rest


def _understood(location: str, answer: urllib3.BaseHTTPResponse, have: int) -> _Rest | None:
    """What a server's answer means for a part of a given length; None if the part is longer than the file."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
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
        return _Rest(start=have, total=have, tag=tag, blocks=iter(())) if whole else None
    if answer.status == 404:
        raise InputError(f"{location}: no such file on the server; check the manifest, or use another prefix.")
    raise InputError(
        f"{location}: the server answers {answer.status} {answer.reason or ''}".rstrip() + "; try again later."
    )


def _blocks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer.stream(BLOCK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise _BrokenOffError(str(error)) from error
    finally:
        answer.release_conn()


def _rest_by_fsspec(location: str, have: int) -> _Rest:
    with explained(location):
        system, path = fsspec.core.url_to_fs(location)
        total = system.info(path)["size"]
    start = have if have <= total else 0

    def blocks() -> Iterator[bytes]:
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
