"""The gradient taken apart: which bins push which cut."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation import diagnostics
from pipeline.validation.diagnostics import Contributions
from pipeline.validation.regions import Region, Values

__all__ = ["draw", "picture"]

LARGEST = 8
"""Thresholds that are shown."""
LEAST = 0.05
"""Of the largest push: what is smaller has no panel."""


def picture(scene: Scene) -> Picture | None:
    """At the optimum; None where no bin pushes any cut."""
    pushes = diagnostics.contributions(scene.problem, scene.outcome.best_step)
    sizes = {push.cut: float(np.abs(push.values).sum()) for push in pushes}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    shown = [push for push in pushes if push.cut in largest and sizes[push.cut] > LEAST * sizes[largest[0]]]
    if not shown:
        return None
    hidden = [scene.labels[push.cut] for push in pushes if push not in shown]
    return Picture(
        "gradients",
        "Which bins push which cut",
        f"Raise one cut by the stated step: events at its boundary leave or change their bins, and {scene.symbol} "
        "changes. Each bar is the part of that change which comes from one bin and process, the line their sum, Σ the "
        "total of a panel. Where losses here and gains there cancel, over all regions of a row, the cut is at its "
        "optimum." + (f" Not shown, because they push less: {', '.join(hidden)}." if hidden else ""),
        draw(shown, scene.regions_after, scene.labels, scene.symbol, scene.source),
    )


def draw(
    pushes: Sequence[Contributions], regions: Sequence[Region], labels: Mapping[str, str], symbol: str, source: str
) -> Figure:
    """Which bins push which cut: a row a cut, a column a region, bars by process."""
    figure, panels = look.panels(len(pushes), len(regions), height=2.1)
    largest = max(np.abs(push.values).sum() for push in pushes)
    starts = np.cumsum([0, *(len(region.edges) - 1 for region in regions)])
    for row, push in enumerate(pushes):
        for column, region in enumerate(regions):
            axes = panels[row][column]
            values = push.values[:, starts[column] : starts[column + 1]]
            if row == 0:
                look.title(axes, region.name, source)
            if np.abs(values).sum() < LEAST * largest:
                axes.set_axis_off()
                continue
            _signed_stack(axes, region, values)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_xlim(region.edges[0], region.edges[-1])
            if column == 0:
                axes.set_ylabel(f"Δ{symbol} per bin", fontsize=9)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.25 * (high - low))
            what = f"{labels[push.cut]}, + {push.step:g}: Σ = {values.sum():+.2g}"
            axes.text(0.98, 0.95, what, transform=axes.transAxes, ha="right", va="top", fontsize=9)
            if row == len(pushes) - 1:
                axes.set_xlabel(region.label)
            else:
                axes.set_xticklabels([])
    seen = next(axes for line in panels for axes in line if axes.axison)
    handles, names = seen.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def _signed_stack(axes: Axes, region: Region, values: Values) -> None:
    """Bars that add up: positive ones upwards, negative ones downwards."""
    centers, widths = 0.5 * (region.edges[1:] + region.edges[:-1]), np.diff(region.edges)
    up, down = np.zeros(len(centers)), np.zeros(len(centers))
    for name, color, row in zip(region.processes, look.colors(len(region.processes)), values, strict=True):
        bottom = np.where(row >= 0, up, down)
        axes.bar(centers, row, 0.9 * widths, bottom=bottom, color=color, label=name)
        up, down = up + np.maximum(row, 0), down + np.minimum(row, 0)
    axes.stairs(values.sum(axis=0), region.edges, color="black", baseline=None, linewidth=1, label="sum")
