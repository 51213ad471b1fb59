"""Config to the arguments of the analysis: the only place where the two worlds meet.

From here on there are arrays and static structure; behind here nothing knows a file, a YAML key or awkward.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import awkward as ak
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from pipeline.analyses.observables import JET_OBSERVABLES, TRIJET_OBSERVABLES
from pipeline.analysis import Analysis, Data
from pipeline.config import Collection, Config, Cut
from pipeline.config import Requirement as ConfigRequirement
from pipeline.events.bin_edges import Edges
from pipeline.events.cuts import Count, Region, Selection, Thresholds
from pipeline.events.cuts import Cut as SelectionCut
from pipeline.events.dense import RaggedSample, dense_groups
from pipeline.events.design_effect import with_design_effects
from pipeline.events.variations import resolution_factors, splitmix64, varied_pt
from pipeline.events.yields import Layout
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, skeleton
from pipeline.inference.objectives import Objective
from pipeline.inference.templates import DatasetRole, Recipe, make_recipe
from pipeline.ingest import InputError, ObjectSkim, Requirement, Skim, read
from pipeline.ingest.manifest import Dataset, load_manifest

__all__ = [
    "Problem",
    "Sample",
    "bare_data",
    "build",
    "default_bandwidths",
    "default_thresholds",
    "divide",
    "divide_into_folds",
    "lots",
    "make_analysis",
    "make_selection",
    "ragged",
    "read_samples",
    "skim",
    "wanted_datasets",
]

KINDS = {"electron": "electron", "muon": "muon", "jet": "jet", "bjet": "jet"}
"""In which collection the objects of a cut are."""

CHUNK_SIZE = 8192
"""Events in a chunk: its columns and the state of the trijet search stay in the cache of a core."""


@dataclass(frozen=True)
class Sample:
    """One data set in memory: its place in the manifest, and its events."""

    dataset: Dataset
    events: ak.Array
    entries_read: int


@dataclass(frozen=True)
class Problem:
    """A run, ready for the optimiser.

    Attributes:
        config: with a bandwidth for every trainable threshold, once these are chosen.
        analysis: the static part.
        training: events for the gradient.
        validation: events that tuning does not see.
        stopping: events that decide when a patient optimiser stops, and which step is the best; None otherwise.
        samples: what the parts were taken from.
    """

    config: Config
    analysis: Analysis
    training: Data
    validation: Data
    stopping: Data | None
    samples: tuple[Sample, ...]


def build(config: Config, report: Callable[[str], None] = lambda _: None) -> Problem:
    """Read the events of a config and put everything together.

    Args:
        config: the run.
        report: gets a line before each step that takes time.

    Raises:
        InputError: a file is missing or unusable, or no event is left.
    """
    samples = read_samples(config, report)
    report("reconstructing trijets")
    return divide(config, samples)


def divide(config: Config, samples: tuple[Sample, ...]) -> Problem:
    """A problem from events in memory: those for training, those for validation, and perhaps those for stopping.

    With folds, the first of them is held out.

    Raises:
        InputError: one of the parts is empty.
    """
    (problem,) = _divided(config, samples, [0.0])
    return problem


def divide_into_folds(config: Config, samples: tuple[Sample, ...]) -> tuple[Problem, ...]:
    """One problem for each fold, which it holds out; `divide` without folds.

    Raises:
        InputError: one of the parts is empty.
    """
    folds = config.validation.folds or 1
    return _divided(config, samples, [fold / folds for fold in range(folds)])


def _divided(config: Config, samples: tuple[Sample, ...], turns: Sequence[float]) -> tuple[Problem, ...]:
    """Problems that hold out other events each: those from a place on in a random order of the events, a circle."""
    analysis, shares = make_analysis(config, len(samples)), _shares(config)
    masks = [_parts(config, samples, shares, turn) for turn in turns]
    # All at once: parts of equal shapes are compiled once.
    data = make_data(config, analysis, samples, [(shares[name], of[name]) for of in masks for name in shares])
    several = any(_has_several_of_a_collision(sample) for sample in samples)
    problems = []
    for number in range(len(turns)):
        parts = data[number * len(shares) : (number + 1) * len(shares)]
        if several:
            parts = with_design_effects(analysis, default_thresholds(config), parts)
        found = dict(zip(shares, parts, strict=True))
        stopping = found.get("stopping")
        problems.append(Problem(config, analysis, found["training"], found["validation"], stopping, samples))
    return tuple(problems)


def _shares(config: Config) -> dict[str, float]:
    """Of the events, for each part."""
    held_out = config.validation.held_out
    stopping = (1 - held_out) * config.validation.stopping if config.optimiser.patience is not None else 0.0
    shares = {"validation": held_out, "stopping": stopping, "training": 1 - held_out - stopping}
    return {name: share for name, share in shares.items() if share > 0}


def _parts(
    config: Config, samples: Sequence[Sample], shares: Mapping[str, float], turn: float
) -> dict[str, list[NDArray[np.bool_]]]:
    """Which events of each sample are in each part."""
    until = np.cumsum(list(shares.values()))
    parts: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in shares}
    for sample in samples:
        number = np.searchsorted(until[:-1], (lots(config.seed, sample) - turn) % 1.0, side="right")
        for of_part, name in enumerate(shares):
            mask = number == of_part
            if not mask.any():
                raise InputError(
                    f"{sample.dataset.key}: none of its {len(mask)} events is for {name}; they are split by the "
                    "numbers in the branch 'event', which have to differ from event to event"
                )
            parts[name].append(mask)
    return parts


def _has_several_of_a_collision(sample: Sample) -> bool:
    numbers = ak.to_numpy(sample.events.event)
    return len(np.unique(numbers)) < len(numbers)


def make_selection(config: Config) -> Selection:
    """The static selection of a config."""
    regions, offset = [], 0
    for name, region in config.regions.items():
        jets, btags = (Count(count.min, count.max) for count in (region.jets, region.btags))
        bins, moving = len(region.bins.places) - 1, config.moving_edges[name]
        regions.append(Region(name, jets, btags, region.observable, bins, offset, tuple(moving)))
        offset += bins
    cuts = tuple(
        SelectionCut(name, cut.objects, cut.variable, cut.keep, cut.absolute, cut.regions)
        for name, cut in config.cuts.items()
    )
    return Selection(cuts, Count(config.leptons.min, config.leptons.max), tuple(regions))


def make_edges(config: Config) -> Edges:
    """Bin edges of each region, where they start."""
    return {name: jnp.asarray(region.bins.places, jnp.float64) for name, region in config.regions.items()}


def default_thresholds(config: Config) -> Thresholds:
    """All thresholds, trainable or not, where the config puts them."""
    return {name: jnp.asarray(one.threshold, jnp.float64) for name, one in config.thresholds.items()}


def default_bandwidths(config: Config) -> Thresholds:
    """The bandwidth of each trainable threshold at the start of an optimisation."""
    trained = {name: one.bandwidth for name, one in config.thresholds.items() if one.trainable}
    return {name: jnp.asarray(width, jnp.float64) for name, width in trained.items() if width is not None}


def make_analysis(config: Config, datasets: int) -> Analysis:
    """The static part of the analysis."""
    selection = make_selection(config)
    ranks = [rank + 1 for rank, _ in config.variations.jet_weight_slope.values()]
    layout = Layout(datasets=datasets, kinematics=len(kinematics(config)), ranks=max(ranks, default=0))
    measured = make_measurement(config, selection)
    structure, _, _ = from_pyhf(skeleton(measured))
    objective = Objective(**config.objective.model_dump())
    return Analysis(selection, layout, measured, structure, objective)


def make_measurement(config: Config, selection: Selection) -> Measurement:
    """Channels, samples and parameters under the names that the workspace shows."""
    processes, names = list(config.processes), variations(config)
    nuisances = []
    for systematic in config.systematics.values():
        on = systematic.processes or tuple(processes)
        templates = (None if name is None else names.index(name) for name in (systematic.up, systematic.down))
        up, down = templates
        numbers = tuple(processes.index(process) for process in on)
        nuisances.append(Nuisance(systematic.title, numbers, up, down, systematic.size))
    titles = {name: region.title or name for name, region in config.regions.items()}
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
        pseudodata=_pseudodata(config) if config.measurement.data == "pseudodata" else (),
    )


def _pseudodata(config: Config) -> tuple[tuple[int, int, float], ...]:
    processes, names = list(config.processes), variations(config)
    return tuple(
        (names.index(variation), processes.index(process), share)
        for process, shares in config.measurement.pseudodata.items()
        for variation, share in shares.items()
    )


def kinematics(config: Config) -> list[str]:
    """Kinematic variations, nominal first."""
    return ["nominal", *config.variations.jet_pt_scale, *config.variations.jet_pt_resolution]


def variations(config: Config) -> list[str]:
    """All variations of templates, nominal first."""
    return ["nominal", *config.variations.names]


def make_data(
    config: Config,
    analysis: Analysis,
    samples: Sequence[Sample],
    folds: Sequence[tuple[float, Sequence[NDArray[np.bool_]]]],
) -> list[Data]:
    """Parts of the events of all samples as traced data of equal shapes.

    Args:
        config: the run.
        analysis: its static part.
        samples: all data sets.
        folds: for each part, the share of the events it stands for, and which events of each sample are in it.
    """
    picked = [
        [ragged(config, sample.dataset, sample.events[mask]) for sample, mask in zip(samples, masks, strict=True)]
        for _, masks in folds
    ]
    dense = dense_groups([[sample for sample, _ in part] for part in picked], chunk_size=CHUNK_SIZE)
    return [
        Data(
            groups=groups,
            candidates=candidates,
            recipe=_recipe(config, analysis, samples, [unit / share for _, unit in part]),
            edges=make_edges(config),
        )
        for (share, _), part, (groups, candidates) in zip(folds, picked, dense, strict=True)
    ]


def bare_data(config: Config, events: ak.Array) -> Data:
    """Events of one file that is no data set of the manifest: weights 1, no templates."""
    sample, _ = ragged(config, None, events)
    ((groups, candidates),) = dense_groups([[sample]], chunk_size=CHUNK_SIZE)
    nothing = Recipe(yields=jnp.zeros((0, 0, 0, 0, 0)), variance=jnp.zeros((0, 0)))
    return Data(groups=groups, candidates=candidates, recipe=nothing, edges=make_edges(config))


def _recipe(config: Config, analysis: Analysis, samples: Sequence[Sample], units: Sequence[float]) -> Recipe:
    roles = [
        DatasetRole(sample.dataset.process, sample.dataset.role, sample.dataset.normalisation(config.luminosity) * unit)
        for sample, unit in zip(samples, units, strict=True)
    ]
    return make_recipe(
        list(config.processes),
        variations(config),
        kinematics(config),
        roles,
        config.variations.jet_weight_slope,
        config.variations.process_weight,
        analysis.layout.ranks,
    )


def read_samples(
    config: Config, report: Callable[[str], None] = lambda _: None, progress: Progress | None = None
) -> tuple[Sample, ...]:
    """Read and skim every data set of a config: the nominal sample of each process, then the alternative ones."""
    manifest = load_manifest(config.data.manifest)
    samples = []
    for process, variation in wanted_datasets(config):
        dataset = manifest.dataset(config.data.set, process, variation).first(config.data.max_files)
        dataset = dataset.weighted(config.data.weights)
        if progress is None:
            report(f"reading {dataset.key}")
        ingested = read(
            dataset.locations(config.data.location),
            skim(config, generator_weights=dataset.weights == "generator"),
            tree=dataset.source.tree,
            workers=config.data.workers,
            cache=config.data.cache,
            label=dataset.key,
            progress=progress,
        )
        dataset.check_entries(ingested.entries)
        if ingested.entries_read == 0:
            raise InputError(
                f"{dataset.key}: its files hold no events; take them out of the manifest, or make them again"
            )
        if len(ingested.events) == 0:
            raise InputError(
                f"{dataset.key}: none of {ingested.entries_read} events passes the loosest cuts; "
                "widen the bounds of the cuts or check the requirements under 'objects'"
            )
        samples.append(Sample(dataset, ingested.events, ingested.entries_read))
    return tuple(samples)


def wanted_datasets(config: Config) -> list[tuple[str, str]]:
    """(process, variation) of every data set: the nominal one of each process, then the alternative ones."""
    alternative = [(process, variation) for variation, process in config.variations.samples.items()]
    return [*((process, "nominal") for process in config.processes), *alternative]


def skim(config: Config, *, generator_weights: bool = False, extra: Mapping[str, Sequence[str]] | None = None) -> Skim:
    """What to read: the columns the cuts need, and objects and events that some threshold within its bounds may select.

    Args:
        config: the run.
        generator_weights: whether genWeight is wanted.
        extra: further columns to keep, by kind of object. Resolution factors of the jets may have any size, so with
            them no jet is dropped for its pt.
    """
    extra = extra or {}
    objects = []
    for kind, collection in _collections(config).items():
        fixed = [_requirement(rule) for rule in collection.require]
        variables = (*collection.variables.values(), *extra.get(kind, ()))
        any_pt = config.variations.resolution_branch in extra.get(kind, ())
        cuts = [cut for cut in config.cuts.values() if kind in cut.objects and not (any_pt and cut.variable == "pt")]
        loosest = [_loosest(cut, collection, config) for cut in cuts]
        objects.append(ObjectSkim(collection.branch, variables, (*fixed, *loosest)))
    leptons = (config.objects.electron.branch, config.objects.muon.branch)
    jets = min(region.jets.min for region in config.regions.values())
    return Skim(
        objects=tuple(objects),
        event_variables=(*_event_branches(config), *(["genWeight"] if generator_weights else [])),
        at_least=((leptons, config.leptons.min), ((config.objects.jet.branch,), jets)),
    )


def ragged(config: Config, dataset: Dataset | None, events: ak.Array) -> tuple[RaggedSample, float]:
    """Skimmed events under our names, with jets varied, and without the jets that no variation can select.

    Alternative samples get no kinematic variations, as in the AGC. Generator weights are scaled to about one.

    Returns:
        The sample, and the factor by which its weights were divided.
    """
    named = {kind: _renamed(events, collection) for kind, collection in _collections(config).items()}
    alternative = dataset is not None and dataset.role != "nominal"
    jets = named["jet"]
    numbers = np.repeat(ak.to_numpy(events.event), ak.to_numpy(ak.num(jets)))
    flat = {name: ak.to_numpy(ak.flatten(jets[name])) for name in ("pt", "eta", "phi")}
    scales = {} if alternative else config.variations.jet_pt_scale
    widths = {} if alternative else config.variations.jet_pt_resolution
    factors = {name: _factors(config, events, width, numbers, flat) for name, width in widths.items()}
    pt = varied_pt(flat["pt"], scales, factors)
    reachable = np.max(list(pt.values()), axis=0) > _lowest_jet_pt(config)
    keep = ak.unflatten(reachable, ak.num(jets))
    weight, unit = _weights(dataset, events)
    _, collision = np.unique(ak.to_numpy(events.event), return_inverse=True)
    sample = RaggedSample(
        name=dataset.key if dataset else "events",
        events=ak.zip(named | {"jet": jets[keep], "index": events.index, "collision": collision}, depth_limit=1),
        jet_pt=[ak.unflatten(varied, ak.num(jets))[keep] for varied in pt.values()],
        weight=weight,
        variables={name: ak.to_numpy(events[name]).astype(np.float32) for name in _event_branches(config)},
    )
    return sample, unit


def _collections(config: Config) -> dict[str, Collection]:
    return {"electron": config.objects.electron, "muon": config.objects.muon, "jet": config.objects.jet}


def _renamed(events: ak.Array, collection: Collection) -> ak.Array:
    objects = events[collection.branch]
    return ak.zip({ours: objects[theirs] for ours, theirs in collection.variables.items()})


def _event_branches(config: Config) -> list[str]:
    """Event-level branches that cuts and regions need: all that no observable makes from the selected jets."""
    cut_on = [cut.variable for cut in config.cuts.values() if "event" in cut.objects]
    wanted = [*cut_on, *(region.observable for region in config.regions.values())]
    return [name for name in dict.fromkeys(wanted) if name not in {*JET_OBSERVABLES, *TRIJET_OBSERVABLES}]


def _factors(
    config: Config, events: ak.Array, width: float, numbers: NDArray[np.uint64], flat: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Resolution factors of all jets: those of the file where it has them, else random ones."""
    jets = events[config.objects.jet.branch]
    if config.variations.resolution_branch in jets.fields:
        return ak.to_numpy(ak.flatten(jets[config.variations.resolution_branch])).astype(np.float64)
    return resolution_factors(numbers, flat["eta"], flat["phi"], width, config.seed)


