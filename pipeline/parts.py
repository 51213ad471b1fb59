"""Parts of the events of all samples as the traced data of the analysis: dense, of equal shapes, with their recipe."""

from collections import Counter
from collections.abc import Iterable, Sequence

import awkward as ak
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, Data
from pipeline.config import Config
from pipeline.events.batch import Events
from pipeline.events.dense import RaggedSample, dense_groups
from pipeline.inference.templates import DatasetRole, Recipe, Variation, make_recipe
from pipeline.ingest.identity import part_share
from pipeline.ingest.samples import Sample
from pipeline.names import Names
from pipeline.ragged import kinematics, ragged
from pipeline.translation import factors_of, make_edges

__all__ = ["CHUNK_SIZE", "Picked", "bare_data", "data_of", "left_out", "make_data", "pick"]

CHUNK_SIZE = 4096
"""Events in a chunk: its columns and the state of the trijet search stay in the cache of a core."""


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
    picked = pick(config, names, samples, parts)
    return data_of(config, names, analysis, samples, picked, chunk_size)


Picked = list[list[tuple[RaggedSample, float]]]
"""For each part and data set, the events, and what one unit of their weights stands for in the whole."""


def pick(
    config: Config, names: Names, samples: Sequence[Sample], parts: Sequence[Sequence[NDArray[np.bool_]]]
) -> Picked:
    """The events of some parts, `parts` as in `make_data`."""
    return [
        [
            ragged(config, names, sample.dataset, sample.events[mask], _share(sample, mask))
            for sample, mask in zip(samples, masks, strict=True)
        ]
        for masks in parts
    ]


def _share(sample: Sample, part: NDArray[np.bool_]) -> float:
    """What a part normalises itself by: the share of the weights that it really has."""
    return part_share(ak.to_numpy(sample.events.weight), part, sample.dataset.key)


def left_out(samples: Iterable[RaggedSample]) -> dict[str, int]:
    """Objects of each collection that are in no bit mask, where there are any."""
    total = sum((Counter(sample.left_out) for sample in samples), Counter[str]())
    return {name: number for name, number in total.items() if number}


def data_of(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    picked: Picked,
    chunk_size: int = CHUNK_SIZE,
) -> list[Data]:
    """Picked events as traced data; arguments as of `make_data`."""
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
