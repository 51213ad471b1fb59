"""Figures of a run: arrays in, figure out; nothing is read, computed or written here.

The style is that of CMS publications (mplhep), at a size that a phone can show. Text and axes are pure black on
nothing, so that the page can draw them in the colour of its text, light or dark. Every figure says where its events
come from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.report.cutflow import CutFlow, Distribution
from pipeline.validation.diagnostics import Contour, Contributions, Impact, Path, Profile, Region, Values

__all__ = [
    "contour",
    "cut_flow",
    "distributions",
    "gradients",
    "history",
    "impacts",
    "lay_out",
    "profiles",
    "style",
    "systematics",
    "templates",
]

COLORS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd", "#b9ac70", "#a96b59", "#e76300", "#92dadd")
"""M. A. Petroff, arXiv:2107.02270: they stay apart for colour-blind readers and in grey; CMS recommends them."""

TRAINING, VALIDATION, THRESHOLD = COLORS[2], COLORS[0], COLORS[3]
TOTAL_BAND: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "hatch": "////"}
STATISTICAL_BAND: dict[str, Any] = {"color": "black", "alpha": 0.6}
COLUMN, ROW = 4.6, 3.4
"""Size of a panel in inches."""

SIZES: dict[str, Any] = {
    "font.size": 11,
    "axes.linewidth": 1,
    "xtick.major.size": 5,
    "ytick.major.size": 5,
    # Minor ticks take most of the time of a drawing and tell little.
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.6,
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def style(name: str = "figure") -> Iterator[None]:
    """The style of all figures; `name` makes the marks inside an SVG file unique and the same in every run."""
    look: Any = {**mplhep.style.CMS, **SIZES, "svg.hashsalt": name}
    with mpl.rc_context(look):
        yield


def lay_out(figure: Figure) -> None:
    """Give every axis its final place, once and for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def templates(before: Sequence[Region], after: Sequence[Region], source: str) -> Figure:
    """Stacked templates, a row a region, with the bands of both kinds of errors and their relative sizes below."""
    figure, panels = _panels(2 * len(after), 2, heights=[3.0, 1.0] * len(after))
    for row, pair in enumerate(zip(before, after, strict=True)):
        top = 1.3 * max(float((region.total + region.band[1]).max()) for region in pair)
        for column, (region, when) in enumerate(zip(pair, ("default cuts", "optimised cuts"), strict=True)):
            main, ratio = panels[2 * row][column], panels[2 * row + 1][column]
            _stack(main, region)
            main.set_ylim(0, max(top, 1e-3))
            main.set_ylabel("expected events" if column == 0 else "")
            main.set_xticklabels([])
            _title(main, f"{region.name}, {when}", source)
            _relative_band(ratio, region)
            reach = 1.1 * max(float(np.max([_ratio(side, one.total) for side in one.band])) for one in pair)
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
        color=_colors(len(region.processes)),
        label=list(region.processes),
        ax=axes,
        flow="none",
    )
    axes.set_xlim(region.edges[0], region.edges[-1])
    below, above = region.band
    total, error = region.total, region.statistical
    _band(axes, region.edges, total - below, total + above, **TOTAL_BAND, label="systematic ⊕ MC stat.")
    _band(axes, region.edges, total - error, total + error, **STATISTICAL_BAND, label="MC stat.")
    for bin_, into in enumerate(region.merged_into):
        if into != bin_:
            # A bin without a border of its own: the likelihood sees it together with the bin it is merged into.
            center = 0.5 * (region.edges[bin_] + region.edges[bin_ + 1])
            sign = "×" if into < 0 else "←" if into < bin_ else "→"
            axes.text(center, 0.01, sign, transform=axes.get_xaxis_transform(), ha="center", fontsize=9)


def _relative_band(axes: Axes, region: Region) -> None:
    below, above = (_ratio(one, region.total) for one in region.band)
    error = _ratio(region.statistical, region.total)
    _band(axes, region.edges, 1 - below, 1 + above, **TOTAL_BAND)
    _band(axes, region.edges, 1 - error, 1 + error, **STATISTICAL_BAND)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xlim(region.edges[0], region.edges[-1])


