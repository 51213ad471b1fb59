"""The figure of merit and the thresholds at every step."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.diagnostics import Path, path
from pipeline.validation.regions import Values

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture:
    """Of the first fold, if there are folds."""
    way = path(scene.problem, scene.outcome.history, scene.symbol)
    bounds = {name: cut.bounds for name, cut in scene.config.thresholds.items() if cut.bounds is not None}
    return Picture(
        "history",
        "The way of the optimiser",
        f"{scene.symbol} of the exact analysis, with hard cuts, after every step, and the thresholds it was computed "
        "at. It need not improve at each step: a hard cut moves single events in and out of bins, so the value has "
        "small jumps. What counts is the best step (dotted line), not the last one. Squares: events that the optimiser "
        "has not seen; where the curves part, it learns the sample, not the physics. At an open circle the derivative "
        "by the threshold is compatible with zero, within its statistical error, and counts as zero; if the threshold "
        "moves on, it is the momentum of the optimiser. Dashed lines are bounds of a threshold."
        + (" The curves begin anew at each start." if len(way.starts) > 1 else "")
        + (" The last step is where the polish ended." if scene.config.optimiser.polish else ""),
        draw(way, scene.labels, bounds, scene.source),
    )


def draw(path: Path, labels: Mapping[str, str], bounds: Mapping[str, tuple[float, float]], source: str) -> Figure:
    """The figure of merit and every trainable threshold, step by step."""
    columns = 1 if len(path.thresholds) <= 4 else 3
    rows = 1 + -(-len(path.thresholds) // columns)
    figure = Figure(figsize=(1.6 * look.COLUMN * (1 if columns == 1 else 1.6), 1.7 * rows + 0.6))
    grid = figure.add_gridspec(rows, columns)
    panels = [figure.add_subplot(grid[0, :])]
    _values_on_the_way(panels[0], path)
    look.title(panels[0], f"kept: step {path.best}", source)
    for number, name in enumerate(path.thresholds):
        panels.append(figure.add_subplot(grid[1 + number // columns, number % columns]))
        _threshold_on_the_way(panels[-1], path, name, bounds.get(name, ()))
        panels[-1].set_ylabel(labels[name], fontsize=9)
    for axes in panels:
        axes.axvline(path.best, color="black", linestyle=":", linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(-0.5, len(path.training) - 0.5)
    for axes in panels[:-columns]:
        axes.set_xticklabels([])
    panels[-1].set_xlabel("step of the optimisation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _values_on_the_way(axes: Axes, path: Path) -> None:
    lines = [("training events", path.training, look.TRAINING)]
    if path.stopping is not None:
        lines.append(("stopping events", path.stopping, look.COLORS[1]))
    for label, values, color in lines:
        for place, piece in _pieces(path, values):
            axes.plot(place, piece, marker=".", color=color, label=label if place[0] == 0 else None)
    axes.plot(*path.validation, "s--", markersize=4, color=look.VALIDATION, label="validation events")
    axes.set_ylabel(path.symbol, fontsize=9)


def _threshold_on_the_way(axes: Axes, path: Path, name: str, bounds: Sequence[float]) -> None:
    certain = path.certain[name]
    for place, values in _pieces(path, path.thresholds[name]):
        axes.plot(place, values, color=look.THRESHOLD)
        axes.plot(place[certain[place]], values[certain[place]], ".", color=look.THRESHOLD)
        axes.plot(place[~certain[place]], values[~certain[place]], "o", color=look.THRESHOLD, mfc="white", markersize=4)
    limits = axes.get_ylim()
    for bound in bounds:
        axes.axhline(bound, color=look.COLORS[4], linestyle="--", linewidth=1)
    axes.set_ylim(limits)


def _pieces(path: Path, values: Values) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """Places and values of one start after the other."""
    for first, last in pairwise((*path.starts, len(values))):
        yield np.arange(first, last), values[first:last]
