"""What pyhf's schema says of a workspace, without the time that it takes for a large one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyhf

__all__ = ["validated"]


def validated(source: Mapping[str, Any]) -> "pyhf.Workspace":
    """The workspace, or what pyhf's schema has against it.

    The schema's validator takes half a millisecond for a modifier and as long for a few numbers: most of the time of a
    large workspace. What is plainly as it should be is not shown to it.
    """
    import pyhf

    try:
        pyhf.schema.validate(_what_is_not_plain(source), "workspace.json", version=source.get("version"))
    except pyhf.exceptions.InvalidSpecification:
        return pyhf.Workspace(source)  # in the whole, the place of the fault is right
    return pyhf.Workspace(source, validate=False)


def _what_is_not_plain(entry: Any) -> Any:
    """A workspace without its plain modifiers, and with one number in place of a list of numbers."""
    if isinstance(entry, Mapping):
        return {key: _what_is_not_plain(value) for key, value in entry.items()}
    if not isinstance(entry, list):
        return entry
    return entry[:1] if _are_numbers(entry) else [_what_is_not_plain(item) for item in entry if not _is_plain(item)]


def _is_plain(modifier: Any) -> bool:
    """Whether this is a modifier, and one that every reader of the schema accepts."""
    if not isinstance(modifier, Mapping) or modifier.keys() != {"name", "type", "data"}:
        return False
    data = modifier["data"]
    match modifier["type"]:
        case "normfactor" | "shapefactor":
            good = data is None
        case "staterror" | "shapesys":
            good = _are_numbers(data)
        case "normsys":
            good = isinstance(data, Mapping) and data.keys() == {"lo", "hi"} and _are_numbers(list(data.values()))
        case "histosys":
            good = isinstance(data, Mapping) and data.keys() == {"lo_data", "hi_data"}
            good = good and all(map(_are_numbers, data.values()))
        case _:
            good = False
    return good and isinstance(modifier["name"], str)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and {*map(type, values)} <= {int, float}
