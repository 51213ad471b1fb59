"""What limits the measurement: the impacts of the nuisance parameters."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.analysis import numbers_of
from pipeline.events.cuts import arrays
from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation import diagnostics
from pipeline.validation.diagnostics import Impact

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture | None:
    """At the optimised cuts; None without nuisance parameters."""
    problem = scene.problem
    numbers = numbers_of(problem.analysis, arrays(scene.outcome.after), problem.validation)
    impacts = diagnostics.impacts(problem.analysis.structure, numbers)
    if not impacts:
        return None
    return Picture(
        "impacts",
        "What limits the measurement",
        "Left: by how much the measured signal strength μ is expected to move if a nuisance parameter is one "
        "standard deviation (after the fit) higher. Right: that standard deviation relative to the one before the "
        "fit; shorter than the grey band means that the data themselves constrain the parameter. 'MC stat.' are the "
        "errors of single bins by the finite number of simulated events. Gaussian approximation, Asimov data."
        + _over_constrained(impacts),
        draw(impacts, "μ", scene.source),
    )


def draw(impacts: Sequence[Impact], symbol: str, source: str, shown: int = 16) -> Figure:
    """The largest impacts on the signal strength, and how much the expected data constrain each parameter."""
    rows = list(impacts[:shown])
    figure, ((left, right),) = look.panels(1, 2, width=3.6, height=0.8 + 0.27 * len(rows))
    places = np.arange(len(rows))[::-1]
    colors = [look.COLORS[2] if impact.shift > 0 else look.COLORS[0] for impact in rows]
    left.barh(places, [impact.shift for impact in rows], color=colors)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(places, [_readable(impact.parameter) for impact in rows], fontsize=8)
    left.set_xlabel(f"shift of {symbol} by +1σ")
    widths = [impact.width for impact in rows]
    right.errorbar(np.zeros(len(rows)), places, xerr=widths, fmt="o", color="black", markersize=3)
    right.axvspan(-1, 1, color=look.COLORS[4], alpha=0.25, linewidth=0)
    right.set_yticks(places, [""] * len(rows))
    right.set_xlim(-1.5, 1.5)
    right.set_xlabel("σ after / σ before the fit")
    for axes in (left, right):
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_ylim(-0.7, len(rows) - 0.3)
    look.title(left, "Asimov data", source)
    return figure


OVER_CONSTRAINED = 0.2
"""Of the width before the fit."""


def _over_constrained(impacts: Sequence[Impact]) -> str:
    """A sentence for parameters that the expected data know far better than those who stated them."""
    narrow = [f"{impact.parameter} ({impact.width:.2f})" for impact in impacts if impact.width < OVER_CONSTRAINED]
    if not narrow:
        return ""
    return (
        f" The fit constrains {', '.join(narrow)} to less than a fifth of the stated uncertainty. It trusts that this "
        "one shape, times one number, is all that may be wrong: split the uncertainty by region or process, and see "
        "whether the result stays."
    )


def _readable(parameter: str) -> str:
    """`staterror_4j1b-CR[2]` says little: the error by the finite number of simulated events in the third bin."""
    match = re.fullmatch(r"staterror_(.*)\[(\d+)\]", parameter)
    return f"MC stat. {match[1]}, bin {int(match[2]) + 1}" if match else parameter
