"""Figures of the experiments: arrays in, figure out, in the style of `pipeline.report.pictures.look`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pipeline.report.pictures.look import COLORS

__all__ = ["claimed_and_true", "cosines", "race", "trajectories"]

Values = NDArray[np.float64]
Trace = tuple[Values, Values, Values]
"""(evaluations, seconds, best value so far), one entry a visit."""


def race(
    traces: Mapping[str, Sequence[Trace]],
    validation: Mapping[str, Sequence[tuple[float, float]]],
    budget: float,
    symbol: str,
    source: str,
    shown: tuple[float, float],
) -> Figure:
    """Best exact value so far against evaluations and against seconds; what it is worth on validation events.

    Args:
        traces: of each method, one a seed; lines are medians over the seeds, bands reach from the worst to the best.
        validation: (value, error) of each method, one a seed.
        budget: evaluations of the method that the others are compared with.
        symbol: of the figure of merit.
        source: where the events come from.
        shown: range of the values.
    """
    figure = Figure(figsize=(14, 4.6))
    by_evaluations, by_seconds, beside = figure.subplots(1, 3)
    for axes, column, label in ((by_evaluations, 0, "evaluations"), (by_seconds, 1, "seconds")):
        for number, (name, runs) in enumerate(traces.items()):
            _band(axes, [(run[column], run[2]) for run in runs], COLORS[number % len(COLORS)], name)
        axes.set_xscale("log")
        axes.set_ylim(shown)
        axes.set_xlabel(f"{label} (training events)")
    by_evaluations.axvline(budget, color="black", linestyle=":", linewidth=1)
    by_evaluations.set_ylabel(f"best {symbol} so far")
    names = [*traces, *(name for name in validation if name not in traces)]
    for place, name in enumerate(reversed(names)):
        values = np.array(validation[name])
        heights = place + np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.array([place])
        color = COLORS[names.index(name) % len(COLORS)] if name in traces else "black"
        beside.errorbar(values[:, 0], heights, xerr=values[:, 1], fmt="o", markersize=3, linewidth=1, color=color)
    beside.set_yticks(range(len(names)), list(reversed(names)), fontsize=8)
    beside.set_xlabel(f"{symbol} on validation events, each seed")
    beside.text(1, 1.01, source, transform=beside.transAxes, ha="right", va="bottom", fontsize=8, style="italic")
    figure.legend(*by_evaluations.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _band(axes: Axes, runs: Sequence[tuple[Values, Values]], color: str, label: str) -> None:
    """Median, lowest and highest of step functions that start at different places."""
    first = max(float(at[0]) for at, _ in runs)
    last = min(float(at[-1]) for at, _ in runs)
    grid = np.geomspace(max(first, 1e-3), max(last, first, 1e-3), 200)
    lines = np.array([values[np.clip(np.searchsorted(at, grid, side="right") - 1, 0, None)] for at, values in runs])
    axes.plot(grid, np.median(lines, axis=0), color=color, label=label)
    axes.fill_between(grid, lines.min(axis=0), lines.max(axis=0), color=color, alpha=0.12, linewidth=0)


def claimed_and_true(
    points: Mapping[str, Sequence[tuple[tuple[float, float], tuple[float, float], float, float]]],
    symbol: str,
    source: str,
) -> Figure:
    """What was claimed on training events beside samples alike, and default beside tuned cuts on independent events.

    Args:
        points: of each way to tune, one a seed: claim and samples alike with their errors, default and tuned cuts.
        symbol: of the figure of merit.
        source: where the events come from.
    """
    figure = Figure(figsize=(10, 4.4))
    left, right = figure.subplots(1, 2)
    for number, (name, seeds) in enumerate(points.items()):
        color, turns = COLORS[number % len(COLORS)], np.arange(1, len(seeds) + 1)
        (x, x_error), (y, y_error) = (np.array([seed[which] for seed in seeds]).T for which in (1, 0))
        left.errorbar(x, y, xerr=x_error, yerr=y_error, fmt="o", markersize=4, linewidth=1, color=color, label=name)
        right.plot(turns, [seed[2] for seed in seeds], "_", markersize=25, color="black")
        right.plot(turns, [seed[3] for seed in seeds], "o", markersize=4, color=color)
    ends = np.array([(seed[which][0]) for seeds in points.values() for seed in seeds for which in (0, 1)])
    limits = np.array([0.7 * ends.min(), 1.5 * ends.max()])
    left.plot(limits, limits, color="black", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    left.set(xlabel=f"{symbol}, independent samples of the same size", ylabel=f"{symbol} claimed on training events")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="seed (bars: default cuts)", ylabel=f"{symbol}, tuned cuts, all independent events")
    right.text(1, 1.01, source, transform=right.transAxes, ha="right", va="bottom", fontsize=8, style="italic")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def cosines(
    steps: Values, angles: Mapping[str, Values], slopes: Mapping[str, tuple[Values, Values]], source: str
) -> Figure:
    """Cosine between two gradients step by step; below, both components of each threshold.

    Args:
        steps: of the optimisation.
        angles: cosines, by what they are called.
        slopes: (flux, difference) of each threshold, by its label.
        source: where the events come from.
    """
    figure = Figure(figsize=(7, 2.6 + 1.5 * len(slopes)))
    top, *below = figure.subplots(1 + len(slopes), 1, sharex=True, height_ratios=[1.6, *[1] * len(slopes)])
    for color, (name, values) in zip(COLORS, angles.items(), strict=False):
        top.plot(steps, values, ".-", color=color, label=f"{name}: median {np.nanmedian(values):.3f}")
    top.axhline(1, color="black", linewidth=0.8)
    top.set_ylabel("cosine")
    top.set_ylim(min(0.0, float(np.nanmin(list(angles.values())))) - 0.05, 1.05)
    top.legend(fontsize=8, loc="lower right")
    top.text(1, 1.01, source, transform=top.transAxes, ha="right", va="bottom", fontsize=8, style="italic")
    for axes, (label, (flux, difference)) in zip(below, slopes.items(), strict=True):
        axes.plot(steps, difference, ".", color="black", label="finite difference, same width")
        axes.plot(steps, flux, "-", color=COLORS[2], label="boundary flux")
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set_ylabel(label, fontsize=8)
    if below:
        below[0].legend(fontsize=8)
    (below or [top])[-1].set_xlabel("step of the optimisation")
    return figure


def trajectories(
    values: Mapping[str, tuple[Values, Values]], thresholds: Mapping[str, Sequence[Values]], symbol: str, source: str
) -> Figure:
    """The exact figure of merit and the thresholds of several runs, step by step.

    Args:
        values: (training, validation) of each run.
        thresholds: of each run in the same order, by label.
        symbol: of the figure of merit.
        source: where the events come from.
    """
    figure = Figure(figsize=(7, 3 + 1.6 * len(thresholds)))
    top, *below = figure.subplots(1 + len(thresholds), 1, sharex=True, height_ratios=[2, *[1] * len(thresholds)])
    for color, (name, (training, validation)) in zip(COLORS, values.items(), strict=False):
        top.plot(training, color=color, label=name)
        top.plot(validation, color=color, linestyle="--")
    top.set_ylabel(symbol)
    top.set_title("solid: training events, dashed: validation events", loc="left", fontsize=9)
    top.text(1, 1.01, source, transform=top.transAxes, ha="right", va="bottom", fontsize=8, style="italic")
    top.legend(fontsize=8)
    for axes, (label, paths) in zip(below, thresholds.items(), strict=True):
        for color, path in zip(COLORS, paths, strict=False):
            axes.plot(path, color=color)
        axes.set_ylabel(label, fontsize=8)
    (below or [top])[-1].set_xlabel("step of the optimisation")
    return figure
