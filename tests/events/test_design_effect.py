"""The variance of a histogram whose events come in groups, against resampling of the groups."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.events.design_effect import design_effects, squared_sums
from pipeline.events.table import EventList, list_events
from pipeline.inference.templates import make_templates
from pipeline.validation.bootstrap import resampled

from small_analysis import LAYOUT, THRESHOLDS, arrays, small_analysis, small_data

BINS = 4


def events(collision: np.ndarray, position: np.ndarray, weight: np.ndarray | None = None) -> EventList:
    rows = len(collision)
    weight = np.ones(rows) if weight is None else weight
    integers = np.zeros(rows, np.int32)
    return EventList(
        kinematic=integers,
        dataset=integers,
        index=integers,
        collision=collision.astype(np.int32),
        region=integers,
        position=position.astype(np.int32),
        observable=np.zeros(rows, np.float32),
        columns=np.stack([weight, weight**2]).astype(np.float32),
    )


def test_independent_events_have_none():
    generator = np.random.default_rng(0)
    alone = events(np.arange(100), generator.integers(0, BINS, 100), generator.exponential(1, 100))
    assert design_effects([alone], 1, BINS) == pytest.approx([1])


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_in_one_bin_count_once(copies):
    """Identical copies carry no information: the variance is that of single events of their joint weight."""
    collision = np.repeat(np.arange(50), copies)
    same_bin = np.repeat(np.random.default_rng(1).integers(0, BINS, 50), copies)
    assert design_effects([events(collision, same_bin)], 1, BINS) == pytest.approx([copies])


def test_copies_in_different_bins_are_independent_entries_of_each():
    collision, position = np.repeat(np.arange(50), 2), np.tile([0, 1], 50)
    assert design_effects([events(collision, position)], 1, BINS) == pytest.approx([1])


def test_what_no_bin_holds_does_not_count():
    collision, position = np.zeros(4), np.array([0, 0, BINS, BINS])
    assert design_effects([events(collision, position)], 1, BINS) == pytest.approx([2])
    assert design_effects([events(collision, np.full(4, BINS))], 1, BINS) == pytest.approx([1])


def coefficients(*of_kinematics: float, datasets: int = 1) -> np.ndarray:
    """Of one template that takes no factor of the weight, the same in all data sets."""
    made = np.zeros((1, len(of_kinematics), datasets, 2))
    made[0, :, :, 0] = np.array(of_kinematics)[:, None]
    return made


def test_another_weight_of_the_same_events_shifts_as_far_as_it_differs():
    collision = np.repeat(np.arange(50), 2)
    pairs = events(collision, np.zeros(100))
    assert squared_sums([pairs], coefficients(0.1), BINS) == pytest.approx(np.array([[0.01 * 2]]))


def test_only_events_that_move_carry_the_error_of_a_kinematic_variation():
    """Ten of a hundred leave one bin for another one."""
    position = np.random.default_rng(0).integers(0, BINS, 100)
    moved = np.where(np.arange(100) < 10, (position + 1) % BINS, position)
    twice = events(np.tile(np.arange(100), 2), np.concatenate([position, moved]))
    both = replace(twice, kinematic=np.repeat([0, 1], 100).astype(np.int32))
    assert squared_sums([both], coefficients(-1.0, 1.0), BINS) == pytest.approx(np.array([[2 * 10 / 100]]))


def test_without_selected_events_they_count_as_they_are():
    none = events(np.zeros(2), np.full(2, BINS))
    assert squared_sums([none], coefficients(-3.0, 1.0), BINS) == pytest.approx(np.array([[9.0]]))


@pytest.mark.slow
def test_variances_are_those_of_the_bootstrap():
    """In the small analysis every other event shares its collision with the one before."""
    analysis, data, at = small_analysis(), small_data(3000), arrays(THRESHOLDS)
    recipe = data.recipe.with_effects(exact.effects_of_design(analysis, at, [data]))
    shifts = np.asarray(recipe.yields - recipe.yields[:1])
    by_list = squared_sums([list_events(analysis.events, at, data.events)], shifts, analysis.selection.bins)
    made = make_templates(replace(recipe, shift_variance=jnp.asarray(by_list)), exact.yields_at(analysis, at, data))
    expected = np.asarray(made.variance)
    generator = np.random.default_rng(2)
    replicas = np.array(
        [
            make_templates(data.recipe, exact.yields_at(analysis, at, resampled(data, generator))).yields
            for _ in range(200)
        ]
    )
    spread = np.var(replicas[:, 0], axis=0, ddof=1)
    assert LAYOUT.datasets == 3
    # 200 replicas know a variance to 10 %, and the sum over the bins of a process to better than that.
    np.testing.assert_allclose(expected.sum(axis=1), spread.sum(axis=1), rtol=0.15)
    # Another kinematic variation, another weight, and another sample: all that a variation may be.
    spread = np.var(replicas[:, 1:] - replicas[:, :1], axis=0, ddof=1)
    np.testing.assert_allclose(made.shift_variance[1:].sum(axis=2), spread.sum(axis=2), rtol=0.15)
    naive = np.asarray(make_templates(data.recipe, exact.yields_at(analysis, at, data)).variance)
    assert np.all(expected.sum(axis=1) > naive.sum(axis=1))
