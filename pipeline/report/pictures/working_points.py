"""What changes if an uncertainty or the luminosity were different."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.working_points import WorkingPoints

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture | None:
    """None where the config does not ask for it."""
    points = scene.outcome.working_points
    if points is None:
        return None
    caption = (
        f"{scene.symbol} on validation events if one uncertainty, or the luminosity, had another size, at the same "
        "cuts; the line is the run as it is."
    )
    if _moving(points):
        steps = ", ".join(f"{step:.3g} ({name})" for name, step in points.steps.items())
        caption += (
            f" Right: by how much the optimum of each cut would move, in units of {steps}; bars are errors. "
            "No point: that optimum is not known, and the table above says why."
        )
    return Picture("working_points", "If something were different", caption, draw(points, scene.symbol, scene.source))


def draw(points: WorkingPoints, symbol: str, source: str) -> Figure:
    """The figure of merit at each working point and, where any is known, the shift of each threshold in its steps."""
    columns = 2 if _moving(points) else 1
    figure, (panels,) = look.panels(1, columns, width=5.0, height=1.0 + 0.4 * len(points.points))
    places = np.arange(len(points.points))[::-1]
    panels[0].axvline(points.merit, color="black", linewidth=0.8)
    panels[0].plot([point.merit for point in points.points], places, "o", color=look.VALIDATION)
    panels[0].set_xlabel(symbol)
    panels[0].locator_params(axis="x", nbins=5)
    look.title(panels[0], "same cuts", source if columns == 1 else "")
    if columns == 2:
        _shifts(panels[1], points)
        figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
        look.title(panels[1], "", source)
    for axes, names in zip(panels, ([str(point) for point in points.points], [""] * len(places)), strict=False):
        axes.set_yticks(places, names, fontsize=8)
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_ylim(-0.6, len(places) - 0.4)
    return figure


def _moving(points: WorkingPoints) -> bool:
    return any(point.moved for point in points.points)


def _shifts(axes: Axes, points: WorkingPoints) -> None:
    number = len(points.steps)
    for turn, (name, step) in enumerate(points.steps.items()):
        known = [(place, each.moved[name]) for place, each in enumerate(reversed(points.points)) if each.moved]
        axes.errorbar(
            [shift.value / step for _, shift in known],
            [place + 0.2 - 0.4 * (turn + 0.5) / number for place, _ in known],
            xerr=[shift.error / step for _, shift in known],
            fmt="o",
            markersize=4,
            color=look.colors(number)[turn],
            label=name,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("shift of the optimum [bandwidths]")
