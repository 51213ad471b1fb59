"""Statistical errors of an expected significance by the Poisson bootstrap.

Every collision gets a weight from Poisson(1): the same in all kinematic variations, for all its detector simulations,
and for all thresholds that are compared, so the error of a difference is the error of the difference, not the sum of
two errors. Data sets are independent, and so are their weights.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.event_data import Data, Stream
from pipeline.events.cuts import Thresholds

__all__ = ["bootstrap", "resampled"]


def bootstrap(
    value: Callable[[Thresholds, Data | Stream], float],
    points: Sequence[Thresholds],
    data: Data | Stream,
    replicas: int,
    seed: int,
) -> NDArray[np.float64]:
    """The value at several points on bootstrap replicas of the events.

    Returns:
        Shape "replicas points": within a row all points saw the same replica.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(replicas):
        replica = resampled(data, generator)
        rows.append([value(point, replica) for point in points])
    return np.array(rows)


def resampled(data: Data | Stream, generator: np.random.Generator) -> Data | Stream:
    """The data with every event weight multiplied by the Poisson(1) number of its collision."""
    if isinstance(data, Data):
        return _resampled(data, generator)
    seed = int(generator.integers(2**63))
    return data.changed(lambda number, part: _resampled(part, np.random.default_rng((seed, number))))


def _resampled(data: Data, generator: np.random.Generator) -> Data:
    datasets = range(1 + max(int(np.max(np.asarray(group.dataset))) for group in data.events.groups))
    collisions = 1 + max(int(np.max(np.asarray(group.collision))) for group in data.events.groups)
    drawn = generator.poisson(1.0, (len(datasets), collisions)).astype(np.float32)
    groups = []
    for group in data.events.groups:
        dataset, collision = np.asarray(group.dataset)[:, None], np.asarray(group.collision)
        factor = drawn[np.broadcast_to(dataset, collision.shape), collision]
        weight = jnp.asarray(np.asarray(group.weight) * factor)
        groups.append(eqx.tree_at(lambda one: one.weight, group, weight))
    return eqx.tree_at(lambda data: data.events.groups, data, tuple(groups))
