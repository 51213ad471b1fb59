"""Which pictures a run shows, in the order of the story, each with a caption for someone new to such plots.

A picture must never cost a result: one that cannot be made becomes a warning, and the others are still there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.report import cutflow, plots
from pipeline.report.attempt import attempt
from pipeline.tuning.descent import Step
from pipeline.validation import diagnostics
from pipeline.validation.diagnostics import Region

__all__ = ["Picture", "Scene", "pictures"]

LARGEST = 8
"""Thresholds whose gradient is shown bin by bin."""


@dataclass(frozen=True)
class Picture:
    """A figure and what to see in it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Scene:
    """What the pictures are of: a problem, the cuts before and after, and the steps between."""

    problem: Any
    before: Mapping[str, float]
    after: Mapping[str, float]
    steps: tuple[Step, ...]
    workspace: Mapping[str, Any]
    symbol: str
    source: str

    @property
    def config(self) -> Config:
        """The run."""
        config: Config = self.problem.config
        return config

    @property
    def labels(self) -> dict[str, str]:
        """Names of the thresholds for an axis, with their units."""
        return {
            name: (one.label or name) + (f" [{one.unit}]" if one.unit else "")
            for name, one in self.config.thresholds.items()
        }

    @cached_property
    def regions_before(self) -> tuple[Region, ...]:
        """Templates of the validation events at the default cuts."""
        return self._regions(self.before)

    @cached_property
    def regions_after(self) -> tuple[Region, ...]:
        """Templates of the validation events at the optimised cuts."""
        return self._regions(self.after)

    def _regions(self, thresholds: Mapping[str, float]) -> tuple[Region, ...]:
        problem = self.problem
        return diagnostics.regions(problem.config, problem.analysis, problem.validation, thresholds)


def pictures(scene: Scene, warn: Callable[[str], None]) -> Iterator[Picture]:
    """All pictures that can be made; `warn` gets a sentence for each that cannot."""
    # A server has no screen, and a run needs none.
    mpl.use("agg")
    for make in (
        _templates,
        _history,
        _profiles,
        _gradients,
        _contour,
        _distributions,
        _cut_flow,
        _systematics,
        _impacts,
    ):
        name = make.__name__.removeprefix("_")
        picture = None
        with attempt(f"the picture '{name}'", warn), plots.style(name):
            picture = make(scene)
        if picture is not None:
            yield picture


def _templates(scene: Scene) -> Picture:
    return Picture(
        "templates",
        "What the fit sees",
        "Expected events in each bin, all processes on top of each other, on events that the optimiser has not "
        "seen. Left: default cuts; right: optimised cuts. The hatched band is the total error before any fit: "
        "every systematic uncertainty and the finite number of simulated events in quadrature. The grey band is the "
        "latter alone: where it is wide, too few events were simulated to know the bin well. An arrow marks a bin "
        "that the fit merges with its neighbour for this reason. Below: the same bands, relative to the total.",
        plots.templates(scene.regions_before, scene.regions_after, scene.source),
    )


def _history(scene: Scene) -> Picture:
    problem = scene.problem
    found = diagnostics.path(problem.config, problem.analysis, problem.validation, scene.steps, scene.symbol)
    bounds = {name: one.bounds for name, one in scene.config.thresholds.items() if one.bounds is not None}
    return Picture(
        "history",
        "The way of the optimiser",
        f"{scene.symbol} of the exact analysis, with hard cuts, after every step, and the thresholds it was computed "
        "at. It need not improve at each step: a hard cut moves single events in and out of bins, so the value has "
        "small jumps. What counts is the best step (dotted line), not the last one. Squares: events that the optimiser "
        "has not seen; where the curves part, it learns the sample, not the physics. At an open circle the derivative "
        "by the threshold is compatible with zero, within its statistical error, and counts as zero; if the threshold "
        "moves on, it is the momentum of the optimiser. Dashed lines are bounds of a threshold."
        + (" The curves begin anew at each start." if len(found.starts) > 1 else ""),
        plots.history(found, scene.labels, bounds, scene.source),
    )


def _profiles(scene: Scene) -> Picture:
    problem = scene.problem
    found = diagnostics.profile(problem.config, problem.analysis, problem.training, problem.validation, scene.after)
    return Picture(
        "profiles",
        "Around the optimum",
        f"{scene.symbol} when one threshold moves and the others stay. Circles: training events; squares: events "
        "that the optimiser has not seen. If both curves have their best point at the same place, the optimum is a "
        "property of the physics; if only the circles do, it is one of the sample. The line without marks is the "
        "tangent that the gradient predicts from a single evaluation at the optimum; its slope is averaged over a "
        "window of one bandwidth, so it does not follow single jumps.",
        plots.profiles(found, scene.labels, scene.symbol, scene.source),
    )


