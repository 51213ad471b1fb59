"""The step of a quadratic model within a radius and within bounds.

To the minimum of the model among the free parameters; where that is further away than the radius, or where the model
has none, because it curves down somewhere, to the smallest value within the radius (Moré and Sorensen, SIAM J. Sci.
Stat. Comput. 4 (1983) 553).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from pipeline.inference.histfactory.arrays import (
    Array,
    cholesky,
    choose,
    namespace,
    solve_cholesky,
    solve_lower,
    while_loop,
)

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


Carry = tuple[_Step, Array, Array, Array, Array]
Flag = Bool[Array, ""]
Flags = Bool[Array, " parameters"]


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
    xp = namespace(matrix, slope)
    chosen, distance = _at_radius(matrix, slope, radius, guess)

    def along_the_curvature(chosen: _Step) -> Vector:
        down = _downward(chosen.factor, slope, free)
        length = xp.linalg.norm(chosen.newton)
        curves = (length < LONGEST * radius) & (down @ matrix @ down < 0)
        reach = xp.where(curves, xp.sqrt(xp.maximum(radius**2 - length**2, 0.0)), 0.0)
        return chosen.newton + reach * down

    # Where the model curves down, its slope may not say which way.
    whole = choose(xp.isfinite(distance), lambda chosen: chosen.newton, along_the_curvature, chosen)
    room = xp.where(whole > 0, highest, xp.where(whole < 0, -lowest, xp.inf)) / xp.maximum(xp.abs(whole), TINY)
    square, curvature = xp.dot(slope, slope), slope @ matrix @ slope
    cauchy = xp.where(curvature > 0, square / xp.maximum(curvature, TINY), xp.inf)
    steepest = -slope * xp.minimum(cauchy, radius / xp.maximum(xp.sqrt(square), TINY))
    raised = matrix + chosen.shift * xp.eye(len(slope), dtype=np.float64)
    steps = xp.stack(
        [
            _within(raised, slope, whole, free, lowest, highest),
            whole * xp.minimum(1.0, xp.min(room)),
            xp.clip(whole, lowest, highest),
            xp.clip(steepest, lowest, highest),
        ]
    )
    falls = -(steps @ slope) - 0.5 * xp.sum(steps * (steps @ matrix), axis=1)
    return steps[xp.argmax(xp.where(xp.isnan(falls), -np.inf, falls))], distance, chosen.shift


def _at_radius(
    matrix: Matrix, slope: Vector, radius: Float64[Array, ""], guess: Float64[Array, ""]
) -> tuple[_Step, Float64[Array, ""]]:
    """The Newton step, or where that is too long or has no meaning the one of the shift with which it ends there.

    With it the height above the minimum, infinite where the matrix is not definite.
    """
    xp = namespace(matrix, slope)
    highest = xp.linalg.norm(slope) / radius + 1.1 * xp.max(xp.sum(xp.abs(matrix), axis=1))  # Gershgorin

    def going(carry: Carry) -> Flag:
        step, low, high, _, count = carry
        length = xp.linalg.norm(step.newton)
        edge = (length >= LONGEST * radius) | (step.shift <= FLAT) | (high - low <= 1e-1 * high)
        return (count == 0) | (~(step.definite & (length <= radius) & edge) & (count < SHIFTS))

    def again(carry: Carry) -> Carry:
        step, low, high, distance, count = carry
        length = xp.linalg.norm(step.newton)
        # Newton's method on 1 / length, which is nearly a straight line in the shift.
        slant = choose(
            count > 0,
            lambda step: xp.sum(solve_lower(step.factor, step.newton) ** 2),
            lambda _: xp.ones((), np.float64),
            step,
        )
        newton = step.shift + length**2 / slant * (length - 0.9 * radius) / (0.9 * radius)
        middle = xp.maximum(xp.sqrt(low * high), low + 1e-3 * (high - low))
        middle = xp.where((count == 1) & (guess > low), guess, middle)
        inside = step.definite & (newton > low) & (newton < high)
        shift = xp.where(count == 0, FLAT, xp.where(inside, newton, middle))
        shift = xp.where(count == SHIFTS - 1, high, shift)  # the highest one is always enough
        factor = cholesky(matrix + shift * xp.eye(len(slope), dtype=np.float64))
        solution = -solve_cholesky(factor, slope)
        following = _Step(shift, solution, factor, xp.all(xp.isfinite(xp.diag(factor))))
        height = xp.where(following.definite, -0.5 * xp.dot(slope, solution), xp.inf)
        short = following.definite & (xp.linalg.norm(solution) <= radius)
        low, high = xp.where(short, low, shift), xp.where(short, shift, high)
        return following, low, high, xp.where(count == 0, height, distance), count + 1

    least = xp.asarray(FLAT)
    blank = _Step(least, xp.zeros_like(slope), xp.zeros_like(matrix), xp.asarray(False))
    start = (blank, least, highest, xp.asarray(xp.inf), xp.asarray(0))
    step, _, _, distance, _ = while_loop(going, again, start)
    return step, distance


def _downward(factor: Matrix, slope: Vector, free: Bool[Array, " parameters"]) -> Vector:
    """The direction of the smallest curvature, by inverse iteration, turned to where the objective falls."""
    xp = namespace(factor, slope)

    def nearer(carry: tuple[Array, Vector]) -> tuple[Array, Vector]:
        solution = solve_cholesky(factor, carry[1])
        return carry[0] + 1, solution / xp.maximum(xp.linalg.norm(solution), TINY)

    start = xp.where(free, np.cos(np.arange(float(len(slope)))), 0.0)
    _, direction = while_loop(lambda carry: carry[0] < 3, nearer, (xp.asarray(0), start))
    return xp.where(xp.dot(slope, direction) > 0, -direction, direction)


def _within(
    raised: Matrix, slope: Vector, newton: Vector, free: Bool[Array, " parameters"], lowest: Vector, highest: Vector
) -> Vector:
    """The Newton step, changed where it would pass a bound.

    A parameter that would pass is pinned at its bound and the others are solved again, until none passes.
    """
    xp = namespace(raised, slope)

    def passing(carry: tuple[Array, Array]) -> Flags:
        step, inside = carry
        return inside & ((step < lowest) | (step > highest))

    def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        step, inside = carry
        rest = inside & ~passing(carry)
        pinned = xp.where(free & ~rest, xp.clip(step, lowest, highest), 0.0)
        target = xp.where(rest, slope + raised @ pinned, 0.0)
        factor = cholesky(restricted(raised, rest))
        return pinned - solve_cholesky(factor, target), rest

    step: Vector
    step, _ = while_loop(lambda carry: xp.any(passing(carry)), again, (newton, free))
    return step


def restricted(matrix: Matrix, free: Bool[Array, " parameters"]) -> Matrix:
    """The matrix among the free parameters, and the identity among the others."""
    xp = namespace(matrix, free)
    return xp.where(free[:, None] & free[None, :], matrix, xp.eye(len(free), dtype=np.float64))
