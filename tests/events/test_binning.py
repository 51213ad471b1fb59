"""Histograms against NumPy and boost-histogram; their derivative against that of smeared events."""

import boost_histogram as bh
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pipeline.events.binning import bin_index, binned, edge_flux, edge_widths, hard_histogram, placed_edges
from pipeline.events.cuts import Region, Selection, arrays
from pipeline.events.flux import kernel_integral

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
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, summed(positions, columns.astype(np.float64), BINS), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("path")
def test_counts_are_whole_numbers():
    positions = np.random.default_rng(0).integers(0, BINS + 1, 8192).astype(np.int32)
    found = hard_histogram(jnp.asarray(positions), jnp.ones((8192, 1), jnp.float32), BINS)
    np.testing.assert_array_equal(found[:, 0], np.bincount(positions, minlength=BINS)[:BINS])


# --- Edges that move --------------------------------------------------------------------------------------------------

PLACES = np.array([0.0, 1.0, 3.0, 4.0])
BEGINNING = {"fixed": jnp.asarray([0.0, 1.0]), "free": jnp.asarray(PLACES)}
EACH = ("free.edge_0", "free.edge_1", "free.edge_2", "free.edge_3")
RANGE = ("free.start", "free.stop")
WIDTH = 0.3


def regions(names: tuple[str, ...] = ()) -> tuple[Region, ...]:
    return Region("fixed", (), "x", 1, 0), Region("free", (), "x", 3, 1, names)


SELECTION = Selection((), (), (), regions())


def test_a_moving_range_keeps_the_proportions():
    placed = placed_edges(regions(RANGE), arrays({"free.start": 1.0, "free.stop": 9.0}), BEGINNING)
    np.testing.assert_allclose(placed["free"], [[1, 3, 7, 9]])
    np.testing.assert_array_equal(placed["fixed"], BEGINNING["fixed"][None])


def test_single_edges_go_where_their_thresholds_say():
    at = dict(zip(EACH, [0.5, 1.5, 2.0, 7.0], strict=True))
    np.testing.assert_allclose(placed_edges(regions(EACH), arrays(at), BEGINNING)["free"], [[0.5, 1.5, 2.0, 7.0]])


def test_copies_of_thresholds_make_copies_of_edges():
    copies = {"free.start": jnp.asarray([1.0, 2.0]), "free.stop": jnp.asarray([9.0, 6.0])}
    placed = placed_edges(regions(RANGE), copies, BEGINNING)
    np.testing.assert_allclose(placed["free"], [[1, 3, 7, 9], [2, 3, 5, 6]])
    assert placed["fixed"].shape == (1, 2)


# --- One derivative for whatever moves --------------------------------------------------------------------------------

