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
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt32

__all__ = [
    "MAX_OBJECTS",
    "block_size",
    "boundary_flux",
    "for_each",
    "for_each_flip",
    "kernel",
    "kernel_integral",
    "pack",
    "with_derivatives",
]

MAX_OBJECTS = 31
"""Objects of one kind that an event may have: their sets are bit masks in 32 bits, with signs out of the way."""

BLOCK = 256
"""Objects near a boundary that are looked at together: enough to vectorise, few enough to leave no large rest.

With 1024, a step with a network took a quarter longer."""
TURNS = 8
"""A block is no smaller than this part of a chunk: on a GPU, which wants large chunks, each turn of a loop is dear."""

State = TypeVar("State")


def kernel(distance: Float[Array, "*shape"], bandwidth: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """Epanechnikov kernel, of unit integral and support ±bandwidth: most objects lie outside and need no flip.

    In the form ¾ (h − x) (h + x) / h³, which any program rounds alike: a product that is added to something is rounded
    or not (FMA), and a quotient is a product with the reciprocal or not, as the compiler likes.
    """
    scale = 0.75 / bandwidth / bandwidth / bandwidth
    value = scale * ((bandwidth - distance) * (bandwidth + distance))
    return jnp.where(jnp.abs(distance) < bandwidth, value, jnp.zeros_like(value))


def kernel_integral(distance: Float[Array, "*shape"], bandwidth: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """The kernel integrated up to a distance: exactly 0 and 1 beyond the bandwidth; 0 for an absent object (NaN)."""
    u = jnp.clip(jnp.where(jnp.isnan(distance), -bandwidth, distance) / bandwidth, -1, 1)
    return 0.5 + 0.75 * u - 0.25 * u**3


def boundary_flux(
    values: Float32[Array, "*shape"],
    threshold: Float32[Array, ""],
    bandwidth: Float32[Array, "..."],
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
        bandwidth: of the kernel; or of one for each object.
        above: the upper side of the cut: objects that pass x > t, or that fail x < t. An object right on the threshold
            passes neither, so the values alone do not tell; stored values are coarse enough for that to happen.
        passes_others: objects that pass all other cuts on them.
    """
    side = jnp.where(above, jnp.float32(1), jnp.float32(-1))
    flux = side * kernel(values - threshold, bandwidth)
    return jnp.where(passes_others, flux, jnp.zeros_like(flux))


def pack(passes: Bool[Array, "objects events"]) -> UInt32[Array, " events"]:
    """The set of passing objects of each event as a bit mask: object j is bit j.

    A reduction, not a chain of operations object by object: XLA's code for it is several times faster on a CPU.
    """
    bits = jnp.uint32(1) << jnp.arange(passes.shape[0], dtype=jnp.uint32)
    return jnp.sum(jnp.where(passes, bits[:, None], jnp.uint32(0)), axis=0, dtype=jnp.uint32)


def block_size(events: int) -> int:
    """How many items are looked at together, of a chunk of so many events."""
    return max(BLOCK, events // TURNS)


def for_each(
    count: Int[Array, " events"],
    visit: Callable[[Int32[Array, " items"], Int[Array, " items"], Bool[Array, " items"], State], State],
    start: State,
) -> State:
    """Visit `count` items of each event, each once: `visit(events, numbers, real, state)`, many of them at a time.

    Most events have few items, and some have many. So the pairs of an event and the number of an item in it are
    numbered through, and looked up in blocks of equal size: the work is that for the pairs there are, whatever their
    number. In the last block some places are not `real`.
    """
    until, block = jnp.cumsum(count), block_size(len(count))

    def step(carry: tuple[Int[Array, ""], State]) -> tuple[Int[Array, ""], State]:
        done, state = carry
        pair = done + jnp.arange(block, dtype=until.dtype)
        real = pair < until[-1]
        event = _place_in(until, jnp.where(real, pair, 0))
        before = until[event] - count[event]
        return done + block, visit(event, pair - before, real, state)

    def unfinished(carry: tuple[Int[Array, ""], State]) -> Bool[Array, ""]:
        return carry[0] < until[-1]

    return jax.lax.while_loop(unfinished, step, (jnp.zeros((), until.dtype), start))[1]


def _place_in(until: Int[Array, " events"], pair: Int[Array, " items"]) -> Int32[Array, " items"]:
    """`jnp.searchsorted`: halving in a loop on a CPU; unrolled elsewhere, where each turn of a loop is dear."""

    def search(method: str) -> Callable[..., Int[Array, " items"]]:
        def place(until: Int[Array, " events"], pair: Int[Array, " items"]) -> Int[Array, " items"]:
            found = jnp.searchsorted(until, pair, side="right", method=method)
            # XLA would repeat the unrolled search wherever its result is used.
            result: Array = jax.lax.optimization_barrier(found)  # type: ignore[no-untyped-call]
            return result

        return place

    place: Array = jax.lax.platform_dependent(until, pair, cpu=search("scan"), default=search("scan_unrolled"))
    return place.astype(jnp.int32)


def for_each_flip(
    near: UInt32[Array, " events"],
    objects: int,
    visit: Callable[[Int32[Array, " flips"], Int32[Array, " flips"], Bool[Array, " flips"], State], State],
    start: State,
) -> State:
    """Visit each object near a boundary once: `visit(events, numbers of the objects, real, state)`.

    `objects`: how many an event has at most.
    """

    def visit_bit(
        event: Int32[Array, " flips"], number: Int32[Array, " flips"], real: Bool[Array, " flips"], state: State
    ) -> State:
        return visit(event, _nth_bit(near[event], number, objects), real, state)

    return for_each(jnp.bitwise_count(near).astype(jnp.int32), visit_bit, start)


def _nth_bit(bits: UInt32[Array, " flips"], n: Int32[Array, " flips"], width: int) -> Int32[Array, " flips"]:
    """Position of the nth bit that is set, from 0: the number of positions up to which no more than n are set.

    To halve the word again and again takes fewer operations, but XLA repeats such a chain wherever its result is used.
    """
    up_to = jnp.asarray([(2 << position) - 1 for position in range(width)], jnp.uint32)[:, None]
    early = jnp.bitwise_count(bits[None] & up_to).astype(jnp.int32) <= n[None]
    return jnp.sum(early, axis=0, dtype=jnp.int32)


def with_derivatives(
    value: Callable[..., Float[Array, "kinematics datasets bins columns"]],
    value_and_flux: Callable[
        ...,
        tuple[
            Float[Array, "kinematics datasets bins columns"],
            dict[str, Float[Array, "kinematics datasets subsamples bins columns"]],
        ],
    ],
) -> Callable[..., Float[Array, "kinematics datasets bins columns"]]:
    """The hard function `value(thresholds, *data)` with its derivative by thresholds taken from `value_and_flux`.

    `value_and_flux` returns the same value and, keyed as `thresholds`, the boundary flux of each. The rule is a
    contraction with the tangents, so JAX uses it forward and backward; data and bandwidths carry no derivative here.
    A threshold is a scalar, or copies of shape "datasets subsamples" of which each moves its part of the events.

    Both should be compiled, so that JAX has little to trace when it differentiates, anew at every step.
    """

    @jax.custom_jvp
    def differentiable(thresholds: dict[str, Any], *data: Any) -> Float[Array, "..."]:
        return value(thresholds, *data)

    # Symbolic zeros: no array of zeros is made for the events, which do not move.
    @partial(differentiable.defjvp, symbolic_zeros=True)
    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        result, flux = value_and_flux(*primals)
        # What is no threshold (a network) has no flux: its derivative is that of a whole loss (`pipeline.analysis`).
        moved = {name: tangents[0][name] for name in flux if not isinstance(tangents[0][name], SymbolicZero)}
        still = jnp.zeros_like(result)
        return result, _across({name: flux[name] for name in moved}, moved, still) if moved else still

    return differentiable


@jax.jit
def _across(
    flux: dict[str, Float[Array, "kinematics datasets subsamples bins columns"]],
    moved: dict[str, Float[Array, "..."]],
    tangent: Float[Array, "kinematics datasets bins columns"],
) -> Float[Array, "kinematics datasets bins columns"]:
    """How the yields change if thresholds, or copies of them, move."""
    for name, derivative in flux.items():
        shift = moved[name].astype(tangent.dtype)
        if shift.ndim == 0:
            tangent += shift * derivative.sum(axis=2)
        else:
            tangent += jnp.einsum("kdsbc,ds->kdbc", derivative, shift)
    return tangent
