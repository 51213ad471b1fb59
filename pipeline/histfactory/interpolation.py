"""Interpolation between nominal and varied yields: HistFactory's codes 0, 1, 2, 4 and 4p.

A histosys shift is `up(alpha) * (high - nominal) + down(alpha) * (nominal - low)`: in every code the yields enter
linearly and only the two weights depend on alpha. So a model's histosys shifts are one matrix product.
A normsys factor is a power of the high or low factor and, in code 4, a polynomial of degree six between -1 and +1.

The formulas are those of pyhf 0.7 (`pyhf.interpolators`), which follow CERN-OPEN-2012-016, section 4.1; pyhf names
the codes.
"""

from dataclasses import KW_ONLY
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

__all__ = ["NormsysCurve", "histosys_weights", "normsys_curve", "normsys_factor"]

SMALLEST_FACTOR = 1e-10  # a normsys factor must be positive to have a power; smaller ones are read as this

# Boundary conditions of code 4 at alpha = +-1 (value, slope, curvature) → coefficients of alpha, alpha**2, ... alpha**6.
# pyhf/interpolators/code4.py, with alpha0 = 1.
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


def histosys_weights(
    code: Literal["code0", "code2", "code4p"], alpha: Float64[Array, " histosys"]
) -> tuple[Float64[Array, " histosys"], Float64[Array, " histosys"]]:
    """The weights of `high - nominal` and of `nominal - low` in the shift of a template.

    Args:
        code: piecewise linear ('code0'), quadratic ('code2'), or polynomial of degree six ('code4p') between -1 and
            +1; all are linear outside.
        alpha: the parameters, in standard deviations.
    """
    match code:
        case "code0":
            return jnp.where(alpha > 0, alpha, 0.0), jnp.where(alpha > 0, 0.0, alpha)
        case "code2":
            return _code2_weights(alpha)
        case "code4p":
            return _code4p_weights(alpha)


def _code2_weights(
    alpha: Float64[Array, " histosys"],
) -> tuple[Float64[Array, " histosys"], Float64[Array, " histosys"]]:
    """Pyhf's code 2, which jumps at alpha = +1 and -1.

    The jumps are pyhf's (code2.py multiplies the outer slopes by `alpha - 1` and by `alpha`, and drops the offset that
    would make them meet the parabola). They are kept, because a workspace that asks for code 2 means pyhf's.
    """
    up = jnp.where(alpha > 1, 1.5 * (alpha - 1), jnp.where(alpha < -1, -0.5 * alpha, 0.5 * (alpha**2 + alpha)))
    down = jnp.where(alpha > 1, -0.5 * (alpha - 1), jnp.where(alpha < -1, 1.5 * alpha, 0.5 * (alpha - alpha**2)))
    return up, down


def _code4p_weights(
    alpha: Float64[Array, " histosys"],
) -> tuple[Float64[Array, " histosys"], Float64[Array, " histosys"]]:
    square = alpha**2
    even = square * (15.0 + square * (3.0 * square - 10.0)) / 16.0
    up = jnp.where(alpha > 1, alpha, jnp.where(alpha < -1, 0.0, 0.5 * alpha + even))
    down = jnp.where(alpha > 1, 0.0, jnp.where(alpha < -1, alpha, 0.5 * alpha - even))
    return up, down


class NormsysCurve(eqx.Module):
    """What a normsys factor needs besides alpha; computed once for a fit.

    Attributes:
        log_hi: logarithm of the factor at +1 sigma.
        log_lo: logarithm of the factor at -1 sigma.
        coefficients: of alpha, alpha**2, ... in the polynomial between -1 and +1; none in code 1.
    """

    _: KW_ONLY
    log_hi: Float64[Array, "normsys samples channels"]
    log_lo: Float64[Array, "normsys samples channels"]
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
    lo, hi = jnp.maximum(lo, SMALLEST_FACTOR), jnp.maximum(hi, SMALLEST_FACTOR)
    log_lo, log_hi = jnp.log(lo), jnp.log(hi)
    if code == "code1":
        return NormsysCurve(log_hi=log_hi, log_lo=log_lo, coefficients=jnp.zeros((0, *lo.shape), jnp.float64))
    boundary = jnp.stack([hi - 1.0, lo - 1.0, log_hi * hi, -log_lo * lo, log_hi**2 * hi, log_lo**2 * lo])
    coefficients = jnp.tensordot(jnp.asarray(_CODE4_COEFFICIENTS), boundary, axes=1)
    return NormsysCurve(log_hi=log_hi, log_lo=log_lo, coefficients=coefficients)


def normsys_factor(
    curve: NormsysCurve, alpha: Float64[Array, " normsys"]
) -> Float64[Array, "normsys samples channels"]:
    """The factor of every normsys on every sample and channel, at `alpha` standard deviations."""
    alpha = alpha[:, None, None]
    power = jnp.exp(jnp.where(alpha > 0, alpha * curve.log_hi, -alpha * curve.log_lo))
    if not len(curve.coefficients):
        return power
    polynomial = jnp.zeros_like(power)
    for coefficient in curve.coefficients[::-1]:
        polynomial = (polynomial + coefficient) * alpha
    return jnp.where(jnp.abs(alpha) < 1, 1.0 + polynomial, power)
