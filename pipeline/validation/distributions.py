"""What each cut cuts: the distribution of its variable after all other cuts (N − 1).

The exact analysis says which events are selected once the cut is open (`pipeline.validation.cutflow`). For a cut on
events these are what is counted; for a cut on objects it is the objects in them that pass all other cuts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.analysis import Data
from pipeline.events.cuts import EVENT, Cut, arrays
from pipeline.events.table import list_events, list_objects
from pipeline.problem import Problem
from pipeline.validation.cutflow import nominal_scales, opened
from pipeline.validation.regions import Values

__all__ = ["Distribution", "distributions", "histogram_of_events", "histogram_of_objects"]

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
        histogram = histogram_of_events if of_events else histogram_of_objects
        values = histogram(problem, cut, opened(config, after, [cut.name]), edges)
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


def histogram_of_events(problem: Problem, cut: Cut, thresholds: Mapping[str, float], edges: Values) -> Values:
    """Of the cut's variable, put in the place of the observable."""
    analysis, data = problem.analysis, problem.validation
    regions = analysis.selection.regions
    observed = tuple(replace(region, observable=cut.variable) for region in regions)
    selection = replace(analysis.selection, regions=observed)
    observing = analysis.events._replace(selection=selection)
    events = list_events(observing, arrays(thresholds), data.events)
    concerned = [number for number, region in enumerate(regions) if cut.regions is None or region.name in cut.regions]
    selected = (events.kinematic == 0) & np.isin(events.region, concerned) & ~np.isnan(events.observable)
    values = np.abs(events.observable) if cut.absolute else events.observable
    return _histogram(data, edges, values[selected], events.dataset[selected], events.columns[0, selected])


def histogram_of_objects(problem: Problem, cut: Cut, thresholds: Mapping[str, float], edges: Values) -> Values:
    """Of the objects that pass all other cuts, in the selected events."""
    data = problem.validation
    counts = np.zeros((data.recipe.yields.shape[1], len(edges) - 1))
    for name in cut.objects:
        objects = list_objects(problem.analysis.events, arrays(thresholds), data.events, name, cut.variable)
        chosen = objects.region >= 0
        values = np.abs(objects.value) if cut.absolute else objects.value
        counts += _histogram(data, edges, values[chosen], objects.dataset[chosen], objects.weight[chosen])
    return counts


def _histogram(data: Data, edges: Values, values: np.ndarray, datasets: np.ndarray, weights: np.ndarray) -> Values:
    """Expected numbers, for each process."""
    scales = nominal_scales(data)
    counts = np.zeros((scales.shape[1], len(edges) - 1))
    for dataset in np.flatnonzero(scales.any(axis=0)):
        of_dataset = datasets == dataset
        counts[dataset] = np.histogram(values[of_dataset], edges, weights=weights[of_dataset].astype(np.float64))[0]
    return np.asarray(scales @ counts)
