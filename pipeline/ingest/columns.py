"""From what a reader hands over to flat columns, with their shapes checked against NanoAOD's."""

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.ingest.rows import Rows, key_of
from pipeline.ingest.skim import Collection, Columns, Skim

__all__ = ["columns_of", "no_columns"]


def columns_of(location: str, rows: Rows, skim: Skim, start: int, stop: int) -> Columns:
    """The columns of a skim for a range of rows.

    Args:
        location: Path or URL, for messages.
        rows: Of an open file that has all branches that the skim must have.
        skim: What to read.
        start: First row.
        stop: Row after the last.

    Raises:
        InputError: The file is damaged, a branch has another shape than in NanoAOD, or the variables of a collection
            disagree on the number of objects.
    """
    optional = [name for name in skim.optional if key_of(name, rows.branches) is not None]
    arrays = rows.arrays([*skim.branches, *optional], start, stop)
    for name, array in arrays.items():
        _check_gaps(location, name, array)
    objects = {s.collection: _collection(location, s.collection, s.columns, arrays, start) for s in skim.objects}
    _check_types(location, skim, objects)
    events = {
        name: (_text if name in skim.texts else _flat)(location, name, arrays[name])
        for name in (*skim.event_columns, *optional)
    }
    elements = {
        f"{branch}[{number}]": _element(location, branch, number, arrays[branch], start)
        for branch, number in skim.elements
    }
    return Columns(entries=stop - start, collections=objects, events=events | elements)


def no_columns(skim: Skim) -> Columns:
    """The columns of no rows at all, for a file without branches."""
    objects = {
        s.collection: Collection(np.zeros(0, np.int64), {variable: np.zeros(0, np.int32) for variable in s.columns})
        for s in skim.objects
    }
    names = (*skim.event_columns, *(f"{branch}[{number}]" for branch, number in skim.elements))
    return Columns(entries=0, collections=objects, events={name: np.zeros(0, np.int32) for name in names})


def _check_gaps(location: str, name: str, array: ak.Array) -> None:
    """Parquet's columns may miss values; their types say so even where none is missing."""
    kind = str(array.type)
    if "?" not in kind and "option" not in kind:
        return
    if any(ak.any(ak.is_none(array, axis=axis), axis=None) for axis in range(array.ndim)):
        raise InputError(f"{location}: the column '{name}' has missing values; fill them or drop their rows.")


def _collection(
    location: str, name: str, variables: tuple[str, ...], arrays: dict[str, ak.Array], start: int
) -> Collection:
    counts: dict[str, NDArray[np.int64]] = {}
    flat: dict[str, NDArray[np.generic]] = {}
    for variable in variables:
        array = arrays[f"{name}_{variable}"]
        if array.ndim != 2:
            raise InputError(f"{location}: branch '{name}_{variable}' is not a list per event; '{name}' must be lists.")
        counts[variable] = ak.to_numpy(ak.num(array)).astype(np.int64, copy=False)
        _check_counts(location, name, (variables[0], variable), counts, start)
        flat[variable] = _numbers(location, f"{name}_{variable}", array)
    return Collection(counts=counts[variables[0]], variables=flat)


def _check_types(location: str, skim: Skim, objects: dict[str, Collection]) -> None:
    for s in skim.objects:
        for requirement in s.requirements:
            kind = objects[s.collection].variables[requirement.variable].dtype
            if requirement.op == "bits" and kind.kind not in "iub":
                raise InputError(
                    f"{location}: branch '{s.collection}_{requirement.variable}' has the type {kind}, but bits are "
                    "required of it; require a value with 'equal', or make the file again with integers."
                )


def _check_counts(
    location: str, name: str, pair: tuple[str, str], counts: dict[str, NDArray[np.int64]], start: int
) -> None:
    first, second = (counts[variable] for variable in pair)
    if np.array_equal(first, second):
        return
    row = int(np.flatnonzero(first != second)[0])
    raise InputError(
        f"{location}: in entry {start + row} the branches '{name}_{pair[0]}' and '{name}_{pair[1]}' list {first[row]} "
        f"and {second[row]} objects; the file contradicts itself and must be made again."
    )


def _flat(location: str, name: str, array: ak.Array) -> NDArray[np.generic]:
    if array.ndim != 1 or array.fields:
        raise InputError(f"{location}: branch '{name}' is a list per event, but one value per event is needed.")
    return _numbers(location, name, array)


def _text(location: str, name: str, array: ak.Array) -> NDArray[np.generic]:
    values = ak.to_numpy(array) if array.ndim == 1 and not array.fields else np.zeros(1)
    if len(values) and values.dtype.kind != "U":
        kind = str(array.type.content).replace("?", "")
        raise InputError(
            f"{location}: branch '{name}' is compared with text, but holds {kind}; compare it with a number, "
            f"{name} == 1 (in data.tables: 'where')."
        )
    return values.astype("U")


def _element(location: str, name: str, number: int, array: ak.Array, start: int) -> NDArray[np.generic]:
    if array.ndim != 2:
        raise InputError(f"{location}: branch '{name}' is no list, but its value [{number}] is asked for.")
    short = ak.to_numpy(ak.num(array)) <= number
    if short.any():
        row = int(short.argmax())
        raise InputError(
            f"{location}: in entry {start + row} the list '{name}' has {ak.num(array)[row]} values, so there is no "
            f"[{number}]; use another weight for these events."
        )
    return _numbers(location, name, array[:, number])


def _numbers(location: str, name: str, array: ak.Array) -> NDArray[np.generic]:
    """All values end to end."""
    try:
        values: NDArray[np.generic] = ak.to_numpy(ak.flatten(array, axis=None))
    except (TypeError, ValueError):
        values = np.array([], object)
    if values.dtype.kind not in "iufb":
        kind = str(array.type.content).replace("?", "")
        raise InputError(f"{location}: branch '{name}' holds {kind}, but numbers are needed.")
    return values
