"""Templates against the sums written out, and merged bins that always have enough effective events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pipeline.inference.templates import (
    DatasetRole,
    Templates,
    Variation,
    average,
    make_recipe,
    make_templates,
    merge_bins,
    populated_bins,
)

PROCESSES = ("signal", "background")
VARIATIONS = (
    Variation("nominal"),
    Variation("scale_up", kinematic=1),
    Variation("scale_of_one", kinematic=1, processes=("signal",)),
    Variation("tag_up", factors={1: 0.1}),
    Variation("tag_down", factors={1: -0.1}),
    Variation("other_weight", nominal=0.0, factors={0: 1.0}),
    Variation("both", kinematic=1, nominal=0.5, factors={0: 2.0, 1: -0.3}),
    Variation("norm_up", nominal=1.2, processes=("background",)),
    Variation("generator"),
)
# Not in the order of the processes, and the alternative sample in between.
DATASETS = (
    DatasetRole("background", "nominal", 3.0),
    DatasetRole("signal", "generator", 0.7),
    DatasetRole("signal", "nominal", 0.5),
)


@pytest.fixture(scope="module")
def yields():
    """Kinematics, data sets, bins, columns: Σw, Σw², Σ w·factor of two factors."""
    return np.random.default_rng(0).random((2, 3, 4, 4))


@pytest.fixture(scope="module")
def made(yields) -> Templates:
    recipe = make_recipe(PROCESSES, VARIATIONS, kinematics=2, datasets=DATASETS, factors=2)
    return make_templates(recipe, jnp.asarray(yields))


def of(made: Templates, variation: str, process: str) -> np.ndarray:
    return np.asarray(made.yields)[[each.name for each in VARIATIONS].index(variation), PROCESSES.index(process)]


def test_nominal_templates_are_normalised_sums_of_weights(made, yields):
    np.testing.assert_allclose(of(made, "nominal", "signal"), 0.5 * yields[0, 2, :, 0])
    np.testing.assert_allclose(of(made, "nominal", "background"), 3.0 * yields[0, 0, :, 0])


def test_variance_is_the_normalised_sum_of_squares(made, yields):
    np.testing.assert_allclose(made.variance, [0.25 * yields[0, 2, :, 1], 9.0 * yields[0, 0, :, 1]])


def test_kinematic_variations_take_the_yields_of_their_own(made, yields):
    np.testing.assert_allclose(of(made, "scale_up", "signal"), 0.5 * yields[1, 2, :, 0])
    np.testing.assert_allclose(of(made, "scale_up", "background"), 3.0 * yields[1, 0, :, 0])


def test_a_kinematic_variation_of_one_process_leaves_the_others(made, yields):
    np.testing.assert_allclose(of(made, "scale_of_one", "signal"), 0.5 * yields[1, 2, :, 0])
    np.testing.assert_array_equal(of(made, "scale_of_one", "background"), of(made, "nominal", "background"))


@pytest.mark.parametrize(("variation", "sign"), [("tag_up", 1), ("tag_down", -1)])
def test_factors_weigh_events(made, yields, variation, sign):
    expected = 0.5 * (yields[0, 2, :, 0] + sign * 0.1 * yields[0, 2, :, 3])
    np.testing.assert_allclose(of(made, variation, "signal"), expected)


def test_a_factor_may_stand_in_the_place_of_the_weight(made, yields):
    np.testing.assert_allclose(of(made, "other_weight", "background"), 3.0 * yields[0, 0, :, 2])


def test_kinematics_and_factors_go_together(made, yields):
    weighted = 0.5 * yields[1, 0, :, 0] + 2.0 * yields[1, 0, :, 2] - 0.3 * yields[1, 0, :, 3]
    np.testing.assert_allclose(of(made, "both", "background"), 3.0 * weighted)


def test_a_weight_of_one_process_leaves_the_others(made, yields):
    np.testing.assert_allclose(of(made, "norm_up", "background"), 1.2 * 3.0 * yields[0, 0, :, 0])
    np.testing.assert_array_equal(of(made, "norm_up", "signal"), of(made, "nominal", "signal"))


def test_the_average_of_parts_has_the_variance_of_all_events(made):
    """Parts that are equal: the same mean, of half the variance."""
    both = average([made, made])
    np.testing.assert_allclose(both.yields, made.yields)
    np.testing.assert_allclose(both.variance, made.variance / 2)


def test_alternative_samples_stand_in_for_their_process(made, yields):
    np.testing.assert_allclose(of(made, "generator", "signal"), 0.7 * yields[0, 1, :, 0])
    np.testing.assert_array_equal(of(made, "generator", "background"), of(made, "nominal", "background"))


MINIMUM, FIRST = 10.0, 3

bins_of = st.sampled_from([1, 4, 9])
contents = bins_of.flatmap(
    lambda bins: st.tuples(
        # A few heavy events beside many light ones, negative weights, and bins without any event.
        npst.arrays(np.float64, bins, elements=st.floats(0, 50) | st.sampled_from([0.0, -5.0, 300.0])),
        npst.arrays(np.float64, bins, elements=st.floats(0.01, 50) | st.sampled_from([0.0, 1e4])),
    )
)
positions = jax.jit(lambda yields, variance: populated_bins(yields, variance, MINIMUM, 0.0, FIRST))


@settings(max_examples=300, deadline=None)
@given(contents)
def test_every_bin_that_is_kept_has_enough_effective_events(contents):
    yields, variance = contents
    into = np.asarray(positions(jnp.asarray(yields), jnp.asarray(variance)))
    if np.all(into == -1):
        assert not (yields.sum() > 0 and 0 < variance.sum() <= 0.999 * yields.sum() ** 2 / MINIMUM)
        return
    assert np.all((into >= FIRST) & (into < FIRST + len(yields)))
    for bin_ in set(into.tolist()):
        members = into == bin_
        assert yields[members].sum() > 0
        assert yields[members].sum() ** 2 >= MINIMUM * variance[members].sum() * (1 - 1e-9)


@settings(max_examples=100, deadline=None)
@given(contents)
def test_only_neighbours_are_merged(contents):
    """Into the leftmost of them, which keeps its place."""
    into = np.asarray(positions(*map(jnp.asarray, contents)))
    assert np.all(np.diff(into) >= 0)
    assert np.all(into <= FIRST + np.arange(len(into)))
    kept = into[into >= 0]
    assert np.all(into[kept - FIRST] == kept)


def test_bins_with_enough_stay_as_they_are():
    counts = jnp.asarray([10.0, 11.0, 12.0])
    assert positions(counts, counts).tolist() == [3, 4, 5]


def test_thin_bins_take_in_what_is_on_their_right_and_the_rest_joins_the_last():
    counts = jnp.asarray([4.0, 7.0, 20.0, 1.0, 2.0])
    assert positions(counts, counts).tolist() == [3, 3, 5, 5, 5]


def test_a_rest_that_spoils_the_last_bin_takes_in_more():
    """One event of a large weight: what it joins has fewer effective events than before."""
    yields, variance = jnp.asarray([100.0, 10.0, 10.0]), jnp.asarray([100.0, 10.0, 100.0])
    assert positions(yields, variance).tolist() == [3, 3, 3]


def test_a_region_without_enough_is_dropped():
    counts = jnp.asarray([4.0, 0.0, 5.0])
    assert positions(counts, counts).tolist() == [-1, -1, -1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_merging_conserves_every_sum(into):
    generator = np.random.default_rng(sum(into))
    before = Templates(yields=jnp.asarray(generator.random((3, 2, 5))), variance=jnp.asarray(generator.random((2, 5))))
    after = merge_bins(before, jnp.asarray(into, jnp.int32))
    np.testing.assert_allclose(after.yields.sum(axis=2), before.yields.sum(axis=2))
    np.testing.assert_allclose(after.variance.sum(axis=1), before.variance.sum(axis=1))
    for bin_ in range(5):
        members = np.array(into) == bin_
        np.testing.assert_allclose(after.yields[..., bin_], np.asarray(before.yields)[..., members].sum(axis=-1))


def test_dropped_bins_leave_no_trace():
    before = Templates(yields=jnp.ones((2, 1, 3)), variance=jnp.ones((1, 3)))
    after = merge_bins(before, jnp.asarray([-1, -1, 2], jnp.int32))
    assert after.yields[0, 0].tolist() == [0, 0, 1]
    assert after.variance[0].tolist() == [0, 0, 1]
