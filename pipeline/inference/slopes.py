"""A value that was computed elsewhere, as a function that JAX can differentiate: its slope was computed there, too."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float64

__all__ = ["with_slope", "with_weights"]


@jax.custom_jvp
def with_slope(
    value: Float64[Array, ""], slope: Float64[Array, "*shape"], yields: Float64[Array, "*shape"]
) -> Float64[Array, ""]:
    """A function of the yields that was computed elsewhere, with its slope."""
    del slope, yields
    return value


@partial(with_slope.defjvp, symbolic_zeros=True)
def _along_slope(primals: Any, tangents: Any) -> tuple[Array, Array]:
    still = isinstance(tangents[2], SymbolicZero)
    return primals[0], jnp.zeros(()) if still else jnp.vdot(primals[1], tangents[2])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_weights(
    halves_of: Callable[..., dict[str, Any]],
    value: Float64[Array, ""],
    networks: dict[str, Any],
    point: tuple[Any, ...],
) -> Float64[Array, ""]:
    """A function of the weights of networks that was computed elsewhere; its derivative takes a pass over the events.

    Args:
        halves_of: of a point, the derivative by the weights of each network, in two halves that add up to it.
        value: of the function.
        networks: by name; they have `weights`.
        point: where it was computed.
    """
    del halves_of, networks, point
    return value


@partial(with_weights.defjvp, symbolic_zeros=True)
def _along_weights(halves_of: Callable[..., dict[str, Any]], primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, _, point = primals
    change = jnp.zeros(()) if isinstance(tangents[0], SymbolicZero) else tangents[0]
    moved = {name: jax.tree.leaves(network.weights) for name, network in tangents[1].items()}
    if all(isinstance(leaf, SymbolicZero) for leaves in moved.values() for leaf in leaves):
        return value, change
    halves = halves_of(*point)
    for name, leaves in moved.items():
        for half, tangent in zip(jax.tree.leaves(halves[name]), leaves, strict=True):
            if not isinstance(tangent, SymbolicZero):
                change = change + jnp.vdot(half.sum(axis=0), tangent.astype(half.dtype))
    return value, change
