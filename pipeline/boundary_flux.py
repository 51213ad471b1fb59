"""Exact forward, boundary-flux backward: how a hard yield is differentiated.

A hard analysis is a sum over events of w_i · f(S_i): S_i is the *set* of objects of event i that pass the cuts, and f
is any function of that set, with all its counting, ordering, arg-max and binning. The yield is a step function of a
threshold t for every finite sample, and smooth in expectation: raising t lets objects flow out through the boundary,

    dN/dt = − Σ_i w_i Σ_o δ(x_io − t) · [o passes its other cuts] · ( f(S_i ∪ o) − f(S_i ∖ o) )

(Leibniz, Reynolds). Replacing δ by a kernel of bandwidth h estimates it with bias O(h²) and variance O(1/(n h)). The
hard f is evaluated again with the object flipped, so nothing downstream needs a relaxation of its own, and the forward
pass stays the hard analysis itself. Since S_i is one of S ∪ o and S ∖ o, one flip an object is enough.

Here live the parts that know no physics: the kernel, the sign and size of each object's contribution, the walk
over the flips of an event, and the custom derivative rule. Sets of objects are bit masks, one `uint32` an event.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt32

__all__ = ["MAX_OBJECTS", "boundary_flux", "for_each_flip", "kernel", "pack", "with_derivatives"]

MAX_OBJECTS = 31
"""Objects that fit the bit mask of an event; the last bit of the 32 is kept free to mean "no flip"."""

State = TypeVar("State")


def kernel(distance: Float32[Array, "*shape"], bandwidth: Float32[Array, ""]) -> Float32[Array, "*shape"]:
    """Epanechnikov kernel, of unit integral and support ±bandwidth: most objects lie outside and need no flip."""
    u = distance / bandwidth
    return jnp.where(jnp.abs(u) < 1, 0.75 * (1 - u * u) / bandwidth, jnp.zeros_like(u))


def boundary_flux(
    values: Float32[Array, "*shape"],
    threshold: Float32[Array, ""],
    bandwidth: Float32[Array, ""],
    above: Bool[Array, "*shape"],
    passes_others: Bool[Array, "*shape"],
) -> Float32[Array, "*shape"]:
    """C such that dN/dt = Σ c · ( f(flipped) − f(unflipped) ), for one cut and each object.

    An object that passes and is flipped out has f(S ∪ o) = f(unflipped); one that fails and is flipped in has
    f(S ∖ o) = f(unflipped); hence the sign. It is the same for x > t and x < t: turning the cut around exchanges
    "passes" and "fails", and also turns the flow. Absent objects (NaN) have no flux.

    Args:
        values: what is cut on.
        threshold: the cut.
        bandwidth: of the kernel.
        above: the upper side of the cut: objects that pass x > t, or that fail x < t. An object right on the threshold
            passes neither, so the values alone do not tell; stored values are coarse enough for that to happen.
        passes_others: objects that pass all other cuts on them.
    """
    side = jnp.where(above, jnp.float32(1), jnp.float32(-1))
    flux = side * kernel(values - threshold, bandwidth)
    return jnp.where(passes_others, flux, jnp.zeros_like(flux))


def pack(passes: Bool[Array, "objects events"]) -> UInt32[Array, " events"]:
    """The set of passing objects of each event as a bit mask: object j is bit j."""
    bits = jnp.zeros(passes.shape[1:], jnp.uint32)
    for j in range(passes.shape[0]):
        bits |= jnp.where(passes[j], jnp.uint32(1 << j), jnp.uint32(0))
    return bits


def for_each_flip(
    near: UInt32[Array, "kinds events"], visit: Callable[[UInt32[Array, "kinds events"], State], State], start: State
) -> State:
    """Visit, in turn, each object near a boundary: `visit(flip, state)` with at most one bit set an event.

    An object may be in sets of several kinds (selected, b-tagged), each with a bit mask of its own. Few objects are
    near a boundary, so the walk takes as many steps as the busiest event has near objects, not as many as there are
    objects. Events that are through have flip = 0.
    """

    def step(carry: tuple[UInt32[Array, "kinds events"], State]) -> tuple[UInt32[Array, "kinds events"], State]:
        left, state = carry
        flip = _first_bit(left)
        return left ^ flip, visit(flip, state)

    def unfinished(carry: tuple[UInt32[Array, "kinds events"], State]) -> Bool[Array, ""]:
        return jnp.any(carry[0] != 0)

    return jax.lax.while_loop(unfinished, step, (near, start))[1]


def _first_bit(sets: UInt32[Array, "kinds events"]) -> UInt32[Array, "kinds events"]:
    """The lowest bit of the first kind that has one, all else 0."""
    first, free = [], jnp.ones(sets.shape[1:], bool)
    for bits in sets:
        first.append(jnp.where(free, bits & (~bits + jnp.uint32(1)), jnp.uint32(0)))
        free &= bits == 0
    return jnp.stack(first)


def with_derivatives(
    value: Callable[..., Float[Array, "..."]],
    value_and_flux: Callable[..., tuple[Float[Array, "..."], dict[str, Float[Array, "..."]]]],
) -> Callable[..., Float[Array, "..."]]:
    """The hard function `value(thresholds, *data)` with its derivative by thresholds taken from `value_and_flux`.

    `value_and_flux` returns the same value and, keyed as `thresholds`, the boundary flux of each. The rule is a
    contraction with the tangents, so JAX uses it forward and backward; data and bandwidths carry no derivative here.
    """

    @jax.custom_jvp
    def differentiable(thresholds: dict[str, Float[Array, ""]], *data: Any) -> Float[Array, "..."]:
        return value(thresholds, *data)

    @differentiable.defjvp
    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        thresholds, *data = primals
        result, flux = value_and_flux(thresholds, *data)
        tangent = jnp.zeros_like(result)
        for name, derivative in flux.items():
            tangent += derivative * tangents[0][name].astype(result.dtype)
        return result, tangent

    return differentiable
