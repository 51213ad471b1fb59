"""The variance of a histogram whose events come in groups, against resampling of the groups."""

import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.events.design_effect import design_effects
from pipeline.events.table import EventList
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


@pytest.mark.slow
def test_variances_are_those_of_the_bootstrap():
    """In the small analysis every other event shares its collision with the one before."""
    analysis, data, at = small_analysis(), small_data(3000), arrays(THRESHOLDS)
    recipe = data.recipe.with_effects(exact.effects_of_design(analysis, at, [data]))
    expected = np.asarray(make_templates(recipe, exact.yields_at(analysis, at, data)).variance)
    generator = np.random.default_rng(2)
    replicas = [
        make_templates(data.recipe, exact.yields_at(analysis, at, resampled(data, generator))).yields[0]
        for _ in range(200)
    ]
    spread = np.var(np.array(replicas), axis=0, ddof=1)
    assert LAYOUT.datasets == 3
    # 200 replicas know a variance to 10 %, and the sum over the bins of a process to better than that.
    np.testing.assert_allclose(expected.sum(axis=1), spread.sum(axis=1), rtol=0.15)
    naive = np.asarray(make_templates(data.recipe, exact.yields_at(analysis, at, data)).variance)
    assert np.all(expected.sum(axis=1) > naive.sum(axis=1))
