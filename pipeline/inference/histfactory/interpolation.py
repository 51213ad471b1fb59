"""Interpolation between nominal and varied yields: HistFactory's codes 0, 1, 2, 4 and 4p.

In every code the shift of a template is `odd(alpha) * (high - low) / 2 + even(alpha) * ((high + low) / 2 - nominal)`:
only two functions of alpha differ from code to code, and the shifts of a model are one matrix product.
A normsys factor is a power of the high or low factor and, in code 4, a polynomial of degree six between -1 and +1.

The formulas are those of pyhf 0.7 (`pyhf.interpolators`), which follow CERN-OPEN-2012-016, section 4.1; pyhf names
the codes.
"""

from dataclasses import KW_ONLY
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from pipeline.inference.histfactory.arrays import Array, namespace

__all__ = [
    "NormsysCurve",
    "histosys_expansion",
    "histosys_weights",
    "normsys_curve",
    "normsys_expansion",
    "normsys_factor",
]

SMALLEST_FACTOR = 1e-10  # a normsys factor must be positive to have a power; smaller ones are read as this

# Code 4: value - 1, slope and curvature at alpha = +1 and -1 → coefficients of alpha, alpha**2, ... alpha**6
# (pyhf/interpolators/code4.py, with alpha0 = 1).
_CODE4_COEFFICIENTS = np.array(
    [
        [15 / 16, -15 / 16, -7 / 16, -7 / 16, 1 / 16, -1 / 16],
        [3 / 2, 3 / 2, -9 / 16, 9 / 16, 1 / 16, 1 / 16],
        [-5 / 8, 5 / 8, 5 / 8, 5 / 8, -1 / 8, 1 / 8],
        [-3 / 2, -3 / 2, 7 / 8, -7 / 8, -1 / 8, -1 / 8],
        [3 / 16, -3 / 16, -3 / 16, -3 / 16, 1 / 16, -1 / 16],
        [1 / 2, 1 / 2, -5 / 16, 5 / 16, 1 / 16, 1 / 16],
    ]
)

# The derivative of (1, alpha, ... alpha**6) is this matrix times the same powers.
_POWER_RULE = np.diag(np.arange(1.0, 7.0), k=-1)


def histosys_weights(
    code: Literal["code0", "code2", "code4p"], alpha: Float64[Array, " histosys"]
) -> tuple[Float64[Array, " histosys"], Float64[Array, " histosys"]]:
    """The weights of a template's odd part `(high - low) / 2` and even part `(high + low) / 2 - nominal`.

    Args:
        code: piecewise linear ('code0'), quadratic ('code2'), or polynomial of degree six ('code4p') between -1 and
            +1; all are linear outside.
        alpha: the parameters, in standard deviations.
    """
    xp = namespace(alpha)
    match code:
        case "code0":
            return alpha, _absolute(alpha)
        case "code2":
            # pyhf's code 2 jumps at +1 and -1: the outer slopes multiply `alpha - 1` and `alpha`, without the offset
            # that would meet the parabola. A workspace that asks for code 2 means pyhf's, so the jumps are kept.
            above, below = alpha > 1, alpha < -1
            even = xp.where(above, 2.0 * (alpha - 1.0), xp.where(below, -2.0 * alpha, alpha**2))
            return xp.where(above, alpha - 1.0, alpha), even
        case "code4p":
            square = alpha**2
            inner = square * (15.0 + square * (3.0 * square - 10.0)) / 8.0
            return alpha, xp.where(square < 1, inner, _absolute(alpha))


def histosys_expansion(
    code: Literal["code0", "code2", "code4p"], alpha: Float64[Array, " histosys"]
) -> tuple[Float64[Array, "two histosys"], Float64[Array, "two histosys"], Float64[Array, "two histosys"]]:
    """`histosys_weights`, odd and even, with their first and second derivatives by alpha."""
    xp = namespace(alpha)
    nothing, outer = xp.zeros_like(alpha), xp.where(alpha > 0, 1.0, -1.0)
    match code:
        case "code0":
            slope, curvature = outer, nothing
        case "code2":
            inside = xp.abs(alpha) <= 1
            slope, curvature = xp.where(inside, 2.0 * alpha, 2.0 * outer), xp.where(inside, 2.0, 0.0)
        case "code4p":
            square = alpha**2
            inside = square < 1
            slope = xp.where(inside, alpha * (15.0 + square * (9.0 * square - 20.0)) / 4.0, outer)
            curvature = xp.where(inside, (15.0 + square * (45.0 * square - 60.0)) / 4.0, 0.0)
    return (
        xp.stack(histosys_weights(code, alpha)),
        xp.stack([xp.ones_like(alpha), slope]),
        xp.stack([nothing, curvature]),
    )


