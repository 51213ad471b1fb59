"""How many events are left as one cut after the other is applied, by the exact analysis itself.

A cut is open where it is as loose as events were read: at the far end of its bounds and a kernel beyond, or where it is
if it has none. The flow begins with all cuts open and closes them in the order of the config, so every number is a sum
over the histograms that the likelihood would see with these cuts. Where an exact number of objects is asked for,
closing a cut may bring events back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.analysis import Data, event_table, templates_at
from pipeline.config import Config, Cut
from pipeline.events.cuts import arrays
from pipeline.problem import Problem
from pipeline.validation.regions import Region, Values

__all__ = ["CutFlow", "cut_flow", "nominal_scales", "opened"]


@dataclass(frozen=True)
class CutFlow:
    """Expected events of each process after each step, shape "processes steps"; the last steps are the `regions`."""

    processes: tuple[str, ...]
    steps: tuple[str, ...]
    events: Values
    regions: int


def cut_flow(problem: Problem, thresholds: Mapping[str, float], regions: Sequence[Region]) -> CutFlow:
    """Expected validation events: all that were read, then in the histograms, cut after cut, then region by region.

    Args:
        problem: its validation events are looked at.
        thresholds: all of them.
        regions: at these thresholds.
    """
    cuts = problem.analysis.selection.cuts
    at = opened(problem.config, thresholds, [cut.name for cut in cuts])
    columns = [_all_read(problem, thresholds), _in_histograms(problem, at)]
    for cut in cuts:
        at |= {side.threshold: thresholds[side.threshold] for side in cut.sides}
        columns.append(_in_histograms(problem, at))
    columns += [region.nominal.sum(axis=1) for region in regions]
    return CutFlow(
        processes=problem.analysis.measurement.processes,
        steps=("all read", "no cut", *(cut.name for cut in cuts), *(region.name for region in regions)),
        events=np.stack(columns, axis=1),
        regions=len(regions),
    )


def opened(config: Config, thresholds: Mapping[str, float], cuts: Sequence[str]) -> dict[str, float]:
    """The thresholds, with some cuts open."""
    return {**thresholds, **{key: place for name in cuts for key, place in _loosest(name, config.cuts[name]).items()}}


def _loosest(name: str, cut: Cut) -> dict[str, float]:
    """Beyond, objects and events were not read; a window that keeps what is outside is empty where it is open."""
    thresholds = cut.thresholds(name)
    if cut.bounds is None:
        return {key: each.threshold for key, each in thresholds.items()}
    low, high = cut.bounds[0] - cut.widest_bandwidth, cut.bounds[1] + cut.widest_bandwidth
    places = {"above": (low,), "below": (high,), "inside": (low, high), "outside": (high, high)}[cut.keep]
    return dict(zip(thresholds, places, strict=True))


def nominal_scales(data: Data) -> Values:
    """What a weight of 1 in each data set is in expected events of each process, shape "processes datasets".

    It is 0 for the alternative samples of a process, of which the nominal template has no event.
    """
    # Variation 0 is the nominal one, column 0 the sum of weights.
    return np.asarray(data.recipe.yields[0, :, 0, :, 0], np.float64)


def _in_histograms(problem: Problem, thresholds: Mapping[str, float]) -> Values:
    templates = templates_at(problem.analysis, arrays(thresholds), problem.validation)
    return np.asarray(templates.yields[0].sum(axis=1))


def _all_read(problem: Problem, thresholds: Mapping[str, float]) -> Values:
    events = event_table(problem.analysis, arrays(thresholds), problem.validation)
    scales = nominal_scales(problem.validation)
    nominal = events.kinematic == 0
    weights = events.columns[0, nominal].astype(np.float64)
    return scales @ np.bincount(events.dataset[nominal], weights, minlength=scales.shape[1])
