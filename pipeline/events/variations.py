"""What kinematic variations need: random factors of a resolution, and rounding that keeps comparisons true.

Varied columns are made once, on the host, from the columns of the file. The random factors of a resolution are a pure
function of the object itself (event number, direction) and of a seed: neither the order of files nor chunking, skim or
number of workers changes a result, and every repetition is identical.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.hashing import splitmix64

__all__ = ["resolution_factors", "round_down", "round_up"]


def round_up(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """The smallest float32 that is not below the value: infinity beyond the largest one.

    `value > threshold` then holds in float32 exactly when it holds in float64, for every float32 threshold.
    """
    with np.errstate(over="ignore"):
        nearest = value.astype(np.float32)
        above = np.nextafter(nearest, np.float32(np.inf))
    return np.where(nearest.astype(np.float64) < value, above, nearest)


def round_down(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above the value: the same for `value < threshold`."""
    return -round_up(-value)


def resolution_factors(
    event_number: NDArray[np.uint64], eta: NDArray[np.float32], phi: NDArray[np.float32], width: float, seed: int
) -> NDArray[np.float64]:
    """A factor from Normal(1, width) for each jet; arrays have one entry a jet.

    Counter-based: the jet's event number and direction are hashed with the seed to a uniform number, which the
    normal quantile function turns into a normal one.
    """
    direction = (eta.view(np.uint32).astype(np.uint64) << np.uint64(32)) | phi.view(np.uint32).astype(np.uint64)
    hashed = splitmix64(
        splitmix64(event_number.astype(np.uint64) + splitmix64(np.array([seed], np.uint64))) ^ direction
    )
    uniform = ((hashed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    factors: NDArray[np.float64] = 1 + width * ndtri(uniform)
    return factors
