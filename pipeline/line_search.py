"""The step of an optimiser that evaluates the loss by itself, such as L-BFGS with its search along a line.

It wants a loss that JAX can trace, and of which the gradient is the derivative: that of the smeared analysis. Value and
gradient are compiled into the step, with the events as its argument. The search knows no bounds, so what it sees is the
loss at the nearest place that is allowed, and a derivative that would only push against a bound is none.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float64, PyTree

from pipeline.descent import Ordered, Range, Search
from pipeline.selection import Thresholds

__all__ = ["make_search"]

Loss = Callable[[Thresholds, Thresholds, PyTree], Float64[Array, ""]]


def make_search(
    optimiser: optax.GradientTransformation,
    loss: Loss,
    data: PyTree,
    ranges: Mapping[str, Range],
    ordered: Sequence[Ordered] = (),
) -> Search:
    """The step of the optimiser, compiled when it is first called.

    Args:
        optimiser: from optax.
        loss: (thresholds, bandwidths, data) to what is minimised.
        data: an argument, not closed over: otherwise it would become a constant of what is compiled.
        ranges: of the trainable thresholds.
        ordered: thresholds that have to keep their order.
    """

    @jax.jit
    def step(
        gradient: Thresholds,
        state: PyTree,
        position: Thresholds,
        value: Float64[Array, ""],
        bandwidths: Thresholds,
        data: PyTree,
    ) -> tuple[Thresholds, PyTree]:
        def loss_at(position: Thresholds) -> Float64[Array, ""]:
            return loss(_allowed(position, ranges, ordered), bandwidths, data)

        inward = {name: _inward(gradient[name], position[name], r) for name, r in ranges.items()}
        update, following = optimiser.update(
            inward,
            state,
            position,
            value=value,
            grad=inward,
            value_fn=loss_at,
        )
        # Of the same types as it came in: otherwise the second step would be compiled anew.
        return update, jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), state, following)

    def search(
        gradient: Thresholds,
        state: PyTree,
        position: Thresholds,
        loss: Float64[Array, ""],
        bandwidths: Thresholds,
    ) -> tuple[Thresholds, PyTree]:
        # optax mixes its float32 constants with float64 gradients, as in `pipeline.descent`.
        with jax.numpy_dtype_promotion("standard"):
            return step(gradient, state, position, loss, bandwidths, data)

    return search


def _inward(gradient: Float64[Array, ""], position: Float64[Array, ""], limits: Range) -> Float64[Array, ""]:
    """The derivative, or 0 at a bound that a step down the slope would leave."""
    leaves = ((position * limits.step <= limits.lower) & (gradient > 0)) | (
        (position * limits.step >= limits.upper) & (gradient < 0)
    )
    return jnp.where(leaves, 0.0, gradient)


def _allowed(position: Thresholds, ranges: Mapping[str, Range], ordered: Sequence[Ordered]) -> Thresholds:
    """A place within the bounds, in physical units, where ordered thresholds keep their distance: pushed up if need be.

    It is the place itself where that is allowed, and traceable, unlike the isotonic regression of `pipeline.descent`.
    """
    at = {name: jnp.clip(position[name] * r.step, r.lower, r.upper) for name, r in ranges.items()}
    for one in ordered:
        offsets = one.distance * jnp.arange(len(one.names))
        upper = ranges[one.names[0]].upper - offsets[-1]
        pushed = jax.lax.cummax(jnp.stack([at[name] for name in one.names]) - offsets)
        at |= dict(zip(one.names, jnp.minimum(pushed, upper) + offsets, strict=True))
    return at
