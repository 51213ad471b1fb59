"""The place of a value is the odds of the events below it: steps and kernels have as many events anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.scales import OWN_UNIT, TAIL, Kernel, apart, rank_among

BOUNDS = (0.0, 1.0)
EVENTS = 100_000
SCORE = np.clip(1 - np.random.default_rng(1).beta(0.4, 3, EVENTS) ** 2, 0, 1 - 1e-6).astype(np.float32)
"""It piles up at 1: a fifth of the events is above 0.9999."""
RANK = rank_among(SCORE, np.ones(EVENTS), BOUNDS)


def odds(share):
    return np.log((TAIL + share) / (TAIL + 1 - share))


@pytest.mark.parametrize("value", [0.5, 0.9, 0.99, 0.999, 0.9999])
def test_a_place_is_the_odds_of_the_events_below(value):
    assert RANK.place(value) == pytest.approx(odds(np.mean(value > SCORE)), abs=0.1)


def test_places_reach_from_bound_to_bound():
    assert (RANK.place(0.0), RANK.place(1.0)) == pytest.approx((odds(0), odds(1)))
    assert RANK.span == pytest.approx(odds(1) - odds(0))


@given(st.floats(0, 1))
def test_values_and_places_are_inverse(share):
    place = RANK.places[0] + share * RANK.span
    assert RANK.place(RANK.value(place)) == pytest.approx(place, abs=1e-6)


def test_a_kernel_sees_about_the_same_part_of_the_events_anywhere():
    """In its own unit it is hundreds of times narrower near 1, where the density changes within it."""
    kernel = Kernel(RANK, 0.2, 0.2, 0.02)
    widths = {share: kernel.width(float(np.quantile(SCORE, share))) for share in (0.05, 0.3, 0.6, 0.75)}
    assert widths[0.05] > 100 * widths[0.75]
    for share, width in widths.items():
        near = np.mean(np.abs(SCORE - np.quantile(SCORE, share)) < width)
        assert 0.8 < near / (2 * 0.2 * share * (1 - share)) < 1.5, share


def test_the_slope_is_that_of_the_quantiles():
    value = RANK.value(-1.0)
    assert RANK.slope(value, 0.1) == pytest.approx((RANK.value(-0.9) - RANK.value(-1.1)) / 0.2)
    within = (1 - RANK.value(RANK.places[-1] - 0.1)) / 0.1
    assert RANK.slope(1.0, 0.1) == pytest.approx(within)


def test_weights_count():
    values = np.array([0.2, 0.4, 0.6, 0.8])
    weighted = rank_among(values, np.array([3.0, 1.0, 0.0, 0.0]), BOUNDS)
    repeated = rank_among(np.array([0.2, 0.2, 0.2, 0.4]), np.ones(4), BOUNDS)
    for value in (0.1, 0.3, 0.7):
        assert weighted.place(value) == pytest.approx(repeated.place(value), abs=0.02)


def test_without_events_it_is_a_part_of_the_bounds():
    rank = rank_among(np.array([-1.0, 0.0, 4.0]), np.ones(3), (0.0, 4.0))
    assert rank.place(1.0) == 0.25
    assert rank.slope(1.0, 0.2) == pytest.approx(4.0)


def test_own_unit_changes_nothing():
    assert OWN_UNIT.place(3.7) == OWN_UNIT.value(3.7) == 3.7
    assert Kernel(OWN_UNIT, 1.0, 3.0, 1.0).width(40.0) == 3.0


def test_all_edges_have_room():
    for number in (2, 10, 100):
        assert number * apart(RANK.span, number) <= RANK.span / 4 or number < 13
