"""The events of a run: which data sets a config asks for, what of them is read, and reading them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import awkward as ak
from rich.progress import Progress

from pipeline.config import Config, ConfigError, Cut
from pipeline.config import Requirement as ConfigRequirement
from pipeline.errors import InputError
from pipeline.ingest.certified import certified_blocks
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.expression import Expression
from pipeline.ingest.facts import FileFacts
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.periods import check_periods
from pipeline.ingest.reading import read
from pipeline.ingest.skim import ObjectSkim, Requirement, Skim
from pipeline.ingest.stored import StoredEvents
from pipeline.ingest.tables import table_datasets
from pipeline.memory import event_cache, memory_for

__all__ = ["Loosest", "Sample", "listed_datasets", "loosest", "read_samples", "skim", "skim_of", "wanted_datasets"]

DENSER = 8
"""As events are read, they take so many times less than as arrays of the analysis, with what is prepared of them."""
LEAST_CORRECTION = 0.1
"""A correction of all weights by more than this, or by more than its inverse, is none."""


@dataclass(frozen=True)
class Sample:
    """One data set in memory, or in the cache.

    Attributes:
        dataset: its place in the manifest, as it was read.
        events: with `event`, `collision`, `index` and `weight`, see `pipeline.ingest.reading.Ingested`.
        entries_read: entries of its files.
        digest: a checksum of the events.
        skipped: files that could not be read, and why.
    """

    dataset: Dataset
    events: ak.Array | StoredEvents
    entries_read: int
    digest: str = ""
    skipped: tuple[FileFacts, ...] = ()


@dataclass(frozen=True)
class Loosest:
    """What every object that some threshold within its bounds, or its kernel, can look at fulfils."""

    variable: str
    keep: Literal["above", "below"]
    value: float
    absolute: bool


def read_samples(
    config: Config,
    branches: Sequence[str],
    report: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> tuple[Sample, ...]:
    """Read and skim every data set of a config: the nominal sample of each process, then the alternative ones.

    Args:
        config: the run.
        branches: with one value per event, that are kept.
        report: gets a line before each data set.
        progress: shows how far reading is, in its place.
        executor: where files are read, instead of processes of this machine.

    Raises:
        InputError: a file is missing or unusable, or no event is left.
    """
    data, samples = config.data, []
    left = memory_for(data.memory) / DENSER
    for dataset in listed_datasets(config):
        if progress is None:
            report(f"reading {dataset.key}")
        ingested = read(
            dataset.locations(data.location),
            skim_of(config, branches, dataset),
            tree=dataset.source.tree,
            stated=dataset.files,
            verify=data.verify,
            skip_bad_files=data.skip_bad_files,
            workers=data.workers,
            executor=executor,
            cache=data.cache or (event_cache() if _size(dataset) > left else None),
            memory=left,
            label=dataset.key,
            progress=progress,
        )
        dataset = dataset.as_read(ingested.files)
        if dataset.events == 0:
            raise InputError(
                f"{dataset.key}: its files hold no events; take them out of the manifest, or make them again"
            )
        if dataset.require and not len(ingested.events):
            raise InputError(
                f"{dataset.key}: no event of its files meets {' and '.join(dataset.require)} and the loosest cuts; "
                "correct the one, or widen the bounds of the others"
            )
        if not isinstance(ingested.events, StoredEvents):
            left -= ingested.events.nbytes
        _check_scale(dataset, ingested.events)
        samples.append(Sample(dataset, ingested.events, ingested.entries_read, ingested.digest, ingested.skipped))
    if not any(len(sample.events) for sample in samples):
        raise InputError(
            "no event of any data set passes the loosest cuts; widen the bounds of the cuts, or check what is required "
            "of events (regions, data.require, data.certified)"
        )
    return tuple(samples)


def _size(dataset: Dataset) -> float:
    """Bytes of its files; a file of unknown size may be large."""
    return sum((math.inf if file.size is None else float(file.size) for file in dataset.files), 0.0)


def _check_scale(dataset: Dataset, events: ak.Array | StoredEvents) -> None:
    """Refuse weights that cannot be meant: without `genWeight` in it, a formula corrects events that count one each."""
    if dataset.is_weighted or dataset.in_expected_events or dataset.weights == "none" or not len(events):
        return
    mean = float(ak.mean(events.weight))
    if not LEAST_CORRECTION < mean < 1 / LEAST_CORRECTION:
        raise InputError(
            f"{dataset.key}: the weight '{dataset.weights}' is {mean:g} on average, but without genWeight it has to be "
            "a correction near 1, since the number of events then normalises it; multiply it by genWeight, or divide "
            "it by its average before all cuts."
        )


def listed_datasets(config: Config) -> tuple[Dataset, ...]:
    """The data sets of a config, nominal ones first, of every data-taking period, with the files that shall be read.

    Args:
        config: the run.

    Raises:
        InputError: the manifest cannot be used, lacks a data set or one of its periods, a pattern in it fits no file,
            or a formula of the config is none.
    """
    data, wanted = config.data, wanted_datasets(config)
    _check_formulas(config)
    if data.in_tables:
        stated = table_datasets(config, wanted)
    else:
        manifest = load_manifest(data.manifest)
        stated = tuple(dataset for names in wanted for dataset in manifest.every_period(data.set, *names))
    datasets = tuple(dataset.expanded(data.location).first(data.max_files).weighted(data.weights) for dataset in stated)
    check_periods(datasets, config.luminosity)
    return datasets


def _check_formulas(config: Config) -> None:
    """Say in which key a formula is wrong, before anything is read."""
    formulas = {f"data.require.{number}": text for number, text in enumerate(config.data.require)}
    if config.data.weights not in (None, "none", "generator"):
        formulas["data.weights"] = str(config.data.weights)
    for key, text in formulas.items():
        try:
            Expression(text)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


def wanted_datasets(config: Config) -> list[tuple[str, str]]:
    """(process, variation) of every data set: the nominal one of each process, then the alternative ones."""
    alternative = [(each.sample, name) for name, each in config.variations.items() if each.sample is not None]
    return [*((process, "nominal") for process in config.processes), *alternative]


def skim_of(config: Config, branches: Sequence[str], dataset: Dataset) -> Skim:
    """`skim` of one data set, with what it says of weights, collisions and its own events."""
    return skim(
        config,
        branches,
        weight=dataset.weights,
        collision=dataset.source.collision,
        require=dataset.require,
    )


def skim(
    config: Config,
    branches: Sequence[str],
    *,
    weight: str | None = "none",
    collision: tuple[str, ...] | None = None,
    require: tuple[str, ...] = (),
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Skim:
    """What to read: the columns that are needed, and objects and events that some threshold may select.

    Args:
        config: the run.
        branches: with one value per event.
        weight: of an event, as `Skim.weight`.
        collision: branches that name a collision, as `Skim.collision`.
        require: what events must meet besides what the config requires.
        extra: further columns to keep, by collection. Resolution factors of the objects may have any size, so with
            them no object is dropped for a column that they change.
    """
    extra = extra or {}
    objects = []
    for name, collection in config.objects.items():
        variables = (*collection.variables.values(), *_replaced(config, name), *extra.get(name, ()))
        any_size = {
            column for each in config.variations.values() if each.branch in variables for column in each.resolution
        }
        rules = [_requirement(rule) for rule in collection.require]
        for rule in loosest(config, name):
            widest = None if f"{name}.{rule.variable}" in any_size else _widest(config, name, rule)
            if widest is not None:
                rules.append(Requirement(collection.variables[rule.variable], rule.keep, widest, rule.absolute))
        objects.append(ObjectSkim(collection.branch, tuple(dict.fromkeys(variables)), tuple(rules)))
    return Skim(
        objects=tuple(objects),
        event_variables=tuple(dict.fromkeys((*branches, *_replaced(config)))),
        at_least=tuple(_at_least(config)),
        require=(*config.data.require, *require),
        weight=weight,
        collision=collision,
        certified=None if config.data.certified is None else certified_blocks(config.data.certified),
    )


def loosest(config: Config, collection: str) -> list[Loosest]:
    """What the objects of a collection need that any set may select: rules that all of its outermost sets have.

    Only rules on columns of the file; they hold for the varied values, before any calibration.
    """
    sets = [name for name, each in config.object_sets.items() if each.of == collection and each.within is None]
    rules = [dict(_rules(cut for cut in config.cuts.values() if name in cut.objects)) for name in sets]
    stored = config.objects[collection].variables
    common = [key for key in (rules[0] if rules else {}) if key[0] in stored and all(key in each for each in rules)]
    chosen = []
    for variable, keep, absolute in common:
        value = (min if keep == "above" else max)(each[variable, keep, absolute] for each in rules)
        before = _before(value, keep, *_calibrated(config, f"{collection}.{variable}"))
        if before is not None:
            chosen.append(Loosest(variable, keep, before, absolute))
    return chosen


def _calibrated(config: Config, column: str) -> tuple[float, float]:
    """The smallest and the largest factor that calibrations may put on a column."""
    reaches = [each.reach for each in config.calibrations.values() for name in each.scale if name == column]
    return math.prod((low for low, _ in reaches), start=1.0), math.prod((high for _, high in reaches), start=1.0)


def _before(value: float, keep: Literal["above", "below"], lowest: float, highest: float) -> float | None:
    """The limit for a column, so that nothing is lost when factors change it; None where there is no limit."""
    if keep == "above":
        return value / highest if value >= 0 else (value / lowest if lowest > 0 else None)
    if value < 0:
        return value / highest
    return value / lowest if lowest > 0 else None


def check_read(config: Config, thresholds: Mapping[str, float]) -> None:
    """No threshold is looser, and no calibration further away, than what was read allows: objects would be missing.

    Raises:
        ConfigError: one is.
    """
    for name, cut in config.cuts.items():
        for key, ((_, keep, _), limit) in zip(cut.thresholds(name), _rules([cut]), strict=False):
            if not _limits_reading(config, cut, keep):
                continue
            value = thresholds.get(key, limit)
            if not (value >= limit if keep == "above" else value <= limit):
                raise ConfigError(
                    f"{key}: {value:g} is asked for, but objects are read {keep} {limit:g} only, for its bounds; widen "
                    f"cuts.{name}.bounds, or set cuts.{name}.threshold"
                )
    for name, each in config.calibrations.items():
        low, high = each.reach
        of_objects = [column.partition(".") for column in each.scale if "." in column]
        if not any(rule.variable == variable for of, _, variable in of_objects for rule in loosest(config, of)):
            continue
        if not low <= thresholds.get(name, low) <= high:
            raise ConfigError(
                f"{name}: {thresholds[name]:g} is asked for, but objects are read for values from {low:g} to {high:g}; "
                f"give calibrations.{name} wider bounds"
            )


def _limits_reading(config: Config, cut: Cut, keep: str) -> bool:
    """Whether objects are left unread because of a cut, which is one that all outermost sets of a collection have."""
    sets = [config.object_sets[each] for each in cut.objects if not cut.on_events]
    collections = {each.of or "" for each in sets if each.within is None}
    key = (cut.variable, keep, cut.absolute)
    return any((r.variable, r.keep, r.absolute) == key for of in collections for r in loosest(config, of))


_Key = tuple[str, Literal["above", "below"], bool]


def _rules(cuts: Iterable[Cut]) -> Iterable[tuple[_Key, float]]:
    """One-sided rules that the objects pass which the cuts, all of them, may select; the tightest of each kind."""
    rules: dict[_Key, float] = {}
    for cut in cuts:
        if cut.keep == "outside":
            continue
        low_and_high = list(cut.thresholds("").values())
        for number, threshold in enumerate(low_and_high):
            keep: Literal["above", "below"] = "above" if cut.keep == "above" else "below"
            if cut.keep == "inside":
                keep = "above" if number == 0 else "below"
            value = threshold.threshold
            if threshold.bounds is not None:
                low, high = threshold.bounds
                margin = threshold.widest_bandwidth
                value = low - margin if keep == "above" else high + margin
            key = (cut.variable, keep, cut.absolute)
            rules[key] = value if key not in rules else (max if keep == "above" else min)(rules[key], value)
    return rules.items()


def _widest(config: Config, collection: str, rule: Loosest) -> float | None:
    """The value for the nominal column, so that no variation of it is lost; None where there is no limit.

    A resolution is taken to change a column by no more than eight standard deviations.
    """
    factors, column = [1.0], f"{collection}.{rule.variable}"
    for variation in config.variations.values():
        if column in variation.columns:
            return None
        width = 8 * variation.resolution.get(column, 0.0)
        factors += [variation.scale.get(column, 1.0) * (1 + spread) for spread in (-width, width)]
    return _before(rule.value, rule.keep, min(factors), max(factors))


def _at_least(config: Config) -> Iterable[tuple[tuple[str, ...], int]]:
    """(branches of collections, how many objects they need together) so that an event may be in a region."""
    sets, unions = config.object_sets, config.unions
    for name in (*sets, *unions):
        collections = [sets[part].of for part in unions.get(name, (name,))]
        least = [config.requirements(region).get(name) for region in config.regions]
        minimum = min((each.min or 0 if each is not None else 0 for each in least), default=0)
        if minimum > 0 and len(set(collections)) == len(collections):
            yield tuple(config.objects[of or ""].branch for of in collections), int(-(-minimum // 1))


def _replaced(config: Config, collection: str = "") -> list[str]:
    """Columns of a collection, or of the events, that stand in the place of others in a variation."""
    return [
        branch
        for variation in config.variations.values()
        for column, branch in variation.columns.items()
        if column.rpartition(".")[0] == collection
    ]


def _requirement(rule: ConfigRequirement) -> Requirement:
    if rule.equal is not None:
        return Requirement(rule.variable, "equal", rule.equal)
    return Requirement(rule.variable, "bits", rule.bits or 0)
