"""A look at the first entries of a file, before a run: what it holds, and whether the cuts can be meant of it.

A wrong unit, a wrong length and a threshold outside of everything that there is show in a basket of entries; a run
would find them after minutes, or not at all.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Cut
from pipeline.errors import InputError
from pipeline.ingest.columns import columns_of
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.fileskim import rows_of_file
from pipeline.ingest.samples import skim_of
from pipeline.names import Names

__all__ = ["Seen", "check_reach", "look", "wrong_units"]

ENTRIES = 2000
"""That are looked at."""

LARGEST_IN_GEV = 2000.0
"""A median beyond cannot be of GeV: MeV are."""

Seen = dict[str, NDArray[np.float64]]
"""Values of what cuts name: `jet.pt`, or a variable of the events."""


def look(config: Config, names: Names, dataset: Dataset, location: str) -> Seen:
    """The variables of all cuts in the first entries of a file, as far as branches hold them.

    Raises:
        InputError: the file lacks a branch, or holds another number of entries than the manifest says.
    """
    wanted = skim_of(config, tuple(names.branches.values()), dataset)
    with rows_of_file(location, dataset.source.tree, wanted.branches) as rows:
        _check_entries(dataset, location, rows.entries)
        columns = columns_of(location, rows, wanted, 0, min(ENTRIES, rows.entries))
    seen: Seen = {}
    for of, variable in _named(config):
        if of is None:
            values = columns.events.get(names.branches.get(variable, ""))
        else:
            collection = config.objects[of]
            values = columns.collections[collection.branch].variables.get(collection.variables.get(variable, ""))
        if values is not None:
            seen[variable if of is None else f"{of}.{variable}"] = values.astype(np.float64)
    return seen


def _check_entries(dataset: Dataset, location: str, entries: int) -> None:
    file = dataset.files[0]
    stated = file.events if file.entries is None else file.entries
    if stated is not None and stated != entries:
        raise InputError(
            f"{dataset.key}: {location} has {entries} entries, but the manifest says {stated}; correct the manifest "
            "(a skimmed file states 'entries' beside 'events')"
        )


def _named(config: Config) -> list[tuple[str | None, str]]:
    """(collection, variable) of every cut; no collection for a cut on events."""
    named = [
        (None if cut.on_events else config.object_sets[of].of, cut.variable)
        for cut in config.cuts.values()
        for of in cut.objects
    ]
    return list(dict.fromkeys(named))


def wrong_units(config: Config, seen: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """A sentence for every variable of a cut in GeV whose values cannot be."""
    sentences = []
    for name, cut in config.cuts.items():
        for variable in _variables(config, cut):
            values = np.abs(seen.get(variable, np.zeros(0)))
            if cut.unit == "GeV" and len(values) and (median := float(np.nanmedian(values))) > LARGEST_IN_GEV:
                sentences.append(
                    f"cuts.{name}: the median of {variable} is {median:,.0f} {cut.unit}; is it in MeV? Write the "
                    "threshold in MeV, or make the files in GeV"
                )
    return sentences


def check_reach(config: Config, seen: Sequence[Mapping[str, NDArray[np.float64]]]) -> None:
    """Raise where a cut that every region needs keeps none of what any file shows, wherever its threshold may be.

    Raises:
        InputError: with the cut, and the values that there are.
    """
    for name, cut in config.cuts.items():
        if cut.keep == "outside" or not _is_needed(config, cut):
            continue
        for variable in _variables(config, cut):
            values = np.concatenate([each.get(variable, np.zeros(0)) for each in seen])
            values = np.abs(values) if cut.absolute else values
            values = values[np.isfinite(values)]
            if len(values) and not _kept(cut, values).any():
                raise InputError(
                    f"cuts.{name}: keeps nothing: {variable} is between {values.min():.4g} and {values.max():.4g} in "
                    f"the first {ENTRIES} entries of each file; correct its threshold and bounds"
                )


def _is_needed(config: Config, cut: Cut) -> bool:
    """Whether no event is selected if the cut keeps nothing: a veto has nothing to keep."""
    if cut.on_events:
        return cut.regions is None
    asked = [config.requirements(region) for region in config.regions]
    return any(all(of in each and (each[of].min or 0) >= 1 for each in asked) for of in cut.objects)


def _kept(cut: Cut, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """By the loosest threshold that the cut may have."""
    places = [each for each in (cut.threshold, *(cut.between or ()), *(cut.bounds or ())) if each is not None]
    if cut.keep == "above":
        return np.asarray(values > min(places))
    if cut.keep == "below":
        return np.asarray(values < max(places))
    return np.asarray((values > min(places)) & (values < max(places)))


def _variables(config: Config, cut: Cut) -> list[str]:
    if cut.on_events:
        return [cut.variable]
    return [f"{config.object_sets[of].of}.{cut.variable}" for of in cut.objects]
