"""Which events are for training, for stopping and for validation: by a hash, so that no order or file matters."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import splitmix64

__all__ = ["lots", "parts"]


def lots(seed: int, identity: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each event, by a hash of what names its collision.

    Events of one collision draw the same lot, so parts that are made with it share no collision.
    """
    hashed = splitmix64(identity ^ splitmix64(np.array([seed], np.uint64)))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def parts(lots: NDArray[np.float64], shares: Mapping[str, float], turn: float = 0.0) -> dict[str, NDArray[np.bool_]]:
    """Which events are in each part.

    Args:
        lots: of the events.
        shares: of the events, for each part; they add up to 1.
        turn: where on the circle of lots the first part begins.
    """
    until = np.cumsum(list(shares.values()))[:-1]
    number = np.searchsorted(until, (lots - turn) % 1.0, side="right")
    return {name: number == place for place, name in enumerate(shares)}
