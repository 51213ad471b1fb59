"""Parts of the events of all samples as the traced data of the analysis: dense, of equal shapes, with their recipe."""

from collections import Counter
from collections.abc import Iterable, Sequence

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis
from pipeline.config import Config
from pipeline.event_data import Data
from pipeline.events.batch import EventGroup, Events
from pipeline.events.dense import dense_groups
from pipeline.events.ragged import RaggedSample
from pipeline.inference.templates import DatasetRole, Recipe, Variation, make_recipe
from pipeline.ingest.identity import part_share
from pipeline.ingest.samples import Sample
from pipeline.names import Names
from pipeline.ragged import kinematics, ragged
from pipeline.translation import factors_of, make_edges

__all__ = [
    "Part",
    "bare_data",
    "chunk_size_of",
    "data_of",
    "dense",
    "devices_for",
    "left_out",
    "make_data",
    "pick",
    "recipe_of",
]

CHUNK_SIZES = {"cpu": 4096}
"""Events in a chunk. On a CPU its columns and the state of the trijet search stay in the cache of a core; any other
device wants many at a time."""
OTHER_CHUNK_SIZE = 1 << 18
WORTH_A_DEVICE = 10_000
"""Events for which a device is worth being asked: fewer are done in the time that it takes to ask another one."""

Part = Sequence[NDArray[np.bool_]]
"""Which events of each sample are in a part."""


def chunk_size_of(config: Config) -> int:
    """Events that are looked at together: as the config says, or as suits the kind of device."""
    return config.data.chunk or CHUNK_SIZES.get(jax.default_backend(), OTHER_CHUNK_SIZE)


def devices_for(events: int) -> int:
    """How many of the devices of this process so many events are divided among."""
    return max(1, min(jax.local_device_count(), events // WORTH_A_DEVICE))


def make_data(
    config: Config, names: Names, analysis: Analysis, samples: Sequence[Sample], parts: Sequence[Part]
) -> list[Data]:
    """Parts of the events of all samples as traced data of equal shapes; each stands for all of them."""
    picked = [pick(config, names, samples, part) for part in parts]
    return data_of(config, names, analysis, samples, parts, picked)


def pick(
    config: Config, names: Names, samples: Sequence[Sample], part: Part, whole: Part | None = None
) -> list[RaggedSample]:
    """The events of a part, or of a piece of a `whole` part; weights are in units of the whole."""
    return [
        ragged(config, names, sample.dataset, sample.events[mask], _unit(sample, own))
        for sample, mask, own in zip(samples, part, whole or part, strict=True)
    ]


def data_of(
    config: Config,
    names: Names,
    analysis: Analysis,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    picked: Sequence[Sequence[RaggedSample]],
) -> list[Data]:
    """The events that are `picked` of some parts as traced data."""
    edges = make_edges(config)
    # One program serves all parts, so all are divided among as many devices.
    devices = devices_for(max(sum(map(len, part)) for part in picked))
    return [
        Data(events=Events(groups=groups, edges=edges), recipe=recipe_of(config, analysis, samples, part))
        for part, groups in zip(parts, dense(config, names, picked, devices), strict=True)
    ]


def dense(
    config: Config,
    names: Names,
    picked: Sequence[Sequence[RaggedSample]],
    devices: int,
    of: int | None = None,
    largest: int = OTHER_CHUNK_SIZE,
) -> list[tuple[EventGroup, ...]]:
    """Groups of equal shapes for each of some parts, out of so many events, in chunks that are no larger."""
    return dense_groups(
        picked,
        names.function,
        chunk_size=min(chunk_size_of(config), largest),
        asked=names.asked,
        read=names.read,
        from_below=_from_below(config),
        devices=devices,
        of=of,
    )


def left_out(samples: Iterable[RaggedSample]) -> dict[str, int]:
    """Objects of each collection that are in no bit mask, where there are any."""
    total = sum((Counter(sample.left_out) for sample in samples), Counter[str]())
    return {name: number for name, number in total.items() if number}


def bare_data(config: Config, names: Names, events: ak.Array) -> Data:
    """Events of one file that is no data set of the manifest: weights 1, no templates."""
    (groups,) = dense(config, names, [[ragged(config, names, None, events)]], devices=1)
    empty = Recipe(yields=jnp.zeros((0, 0, 0, 0, 0)), variance=jnp.zeros((0, 0)))
    return Data(events=Events(groups=groups, edges=make_edges(config)), recipe=empty)


def recipe_of(config: Config, analysis: Analysis, samples: Sequence[Sample], part: Part) -> Recipe:
    """The templates of a part of the events, which stands for all of them: as if it had their whole weight."""
    roles = [
        DatasetRole(
            sample.dataset.process,
            sample.dataset.role,
            sample.dataset.normalisation(config.luminosity) * _unit(sample, mask) / _share(sample, mask),
        )
        for sample, mask in zip(samples, part, strict=True)
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


def _unit(sample: Sample, part: NDArray[np.bool_]) -> float:
    """The mean weight without sign: generator weights in this unit are about one."""
    weights = ak.to_numpy(sample.events.weight)[part]
    return float(np.abs(weights).mean()) if len(weights) else 1.0


def _share(sample: Sample, part: NDArray[np.bool_]) -> float:
    """What a part normalises itself by: the share of the weights that it really has."""
    return part_share(ak.to_numpy(sample.events.weight), part, sample.dataset.key)


def _from_below(config: Config) -> set[str]:
    """Columns that cuts keep below a threshold only."""
    above, below = set[str](), set[str]()
    for cut in config.cuts.values():
        prefixes = [""] if cut.on_events else [f"{config.object_sets[name].of}." for name in cut.objects]
        of = below if cut.keep == "below" else above
        of |= {prefix + cut.variable for prefix in prefixes}
    return below - above
