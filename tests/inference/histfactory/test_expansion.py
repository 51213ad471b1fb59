"""The Hessian in closed form is the automatic one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.inference.histfactory import from_pyhf, parameter_names
from pipeline.inference.histfactory.constraints import interpolated_positions
from pipeline.inference.histfactory.expansion import expanded_deviance, interplay, rate_slopes, varied_rates
from pipeline.inference.histfactory.interpolation import normsys_curve, normsys_expansion, normsys_factor
from pipeline.inference.histfactory.likelihood import deviance, terms
from pipeline.inference.histfactory.modifiers import rates

from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, SCALED_SHAPE, WRITTEN_OUT, few_bins_many_systematics, large_workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

SPECS = {
    "coupled shapefactor": WRITTEN_OUT["coupled shapefactor"],
    "everything": EVERYTHING,
    "large": large_workspace(channels=2, bins=4, systematics=3),
    "few bins": few_bins_many_systematics(1, systematics=6),
}
OLD_CODES = {"normsys": {"interpcode": "code1"}, "histosys": {"interpcode": "code0"}}


def compare(structure, numbers, data, points):
    model = quick_jit(terms, static_argnums=0)(structure, numbers)

    @quick_jit
    def both_ways(x):
        slope = jax.grad(lambda x: deviance(structure, model, x, data))
        automatic = deviance(structure, model, x, data), slope(x), jax.jacfwd(slope)(x)
        return expanded_deviance(structure, model, x, data), automatic

    for point in points:
        mine, (value, gradient, hessian) = both_ways(point)
        np.testing.assert_allclose(mine.value, value, rtol=1e-12)
        np.testing.assert_allclose(mine.gradient, gradient, rtol=1e-10, atol=1e-10 * np.abs(gradient).max())
        np.testing.assert_allclose(mine.hessian, hessian, rtol=1e-10, atol=1e-10 * np.abs(hessian).max())


@pytest.mark.parametrize("name", SPECS)
def test_the_closed_form_is_the_automatic_one(name):
    structure, numbers, data = from_pyhf(SPECS[name])
    rng = np.random.default_rng(3)
    points = [jnp.asarray(rng.uniform(0.6, 1.5, structure.size)) for _ in range(2)]
    points += [points[0] * jnp.asarray(rng.choice([-1.0, 1.0], structure.size))]  # rates below zero too
    compare(structure, numbers, data, points)


def test_with_the_old_codes():
    structure, numbers, data = from_pyhf(EVERYTHING, modifier_settings=OLD_CODES)
    compare(structure, numbers, data, [jnp.linspace(-1.4, 1.3, structure.size)])


def test_factors_of_zero():
    """No signal, no luminosity, a gamma of zero, and a normsys that crosses zero."""
    structure, numbers, data = from_pyhf(EVERYTHING)
    names = parameter_names(structure)
    start = jnp.linspace(0.8, 1.2, structure.size)
    cases = (["mu"], ["mu", "lumi"], ["mu", "lumi", "top_norm"], ["stat_SR[1]", "fake_rate[0]", "mu"])
    points = [start.at[np.array([names.index(name) for name in zeros])].set(0.0) for zeros in cases]
    compare(structure, numbers, data, points)


def test_normsys_by_horner():
    rng = np.random.default_rng(1)
    lo, hi = (jnp.asarray(rng.uniform(0.3, 2.0, (5, 2, 2))) for _ in range(2))
    alpha = jnp.array([-2.0, -0.4, 0.0, 0.7, 1.5])
    for code in ("code1", "code4"):
        curve = normsys_curve(code, lo, hi)

        def slope(at, curve=curve):
            return jax.jvp(lambda a: normsys_factor(curve, a), (at,), (jnp.ones_like(at),))

        @quick_jit
        def both_ways(at, curve=curve, slope=slope):
            (value, first), (_, second) = jax.jvp(slope, (at,), (jnp.ones_like(at),))
            return normsys_expansion(curve, at), (value, first, second)

        for mine, theirs in zip(*both_ways(alpha), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)


def test_slopes_and_variations_of_the_rates():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    effects = quick_jit(terms, static_argnums=0)(structure, numbers).effects
    point = jnp.linspace(0.7, 1.4, structure.size)

    def of(point):
        return rates(structure, effects, point)

    at = quick_jit(of)
    values = (-1.7, -1.0, 0.0, 0.3, 1.0)
    points = jnp.asarray(values)[:, None] * jnp.ones((1, structure.size))
    closed = quick_jit(lambda x: (rate_slopes(structure, effects, x), varied_rates(structure, effects, x, points)))
    slopes, varied = closed(point)
    np.testing.assert_allclose(slopes, quick_jit(jax.jacfwd(of))(point), rtol=1e-11, atol=1e-11)
    for row, position in enumerate(interpolated_positions(structure)):
        for moved, alpha in zip(varied, values, strict=True):
            np.testing.assert_allclose(moved[row], at(point.at[position].set(alpha)), rtol=1e-12)


@pytest.mark.parametrize("spec", [EVERYTHING, SCALED_SHAPE, few_bins_many_systematics(0, systematics=5)])
def test_two_moves_together_are_both_and_their_interplay(spec):
    structure, numbers, _ = from_pyhf(spec)
    numbers = jax.tree.map(np.asarray, numbers)
    effects = terms(structure, numbers).effects
    point = np.linspace(0.7, 1.4, structure.size)
    values, positions = (-1.7, 0.3, 1.0), interpolated_positions(structure)
    points, chosen = np.array(values)[:, None] * np.ones((1, structure.size)), np.arange(len(positions))[::-1]
    here = rates(structure, effects, point)
    alone = varied_rates(structure, effects, point, points)[:, chosen].reshape(-1, structure.bins) - here
    extra = interplay(structure, effects, point, points, chosen)
    moves = [(alpha, position) for alpha in values for position in positions[chosen]]
    for i, (alpha, one) in enumerate(moves):
        for j, (beta, other) in enumerate(moves):
            if one != other:
                together = point.copy()
                together[[one, other]] = alpha, beta
                exact = rates(structure, effects, together) - here
                np.testing.assert_allclose(alone[i] + alone[j] + extra[i, j], exact, rtol=1e-12, atol=1e-12)
    assert len(positions) < 2 or np.max(np.abs(extra)) > 1e-3


@pytest.mark.slow
def test_derivatives_of_the_closed_form_are_there():
    """A fit's own second derivative goes through it."""
    structure, numbers, data = from_pyhf(WRITTEN_OUT["coupled histosys"])
    point = jnp.linspace(0.8, 1.2, structure.size)

    def closed(scale):
        scaled = dataclasses.replace(numbers, nominal=scale * numbers.nominal)
        return expanded_deviance(structure, terms(structure, scaled), point, data).hessian

    def automatic(scale):
        scaled = dataclasses.replace(numbers, nominal=scale * numbers.nominal)
        return jax.hessian(deviance, argnums=2)(structure, terms(structure, scaled), point, data)

    one = jnp.asarray(1.0)
    np.testing.assert_allclose(
        quick_jit(jax.jacrev(closed))(one), quick_jit(jax.jacrev(automatic))(one), rtol=1e-10, atol=1e-10
    )