def systematics(regions: Sequence[Region], source: str) -> Figure:
    """Total template at ±1 standard deviation over the nominal one: a row an uncertainty, a column a region."""
    names = list(regions[0].up)
    figure, panels = _panels(len(names), len(regions), height=1.3)
    for row, name in enumerate(names):
        for column, region in enumerate(regions):
            axes = panels[row][column]
            for table, color, label in ((region.up, COLORS[2], "+1σ"), (region.down, COLORS[0], "−1σ")):
                ratio = _ratio(table[name].sum(axis=0), region.total, empty=1.0)
                axes.stairs(ratio, region.edges, color=color, label=label, baseline=None)
            error = _ratio(region.statistical, region.total)
            _band(axes, region.edges, 1 - error, 1 + error, color="black", alpha=0.15, label="MC stat. of nominal")
            ratios = [_ratio(table[name].sum(axis=0), region.total, empty=1.0) for table in (region.up, region.down)]
            reach = 1.25 * max(0.01, float(np.abs(np.array(ratios) - 1).max()))
            # Room for the name above the lines.
            axes.set_ylim(1 - reach, 1 + 1.5 * reach)
            axes.set_xlim(region.edges[0], region.edges[-1])
            axes.text(0.02, 0.95, name, transform=axes.transAxes, va="top", fontsize=9)
            if row == 0:
                _title(axes, region.name, source)
            if row == len(names) - 1:
                axes.set_xlabel(region.label)
            else:
                axes.set_xticklabels([])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def history(path: Path, labels: Mapping[str, str], bounds: Mapping[str, tuple[float, float]], source: str) -> Figure:
    """The figure of merit and every trainable threshold, step by step."""
    columns = 1 if len(path.thresholds) <= 4 else 3
    rows = 1 + -(-len(path.thresholds) // columns)
    figure = Figure(figsize=(1.6 * COLUMN * (1 if columns == 1 else 1.6), 1.7 * rows + 0.6))
    grid = figure.add_gridspec(rows, columns)
    panels = [figure.add_subplot(grid[0, :])]
    _values_on_the_way(panels[0], path)
    _title(panels[0], f"kept: step {path.best}", source)
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
    lines = [("training events", path.training, TRAINING)]
    if path.stopping is not None:
        lines.append(("stopping events", path.stopping, COLORS[1]))
    for label, values, color in lines:
        for place, piece in _pieces(path, values):
            axes.plot(place, piece, marker=".", color=color, label=label if place[0] == 0 else None)
    axes.plot(*path.validation, "s--", markersize=4, color=VALIDATION, label="validation events")
    axes.set_ylabel(path.symbol, fontsize=9)


def _threshold_on_the_way(axes: Axes, path: Path, name: str, bounds: Sequence[float]) -> None:
    certain = path.certain[name]
    for place, values in _pieces(path, path.thresholds[name]):
        axes.plot(place, values, color=THRESHOLD)
        axes.plot(place[certain[place]], values[certain[place]], ".", color=THRESHOLD)
        axes.plot(place[~certain[place]], values[~certain[place]], "o", color=THRESHOLD, mfc="white", markersize=4)
    limits = axes.get_ylim()
    for bound in bounds:
        axes.axhline(bound, color=COLORS[4], linestyle="--", linewidth=1)
    axes.set_ylim(limits)


def _pieces(path: Path, values: Values) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """Places and values of one start after the other."""
    for first, last in pairwise((*path.starts, len(values))):
        yield np.arange(first, last), values[first:last]


def profiles(profiles: Sequence[Profile], labels: Mapping[str, str], symbol: str, source: str) -> Figure:
    """The exact figure of merit along each threshold, and the tangent at the optimum that the gradient predicts."""
    figure, panels = _in_rows(len(profiles), width=3.6)
    small: Any = {"markersize": 3}
    for axes, one in zip(panels, profiles, strict=True):
        axes.plot(one.thresholds, one.training, "o-", color=TRAINING, label="training events, exact", **small)
        axes.plot(one.thresholds, one.validation, "s--", color=VALIDATION, label="validation events, exact", **small)
        limits = axes.get_ylim()
        around = one.optimum + np.array([-1.5, 1.5]) * one.bandwidth
        reach = np.clip(around, one.thresholds[0], one.thresholds[-1]) - one.optimum
        axes.plot(one.optimum + reach, one.value + one.slope * reach, color="black", label="tangent by the gradient")
        axes.axvline(one.optimum, color="black", linestyle=":", linewidth=1)
        axes.set_ylim(limits)
        axes.set_xlabel(labels[one.cut])
        axes.set_ylabel(symbol if one is profiles[0] else "")
    _title(panels[0], "one threshold moves", source)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, 1 + len(profiles)))
    return figure


