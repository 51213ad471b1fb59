"""What each cut cuts: the distribution of its variable after all other cuts (N − 1; `pipeline.population`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.event_data import parts_of
from pipeline.events.cuts import EVENT, Cut
from pipeline.population import divided_by, nominal_scales, opened
from pipeline.problem import Problem
from pipeline.validation.regions import Values

__all__ = ["Distribution", "distributions", "histogram_at_cut"]

BINS = 40


@dataclass(frozen=True)
class Distribution:
    """What one cut cuts: expected numbers of what is `counted`, shape "processes bins"."""

    cut: str
    counted: Literal["objects", "events"]
    processes: tuple[str, ...]
    edges: Values
    values: Values
    before: float
    after: float
    bandwidth: float


def distributions(
    problem: Problem, before: Mapping[str, float], after: Mapping[str, float], bandwidths: Mapping[str, float]
) -> tuple[Distribution, ...]:
    """For each trainable cut, what it cuts of the validation events, all others as they are `after`.

    Args:
        problem: its validation events are looked at.
        before: all thresholds.
        after: all thresholds.
        bandwidths: of the trainable cuts.
    """
    config = problem.config
    shown = []
    for cut in problem.analysis.selection.cuts:
        settings = config.cuts[cut.name]
        if not settings.trainable or settings.bounds is None:
            continue
        margin = settings.bandwidth or 0.0
        edges = np.linspace(settings.bounds[0] - margin, settings.bounds[1] + margin, BINS + 1)
        of_events = EVENT in cut.objects
        values = histogram_at_cut(problem, cut, opened(config, after, [cut.name]), edges)
        shown += [
            Distribution(
                cut=side.threshold,
                counted="events" if of_events else "objects",
                processes=problem.analysis.measurement.processes,
                edges=edges,
                values=values,
                before=before[side.threshold],
                after=after[side.threshold],
                bandwidth=bandwidths[side.threshold],
            )
            for side in cut.sides
        ]
    return tuple(shown)


def histogram_at_cut(problem: Problem, cut: Cut, thresholds: Mapping[str, float], edges: Values) -> Values:
    """Expected numbers of what a cut divides, at thresholds with this cut open, shape "processes bins"."""
    scales = nominal_scales(problem.validation)
    counts = np.zeros((scales.shape[1], len(edges) - 1))
    for part in parts_of(problem.validation):
        divided = divided_by(problem.analysis, part, cut, thresholds)
        for dataset in np.flatnonzero(scales.any(axis=0)):
            own = divided.dataset == dataset
            weights = divided.weight[own].astype(np.float64)
            counts[dataset] += np.histogram(divided.values[own], edges, weights=weights)[0]
    return np.asarray(scales @ counts)
