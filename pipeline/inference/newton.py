"""Newton's method within bounds and a trust region; of the objective it knows value, gradient and Hessian only.

Each step goes to the minimum of the quadratic model among the parameters that are free to move: those not held, and not
pressed against a bound. Where that minimum is further away than the model has proved right, or where the model has
none, because it curves down somewhere, the step goes to the smallest value within a radius (Moré and Sorensen, SIAM
J. Sci. Stat. Comput. 4 (1983) 553). The radius grows while the objective does what the model says. So a long valley
that is nearly flat, of whichever sign its curvature, is crossed in steps that grow, and a maximum or a saddle point is
left even where its slope is exactly zero. A point is called a minimum only if no direction curves down.

Lengths are measured in the parameters' own curvatures: a staterror of a tenth of a per mille and a shape parameter of
order one then weigh the same.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, cholesky, choose, constant, namespace, while_loop
from pipeline.inference.trust_region import FLAT, LONGEST, TINY, restricted, trust_region_step

__all__ = [
    "CLOSE",
    "CONVERGED",
    "Expansion",
    "Minimum",
    "curvature_scale",
    "inverse_among",
    "minimise",
    "stiffened",
    "unsought",
]

CONVERGED = 1e-9  # how far above its minimum a point may believe to be and call itself converged
FINISHED = 1e-18  # where another step changes nothing
CLOSE = 1e-6  # where rounding may hide that a step is one down
ROUNDING = 1e-11  # of a value, or of 1: two values that differ by less are the same
SHORTEST = 1e-13  # a radius below which no step changes anything

Vector = Float64[Array, " parameters"]
Matrix = Float64[Array, "parameters parameters"]


class Expansion(eqx.Module):
    """An objective at a point, to second order."""

    _: KW_ONLY
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    hessian: Float64[Array, "parameters parameters"]


class Minimum(eqx.Module):
    """The last point, what is known there, and where to go next.

    Attributes:
        parameters: the point.
        value: of the objective.
        gradient: there; on a kink the slopes of the side to which the objective falls.
        free: the parameters that are not held and do not press against a bound.
        scale: one over the root of each parameter's own curvature.
        distance: estimated height of the point above the minimum; infinite where a direction curves down.
        iterations: evaluations of value, gradient and Hessian.
        going: whether the search goes on; at its end, whether it ran out of iterations.
        following: the next point.
        near: whether rounding may hide that `following` is a step down.
        predicted: by how much the model says that the value falls.
        length: of the next step.
        radius: within which the model is trusted.
        shift: what was added to the curvatures for the step to end there.
        expansion: of the objective at `parameters`.
    """

    _: KW_ONLY
    parameters: Float64[Array, " parameters"]
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    free: Bool[Array, " parameters"]
    scale: Float64[Array, " parameters"]
    distance: Float64[Array, ""]
    iterations: Int[Array, ""]
    going: Bool[Array, ""]
    following: Float64[Array, " parameters"]
    near: Bool[Array, ""]
    predicted: Float64[Array, ""]
    length: Float64[Array, ""]
    radius: Float64[Array, ""]
    shift: Float64[Array, ""]
    expansion: Expansion

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the point is a minimum."""
        return self.distance <= CONVERGED


