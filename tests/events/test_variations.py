"""Rounding to one side keeps comparisons; resolution factors depend on the jet and the seed, and on nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.events.variations import resolution_factors, round_down, round_up
from scipy import stats


@given(threshold=st.floats(2.0**-10, 2.0**14, width=32), steps=st.integers(-3, 3))
def test_rounding_up_keeps_every_comparison(threshold, steps):
    """Also for values a few float64 steps beside the threshold."""
    value = float(threshold)
    for _ in range(abs(steps)):
        value = float(np.nextafter(value, np.copysign(np.inf, steps)))
    (rounded,) = round_up(np.array([value]))
    assert rounded.dtype == np.float32
    assert (rounded > np.float32(threshold)) == (value > threshold)
    assert float(np.nextafter(rounded, np.float32(-np.inf))) < value <= float(rounded)


@given(threshold=st.floats(-(2.0**14), 2.0**14, width=32), steps=st.integers(-3, 3))
def test_rounding_down_keeps_every_comparison_from_below(threshold, steps):
    value = float(threshold)
    for _ in range(abs(steps)):
        value = float(np.nextafter(value, np.copysign(np.inf, steps)))
    (rounded,) = round_down(np.array([value]))
    assert rounded.dtype == np.float32
    assert (rounded < np.float32(threshold)) == (value < threshold)
    assert float(rounded) <= value


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_values_stay(value):
    for rounded in (round_up, round_down):
        assert rounded(np.array([value]))[0] == np.float32(value)


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (np.finfo(np.float32).max, np.finfo(np.float32).max, np.finfo(np.float32).max),
        (1e39, np.inf, np.finfo(np.float32).max),
        (-1e39, -np.finfo(np.float32).max, -np.inf),
    ],
)
def test_the_end_of_float32(value, up, down):
    value = np.array([value], np.float64)
    assert round_up(value)[0] == np.float32(up)
    assert round_down(value)[0] == np.float32(down)


def jets(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five jets an event, with event numbers as small and regular as those of simulated samples."""
    generator = np.random.default_rng(0)
    eta, phi = (generator.normal(size=number).astype(np.float32) for _ in range(2))
    return np.arange(number, dtype=np.uint64) // np.uint64(5), eta, phi


def test_factors_depend_on_neither_order_nor_chunks():
    columns = jets(1000)
    whole = resolution_factors(*columns, width=0.05, seed=1)
    order = np.random.default_rng(1).permutation(1000)
    np.testing.assert_array_equal(resolution_factors(*(c[order] for c in columns), width=0.05, seed=1), whole[order])
    chunks = [
        resolution_factors(*(c[start : start + 77] for c in columns), width=0.05, seed=1)
        for start in range(0, 1000, 77)
    ]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_factors_are_normal_around_one(width):
    factors = resolution_factors(*jets(100_000), width=width, seed=1)
    assert stats.kstest(factors, stats.norm(1, width).cdf).pvalue > 1e-3
    np.testing.assert_allclose(factors.mean(), 1.0, atol=4 * width / np.sqrt(100_000))
    np.testing.assert_allclose(factors.std(), width, rtol=4 / np.sqrt(2 * 100_000))


def test_factors_of_neighbours_are_independent():
    """Jets of one event, and the same direction in consecutive events."""
    pulls = (resolution_factors(*jets(100_000), width=0.05, seed=1) - 1) / 0.05
    assert abs(np.mean(pulls[1:] * pulls[:-1])) < 4 / np.sqrt(100_000)
    events = np.arange(100_000, dtype=np.uint64)
    same = np.full(100_000, 0.5, np.float32)
    pulls = (resolution_factors(events, same, same, width=0.05, seed=1) - 1) / 0.05
    assert abs(np.mean(pulls[1:] * pulls[:-1])) < 4 / np.sqrt(100_000)
    assert len(np.unique(pulls)) == 100_000


def test_another_seed_gives_other_factors():
    columns = jets(10_000)
    one, other = ((resolution_factors(*columns, width=0.05, seed=seed) - 1) / 0.05 for seed in (1, 2))
    assert abs(np.mean(one * other)) < 4 / np.sqrt(10_000)
    np.testing.assert_array_equal(resolution_factors(*columns, width=0.05, seed=1), 1 + 0.05 * one)


def test_real_event_numbers_fit():
    """NanoAOD's event numbers use 64 bits."""
    number = np.array([2**64 - 1, 2**63, 0], np.uint64)
    zero = np.zeros(3, np.float32)
    factors = resolution_factors(number, zero, zero, width=0.05, seed=1)
    assert np.all(np.isfinite(factors))
    assert len(set(factors.tolist())) == 3
