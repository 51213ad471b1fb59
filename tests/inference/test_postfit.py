"""Impacts, correlations, yields, goodness of fit and scans against cabinetry."""

import cabinetry
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.fit import covariance, fit
from pipeline.inference.histfactory import from_pyhf, parameter_names
from pipeline.inference.postfit import correlation, goodness_of_fit, impacts, profile_scan, yields

from reference.compiling import quick_jit
from reference.workspaces import COUPLED_HISTOSYS, EVERYTHING

pytestmark = [
    # pyhf 0.7 validates with a part of jsonschema that is to go.
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::iminuit.warnings.IMinuitWarning"),
]


@pytest.fixture(scope="module")
def ours():
    structure, numbers, data = from_pyhf(EVERYTHING)
    best = quick_jit(fit, static_argnums=0)(structure, numbers, data)
    errors = quick_jit(covariance, static_argnums=0)(structure, numbers, data, best.parameters, best.free)
    return structure, numbers, data, best, errors


@pytest.fixture(scope="module")
def theirs():
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-3))
    model, data = cabinetry.model_utils.model_and_data(EVERYTHING)
    return model, data, cabinetry.fit.fit(model, data, goodness_of_fit=True)


def test_correlations_and_goodness_of_fit(ours, theirs):
    structure, _, _, best, errors = ours
    _, _, fitted = theirs
    free = np.asarray(best.free)
    mine = np.asarray(correlation(errors))
    np.testing.assert_allclose(mine[np.ix_(free, free)], fitted.corr_mat[np.ix_(free, free)], atol=5e-3)
    quality = goodness_of_fit(structure, best)
    assert float(quality.p_value) == pytest.approx(fitted.goodness_of_fit, rel=1e-3)


def test_impacts_are_those_of_cabinetry():
    structure, numbers, data = from_pyhf(COUPLED_HISTOSYS)
    best = quick_jit(fit, static_argnums=0)(structure, numbers, data)
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-3))
    model, observed = cabinetry.model_utils.model_and_data(COUPLED_HISTOSYS)
    fitted = cabinetry.fit.fit(model, observed)
    ranking = cabinetry.fit.ranking(model, observed, fit_results=fitted)
    mine = quick_jit(impacts, static_argnums=0)(structure, numbers, data, best)
    assert np.all(mine.converged)
    names = parameter_names(structure)
    for i, label in enumerate(ranking.labels):
        position = names.index(label)
        if not mine.tested[position]:
            continue
        for kind in ("prefit_up", "prefit_down", "postfit_up", "postfit_down"):
            value, reference = float(getattr(mine, kind)[position]), float(getattr(ranking, kind)[i])
            if np.isfinite(value) and reference != 0.0:
                assert value == pytest.approx(reference, abs=5e-3), (label, kind)


@pytest.mark.xfail(reason="the uncertainty of one of five bins is 10.7 where cabinetry's differences give 87.8: open")
def test_yields_after_the_fit(ours, theirs):
    structure, numbers, _, best, errors = ours
    model, _, fitted = theirs
    mine = yields(structure, numbers, best.parameters, errors)
    prediction = cabinetry.model_utils.prediction(model, fit_results=fitted)
    expected = np.concatenate([np.sum(channel, axis=0) for channel in prediction.model_yields])
    stdev = np.concatenate([channel[-1] for channel in prediction.total_stdev_model_bins])
    np.testing.assert_allclose(mine.expected, expected, rtol=1e-3)
    np.testing.assert_allclose(mine.uncertainty, stdev, rtol=0.05)  # theirs by differences of one standard deviation


def test_a_scan_is_a_row_of_fits(ours):
    structure, numbers, data, best, _ = ours
    values = jnp.array([0.0, 0.5, 1.0])
    scan = quick_jit(profile_scan, static_argnums=(0, 4))(structure, numbers, data, best, "mu", values)
    model = pyhf.Workspace(EVERYTHING).model()
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-11))
    _, lowest = pyhf.infer.mle.fit(np.asarray(data), model, return_fitted_val=True)
    for value, difference in zip(values, scan.twice_delta_nll, strict=True):
        _, at = pyhf.infer.mle.fixed_poi_fit(float(value), np.asarray(data), model, return_fitted_val=True)
        assert float(difference) == pytest.approx(float(at - lowest), abs=1e-5)
    assert np.all(scan.converged)
    assert jax.tree.leaves(scan)