EVENTS = 5000


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Observables, NaN for the events of the first region, and three columns."""
    generator = np.random.default_rng(3)
    values = generator.normal(2, 1.5, EVENTS).astype(np.float32)
    values[:100] = np.nan
    columns = generator.normal(1, 1, (3, EVENTS)).astype(np.float32)
    return values, columns


def hard(edges, values, columns, copy=None, bandwidths=None):
    """`binned` of the region that moves, all columns; edges of shape "copies edges"."""
    position = bin_index(values, jax.lax.stop_gradient(edges[0]).astype(jnp.float32))
    position = jnp.where(position < 3, 1 + position, 4)
    other = jnp.full(values.shape, jnp.nan, jnp.float32)
    return binned(
        SELECTION,
        position,
        jnp.zeros(values.shape, jnp.int32) if copy is None else copy,
        {"free": jnp.full(edges.shape[1], WIDTH)} if bandwidths is None else bandwidths,
        {"fixed": BEGINNING["fixed"][None], "free": edges},
        {"fixed": other, "free": values},
        columns,
    )[1:]


def smooth(edges, values, columns):
    """The histogram of events that are smeared with the kernel, in float64; edges of shape "edges"."""
    values = jnp.asarray(values, jnp.float64)
    below = kernel_integral(edges[:, None] - values[None], jnp.asarray(WIDTH))
    shares = jnp.where(jnp.isnan(values)[None], 0, below[1:] - below[:-1])
    return shares @ jnp.asarray(columns, jnp.float64).T


def of_sample(sample):
    return tuple(jnp.asarray(each) for each in sample)


def test_forward_it_is_the_hard_histogram(sample):
    values, columns = sample
    found = hard(jnp.asarray(PLACES)[None], *of_sample(sample))
    inside = np.isfinite(values)
    expected = [np.histogram(values[inside], PLACES, weights=column[inside])[0] for column in columns]
    np.testing.assert_allclose(found, np.array(expected).T, rtol=1e-4, atol=1e-2)


def test_smeared_events_tend_to_the_hard_histogram(sample, monkeypatch):
    """What the derivatives are compared with is a histogram."""
    values, columns = of_sample(sample)
    expected = np.asarray(hard(jnp.asarray(PLACES)[None], values, columns))
    monkeypatch.setitem(globals(), "WIDTH", 1e-6)
    np.testing.assert_allclose(smooth(jnp.asarray(PLACES), values, columns), expected, rtol=1e-4, atol=1e-2)


def test_the_tangent_by_edges_is_that_of_smeared_events(sample):
    values, columns = of_sample(sample)
    moved = jnp.asarray(np.random.default_rng(0).normal(size=4))
    _, tangent = jax.jvp(lambda edges: hard(edges[None], values, columns), (jnp.asarray(PLACES),), (moved,))
    _, expected = jax.jvp(lambda edges: smooth(edges, values, columns), (jnp.asarray(PLACES),), (moved,))
    np.testing.assert_allclose(tangent, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.all(expected != 0)


def test_the_tangent_by_observables_is_that_of_smeared_events(sample):
    """A calibration: every value moves by an amount of its own."""
    values, columns = of_sample(sample)
    moved = jnp.asarray(np.random.default_rng(1).normal(size=EVENTS), jnp.float32)
    edges = jnp.asarray(PLACES)
    _, tangent = jax.jvp(lambda step: hard(edges[None], values + step * moved, columns), (f32(0),), (f32(1),))
    _, expected = jax.jvp(
        lambda step: smooth(edges, precise(values) + step * precise(moved), columns), (f64(0),), (f64(1),)
    )
    np.testing.assert_allclose(tangent, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.all(expected != 0)


def test_the_tangent_by_columns_is_their_histogram(sample):
    values, columns = of_sample(sample)
    edges, moved = jnp.asarray(PLACES)[None], columns[::-1]
    _, tangent = jax.jvp(lambda columns: hard(edges, values, columns), (columns,), (moved,))
    np.testing.assert_array_equal(tangent, hard(edges, values, moved))


@pytest.mark.parametrize("argument", ["edges", "values", "columns"])
def test_reverse_mode_is_the_transpose(sample, argument):
    """The gradient of a weighted sum of bins, by all that moves, along a direction: what forward mode gives."""
    values, columns = of_sample(sample)
    given = {"edges": jnp.asarray(PLACES)[None], "values": values, "columns": columns}
    generator = np.random.default_rng(2)
    weights = jnp.asarray(generator.normal(size=(3, 3)))

    def total(moving):
        return jnp.vdot(weights, hard(**(given | {argument: moving})))

    direction = jnp.asarray(generator.normal(size=given[argument].shape), given[argument].dtype)
    _, forward = jax.jvp(total, (given[argument],), (direction,))
    gradient = jax.jit(jax.grad(total))(given[argument])
    assert gradient.dtype == given[argument].dtype
    there = ~jnp.isnan(given[argument])
    backward = jnp.vdot(jnp.where(there, gradient, 0), jnp.where(there, direction, 0))
    np.testing.assert_allclose(backward, forward, rtol=1e-3)
    assert np.all(np.asarray(gradient)[~np.asarray(there)] == 0)


@pytest.mark.slow
def test_each_copy_of_the_edges_moves_its_own_events(sample):
    values, columns = of_sample(sample)
    copy = jnp.asarray(np.random.default_rng(4).integers(0, 2, EVENTS), jnp.int32)
    edges = jnp.asarray(np.stack([PLACES, PLACES]))
    slopes = jax.jacfwd(lambda edges: hard(edges, values, columns, copy))(edges)
    for number in range(2):
        own = jnp.where(copy[None] == number, columns, 0)
        alone = jax.jacfwd(lambda edges, own=own: hard(edges, values, own))(edges[:1])
        np.testing.assert_allclose(slopes[:, :, number], alone[:, :, 0], rtol=1e-4, atol=1e-2)
        assert np.any(np.asarray(alone) != 0)


def test_the_flux_of_edges_is_the_derivative_of_the_histogram(sample):
    """By every threshold and copy at once; a column may count events that the first one does not."""
    values, columns = of_sample(sample)
    columns = columns.at[0, ::2].set(0)
    copy = jnp.asarray(np.random.default_rng(5).integers(0, 2, EVENTS), jnp.int32)
    edges, region = jnp.asarray(np.stack([PLACES, PLACES])), regions(RANGE)[1]
    slopes = jax.jacfwd(lambda edges: hard(edges, values, columns, copy))(edges)
    flux = edge_flux(region, edges, jnp.full(4, f32(WIDTH)), values, columns, copy)
    assert len(flux) == 2  # a range: both ends move the edges between them
    along = (PLACES - PLACES[0]) / (PLACES[-1] - PLACES[0])
    for name, share in zip(region.edges, (1 - along, along), strict=True):
        expected = np.einsum("bcke,e->kbc", slopes, share)
        np.testing.assert_allclose(flux[name], expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())
        assert np.all(expected != 0)


@pytest.mark.slow
def test_each_edge_has_a_kernel_of_its_own(sample):
    """The derivative by an edge with a wide kernel does not know how narrow those of the others are."""
    values, columns = of_sample(sample)
    edges = jnp.asarray(PLACES)[None]
    widths = jnp.asarray([0.1, 0.2, 0.4, 0.8])

    def slopes(bandwidths):
        return jax.jacfwd(lambda at: hard(at, values, columns, bandwidths={"free": bandwidths}))(edges)[:, :, 0]

    mixed = slopes(widths)
    for number, width in enumerate(widths):
        alone = slopes(jnp.full(4, width))
        np.testing.assert_allclose(mixed[..., number], alone[..., number], rtol=1e-5, atol=1e-3)


def test_inner_edges_of_a_range_have_kernels_between_those_of_its_ends():
    widths = edge_widths(regions(RANGE)[1], arrays({"free.start": 0.1, "free.stop": 0.5}), jnp.asarray(PLACES)[None])
    along = (PLACES - PLACES[0]) / (PLACES[-1] - PLACES[0])
    np.testing.assert_allclose(widths, 0.1 + 0.4 * along)


def test_without_a_bandwidth_there_is_no_derivative(sample):
    slope = jax.jacfwd(lambda edges: hard(edges, *of_sample(sample), bandwidths={}))(jnp.asarray(PLACES)[None])
    assert not np.any(slope)


def test_edges_move_events_between_neighbours_and_leave_other_regions_alone(sample):
    values, columns = of_sample(sample)
    ones = jnp.ones_like(columns[:1])
    slope = np.asarray(jax.jacfwd(lambda edges: hard(edges, values, ones))(jnp.asarray(PLACES)[None]))[:, 0, 0]
    for edge in range(4):
        assert set(np.flatnonzero(slope[:, edge])) == {edge - 1, edge} & {0, 1, 2}
    np.testing.assert_allclose(slope[:, 1].sum(), 0, atol=1e-3 * np.abs(slope[:, 1]).max())
    assert slope[:, 0].sum() < 0 < slope[:, 3].sum()


@pytest.mark.slow
def test_a_range_moves_its_edges_by_the_chain_rule(sample):
    values, columns = of_sample(sample)
    edges = {"free": jnp.asarray(PLACES)}

    def by_range(at):
        return hard(placed_edges(regions(RANGE)[1:], at, edges)["free"], values, columns)

    both = jax.jacfwd(by_range)(arrays({"free.start": 0.0, "free.stop": 4.0}))
    single = np.asarray(jax.jacfwd(lambda edges: hard(edges[None], values, columns))(edges["free"]))
    along = np.array([0.0, 0.25, 0.75, 1.0])
    np.testing.assert_allclose(both["free.stop"], single @ along, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(both["free.start"], single @ (1 - along), rtol=1e-5, atol=1e-2)


@pytest.mark.slow
def test_the_derivative_is_the_finite_difference_of_the_hard_histogram():
    """Kernel and box of equal second moment: they differ by a part of the statistical error."""
    values = jnp.asarray(np.random.default_rng(0).normal(2, 1.5, 20_000), jnp.float32)
    ones = jnp.ones((1, 20_000), jnp.float32)

    def content(edge):
        return hard(jnp.asarray([[0.0, 0.0, 3.0, 4.0]]).at[0, 1].set(edge), values, ones)[:, 0]

    step = WIDTH * np.sqrt(3 / 5)
    difference = np.asarray(content(1 + step) - content(1 - step)) / (2 * step)
    slope = np.asarray(jax.jacfwd(content)(jnp.asarray(1.0)))
    error = np.sqrt(np.abs(difference[0]) / (2 * step))
    np.testing.assert_allclose(slope[:2], difference[:2], atol=float(error))
    assert difference[0] > 10 * error


def precise(values):
    return values.astype(jnp.float64)


def f32(value):
    return jnp.asarray(value, jnp.float32)


def f64(value):
    return jnp.asarray(value, jnp.float64)
