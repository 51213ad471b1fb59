"""Published workspaces, and random ones of their make-up: converged, and never above pyhf's minimisers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.fit import fit
from pipeline.inference.histfactory import asimov_data, from_pyhf, initial_parameters, parameter_names
from pipeline.inference.significance import poi_position

from reference.compiling import quick_jit
from reference.workspaces import few_bins_many_systematics

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

run_fit = quick_jit(fit, static_argnums=0)


def ours(structure, numbers, data, mu):
    position = poi_position(structure, None)
    initial, held = initial_parameters(structure), jnp.arange(structure.size) == (-1 if mu is None else position)
    return run_fit(structure, numbers, data, initial=initial if mu is None else initial.at[position].set(mu), held=held)


def by_slsqp(model, data, mu):
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    try:
        if mu is None:
            return float(pyhf.infer.mle.fit(data, model, return_fitted_val=True)[1])
        return float(pyhf.infer.mle.fixed_poi_fit(mu, data, model, return_fitted_val=True)[1])
    except pyhf.exceptions.FailedMinimization:
        return np.inf


def check(spec, points=(None, 0.0, 1.0)):
    structure, numbers, data = from_pyhf(spec)
    model = pyhf.Workspace(spec).model()
    for values in (data, asimov_data(structure, numbers)):
        for mu in points:
            found = ours(structure, numbers, values, mu)
            assert found.converged
            assert float(found.twice_nll) <= by_slsqp(model, np.asarray(values), mu) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_few_bins_and_many_systematics(seed):
    check(few_bins_many_systematics(seed), points=(None, 0.0))


@pytest.mark.slow
def test_published_workspaces(external_data):
    for path in sorted((external_data / "published").glob("*.json")):
        check(json.loads(path.read_text(encoding="utf-8")))


def test_atlas_ttz_as_published(external_data):
    """HEPData 100351; the values of pyhf and the scan of combine2pyhf, in 2 ΔNLL."""
    path = external_data / "published" / "atlas_ttz_3l.json"
    if not path.exists():
        pytest.skip("no published workspaces")
    structure, numbers, data = from_pyhf(json.loads(path.read_text(encoding="utf-8")))
    best = ours(structure, numbers, data, None)
    position = parameter_names(structure).index("mu_XS_ttZ")
    assert best.converged
    assert float(best.twice_nll) <= 346.81092 + 1e-6
    assert float(best.parameters[position]) == pytest.approx(1.1656, abs=5e-4)
    for mu, expected in ((0.5, 22.853), (1.0, 1.577), (1.5, 5.875)):
        held = ours(structure, numbers, data, mu)
        assert held.converged
        # The stored scan comes from a minimiser of finite tolerance: the two differ by up to 0.015.
        assert float(held.twice_nll - best.twice_nll) == pytest.approx(expected, abs=0.02)
    assert jnp.all(jnp.isfinite(best.parameters))
    assert int(jax.tree.leaves(best.iterations)[0]) < 200