def minimise(
    expand: Callable[[Float64[Array, " parameters"]], Expansion],
    start: Float64[Array, " parameters"],
    *,
    movable: Bool[Array, " parameters"],
    lower: Float64[Array, " parameters"],
    upper: Float64[Array, " parameters"],
    kinked: Bool[np.ndarray, " parameters"] | None = None,
    max_iterations: int | Int[Array, ""] = 200,
    enough: Callable[[Minimum], Bool[Array, ""]] | None = None,
) -> Minimum:
    """A local minimum within bounds.

    Args:
        expand: the objective.
        start: where to begin. What is not movable stays there, outside its bounds too.
        movable: the parameters that may move.
        lower: bounds.
        upper: bounds.
        kinked: parameters at whose zero the objective has a kink; its derivatives there are those from below. Static.
        max_iterations: evaluations of `expand`, at most.
        enough: whether to give up after a step.
    """
    xp = namespace(start, movable)
    start = xp.where(movable, xp.clip(start, lower, upper), start)
    lower, upper = xp.where(movable, lower, start), xp.where(movable, upper, start)

    def advance(state: Minimum) -> Minimum:
        trial = expand(state.following)
        gain, first = state.value - trial.value, state.iterations == 0
        rounding = ROUNDING * xp.maximum(1.0, xp.abs(state.value))
        accepted = first | (gain > 1e-3 * state.predicted) | (state.near & (gain > -rounding))
        radius = xp.where(first, state.radius, _radius(state, gain, accepted))
        parameters = xp.where(accepted, state.following, state.parameters)
        expansion = jax.tree.map(lambda new, old: xp.where(accepted, new, old), trial, state.expansion)
        return _look(expand, state, parameters, expansion, radius, accepted, (movable, lower, upper), kinked)

    state = unsought(start, movable)

    def going(state: Minimum) -> Bool[Array, ""]:
        more = state.going & (state.iterations < max_iterations)
        return more if enough is None else more & ~enough(state)

    return while_loop(going, advance, state)


def unsought(start: Float64[Array, " parameters"], movable: Bool[Array, " parameters"]) -> Minimum:
    """What is known before anything was evaluated: nothing but where to look first."""
    xp, blank = namespace(start), namespace(start).zeros_like(start)
    zero, infinite = xp.zeros((), np.float64), xp.full((), xp.inf, np.float64)
    return Minimum(
        parameters=start,
        value=infinite,
        gradient=blank,
        free=movable,
        scale=blank,
        distance=infinite,
        iterations=xp.asarray(0),
        going=xp.asarray(True),
        following=start,
        near=xp.asarray(False),
        predicted=zero,
        length=zero,
        radius=xp.sqrt(1.0 + xp.sum(movable, dtype=np.float64)),
        shift=zero,
        expansion=Expansion(value=infinite, gradient=blank, hessian=xp.zeros((len(start), len(start)), np.float64)),
    )


def curvature_scale(hessian: Float64[Array, "parameters parameters"]) -> Float64[Array, " parameters"]:
    """One over the root of each parameter's own curvature; 1 for a parameter without any."""
    xp = namespace(hessian)
    curvature = xp.abs(xp.diag(hessian))
    return xp.where(curvature > 0, 1.0 / xp.sqrt(xp.where(curvature > 0, curvature, 1.0)), 1.0)


def stiffened(
    matrix: Float64[Array, "parameters parameters"], among: Bool[Array, " parameters"]
) -> tuple[Float64[Array, "parameters parameters"], Float64[Array, "parameters parameters"]]:
    """A Hessian among some parameters that can be inverted, though it be flat in some directions.

    A direction without curvature gets some. What is added is not differentiated, and its own inverse is returned with
    the sum: the inverse of the sum minus that one is the inverse where the matrix is not flat, zero where it is. Among
    the other parameters the sum is the identity.
    """
    xp = namespace(matrix)
    scale = constant(curvature_scale(matrix))
    scaled = constant(restricted(matrix * scale[:, None] * scale[None, :], among))

    def flat_directions(scaled: Matrix) -> Matrix:
        values, vectors = xp.linalg.eigh(scaled)
        projector: Matrix = xp.where(xp.abs(values)[None, :] <= FLAT, vectors, 0.0) @ vectors.T
        return projector

    # Definite by more than rounding; a factorisation that fails is NaN.
    definite = xp.all(xp.diag(cholesky(scaled)) ** 2 > FLAT)
    flat = choose(definite, xp.zeros_like, flat_directions, scaled)
    added = flat / (scale[:, None] * scale[None, :])
    return restricted(matrix, among) + added, flat * scale[:, None] * scale[None, :]


def inverse_among(
    hessian: Float64[Array, "parameters parameters"], free: Bool[Array, " parameters"]
) -> tuple[Float64[Array, "parameters parameters"], Float64[Array, " parameters"]]:
    """The inverse of a Hessian among the free parameters, and how much of each is in directions in which it is flat.

    The inverse is zero elsewhere, and in those directions.
    """
    matrix, flat = stiffened(hessian, free)
    xp = namespace(matrix)
    return xp.where(free[:, None] & free[None, :], xp.linalg.inv(matrix) - flat, 0.0), xp.diag(flat)


