"""Config to the arguments of the analysis: the only place where the two worlds meet.

From here on there are arrays and static structure; behind here nothing knows a file, a YAML key or awkward.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import awkward as ak
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from pipeline.analysis import Analysis, Data, with_design_effects
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.events import split
from pipeline.events.batch import Edges, Events
from pipeline.events.cuts import Cut, Region, Requirement, Selection, Thresholds, arrays
from pipeline.events.dense import RaggedSample, dense_groups
from pipeline.events.evaluation import EventAnalysis, Factor, Layout
from pipeline.events.table import shared_events
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, skeleton
from pipeline.inference.objectives import Objective
from pipeline.inference.templates import DatasetRole, Recipe, Variation, make_recipe
from pipeline.ingest.identity import part_share
from pipeline.ingest.samples import Sample, read_samples
from pipeline.names import Names, names_of, object_sets
from pipeline.ragged import kinematics, ragged

__all__ = [
    "Problem",
    "bare_data",
    "build",
    "check_exclusive",
    "default_bandwidths",
    "default_thresholds",
    "divide",
    "divide_into_folds",
    "factors_of",
    "make_analysis",
    "make_data",
    "make_selection",
    "read",
    "whole",
]

CHUNK_SIZE = 8192
"""Events in a chunk: its columns and the state of the trijet search stay in the cache of a core."""


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
        left_out: objects of each collection that the analysis does not see, because their events have more of them than
            fit a bit mask: all but the hardest ones (`pipeline.events.flux.MAX_OBJECTS`).
    """

    config: Config
    analysis: Analysis
    training: Data
    validation: Data
    stopping: Data | None
    samples: tuple[Sample, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def build(config: Config, report: Callable[[str], None] = lambda _: None) -> Problem:
    """Read the events of a config and put everything together.

    Args:
        config: the run.
        report: gets a line before each step that takes time.

    Raises:
        ConfigError: the config names what does not exist.
        InputError: a file is missing or unusable, or no event is left.
    """
    samples = read(config, report)
    report("preparing events")
    return divide(config, samples)


def read(
    config: Config, report: Callable[[str], None] = lambda _: None, progress: Progress | None = None
) -> tuple[Sample, ...]:
    """The events of every data set of a config; arguments and errors as `pipeline.ingest.samples.read_samples`."""
    return read_samples(config, tuple(names_of(config).branches.values()), report, progress)


def whole(config: Config, report: Callable[[str], None] = lambda _: None) -> tuple[Analysis, Data]:
    """The analysis of a config, and all its events without a split; errors as `build`."""
    names = names_of(config)
    samples = read(config, report)
    analysis = make_analysis(config, names, len(samples))
    everything = [np.ones(len(sample.events), bool) for sample in samples]
    (data,) = make_data(config, names, analysis, samples, [everything])
    return analysis, data


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
    names = names_of(config)
    analysis, shares = make_analysis(config, names, len(samples)), _shares(config)
    masks = [_parts(config, samples, shares, turn) for turn in turns]
    # All at once: parts of equal shapes are compiled once.
    picked = _picked(config, names, samples, [of[name] for of in masks for name in shares])
    data = _data(config, names, analysis, samples, picked)
    left_out = _left_out(sample for part in picked[: len(shares)] for sample, _ in part)
    if config.exclusive and config.may_overlap():
        check_exclusive(analysis, default_thresholds(config), data)
    several = any(_has_several_of_a_collision(sample) for sample in samples)
    problems = []
    for number in range(len(turns)):
        parts = data[number * len(shares) : (number + 1) * len(shares)]
        if several:
            parts = with_design_effects(analysis, default_thresholds(config), parts)
        named = dict(zip(shares, parts, strict=True))
        stopping = named.get("stopping")
        problems.append(Problem(config, analysis, named["training"], named["validation"], stopping, samples, left_out))
    return tuple(problems)


def check_exclusive(analysis: Analysis, thresholds: Thresholds, parts: Sequence[Data]) -> None:
    """Raise where an event is in two regions.

    Raises:
        InputError: with the regions, and how many events they share.
    """
    for part in parts:
        for (first, second), number in shared_events(analysis.events, thresholds, part.events).items():
            raise InputError(
                f"regions.{second}: {number} events (all kinematic variations counted) are in '{first}', too; make "
                "their requirements or cuts exclude each other, or set 'exclusive: false': such events then count in "
                f"'{first}'"
            )


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
    parts: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in shares}
    for sample in samples:
        lots = split.lots(config.seed, ak.to_numpy(sample.events.collision).astype(np.uint64))
        for name, mask in split.parts(lots, shares, turn).items():
            parts[name].append(mask)
    for name, masks in parts.items():
        if not any(mask.any() for mask in masks):
            raise InputError(
                f"none of the events is for {name}: those of one collision are in one part, so there have to be "
                "several collisions; the manifest says which branches name one ('collision')"
            )
    return parts


def _has_several_of_a_collision(sample: Sample) -> bool:
    numbers = ak.to_numpy(sample.events.collision)
    return len(np.unique(numbers)) < len(numbers)


def make_selection(config: Config) -> Selection:
    """The static selection of a config."""
    regions, offset = [], 0
    for name, region in config.regions.items():
        requirements = tuple(Requirement(n, each.min, each.max) for n, each in config.requirements(name).items())
        bins, moving = len(region.bins.places) - 1, tuple(config.moving_edges[name])
        regions.append(Region(name, requirements, region.observable, bins, offset, moving))
        offset += bins
    cuts = tuple(
        Cut(name, cut.objects, cut.variable, cut.keep, cut.absolute, cut.regions) for name, cut in config.cuts.items()
    )
    return Selection(*object_sets(config), cuts, tuple(regions))


