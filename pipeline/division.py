"""The events of a run, divided into those for training, for stopping and for validation, as the analysis takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import awkward as ak
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, effects_of_design, events_in_two_regions
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.event_data import Data, Stream, Workers, parts_of
from pipeline.events import split
from pipeline.events.cuts import Thresholds
from pipeline.events.design_effect import squared_sums
from pipeline.events.table import list_events
from pipeline.inference.templates import Recipe
from pipeline.ingest.samples import Sample
from pipeline.names import Names
from pipeline.networks import fresh_networks
from pipeline.on_disk import stream, too_large
from pipeline.parts import Part, data_of, left_out, pick
from pipeline.translation import default_thresholds

__all__ = ["division", "everything", "fresh", "with_design"]


def division(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    turns: Sequence[float],
    report: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> tuple[list[dict[str, Data | Stream]], dict[str, int]]:
    """The events of each part by its name, once for each turn; and the objects of each collection in no bit mask.

    Args:
        config: the run.
        names: of it.
        analysis: its static part.
        samples: all data sets.
        turns: where the held-out events begin in a random order of all events, a circle.
        report: gets a line before what takes time.
        workers: who makes arrays of the events, and computes with them; this process, if nobody does.

    Raises:
        InputError: a part is empty, or an event is in two regions that exclude each other.
    """
    shares = _shares(config)
    masks = [_masks(config, samples, shares, turn) for turn in turns]
    parts = [of[name] for of in masks for name in shares]
    data, unseen = _events_of(config, names, analysis, samples, parts, report, workers)
    if config.exclusive and config.may_overlap():
        _check_exclusive(analysis, fresh(config), data)
    number = len(shares)
    divided = [dict(zip(shares, data[first : first + number], strict=True)) for first in range(0, len(data), number)]
    return divided, {name: left // len(turns) for name, left in unseen.items()}


def everything(
    config: Config, names: Names, analysis: Analysis, samples: Sequence[Sample], thresholds: Thresholds
) -> Data | Stream:
    """All events, as one part; `thresholds` are those at which it is measured which events belong together."""
    whole = [np.ones(len(sample.events), bool) for sample in samples]
    (data,), _ = _events_of(config, names, analysis, samples, [whole])
    return with_design(analysis, thresholds, samples, [data])[0]


def _events_of(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    report: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> tuple[Sequence[Data | Stream], dict[str, int]]:
    """Parts of the events, in memory or on disk; and the objects of each collection that are in no bit mask."""
    trial = too_large(config, names, samples, workers)
    if trial is not None:
        return stream(config, names, analysis, samples, parts, trial, report, workers)
    # All at once: parts of equal shapes are compiled once.
    picked = [pick(config, names, samples, part) for part in parts]
    unseen = left_out(sample for part in picked for sample in part)
    return data_of(config, names, analysis, samples, parts, picked), unseen


def with_design(
    analysis: Analysis, thresholds: Thresholds, samples: Sequence[Sample], parts: Sequence[Data | Stream]
) -> list[Data | Stream]:
    """The same parts of the events, with variances of templates that know which events belong together.

    So do those of the shifts by the variations, where the measurement asks for them.
    """
    if any(_has_several_of_a_collision(sample) for sample in samples):
        effects = effects_of_design(analysis, thresholds, (each for part in parts for each in parts_of(part)))
        parts = [part.with_recipe(part.recipe.with_effects(effects)) for part in parts]
    if analysis.measurement.treats_variations:
        parts = [part.with_recipe(_with_shift_variances(analysis, thresholds, part)) for part in parts]
    return list(parts)


def _with_shift_variances(analysis: Analysis, thresholds: Thresholds, part: Data | Stream) -> Recipe:
    """Templates with the statistical errors of what each variation adds to the nominal one, measured as the design."""
    lists = (list_events(analysis.events, thresholds, each.events) for each in parts_of(part))
    shifts = np.asarray(part.recipe.yields - part.recipe.yields[:1])
    variance = squared_sums(lists, shifts, analysis.selection.bins)
    return replace(part.recipe, shift_variance=jnp.asarray(variance))


def fresh(config: Config) -> Thresholds:
    """The default parameters, with networks that have seen no event."""
    return default_thresholds(config) | fresh_networks(config)


def _check_exclusive(analysis: Analysis, thresholds: Thresholds, parts: Sequence[Data | Stream]) -> None:
    """Raise where an event is in two regions.

    Raises:
        InputError: with the regions, and how many events they share.
    """
    for part in parts:
        for (first, second), number in events_in_two_regions(analysis, thresholds, part).items():
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


def _masks(
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
                f"none of the {sum(map(len, masks))} events that pass is for {name}; use more events, or wider bounds "
                "of the cuts (events of one collision are in one part; the manifest says which branches name it: "
                "'collision')"
            )
    return parts


def _has_several_of_a_collision(sample: Sample) -> bool:
    numbers = ak.to_numpy(sample.events.collision)
    return len(np.unique(numbers)) < len(numbers)
