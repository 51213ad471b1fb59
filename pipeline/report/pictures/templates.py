"""The templates of the fit, before and after."""

from collections.abc import Sequence

import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.regions import Region

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture:
    """Of validation events."""
    return Picture(
        "templates",
        "What the fit sees",
        "Expected events in each bin, all processes on top of each other, on events that the optimiser has not "
        "seen. Left: default cuts; right: optimised cuts. The hatched band is the total error before any fit: "
        "every systematic uncertainty and the finite number of simulated events in quadrature. The grey band is the "
        "latter alone: where it is wide, too few events were simulated to know the bin well. An arrow marks a bin "
        "that the fit merges with its neighbour for this reason. Below: the same bands, relative to the total.",
        draw(scene.regions_before, scene.regions_after, scene.source),
    )


def draw(before: Sequence[Region], after: Sequence[Region], source: str) -> Figure:
    """Stacked templates, a row a region, with the bands of both kinds of errors and their relative sizes below."""
    figure, panels = look.panels(2 * len(after), 2, heights=[3.0, 1.0] * len(after))
    for row, pair in enumerate(zip(before, after, strict=True)):
        top = 1.3 * max(float((region.total + region.band[1]).max()) for region in pair)
        for column, (region, when) in enumerate(zip(pair, ("default cuts", "optimised cuts"), strict=True)):
            main, ratio = panels[2 * row][column], panels[2 * row + 1][column]
            _stack(main, region)
            main.set_ylim(0, max(top, 1e-3))
            main.set_ylabel("expected events" if column == 0 else "")
            main.set_xticklabels([])
            look.title(main, f"{region.name}, {when}", source)
            _relative_band(ratio, region)
            reach = 1.1 * max(float(look.ratio(side, view.total).max()) for view in pair for side in view.band)
            ratio.set_ylim(1 - min(max(reach, 0.05), 1), 1 + max(reach, 0.05))
            ratio.set_xlabel(region.label)
            ratio.set_ylabel("rel. error" if column == 0 else "")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _stack(axes: Axes, region: Region) -> None:
    mplhep.histplot(
        list(region.nominal),
        bins=region.edges,
        stack=True,
        histtype="fill",
        color=look.colors(len(region.processes)),
        label=list(region.processes),
        ax=axes,
        flow="none",
    )
    axes.set_xlim(region.edges[0], region.edges[-1])
    below, above = region.band
    total, error = region.total, region.statistical
    look.band(axes, region.edges, total - below, total + above, **look.TOTAL_BAND, label="systematic ⊕ MC stat.")
    look.band(axes, region.edges, total - error, total + error, **look.STATISTICAL_BAND, label="MC stat.")
    for bin_, into in enumerate(region.merged_into):
        if into != bin_:
            # A bin without a border of its own: the likelihood sees it together with the bin it is merged into.
            center = 0.5 * (region.edges[bin_] + region.edges[bin_ + 1])
            sign = "×" if into < 0 else "←" if into < bin_ else "→"
            axes.text(center, 0.01, sign, transform=axes.get_xaxis_transform(), ha="center", fontsize=9)


def _relative_band(axes: Axes, region: Region) -> None:
    below, above = (look.ratio(side, region.total) for side in region.band)
    error = look.ratio(region.statistical, region.total)
    look.band(axes, region.edges, 1 - below, 1 + above, **look.TOTAL_BAND)
    look.band(axes, region.edges, 1 - error, 1 + error, **look.STATISTICAL_BAND)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xlim(region.edges[0], region.edges[-1])
