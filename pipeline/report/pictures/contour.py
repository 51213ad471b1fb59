"""The landscape over two thresholds, and the path of the optimiser."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation import diagnostics
from pipeline.validation.diagnostics import Contour

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture | None:
    """Of the start that led to the optimum; None for a single threshold."""
    outcome, start_of = scene.outcome, scene.config.optimiser.start_of
    start = start_of(outcome.best_step.number)
    path = [step.thresholds for step in outcome.history if start_of(step.number) == start]
    landscape = diagnostics.contour(scene.problem, outcome.after, path)
    if landscape is None:
        return None
    return Picture(
        "contour",
        "The landscape and the path",
        f"{scene.symbol} of the exact analysis over the two thresholds that moved most, the others at their optimum. "
        "White: the steps of the optimiser. Along the path the other thresholds were still moving, so heights apply "
        "to its end. The map needs an evaluation for every point of a grid; the path needed one for every step, "
        "however many cuts there are.",
        draw(landscape, path, outcome.after, scene.labels, scene.symbol, scene.source),
    )


def draw(
    landscape: Contour,
    path: Sequence[Mapping[str, float]],
    optimum: Mapping[str, float],
    labels: Mapping[str, str],
    symbol: str,
    source: str,
) -> Figure:
    """The exact figure of merit over two thresholds, and the way the optimiser went."""
    figure, ((axes,),) = look.panels(1, 1, width=1.3 * look.COLUMN, height=1.2 * look.ROW)
    first, second = landscape.cuts
    heights = np.ma.masked_invalid(landscape.values)
    filled = axes.contourf(landscape.first, landscape.second, heights, levels=12, cmap="cividis")
    figure.colorbar(filled, ax=axes, label=f"{symbol}, training events")
    way = [[position[name] for position in path] for name in landscape.cuts]
    marks = {"markeredgecolor": "black", "markeredgewidth": 0.6}
    axes.plot(*way, "o-", color="white", markersize=4, linewidth=1, label="path", **marks)
    axes.plot(way[0][0], way[1][0], "s", color="white", markersize=8, label="default cuts", **marks)
    axes.plot(optimum[first], optimum[second], "*", color=look.TRAINING, markersize=14, label="optimum", **marks)
    axes.set_xlabel(labels[first])
    axes.set_ylabel(labels[second])
    figure.legend(loc="outside lower center", ncols=3)
    look.title(axes, "", source)
    return figure
