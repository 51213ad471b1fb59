"""Every systematic uncertainty beside the nominal templates."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.regions import Region

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture | None:
    """Of validation events; None without uncertainties."""
    if not scene.problem.analysis.measurement.nuisances:
        return None
    return Picture(
        "systematics",
        "Systematic uncertainties",
        "The sum of all processes with one uncertainty moved by one standard deviation up or down, divided by the "
        "nominal sum, at the optimised cuts. Each one becomes a nuisance parameter of the fit. Variations smaller "
        "than the grey band cannot be told from the statistical noise of the simulated sample.",
        draw(scene.regions_after, scene.source),
    )


def draw(regions: Sequence[Region], source: str) -> Figure:
    """Total template at ±1 standard deviation over the nominal one: a row an uncertainty, a column a region."""
    names = list(regions[0].up)
    figure, panels = look.panels(len(names), len(regions), height=1.3)
    for row, name in enumerate(names):
        for column, region in enumerate(regions):
            axes = panels[row][column]
            for table, color, label in ((region.up, look.COLORS[2], "+1σ"), (region.down, look.COLORS[0], "−1σ")):
                ratio = look.ratio(table[name].sum(axis=0), region.total, empty=1.0)
                axes.stairs(ratio, region.edges, color=color, label=label, baseline=None)
            error = look.ratio(region.statistical, region.total)
            look.band(axes, region.edges, 1 - error, 1 + error, color="black", alpha=0.15, label="MC stat. of nominal")
            tables = (region.up, region.down)
            ratios = [look.ratio(table[name].sum(axis=0), region.total, empty=1.0) for table in tables]
            reach = 1.25 * max(0.01, float(np.abs(np.array(ratios) - 1).max()))
            # Room for the name above the lines.
            axes.set_ylim(1 - reach, 1 + 1.5 * reach)
            axes.set_xlim(region.edges[0], region.edges[-1])
            axes.text(0.02, 0.95, name, transform=axes.transAxes, va="top", fontsize=9)
            if row == 0:
                look.title(axes, region.name, source)
            if row == len(names) - 1:
                axes.set_xlabel(region.label)
            else:
                axes.set_xticklabels([])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
