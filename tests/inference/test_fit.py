"""Fits against pyhf's own optimisers, and their derivatives against fits repeated with other numbers."""

import copy
import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from hypothesis import strategies as st
from pipeline.inference.fit import covariance, fit
from pipeline.inference.histfactory import asimov_data, bounds, from_pyhf, initial_parameters, parameter_names

from reference import agc_workspace
from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, MU, WRITTEN_OUT, large_workspace, modifier, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

compiled = quick_jit(fit, static_argnums=0)
errors_of = quick_jit(covariance, static_argnums=0)


def run_fit(structure, numbers, data, *, initial=None, held=None, max_iterations=200):
    """Every fit of a structure by the same compiled one."""
    initial = initial_parameters(structure) if initial is None else initial
    held = jnp.zeros(structure.size, bool) if held is None else held
    return compiled(structure, numbers, data, initial=initial, held=held, max_iterations=jnp.asarray(max_iterations))


def best_of_pyhf(workspace, data=None, optimizers=("scipy", "minuit")):
    """The smallest -2 ln L that SLSQP and Minuit find."""
    chosen = {
        "scipy": pyhf.optimize.scipy_optimizer(),
        "minuit": pyhf.optimize.minuit_optimizer(tolerance=0.001),
    }
    model = pyhf.Workspace(workspace).model()
    data = np.asarray(pyhf.Workspace(workspace).data(model) if data is None else data)
    values = []
    for name in optimizers:
        pyhf.set_backend("numpy", chosen[name])
        try:
            _, value = pyhf.infer.mle.fit(data, model, return_fitted_val=True, maxiter=5000)
        except pyhf.exceptions.FailedMinimization:
            continue
        values.append(float(value))
    pyhf.set_backend("numpy")
    return min(values)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_reaches_the_minimum_of_pyhf(name):
    structure, numbers, data = from_pyhf(WRITTEN_OUT[name])
    found = run_fit(structure, numbers, data)
    assert found.converged
    assert found.gradient_norm < 1e-6
    assert float(found.twice_nll) <= best_of_pyhf(WRITTEN_OUT[name]) + 1e-6
    lower, upper = bounds(structure)
    assert np.all((found.parameters >= lower) & (found.parameters <= upper))


@pytest.mark.long
def test_reaches_the_minimum_of_pyhf_with_more_than_a_hundred_parameters():
    """Minuit with numerical derivatives takes a minute here: `scripts/benchmarks/likelihood.py` runs it."""
    workspace = large_workspace()
    structure, numbers, data = from_pyhf(workspace)
    assert structure.size >= 100
    found = run_fit(structure, numbers, data)
    assert found.converged
    assert float(found.twice_nll) <= best_of_pyhf(workspace, optimizers=("scipy",)) + 1e-6


# agc-spec, section 13.4: exact fits of the pseudo-data, by an independent program.
AGC_FITS = {"1": (0.960769, 0.108212), "5": (0.953315, 0.091939)}


@pytest.mark.slow
@pytest.mark.parametrize("files", AGC_FITS)
def test_the_agc_fits_as_published(external_data, files):
    structure, numbers, data = from_pyhf(agc_workspace.build(external_data / f"histos_{files}_file_per_process.json"))
    found = run_fit(structure, numbers, data)
    position = parameter_names(structure).index("ttbar_norm")
    errors = errors_of(structure, numbers, data, found.parameters, found.free)
    mu, sigma = AGC_FITS[files]
    assert found.converged
    assert float(found.parameters[position]) == pytest.approx(mu, abs=1e-6)
    assert float(jnp.sqrt(errors[position, position])) == pytest.approx(sigma, abs=1e-6)


@pytest.mark.slow
def test_the_agc_with_all_files_converges_from_everywhere(external_data):
    """Where the default call of cabinetry fails (agc-spec, section 13.2)."""
    structure, numbers, data = from_pyhf(agc_workspace.build(external_data / "histos_all_file_per_process.json"))
    lower, upper = map(np.asarray, bounds(structure))
    rng = np.random.default_rng(3)
    starts = jnp.asarray(rng.uniform(np.maximum(lower, -4), np.minimum(upper, 4), (16, structure.size)))
    found = quick_jit(jax.vmap(lambda start: fit(structure, numbers, data, initial=start)))(starts)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.twice_nll, found.twice_nll[0], atol=1e-8)
    np.testing.assert_allclose(found.parameters, jnp.broadcast_to(found.parameters[0], starts.shape), atol=1e-6)


