"""Events that are left, cut after cut."""

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
        "optimisation may ask for. Open and dashed: default cuts; full: optimised cuts.",
        draw(before, after, scene.source),
    )


def draw(before: CutFlow, after: CutFlow, source: str) -> Figure:
    """Expected events of each process after each step, before (open) and after (filled)."""
    figure, ((axes,),) = look.panels(1, 1, width=1.6 * look.COLUMN)
    colors = look.colors(len(after.processes))
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
    axes.tick_params(axis="x", rotation=45 if len(after.steps) > 5 else 0)
    axes.set_ylabel("expected events")
    figure.legend(loc="outside lower center", ncols=3)
    look.title(axes, "open and dashed: default cuts", source)
    return figure
