"""Which cut does it: what the gain would lose if one of them had stayed where it started."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline import analysis as exact
from pipeline.event_data import Data, Stream
from pipeline.events.cuts import Thresholds, arrays
from pipeline.problem import Problem
from pipeline.validation.bootstrap import bootstrap
from pipeline.validation.comparison import Estimate

__all__ = ["importance"]

REPLICAS = 20
"""Of the bootstrap, at most: the error of an error of 16 % is enough here, and there are many cuts."""


def importance(problem: Problem, after: Mapping[str, Any], seed: int) -> dict[str, Estimate]:
    """How much of the gain on validation events goes if one cut stays at its default, and the others where they are.

    Cuts work together, so these do not add up to the gain. The edges of a region keep an order, and go back together.

    Args:
        problem: what was tuned.
        after: all parameters at the best step.
        seed: of the bootstrap.

    Returns:
        by the name of each threshold that moved, and of each region of which edges did. In units of the figure of
        merit; positive where the cut helps, with the bootstrap error. NaN where the fit without it did not converge.
    """
    groups = _moved(problem, after)
    if not groups:
        return {}
    points = [arrays(after)] + [
        arrays(dict(after) | {name: problem.defaults[name] for name in names}) for names in groups.values()
    ]
    sign = 1 if problem.analysis.objective.larger_is_better else -1

    def value(thresholds: Thresholds, data: Data | Stream) -> float:
        merit = exact.merit_of(problem.analysis, thresholds, data)
        return sign * float(merit.value) if bool(merit.converged) else np.nan

    values = np.array([value(point, problem.validation) for point in points])
    replicas = min(problem.config.validation.bootstrap, REPLICAS)
    spread = bootstrap(value, points, problem.validation, replicas, seed)
    errors = np.std(spread[:, :1] - spread[:, 1:], axis=0, ddof=1)
    lost = values[0] - values[1:]
    return {name: Estimate(float(size), float(error)) for name, size, error in zip(groups, lost, errors, strict=True)}


def _moved(problem: Problem, after: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The thresholds that moved; those of the edges of a region as one group."""
    edges = {region.name: region.edges for region in problem.analysis.selection.regions if region.edges}
    grouped = {name for names in edges.values() for name in names}
    alone = {name: (name,) for name in problem.config.thresholds if name not in grouped}
    return {
        name: names
        for name, names in (alone | edges).items()
        if any(float(after[each]) != float(problem.defaults[each]) for each in names)
    }
