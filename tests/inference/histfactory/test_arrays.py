"""NumPy and JAX run the same functions: the same numbers, from arrays of either."""

import jax
import numpy as np
import pytest
from pipeline.inference.fit import fit, fit_at_once
from pipeline.inference.histfactory import from_pyhf, initial_parameters
from pipeline.inference.histfactory.arrays import cholesky, hosted
from pipeline.inference.histfactory.expansion import expanded_deviance, varied_rates
from pipeline.inference.histfactory.likelihood import deviance, terms

from reference.compiling import quick_jit
from reference.workspaces import COUPLED_HISTOSYS, EVERYTHING, few_bins_many_systematics

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

WORKSPACES = {"coupled": COUPLED_HISTOSYS, "everything": EVERYTHING, "few bins": few_bins_many_systematics(0)}


def around(structure, numbers, parameters, data):
    model = terms(structure, numbers)
    expanded = expanded_deviance(structure, model, parameters, data)
    varied = varied_rates(structure, model.effects, parameters, np.array([[-0.7], [1.3]]) * parameters[None])
    return deviance(structure, model, parameters, data), expanded, varied


@pytest.mark.parametrize("name", WORKSPACES)
def test_numpy_computes_what_jax_compiles(name):
    structure, numbers, data = from_pyhf(WORKSPACES[name])
    point = np.asarray(initial_parameters(structure)) + np.random.default_rng(0).uniform(0.01, 0.2, structure.size)
    compiled = jax.tree.leaves(quick_jit(around, static_argnums=0)(structure, numbers, point, data))
    at_once = jax.tree.leaves(around(structure, *jax.tree.map(np.asarray, (numbers, point, data))))
    for mine, theirs in zip(at_once, compiled, strict=True):
        assert isinstance(mine, np.ndarray | np.generic)
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10 * (1 + np.max(np.abs(theirs))))


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKSPACES)
def test_a_fit_at_once_ends_where_a_compiled_one_does(name):
    structure, numbers, data = from_pyhf(WORKSPACES[name])
    at_once, compiled = (
        fit_at_once(structure, numbers, data),
        quick_jit(fit, static_argnums=0)(structure, numbers, data),
    )
    assert at_once.converged
    assert compiled.converged
    np.testing.assert_allclose(at_once.twice_nll, compiled.twice_nll, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(at_once.parameters, compiled.parameters, atol=1e-5)


def test_data_that_are_not_numbers_do_not_converge_at_once():
    structure, numbers, data = from_pyhf(COUPLED_HISTOSYS)
    assert not fit_at_once(structure, numbers, np.where(np.arange(len(data)) == 0, np.nan, data)).converged


def test_a_matrix_that_is_not_definite_has_no_factor():
    for matrix in (np.diag([1.0, -1.0]), np.full((2, 2), np.nan)):
        assert np.isnan(cholesky(matrix)).any()
        assert np.isnan(cholesky(jax.numpy.asarray(matrix))).any()
    definite = np.array([[2.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(cholesky(definite), np.linalg.cholesky(definite))


@pytest.mark.parametrize("known", [True, False], ids=["a CPU beside it", "told to know no CPU"])
def test_a_fit_is_for_the_cpu_where_there_is_a_gpu(known, monkeypatch):
    """In place of a GPU, whatever calls itself so; a JAX without a CPU computes where it can."""
    cpu = jax.devices()[0]

    def devices(backend=None):
        if not known:
            raise RuntimeError(f"Backend '{backend}' is not in the list of known backends")
        return [cpu]

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", devices)
    where = []

    def traced(x):
        where.append(jax.config.jax_default_device)
        return x

    assert hosted(traced)(1.0) == 1.0
    assert where == [cpu if known else None]
    assert jax.config.jax_default_device is None