def _look(
    expand: Callable[[Vector], Expansion],
    last: Minimum,
    here: Vector,
    expansion: Expansion,
    radius: Float64[Array, ""],
    accepted: Bool[Array, ""],
    frame: tuple[Bool[Array, " parameters"], Vector, Vector],
    kinked: Bool[np.ndarray, " parameters"] | None,
) -> Minimum:
    """What is known at a point, and the step from there."""
    xp = namespace(here, expansion)
    movable, lower, upper = frame
    if kinked is None or not kinked.any():
        gradient, hessian = expansion.gradient, expansion.hessian
    else:
        gradient, hessian, lower, upper = _one_side(expand, here, expansion, lower, upper, kinked)
    pressed = ((here <= lower) & (gradient > 0)) | ((here >= upper) & (gradient < 0))
    free = movable & ~pressed
    scale = curvature_scale(hessian)
    slope = xp.where(free, gradient * scale, 0.0)
    matrix = restricted(hessian * scale[:, None] * scale[None, :], free)
    step, distance, shift = trust_region_step(
        matrix, slope, free, radius, last.shift, (lower - here) / scale, (upper - here) / scale
    )
    arrived = (distance <= FINISHED) | ((distance <= CONVERGED) & (~accepted | (distance > 0.25 * last.distance)))
    return Minimum(
        parameters=here,
        value=expansion.value,
        gradient=gradient,
        free=free,
        scale=scale,
        distance=distance,
        iterations=last.iterations + 1,
        going=~arrived & xp.isfinite(expansion.value) & (radius > SHORTEST),
        following=_snapped(here, scale * step, lower, upper),
        near=distance <= CLOSE,
        predicted=-xp.dot(slope + 0.5 * matrix @ step, step),
        length=xp.linalg.norm(step),
        radius=radius,
        shift=shift,
        expansion=expansion,
    )


def _radius(state: Minimum, gain: Float64[Array, ""], accepted: Bool[Array, ""]) -> Float64[Array, ""]:
    """The radius after a step: larger where the model was right and the step at the edge, smaller where wrong."""
    xp = namespace(gain, state.radius)
    right = gain > 0.75 * state.predicted
    wrong = ~(gain > 0.25 * state.predicted)
    larger = xp.where(state.length > LONGEST * state.radius, 3.0 * state.radius, state.radius)
    smaller = 0.25 * xp.where(state.length > 0, xp.minimum(state.length, state.radius), state.radius)
    hidden = state.near & accepted  # in rounding: says nothing of the model
    return xp.where(right | hidden, larger, xp.where(wrong, smaller, state.radius))


def _snapped(here: Vector, step: Vector, lower: Vector, upper: Vector) -> Vector:
    """The next point. `here + (bound - here)` may miss the bound by rounding; only on it a parameter is held."""
    xp, there = namespace(here, step), here + step
    rounding = 4 * np.finfo(np.float64).eps * xp.abs(here)
    return xp.where(there <= lower + rounding, lower, xp.where(there >= upper - rounding, upper, there))


def _one_side(
    expand: Callable[[Vector], Expansion],
    here: Vector,
    below: Expansion,
    lower: Vector,
    upper: Vector,
    kinked: Bool[np.ndarray, " parameters"],
) -> tuple[Vector, Matrix, Vector, Vector]:
    """Gradient, Hessian and bounds of the side on which the objective is smooth: a kink is treated as a bound.

    A parameter on its kink may leave it to the side where the objective falls; where it rises on both, the kink is the
    minimum, and its bounds close.
    """
    xp = namespace(here)
    on_kink = kinked & (here == 0.0)
    above = expand(xp.where(on_kink, TINY, here)).gradient
    up = on_kink & (above <= 0) & (-above >= below.gradient)
    down = on_kink & (below.gradient > 0) & ~up
    side = expand(xp.where(up, TINY, here))
    lower = xp.where(kinked & (here >= 0) & ~down, xp.maximum(lower, 0.0), lower)
    upper = xp.where(kinked & (here <= 0) & ~up, xp.minimum(upper, 0.0), upper)
    return side.gradient, side.hessian, lower, upper