@pytest.mark.slow
@hypothesis.settings(max_examples=4, deadline=None)
@hypothesis.given(seed=st.integers(0, 10_000), strength=st.floats(0, 4))
def test_toys_reach_the_minimum_of_pyhf(seed, strength):
    """Poisson toys: empty bins, bounds that become active, parameters far from where they started."""
    structure, numbers, _ = from_pyhf(EVERYTHING)
    position = parameter_names(structure).index("mu")
    point = jnp.array([value for one in structure.parameter_sets for value in one.initial]).at[position].set(strength)
    expected = np.asarray(asimov_data(structure, numbers, point))
    toy = expected.copy()
    toy[: structure.bins] = np.random.default_rng(seed).poisson(expected[: structure.bins])
    found = run_fit(structure, numbers, jnp.asarray(toy))
    assert found.converged
    assert float(found.twice_nll) <= best_of_pyhf(EVERYTHING, toy, optimizers=("scipy",)) + 1e-6


@pytest.mark.slow
def test_kinks_of_the_likelihood_are_minima_too():
    """Codes 0 and 1 have a kink at alpha = 0, where several of these fits end: Newton's method alone would not."""
    settings = {"normsys": {"interpcode": "code1"}, "histosys": {"interpcode": "code0"}}
    structure, numbers, data = from_pyhf(EVERYTHING, modifier_settings=settings)
    model = pyhf.Workspace(EVERYTHING).model(modifier_settings=settings)
    kinked = np.isin(parameter_names(structure), ["JES", "scale"])
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    on_kink = 0
    for seed in range(6):
        toy = np.asarray(data).copy()
        toy[: structure.bins] = np.random.default_rng(seed).poisson(toy[: structure.bins])
        found = run_fit(structure, numbers, jnp.asarray(toy))
        _, value = pyhf.infer.mle.fit(toy, model, return_fitted_val=True)
        assert found.converged
        assert float(found.twice_nll) <= float(value) + 1e-6
        on_kink += int(np.sum((np.asarray(found.parameters) == 0) & kinked))
    assert on_kink > 0


@pytest.mark.slow
def test_many_toys_at_once_are_the_toys_one_by_one():
    structure, numbers, data = from_pyhf(WRITTEN_OUT["hello world"])
    toys = jnp.asarray(np.random.default_rng(1).poisson(50.0, (6, structure.bins)).astype(float))
    toys = jnp.concatenate([toys, jnp.broadcast_to(data[structure.bins :], (6, len(data) - structure.bins))], axis=1)
    together = quick_jit(jax.vmap(lambda toy: fit(structure, numbers, toy)))(toys)
    for i, toy in enumerate(toys):
        alone = run_fit(structure, numbers, toy)
        np.testing.assert_allclose(together.parameters[i], alone.parameters, atol=1e-7)
        np.testing.assert_allclose(together.twice_nll[i], alone.twice_nll, atol=1e-9)


@pytest.mark.slow
def test_the_smaller_of_two_minima_is_found_from_either_side():
    """A variation that moves the background up on both sides fits the same excess at -2 and at +1."""
    variation = modifier("normsys", "lopsided", {"hi": 1.3, "lo": 1.12})
    spec = workspace(
        [
            {
                "name": "SR",
                "samples": [
                    {"name": "background", "data": [100.0, 50.0], "modifiers": [variation]},
                    {"name": "signal", "data": [1.0, 2.0], "modifiers": [MU]},
                ],
            }
        ],
        {"SR": [130.0, 64.0]},
        parameters=[{"name": "mu", "fixed": True}],
    )
    structure, numbers, data = from_pyhf(spec)
    position = parameter_names(structure).index("lopsided")
    for start in (-2.0, 1.0):
        found = run_fit(structure, numbers, data, initial=jnp.ones(2).at[position].set(start))
        assert found.converged
        assert float(found.parameters[position]) > 0.5
        assert float(found.twice_nll) <= best_of_pyhf(spec) + 1e-6


def test_a_held_parameter_stays_outside_its_bounds():
    spec = copy.deepcopy(WRITTEN_OUT["hello world"])
    structure, numbers, data = from_pyhf(spec)
    spec["measurements"][0]["config"]["parameters"] = [{"name": "mu", "bounds": [[0.2, 10.0]]}]
    bounded, _, _ = from_pyhf(spec)
    position = parameter_names(structure).index("mu")
    is_mu, start = jnp.arange(structure.size) == position, jnp.ones(structure.size).at[position].set(0.0)
    free, held = (run_fit(s, numbers, data, initial=start, held=is_mu) for s in (structure, bounded))
    assert held.converged
    assert float(held.parameters[position]) == 0.0
    np.testing.assert_allclose(held.twice_nll, free.twice_nll, rtol=1e-12)


def test_a_bound_that_a_step_misses_by_rounding_is_a_bound():
    """No event in a bin whose background was simulated with one: its staterror goes to pyhf's bound of 1e-10."""
    spec = workspace(
        [
            {
                "name": "SR",
                "samples": [
                    {"name": "background", "data": [1.0], "modifiers": [modifier("staterror", "stat", [1.5])]},
                    {"name": "signal", "data": [5.0], "modifiers": [MU]},
                ],
            }
        ],
        {"SR": [0.0]},
    )
    structure, numbers, data = from_pyhf(spec)
    found = run_fit(structure, numbers, data)
    assert found.converged
    assert float(found.parameters[parameter_names(structure).index("stat[0]")]) == 1e-10
    assert not found.free.any()


