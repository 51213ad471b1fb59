"""What each cut cuts: its variable after all other cuts."""

from collections.abc import Mapping, Sequence

import mplhep
from matplotlib.figure import Figure

from pipeline.report.pictures import look
from pipeline.report.pictures.scene import Picture, Scene
from pipeline.validation.distributions import Distribution, distributions

__all__ = ["draw", "picture"]


def picture(scene: Scene) -> Picture | None:
    """Of validation events; None where only bin edges are tuned."""
    outcome = scene.outcome
    shown = distributions(scene.problem, outcome.before, outcome.after, outcome.best_step.bandwidths)
    if not shown:
        return None
    return Picture(
        "distributions",
        "What each cut cuts",
        "Objects that pass all other cuts, in events that are selected without this cut; for a cut on the event, these "
        "events. Dashed: the default cut; full line: the optimised cut. The grey window is the bandwidth: the objects "
        "in it, near the boundary, are those from which the gradient is measured. Few objects in it mean a noisy "
        "gradient.",
        draw(shown, scene.labels, scene.source),
    )


def draw(shown: Sequence[Distribution], labels: Mapping[str, str], source: str) -> Figure:
    """Objects that pass all but one cut; the cut before and after, and the window in which its gradient is measured."""
    figure, panels = look.in_rows(len(shown), width=3.8)
    for axes, distribution in zip(panels, shown, strict=True):
        mplhep.histplot(
            list(distribution.values),
            bins=distribution.edges,
            stack=True,
            histtype="fill",
            color=look.colors(len(distribution.processes)),
            label=list(distribution.processes),
            ax=axes,
            flow="none",
        )
        window = (distribution.after - distribution.bandwidth, distribution.after + distribution.bandwidth)
        axes.axvspan(*window, color="black", alpha=0.15, linewidth=0, label="bandwidth")
        axes.axvline(distribution.before, color="black", linestyle="--", label="default cut")
        axes.axvline(distribution.after, color="black", label="optimised cut")
        axes.set_xlabel(labels[distribution.cut])
        axes.set_ylabel(f"expected {distribution.counted}", fontsize=9)
        if not distribution.values.any():
            axes.text(0.5, 0.5, "none passes all other cuts", transform=axes.transAxes, ha="center", fontsize=9)
            axes.set_yticks([])
        axes.set_xlim(distribution.edges[0], distribution.edges[-1])
    look.title(panels[0], "all other cuts applied", source, narrow=True)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure
