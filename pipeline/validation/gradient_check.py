"""Is the gradient right? The boundary flux of every bin beside the finite difference of the exact histogram.

A central difference with step s counts the objects within ±s of the threshold with equal weight; the flux weighs them
with a kernel of bandwidth h. With s = h·√(3/5) both have the same second moment, hence the same bias to leading
order, and they see the same objects: they must agree to a fraction of the statistical error of the finite difference.
That error is computed from the very events that change their bin between the two histograms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from pipeline.analysis import Analysis, Data
from pipeline.events.cuts import arrays
from pipeline.events.table import EventList, list_events
from pipeline.events.yields import yields_and_flux

__all__ = ["GradientCheck", "check_gradients", "with_unit_weights"]

EQUAL_SECOND_MOMENT = np.sqrt(3 / 5)
SUM_OF_SQUARES = 1
"""Its column of the yields (`pipeline.events.yields`)."""


@dataclass(frozen=True)
class GradientCheck:
    """Derivative of the yields by one threshold, shape "kinematics datasets bins columns", two ways."""

    flux: Float64[np.ndarray, "kinematics datasets bins columns"]
    difference: Float64[np.ndarray, "kinematics datasets bins columns"]
    error: Float64[np.ndarray, "kinematics datasets bins columns"]
    effective: Float64[np.ndarray, "kinematics datasets bins columns"]
    """Effective number of independent collisions, (Σ|change|)² / Σchange², behind each finite difference."""

    def of_sums(self) -> "GradientCheck":
        """Without Σw², of which a few heavy events make up most: their error says nothing there."""
        flux, difference, error, effective = (
            np.delete(each, SUM_OF_SQUARES, axis=3) for each in (self.flux, self.difference, self.error, self.effective)
        )
        return GradientCheck(flux, difference, error, effective)

    def pulls(self, least: int = 10) -> Float64[np.ndarray, " entries"]:
        """(flux − difference) / error where enough collisions are behind the difference; all columns."""
        enough = (self.effective >= least) & (self.error > 0)
        return (self.flux - self.difference)[enough] / self.error[enough]


def check_gradients(
    analysis: Analysis, thresholds: Mapping[str, Any], bandwidths: Mapping[str, float], data: Data
) -> dict[str, GradientCheck]:
    """The check for each threshold that has a bandwidth."""
    at, widths = arrays(thresholds), arrays(bandwidths)
    _, flux = yields_and_flux(analysis.events, at, widths, data.events)
    checks = {}
    for name, bandwidth in bandwidths.items():
        step = EQUAL_SECOND_MOMENT * bandwidth
        below, above = (
            list_events(analysis.events, at | arrays({name: thresholds[name] + shift}), data.events)
            for shift in (-step, step)
        )
        checks[name] = _compared(analysis, np.asarray(flux[name][:, :, 0]), below, above, step)
    return checks


def with_unit_weights(data: Data) -> Data:
    """Every event counts one.

    A few heavy events would make the error of a finite difference meaningless, above all that of Σw². Weights enter the
    yields linearly, so the derivative of the counts is the whole question.
    """
    groups = tuple(
        eqx.tree_at(lambda each: each.weight, group, (group.index >= 0).astype(jnp.float32))
        for group in data.events.groups
    )
    return eqx.tree_at(lambda each: each.events.groups, data, groups)


def _compared(
    analysis: Analysis, flux: Float64[np.ndarray, "k d b c"], below: EventList, above: EventList, step: float
) -> GradientCheck:
    """Both lists hold the same events in the same order.

    Several events of one collision are one independent observation: their changes are added before they are squared.
    """
    shape = (analysis.layout.kinematics, analysis.layout.datasets, analysis.selection.bins + 1)
    changed = np.flatnonzero((below.position != above.position) | (below.columns != above.columns).any(axis=0))
    where, terms = [], []
    for events, sign in ((above, 1.0), (below, -1.0)):
        bins = np.ravel_multi_index(
            (events.kinematic[changed], events.dataset[changed], events.position[changed]), shape
        )
        where.append(np.stack([bins, events.collision[changed]], axis=1))
        terms.append(sign * events.columns[:, changed].T.astype(np.float64))
    pairs, group = np.unique(np.concatenate(where), axis=0, return_inverse=True)
    change = np.zeros((len(pairs), flux.shape[3]))
    np.add.at(change, group.ravel(), np.concatenate(terms))

    def per_bin(values: Float64[np.ndarray, "pairs columns"]) -> Float64[np.ndarray, "k d b columns"]:
        sums = np.zeros((int(np.prod(shape)), values.shape[1]))
        np.add.at(sums, pairs[:, 0], values)
        return sums.reshape(*shape, -1)[:, :, : analysis.selection.bins]

    size, squares = per_bin(np.abs(change)), per_bin(change**2)
    filled = squares > 0
    return GradientCheck(
        flux=flux,
        difference=per_bin(change) / (2 * step),
        error=np.sqrt(squares) / (2 * step),
        effective=np.where(filled, size**2 / np.where(filled, squares, 1.0), 0.0),
    )
