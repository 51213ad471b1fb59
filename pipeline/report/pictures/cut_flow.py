"""Events that are left, cut after cut."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.cutflow import CutFlow, cut_flow

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture:
    """Of validation events."""
    outcome = scene.outcome
    before, after = (
        cut_flow(scene.problem, cuts, regions)
        for cuts, regions in ((outcome.before, scene.regions_before), (outcome.after, scene.regions_after))
    )
    return Picture(
        "cut_flow",
        "Cut-flow",
        "Expected events of each process in the histograms, as one cut after the other is applied; the numbers of "
        "objects that the regions ask for hold from the start, so a cut may also bring events back. Right of the "
        "dotted line: region by region. 'All read' and 'no cut' already have the loosest cuts that any step of the "
        "optimisation may ask for. Open and dashed: default cuts; full: optimised cuts. The numbers below are those of "
        "the optimised cuts, in brackets those of the default cuts.",
        draw(before, after, scene.source),
    )


def draw(before: CutFlow, after: CutFlow, source: str) -> Figure:
    """Expected events of each process after each step, before (open) and after (filled)."""
    rows, columns = len(after.processes), len(after.steps)
    figure, ((axes,), (table,)) = look.panels(
        2, 1, width=max(1.6 * look.COLUMN, 0.75 * columns), heights=(3.0, 0.45 * (rows + 1))
    )
    colors = look.colors(rows)
    places = np.arange(columns)
    # Requirements follow upon each other and are joined; regions stand side by side.
    shared = columns - after.regions
    for row, (name, color) in enumerate(zip(after.processes, colors, strict=True)):
        axes.plot(places, after.events[row], "o", color=color)
        axes.plot(places, before.events[row], "o", color=color, markerfacecolor="none")
        axes.plot(places[:shared], after.events[row, :shared], "o-", color=color, label=name)
        axes.plot(places[:shared], before.events[row, :shared], "--", color=color)
    axes.axvline(shared - 0.5, color="black", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylabel("expected events")
    axes.set_xticks(places, [""] * columns)
    _numbers(table, before, after, colors)
    for each in (axes, table):
        each.set_xlim(-0.5, columns - 0.5)
    look.title(axes, "open and dashed: default cuts", source)
    return figure


def _numbers(axes: Axes, before: CutFlow, after: CutFlow, colors: Sequence[str]) -> None:
    """The same as numbers, below the points: after, and (before)."""
    names = [*after.processes, "all"]
    tables = [np.vstack([flow.events, flow.events.sum(axis=0)]) for flow in (after, before)]
    for row, column in np.ndindex(*tables[0].shape):
        now, then = (_short(float(table[row, column])) for table in tables)
        axes.text(column, row, f"{now}\n({then})", ha="center", va="center", fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    for label, color in zip(axes.get_yticklabels(), colors, strict=False):
        label.set_color(color)
    axes.set_xticks(np.arange(len(after.steps)), after.steps, rotation=45 if len(after.steps) > 5 else 0, ha="right")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
