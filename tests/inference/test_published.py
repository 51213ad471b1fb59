"""Published workspaces, and random ones of their make-up: converged, and never above pyhf's minimisers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
import scipy.optimize
from pipeline.inference.fit import fit
from pipeline.inference.histfactory import asimov_data, bounds, from_pyhf, initial_parameters, parameter_names
from pipeline.inference.histfactory.likelihood import deviance, saturated_logpdf, terms
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
    for values in (data, quick_jit(asimov_data, static_argnums=0)(structure, numbers)):
        for mu in points:
            found = ours(structure, numbers, values, mu)
            assert found.converged
            assert float(found.twice_nll) <= by_slsqp(model, np.asarray(values), mu) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_few_bins_and_many_systematics(seed):
    check(few_bins_many_systematics(seed), points=(None, 0.0))


@pytest.mark.long
def test_published_workspaces(external_data):
    for path in sorted((external_data / "published").glob("*.json")):
        check(json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def ttz(external_data):
    """HEPData 100351: three bins, 197 parameters, and the likelihood, its slopes and its bounds."""
    path = external_data / "published" / "atlas_ttz_3l.json"
    if not path.exists():
        pytest.skip("no published workspaces")
    return json.loads(path.read_text(encoding="utf-8"))


def lowest_from_several_starts(structure, numbers, data, mu):
    """-2 ln L by SciPy's SLSQP with exact slopes: a minimiser that shares nothing with ours."""
    model = quick_jit(terms, static_argnums=0)(structure, numbers)
    slope = quick_jit(jax.value_and_grad(lambda x: deviance(structure, model, x, data)))
    initial, (lower, upper) = np.array(initial_parameters(structure)), map(np.array, bounds(structure))
    free, position = np.asarray(model.free), poi_position(structure, None)
    rng, values = np.random.default_rng(0), []
    for near in (0.0, 0.3, 1.0):
        scatter = rng.uniform(-near, near, structure.size)
        start = np.where(free, np.clip(initial + scatter * np.where(initial == 0, 1, initial), lower, upper), initial)
        low, high = np.where(free, lower, initial), np.where(free, upper, initial)
        if mu is not None:
            start[position] = low[position] = high[position] = mu
        found = scipy.optimize.minimize(
            lambda x: [np.asarray(part) for part in slope(jnp.asarray(x))],
            start,
            jac=True,
            bounds=list(zip(low, high, strict=True)),
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        values.append(float(found.fun))
    np.testing.assert_allclose(values, min(values), atol=1e-8)  # every start ends in the same place
    constant = quick_jit(saturated_logpdf, static_argnums=0)(structure, model, data)
    return min(values) - 2 * float(constant)


# The scan that combine2pyhf has stored of pyhf, as 2 ΔNLL. Its minimiser stopped short of the minimum: its differences
# are above ours at 0.5 and below at 1.5, so its fits end at least 0.015 too high. Hence the tolerance of 0.02 for it.
STORED_SCAN = {0.5: 22.853, 1.0: 1.577, 1.5: 5.875}


@pytest.mark.long
def test_atlas_ttz_by_another_minimiser(ttz):
    structure, numbers, data = from_pyhf(ttz)
    model = pyhf.Workspace(ttz).model()
    fits = {mu: ours(structure, numbers, data, mu) for mu in (None, *STORED_SCAN)}
    for mu, found in fits.items():
        assert found.converged
        theirs = -2 * float(model.logpdf(np.asarray(found.parameters), np.asarray(data))[0])
        assert float(found.twice_nll) == pytest.approx(theirs, abs=1e-9)
        assert float(found.twice_nll) == pytest.approx(
            lowest_from_several_starts(structure, numbers, data, mu), abs=1e-8
        )
    best = fits[None]
    position = parameter_names(structure).index("mu_XS_ttZ")
    assert float(best.parameters[position]) == pytest.approx(1.1656, abs=5e-4)
    assert int(best.iterations) < 200
    for mu, stored in STORED_SCAN.items():
        assert float(fits[mu].twice_nll - best.twice_nll) == pytest.approx(stored, abs=0.02)
