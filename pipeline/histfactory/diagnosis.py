"""What is degenerate in a model, in words: for a user whose cuts have moved too far.

The likelihood has a defined value in each of these cases (its sentence says which), so an optimisation goes on.
Whether it should is for the user to say, and so the sentences name channel, bin and sample. Host side, not traced.
"""

import numpy as np

from pipeline.histfactory.constraints import nominal_parameters
from pipeline.histfactory.likelihood import SMALLEST_RATE, expected_rates
from pipeline.histfactory.model import Numbers, Structure, first_parameter, modifiers_of, target_table

__all__ = ["diagnose"]


def diagnose(structure: Structure, numbers: Numbers) -> tuple[str, ...]:
    """A sentence for every degenerate bin, channel and factor of the model at its nominal parameters."""
    return (*_not_numbers(numbers), *_factors(structure, numbers), *_channels(structure, numbers))


def _not_numbers(numbers: Numbers) -> list[str]:
    leaves = {name: np.asarray(getattr(numbers, name)) for name in Numbers.__dataclass_fields__ if name != "_"}
    return [
        f"{name}[{', '.join(map(str, np.argwhere(~np.isfinite(values))[0]))}] is not a finite number: no fit converges."
        for name, values in leaves.items()
        if not np.all(np.isfinite(values))
    ]


def _factors(structure: Structure, numbers: Numbers) -> list[str]:
    sentences = []
    for side in ("lo", "hi"):
        factors = np.asarray(getattr(numbers, f"normsys_{side}"))
        for row, modifier in enumerate(modifiers_of(structure, "normsys")):
            sentences += [
                f"channel '{structure.channels[c].name}', sample '{structure.samples[s]}': the factor '{side}' of "
                f"normsys '{modifier.name}' is {factors[row, s, c]:g}, not positive: read as 1e-10."
                for s, c in np.argwhere(target_table(structure, modifier) & (factors[row] <= 0))
            ]
    return sentences


def _channels(structure: Structure, numbers: Numbers) -> list[str]:
    nominal = nominal_parameters(structure, numbers)
    total = np.asarray(expected_rates(structure, numbers, nominal))
    background = total
    if structure.poi is not None:
        without = nominal.at[first_parameter(structure)[structure.poi]].set(0.0)
        background = np.asarray(expected_rates(structure, numbers, without))
    sentences, start = [], 0
    for channel in structure.channels:
        bins = slice(start, start + channel.bins)
        start += channel.bins
        if np.all(total[bins] == 0):
            sentences.append(f"channel '{channel.name}' is empty: it says nothing.")
            continue
        for b, (all_events, no_signal) in enumerate(zip(total[bins], background[bins], strict=True)):
            sentences += _bin(f"channel '{channel.name}', bin {b}", float(all_events), float(no_signal))
    return sentences


def _bin(where: str, total: float, background: float) -> list[str]:
    if total == 0:
        return [f"{where} is empty: it says nothing."]
    if total < 0:
        return [f"{where} has a negative expectation ({total:g}): left out of Asimov data."]
    if background <= SMALLEST_RATE:
        return [
            f"{where} expects {total:g} events of signal and {background:g} of background: its significance is "
            f"limited only by the smallest rate the logarithm knows ({SMALLEST_RATE:g})."
        ]
    return []