def _weights(dataset: Dataset | None, events: ak.Array) -> tuple[NDArray[np.float32], float]:
    """Event weights of mean size 1, and the unit they are counted in."""
    if dataset is None or dataset.weights == "none":
        return np.ones(len(events), np.float32), 1.0
    weights = ak.to_numpy(events.genWeight).astype(np.float64)
    unit = float(np.abs(weights).mean())
    return (weights / unit).astype(np.float32), unit


def lots(seed: int, sample: Sample) -> NDArray[np.float64]:
    """A number in [0, 1) for each event, by a hash of its event number: independent of order, files and skim.

    Events of one collision draw the same lot, so parts that are made with it share no collision.
    """
    numbers = ak.to_numpy(sample.events.event).astype(np.uint64)
    hashed = splitmix64(numbers ^ splitmix64(np.array([seed], np.uint64)))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _reach(cut: Cut) -> float:
    """The loosest value that any threshold within its bounds, or its kernel, can look at."""
    if cut.bounds is None:
        return cut.threshold
    margin = cut.widest_bandwidth
    return cut.bounds[0] - margin if cut.keep == "above" else cut.bounds[1] + margin


def _lowest_jet_pt(config: Config) -> float:
    """No jet at or below this pt, in GeV, matters in any variation."""
    cuts = [
        _reach(cut)
        for cut in config.cuts.values()
        if "jet" in cut.objects and (cut.variable, cut.keep) == ("pt", "above")
    ]
    return max(cuts, default=0.0)


def _largest_factor(config: Config) -> float:
    """No jet-pt variation is taken to raise a pt by more: eight standard deviations of the resolution."""
    scales = config.variations.jet_pt_scale.values()
    widths = config.variations.jet_pt_resolution.values()
    return max([1.0, *scales, *(1 + 8 * width for width in widths)])


def _loosest(cut: Cut, collection: Collection, config: Config) -> Requirement:
    value = _reach(cut)
    if "jet" in cut.objects and cut.variable == "pt":
        value = value / _largest_factor(config) if cut.keep == "above" else value * _largest_factor(config)
    return Requirement(collection.variables[cut.variable], cut.keep, value, cut.absolute)


def _requirement(rule: ConfigRequirement) -> Requirement:
    if rule.equal is not None:
        return Requirement(rule.variable, "equal", rule.equal)
    return Requirement(rule.variable, "bits", rule.bits or 0)
