"""Events as they were read to ragged arrays under our names: columns varied, corrections evaluated.

Alternative samples get no kinematic variations, as in the AGC.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Correction, Variation
from pipeline.errors import InputError
from pipeline.events.ragged import Ragged, RaggedSample
from pipeline.events.variations import resolution_factors
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.samples import loosest
from pipeline.names import Names

__all__ = ["kinematics", "ragged"]

Column = NDArray[Any]
Columns = dict[str, Column]


def kinematics(config: Config) -> list[str]:
    """The kinematic variations, without the nominal one."""
    return [name for name, variation in config.variations.items() if variation.is_kinematic]


def ragged(config: Config, names: Names, dataset: Dataset | None, events: ak.Array, unit: float = 1.0) -> RaggedSample:
    """Skimmed events under our names, varied, and without the objects that no variation can select.

    An event keeps at most as many objects of a kind as fit a bit mask: the hardest ones. Weights are in a `unit`.
    """
    varied = [] if dataset is not None and dataset.role != "nominal" else kinematics(config)
    variations = [config.variations[name] for name in varied]
    number = ak.to_numpy(events.event).astype(np.uint64)
    everything = {name: _objects(config, name, events, variations, number) for name in config.objects}
    selectable = {name: each.where(_selectable(config, name, each)) for name, each in everything.items()}
    objects = {name: each.hardest() for name, each in selectable.items()}
    columns = {name: _column(events[branch]) for name, branch in names.branches.items()}
    branches = {branch: _column(events[branch]) for each in variations for branch in _event_branches(each)}
    nowhere = np.zeros(len(number), np.float32)
    columns = _varied(config, "", columns, branches, variations, (number, nowhere, nowhere))
    columns |= _missing_momentum(config, columns, everything)
    columns |= _corrections(config, None, columns)
    weights = ak.to_numpy(events.weight)
    _, collision = np.unique(ak.to_numpy(events.collision), return_inverse=True)
    return RaggedSample(
        objects=objects,
        columns=columns,
        weight=(weights / unit).astype(np.float32),
        index=ak.to_numpy(events.index).astype(np.int32),
        collision=collision.astype(np.int32),
        kinematics=1 + len(varied),
        left_out={name: int(each.counts.sum() - objects[name].counts.sum()) for name, each in selectable.items()},
    )


def _objects(
    config: Config, name: str, events: ak.Array, variations: list[Variation], number: NDArray[np.uint64]
) -> Ragged:
    """The objects of one collection, varied."""
    collection, records = config.objects[name], events[config.objects[name].branch]
    counts = ak.to_numpy(ak.num(records)).astype(np.int64)
    branches = {branch: _column(ak.flatten(records[branch])) for branch in records.fields}
    columns = {ours: branches[theirs] for ours, theirs in collection.variables.items()}
    nowhere = np.zeros(int(counts.sum()), np.float32)
    eta, phi = (columns.get(key, nowhere).astype(np.float32) for key in ("eta", "phi"))
    identity = (np.repeat(number, counts), eta, phi)
    columns = _varied(config, f"{name}.", columns, branches, variations, identity)
    return Ragged(counts, columns | _corrections(config, name, columns))


def _selectable(config: Config, name: str, objects: Ragged) -> NDArray[np.bool_]:
    """Which objects some variation may select."""
    keep = np.ones(int(objects.counts.sum()), bool)
    for rule in loosest(config, name):
        values = objects.variables[rule.variable]
        values = np.abs(values) if rule.absolute else values
        passes = values > rule.value if rule.keep == "above" else values < rule.value
        keep &= passes.any(axis=0) if passes.ndim == 2 else True
    return keep


def _missing_momentum(config: Config, columns: Columns, objects: Mapping[str, Ragged]) -> Columns:
    """Missing momentum, a row for each kinematic variation where objects that it follows are varied."""
    missing = config.missing_momentum
    varied = [objects[name] for name in missing.of if objects[name].variables["pt"].ndim == 2] if missing else []
    if missing is None or not varied:
        return {}
    pt, phi = (np.atleast_2d(columns[name].astype(np.float64)) for name in (missing.pt, missing.phi))
    x, y = pt * np.cos(phi), pt * np.sin(phi)
    for each in varied:
        event = np.repeat(np.arange(len(each.counts)), each.counts)
        nominal, direction = each.variables["pt"][0], each.variables["phi"].astype(np.float64)
        gained = np.where(nominal > missing.above, each.variables["pt"] - nominal, 0)
        x, y = (
            component - np.stack([np.bincount(event, row * part, minlength=len(each.counts)) for row in gained])
            for component, part in ((x, np.cos(direction)), (y, np.sin(direction)))
        )
    return {missing.pt: np.hypot(x, y), missing.phi: np.arctan2(y, x)}


def _varied(
    config: Config,
    prefix: str,
    columns: Columns,
    branches: Mapping[str, Column],
    variations: list[Variation],
    identity: tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.float32]],
) -> Columns:
    """The columns, with a row for each kinematic variation, nominal first, where any variation changes one."""
    changed = {column for name in kinematics(config) for column in config.variations[name].varied_columns}
    varied = dict(columns)
    for name, column in columns.items():
        key = prefix + name
        if key not in changed:
            continue
        nominal = column.astype(np.float64)
        rows = [nominal]
        for each in variations:
            row = branches[each.columns[key]].astype(np.float64) if key in each.columns else nominal
            row = row * each.scale[key] if key in each.scale else row
            if key in each.resolution:
                own = branches.get(each.branch) if prefix else None
                factors = resolution_factors(*identity, each.resolution[key], config.seed) if own is None else own
                row = row * factors.astype(np.float64)
            rows.append(row)
        varied[name] = np.stack(rows)
    return varied


def _event_branches(variation: Variation) -> list[str]:
    """Branches with one value an event that stand in the place of another one."""
    return [branch for column, branch in variation.columns.items() if "." not in column]


def _corrections(config: Config, objects: str | None, columns: Columns) -> Columns:
    """What correctionlib says of the objects of a collection, or of the events."""
    return {name: _evaluated(each, columns) for name, each in config.corrections.items() if each.objects == objects}


def _evaluated(correction: Correction, columns: Columns) -> Column:
    """One value an object or an event, and a row of them for each kinematic variation where an input has them."""
    compiled = _correction(correction.file, correction.correction)
    inputs = [_input(columns, correction.inputs[each.name]) for each in compiled.inputs]
    rows = max((len(each) for each in inputs if isinstance(each, np.ndarray) and each.ndim == 2), default=0)
    try:
        if not rows:
            return np.asarray(compiled.evaluate(*inputs), np.float64)
        return np.stack(
            [compiled.evaluate(*(each[row] if np.ndim(each) == 2 else each for each in inputs)) for row in range(rows)]
        )
    except Exception as error:  # correctionlib's own: a value out of range, a category that is not there
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{correction.file}: the correction '{correction.correction}' cannot be evaluated ({reason}); check its "
            "inputs in 'corrections', or cut away what it does not cover"
        ) from error


def _input(columns: Columns, value: str | int | float) -> Any:
    """A column in double precision, as correctionlib takes it, or a constant."""
    return columns[value].astype(np.float64) if isinstance(value, str) and value in columns else value


@cache
def _correction(file: Path, name: str) -> Any:
    # A run without corrections need not import correctionlib.
    import correctionlib

    try:
        return correctionlib.CorrectionSet.from_file(str(file))[name]
    except Exception as error:  # of a damaged file: whatever gzip, zlib and the JSON parser may raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{file}: no correction '{name}' can be read from it ({reason}); correct 'corrections'"
        ) from error


def _column(values: Any) -> Column:
    """Numbers as they are in the file; others become single, or double where single does not hold them (`event`)."""
    column = ak.to_numpy(values)
    if column.dtype in (np.float32, np.float64):
        return column
    single = column.astype(np.float32)
    return single if np.array_equal(single, column) else column.astype(np.float64)