def gradients(
    found: Sequence[Contributions], regions: Sequence[Region], labels: Mapping[str, str], symbol: str, source: str
) -> Figure:
    """Which bins push which cut: a row a cut, a column a region, bars by process."""
    figure, panels = _panels(len(found), len(regions), height=2.1)
    starts = np.cumsum([0, *(len(region.edges) - 1 for region in regions)])
    for row, one in enumerate(found):
        for column, region in enumerate(regions):
            axes = panels[row][column]
            _signed_stack(axes, region, one.values[:, starts[column] : starts[column + 1]])
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_xlim(region.edges[0], region.edges[-1])
            if column == 0:
                axes.set_ylabel(f"Δ{symbol} per bin", fontsize=9)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.25 * (high - low))
            sum_ = one.values[:, starts[column] : starts[column + 1]].sum()
            what = f"{labels[one.cut]}, + {one.step:g}: Σ = {sum_:+.2g}"
            axes.text(0.98, 0.95, what, transform=axes.transAxes, ha="right", va="top", fontsize=9)
            if row == 0:
                _title(axes, region.name, source)
            if row == len(found) - 1:
                axes.set_xlabel(region.label)
            else:
                axes.set_xticklabels([])
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def _signed_stack(axes: Axes, region: Region, values: Values) -> None:
    """Bars that add up: positive ones upwards, negative ones downwards."""
    centers, widths = 0.5 * (region.edges[1:] + region.edges[:-1]), np.diff(region.edges)
    up, down = np.zeros(len(centers)), np.zeros(len(centers))
    for name, color, row in zip(region.processes, _colors(len(region.processes)), values, strict=True):
        bottom = np.where(row >= 0, up, down)
        axes.bar(centers, row, 0.9 * widths, bottom=bottom, color=color, label=name)
        up, down = up + np.maximum(row, 0), down + np.minimum(row, 0)
    axes.stairs(values.sum(axis=0), region.edges, color="black", baseline=None, linewidth=1, label="sum")


def impacts(found: Sequence[Impact], symbol: str, source: str, shown: int = 16) -> Figure:
    """The largest impacts on the signal strength, and how much the expected data constrain each parameter."""
    rows = list(found[:shown])
    figure, ((left, right),) = _panels(1, 2, width=3.6, height=0.8 + 0.27 * len(rows))
    places = np.arange(len(rows))[::-1]
    left.barh(places, [one.shift for one in rows], color=[COLORS[2] if one.shift > 0 else COLORS[0] for one in rows])
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(places, [_readable(one.parameter) for one in rows], fontsize=8)
    left.set_xlabel(f"shift of {symbol} by +1σ")
    right.errorbar(np.zeros(len(rows)), places, xerr=[one.width for one in rows], fmt="o", color="black", markersize=3)
    right.axvspan(-1, 1, color=COLORS[4], alpha=0.25, linewidth=0)
    right.set_yticks(places, [""] * len(rows))
    right.set_xlim(-1.5, 1.5)
    right.set_xlabel("σ after / σ before the fit")
    for axes in (left, right):
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_ylim(-0.7, len(rows) - 0.3)
    _title(left, "Asimov data", source)
    return figure


def _readable(parameter: str) -> str:
    """`staterror_4j1b-CR[2]` says little: the error by the finite number of simulated events in the third bin."""
    found = re.fullmatch(r"staterror_(.*)\[(\d+)\]", parameter)
    return f"MC stat. {found[1]}, bin {int(found[2]) + 1}" if found else parameter


