"""The figure of merit around the optimum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation import diagnostics
from pipeline.validation.diagnostics import Profile

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture:
    """Along every threshold that is tuned."""
    profiles = diagnostics.profile(scene.problem, scene.outcome.best_step)
    return Picture(
        "profiles",
        "Around the optimum",
        f"{scene.symbol} when one threshold moves and the others stay. Circles: training events; squares: events "
        "that the optimiser has not seen. If both curves have their best point at the same place, the optimum is a "
        "property of the physics; if only the circles do, it is one of the sample. The line without marks is the "
        "tangent that the gradient predicts from a single evaluation at the optimum, the band its statistical error; "
        "its slope is averaged over a window of one bandwidth, so it does not follow single jumps. All panels have one "
        "scale.",
        draw(profiles, scene.labels, scene.symbol, scene.source),
    )


def draw(profiles: Sequence[Profile], labels: Mapping[str, str], symbol: str, source: str) -> Figure:
    """The exact figure of merit along each threshold, and the tangent at the optimum that the gradient predicts."""
    figure, panels = look.in_rows(len(profiles), width=3.6)
    small: Any = {"markersize": 3}
    for axes, profile in zip(panels, profiles, strict=True):
        for values, style, color, events in (
            (profile.training, "o-", look.TRAINING, "training"),
            (profile.validation, "s--", look.VALIDATION, "validation"),
        ):
            axes.plot(profile.thresholds, values, style, color=color, label=f"{events} events, exact", **small)
        limits = axes.get_ylim()
        around = profile.optimum + np.array([-1.5, 1.5]) * profile.bandwidth
        reach = np.clip(around, profile.thresholds[0], profile.thresholds[-1]) - profile.optimum
        tangent = profile.value + profile.slope * reach
        axes.plot(profile.optimum + reach, tangent, color="black", label="tangent by the gradient")
        places = np.linspace(reach[0], reach[-1], 21)
        middle, spread = profile.value + profile.slope * places, profile.error * np.abs(places)
        axes.fill_between(profile.optimum + places, middle - spread, middle + spread, color="black", alpha=0.15, lw=0)
        axes.axvline(profile.optimum, color="black", linestyle=":", linewidth=1)
        axes.set_ylim(limits)
        axes.set_xlabel(labels[profile.cut])
        axes.set_ylabel(symbol if profile is profiles[0] else "")
    lowest, highest = (pick(axes.get_ylim()[end] for axes in panels) for end, pick in ((0, min), (1, max)))
    for axes in panels:
        axes.set_ylim(lowest, highest)
    look.title(panels[0], "one threshold moves", source, narrow=True)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, 1 + len(profiles)))
    return figure
