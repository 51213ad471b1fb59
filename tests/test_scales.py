"""The rank of a value is the share of the events below it; steps and kernels in it have as many events anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.scales import EVEN, OWN_UNIT, Kernel, rank_among

BOUNDS = (0.0, 1.0)


def score(events=200_000, seed=1):
    """It piles up at 1, within the resolution of single precision."""
    return (1 - np.random.default_rng(seed).exponential(size=events) ** 6 / 1e4).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def rank():
    values = score()
    return rank_among(values, np.ones(len(values)), BOUNDS)


def test_a_place_is_the_share_of_events_below(rank):
    values = score()
    inside = values[(values > 0) & (values < 1)]
    for value in (0.1, 0.9, 0.999, 0.99999):
        expected = (1 - EVEN) * np.mean(inside < value) + EVEN * value
        assert rank.place(value) == pytest.approx(expected, abs=2e-3)
    assert rank.place(0.0) == 0
    assert rank.place(1.0) == 1


@given(st.floats(0, 1))
def test_values_and_places_are_inverse(place):
    values = score(2000)
    rank = rank_among(values, np.ones(2000), BOUNDS)
    assert rank.place(rank.value(place)) == pytest.approx(place, abs=1e-9)


def test_a_kernel_sees_as_many_events_anywhere(rank):
    """At an edge near 1 it is thousands of times narrower than at one in the middle."""
    values = score()
    kernel = Kernel(rank, 0.02, 0.05, 0.01)
    widths = {place: kernel.width(rank.value(place)) for place in (0.3, 0.6, 0.9)}
    assert widths[0.3] > 100 * widths[0.9]
    for place, width in widths.items():
        near = np.mean(np.abs(values - rank.value(place)) < width)
        assert 0.05 < near < 0.2, place


def test_the_slope_is_that_of_the_quantiles(rank):
    for place in (0.2, 0.5, 0.8):
        slope = rank.slope(rank.value(place), 0.01)
        assert slope == pytest.approx((rank.value(place + 0.01) - rank.value(place - 0.01)) / 0.02)
    assert rank.slope(1.0, 0.1) == pytest.approx((1 - rank.value(0.9)) / 0.1)


def test_weights_count():
    values, share = np.array([0.2, 0.4, 0.6, 0.8]), np.array([3.0, 1.0, 0.0, 0.0])
    rank = rank_among(values, share, BOUNDS)
    assert rank.place(0.3) == pytest.approx(0.75 + 0.25 * 0.5 - EVEN * (0.875 - 0.3), abs=1e-6)
    assert rank.place(0.9) > 0.99


@pytest.mark.parametrize("values", [[], [0.0, 1.0, 2.0]])
def test_without_events_it_is_a_part_of_the_bounds(values):
    rank = rank_among(np.array(values), np.ones(len(values)), (0.0, 4.0) if not values else BOUNDS)
    assert rank.place(rank.values[-1] / 4) == pytest.approx(0.25)
    assert rank.slope(0.5, 0.2) == pytest.approx(rank.values[-1])


def test_own_unit_changes_nothing():
    assert OWN_UNIT.place(3.7) == OWN_UNIT.value(3.7) == 3.7
    assert Kernel(OWN_UNIT, 1.0, 3.0, 1.0).width(40.0) == 3.0
