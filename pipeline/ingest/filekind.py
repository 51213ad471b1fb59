"""What a file is, by its first bytes, and whether it is all there, by what it says of its own length."""

import struct
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.ingest.remote import web_page

__all__ = ["FileKind", "check_local", "expected_kind", "kind_of"]

FileKind = Literal["root", "parquet"]
_MAGIC: dict[bytes, FileKind] = {b"root": "root", b"PAR1": "parquet"}
_OTHERS = {
    b"\x1f\x8b": "compressed by gzip",
    b"PK": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself",
}
_SUFFIXES: dict[str, FileKind] = {".root": "root", ".parquet": "parquet", ".pq": "parquet"}
_HEAD = 512
# ROOT's header: magic, version, first record, end of the file; the last has 64 bits in files of more than 2 GB.
_SHORT, _LONG = struct.Struct(">4siii"), struct.Struct(">4siiq")
_LONG_FROM = 1_000_000


def kind_of(location: str, head: bytes) -> FileKind:
    """What a file is.

    Args:
        location: Path or URL, for messages.
        head: Its first bytes.

    Raises:
        InputError: It is neither a ROOT nor a parquet file; the message says what it seems to be.
    """
    kind = _MAGIC.get(head[:4])
    if kind is not None:
        return kind
    if not head:
        raise InputError(f"{location}: is empty; fetch or make it again.")
    if web_page(head):
        raise InputError(
            f"{location}: is a web page, perhaps of a login or an error, under the name of a data file; delete it and "
            "fetch the file again."
        )
    seems = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    raise InputError(
        f"{location}: is {seems or f'no ROOT and no parquet file (it starts with {head[:8]!r})'}; give a ROOT or "
        "parquet file, or fetch or make it again."
    )


def check_local(path: Path, *, expected: FileKind | None = None) -> FileKind:
    """Check that a local file is of a kind that can be read, and not cut short.

    Args:
        path: Of the file.
        expected: What it must be.

    Raises:
        InputError: It is something else, or shorter than its own header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        kind = kind_of(str(path), head)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    if expected is not None and kind != expected:
        raise InputError(f"{path}: is a {kind} file, but its name says {expected}; correct the one or the other.")
    if kind == "root" and size < (length := _root_length(head)):
        raise InputError(
            f"{path}: cannot be read (it has {size} bytes of the {length} that its header states); it is damaged or "
            "incomplete, so fetch or make it again."
        )
    if kind == "parquet" and _MAGIC.get(tail) != "parquet":
        raise InputError(
            f"{path}: cannot be read (the end of a parquet file is missing); it is damaged or incomplete, so fetch or "
            "make it again."
        )
    return kind


def expected_kind(name: str) -> FileKind | None:
    """What the name of a file promises; None if it promises nothing that is known here."""
    return _SUFFIXES.get(Path(name).suffix.lower())


def _root_length(head: bytes) -> int:
    """The length that a ROOT file states of itself; 0 where the header itself is cut."""
    if len(head) < _LONG.size:
        return _LONG.size
    _, number, _, end = _SHORT.unpack_from(head)
    if number >= _LONG_FROM:
        _, _, _, end = _LONG.unpack_from(head)
    return int(end)
