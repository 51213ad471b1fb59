"""Rows of columns put together, the way that is fast on each kind of device."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["joined", "stacked"]


def stacked(rows: Sequence[Array]) -> Array:
    """Arrays of one shape and type, with a new axis in front: `jnp.stack`."""
    return joined([row[None] for row in rows])


def joined(parts: Sequence[Array]) -> Array:
    """Arrays of one type, one after the other along their first axis: `jnp.concatenate`.

    On a CPU, XLA makes a concatenation of what it computes one number at a time, with a branch for each. There, each
    part is written into its place instead.
    """
    total: Array = jax.lax.platform_dependent(*parts, cpu=_written, default=_concatenated)
    return total


def _written(*parts: Array) -> Array:
    rows = sum(part.shape[0] for part in parts)
    total, start = jnp.zeros((rows, *parts[0].shape[1:]), parts[0].dtype), 0
    for part in parts:
        total = jax.lax.dynamic_update_slice_in_dim(total, part, start, 0)
        start += part.shape[0]
    return total


def _concatenated(*parts: Array) -> Array:
    return jnp.concatenate(parts)