class NormsysCurve(eqx.Module):
    """What a normsys factor needs besides alpha; computed once for a fit.

    Attributes:
        odd: half the logarithm of high over low: outside, the exponent is `alpha * odd + |alpha| * even`.
        even: half the logarithm of high times low.
        coefficients: of 1, alpha, ... alpha**6 in the polynomial between -1 and +1; none in code 1.
    """

    _: KW_ONLY
    odd: Float64[Array, "normsys samples channels"]
    even: Float64[Array, "normsys samples channels"]
    coefficients: Float64[Array, "powers normsys samples channels"]


def normsys_curve(
    code: Literal["code1", "code4"],
    lo: Float64[Array, "normsys samples channels"],
    hi: Float64[Array, "normsys samples channels"],
) -> NormsysCurve:
    """Prepare the interpolation of normsys factors.

    Args:
        code: piecewise exponential ('code1'), or exponential with a polynomial between -1 and +1 ('code4').
        lo: factors at -1 sigma. A factor that is not positive has no power, and pyhf returns NaN; it is read as 1e-10
            here, which a fit survives.
        hi: factors at +1 sigma.
    """
    xp = namespace(lo, hi)
    lo, hi = xp.maximum(lo, SMALLEST_FACTOR), xp.maximum(hi, SMALLEST_FACTOR)
    log_lo, log_hi = xp.log(lo), xp.log(hi)
    if code == "code1":
        coefficients = xp.zeros((0, *lo.shape), np.float64)
    else:
        boundary = xp.stack([hi - 1.0, lo - 1.0, log_hi * hi, -log_lo * lo, log_hi**2 * hi, log_lo**2 * lo])
        inner = xp.tensordot(xp.asarray(_CODE4_COEFFICIENTS), boundary, axes=1)
        coefficients = xp.concatenate([xp.ones((1, *lo.shape), np.float64), inner])
    return NormsysCurve(odd=0.5 * (log_hi - log_lo), even=0.5 * (log_hi + log_lo), coefficients=coefficients)


def normsys_factor(
    curve: NormsysCurve, alpha: Float64[Array, " normsys"]
) -> Float64[Array, "normsys samples channels"]:
    """The factor of every normsys on every sample and channel, at `alpha` standard deviations."""
    xp, column = namespace(curve, alpha), alpha[:, None, None]
    outer = xp.exp(column * curve.odd + _absolute(column) * curve.even)
    if not len(curve.coefficients):
        return outer
    powers = _powers(alpha) if xp is jnp else alpha ** np.arange(7.0)[:, None]
    inner = xp.sum(curve.coefficients * powers[:, :, None, None], axis=0)
    return xp.where(xp.abs(column) < 1, inner, outer)


def normsys_expansion(
    curve: NormsysCurve, alpha: Float64[Array, " normsys"]
) -> tuple[
    Float64[Array, "normsys samples channels"],
    Float64[Array, "normsys samples channels"],
    Float64[Array, "normsys samples channels"],
]:
    """`normsys_factor` with its first and second derivative by alpha."""
    xp, column = namespace(curve, alpha), alpha[:, None, None]
    rate = curve.odd + xp.where(column > 0, curve.even, -curve.even)
    outer = xp.exp(column * rate)
    if not len(curve.coefficients):
        return outer, outer * rate, outer * rate**2
    value, slope, half = curve.coefficients[-1], xp.zeros_like(outer), xp.zeros_like(outer)
    for coefficient in curve.coefficients[-2::-1]:  # Horner's rule, for the derivatives too
        value, slope, half = value * column + coefficient, slope * column + value, half * column + slope
    inside = xp.abs(column) < 1
    return (
        xp.where(inside, value, outer),
        xp.where(inside, slope, outer * rate),
        xp.where(inside, 2.0 * half, outer * rate**2),
    )


def _absolute(alpha: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """The absolute value, with the slope from below at zero, where codes 0 and 1 have a kink: pyhf takes that side."""
    return namespace(alpha).where(alpha > 0, alpha, -alpha)


@jax.custom_jvp
def _powers(alpha: Float64[Array, " normsys"]) -> Float64[Array, "powers normsys"]:
    """1, alpha, ... alpha**6. Its derivatives are itself times a constant matrix, which keeps Hessians short."""
    rows = [jnp.ones_like(alpha)]
    for _ in range(6):
        rows.append(rows[-1] * alpha)
    return jnp.stack(rows)


@_powers.defjvp
def _powers_jvp(
    primals: tuple[Float64[Array, " normsys"]], tangents: tuple[Float64[Array, " normsys"]]
) -> tuple[Float64[Array, "powers normsys"], Float64[Array, "powers normsys"]]:
    powers = _powers(*primals)
    return powers, (jnp.asarray(_POWER_RULE) @ powers) * tangents[0][None]
