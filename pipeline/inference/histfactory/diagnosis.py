"""What is degenerate in a model, in words: for a user whose cuts have moved too far.

The likelihood has a defined value in each of these cases (its sentence says which), so an optimisation goes on.
Whether it should is for the user to say, and so the sentences name channel, bin and sample. Host side, not traced.
"""

import numpy as np

from pipeline.inference.histfactory.constraints import nominal_parameters
from pipeline.inference.histfactory.likelihood import SMALLEST_RATE, expected_rates
from pipeline.inference.histfactory.model import (
    Numbers,
    Structure,
    channel_of_bins,
    first_parameter,
    modifiers_of,
    target_table,
)

__all__ = ["diagnose"]


def diagnose(structure: Structure, numbers: Numbers) -> tuple[str, ...]:
    """A sentence for every degenerate bin, channel and factor of the model at its nominal parameters."""
    return (*_not_numbers(structure, numbers), *_factors(structure, numbers), *_channels(structure, numbers))


def _not_numbers(structure: Structure, numbers: Numbers) -> list[str]:
    sentences = []
    for name in Numbers.__dataclass_fields__:
        values = np.asarray(getattr(numbers, name)) if name != "_" else np.zeros(0)
        for index in np.argwhere(~np.isfinite(values))[:1]:
            where = f"{name}[{', '.join(map(str, index))}]"
            if name not in ("normsys_lo", "normsys_hi", "constraint_width"):
                where += f" ({_place(structure, int(index[-1]))})"
            sentences.append(f"{where} is not a finite number: no fit converges.")
    return sentences


def _place(structure: Structure, b: int) -> str:
    """A bin, by the name of its channel and its number in there."""
    channel = channel_of_bins(structure)[b]
    first = int(np.flatnonzero(channel_of_bins(structure) == channel)[0])
    return f"channel '{structure.channels[channel].name}', bin {b - first}"


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
    if background < 0:
        return [
            f"{where} has a negative expectation without signal ({background:g}): left out of expected significance "
            "and limit, and no hypothesis for observed events."
        ]
    if background <= SMALLEST_RATE:
        return [
            f"{where} expects {total:g} events of signal and {background:g} of background: its significance is "
            f"limited only by the smallest rate the logarithm knows ({SMALLEST_RATE:g})."
        ]
    return []
