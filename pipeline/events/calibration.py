"""Calibrations: numbers that multiply columns of the events before any cut, such as a jet energy scale.

They are parameters of the analysis like thresholds: the yields are exact for any value of them, and have a derivative
(`pipeline.events.calibration_flux`).
"""

from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from pipeline.events.batch import Event
from pipeline.events.cuts import EVENT, Calibration, Selection, Thresholds

__all__ = ["calibrated", "calibrations_with", "scaled_columns"]

Columns = dict[str, Array]


def calibrations_with(selection: Selection, bandwidths: Thresholds) -> tuple[Calibration, ...]:
    """The calibrations by which the yields have a derivative."""
    return tuple(each for each in selection.calibrations if each.name in bandwidths)


def calibrated(selection: Selection, thresholds: Thresholds, event: Event) -> Event:
    """The events with calibrations at these values; as they are where there is none. At 1, no column changes a bit."""
    if not selection.calibrations:
        return event
    factors: dict[tuple[str, str], Array] = {}
    for each in selection.calibrations:
        value = jnp.asarray(thresholds[each.name], jnp.float32)
        for column in each.columns:
            factors[column] = factors[column] * value if column in factors else value
    objects = {name: _times(name, columns, factors) for name, columns in event.objects.items()}
    columns = _times(EVENT, event.columns, factors)
    columns |= _missing_momentum(selection, columns, event.objects, objects)
    return eqx.tree_at(
        lambda each: (each.objects, each.columns, each.before),
        event,
        (objects, columns, event),
        is_leaf=lambda leaf: leaf is None,
    )


def _times(name: str, columns: Columns, factors: dict[tuple[str, str], Array]) -> Columns:
    return {key: factors[name, key] * column if (name, key) in factors else column for key, column in columns.items()}


def _missing_momentum(
    selection: Selection, columns: Columns, before: dict[str, Columns], after: dict[str, Columns]
) -> Columns:
    """Missing momentum takes the opposite of what the objects gain that are above its limit before (`Type-1`)."""
    missing, scaled = selection.missing_momentum, scaled_columns(selection.calibrations)
    follows = [name for name in missing.of if (name, "pt") in scaled] if missing is not None else []
    if missing is None or not follows:
        return {}
    pt, phi = columns[missing.pt], columns[missing.phi]
    x, y = pt * jnp.cos(phi), pt * jnp.sin(phi)
    for name in follows:
        nominal, direction = before[name]["pt"], before[name]["phi"]
        gained, counts = after[name]["pt"] - nominal, nominal > missing.above  # what is absent (NaN) does not
        x -= jnp.sum(jnp.where(counts, gained * jnp.cos(direction), 0), axis=0)
        y -= jnp.sum(jnp.where(counts, gained * jnp.sin(direction), 0), axis=0)
    nothing = (x == 0) & (y == 0)  # which has no direction, and no derivative
    away = jnp.where(nothing, jnp.ones_like(x), x)
    return {
        missing.pt: jnp.where(nothing, 0, jnp.hypot(away, y)),
        missing.phi: jnp.where(nothing, phi, jnp.arctan2(y, away)),
    }


def scaled_columns(calibrations: Iterable[Calibration]) -> set[tuple[str, str]]:
    """All columns that some calibrations multiply."""
    return {column for each in calibrations for column in each.columns}
