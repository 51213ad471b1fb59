"""Interpolation against pyhf's slow, obvious twins."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.inference.histfactory.interpolation import histosys_weights, normsys_curve, normsys_factor
from pyhf import interpolators

from reference.compiling import quick_jit

ALPHAS = np.array([-5.0, -1.7, -1.0, -0.999, -0.4, 0.0, 0.3, 0.999, 1.0, 1.2, 4.5])
LOW, NOMINAL, HIGH = 6.0, 10.0, 13.0


def by_pyhf(code, low, nominal, high):
    sets = [[[[low], [nominal], [high]]]]
    return np.asarray(getattr(interpolators, code)(sets, subscribe=False)(np.array([ALPHAS]))).ravel()


@pytest.mark.parametrize("code", ["code0", "code2", "code4p"])
def test_histosys_shift(code):
    odd, even = quick_jit(partial(histosys_weights, code))(jnp.asarray(ALPHAS))
    shift = odd * 0.5 * (HIGH - LOW) + even * (0.5 * (HIGH + LOW) - NOMINAL)
    np.testing.assert_allclose(shift, by_pyhf(code, LOW, NOMINAL, HIGH), rtol=1e-13, atol=1e-13)


@cache
def factors_by(code):
    """One compiled factor for each code."""

    def factors(lo, hi, alphas):
        curve = normsys_curve(code, lo, hi)
        return jax.vmap(lambda alpha: normsys_factor(curve, alpha[None])[0, 0, 0])(alphas)

    return quick_jit(factors)


@pytest.mark.parametrize("code", ["code1", "code4"])
@pytest.mark.parametrize(("lo", "hi"), [(0.7, 1.2), (1.3, 1.1), (1.0, 1.0), (0.1, 4.0)])
def test_normsys_factor(code, lo, hi):
    factors = factors_by(code)(jnp.full((1, 1, 1), lo), jnp.full((1, 1, 1), hi), jnp.asarray(ALPHAS))
    np.testing.assert_allclose(factors, by_pyhf(code, lo, 1.0, hi), rtol=1e-12)


def test_code_4_is_smooth_to_second_order_and_its_derivatives_are_right():
    curve = normsys_curve("code4", jnp.full((1, 1, 1), 0.7), jnp.full((1, 1, 1), 1.4))

    def factor(alpha):
        return normsys_factor(curve, alpha[None])[0, 0, 0]

    first = quick_jit(jax.grad(factor))
    second = quick_jit(jax.grad(jax.grad(factor)))
    factor = quick_jit(factor)
    for edge in (-1.0, 1.0):
        for derivative in (factor, first, second):
            inside, outside = derivative(jnp.asarray(edge * (1 - 1e-9))), derivative(jnp.asarray(edge * (1 + 1e-9)))
            np.testing.assert_allclose(inside, outside, atol=1e-7)
    for alpha in (-0.6, 0.2, 0.9):
        h, at = 1e-4, jnp.asarray(alpha)
        np.testing.assert_allclose(first(at), (factor(at + h) - factor(at - h)) / (2 * h), rtol=1e-6)
        np.testing.assert_allclose(second(at), (first(at + h) - first(at - h)) / (2 * h), rtol=1e-6)


def test_a_factor_that_is_not_positive_is_survived():
    curve = normsys_curve("code4", jnp.full((1, 1, 1), -0.3), jnp.full((1, 1, 1), 2.3))
    value_and_slope = quick_jit(jax.value_and_grad(lambda a: normsys_factor(curve, a[None])[0, 0, 0]))
    for alpha in ALPHAS:
        value, slope = value_and_slope(jnp.asarray(alpha))
        assert np.isfinite(value)
        assert np.isfinite(slope)
        assert value > 0
