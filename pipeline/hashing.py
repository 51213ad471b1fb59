"""Random-looking numbers that depend on what they are asked for, and on nothing else."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["splitmix64"]


def splitmix64(counter: NDArray[np.uint64]) -> NDArray[Any]:
    """The splitmix64 generator as a hash of a counter: Steele, Lea, Flood, doi:10.1145/2660193.2660195.

    Args:
        counter: Of any shape.

    Returns:
        Numbers of type uint64, of the same shape; two counters never have the same.
    """
    with np.errstate(over="ignore"):
        z = counter + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
