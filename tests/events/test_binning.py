"""Histograms against NumPy and boost-histogram; smooth ones against hard ones and finite differences."""

import boost_histogram as bh
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pipeline.events.binning import bin_index, hard_histogram, smooth_histogram

EDGES = np.array([-3.5, -1.0, 0.0, 0.1, 2.0, 7.0], np.float32)
BINS = len(EDGES) - 1
ON_THE_EDGE = [
    near for edge in EDGES[EDGES != 0] for near in (np.nextafter(edge, np.float32(s)) for s in (-99, edge, 99))
]

# Numbers below 1e-38 are zero to XLA.
anything = st.one_of(
    st.floats(-10, 10, width=32, allow_subnormal=False),
    st.sampled_from(ON_THE_EDGE).map(float),
    st.sampled_from([np.nan, np.inf, -np.inf]),
)


@settings(max_examples=100, deadline=None)
@given(npst.arrays(np.float32, 20, elements=anything))
def test_bins_are_those_of_boost_histogram(values):
    index = np.asarray(jax.jit(bin_index)(jnp.asarray(values), jnp.asarray(EDGES)))
    histogram = bh.Histogram(bh.axis.Variable(EDGES.astype(np.float64)))
    histogram.fill(values.astype(np.float64))
    np.testing.assert_array_equal(np.bincount(index, minlength=BINS + 1)[:BINS], histogram.view())
    plain = np.searchsorted(EDGES, values, side="right") - 1
    outside = ~((values >= EDGES[0]) & (values < EDGES[-1]))
    np.testing.assert_array_equal(index, np.where(outside, BINS, plain))


def test_edges_belong_to_the_bin_above_and_nan_to_none():
    values = jnp.asarray([*EDGES, np.nan], jnp.float32)
    assert bin_index(values, jnp.asarray(EDGES)).tolist() == [0, 1, 2, 3, 4, BINS, BINS]


def test_bins_keep_the_shape_of_the_values():
    assert bin_index(jnp.zeros((2, 3), jnp.float32), jnp.asarray(EDGES)).shape == (2, 3)


def summed(positions, columns, bins):
    total = np.zeros((bins, columns.shape[1]))
    inside = (positions >= 0) & (positions < bins)
    np.add.at(total, positions[inside], columns[inside].astype(np.float64))
    return total


@pytest.fixture(params=["scatter", "one-hot"])
def path(request, monkeypatch):
    """Both ways of adding up, on this machine."""
    if request.param == "one-hot":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, default, **_: default(*given))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("path")
def test_hard_histogram_adds_up_columns_and_drops_what_is_outside(seed):
    generator = np.random.default_rng(seed)
    positions = generator.integers(-2, BINS + 3, 300).astype(np.int32)
    columns = generator.normal(size=(300, 3)).astype(np.float32)
    found = hard_histogram(jnp.asarray(positions), jnp.asarray(columns), BINS)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, summed(positions, columns, BINS), atol=2e-5)


@pytest.mark.usefixtures("path")
def test_counts_are_whole_numbers():
    positions = np.random.default_rng(0).integers(0, BINS + 1, 8192).astype(np.int32)
    found = hard_histogram(jnp.asarray(positions), jnp.ones((8192, 1), jnp.float32), BINS)
    np.testing.assert_array_equal(found[:, 0], np.bincount(positions, minlength=BINS)[:BINS])


@pytest.fixture
def sample():
    generator = np.random.default_rng(3)
    return jnp.asarray(generator.normal(1, 3, 200)), jnp.asarray(generator.random(200))


def test_smooth_histogram_tends_to_the_hard_one(sample):
    values, weights = sample
    edges = jnp.asarray(EDGES, jnp.float64)
    hard, _ = np.histogram(values, edges, weights=weights)
    distances = [
        np.abs(smooth_histogram(values, weights, edges, jnp.asarray(h)) - hard).max() for h in (1.0, 0.1, 1e-5)
    ]
    assert distances[0] > distances[1] > distances[2]
    np.testing.assert_allclose(distances[2], 0, atol=1e-9)


def test_smooth_histogram_loses_nothing_inside(sample):
    values, weights = sample
    edges = jnp.asarray([-1e3, 0.0, 1e3])
    np.testing.assert_allclose(smooth_histogram(values, weights, edges, jnp.asarray(0.5)).sum(), weights.sum())


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_derivatives_of_the_smooth_histogram(sample, argument):
    """By values, weights and edges, along a random direction, against central differences."""
    arguments = [*sample, jnp.asarray(EDGES, jnp.float64)]
    direction = jnp.asarray(np.random.default_rng(argument).normal(size=arguments[argument].shape))

    def moved(step):
        changed = list(arguments)
        changed[argument] = changed[argument] + step * direction
        return smooth_histogram(*changed, jnp.asarray(0.3))

    _, slope = jax.jvp(moved, (jnp.asarray(0.0),), (jnp.asarray(1.0),))
    step = 1e-5
    np.testing.assert_allclose(slope, (moved(step) - moved(-step)) / (2 * step), rtol=1e-6, atol=1e-7)
    assert np.all(slope != 0)
