"""What each cut cuts: the distribution of its variable after all other cuts (N − 1).

The exact analysis says which events are selected once the cut is open (`pipeline.validation.cutflow`). For a cut on
events these are what is counted; for a cut on objects it is the objects in them that pass all other cuts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from pipeline.analysis import Data
from pipeline.events.batch import EventGroup
from pipeline.events.cuts import Cut, Selection, Thresholds, arrays, passes, present
from pipeline.events.table import list_events
from pipeline.problem import Problem
from pipeline.validation.cutflow import nominal_scales, opened
from pipeline.validation.regions import Values

__all__ = ["Distribution", "distributions", "histogram_of_events", "histogram_of_objects"]

BINS = 40
COLLECTIONS = {"electron": "electrons", "muon": "muons", "jet": "jets", "bjet": "jets"}
SETS = {"electron": ("electron",), "muon": ("muon",), "jet": ("jet",), "bjet": ("jet", "bjet")}
"""What an object must be to count: a b-tag is within the selected jets."""


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
        of_events = cut.objects == ("event",)
        histogram = histogram_of_events if of_events else histogram_of_objects
        shown.append(
            Distribution(
                cut=cut.name,
                counted="events" if of_events else "objects",
                processes=problem.analysis.measurement.processes,
                edges=edges,
                values=histogram(problem, cut, opened(config, after, [cut.name]), edges),
                before=before[cut.name],
                after=after[cut.name],
                bandwidth=bandwidths[cut.name],
            )
        )
    return tuple(shown)


def histogram_of_events(problem: Problem, cut: Cut, thresholds: Mapping[str, float], edges: Values) -> Values:
    """Of the cut's variable, put in the place of the observable."""
    analysis, data = problem.analysis, problem.validation
    regions = analysis.selection.regions
    observed = tuple(replace(region, observable=cut.variable) for region in regions)
    selection = replace(analysis.selection, regions=observed)
    events = list_events(analysis._replace(selection=selection), arrays(thresholds), data)
    concerned = [number for number, region in enumerate(regions) if cut.regions is None or region.name in cut.regions]
    selected = (events.kinematic == 0) & np.isin(events.region, concerned) & ~np.isnan(events.observable)
    values = np.abs(events.observable) if cut.absolute else events.observable
    return _histogram(data, edges, values[selected], events.dataset[selected], events.columns[0, selected])


def histogram_of_objects(problem: Problem, cut: Cut, thresholds: Mapping[str, float], edges: Values) -> Values:
    """Of the objects that pass all other cuts, in the selected events."""
    analysis, data = problem.analysis, problem.validation
    events, at = list_events(analysis, arrays(thresholds), data), arrays(thresholds)
    selected = np.zeros((data.recipe.yields.shape[3], int(events.index.max(initial=0)) + 1), bool)
    chosen = (events.kinematic == 0) & (events.region >= 0)
    selected[events.dataset[chosen], events.index[chosen]] = True
    counts = np.zeros((data.recipe.yields.shape[1], len(edges) - 1))
    for group in data.groups:
        dataset, index = np.asarray(group.dataset)[:, None], np.asarray(group.index)
        inside = (selected[dataset, index] & (index >= 0))[:, None]
        for kind in cut.objects:
            columns = _columns(group, kind)
            counted = inside & np.asarray(_passing(analysis.selection, at, kind, columns))
            values = np.asarray(jnp.abs(columns[cut.variable]) if cut.absolute else columns[cut.variable])
            datasets, weights = (
                np.broadcast_to(table[:, None], counted.shape) for table in (dataset, np.asarray(group.weight))
            )
            counts += _histogram(data, edges, values[counted], datasets[counted], weights[counted])
    return counts


def _columns(group: EventGroup, kind: str) -> dict[str, Float32[jnp.ndarray, "chunks objects events"]]:
    """The nominal columns of one kind of objects."""
    columns = dict(getattr(group, COLLECTIONS[kind]))
    return columns | {"pt": group.jet_pt[0]} if COLLECTIONS[kind] == "jets" else columns


def _passing(
    selection: Selection, thresholds: Thresholds, kind: str, columns: dict[str, Float32[jnp.ndarray, "c o e"]]
) -> Bool[jnp.ndarray, "c o e"]:
    passing = present(columns)
    for name in SETS[kind]:
        for passed in passes(selection.on(name), thresholds, columns).values():
            passing &= passed
    return passing


def _histogram(data: Data, edges: Values, values: np.ndarray, datasets: np.ndarray, weights: np.ndarray) -> Values:
    """Expected numbers, for each process."""
    scales = nominal_scales(data)
    counts = np.zeros((scales.shape[1], len(edges) - 1))
    for dataset in np.flatnonzero(scales.any(axis=0)):
        of_dataset = datasets == dataset
        counts[dataset] = np.histogram(values[of_dataset], edges, weights=weights[of_dataset].astype(np.float64))[0]
    return np.asarray(scales @ counts)
