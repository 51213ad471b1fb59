"""Config to the static part of the analysis: selection, layout, measurement, and the thresholds where they start."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis
from pipeline.config import Config
from pipeline.events.batch import Edges
from pipeline.events.cuts import (
    EVENT,
    Calibration,
    Cut,
    MissingMomentum,
    Region,
    Requirement,
    Selection,
    Thresholds,
    arrays,
)
from pipeline.events.evaluation import EventAnalysis, Factor, Layout
from pipeline.histograms import Axis, hists
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, skeleton
from pipeline.inference.objectives import Objective
from pipeline.inference.templates import Templates
from pipeline.names import Names, object_sets
from pipeline.networks import make_scores
from pipeline.ragged import kinematics

__all__ = [
    "default_bandwidths",
    "default_thresholds",
    "factors_of",
    "histograms",
    "make_analysis",
    "make_edges",
    "make_measurement",
    "make_selection",
]


def make_selection(config: Config) -> Selection:
    """The static selection of a config."""
    regions, offset = [], 0
    for name, region in config.regions.items():
        requirements = tuple(Requirement(n, each.min, each.max) for n, each in config.requirements(name).items())
        bins, moving = len(region.bins.places) - 1, tuple(config.moving_edges[name])
        overflow = region.bins.overflow or region.bins.place is not None
        regions.append(Region(name, requirements, region.observable, bins, offset, moving, overflow))
        offset += bins
    cuts = tuple(
        Cut(name, cut.objects, cut.variable, cut.keep, cut.absolute, cut.regions) for name, cut in config.cuts.items()
    )
    missing = None if config.missing_momentum is None else MissingMomentum(**config.missing_momentum.model_dump())
    return Selection(*object_sets(config), cuts, tuple(regions), _calibrations(config), missing)


def _calibrations(config: Config) -> tuple[Calibration, ...]:
    return tuple(
        Calibration(name, tuple((of or EVENT, key) for of, _, key in (column.rpartition(".") for column in each.scale)))
        for name, each in config.calibrations.items()
    )


def make_edges(config: Config) -> Edges:
    """Bin edges of each region, where they start."""
    return {name: jnp.asarray(region.bins.places, jnp.float64) for name, region in config.regions.items()}


def default_thresholds(config: Config) -> Thresholds:
    """All thresholds, trainable or not, where the config puts them."""
    return arrays({name: each.threshold for name, each in config.thresholds.items()})


def default_bandwidths(config: Config) -> Thresholds:
    """The bandwidth of each trainable parameter at the start of an optimisation."""
    parameters: dict[str, Any] = {**config.thresholds, **config.observables}
    trained = {name: each.bandwidth for name, each in parameters.items() if each.trainable}
    return arrays({name: width for name, width in trained.items() if width is not None})


def make_analysis(config: Config, names: Names, datasets: int) -> Analysis:
    """The static part of the analysis."""
    selection = make_selection(config)
    layout = Layout(
        datasets=datasets, kinematics=len(kinematics(config)) + 1, factors=tuple(factors_of(config).values())
    )
    measured = make_measurement(config, selection)
    structure, _, _ = from_pyhf(skeleton(measured))
    events = EventAnalysis(selection, names.function, layout, make_scores(config))
    return Analysis(events, measured, structure, Objective(**config.objective.model_dump()))


def factors_of(config: Config) -> dict[str, Factor]:
    """The factors of the weight that variations name."""
    names = dict.fromkeys(name for each in config.variations.values() for name in each.weights if name != "nominal")
    return {name: _factor(config, name) for name in names}


def _factor(config: Config, name: str) -> Factor:
    of, dot, rest = name.partition(".")
    if not dot:
        return Factor(name)
    number, _, variable = rest.rpartition(".")
    # The correction of an object that is not there is none.
    fill = 1.0 if variable in config.corrections else 0.0
    return Factor(variable, of, int(number) if number else None, fill)


def make_measurement(config: Config, selection: Selection) -> Measurement:
    """Channels, samples and parameters under the names that the workspace shows."""
    processes, variations = list(config.processes), ["nominal", *config.variations]
    titles = {name: region.title or name for name, region in config.regions.items()}
    nuisances = []
    for systematic in config.systematics.values():
        on = tuple(processes.index(process) for process in systematic.processes or processes)
        up, down = (None if name is None else variations.index(name) for name in systematic.variations)
        channels = None if systematic.regions is None else tuple(titles[region] for region in systematic.regions)
        split = systematic.type != "histosys"
        nuisances.append(Nuisance(systematic.title, on, up, down, systematic.sizes, channels, split))
    free = dict.fromkeys(config.measurement.signal, config.measurement.poi) | config.measurement.free
    return Measurement(
        name=config.measurement.name,
        poi=config.measurement.poi,
        channels=tuple(Channel(titles[r.name], r.bins, r.offset) for r in selection.regions),
        processes=tuple(process.title for process in config.processes.values()),
        free=tuple((name, processes.index(process)) for process, name in free.items()),
        nuisances=tuple(nuisances),
        bounds=config.measurement.bounds,
        minimum_effective_events=config.measurement.minimum_effective_events,
        minimum_background=config.measurement.minimum_background,
        mc_statistics=config.measurement.mc_statistics,
        smoothing=config.measurement.variations.smoothing,
        pruning=config.measurement.variations.pruning,
        variation_errors=config.measurement.variations.uncertainty,
        pseudodata=_pseudodata(config) if config.measurement.data == "pseudodata" else (),
    )


def _pseudodata(config: Config) -> tuple[tuple[int, int, float], ...]:
    processes, variations = list(config.processes), ["nominal", *config.variations]
    return tuple(
        (variations.index(variation), processes.index(process), share)
        for process, shares in config.measurement.pseudodata.items()
        for variation, share in shares.items()
    )


def histograms(config: Config, templates: Templates, edges: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The templates of each region, in bins of `edges`, as a `hist.Hist`: axes `process`, `variation`, the observable.

    Where a variation does not act on a process, its template is the nominal one.
    """
    axes = {name: Axis(edges[name], region.observable, region.label) for name, region in config.regions.items()}
    return hists(list(config.processes), ["nominal", *config.variations], axes, templates.yields, templates.variance)