def make_edges(config: Config) -> Edges:
    """Bin edges of each region, where they start."""
    return {name: jnp.asarray(region.bins.places, jnp.float64) for name, region in config.regions.items()}


def default_thresholds(config: Config) -> Thresholds:
    """All thresholds, trainable or not, where the config puts them."""
    return arrays({name: each.threshold for name, each in config.thresholds.items()})


def default_bandwidths(config: Config) -> Thresholds:
    """The bandwidth of each trainable threshold at the start of an optimisation."""
    trained = {name: each.bandwidth for name, each in config.thresholds.items() if each.trainable}
    return arrays({name: width for name, width in trained.items() if width is not None})


def make_analysis(config: Config, names: Names, datasets: int) -> Analysis:
    """The static part of the analysis."""
    selection = make_selection(config)
    layout = Layout(
        datasets=datasets, kinematics=len(kinematics(config)) + 1, factors=tuple(factors_of(config).values())
    )
    measured = make_measurement(config, selection)
    structure, _, _ = from_pyhf(skeleton(measured))
    events = EventAnalysis(selection, names.function, layout)
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
        nuisances.append(Nuisance(systematic.title, on, up, down, systematic.sizes, channels))
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
        pseudodata=_pseudodata(config) if config.measurement.data == "pseudodata" else (),
    )


def _pseudodata(config: Config) -> tuple[tuple[int, int, float], ...]:
    processes, variations = list(config.processes), ["nominal", *config.variations]
    return tuple(
        (variations.index(variation), processes.index(process), share)
        for process, shares in config.measurement.pseudodata.items()
        for variation, share in shares.items()
    )


def make_data(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    parts: Sequence[Sequence[NDArray[np.bool_]]],
    chunk_size: int = CHUNK_SIZE,
) -> list[Data]:
    """Parts of the events of all samples as traced data of equal shapes.

    Args:
        config: the run.
        names: of it.
        analysis: its static part.
        samples: all data sets.
        parts: which events of each sample are in each part; each stands for all of them.
        chunk_size: largest number of events that are looked at together.
    """
    picked = _picked(config, names, samples, parts)
    return _data(config, names, analysis, samples, picked, chunk_size)


_Picked = list[list[tuple[RaggedSample, float]]]
"""For each part and data set, the events, and what one unit of their weights stands for in the whole."""


def _picked(
    config: Config, names: Names, samples: Sequence[Sample], parts: Sequence[Sequence[NDArray[np.bool_]]]
) -> _Picked:
    return [
        [
            ragged(config, names, sample.dataset, sample.events[mask], _share(sample, mask))
            for sample, mask in zip(samples, masks, strict=True)
        ]
        for masks in parts
    ]


def _share(sample: Sample, part: NDArray[np.bool_]) -> float:
    """What a part normalises itself by: the share of the weights that it really has. A part without events has none."""
    return part_share(ak.to_numpy(sample.events.weight), part, sample.dataset.key) if part.any() else 1.0


def _left_out(samples: Iterable[RaggedSample]) -> dict[str, int]:
    """Objects of each collection that are in no bit mask, where there are any."""
    total = sum((Counter(sample.left_out) for sample in samples), Counter[str]())
    return {name: number for name, number in total.items() if number}


def _data(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    picked: _Picked,
    chunk_size: int = CHUNK_SIZE,
) -> list[Data]:
    dense = dense_groups(
        [[sample for sample, _ in part] for part in picked],
        names.function,
        chunk_size=chunk_size,
        from_below=_from_below(config),
    )
    return [
        Data(
            events=Events(groups=groups, edges=make_edges(config)),
            recipe=_recipe(config, analysis, samples, [unit for _, unit in part]),
        )
        for part, groups in zip(picked, dense, strict=True)
    ]


def bare_data(config: Config, names: Names, events: ak.Array) -> Data:
    """Events of one file that is no data set of the manifest: weights 1, no templates."""
    sample, _ = ragged(config, names, None, events, 1.0)
    (groups,) = dense_groups([[sample]], names.function, chunk_size=CHUNK_SIZE, from_below=_from_below(config))
    empty = Recipe(yields=jnp.zeros((0, 0, 0, 0, 0)), variance=jnp.zeros((0, 0)))
    return Data(events=Events(groups=groups, edges=make_edges(config)), recipe=empty)


def _from_below(config: Config) -> set[str]:
    """Columns that cuts keep below a threshold only."""
    above, below = set[str](), set[str]()
    for cut in config.cuts.values():
        prefixes = [""] if cut.on_events else [f"{config.object_sets[name].of}." for name in cut.objects]
        of = below if cut.keep == "below" else above
        of |= {prefix + cut.variable for prefix in prefixes}
    return below - above


def _recipe(config: Config, analysis: Analysis, samples: Sequence[Sample], units: Sequence[float]) -> Recipe:
    roles = [
        DatasetRole(sample.dataset.process, sample.dataset.role, sample.dataset.normalisation(config.luminosity) * unit)
        for sample, unit in zip(samples, units, strict=True)
    ]
    factors, kinematic = list(factors_of(config)), kinematics(config)
    variations = [Variation("nominal")]
    for name, each in config.variations.items():
        weights = each.weights or {"nominal": 1.0}
        variations.append(
            Variation(
                name,
                kinematic.index(name) + 1 if name in kinematic else 0,
                weights.get("nominal", 0.0),
                {factors.index(factor): size for factor, size in weights.items() if factor != "nominal"},
                each.processes,
            )
        )
    return make_recipe(list(config.processes), variations, analysis.layout.kinematics, roles, len(factors))
