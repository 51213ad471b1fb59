"""Bin edges that move: where they are, and the change of the histogram against a smooth one and a finite difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.events.bin_edges import edge_flux, placed_edges
from pipeline.events.binning import bin_index, hard_histogram, smooth_histogram
from pipeline.events.cuts import Count, Region, Selection

EDGES = {"free": jnp.asarray([0.0, 1.0, 3.0, 4.0]), "fixed": jnp.asarray([0.0, 1.0])}
EACH = ("free.edge_0", "free.edge_1", "free.edge_2", "free.edge_3")
RANGE = ("free.start", "free.stop")


def selection(names: tuple[str, ...]) -> Selection:
    regions = (
        Region("fixed", Count(0), Count(0, 0), "ht", 1, 0),
        Region("free", Count(0), Count(1), "ht", 3, 1, names),
    )
    return Selection((), Count(0), regions)


def numbers(values: dict[str, float]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}


def observables(seed: int = 0, events: int = 20_000) -> dict[str, jax.Array]:
    values = np.random.default_rng(seed).normal(2, 1.5, events).astype(np.float32)
    values[:100] = np.nan
    return {"free": jnp.asarray(values), "fixed": jnp.full(events, jnp.nan, jnp.float32)}


def flux(names: tuple[str, ...], at: dict[str, float], width: float) -> dict[str, np.ndarray]:
    chosen, seen = selection(names), observables()
    columns = jnp.ones((1, seen["free"].shape[0]), jnp.float32)
    placed = placed_edges(chosen, numbers(at), EDGES)
    everything = jnp.zeros(columns.shape[1], jnp.int32)
    found = edge_flux(chosen, numbers(dict.fromkeys(names, width)), placed, seen, columns, everything, 1)
    return {name: np.asarray(one)[0, :, 0] for name, one in found.items()}


def test_a_moving_range_keeps_the_proportions():
    placed = placed_edges(selection(RANGE), numbers({"free.start": 1.0, "free.stop": 9.0}), EDGES)
    np.testing.assert_allclose(placed["free"], [1, 3, 7, 9])
    np.testing.assert_array_equal(placed["fixed"], EDGES["fixed"])


def test_single_edges_go_where_their_thresholds_say():
    at = dict(zip(EACH, [0.5, 1.5, 2.0, 7.0], strict=True))
    np.testing.assert_allclose(placed_edges(selection(EACH), numbers(at), EDGES)["free"], [0.5, 1.5, 2.0, 7.0])


def test_without_a_bandwidth_there_is_no_flux():
    chosen, seen = selection(EACH), observables()
    columns = jnp.ones((1, seen["free"].shape[0]), jnp.float32)
    assert edge_flux(chosen, {}, EDGES, seen, columns, jnp.zeros(columns.shape[1], jnp.int32), 1) == {}


def test_flux_moves_events_between_neighbours_and_leaves_other_regions_alone():
    found = flux(EACH, dict(zip(EACH, [0.0, 1.0, 3.0, 4.0], strict=True)), 0.3)
    for number, name in enumerate(EACH):
        touched = {number, number + 1} & {1, 2, 3}  # bin 0 belongs to the other region
        assert set(np.flatnonzero(found[name])) == touched
    np.testing.assert_allclose(found[EACH[1]].sum(), 0, atol=1e-3 * np.abs(found[EACH[1]]).max())
    assert found[EACH[0]].sum() < 0 < found[EACH[3]].sum()


def test_flux_of_a_range_is_that_of_its_edges_by_the_chain_rule():
    single = flux(EACH, dict(zip(EACH, [0.0, 1.0, 3.0, 4.0], strict=True)), 0.3)
    both = flux(RANGE, {"free.start": 0.0, "free.stop": 4.0}, 0.3)
    along = np.array([0.0, 0.25, 0.75, 1.0])
    stacked = np.stack([single[name] for name in EACH])
    np.testing.assert_allclose(both["free.stop"], along @ stacked, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(both["free.start"], (1 - along) @ stacked, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("number", range(4))
def test_flux_is_the_derivative_of_the_smooth_histogram(number):
    """Both estimate the same density: kernels of equal second moment, so they differ by a part of its error only."""
    edges = np.array([0.0, 1.0, 3.0, 4.0])
    width = 0.3
    values = observables()["free"][100:].astype(jnp.float64)

    def content(edge: jax.Array) -> jax.Array:
        moved = jnp.asarray(edges).at[number].set(edge)
        return smooth_histogram(values, jnp.ones_like(values), moved, jnp.asarray(width / np.sqrt(5)))

    slope = np.asarray(jax.jacobian(content)(jnp.asarray(edges[number])))
    found = flux(EACH, dict(zip(EACH, edges, strict=True)), width)[EACH[number]][1:]
    error = np.sqrt(np.abs(found) * 0.6 / width)  # ∫K² = 0.6/h
    np.testing.assert_allclose(found, slope, atol=float(error.max()))
    assert np.abs(slope).max() > 10 * error.max()


def test_flux_is_the_finite_difference_of_the_hard_histogram():
    values = observables()["free"]

    def content(edge: float) -> np.ndarray:
        moved = jnp.asarray([0.0, edge, 3.0, 4.0], jnp.float32)
        columns = jnp.ones((values.shape[0], 1), jnp.float32)
        return np.asarray(hard_histogram(bin_index(values, moved), columns, 3))[:, 0]

    width, step = 0.4, 0.4 * np.sqrt(3 / 5)
    difference = (content(1 + step) - content(1 - step)) / (2 * step)
    found = flux(EACH, dict(zip(EACH, [0.0, 1.0, 3.0, 4.0], strict=True)), width)[EACH[1]][1:]
    error = np.sqrt(np.abs(difference) / (2 * step))
    np.testing.assert_allclose(found[:2], difference[:2], atol=float(error.max()))
    assert difference[0] > 10 * error[0]
