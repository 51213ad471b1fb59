"""What limits the measurement: pulls and impacts of its parameters, as the field draws them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.analysis import numbers_of
from pipeline.events.cuts import arrays
from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.impacts import STATISTICS, Impact, impacts

__all__ = ["draw", "picture"]

UP, DOWN = look.COLORS[2], look.COLORS[0]


def picture(scene: Scene) -> Picture | None:
    """At the optimised cuts; None without any parameter but the signal strength."""
    problem = scene.problem
    numbers = numbers_of(problem.analysis, arrays(scene.outcome.after), problem.validation)
    found = impacts(problem.analysis.structure, numbers)
    if not found:
        return None
    return Picture(
        "impacts",
        "What limits the measurement",
        "Right: by how much the measured signal strength μ moves if a parameter is held one standard deviation of the "
        "fit higher (red) or lower (blue) and all others are fitted again; outlined, one standard deviation before the "
        "fit. Left: that standard deviation relative to the one before the fit; shorter than the grey band means that "
        "the expected data themselves constrain the parameter. A normalisation without constraint shows its value and "
        f"error instead. {STATISTICS!r} are the errors of all bins by the finite number of simulated events, together. "
        "Asimov data: all pulls are 0." + _over_constrained(found),
        draw(found, "μ", scene.source),
    )


def draw(impacts: Sequence[Impact], symbol: str, source: str, shown: int = 20) -> Figure:
    """The largest impacts on the signal strength, and how much the expected data constrain each parameter."""
    rows = list(impacts[:shown])
    figure, ((left, right),) = look.panels(1, 2, width=3.8, height=1.1 + 0.27 * len(rows))
    places = np.arange(len(rows))[::-1]
    for place, impact in zip(places.tolist(), rows, strict=True):
        _pull(left, place, impact)
        _bars(right, place, impact)
    left.axvspan(-1, 1, color=look.GREY, alpha=0.25, linewidth=0)
    left.set_yticks(places, [impact.parameter for impact in rows], fontsize=8)
    left.set_xlim(-1.6, 1.6)
    left.set_xlabel(r"$(\hat\theta - \theta_0)\,/\,\Delta\theta$")
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(places, [""] * len(rows))
    right.set_xlabel(f"Δ{symbol}")
    for axes in (left, right):
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_ylim(-0.7, len(rows) - 0.3)
    legend = [
        Patch(color=UP, label="+1σ after the fit"),
        Patch(color=DOWN, label="−1σ after the fit"),
        Patch(facecolor="none", edgecolor="black", label="±1σ before the fit"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, fontsize=9)
    look.title(left, "Asimov data", "")
    look.title(right, "", source)
    return figure


def _pull(axes: Axes, place: int, impact: Impact) -> None:
    if np.isnan(impact.width):
        return
    if not impact.constrained:
        axes.text(0, place, f"1.00 ± {impact.width:.2f}", ha="center", va="center", fontsize=8)
        return
    axes.errorbar([0], [place], xerr=[impact.width], fmt="o", color="black", markersize=3)


def _bars(axes: Axes, place: int, impact: Impact) -> None:
    for after, before, color in ((impact.up, impact.prefit_up, UP), (impact.down, impact.prefit_down, DOWN)):
        axes.barh([place], [after], height=0.7, color=color)
        if np.isfinite(before):
            axes.barh([place], [before], height=0.7, facecolor="none", edgecolor="black", linewidth=0.7)


OVER_CONSTRAINED = 0.2
"""Of the width before the fit."""


def _over_constrained(impacts: Sequence[Impact]) -> str:
    """A sentence for parameters that the expected data know far better than those who stated them."""
    narrow = [
        f"{each.parameter} ({each.width:.2f})" for each in impacts if each.constrained and each.width < OVER_CONSTRAINED
    ]
    if not narrow:
        return ""
    return (
        f" The fit constrains {', '.join(narrow)} to less than a fifth of the stated uncertainty. It trusts that this "
        "one shape, times one number, is all that may be wrong: split the uncertainty by region or process, and see "
        "whether the result stays."
    )