def _gradients(scene: Scene) -> Picture:
    problem = scene.problem
    found = diagnostics.contributions(problem.config, problem.analysis, problem.training, scene.after)
    largest = sorted(found, key=lambda one: -np.abs(one.values).sum())[:LARGEST]
    shown = [one for one in found if any(one is other for other in largest)]
    return Picture(
        "gradients",
        "Which bins push which cut",
        f"The gradient at the optimum, taken apart: by how much {scene.symbol} would change through each bin and "
        "process if one cut were raised by the stated step. Events that cross the boundary of the cut enter or "
        "leave a bin, and each bin matters to the result in its own way. At an optimum the sums Σ of a row, over all "
        "regions, add up to about zero."
        + (f" Shown are the {LARGEST} of {len(found)} thresholds that matter most." if len(found) > LARGEST else ""),
        plots.gradients(shown, scene.regions_after, scene.labels, scene.symbol, scene.source),
    )


def _best_start(scene: Scene) -> list[Step]:
    """The steps of the start that led to the thresholds that were kept."""
    length, best = scene.config.optimiser.steps, scene.steps[-1].best
    start = next(step.number // length for step in scene.steps if step.thresholds == best)
    return [step for step in scene.steps if step.number // length == start]


def _contour(scene: Scene) -> Picture | None:
    problem, path = scene.problem, [step.thresholds for step in _best_start(scene)]
    found = diagnostics.contour(problem.config, problem.analysis, problem.training, scene.after, path)
    if found is None:
        return None
    return Picture(
        "contour",
        "The landscape and the path",
        f"{scene.symbol} of the exact analysis over the two thresholds that moved most, the others at their optimum. "
        "White: the steps of the optimiser. Along the path the other thresholds were still moving, so heights apply "
        "to its end. The map needs an evaluation for every point of a grid; the path needed one for every step, "
        "however many cuts there are.",
        plots.contour(found, path, scene.after, scene.labels, scene.symbol, scene.source),
    )


def _distributions(scene: Scene) -> Picture | None:
    problem = scene.problem
    found = cutflow.distributions(problem.config, problem.analysis, problem.validation, scene.before, scene.after)
    if not found:
        return None
    return Picture(
        "distributions",
        "What each cut cuts",
        "Electrons, muons or jets that pass all other cuts, in events that are selected if the object is accepted; for "
        "a cut on the event, events that pass all other cuts. "
        "Dashed: the default cut; full line: the optimised one. The grey window is the bandwidth: the objects in "
        "it, near the boundary, are those from which the gradient is measured. Few objects in it mean a noisy "
        "gradient.",
        plots.distributions(found, scene.labels, scene.source),
    )


def _cut_flow(scene: Scene) -> Picture:
    problem = scene.problem
    before, after = (
        cutflow.cut_flow(problem.config, problem.analysis, problem.validation, cuts, regions)
        for cuts, regions in ((scene.before, scene.regions_before), (scene.after, scene.regions_after))
    )
    return Picture(
        "cut_flow",
        "Cut-flow",
        "Expected events of each process that are left after each requirement. Right of the dotted line: in the "
        "histograms of the regions, which have no event in common. 'All read' already has the loosest cuts that any "
        "step of the optimisation may ask for. Open and dashed: default cuts; full: optimised cuts.",
        plots.cut_flow(before, after, scene.source),
    )


def _systematics(scene: Scene) -> Picture | None:
    if not scene.problem.analysis.measurement.nuisances:
        return None
    return Picture(
        "systematics",
        "Systematic uncertainties",
        "The sum of all processes with one uncertainty moved by one standard deviation up or down, divided by the "
        "nominal sum, at the optimised cuts. Each one becomes a nuisance parameter of the fit. Variations smaller "
        "than the grey band cannot be told from the statistical noise of the simulated sample.",
        plots.systematics(scene.regions_after, scene.source),
    )


def _impacts(scene: Scene) -> Picture | None:
    found = diagnostics.impacts(scene.workspace)
    if not found:
        return None
    return Picture(
        "impacts",
        "What limits the measurement",
        "Left: by how much the measured signal strength μ is expected to move if a nuisance parameter is one "
        "standard deviation (after the fit) higher. Right: that standard deviation relative to the one before the "
        "fit; shorter than the grey band means that the data themselves constrain the parameter. 'MC stat.' are the "
        "errors of single bins by the finite number of simulated events. Gaussian approximation, Asimov data.",
        plots.impacts(found, "μ", scene.source),
    )
