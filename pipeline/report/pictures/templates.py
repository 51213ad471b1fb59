"""The templates of the fit, before and after."""

import re
from collections.abc import Collection, Sequence

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.regions import Region, Values

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture:
    """Of validation events."""
    return Picture(
        "templates",
        "What the fit sees",
        "Expected events in each bin, all processes on top of each other, the signal uppermost, on events that the "
        "optimiser has not seen. Left: default cuts; right: optimised cuts. The hatched band is the total error before "
        "any fit: every systematic uncertainty and the finite number of simulated events in quadrature. The grey band "
        "is the latter alone: where it is wide, too few events were simulated to know the bin well. An arrow marks a "
        "bin that the fit merges with its neighbour for this reason. Below: the same bands, relative to the total.",
        draw(scene.regions_before, scene.regions_after, scene.source, _signal(scene)),
    )


def _signal(scene: Scene) -> list[str]:
    return [scene.config.processes[name].title for name in scene.config.measurement.signal]


def draw(before: Sequence[Region], after: Sequence[Region], source: str, signal: Collection[str] = ()) -> Figure:
    """Stacked templates, a row a region, with the bands of both kinds of errors and their relative sizes below.

    The `signal` lies on top of the others. Bins of unequal widths show their content per unit.
    """
    figure, panels = look.panels(2 * len(after), 2, heights=[3.0, 1.0] * len(after))
    for row, pair in enumerate(zip(before, after, strict=True)):
        top = 1.3 * max(float(((region.total + region.band[1]) / _per(region)).max()) for region in pair)
        for column, (region, when) in enumerate(zip(pair, ("default cuts", "optimised cuts"), strict=True)):
            main, ratio = panels[2 * row][column], panels[2 * row + 1][column]
            _stack(main, region, signal)
            main.set_ylim(0, max(top, 1e-3))
            main.set_ylabel(_counted(region) if column == 0 else "")
            main.set_xticklabels([])
            look.title(main, f"{region.name}, {when}", source)
            _relative_band(ratio, region)
            reach = 1.1 * max(float(look.ratio(side, view.total).max()) for view in pair for side in view.band)
            ratio.set_ylim(1 - min(max(reach, 0.05), 1), 1 + max(reach, 0.05))
            ratio.set_xlabel(region.label)
            ratio.set_ylabel("total / nominal" if column == 0 else "", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _is_equal(region: Region) -> bool:
    widths = np.diff(region.edges)
    return bool(np.allclose(widths, widths[0]))


def _per(region: Region) -> Values:
    """What the content of each bin is divided by."""
    return np.ones(len(region.edges) - 1) if _is_equal(region) else np.diff(region.edges)


def _counted(region: Region) -> str:
    """`events / 40 GeV`, or `events / GeV` where the bins differ."""
    unit = re.search(r"\[(.+)\]", region.label)
    width = f"{region.edges[1] - region.edges[0]:.3g}" if _is_equal(region) else "" if unit else "unit"
    return f"events / {' '.join(filter(None, (width, unit[1] if unit else '')))}"


def _from_below(processes: Sequence[str], signal: Collection[str]) -> list[int]:
    """Rows in the order of the stack: the signal uppermost, below it the processes in the order of the config."""
    return sorted(range(len(processes)), key=lambda row: (processes[row] in signal, -row))


def _stack(axes: Axes, region: Region, signal: Collection[str]) -> None:
    order = _from_below(region.processes, signal)
    color = look.colors(len(region.processes))
    per = _per(region)
    mplhep.histplot(
        [region.nominal[row] / per for row in order],
        bins=region.edges,
        stack=True,
        histtype="fill",
        color=[color[row] for row in order],
        label=[region.processes[row] for row in order],
        ax=axes,
        flow="none",
    )
    axes.set_xlim(region.edges[0], region.edges[-1])
    below, above = (side / per for side in region.band)
    total, error = region.total / per, region.statistical / per
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
