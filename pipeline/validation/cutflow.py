"""How many events are left as one cut after the other is applied, by the exact analysis itself.

A cut is open where it is as loose as events were read: at the far end of its bounds and a kernel beyond, or where it is
if it has none. The flow begins with all cuts open and closes them in the order of the config, so every number is a sum
over the histograms that the likelihood would see with these cuts. Where an exact number of objects is asked for,
closing a cut may bring events back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.analysis import event_table, templates_at
from pipeline.event_data import parts_of
from pipeline.events.cuts import arrays
from pipeline.population import nominal_scales, opened
from pipeline.problem import Problem
from pipeline.validation.regions import Region, Values

__all__ = ["CutFlow", "cut_flow"]


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


def _in_histograms(problem: Problem, thresholds: Mapping[str, float]) -> Values:
    templates = templates_at(problem.analysis, arrays(thresholds), problem.validation)
    return np.asarray(templates.yields)[0].sum(axis=1)


def _all_read(problem: Problem, thresholds: Mapping[str, float]) -> Values:
    scales = nominal_scales(problem.validation)
    read = np.zeros(scales.shape[1])
    for part in parts_of(problem.validation):
        events = event_table(problem.analysis, arrays(thresholds), part)
        nominal = events.kinematic == 0
        weights = events.columns[0, nominal].astype(np.float64)
        read += np.bincount(events.dataset[nominal], weights, minlength=len(read))
    return scales @ read
