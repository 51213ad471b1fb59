"""(Structure, Numbers) → a pyhf workspace: the way back of `from_pyhf`.

The workspace is plain JSON and carries everything: pyhf and cabinetry rebuild the same model from it, without this
package. Only the choice of interpolation is not part of the JSON; pyhf takes it when it builds the model.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from pipeline.inference.histfactory.arrays import Array
from pipeline.inference.histfactory.likelihood import asimov_data
from pipeline.inference.histfactory.model import (
    Modifier,
    Numbers,
    ParameterSet,
    Structure,
    first_parameter,
    modifiers_of,
)

__all__ = ["to_pyhf"]


def to_pyhf(
    structure: Structure, numbers: Numbers, *, measurement: str, data: Float64[Array, " data"] | None = None
) -> dict[str, Any]:
    """A workspace in pyhf's JSON schema, version 1.0.0.

    Args:
        structure: the wiring.
        numbers: the yields and uncertainties.
        measurement: name of the measurement.
        data: observed data, channel after channel, with or without auxiliary data; by default the Asimov data at the
            nominal parameters.
    """
    # Of JAX's arrays each slice below would be a program, to be compiled.
    numbers = jax.tree.map(np.asarray, numbers)
    data = asimov_data(structure, numbers) if data is None else np.asarray(data)
    spans = _spans(structure)
    widths = np.asarray(numbers.constraint_width)
    first = first_parameter(structure)
    return {
        "version": "1.0.0",
        "channels": [
            {
                "name": channel.name,
                "samples": [
                    {
                        "name": sample,
                        "data": _list(numbers.nominal[row, spans[channel.name]]),
                        "modifiers": [
                            {
                                "name": modifier.name,
                                "type": modifier.kind,
                                "data": _content(structure, numbers, modifier, channel.name, sample),
                            }
                            for modifier in structure.modifiers
                            if (channel.name, sample) in modifier.targets
                        ],
                    }
                    for row, sample in enumerate(structure.samples)
                ],
            }
            for channel in structure.channels
        ],
        "measurements": [
            {
                "name": measurement,
                "config": {
                    "poi": structure.poi or "",
                    "parameters": [
                        _parameter(one, widths[first[one.name] : first[one.name] + one.size])
                        for one in structure.parameter_sets
                    ],
                },
            }
        ],
        "observations": [{"name": channel, "data": _list(data[span])} for channel, span in spans.items()],
    }


def _spans(structure: Structure) -> dict[str, slice]:
    """The bins of each channel."""
    ends = np.cumsum([channel.bins for channel in structure.channels])
    return {
        channel.name: slice(int(end) - channel.bins, int(end))
        for channel, end in zip(structure.channels, ends, strict=True)
    }


def _content(structure: Structure, numbers: Numbers, modifier: Modifier, channel: str, sample: str) -> Any:
    """What stands under 'data' of a modifier."""
    row = modifiers_of(structure, modifier.kind).index(modifier)
    s = structure.samples.index(sample)
    c = [one.name for one in structure.channels].index(channel)
    bins = _spans(structure)[channel]
    match modifier.kind:
        case "normsys":
            return {"hi": float(numbers.normsys_hi[row, s, c]), "lo": float(numbers.normsys_lo[row, s, c])}
        case "histosys":
            high, low = numbers.histosys_hi[row, s, bins], numbers.histosys_lo[row, s, bins]
            return {"hi_data": _list(high), "lo_data": _list(low)}
        case "staterror":
            table = numbers.staterror if numbers.staterror.ndim == 2 else numbers.staterror[row]
            return _list(table[s, bins])
        case "shapesys":
            return _list(numbers.shapesys[row, bins])
        case "normfactor" | "shapefactor" | "lumi":
            return None


def _parameter(one: ParameterSet, widths: Float64[np.ndarray, " size"]) -> dict[str, Any]:
    """A parameter's entry in the measurement: what does not follow from the modifiers."""
    entry: dict[str, Any] = {
        "name": one.name,
        "inits": list(one.initial),
        "bounds": [list(pair) for pair in one.bounds],
    }
    if one.fixed is not None:
        # The schema has one flag for a set; only pyhf's own rule for staterror and shapesys has one for each bin.
        entry["fixed"] = all(one.fixed)
    if one.auxdata:
        entry["auxdata"] = list(one.auxdata)
    # pyhf knows widths of Gaussian constraints for lumi and staterror only; all others are 1.
    if one.width == "stated" and one.constraint == "poisson":
        entry["factors"] = [float(width) for width in widths]
    elif one.width == "stated" and one.constraint == "normal" and np.any(widths != 1.0):
        entry["sigmas"] = [float(width) for width in widths]
    return entry


def _list(values: Float64[Array, " bins"]) -> list[float]:
    return [float(value) for value in values]
