"""Four-vector formulas against scikit-hep vector, nasty vectors included."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from pipeline.analyses.kinematics import invariant_mass, px_py_pz_energy, transverse_momentum

PT = [0.0, 1e-3, 1.0, 45.7, 3e3]
ETA = [-9.0, -2.4, 0.0, 1e-8, 2.1, 9.0]
PHI = [-np.pi, -1.0, 0.0, 0.5, np.pi]
MASS = [0.0, 0.106, 4.7, 173.0]
GRID = np.array(list(itertools.product(PT, ETA, PHI, MASS))).T


def components(pt, eta, phi, mass):
    return px_py_pz_energy(*(jnp.asarray(x, jnp.float64) for x in (pt, eta, phi, mass)))


def test_components_are_those_of_vector():
    pt, eta, phi, mass = GRID
    truth = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": mass})
    for ours, theirs in zip(components(*GRID), (truth.px, truth.py, truth.pz, truth.E), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_masses_and_momenta_of_sums_are_those_of_vector(number):
    generator = np.random.default_rng(number)
    jets = [
        (
            generator.exponential(60, 500),
            generator.normal(0, 2, 500),
            generator.uniform(-4, 4, 500),
            generator.exponential(9, 500),
        )
        for _ in range(number)
    ]
    truth = sum(
        (vector.array(dict(zip(("pt", "eta", "phi", "mass"), jet, strict=True))) for jet in jets[1:]),
        start=vector.array(dict(zip(("pt", "eta", "phi", "mass"), jets[0], strict=True))),
    )
    px, py, pz, energy = (sum(parts) for parts in zip(*(components(*jet) for jet in jets), strict=True))
    np.testing.assert_allclose(transverse_momentum(px, py), truth.pt, rtol=1e-12)
    # rounding of E² moves m by (E / m)² of the precision
    allowed = 1e-15 * (np.asarray(energy) / np.asarray(truth.mass)) ** 2 + 1e-12
    np.testing.assert_array_less(np.abs(invariant_mass(px, py, pz, energy) / truth.mass - 1), allowed)


def test_a_slightly_negative_mass_acts_by_its_square():
    """Rounding leaves such masses in NanoAOD."""
    positive, negative = components(30.0, 1.0, 0.5, 0.02), components(30.0, 1.0, 0.5, -0.02)
    assert [float(x) for x in positive] == [float(x) for x in negative]


def test_a_square_below_zero_is_no_mass():
    one = jnp.asarray(1.0)
    assert float(invariant_mass(one, one, one, one)) == 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_precision_is_kept(dtype):
    made = px_py_pz_energy(*(jnp.full(3, value, dtype) for value in (30.0, 1.0, 0.5, 4.0)))
    assert {x.dtype for x in (*made, transverse_momentum(*made[:2]), invariant_mass(*made))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    "kinematics", [(0.0, 0.3, 0.1, 0.0), (0.0, 0.3, 0.1, 5.0), (20.0, 0.0, 0.0, 0.0), (20.0, 8.0, 3.0, 0.0)]
)
def test_gradients_are_finite_where_roots_vanish(kinematics):
    def pt_and_mass(*jet):
        px, py, pz, energy = px_py_pz_energy(*jet)
        return transverse_momentum(px, py) + invariant_mass(px, py, pz, energy)

    slopes = jax.grad(pt_and_mass, argnums=(0, 1, 2, 3))(*(jnp.asarray(x) for x in kinematics))
    assert np.all(np.isfinite(slopes))


def test_gradients_are_those_of_finite_differences():
    def mass_of_two(pt):
        first = components(40.0, 0.3, 0.1, 5.0)
        second = px_py_pz_energy(pt, *(jnp.asarray(x) for x in (-1.2, 2.0, 7.0)))
        return invariant_mass(*(a + b for a, b in zip(first, second, strict=True)))

    numeric = (mass_of_two(jnp.asarray(50.01)) - mass_of_two(jnp.asarray(49.99))) / 0.02
    np.testing.assert_allclose(jax.grad(mass_of_two)(jnp.asarray(50.0)), numeric, rtol=1e-7)
