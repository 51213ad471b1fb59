"""What a report shows beyond the result, as plain NumPy arrays: profiles, and what pulls at each cut.

Everything here is computed after the optimisation, from its final thresholds, by the functions that the optimiser and
the comparison called: they are compiled already, so a look costs an evaluation. Nothing here changes a result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, loss_of_yields_and_slope, merit_of, yields_and_flux_at
from pipeline.event_data import Data, Stream
from pipeline.events.cuts import arrays
from pipeline.problem import Problem
from pipeline.tuning.steps import Step
from pipeline.validation.regions import Values

__all__ = [
    "Contour",
    "Contributions",
    "Path",
    "Profile",
    "contour",
    "contributions",
    "path",
    "profile",
]


@dataclass(frozen=True)
class Path:
    """The way of the optimiser.

    Attributes:
        symbol: of the figure of merit.
        training: the exact figure of merit at every step.
        stopping: likewise on the events that decide when to stop; None without such events.
        validation: places of some steps, and the figure of merit there on events that the optimiser has not seen.
        thresholds: the trainable ones, at every step.
        certain: at which steps the derivative by each is not compatible with zero.
        starts: places of the first step of each start.
        best: the place of the step whose thresholds are kept.
    """

    symbol: str
    training: Values
    stopping: Values | None
    validation: tuple[NDArray[np.int64], Values]
    thresholds: Mapping[str, Values]
    certain: Mapping[str, NDArray[np.bool_]]
    starts: tuple[int, ...]
    best: int


@dataclass(frozen=True)
class Profile:
    """The exact figure of merit along one threshold, the others at their optimum.

    `slope` is the derivative at `optimum` on the training events that the boundary flux of `bandwidth` predicts, and
    `error` its statistical error. Fits that did not converge are NaN.
    """

    cut: str
    thresholds: Values
    training: Values
    validation: Values
    optimum: float
    value: float
    slope: float
    error: float
    bandwidth: float


@dataclass(frozen=True)
class Contributions:
    """Which bins push a cut: change of the figure of merit by one `step` of the cut, shape "processes bins".

    The sum over everything is the derivative times the step. Alternative samples count with their process.
    """

    cut: str
    step: float
    values: Values


@dataclass(frozen=True)
class Contour:
    """The exact figure of merit over two thresholds, shape "second first", the others at their optimum."""

    cuts: tuple[str, str]
    first: Values
    second: Values
    values: Values


def profile(problem: Problem, best: Step, points: int = 9) -> tuple[Profile, ...]:
    """The exact figure of merit along each trainable threshold around the optimum, and the tangent there.

    Args:
        problem: a profile spans three starting bandwidths to either side, within the cut's bounds.
        best: the step at the optimum.
        points: evaluations a cut, on either part of the events.
    """
    config, analysis = problem.config, problem.analysis
    optimum = problem.defaults | best.thresholds
    profiles = []
    for name, bandwidth in best.bandwidths.items():
        cut = config.thresholds[name]
        grid = around(optimum[name], 3 * (cut.bandwidth or bandwidth), cut.bounds, points)
        training, validation = (
            np.array([_merit(analysis, data, {**optimum, name: float(value)}) for value in grid])
            for data in (problem.training, problem.validation)
        )
        profiles.append(
            Profile(
                cut=name,
                thresholds=grid,
                training=training,
                validation=validation,
                optimum=optimum[name],
                value=float(best.merit.value),
                slope=_sign(analysis) * best.gradient[name],
                error=best.error[name],
                bandwidth=bandwidth,
            )
        )
    return tuple(profiles)


def path(problem: Problem, steps: Sequence[Step], symbol: str, points: int = 20) -> Path:
    """The way of the optimiser, with the figure of merit on events that it has not seen at up to so many steps."""
    config = problem.config
    trained = list(steps[0].thresholds)
    best = next(place for place, step in enumerate(steps) if step.number == steps[-1].best_number)
    seen = np.unique(np.append(np.linspace(0, len(steps) - 1, min(points, len(steps))).astype(np.int64), best))
    unseen = [_unseen(problem, steps[place]) for place in seen]
    stopping = None
    if config.optimiser.patience is not None:
        stopping = _sign(problem.analysis) * np.array([step.monitored for step in steps])
    least = config.optimiser.significance
    return Path(
        symbol=symbol,
        training=np.array([float(step.merit.value) for step in steps]),
        stopping=stopping,
        validation=(seen, np.array(unseen)),
        thresholds={name: np.array([step.thresholds[name] for step in steps]) for name in trained},
        certain={
            name: np.array([abs(step.gradient[name]) > least * step.error[name] for step in steps]) for name in trained
        },
        starts=tuple(
            np.unique([config.optimiser.start_of(step.number) for step in steps], return_index=True)[1].tolist()
        ),
        best=best,
    )


def _unseen(problem: Problem, step: Step) -> float:
    """The figure of merit on validation events; NaN where a network was trained, and the step was interrupted since."""
    if step.networks is None and any(each.trainable for each in problem.config.observables.values()):
        return float("nan")
    return _merit(problem.analysis, problem.validation, problem.defaults | step.thresholds | (step.networks or {}))


def contributions(problem: Problem, step: Step) -> tuple[Contributions, ...]:
    """The gradient of a step taken apart: Σ ∂(figure of merit)/∂yield · ∂yield/∂threshold, by process and bin."""
    config, analysis, data = problem.config, problem.analysis, problem.training
    thresholds, bandwidths = arrays(problem.defaults | step.thresholds), arrays(step.bandwidths)
    yields, flux, _ = yields_and_flux_at(analysis, thresholds, bandwidths, data)
    _, slope = loss_of_yields_and_slope(yields, analysis, data.recipe)
    # Columns of the recipe say which process a data set belongs to: its templates use no other.
    uses = (np.abs(np.asarray(data.recipe.yields)).sum(axis=(0, 2, 4)) > 0).astype(np.float64)
    parts = []
    for name in bandwidths:
        by_dataset = np.einsum("kdbc,nkdsbc->db", np.asarray(slope), np.asarray(flux[name]))
        length = config.thresholds[name].typical_step
        parts.append(Contributions(name, length, _sign(analysis) * length * (uses @ by_dataset)))
    return tuple(parts)


def contour(
    problem: Problem, optimum: Mapping[str, float], path: Sequence[Mapping[str, float]], points: int = 9
) -> Contour | None:
    """The exact figure of merit over the two thresholds that moved farthest, in their steps; None with a single cut.

    The grid covers the path of the optimisation, with a margin of a bandwidth.
    """
    config = problem.config
    trained = list(path[0])
    if len(trained) < 2:
        return None

    def travelled(name: str) -> float:
        values = [position[name] for position in path]
        return (max(values) - min(values)) / config.thresholds[name].typical_step

    first, second = sorted(sorted(trained, key=travelled)[-2:], key=trained.index)
    grids = []
    for name in (first, second):
        cut, values = config.thresholds[name], [optimum[name], *(position[name] for position in path)]
        margin, bounds = cut.bandwidth or 0.0, cut.bounds or (-np.inf, np.inf)
        grids.append(np.linspace(max(min(values) - margin, bounds[0]), min(max(values) + margin, bounds[1]), points))
    heights = [
        [_merit(problem.analysis, problem.training, {**optimum, first: float(x), second: float(y)}) for x in grids[0]]
        for y in grids[1]
    ]
    return Contour((first, second), grids[0], grids[1], np.array(heights))


def around(center: float, reach: float, bounds: tuple[float, float] | None, points: int) -> Values:
    """Values to either side of a center, within bounds; the center takes the place of one that is too near to it."""
    low, high = (
        (center - reach, center + reach)
        if bounds is None
        else (
            max(center - reach, bounds[0]),
            min(center + reach, bounds[1]),
        )
    )
    grid = np.linspace(low, high, points - 1)
    distant = grid[np.abs(grid - center) > 0.3 * (grid[1] - grid[0])]
    return np.sort(np.append(distant, center))


def _merit(analysis: Analysis, data: Data | Stream, thresholds: Mapping[str, Any]) -> float:
    merit = merit_of(analysis, arrays(thresholds), data)
    return float(merit.value) if bool(merit.converged) else float("nan")


def _sign(analysis: Analysis) -> int:
    """The loss is minus what is to be large."""
    return -1 if analysis.objective.larger_is_better else 1
