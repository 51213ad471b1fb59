"""Rows of a file, whatever its format: what the skim asks of a reader."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import awkward as ak

from pipeline.errors import InputError
from pipeline.ingest.facts import RunSums

__all__ = ["CHUNK", "Rows", "check_branches", "key_of", "nested"]

CHUNK = 100_000
"""Rows that are read at a time."""


@runtime_checkable
class Rows(Protocol):
    """A table of events in an open file."""

    @property
    def entries(self) -> int:
        """How many rows."""

    @property
    def branches(self) -> Collection[str]:
        """Names of the columns."""

    def chunks(self, branches: Iterable[str]) -> list[tuple[int, int]]:
        """Ranges of rows that cover the table and are cheap to read by themselves."""

    def arrays(self, branches: Sequence[str], start: int, stop: int) -> dict[str, ak.Array]:
        """Columns by name, for a range of rows."""

    def run_sums(self) -> RunSums | None:
        """What the file says of the events before every skim."""


def key_of(name: str, keys: Collection[str]) -> str | None:
    """The key under which a file has a branch: `Jet_pt`, or `Jet.pt` where it is a field of a record.

    Args:
        name: As in NanoAOD.
        keys: All keys of the file.

    Returns:
        None, if the file does not have it.
    """
    if name in keys:
        return name
    places = (place for place, letter in enumerate(name) if letter == "_")
    return next((key for place in places if (key := f"{name[:place]}.{name[place + 1 :]}") in keys), None)


def nested(arrays: Mapping[str, ak.Array], key: str) -> ak.Array:
    """The array of a key, which may be a field of a record that was read under its own name."""
    if key in arrays:
        return arrays[key]
    record, _, field = key.partition(".")
    return nested({name: arrays[record][name] for name in arrays[record].fields}, field)


def check_branches(location: str, tree: str, wanted: Iterable[str], present: Collection[str]) -> None:
    """Compare what is wanted with what a file has.

    Args:
        location: Path or URL, for messages.
        tree: Name of the table, for messages.
        wanted: Branches that must be there.
        present: Branches that are there.

    Raises:
        InputError: One is missing; the message names the nearest.
    """
    missing = [branch for branch in wanted if key_of(branch, present) is None]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], present, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"its {len(present)} branches have other names"
    others = f" (and {len(missing) - 1} more that are wanted)" if len(missing) > 1 else ""
    raise InputError(f"{location}: '{tree}' has no branch '{missing[0]}'{others}; {hint}.")
