"""Is the gradient right? The boundary flux of every bin beside the finite difference of the exact histogram.

A central difference with step s counts the objects within ±s of the threshold with equal weight; the flux weighs them with a kernel of
bandwidth h. With s = h·√(3/5) both have the same second moment, hence the same bias to leading order, and they see the
same objects: they must agree to a fraction of the statistical error of the finite difference. That error is computed from
the very events that change their bin between the two histograms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from pipeline.analysis import Analysis, Data
from pipeline.event_list import EventList, list_events
from pipeline.yields import yields_and_flux

__all__ = ["GradientCheck", "check_gradients"]

EQUAL_SECOND_MOMENT = np.sqrt(3 / 5)


@dataclass(frozen=True)
class GradientCheck:
    """Derivative of the yields by one threshold, shape "kinematics datasets bins columns", two ways."""

    flux: Float64[np.ndarray, "kinematics datasets bins columns"]
    difference: Float64[np.ndarray, "kinematics datasets bins columns"]
    error: Float64[np.ndarray, "kinematics datasets bins columns"]
    moved: Float64[np.ndarray, "kinematics datasets bins"]
    """Events behind the finite difference of a bin: those that enter or leave it."""

    def pulls(self, least: int = 10) -> Float64[np.ndarray, " entries"]:
        """(flux − difference) / error where at least some events moved, all columns."""
        enough = np.broadcast_to((self.moved >= least)[..., None], self.flux.shape) & (self.error > 0)
        return (self.flux - self.difference)[enough] / self.error[enough]


def check_gradients(
    analysis: Analysis, thresholds: Mapping[str, float], bandwidths: Mapping[str, float], data: Data
) -> dict[str, GradientCheck]:
    """The check for each threshold that has a bandwidth."""
    at = {name: jnp.asarray(value, jnp.float64) for name, value in thresholds.items()}
    widths = {name: jnp.asarray(value, jnp.float64) for name, value in bandwidths.items()}
    flux_of = jax.jit(yields_and_flux, static_argnums=(0, 1))
    events = (data.edges, data.groups, data.candidates)
    _, flux = flux_of(analysis.selection, analysis.layout, at, widths, *events)
    checks = {}
    for name, bandwidth in bandwidths.items():
        step = EQUAL_SECOND_MOMENT * bandwidth
        below, above = (
            list_events(analysis, at | {name: jnp.asarray(thresholds[name] + shift, jnp.float64)}, data)
            for shift in (-step, step)
        )
        checks[name] = _compared(analysis, np.asarray(flux[name]), below, above, step)
    return checks


def _compared(
    analysis: Analysis, flux: Float64[np.ndarray, "k d b c"], below: EventList, above: EventList, step: float
) -> GradientCheck:
    """Both lists hold the same events in the same order."""
    shape = (analysis.layout.kinematics, analysis.layout.datasets, analysis.selection.bins + 1, flux.shape[3])
    difference, variance, moved = np.zeros(shape), np.zeros(shape), np.zeros(shape[:3])
    same = (below.position == above.position) & (below.columns == above.columns).all(axis=0)
    stays = below.position == above.position
    for events, sign in ((above, 1.0), (below, -1.0)):
        rows = ~stays
        where = (events.kinematic[rows], events.dataset[rows], events.position[rows])
        terms = events.columns[:, rows].T.astype(np.float64)
        np.add.at(difference, where, sign * terms)
        np.add.at(variance, where, terms**2)
        np.add.at(moved, where, 1)
    rows = stays & ~same
    where = (above.kinematic[rows], above.dataset[rows], above.position[rows])
    change = (above.columns[:, rows] - below.columns[:, rows]).T.astype(np.float64)
    np.add.at(difference, where, change)
    np.add.at(variance, where, change**2)
    np.add.at(moved, where, 1)
    inside = (slice(None), slice(None), slice(0, analysis.selection.bins))
    return GradientCheck(
        flux=flux,
        difference=difference[inside] / (2 * step),
        error=np.sqrt(variance[inside]) / (2 * step),
        moved=moved[inside],
    )
