"""The step of a quadratic model within a radius and within bounds.

To the minimum of the model among the free parameters; where that is further away than the radius, or where the model
has none, because it curves down somewhere, to the smallest value within the radius (Moré and Sorensen, SIAM J. Sci.
Stat. Comput. 4 (1983) 553).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float64

__all__ = ["FLAT", "LONGEST", "TINY", "restricted", "trust_region_step"]

FLAT = 1e-8  # eigenvalues of a scaled Hessian that are smaller are rounding: nothing is known in their direction
LONGEST = 0.8  # of the radius: a step of at least that length is at its edge
TINY = float(np.finfo(np.float64).tiny)
SHIFTS = 40  # tries, at most, for the length of one step

Vector = Float64[Array, " parameters"]
Matrix = Float64[Array, "parameters parameters"]


class _Step(NamedTuple):
    """The step of a matrix with something added to its diagonal."""

    shift: Float64[Array, ""]
    newton: Vector
    factor: Matrix
    definite: Bool[Array, ""]


def trust_region_step(
    matrix: Matrix,
    slope: Vector,
    free: Bool[Array, " parameters"],
    radius: Float64[Array, ""],
    guess: Float64[Array, ""],
    lowest: Vector,
    highest: Vector,
) -> tuple[Vector, Float64[Array, ""], Float64[Array, ""]]:
    """The step to the minimum of the quadratic model within radius and bounds, its shift, and the height above it.

    Of several ways to meet the bounds the one is taken that the model likes best. The first is right where few bounds
    are met, the second and the last always lead down.
    """
    chosen, distance = _at_radius(matrix, slope, radius, guess)

    def along_the_curvature(chosen: _Step) -> Vector:
        down = _downward(chosen.factor, slope, free)
        length = jnp.linalg.norm(chosen.newton)
        curves = (length < LONGEST * radius) & (down @ matrix @ down < 0)
        reach = jnp.where(curves, jnp.sqrt(jnp.maximum(radius**2 - length**2, 0.0)), 0.0)
        return chosen.newton + reach * down

    # Where the model curves down, its slope may not say which way.
    whole = jax.lax.cond(jnp.isfinite(distance), lambda chosen: chosen.newton, along_the_curvature, chosen)
    room = jnp.where(whole > 0, highest, jnp.where(whole < 0, -lowest, jnp.inf)) / jnp.maximum(jnp.abs(whole), TINY)
    square, curvature = jnp.dot(slope, slope), slope @ matrix @ slope
    cauchy = jnp.where(curvature > 0, square / jnp.maximum(curvature, TINY), jnp.inf)
    steepest = -slope * jnp.minimum(cauchy, radius / jnp.maximum(jnp.sqrt(square), TINY))
    raised = matrix + chosen.shift * jnp.eye(len(slope), dtype=jnp.float64)
    steps = jnp.stack(
        [
            _within(raised, slope, whole, free, lowest, highest),
            whole * jnp.minimum(1.0, jnp.min(room)),
            jnp.clip(whole, lowest, highest),
            jnp.clip(steepest, lowest, highest),
        ]
    )
    falls = -(steps @ slope) - 0.5 * jnp.sum(steps * (steps @ matrix), axis=1)
    return steps[jnp.nanargmax(falls)], distance, chosen.shift


def _at_radius(
    matrix: Matrix, slope: Vector, radius: Float64[Array, ""], guess: Float64[Array, ""]
) -> tuple[_Step, Float64[Array, ""]]:
    """The Newton step, or where that is too long or has no meaning the one of the shift with which it ends there.

    With it the height above the minimum, infinite where the matrix is not definite.
    """
    highest = jnp.linalg.norm(slope) / radius + 1.1 * jnp.max(jnp.sum(jnp.abs(matrix), axis=1))  # Gershgorin
    Carry = tuple[_Step, Array, Array, Array, Array]

    def going(carry: Carry) -> Bool[Array, ""]:
        step, low, high, _, count = carry
        length = jnp.linalg.norm(step.newton)
        edge = (length >= LONGEST * radius) | (step.shift <= FLAT) | (high - low <= 1e-1 * high)
        return (count == 0) | (~(step.definite & (length <= radius) & edge) & (count < SHIFTS))

    def again(carry: Carry) -> Carry:
        step, low, high, distance, count = carry
        length = jnp.linalg.norm(step.newton)
        # Newton's method on 1 / length, which is nearly a straight line in the shift.
        slant = jax.lax.cond(
            count > 0,
            lambda step: jnp.sum(solve_triangular(step.factor, step.newton, lower=True) ** 2),
            lambda _: jnp.ones((), jnp.float64),
            step,
        )
        newton = step.shift + length**2 / slant * (length - 0.9 * radius) / (0.9 * radius)
        middle = jnp.maximum(jnp.sqrt(low * high), low + 1e-3 * (high - low))
        middle = jnp.where((count == 1) & (guess > low), guess, middle)
        inside = step.definite & (newton > low) & (newton < high)
        shift = jnp.where(count == 0, FLAT, jnp.where(inside, newton, middle))
        shift = jnp.where(count == SHIFTS - 1, high, shift)  # the highest one is always enough
        factor = jnp.linalg.cholesky(matrix + shift * jnp.eye(len(slope), dtype=jnp.float64))
        solution = -cho_solve((factor, True), slope)
        following = _Step(shift, solution, factor, jnp.all(jnp.isfinite(jnp.diag(factor))))
        height = jnp.where(following.definite, -0.5 * jnp.dot(slope, solution), jnp.inf)
        short = following.definite & (jnp.linalg.norm(solution) <= radius)
        low, high = jnp.where(short, low, shift), jnp.where(short, shift, high)
        return following, low, high, jnp.where(count == 0, height, distance), count + 1

    nothing, least = jnp.zeros_like(slope), jnp.asarray(FLAT)
    blank = _Step(least, nothing, jnp.zeros_like(matrix), jnp.asarray(False))
    start = (blank, least, highest, jnp.asarray(jnp.inf), jnp.asarray(0))
    step, _, _, distance, _ = jax.lax.while_loop(going, again, start)
    return step, distance


def _downward(factor: Matrix, slope: Vector, free: Bool[Array, " parameters"]) -> Vector:
    """The direction of the smallest curvature, by inverse iteration, turned to where the objective falls."""

    def nearer(_: Any, direction: Vector) -> Vector:
        solution: Vector = cho_solve((factor, True), direction)
        return solution / jnp.maximum(jnp.linalg.norm(solution), TINY)

    start = jnp.where(free, jnp.cos(jnp.arange(len(slope), dtype=jnp.float64)), 0.0)
    direction: Vector = jax.lax.fori_loop(0, 3, nearer, start)
    return jnp.where(jnp.dot(slope, direction) > 0, -direction, direction)


def _within(
    raised: Matrix, slope: Vector, newton: Vector, free: Bool[Array, " parameters"], lowest: Vector, highest: Vector
) -> Vector:
    """The Newton step, changed where it would pass a bound.

    A parameter that would pass is pinned at its bound and the others are solved again, until none passes.
    """

    def passing(carry: tuple[Array, Array]) -> Bool[Array, " parameters"]:
        step, inside = carry
        return inside & ((step < lowest) | (step > highest))

    def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        step, inside = carry
        rest = inside & ~passing(carry)
        pinned = jnp.where(free & ~rest, jnp.clip(step, lowest, highest), 0.0)
        target = jnp.where(rest, slope + raised @ pinned, 0.0)
        factor = jnp.linalg.cholesky(restricted(raised, rest))
        return pinned - cho_solve((factor, True), target), rest

    step: Vector
    step, _ = jax.lax.while_loop(lambda carry: jnp.any(passing(carry)), again, (newton, free))
    return step


def restricted(matrix: Matrix, free: Bool[Array, " parameters"]) -> Matrix:
    """The matrix among the free parameters, and the identity among the others."""
    return jnp.where(free[:, None] & free[None, :], matrix, jnp.eye(len(free), dtype=jnp.float64))
