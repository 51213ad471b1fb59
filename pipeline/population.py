"""The objects and events that a threshold divides: those that all other cuts leave (N − 1), with their variable.

The exact analysis says which events are selected once a cut is open. For a cut on events these are what it divides; for
a cut on objects it is the objects in them that pass all other cuts; for an edge it is the events of its region.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis
from pipeline.config import Config
from pipeline.config.selection import Cut as CutSettings
from pipeline.event_data import Data, Stream, parts_of
from pipeline.events.cuts import EVENT, Cut, arrays
from pipeline.events.table import list_events, list_objects
from pipeline.scales import Rank, rank_among

__all__ = ["Population", "divided_by", "nominal_scales", "opened", "ranks"]


class Population(NamedTuple):
    """Values of a variable, with the weight of their event and its data set; nominal kinematics."""

    values: NDArray[np.float32]
    dataset: NDArray[np.int32]
    weight: NDArray[np.float32]


def opened(config: Config, thresholds: Mapping[str, float], cuts: Sequence[str]) -> dict[str, float]:
    """The thresholds, with some cuts open."""
    return {**thresholds, **{key: place for name in cuts for key, place in _loosest(name, config.cuts[name]).items()}}


def _loosest(name: str, cut: CutSettings) -> dict[str, float]:
    """Beyond, objects and events were not read; a window that keeps what is outside is empty where it is open."""
    thresholds = cut.thresholds(name)
    if cut.bounds is None:
        return {key: each.threshold for key, each in thresholds.items()}
    low, high = cut.bounds[0] - cut.widest_bandwidth, cut.bounds[1] + cut.widest_bandwidth
    places = {"above": (low,), "below": (high,), "inside": (low, high), "outside": (high, high)}[cut.keep]
    return dict(zip(thresholds, places, strict=True))


def nominal_scales(data: Data | Stream) -> NDArray[np.float64]:
    """What a weight of 1 in each data set is in expected events of each process, shape "processes datasets".

    It is 0 for the alternative samples of a process, of which the nominal template has no event.
    """
    # Variation 0 is the nominal one, column 0 the sum of weights.
    return np.asarray(data.recipe.yields[0, :, 0, :, 0], np.float64)


def divided_by(analysis: Analysis, data: Data, cut: Cut, thresholds: Mapping[str, float]) -> Population:
    """What a cut divides, at thresholds with this cut open."""
    if EVENT in cut.objects:
        regions = analysis.selection.regions
        concerned = [
            number for number, region in enumerate(regions) if cut.regions is None or region.name in cut.regions
        ]
        events = _events_of(analysis, data, thresholds, concerned, cut.variable)
    else:
        listed = [
            list_objects(analysis.events, arrays(thresholds), data.events, name, cut.variable) for name in cut.objects
        ]
        values, dataset, weight = (
            np.concatenate([getattr(objects, column)[objects.region >= 0] for objects in listed])
            for column in ("value", "dataset", "weight")
        )
        events = Population(values, dataset, weight)
    return events._replace(values=np.abs(events.values)) if cut.absolute else events


def _events_of(
    analysis: Analysis,
    data: Data,
    thresholds: Mapping[str, float],
    concerned: Sequence[int],
    variable: str | None = None,
) -> Population:
    """The events of some regions, with a variable that is put in the place of the observable, or with that one."""
    selection = analysis.selection
    if variable is not None:
        observed = tuple(replace(region, observable=variable) for region in selection.regions)
        selection = replace(selection, regions=observed)
    events = list_events(analysis.events._replace(selection=selection), arrays(thresholds), data.events)
    selected = (events.kinematic == 0) & np.isin(events.region, concerned) & ~np.isnan(events.observable)
    return Population(events.observable[selected], events.dataset[selected], events.columns[0, selected])


def ranks(
    config: Config, analysis: Analysis, data: Data | Stream, thresholds: Mapping[str, float], names: Sequence[str]
) -> dict[str, Rank]:
    """The scale of each of some thresholds: the rank among what it divides.

    Signal and background are a half of it each: the scale does not depend on how many events of either were simulated,
    and a small signal is not lost in it.

    Args:
        config: the run.
        analysis: its static part.
        data: the events that are ranked; of parts on disk the first one stands for all.
        thresholds: all of them.
        names: of those that get a scale.
    """
    scales: dict[str, Rank] = {}
    data = next(iter(parts_of(data)))

    def add(own: Sequence[str], population: Population) -> None:
        share = _shares(config, data, population)
        for name in own:
            bounds = config.thresholds[name].bounds
            if name in names and bounds is not None:
                scales[name] = rank_among(population.values, share, bounds)

    for cut in analysis.selection.cuts:
        own = [side.threshold for side in cut.sides]
        if set(own) & set(names):
            add(own, divided_by(analysis, data, cut, opened(config, thresholds, [cut.name])))
    for number, region in enumerate(analysis.selection.regions):
        if set(region.edges) & set(names):
            add(region.edges, _events_of(analysis, data, thresholds, [number]))
    return scales


def _shares(config: Config, data: Data, population: Population) -> NDArray[np.float64]:
    """What each event counts: by its expected number, and a half for signal and background each."""
    scales = nominal_scales(data)
    share = np.zeros(len(population.values))
    is_signal = np.array([process in config.measurement.signal for process in config.processes])
    for kind in (is_signal, ~is_signal):
        own = np.abs(scales[kind].sum(axis=0)[population.dataset] * population.weight)
        share += own / max(own.sum(), np.finfo(float).tiny)
    return share
