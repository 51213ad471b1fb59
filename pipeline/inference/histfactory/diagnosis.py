"""What is degenerate in a model, in words: for a user whose cuts have moved too far.

The likelihood has a defined value in each of these cases (its sentence says which), so an optimisation goes on.
Whether it should is for the user to say, and so the sentences name channel, bin and sample. Host side, not traced.
"""

import jax
import numpy as np
from jaxtyping import Float64

from pipeline.inference.histfactory.constraints import free_parameters, nominal_parameters
from pipeline.inference.histfactory.likelihood import SMALLEST_RATE, expected_rates
from pipeline.inference.histfactory.model import (
    Modifier,
    Numbers,
    Structure,
    channel_of_bins,
    first_parameter,
    modifiers_of,
    parameter_names,
    target_table,
)
from pipeline.inference.histfactory.modifiers import bin_table

__all__ = ["diagnose"]


def diagnose(structure: Structure, numbers: Numbers) -> tuple[str, ...]:
    """A sentence for every degenerate parameter, bin, channel and factor of the model at its nominal parameters."""
    numbers = jax.tree.map(np.asarray, numbers)
    return (
        *_not_numbers(structure, numbers),
        *_parameters(structure, numbers),
        *_factors(structure, numbers),
        *_channels(structure, numbers),
        *_signal(structure, numbers),
    )


def _parameters(structure: Structure, numbers: Numbers) -> list[str]:
    """Parameters that do not move, or do not start, where the workspace seems to say."""
    sentences, names = [], parameter_names(structure)
    first, free = first_parameter(structure), np.asarray(free_parameters(structure, numbers))
    for entry in structure.parameter_sets:
        for i, (value, (low, high)) in enumerate(zip(entry.initial, entry.bounds, strict=True)):
            if not low <= value <= high and free[first[entry.name] + i]:
                sentences.append(
                    f"parameter '{names[first[entry.name] + i]}' starts at {value:g}, outside its bounds "
                    f"[{low:g}, {high:g}]: it starts at the nearer one."
                )
        if entry.name == structure.poi and entry.fixed and all(entry.fixed):
            sentences.append(f"the measurement holds the parameter of interest '{entry.name}' constant: no test of it.")
    totals = np.asarray(numbers.nominal)
    for kind in ("staterror", "shapesys"):
        for modifier in modifiers_of(structure, kind):
            acts = bin_table(structure, modifier)
            total = np.sum(np.where(acts, totals, 0.0), axis=0)
            sentences += [
                f"{_place(structure, int(b))} has a total of {total[b]:g} in {kind} '{modifier.name}': negative, so "
                "its parameter is held and the uncertainty is not used, as in pyhf."
                for b in np.flatnonzero(acts.any(axis=0) & (total < 0))
            ]
    return sentences


def _signal(structure: Structure, numbers: Numbers) -> list[str]:
    """A signal that one standard deviation of a systematic uncertainty takes away."""
    if structure.poi is None or structure.poi not in first_parameter(structure):
        return []
    poi = first_parameter(structure)[structure.poi]
    nominal = nominal_parameters(structure, numbers)

    def signal(position: int | None, alpha: float) -> float:
        at = nominal if position is None else _moved(nominal, position, alpha)
        rates = [np.asarray(expected_rates(structure, numbers, _moved(at, poi, mu))) for mu in (0.0, 1.0)]
        return float(np.sum(rates[1] - rates[0]))

    whole = signal(None, 0.0)
    acting = {
        m.name for m in structure.modifiers if m.kind in ("normsys", "histosys") and _acts_on_signal(structure, m)
    }
    return [
        f"the signal is {100 * signal(first_parameter(structure)[name], alpha) / whole:.1f} % of itself at {alpha:+g} "
        f"standard deviation of '{name}': the data cannot limit its strength."
        for name in sorted(acting)
        for alpha in (-1.0, 1.0)
        if whole > 0 and signal(first_parameter(structure)[name], alpha) < 0.05 * whole
    ]


def _acts_on_signal(structure: Structure, modifier: Modifier) -> bool:
    scaled = {target for m in structure.modifiers if m.name == structure.poi for target in m.targets}
    return not scaled.isdisjoint(modifier.targets)


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


def _moved(
    parameters: Float64[np.ndarray, " parameters"], position: int, value: float
) -> Float64[np.ndarray, " parameters"]:
    return np.where(np.arange(len(parameters)) == position, value, parameters)


def _channels(structure: Structure, numbers: Numbers) -> list[str]:
    nominal = nominal_parameters(structure, numbers)
    total = np.asarray(expected_rates(structure, numbers, nominal))
    background = total
    if structure.poi is not None:
        without = _moved(nominal, first_parameter(structure)[structure.poi], 0.0)
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
    if total < SMALLEST_RATE:
        return [
            f"{where} expects {total:g} events: below {SMALLEST_RATE:g} the logarithm goes on as a parabola, and the "
            "likelihood is not pyhf's."
        ]
    if background <= SMALLEST_RATE:
        return [
            f"{where} expects {total:g} events of signal and {background:g} of background: its significance is "
            f"limited only by the smallest rate the logarithm knows ({SMALLEST_RATE:g})."
        ]
    return []
