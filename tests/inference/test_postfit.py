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


@pytest.mark.slow
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


def test_yields_after_the_fit(ours, theirs):
    """The slopes are exact: pyhf's rates, moved by little along every parameter, have the same covariance."""
    structure, numbers, _, best, errors = ours
    model, _, _ = theirs
    mine = quick_jit(yields, static_argnums=0)(structure, numbers, best.parameters, errors)
    point, step = np.asarray(best.parameters), 1e-4
    sides = [
        [model.expected_data(point + way * step * unit)[: structure.bins] for way in (-1, 1)]
        for unit in np.eye(structure.size)
    ]
    slopes = np.array([(up - down) / (2 * step) for down, up in sides])
    np.testing.assert_allclose(mine.expected, model.expected_data(point)[: structure.bins], rtol=1e-12)
    np.testing.assert_allclose(mine.covariance, slopes.T @ np.asarray(errors) @ slopes, rtol=1e-6, atol=1e-6)
    # Parameters drawn from their covariance, the rates not linear in them: the spread is that of the first order.
    drawn = np.random.default_rng(0).multivariate_normal(point, np.asarray(errors), 2000)
    spread = np.std([model.expected_data(each)[: structure.bins] for each in drawn], axis=0)
    np.testing.assert_allclose(mine.uncertainty, spread, rtol=0.05)


def test_yields_after_the_fit_are_those_of_cabinetry_without_what_presses_against_a_bound(ours, theirs):
    """`other_shape[0]` ends at its bound of 0, and Minuit gives it an uncertainty of 8.7 all the same.

    cabinetry adds that: 87 of its 88 events in the first bin, where a Gaussian about the bound means nothing. Held at
    its bound, as here, the two agree as well as differences of one standard deviation and slopes do.
    """
    structure, numbers, _, best, errors = ours
    model, _, fitted = theirs
    mine = quick_jit(yields, static_argnums=0)(structure, numbers, best.parameters, errors)
    pressed = parameter_names(structure).index("other_shape[0]")
    assert float(best.parameters[pressed]) == 0.0
    assert not best.free[pressed]
    assert fitted.uncertainty[pressed] > 5
    held = fitted._replace(uncertainty=np.where(np.arange(structure.size) == pressed, 0.0, fitted.uncertainty))

    def uncertainties(fit_results):
        prediction = cabinetry.model_utils.prediction(model, fit_results=fit_results)
        return np.concatenate([channel[-1] for channel in prediction.total_stdev_model_bins])

    np.testing.assert_allclose(mine.uncertainty, uncertainties(held), rtol=0.02)
    assert uncertainties(fitted)[0] > 8 * float(mine.uncertainty[0])


@pytest.mark.slow
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
