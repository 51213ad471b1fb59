"""Parts of the events of all samples as the traced data of the analysis: dense, of equal shapes, with their recipe."""

from collections import Counter
from collections.abc import Iterable, Sequence

import awkward as ak
import jax
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

__all__ = ["Picked", "bare_data", "chunk_size_of", "data_of", "devices_for", "left_out", "make_data", "pick"]

CHUNK_SIZES = {"cpu": 4096}
"""Events in a chunk. On a CPU its columns and the state of the trijet search stay in the cache of a core; any other
device wants many at a time."""
OTHER_CHUNK_SIZE = 1 << 18
WORTH_A_DEVICE = 10_000
"""Events for which a device is worth being asked: fewer are done in the time that it takes to ask another one."""


def chunk_size_of(config: Config) -> int:
    """Events that are looked at together: as the config says, or as suits the kind of device."""
    return config.data.chunk or CHUNK_SIZES.get(jax.default_backend(), OTHER_CHUNK_SIZE)


def devices_for(events: int) -> int:
    """How many of the devices of this process so many events are divided among."""
    return max(1, min(jax.local_device_count(), events // WORTH_A_DEVICE))


def make_data(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    parts: Sequence[Sequence[NDArray[np.bool_]]],
) -> list[Data]:
    """Parts of the events of all samples as traced data of equal shapes.

    Args:
        config: the run.
        names: of it.
        analysis: its static part.
        samples: all data sets.
        parts: which events of each sample are in each part; each stands for all of them.
    """
    return data_of(config, names, analysis, samples, pick(config, names, samples, parts))


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
) -> list[Data]:
    """Picked events as traced data; arguments as of `make_data`."""
    parts = [[sample for sample, _ in part] for part in picked]
    dense = dense_groups(
        parts,
        names.function,
        chunk_size=chunk_size_of(config),
        asked=names.asked,
        from_below=_from_below(config),
        # One program serves all parts, so all are divided among as many devices.
        devices=devices_for(max(sum(map(len, part)) for part in parts)),
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
    size, from_below = chunk_size_of(config), _from_below(config)
    (groups,) = dense_groups([[sample]], names.function, chunk_size=size, asked=names.asked, from_below=from_below)
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
