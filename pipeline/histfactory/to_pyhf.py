"""(Structure, Numbers) → a pyhf workspace: the way back of `from_pyhf`.

The workspace is plain JSON and carries everything: pyhf and cabinetry rebuild the same model from it, without this package.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float64

from pipeline.histfactory.constraints import nominal_parameters
from pipeline.histfactory.likelihood import asimov_data
from pipeline.histfactory.model import Modifier, Numbers, Structure, modifiers_of

__all__ = ["to_pyhf"]


def to_pyhf(
    structure: Structure, numbers: Numbers, *, measurement: str, data: Float64[Array, " data"] | None = None
) -> dict[str, Any]:
    """A workspace in pyhf's JSON schema, version 1.0.0.

    Args:
        structure: the wiring.
        numbers: the yields and uncertainties.
        measurement: name of the measurement.
        data: observed data, channel after channel; by default the Asimov data at the nominal parameters.

    Raises:
        ValueError: the model has modifiers or a parameter setting that this function does not write yet.
    """
    unsupported = {"lumi", "shapesys", "shapefactor"} & {modifier.kind for modifier in structure.modifiers}
    if unsupported:
        raise ValueError(f"cannot write modifiers of kind {', '.join(sorted(unsupported))}")
    if data is None:
        data = asimov_data(structure, numbers, nominal_parameters(structure, numbers))
    starts = np.cumsum([0, *(channel.bins for channel in structure.channels)])
    bins = {c.name: slice(int(a), int(a) + c.bins) for c, a in zip(structure.channels, starts, strict=False)}
    return {
        "version": "1.0.0",
        "channels": [
            {
                "name": channel,
                "samples": [
                    {
                        "name": sample,
                        "data": _list(numbers.nominal[s, where]),
                        "modifiers": _modifiers(structure, numbers, channel, sample, where),
                    }
                    for s, sample in enumerate(structure.samples)
                ],
            }
            for channel, where in bins.items()
        ],
        "measurements": [
            {"name": measurement, "config": {"poi": structure.poi, "parameters": _free_parameters(structure)}}
        ],
        "observations": [{"name": channel, "data": _list(data[where])} for channel, where in bins.items()],
    }


def _modifiers(structure: Structure, numbers: Numbers, channel: str, sample: str, where: slice) -> list[dict[str, Any]]:
    c = [one.name for one in structure.channels].index(channel)
    s = structure.samples.index(sample)

    def content(modifier: Modifier) -> Any:
        row = modifiers_of(structure, modifier.kind).index(modifier)
        match modifier.kind:
            case "normsys":
                return {"hi": float(numbers.normsys_hi[row, s, c]), "lo": float(numbers.normsys_lo[row, s, c])}
            case "histosys":
                hi, lo = numbers.histosys_hi[row, s, where], numbers.histosys_lo[row, s, where]
                return {"hi_data": _list(hi), "lo_data": _list(lo)}
            case "staterror":
                return _list(numbers.staterror[s, where])
            case _:
                return None

    return [
        {"name": modifier.name, "type": modifier.kind, "data": content(modifier)}
        for modifier in structure.modifiers
        if (channel, sample) in modifier.targets
    ]


def _free_parameters(structure: Structure) -> list[dict[str, Any]]:
    """Starts and bounds of the unconstrained parameters; the others have pyhf's own."""
    return [
        {"name": one.name, "inits": list(one.initial), "bounds": [list(bounds) for bounds in one.bounds]}
        for one in structure.parameter_sets
        if one.constraint == "none"
    ]


def _list(values: Float64[Array, " bins"]) -> list[float]:
    return [float(value) for value in values]