def contour(
    found: Contour,
    path: Sequence[Mapping[str, float]],
    optimum: Mapping[str, float],
    labels: Mapping[str, str],
    symbol: str,
    source: str,
) -> Figure:
    """The exact figure of merit over two thresholds, and the way the optimiser went."""
    figure, ((axes,),) = _panels(1, 1, width=1.3 * COLUMN, height=1.2 * ROW)
    first, second = found.cuts
    filled = axes.contourf(found.first, found.second, np.ma.masked_invalid(found.values), levels=12, cmap="cividis")
    figure.colorbar(filled, ax=axes, label=f"{symbol}, training events")
    way = [[position[name] for position in path] for name in found.cuts]
    marks = {"markeredgecolor": "black", "markeredgewidth": 0.6}
    axes.plot(*way, "o-", color="white", markersize=4, linewidth=1, label="path", **marks)
    axes.plot(way[0][0], way[1][0], "s", color="white", markersize=8, label="default cuts", **marks)
    axes.plot(optimum[first], optimum[second], "*", color=TRAINING, markersize=14, label="optimum", **marks)
    axes.set_xlabel(labels[first])
    axes.set_ylabel(labels[second])
    figure.legend(loc="outside lower center", ncols=3)
    _title(axes, "", source)
    return figure


def distributions(found: Sequence[Distribution], labels: Mapping[str, str], source: str) -> Figure:
    """Objects that pass all but one cut; the cut before and after, and the window in which its gradient is measured."""
    figure, panels = _in_rows(len(found), width=3.8)
    for axes, one in zip(panels, found, strict=True):
        mplhep.histplot(
            list(one.values),
            bins=one.edges,
            stack=True,
            histtype="fill",
            color=_colors(len(one.processes)),
            label=list(one.processes),
            ax=axes,
            flow="none",
        )
        window = (one.after - one.bandwidth, one.after + one.bandwidth)
        axes.axvspan(*window, color="black", alpha=0.15, linewidth=0, label="bandwidth")
        axes.axvline(one.before, color="black", linestyle="--", label="default cut")
        axes.axvline(one.after, color="black", label="optimised cut")
        axes.set_xlabel(labels[one.cut])
        axes.set_ylabel(f"expected {one.counted}", fontsize=9)
        if not one.values.any():
            axes.text(0.5, 0.5, "none passes all other cuts", transform=axes.transAxes, ha="center", fontsize=9)
            axes.set_yticks([])
        axes.set_xlim(one.edges[0], one.edges[-1])
    _title(panels[0], "all other cuts applied", source)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def cut_flow(before: CutFlow, after: CutFlow, source: str) -> Figure:
    """Expected events of each process after each requirement, before (open) and after (filled)."""
    figure, ((axes,),) = _panels(1, 1, width=1.6 * COLUMN)
    colors = _colors(len(after.processes))
    # Requirements follow upon each other and are joined; regions stand side by side.
    shared = len(after.steps) - after.regions
    for row, (name, color) in enumerate(zip(after.processes, colors, strict=True)):
        axes.plot(after.steps, after.events[row], "o", color=color)
        axes.plot(before.steps, before.events[row], "o", color=color, markerfacecolor="none")
        axes.plot(after.steps[:shared], after.events[row, :shared], "o-", color=color, label=name)
        axes.plot(before.steps[:shared], before.events[row, :shared], "--", color=color)
    axes.axvline(shared - 0.5, color="black", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.set_ylabel("expected events")
    figure.legend(loc="outside lower center", ncols=3)
    _title(axes, "open and dashed: default cuts", source)
    return figure


def _in_rows(number: int, width: float) -> tuple[Figure, list[Axes]]:
    """So many panels, four in a row; the last row may be shorter."""
    columns = min(number, 4)
    figure, panels = _panels(-(-number // columns), columns, width=width)
    flat = [axes for row in panels for axes in row]
    for axes in flat[number:]:
        axes.remove()
    return figure, flat[:number]


def _panels(
    rows: int, columns: int, width: float = COLUMN, height: float = ROW, heights: Sequence[float] | None = None
) -> tuple[Figure, Any]:
    total = height * rows if heights is None else 1.3 * ROW * rows / 2
    figure = Figure(figsize=(width * columns, total + 0.6))
    grid = {"height_ratios": heights} if heights is not None else {}
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)


def _title(axes: Axes, text: str, source: str) -> None:
    """What is shown on the left, where the events come from on the right."""
    axes.set_title(text, loc="left", fontsize=10)
    axes.text(1, 1.01, source, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, style="italic")


def _band(axes: Axes, edges: Values, low: Values, high: Values, **look: Any) -> None:
    axes.stairs(high, edges, baseline=low, fill=True, linewidth=0, **look)


def _ratio(numerator: Values, denominator: Values, empty: float = 0.0) -> Values:
    return np.divide(numerator, denominator, out=np.full_like(denominator, empty), where=denominator > 0)


def _colors(number: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(number)]
