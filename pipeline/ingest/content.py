"""Which bytes are read: the size and the checksum of a file, and whether they are the stated ones.

A checksum is taken of the local file that is about to be read, block by block; its cost is in the benchmark. Remote
files are read in ranges and never whole, so of them only the size is known: fetch them to verify them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError
from pipeline.ingest.failures import explained
from pipeline.ingest.filekind import kind_of
from pipeline.ingest.remote import check_page, is_http, probe

__all__ = ["Content", "Verify", "check_content", "content_of", "is_local", "sha256_of"]

Verify = Literal["sha256", "size", "no"]
"""What is compared with the manifest: sizes and checksums, sizes only, or nothing."""

BLOCK = 1_000_000
"""Bytes at the head and at the tail by which files are known that are not read whole."""
STAMPS = ("mtime", "ETag", "Content-MD5", "Digest", "LastModified", "modified")
"""What file systems call the time or tag of a version."""


@dataclass(frozen=True)
class Content:
    """The bytes behind a location.

    Attributes:
        size: How many.
        sha256: Their checksum, if it was asked for.
        marks: What else tells versions apart, if it was asked for: ends of the file, its time or tag.
    """

    size: int
    sha256: str | None = None
    marks: tuple[str, ...] = ()


def is_local(location: str) -> bool:
    """Whether a location is a path of this machine."""
    return "://" not in location


def content_of(location: str, *, hashed: bool = False, marked: bool = False) -> Content:
    """Look at a file before it is read.

    Args:
        location: Path or URL.
        hashed: Whether to take the checksum of all its bytes; of a local file only.
        marked: Whether to take marks that tell versions apart, instead of or beside a checksum.

    Raises:
        InputError: The file is missing or out of reach, or a server sends something else.
    """
    if is_local(location):
        with explained(location):
            status = Path(location).stat()
        size, stamps = status.st_size, [f"mtime {status.st_mtime_ns}"]
    elif is_http(location):
        remote = probe(location)
        check_page(location, remote.head)
        kind_of(location, remote.head)
        size, stamps = remote.size, [remote.tag]
    else:
        with explained(location):
            system, name = fsspec.core.url_to_fs(location)
            info = system.info(name)
        size, stamps = int(info["size"]), [f"{key} {info[key]}" for key in STAMPS if key in info]
    return Content(
        size=size,
        sha256=sha256_of(location) if hashed else None,
        marks=(*_ends(location, size), *stamps) if marked else (),
    )


def check_content(location: str, content: Content, *, size: int | None, sha256: str | None) -> None:
    """Compare a file with what is stated of it.

    Args:
        location: Path or URL.
        content: As found.
        size: As stated, if it is.
        sha256: As stated, if it is; compared where the content has one.

    Raises:
        InputError: They differ.
    """
    if size is not None and size != content.size:
        raise InputError(
            f"{location}: has {content.size} bytes, but the manifest says {size}; fetch the file again, or correct "
            "the manifest."
        )
    if sha256 is not None and content.sha256 not in (None, sha256):
        raise InputError(
            f"{location}: has the sha256 {content.sha256}, but the manifest says {sha256}; it is another file or a "
            "damaged one, so fetch it again, or correct the manifest."
        )


def sha256_of(path: str | Path) -> str:
    """The checksum of a local file, read block by block.

    Args:
        path: Of the file.

    Raises:
        InputError: It cannot be read.
    """
    with explained(str(path)), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ends(location: str, size: int) -> tuple[str, ...]:
    with explained(location):
        system, path = (LocalFileSystem(), location) if is_local(location) else fsspec.core.url_to_fs(location)
        ends = [system.cat_file(path, start, min(start + BLOCK, size)) for start in (0, max(size - BLOCK, 0))]
    return tuple(hashlib.sha256(end).hexdigest() for end in ends)
