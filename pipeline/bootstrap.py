"""Statistical errors of an expected significance by the Poisson bootstrap.

Every event gets a weight from Poisson(1), the same in all kinematic variations and for all thresholds that are compared, so the error of
a difference is the error of the difference, not the sum of two errors. Data sets are independent, and so are their weights.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Data
from pipeline.selection import Thresholds

__all__ = ["bootstrap", "resampled"]


def bootstrap(
    value: Callable[[Thresholds, Data], float], points: Sequence[Thresholds], data: Data, replicas: int, seed: int
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


def resampled(data: Data, generator: np.random.Generator) -> Data:
    """The data with every event weight multiplied by a Poisson(1) number."""

    def weights(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return weight * generator.poisson(1.0, weight.shape).astype(np.float32)

    groups = tuple(
        eqx.tree_at(lambda group: group.weight, group, jnp.asarray(weights(np.asarray(group.weight))))
        for group in data.groups
    )
    return eqx.tree_at(lambda data: data.groups, data, groups)
