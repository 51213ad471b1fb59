"""Events that are not independent count for fewer: the variance of a histogram of several simulations of one collision.

A simulated sample may hold several detector simulations of one collision. Two of them in one bin are not two
independent events, so the variance of the bin is the sum over collisions of (Σw)², not Σw². The ratio of the two is
what survey statistics calls the design effect (L. Kish, Survey Sampling, 1965). It hardly depends on a threshold, so it
is measured once, at the default cuts, for each data set; where every event is a collision of its own it is 1.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.events.table import EventList

__all__ = ["design_effects"]


def design_effects(lists: Iterable[EventList], datasets: int, bins: int) -> NDArray[np.float64]:
    """Of each data set, over all bins; 1 for a data set without selected events.

    Args:
        lists: of disjoint parts of the events that share no collision.
        datasets: how many there are.
        bins: of all regions together.
    """
    by_collision, by_event = np.zeros(datasets), np.zeros(datasets)
    for events in lists:
        chosen = (events.kinematic == 0) & (events.position < bins)
        weight = events.columns[0, chosen].astype(np.float64)
        places = np.stack([events.dataset[chosen], events.position[chosen], events.collision[chosen]])
        together, of = np.unique(places, axis=1, return_inverse=True)
        sums = np.bincount(of.ravel(), weight, minlength=together.shape[1])
        by_collision += np.bincount(together[0], sums**2, minlength=datasets)
        by_event += np.bincount(events.dataset[chosen], weight**2, minlength=datasets)
    return np.where(by_event > 0, by_collision / np.where(by_event > 0, by_event, 1.0), 1.0)
