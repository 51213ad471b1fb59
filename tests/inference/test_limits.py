"""Limits, p-values and toys against pyhf.infer, and against counting where that is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.histfactory import expected_data, from_pyhf
from pipeline.inference.limits import hypothesis_test, upper_limits
from pipeline.inference.toys import Statistics, discovery_by_toys, p_value, pseudo_data, toy_statistics

from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, HELLO_WORLD, MU, modifier, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")


fluctuated = quick_jit(pseudo_data, static_argnums=(0, 4))
quick_statistics = quick_jit(toy_statistics, static_argnums=0, static_argnames="statistic")


@pytest.fixture(autouse=True)
def precise_pyhf():
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-11))
    yield
    pyhf.set_backend("numpy")


def one_region(background, signal, observed, **poi):
    samples = [
        {"name": "background", "data": background, "modifiers": []},
        {"name": "signal", "data": signal, "modifiers": [MU]},
    ]
    parameters = [{"name": "mu", "inits": [1.0], **poi}]
    return from_pyhf(workspace([{"name": "SR", "samples": samples}], {"SR": observed}, parameters=parameters))


@pytest.mark.slow
def test_where_the_data_say_nothing_or_exclude_every_strength_there_is_no_limit():
    nowhere = upper_limits(*one_region([50.0, 0.0], [0.0, 0.0], [50.0, 0.0]))
    assert np.isnan([nowhere.observed, *nowhere.expected]).all()
    # A deficit of 3.7 standard deviations, where a negative strength may be fitted: CLs is exp(-q / 2) near zero.
    everywhere = upper_limits(*one_region([50.0, 40.0], [10.0, 5.0], [30.0, 25.0], bounds=[[-5.0, 5.0]]))
    assert np.isnan(everywhere.observed)
    assert np.isfinite(everywhere.expected).all()
    # The strength that fits these data lies above the bound.
    beyond = upper_limits(*one_region([1.0, 1.0], [1.0, 1.0], [500.0, 400.0], bounds=[[0.0, 10.0]]))
    assert np.isnan(beyond.observed)
    assert np.isfinite(beyond.expected).all()
    assert not any(limits.converged for limits in (nowhere, everywhere, beyond))


def test_a_p_value_smaller_than_any_number_leaves_a_ratio():
    structure, numbers, data = one_region([50.0, 40.0], [10.0, 5.0], [30.0, 25.0], bounds=[[-5.0, 5.0]])
    test = hypothesis_test(structure, numbers, data, 1e-3)
    assert float(test.cl_b) == 0.0
    # Of two tails far out: the ratio of exp(-x^2 / 2) / x.
    root = np.sqrt(test.q_asimov)
    signal, background = 0.5 * (test.q + test.q_asimov) / root, 0.5 * (test.q - test.q_asimov) / root
    assert float(test.observed_cls) == pytest.approx(np.exp(-0.5 * test.q) * background / signal, rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("an excess", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("hello world", "everything")),
    ],
)
def test_p_values_and_limits_are_those_of_pyhf(name):
    spec = EVERYTHING if name == "everything" else HELLO_WORLD
    structure, numbers, data = from_pyhf(spec)
    if name == "an excess":
        data = data.at[:2].set(jnp.array([70.0, 66.0]))
    model = pyhf.Workspace(spec).model()
    for mu in (0.5, 1.0):
        mine = hypothesis_test(structure, numbers, data, mu)
        cls, tails, bands = pyhf.infer.hypotest(
            mu, np.asarray(data), model, return_tail_probs=True, return_expected_set=True
        )
        assert mine.converged
        np.testing.assert_allclose(mine.observed_cls, cls, atol=1e-4)
        np.testing.assert_allclose([mine.cls_plus_b, mine.cl_b], tails, atol=1e-4)
        np.testing.assert_allclose(mine.expected_cls, bands, atol=1e-4)
    observed, expected = pyhf.infer.intervals.upper_limits.upper_limit(np.asarray(data), model, rtol=1e-6)
    mine = upper_limits(structure, numbers, data)
    assert mine.converged
    np.testing.assert_allclose(mine.observed, observed, rtol=1e-4)
    np.testing.assert_allclose(mine.expected, expected, rtol=1e-4)
    strengths = [float(test.mu) for test in mine.scan]
    assert strengths == sorted(strengths)


def counting(background, signal, observed):
    """A background that is known all but exactly."""
    known = modifier("normsys", "n", {"hi": 1.0001, "lo": 0.9999})
    samples = [
        {"name": "background", "data": [background], "modifiers": [known]},
        {"name": "signal", "data": [signal], "modifiers": [MU]},
    ]
    return workspace([{"name": "SR", "samples": samples}], {"SR": [observed]})


@pytest.mark.slow
def test_toys_of_few_events_are_poisson_where_the_asymptotic_formula_is_not():
    structure, numbers, data = from_pyhf(counting(0.5, 3.0, 4.0))
    found = quick_jit(discovery_by_toys, static_argnums=(0, 4))(structure, numbers, data, jax.random.key(1), 4000)
    share, error = map(float, found.p_value)
    exact = 1 - np.exp(-0.5) * sum(0.5**k / np.prod(np.arange(1, k + 1)) for k in range(4))
    assert int(found.failed) == 0
    assert abs(share - exact) < 4 * error + 1e-9
    assert float(found.asymptotic_z) - float(found.z) > 0.05  # the formula claims too much


@pytest.mark.slow
def test_toys_of_many_events_have_the_asymptotic_distribution():
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    parameters = jnp.array([0.0, 1.0, 1.0])
    toys = fluctuated(structure, numbers, parameters, jax.random.key(2), 1500)
    expected = quick_jit(expected_data, static_argnums=0)(structure, numbers, parameters)
    np.testing.assert_allclose(jnp.mean(toys, axis=0), expected, rtol=0.02)
    np.testing.assert_allclose(jnp.var(toys, axis=0), expected, rtol=0.15)  # counts, beside the bins too
    statistics = quick_statistics(structure, numbers, toys, jnp.asarray(0.0), statistic="q0")
    assert int(statistics.failed) == 0
    for z, tail in ((0.0, 1.0), (1.0, 0.1587), (1.645, 0.05)):
        share, error = map(float, p_value(statistics, jnp.asarray(z**2)))
        assert abs(share - tail) < 4 * error + 1e-9


@pytest.mark.slow
def test_a_toy_that_fails_is_counted_and_left_out():
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    toys = fluctuated(structure, numbers, jnp.array([0.0, 1.0, 1.0]), jax.random.key(3), 1500)
    toys = toys.at[1, 0].set(jnp.nan)
    statistics = quick_statistics(structure, numbers, toys, jnp.asarray(0.0), statistic="q0")
    assert int(statistics.failed) == 1
    share, _ = p_value(statistics, jnp.asarray(0.0))
    assert float(share) == 1.0  # of those that are left


def test_without_an_observed_statistic_there_is_no_p_value():
    statistics = Statistics(values=jnp.arange(4.0), converged=jnp.ones(4, bool))
    assert p_value(statistics, jnp.asarray(2.0))[0] == 0.5
    assert np.isnan(p_value(statistics, jnp.asarray(jnp.nan))).all()