@pytest.mark.slow
def test_of_parameters_without_a_say_nothing_is_known_and_of_the_others_no_less():
    spec = copy.deepcopy(WRITTEN_OUT["coupled histosys"])
    structure, numbers, data = from_pyhf(spec)
    found = run_fit(structure, numbers, data)
    known = errors_of(structure, numbers, data, found.parameters, found.free)
    for sample in spec["channels"][0]["samples"][1:]:
        sample["modifiers"].append(modifier("normfactor", "fixed_norm"))
    spec["channels"][0]["samples"].append(
        {"name": "empty", "data": [0.0, 0.0], "modifiers": [modifier("normfactor", "k")]}
    )
    spec["measurements"][0]["config"]["parameters"] = [{"name": "fixed_norm", "fixed": True}]
    more, numbers, data = from_pyhf(spec)
    found = run_fit(more, numbers, data)
    matrix = errors_of(more, numbers, data, found.parameters, found.free)
    assert found.converged
    names = parameter_names(more)
    assert np.isinf(matrix[names.index("k"), names.index("k")])
    same = [names.index(name) for name in parameter_names(structure)]
    np.testing.assert_allclose(matrix[np.ix_(same, same)], known, rtol=1e-8)
    slope = quick_jit(jax.jacrev(lambda n: fit(more, n, data).parameters))(numbers)
    assert np.all(np.isfinite(slope.nominal))


LEAVES = ("nominal", "normsys_lo", "normsys_hi", "histosys_lo", "histosys_hi", "staterror", "shapesys")


def direction(numbers, seed):
    """A change of every number that is not zero."""
    rng = np.random.default_rng(seed)
    moved = {leaf: jnp.asarray(rng.normal(size=getattr(numbers, leaf).shape)) for leaf in LEAVES}
    moved = {leaf: jnp.where(getattr(numbers, leaf) != 0, 0.1 * moved[leaf], 0.0) for leaf in LEAVES}
    return dataclasses.replace(numbers, **moved, constraint_width=jnp.zeros_like(numbers.constraint_width))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coupled histosys", pytest.param("everything", marks=pytest.mark.slow)])
def test_the_derivative_of_the_fit_is_that_of_fits_repeated(name):
    structure, numbers, data = from_pyhf(WRITTEN_OUT[name])
    tangent = direction(numbers, 5)

    def along(t):
        moved = jax.tree.map(lambda n, d: n + t * d, numbers, tangent)
        found = fit(structure, moved, data)
        return found.parameters, found.twice_nll

    h = 1e-3
    value = quick_jit(along)
    points = [value(jnp.asarray(k * h)) for k in (-2, -1, 1, 2)]
    by_differences = jax.tree.map(lambda a, b, c, d: (a - 8 * b + 8 * c - d) / (12 * h), *points)
    derivative = jax.jacfwd if name == "everything" else jax.jacrev
    for mine, theirs in zip(quick_jit(derivative(along))(jnp.asarray(0.0)), by_differences, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_the_second_derivative_of_the_smallest_twice_nll():
    """The envelope theorem is of first order; the parameters' own derivative makes the second one right."""
    structure, numbers, data = from_pyhf(WRITTEN_OUT["coupled histosys"])
    tangent = direction(numbers, 5)
    slope = jax.grad(lambda t: fit(structure, jax.tree.map(lambda n, d: n + t * d, numbers, tangent), data).twice_nll)
    h = 1e-3
    at = quick_jit(slope)
    by_differences = (at(jnp.asarray(h)) - at(jnp.asarray(-h))) / (2 * h)
    np.testing.assert_allclose(quick_jit(jax.jacfwd(slope))(jnp.asarray(0.0)), by_differences, rtol=1e-4)


def test_a_fit_that_may_not_finish_says_so():
    structure, numbers, data = from_pyhf(EVERYTHING)
    unfinished = run_fit(structure, numbers, data, max_iterations=2)
    assert not unfinished.converged
    assert int(unfinished.iterations) == 2
    assert float(unfinished.distance) > 1e-9


def test_data_that_are_not_numbers_do_not_converge():
    structure, numbers, data = from_pyhf(WRITTEN_OUT["coupled histosys"])
    assert not run_fit(structure, numbers, data.at[0].set(jnp.nan)).converged


@pytest.mark.slow
def test_parameters_at_a_bound_do_not_move():
    structure, numbers, data = from_pyhf(WRITTEN_OUT["hello world"])
    deficit = data.at[:2].set(jnp.array([30.0, 25.0]))
    found = run_fit(structure, numbers, deficit)
    position = parameter_names(structure).index("mu")
    assert found.converged
    assert float(found.parameters[position]) == 0.0
    assert not found.free[position]
    slope = quick_jit(jax.jacrev(lambda n: fit(structure, n, deficit).parameters[position]))(numbers)
    assert np.all(slope.nominal == 0)
