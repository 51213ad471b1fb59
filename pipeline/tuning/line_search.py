"""The step of an optimiser that evaluates the loss by itself, such as L-BFGS with its search along a line.

It wants a loss of which the gradient is the derivative: that of the smeared analysis. The optimisers of optax are
written to be compiled together with the loss. Here they run as they stand, in Python, and call the loss that is
compiled already: the analysis takes long to compile, a search has a dozen evaluations, and all else is a few numbers.

The search knows no bounds. So what it sees is the loss at the nearest place that is allowed, and a derivative that
would only push against a bound is none.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float64, PyTree

from pipeline.events.cuts import Thresholds
from pipeline.tuning.descent import Search
from pipeline.tuning.ranges import Ordered, Range

__all__ = ["LossAndGradient", "make_search"]

LossAndGradient = Callable[[Thresholds, Thresholds], tuple[Float64[Array, ""], Thresholds]]
"""(thresholds, bandwidths) to the loss and its derivative by each of the thresholds."""


def make_search(
    optimiser: optax.GradientTransformation,
    loss_and_gradient: LossAndGradient,
    ranges: Mapping[str, Range],
    ordered: Sequence[Ordered] = (),
) -> Search:
    """The step of the optimiser.

    Args:
        optimiser: from optax.
        loss_and_gradient: what is minimised, and its derivative.
        ranges: of the trainable thresholds.
        ordered: thresholds that have to keep their order.
    """

    def search(
        gradient: Thresholds,
        state: PyTree,
        position: Thresholds,
        loss: Float64[Array, ""],
        bandwidths: Thresholds,
    ) -> tuple[Thresholds, PyTree]:
        loss_at = _differentiable(lambda thresholds: loss_and_gradient(thresholds, bandwidths))

        def loss_near(position: Thresholds) -> Float64[Array, ""]:
            return loss_at(_allowed(position, ranges, ordered))

        inward = {name: _inward(gradient[name], position[name], r) for name, r in ranges.items()}
        # Relaxed promotion as in `pipeline.tuning.descent`.
        with jax.disable_jit(), jax.numpy_dtype_promotion("standard"):
            update, state = optimiser.update(inward, state, position, value=loss, grad=inward, value_fn=loss_near)
        return update, state

    return search


def _differentiable(
    loss_and_gradient: Callable[[Thresholds], tuple[Float64[Array, ""], Thresholds]],
) -> Callable[[Thresholds], Float64[Array, ""]]:
    """The loss as a function that JAX differentiates, but does not look into: it is compiled as it is."""

    def evaluate(thresholds: Thresholds) -> tuple[Float64[Array, ""], Thresholds]:
        with jax.disable_jit(False):
            return loss_and_gradient(thresholds)

    @jax.custom_vjp
    def loss(thresholds: Thresholds) -> Float64[Array, ""]:
        return evaluate(thresholds)[0]

    def backward(gradient: Thresholds, slope: Float64[Array, ""]) -> tuple[Thresholds]:
        return ({name: slope * value for name, value in gradient.items()},)

    loss.defvjp(evaluate, backward)
    return loss


def _inward(gradient: Float64[Array, ""], position: Float64[Array, ""], limits: Range) -> Float64[Array, ""]:
    """The derivative, or 0 at a bound that a step down the slope would leave."""
    at = position * limits.step
    leaves = ((at <= limits.lower) & (gradient > 0)) | ((at >= limits.upper) & (gradient < 0))
    return jnp.where(leaves, 0.0, gradient)


def _allowed(position: Thresholds, ranges: Mapping[str, Range], ordered: Sequence[Ordered]) -> Thresholds:
    """A place within the bounds, in physical units, where ordered thresholds keep their distance: pushed up if need be.

    It is the place itself where that is allowed, and differentiable, unlike the projection of the loop (`descent`).
    """
    at = {name: jnp.clip(position[name] * r.step, r.lower, r.upper) for name, r in ranges.items()}
    for edges in ordered:
        offsets = edges.distance * jnp.arange(len(edges.names))
        upper = ranges[edges.names[0]].upper - offsets[-1]
        pushed = jax.lax.cummax(jnp.stack([at[name] for name in edges.names]) - offsets)
        at |= dict(zip(edges.names, jnp.minimum(pushed, upper) + offsets, strict=True))
    return at
