"""The derivative of hard counts, without physics: events of uniform numbers whose expected counts are polynomials."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.events.flux import BLOCK, boundary_flux, for_each_flip, kernel, pack, with_derivatives
from scipy.integrate import quad

from reference.compiling import quick_jit

f32 = partial(jnp.asarray, dtype=jnp.float32)


@pytest.mark.parametrize("bandwidth", [0.01, 1.0, 30.0])
def test_kernel_has_unit_integral_and_finite_support(bandwidth):
    distance = np.linspace(-2 * bandwidth, 2 * bandwidth, 20_001, dtype=np.float32)
    values = np.asarray(kernel(jnp.asarray(distance), f32(bandwidth)), np.float64)
    np.testing.assert_allclose(values.sum() * 4 * bandwidth / 20_000, 1.0, rtol=1e-4)
    np.testing.assert_allclose(values, values[::-1], rtol=1e-4, atol=1e-4 / bandwidth)
    assert np.all(values[np.abs(distance) > 1.0001 * bandwidth] == 0)
    assert np.all(values >= 0)


def test_kernel_of_an_absent_object_is_nothing():
    assert kernel(f32(np.nan), f32(1.0)) == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pack_sets_bit_j_for_object_j(seed):
    passed = np.random.default_rng(seed).random((31, 7)) < 0.5
    plain = [sum(1 << j for j in range(31) if passed[j, event]) for event in range(7)]
    assert jax.jit(pack)(jnp.asarray(passed)).tolist() == plain


@jax.jit
def visits(near):
    """How often each object of each event was visited."""

    def visit(event, object_, real, seen):
        return seen.at[object_, event].add(real.astype(jnp.int32))

    return for_each_flip(near, 32, visit, jnp.zeros((32, *near.shape), jnp.int32))


def bits(word):
    return [word >> j & 1 for j in range(32)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5))
def test_every_bit_is_visited_once(words):
    seen = visits(jnp.asarray(np.array(words, np.uint32)))
    np.testing.assert_array_equal(np.asarray(seen).T, [bits(word) for word in words])


@pytest.mark.parametrize("pairs", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_every_bit_is_visited_once_whatever_their_number(pairs):
    """Blocks that are just full, and one that is not."""
    near = np.zeros(BLOCK, np.uint32)
    places = np.random.default_rng(pairs).permutation(32 * BLOCK)[:pairs]
    np.bitwise_or.at(near, places // 32, np.uint32(1) << (places % 32).astype(np.uint32))
    seen = np.asarray(visits(jnp.asarray(near)))
    assert seen.sum() == pairs
    np.testing.assert_array_equal(seen.T, [bits(int(word)) for word in near])


# --- A toy analysis: events of some uniform numbers, a region of events with two or more that pass -----------------

OBJECTS, EVENTS, BANDWIDTH = 4, 40_000, 0.06


def passing(keep, values, threshold):
    return values > f32(threshold) if keep == "above" else values < f32(threshold)


def in_the_region(selected):
    return (jnp.bitwise_count(selected) >= 2).astype(jnp.float32)


def count(keep, thresholds, values, bandwidth):
    return in_the_region(pack(passing(keep, values, thresholds["t"]))).sum().astype(jnp.float64)


def count_and_flux(keep, thresholds, values, bandwidth):
    passed = passing(keep, values, thresholds["t"])
    selected = pack(passed)
    above = passed if keep == "above" else ~passed
    flux = boundary_flux(values, f32(thresholds["t"]), f32(bandwidth), above, ~jnp.isnan(values))
    now = in_the_region(selected)

    def visit(event, object_, real, total):
        flipped = selected[event] ^ (jnp.uint32(1) << object_.astype(jnp.uint32))
        change = flux[object_, event] * (in_the_region(flipped) - now[event])
        return total + jnp.where(real, change, 0).sum()

    total = for_each_flip(pack(flux != 0), len(flux), visit, f32(0))
    return now.sum().astype(jnp.float64), {"t": total.astype(jnp.float64)}


@cache
def hard_count(keep):
    """One kinematic variation, data set, subsample, bin and column, so a number."""

    def value(*arguments):
        return count(keep, *arguments).reshape(1, 1, 1, 1)

    def value_and_flux(*arguments):
        number, flux = count_and_flux(keep, *arguments)
        return number.reshape(1, 1, 1, 1), {name: each.reshape(1, 1, 1, 1, 1) for name, each in flux.items()}

    hard = with_derivatives(value, value_and_flux)
    return lambda *arguments: hard(*arguments)[0, 0, 0, 0]


@cache
def value_and_slope(keep):
    return quick_jit(jax.value_and_grad(lambda thresholds, values: hard_count(keep)(thresholds, values, BANDWIDTH)))


def expected_slope(keep, t):
    """d/dt of the probability that two or more of the uniform numbers pass."""
    sign, p = (-1, 1 - t) if keep == "above" else (1, t)
    return sign * OBJECTS * (OBJECTS - 1) * p * (1 - p) ** (OBJECTS - 2)


@pytest.fixture(scope="module")
def events():
    return jnp.asarray(np.random.default_rng(5).random((OBJECTS, EVENTS)), jnp.float32)


def at(t):
    return {"t": jnp.asarray(t)}


@pytest.mark.parametrize("keep", ["above", "below"])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_derivative_is_that_of_the_expected_count(events, keep, t):
    value, slope = value_and_slope(keep)(at(t), events)
    assert value == count(keep, at(t), events, BANDWIDTH)
    # The kernel averages the true derivative over the bandwidth. Each object near the boundary that decides, of which
    # there are |slope| a unit of t, contributes ± the kernel, whose square has the integral 0.6 / h.
    density = 0.75 / BANDWIDTH
    smeared, _ = quad(lambda u: density * BANDWIDTH * (1 - u * u) * expected_slope(keep, t + BANDWIDTH * u), -1, 1)
    error = np.sqrt(EVENTS * abs(expected_slope(keep, t)) * 0.6 / BANDWIDTH)
    assert error < 0.05 * abs(EVENTS * expected_slope(keep, t))
    assert abs(slope["t"] - EVENTS * smeared) < 4 * error


@pytest.mark.parametrize("keep", ["above", "below"])
def test_one_object_at_the_threshold_pulls_in_the_right_direction(keep):
    """On either side of the threshold, and right on it, where it passes neither kind of cut."""
    t = np.float32(0.5)
    for x in (np.float32(0.49), np.nextafter(t, np.float32(0)), t, np.nextafter(t, np.float32(1)), np.float32(0.51)):
        values = jnp.asarray([[x], [0.9 if keep == "above" else 0.1], [np.nan], [np.nan]], jnp.float32)
        _, slope = value_and_slope(keep)(at(0.5), values)
        expected = float(kernel(jnp.asarray(x - t), f32(BANDWIDTH)))
        np.testing.assert_allclose(slope["t"], -expected if keep == "above" else expected, rtol=1e-6)


def test_objects_that_fail_another_cut_have_no_flux():
    values, passes_others = f32([0.5, 0.5, np.nan]), jnp.asarray([True, False, True])
    flux = boundary_flux(values, f32(0.49), f32(0.1), values > 0.49, passes_others)
    assert flux[0] > 0
    assert flux[1:].tolist() == [0, 0]


def test_forward_and_reverse_compiled_and_mapped_agree(events):
    few = events[:, :2000]

    def hard(t):
        return hard_count("above")({"t": t}, few, BANDWIDTH)

    half = jnp.asarray(0.5)
    value, forward = jax.jvp(hard, (half,), (jnp.asarray(2.0),))
    assert forward != 0
    compiled, reverse = jax.jit(jax.value_and_grad(hard))(half)
    np.testing.assert_allclose([compiled, 2 * reverse], [value, forward], rtol=1e-6)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(hard)))(jnp.asarray([0.3, 0.5, 0.7]))
    np.testing.assert_allclose([values[1], slopes[1]], [value, reverse], rtol=1e-6)
    assert len(set(slopes.tolist())) == 3


def test_the_chain_rule_goes_on_from_there(events):
    few = events[:, :2000]
    hard = hard_count("above")
    slope = jax.grad(lambda t: jnp.sqrt(hard({"t": 2 * t}, few, BANDWIDTH)))(jnp.asarray(0.25))
    value, inner = jax.value_and_grad(hard)(at(0.5), few, BANDWIDTH)
    np.testing.assert_allclose(slope, 2 * inner["t"] / (2 * np.sqrt(value)), rtol=1e-6)


def test_what_is_no_threshold_carries_no_derivative(events):
    few = events[:, :2000]
    by_data = jax.grad(lambda values: hard_count("above")(at(0.5), values, BANDWIDTH))(few)
    assert not np.any(by_data)


def test_a_threshold_without_flux_has_derivative_zero(events):
    few = events[:, :100]

    def value(thresholds, values):
        return count("above", thresholds, values, BANDWIDTH)

    hard = with_derivatives(value, lambda thresholds, values: (value(thresholds, values), {}))
    assert jax.grad(hard)(at(0.5), few)["t"] == 0


def test_copies_of_a_threshold_move_their_own_part():
    """Two data sets of three subsamples; scalars move all of them, and the derivatives by copies add up to theirs."""
    generator = np.random.default_rng(1)
    yields, flux = (jnp.asarray(generator.normal(size=size)) for size in ((2, 2, 4, 1), (2, 2, 3, 4, 1)))
    hard = with_derivatives(lambda _: yields, lambda _: (yields, {"t": flux}))
    weights = jnp.asarray(generator.normal(size=yields.shape))
    by_copies = jax.grad(lambda t: jnp.vdot(weights, hard({"t": t})))(jnp.zeros((2, 3)))
    np.testing.assert_allclose(by_copies, np.einsum("kdbc,kdsbc->ds", weights, flux), rtol=1e-12)
    by_scalar = jax.grad(lambda t: jnp.vdot(weights, hard({"t": t})))(jnp.asarray(0.0))
    np.testing.assert_allclose(by_scalar, by_copies.sum(), rtol=1e-12)
