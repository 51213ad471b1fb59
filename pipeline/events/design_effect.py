"""Events that are not independent count for fewer: the variance of a histogram of several simulations of one collision.

A simulated sample may hold several detector simulations of one collision. Two of them in one bin are not two
independent events, so the variance of the bin is the sum over collisions of (Σw)², not Σw². The ratio of the two is
what survey statistics calls the design effect (L. Kish, Survey Sampling, 1965). It hardly depends on a threshold, so it
is measured once, at the default cuts, for each data set; where every event is a collision of its own it is 1.

The same holds for what a variation adds to a template: a jet energy scale moves few events, and only those carry its
statistical error; another weight of the same events changes each of them a little; only a sample of its own is as
uncertain as the nominal one and itself together.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from pipeline.events.table import EventList

__all__ = ["design_effects", "squared_sums"]


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


def squared_sums(
    lists: Iterable[EventList], coefficients: Float64[np.ndarray, "*templates kinematics datasets columns"], bins: int
) -> Float64[np.ndarray, "*templates datasets"]:
    """The variance of templates that are linear in the yields, each data set's part of it over its nominal Σw².

    It is the sum over bins and collisions of (Σ of all terms)²: of a difference, what both have in common cancels. In a
    data set without selected events, an event counts as it does without kinematic variation.

    Args:
        lists: of disjoint parts of the events that share no collision.
        coefficients: of the yields in each template.
        bins: of all regions together.
    """
    *templates, kinematics, datasets, columns = coefficients.shape
    flat = coefficients.reshape(-1, kinematics, datasets, columns)
    squares, by_event = np.zeros((len(flat), datasets)), np.zeros(datasets)
    for events in lists:
        inside = events.position < bins
        nominal = inside & (events.kinematic == 0)
        by_event += np.bincount(events.dataset[nominal], events.columns[1, nominal], minlength=datasets)
        for dataset in range(datasets):
            chosen = inside & (events.dataset == dataset)
            places = np.stack([events.position[chosen], events.collision[chosen]])
            _, of = np.unique(places, axis=1, return_inverse=True)
            terms, kinematic = events.columns[:, chosen].astype(np.float64), events.kinematic[chosen]
            for template in np.flatnonzero(flat[:, :, dataset].any(axis=(1, 2))):
                added = np.sum(flat[template, kinematic, dataset].T * terms, axis=0)
                squares[template, dataset] += np.sum(np.bincount(of.ravel(), added) ** 2)
    without = flat[:, 0, :, 0] ** 2
    return np.where(by_event > 0, squares / np.where(by_event > 0, by_event, 1.0), without).reshape(
        *templates, datasets
    )
