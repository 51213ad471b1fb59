"""Poisson weights belong to collisions; what is compared sees the same ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.validation.bootstrap import bootstrap, resampled

from small_analysis import small_data


@pytest.fixture(scope="module")
def data():
    return small_data(events=600, chunk_size=128)


def factors(replica, data) -> dict[tuple[int, int], set[float]]:
    """The factors on the weights by data set and collision."""
    found: dict[tuple[int, int], set[float]] = {}
    for new, old in zip(replica.events.groups, data.events.groups, strict=True):
        collision, dataset = np.asarray(old.collision), np.asarray(old.dataset)[:, None]
        real = np.asarray(old.index) >= 0
        keys = zip(np.broadcast_to(dataset, collision.shape)[real], collision[real], strict=True)
        ratio = np.asarray(new.weight)[real] / np.asarray(old.weight)[real]
        for key, factor in zip(keys, ratio, strict=True):
            found.setdefault(tuple(map(int, key)), set()).add(float(factor))
    return found


def test_events_of_a_collision_share_their_weight(data):
    """Wherever they stand: in other chunks, in other groups."""
    found = factors(resampled(data, np.random.default_rng(1)), data)
    assert len(found) == 3 * 300
    assert all(len(values) == 1 for values in found.values())


def test_factors_are_poisson_and_independent_between_data_sets(data):
    found = factors(resampled(data, np.random.default_rng(2)), data)
    values = np.array([[found[dataset, c].copy().pop() for c in range(300)] for dataset in range(3)])
    assert np.all(values == np.round(values))
    np.testing.assert_allclose(values.mean(), 1.0, atol=4 / np.sqrt(900))
    np.testing.assert_allclose(values.var(), 1.0, atol=4 * np.sqrt(3 / 900))
    assert abs(np.corrcoef(values)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(300)


def test_only_weights_change(data):
    replica = resampled(data, np.random.default_rng(3))

    new, old = (jax.tree_util.tree_leaves_with_path(one) for one in (replica, data))
    replaced = [path[-1].name for (path, one), (_, other) in zip(new, old, strict=True) if one is not other]
    assert replaced == ["weight"] * len(data.events.groups)
    for group in replica.events.groups:
        assert np.all(np.asarray(group.weight)[np.asarray(group.index) < 0] == 0)


def count(thresholds, data) -> float:
    """Events with any jet above a threshold: a value that is quick to evaluate."""
    total = 0.0
    for group in data.events.groups:
        passed = jnp.any(group.varied_objects["jet"]["pt"][0] > thresholds["jet_pt"].astype(jnp.float32), axis=1)
        total += float(jnp.sum(jnp.where(passed, group.weight, 0)))
    return total


def at(*points: float) -> list[dict[str, jax.Array]]:
    return [{"jet_pt": jnp.asarray(point)} for point in points]


def test_the_error_is_that_of_counting(data):
    (exact,) = (count(point, data) for point in at(80.0))
    spread = bootstrap(count, at(80.0), data, replicas=300, seed=1)
    assert spread.shape == (300, 1)
    # pairs of events share their collision: sqrt(2 n) if they passed alike, sqrt(n) if not
    assert np.sqrt(exact) < spread.std() < np.sqrt(2 * exact)
    np.testing.assert_allclose(spread.mean(), exact, atol=4 * spread.std() / np.sqrt(300))


def test_the_error_of_a_difference_is_that_of_the_events_in_between(data):
    """Far below the error of either value: both points see the same replicas."""
    spread = bootstrap(count, at(80.0, 81.0), data, replicas=100, seed=1)
    difference = spread[:, 0] - spread[:, 1]
    between = count(*at(80.0), data) - count(*at(81.0), data)
    assert np.all(difference >= 0)
    assert 0.7 * np.sqrt(between) < difference.std() < 1.5 * np.sqrt(2 * between)
    assert difference.std() < 0.5 * spread.std(axis=0).min()


def test_replicas_repeat_with_the_seed(data):
    one, again, other = (bootstrap(count, at(80.0), data, replicas=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
