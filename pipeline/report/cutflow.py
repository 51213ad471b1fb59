"""How many events are left after each requirement, and what a cut cuts.

Cuts on objects are looked at in the dense events with plain NumPy, in float32 as everywhere. In the cut-flow,
event-level cuts and the range of the histogram are in the last step, the sum of the templates. What an event-level cut
cuts is told by the analysis itself, event by event: with that cut at its loosest, and its variable in the place of the
observable.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, Data
from pipeline.config import Config
from pipeline.events.cuts import Count, Cut
from pipeline.events.table import list_events
from pipeline.validation.diagnostics import Region, Values

__all__ = ["CutFlow", "Distribution", "cut_flow", "distributions", "histogram_of_events", "histogram_of_objects"]

Mask = NDArray[np.bool_]
COLLECTIONS = {"electron": "electrons", "muon": "muons", "jet": "jets", "bjet": "jets"}
BINS = 40


@dataclass(frozen=True)
class CutFlow:
    """Expected events of each process after each step, shape "processes steps"; the last steps are the `regions`."""

    processes: tuple[str, ...]
    steps: tuple[str, ...]
    events: Values
    regions: int


@dataclass(frozen=True)
class Distribution:
    """What one cut cuts: the objects that pass all other cuts, in events that are selected with them.

    `values` are expected numbers of what is `counted` (objects, or events for an event-level cut), shape "processes
    bins".
    """

    cut: str
    counted: Literal["objects", "events"]
    processes: tuple[str, ...]
    edges: Values
    values: Values
    before: float
    after: float
    bandwidth: float


@dataclass(frozen=True)
class _Part:
    """A chunk of a nominal data set: columns of each kind of object, and what each event stands for."""

    process: int
    columns: Mapping[str, Mapping[str, NDArray[np.float32]]]
    weight: Values


def cut_flow(
    config: Config, analysis: Analysis, data: Data, thresholds: Mapping[str, float], regions: Sequence[Region]
) -> CutFlow:
    """Expected events after the lepton, the jet and the b-tag requirement, and in the bins of each region."""
    processes = tuple(process.title for process in config.processes.values())
    first = ("all read", f"{_range(analysis.selection.leptons)} lepton")
    jets = min(region.jets.minimum for region in analysis.selection.regions)
    steps = (*first, f"≥ {jets} jets", *(region.name for region in regions))
    events = np.zeros((len(processes), len(steps)))
    for part in _parts(data):
        leptons, selected = _leptons(analysis, part, thresholds), _passing(analysis, part, "jet", thresholds)
        one_lepton = _within(analysis.selection.leptons, leptons)
        kept = [np.ones_like(one_lepton), one_lepton, one_lepton & (selected.sum(axis=0) >= jets)]
        events[part.process, : len(kept)] += [part.weight[mask].sum() for mask in kept]
    for column, region in enumerate(regions, start=len(first) + 1):
        events[:, column] = region.nominal.sum(axis=1)
    return CutFlow(processes, steps, events, len(regions))


def distributions(
    config: Config, analysis: Analysis, data: Data, before: Mapping[str, float], after: Mapping[str, float]
) -> tuple[Distribution, ...]:
    """For each trainable cut, what it cuts at the optimum of all others."""
    processes = tuple(process.title for process in config.processes.values())
    found = []
    for cut in analysis.selection.cuts:
        settings = config.cuts[cut.name]
        if not settings.trainable or settings.bounds is None:
            continue
        margin = settings.bandwidth or 0.0
        edges = np.linspace(settings.bounds[0] - margin, settings.bounds[1] + margin, BINS + 1)
        of_events = cut.objects == ("event",)
        values = (histogram_of_events if of_events else histogram_of_objects)(analysis, data, cut, after, edges)
        found.append(
            Distribution(
                cut=cut.name,
                counted="events" if of_events else "objects",
                processes=processes,
                edges=edges,
                values=values,
                before=before[cut.name],
                after=after[cut.name],
                bandwidth=settings.bandwidth_end or margin,
            )
        )
    return tuple(found)


def histogram_of_objects(
    analysis: Analysis, data: Data, cut: Cut, thresholds: Mapping[str, float], edges: Values
) -> Values:
    """Histogram of the objects that pass all cuts but one, for each process."""
    values = np.zeros((data.recipe.yields.shape[1], len(edges) - 1))
    for part in _parts(data):
        for kind in cut.objects:
            candidates = _would_be_selected(analysis, part, kind, cut, thresholds)
            column = part.columns[COLLECTIONS[kind]][cut.variable]
            column = np.abs(column) if cut.absolute else column
            weights = np.broadcast_to(part.weight, column.shape)
            values[part.process] += np.histogram(column[candidates], edges, weights=weights[candidates])[0]
    return values


def histogram_of_events(
    analysis: Analysis, data: Data, cut: Cut, thresholds: Mapping[str, float], edges: Values
) -> Values:
    """Histogram of the events that pass all cuts but one, for each process."""
    regions = analysis.selection.regions
    observed = replace(
        analysis.selection, regions=tuple(replace(region, observable=cut.variable) for region in regions)
    )
    passed_by_all = -np.inf if cut.keep == "above" else np.inf
    at = {name: jnp.asarray(value, jnp.float64) for name, value in {**thresholds, cut.name: passed_by_all}.items()}
    events = list_events(analysis._replace(selection=observed), at, data)
    values = np.abs(events.observable) if cut.absolute else events.observable
    concerned = [number for number, region in enumerate(regions) if cut.regions is None or region.name in cut.regions]
    selected = (events.kinematic == 0) & np.isin(events.region, concerned) & ~np.isnan(values)
    counts = np.zeros((data.recipe.yields.shape[1], len(edges) - 1))
    for dataset, (process, scale) in _nominal_datasets(data).items():
        chosen = selected & (events.dataset == dataset)
        weights = scale * events.columns[0, chosen].astype(np.float64)
        counts[process] += np.histogram(values[chosen], edges, weights=weights)[0]
    return counts


def _would_be_selected(analysis: Analysis, part: _Part, kind: str, cut: Cut, thresholds: Mapping[str, float]) -> Mask:
    """Objects that pass all other cuts, in events that are in some region once the object is accepted."""
    candidates = _passing(analysis, part, kind, thresholds, without=cut.name)
    leptons, jets = _leptons(analysis, part, thresholds), _passing(analysis, part, "jet", thresholds)
    tags = _passing(analysis, part, "bjet", thresholds)
    number, tagged = jets.sum(axis=0)[None], (jets & tags).sum(axis=0)[None]
    total = leptons[None]
    if kind in ("electron", "muon"):
        total = total + ~_passing(analysis, part, kind, thresholds)
    elif kind == "jet":
        number, tagged = number + ~jets, tagged + (~jets & tags)
    else:
        candidates &= jets
        tagged = tagged + (jets & ~tags)
    inside = np.zeros(candidates.shape, bool)
    for region in analysis.selection.regions:
        inside |= _within(region.jets, number) & _within(region.btags, tagged)
    return candidates & inside & _within(analysis.selection.leptons, total)


def _parts(data: Data) -> Iterator[_Part]:
    """The nominal events of each process; padding has weight 0."""
    nominal = _nominal_datasets(data)
    for group in data.groups:
        columns = {
            name: {variable: np.asarray(column) for variable, column in getattr(group, name).items()}
            for name in ("electrons", "muons", "jets")
        }
        columns["jets"]["pt"] = np.asarray(group.jet_pt)[0]
        for chunk, dataset in enumerate(np.asarray(group.dataset)):
            if int(dataset) in nominal:
                process, scale = nominal[int(dataset)]
                yield _Part(
                    process=process,
                    columns={k: {v: c[chunk] for v, c in some.items()} for k, some in columns.items()},
                    weight=scale * np.asarray(group.weight[chunk], np.float64),
                )


def _nominal_datasets(data: Data) -> dict[int, tuple[int, float]]:
    """Of each nominal data set, the process it belongs to, and what a weight of 1 in it is in expected events."""
    # Variation 0 is the nominal one, column 0 the sum of weights.
    scale = np.asarray(data.recipe.yields)[0, :, 0, :, 0]
    process = np.argmax(np.abs(scale), axis=0)
    return {
        dataset: (int(row), float(scale[row, dataset])) for dataset, row in enumerate(process) if scale[row, dataset]
    }


def _passing(
    analysis: Analysis, part: _Part, kind: str, thresholds: Mapping[str, float], without: str | None = None
) -> Mask:
    """Which objects pass all cuts of their kind, but one; absent objects (NaN) pass none."""
    columns = part.columns[COLLECTIONS[kind]]
    passed = ~np.isnan(next(iter(columns.values())))
    for cut in analysis.selection.on(kind):
        if cut.name != without:
            column = np.abs(columns[cut.variable]) if cut.absolute else columns[cut.variable]
            threshold = np.float32(thresholds[cut.name])
            passed &= column > threshold if cut.keep == "above" else column < threshold
    return passed


def _leptons(analysis: Analysis, part: _Part, thresholds: Mapping[str, float]) -> NDArray[np.int64]:
    electrons, muons = (_passing(analysis, part, kind, thresholds).sum(axis=0) for kind in ("electron", "muon"))
    return np.asarray(electrons + muons)


def _within(count: Count, number: NDArray[np.int64]) -> Mask:
    enough = number >= count.minimum
    return enough if count.maximum is None else enough & (number <= count.maximum)


def _range(count: Count) -> str:
    if count.minimum == count.maximum:
        return f"{count.minimum}"
    return f"≥ {count.minimum}" if count.maximum is None else f"{count.minimum}-{count.maximum}"
