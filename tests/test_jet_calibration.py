"""The jet-calibration example of agc-autodiff, which never ran upstream, on its 200 real events.

Every jet's pt is shifted by 25·α GeV; the result is the mean mass of the first two jets over events with at least two.
The upstream notebook (alexander-held/agc-autodiff, two commits of July 2023) stops in its first evaluation with a
TypeError between awkward's JAX backend and vector. Here `pipeline.ingest` reads and selects, awkward ends there, and
the masses are those of `pipeline.analyses.kinematics`. (The file is called ttbar upstream; it holds W+jets.)
"""

import json

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from pipeline.analyses.kinematics import invariant_mass, px_py_pz_energy
from pipeline.ingest import ObjectSkim, Skim, read

pytestmark = pytest.mark.slow

STEP = 25.0  # GeV per unit of α
COLUMNS = ("pt", "eta", "phi", "mass")
ALPHAS = (-0.2, 0.0, 0.5, 1.0, 2.0, 5.0)


@pytest.fixture(scope="module")
def truth(external_data):
    return json.loads((external_data / "jet_calibration_truth.json").read_text())["values"]


@pytest.fixture(scope="module")
def jets(external_data):
    """Events with at least two jets, ragged."""
    skim = Skim(objects=(ObjectSkim("Jet", COLUMNS),), at_least=((("Jet",), 2),))
    return read([external_data / "cms_open_data_200_events.root"], skim).events.Jet


@pytest.fixture(scope="module")
def pairs(jets):
    """The first two jets of each event: columns of shape "2 events"."""
    return {name: jnp.asarray(ak.to_numpy(jets[name][:, :2]).T, jnp.float64) for name in COLUMNS}


def mean_dijet_mass(alpha, pairs):
    components = px_py_pz_energy(pairs["pt"] + STEP * alpha, pairs["eta"], pairs["phi"], pairs["mass"])
    return jnp.mean(invariant_mass(*(component.sum(axis=0) for component in components)))


mass_and_slope = jax.jit(jax.value_and_grad(mean_dijet_mass))


def by_vector(alpha, jets):
    """The same by scikit-hep vector on ragged arrays, as the notebook meant it.

    Rounding leaves a few small negative masses in the file, which vector takes for space-like: it gets their size.
    """
    columns = {name: ak.values_astype(jets[name], np.float64) for name in COLUMNS}
    moved = vector.zip(columns | {"pt": columns["pt"] + STEP * alpha, "mass": abs(columns["mass"])})
    return float(np.mean((moved[:, 0] + moved[:, 1]).mass))


def test_the_selection_keeps_the_events_of_the_notebook(jets, pairs, truth):
    assert len(jets) == truth["n_events"] == 140
    assert pairs["pt"].shape == (2, 140)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_value_and_derivative_are_the_truth(pairs, truth, alpha):
    value, derivative = mass_and_slope(alpha, pairs)
    expected = truth[str(alpha)]
    assert float(value) == pytest.approx(expected["mean_dijet_mass"], rel=1e-6)
    assert float(derivative) == pytest.approx(expected["d_dalpha"], rel=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_vector_agrees(jets, pairs, alpha):
    h = 1e-5
    slope = (by_vector(alpha + h, jets) - by_vector(alpha - h, jets)) / (2 * h)
    value, derivative = mass_and_slope(alpha, pairs)
    assert float(value) == pytest.approx(by_vector(alpha, jets), rel=1e-10)
    assert float(derivative) == pytest.approx(slope, rel=1e-6)


def test_the_scan_of_the_notebook_runs_to_its_end(jets, pairs):
    """20 points from −5 to 5, as upstream, at once; a pt may become negative, and the formula goes on."""
    alphas = jnp.linspace(-5, 5, 20)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(mean_dijet_mass), (0, None)))(alphas, pairs)
    expected = [by_vector(float(alpha), jets) for alpha in alphas]
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert np.all(np.isfinite(slopes))


def test_forward_and_reverse_mode_and_the_second_derivative(pairs):
    slope = jax.jit(jax.grad(mean_dijet_mass))
    assert float(jax.jacfwd(mean_dijet_mass)(0.5, pairs)) == pytest.approx(float(slope(0.5, pairs)), rel=1e-12)
    h = 1e-4
    curvature = (slope(0.5 + h, pairs) - slope(0.5 - h, pairs)) / (2 * h)
    assert float(jax.grad(slope)(0.5, pairs)) == pytest.approx(float(curvature), rel=1e-5)


def test_each_jet_has_its_own_derivative(pairs):
    """The gradient by all calibrations at once adds up to the one by their common shift."""

    def mean_mass(shift):
        return mean_dijet_mass(0.0, pairs | {"pt": pairs["pt"] + shift})

    gradient = jax.jit(jax.grad(mean_mass))(jnp.zeros_like(pairs["pt"]))
    assert float(STEP * gradient.sum()) == pytest.approx(float(jax.grad(mean_dijet_mass)(0.0, pairs)), rel=1e-12)
    assert np.all(np.asarray(gradient) != 0)
