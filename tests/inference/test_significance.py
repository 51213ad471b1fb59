"""Significance, uncertainty and limit against pyhf; their derivatives against repetition; and every degenerate case."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.expected_limit import expected_upper_limit
from pipeline.inference.histfactory import asimov_data, from_pyhf
from pipeline.inference.significance import (
    counting_significance,
    discovery_significance,
    poi_position,
    signal_strength_uncertainty,
)

from reference import agc_workspace
from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, HELLO_WORLD, MU, WRITTEN_OUT, modifier, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

significance = quick_jit(discovery_significance, static_argnums=0, static_argnames="poi")
uncertainty = quick_jit(signal_strength_uncertainty, static_argnums=0, static_argnames="poi")
limit = quick_jit(expected_upper_limit, static_argnums=0, static_argnames=("method", "poi"))
asimov = quick_jit(asimov_data, static_argnums=0)


def q0_by_pyhf(spec, data=None):
    """q0 of the Asimov data of the nominal model at a signal strength of one, or of given data, by SLSQP."""
    model = pyhf.Workspace(spec).model()
    structure, numbers, _ = from_pyhf(spec)
    data = np.asarray(asimov(structure, numbers) if data is None else data)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-12))
    inits, bounds, fixed = (
        model.config.suggested_init(),
        model.config.suggested_bounds(),
        model.config.suggested_fixed(),
    )
    q0 = pyhf.infer.test_statistics.q0(0.0, data, model, inits, bounds, fixed)
    pyhf.set_backend("numpy")
    return float(q0)


@pytest.mark.parametrize(
    "name",
    [
        "hello world",
        "everything",
        *(pytest.param(f"coupled {kind}", marks=pytest.mark.slow) for kind in ("histosys", "shapefactor")),
    ],
)
def test_q0_is_that_of_pyhf(name):
    spec = WRITTEN_OUT[name]
    structure, numbers, _ = from_pyhf(spec)
    expected = significance(structure, numbers)
    assert expected.converged
    assert float(expected.q0) == pytest.approx(q0_by_pyhf(spec), abs=1e-5)
    assert float(expected.z) == pytest.approx(np.sqrt(float(expected.q0)))


@pytest.mark.slow
def test_q0_of_observed_data_is_that_of_pyhf():
    structure, numbers, data = from_pyhf(EVERYTHING)
    observed = significance(structure, numbers, data=data)
    assert observed.converged
    assert float(observed.q0) == pytest.approx(q0_by_pyhf(EVERYTHING, data), abs=1e-5)


def test_a_deficit_is_no_discovery():
    structure, numbers, data = from_pyhf(HELLO_WORLD)
    deficit = significance(structure, numbers, data=data.at[:2].set(jnp.array([30.0, 25.0])))
    assert deficit.converged
    assert float(deficit.q0) == 0.0
    assert float(deficit.z) == 0.0


@pytest.mark.slow
def test_the_agc_has_a_significance_beyond_any_p_value(external_data):
    spec = agc_workspace.build(external_data / "histos_all_file_per_process.json")
    structure, numbers, _ = from_pyhf(spec)
    found = significance(structure, numbers)
    assert found.converged
    assert float(found.z) > 100
    assert float(found.q0) == pytest.approx(q0_by_pyhf(spec), rel=1e-8)


def test_uncertainty_is_that_of_the_curvature_of_pyhf():
    """Minuit's own printout depends on its settings (agc-spec, section 13.2): the curvature does not."""
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    model = pyhf.Workspace(HELLO_WORLD).model()
    data = np.array([70.0, 61.0, *model.config.auxdata])
    best, _ = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
    mine = uncertainty(structure, numbers, data=jnp.asarray(data))
    np.testing.assert_allclose(mine.mu, best[0], atol=1e-4)
    h, eye = 1e-3, np.eye(3)

    def nll(x):
        return -model.logpdf(x, data)[0]

    hessian = [
        [
            (nll(best + h * (a + b)) - nll(best + h * (a - b)) - nll(best - h * (a - b)) + nll(best - h * (a + b)))
            / (4 * h**2)
            for a in eye
        ]
        for b in eye
    ]
    np.testing.assert_allclose(mine.uncertainty, np.sqrt(np.linalg.inv(hessian)[0, 0]), rtol=1e-4)


@pytest.mark.slow
def test_uncertainty_on_asimov_data_needs_no_fit():
    """The short way, from first derivatives at the known best fit, against a fit and its whole Hessian."""
    structure, numbers, _ = from_pyhf(EVERYTHING)
    short = uncertainty(structure, numbers)
    long = uncertainty(structure, numbers, data=asimov(structure, numbers))
    np.testing.assert_allclose(short.mu, long.mu, rtol=1e-9)
    np.testing.assert_allclose(short.uncertainty, long.uncertainty, rtol=1e-9)


@pytest.mark.slow
def test_upper_limit_is_that_of_pyhf():
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    model = pyhf.Workspace(HELLO_WORLD).model()
    background = np.asarray(asimov(structure, numbers, jnp.array([0.0, 1.0, 1.0])))
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-10))
    _, bands = pyhf.infer.intervals.upper_limits.upper_limit(background, model, level=0.05, rtol=1e-8)
    for band, theirs in zip((-2.0, -1.0, 0.0, 1.0, 2.0), bands, strict=True):
        mine = limit(structure, numbers, band=band)
        assert mine.converged
        np.testing.assert_allclose(mine.mu, theirs, rtol=1e-5)
    # CLs+b excludes where the test statistic passes 1.64 standard deviations.
    looser = limit(structure, numbers, method="CLs+b")
    at_limit = pyhf.infer.test_statistics.qmu(
        float(looser.mu),
        background,
        model,
        model.config.suggested_init(),
        [(0, 20), (1e-10, 10), (1e-10, 10)],
        [False] * 3,
    )
    np.testing.assert_allclose(np.sqrt(at_limit), 1.6448536, rtol=1e-6)


@pytest.mark.slow
def test_any_normfactor_may_be_the_parameter_of_interest():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    moved, moved_numbers, _ = from_pyhf(EVERYTHING, poi="top_norm")
    named = significance(structure, numbers, poi="top_norm")
    np.testing.assert_array_equal(named.q0, significance(moved, moved_numbers).q0)
    assert float(named.q0) > float(significance(structure, numbers).q0)
    only = from_pyhf(two_regions([5.0], [20.0], [1.0]))
    assert poi_position(only[0], "stat") == poi_position(only[0], "stat[0]")
    with pytest.raises(ValueError, match=r"'tau': not a parameter of the model; choose one of .*top_norm"):
        discovery_significance(structure, numbers, poi="tau")


OBJECTIVES = {
    "q0": lambda structure, numbers: discovery_significance(structure, numbers).q0,
    "z": lambda structure, numbers: discovery_significance(structure, numbers).z,
    "sigma": lambda structure, numbers: signal_strength_uncertainty(structure, numbers).uncertainty,
    "limit": lambda structure, numbers: expected_upper_limit(structure, numbers).mu,
}
value_and_slope = {
    name: quick_jit(jax.value_and_grad(objective, argnums=1), static_argnums=0)
    for name, objective in OBJECTIVES.items()
}
LEAVES = ("nominal", "normsys_lo", "normsys_hi", "histosys_lo", "histosys_hi", "staterror", "shapesys")


def along(numbers, tangent, t):
    return jax.tree.map(lambda n, d: n + t * d, numbers, tangent)


def difference(value, h):
    f = [float(value(k * h)) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


def inner(slope, tangent):
    return sum(float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(tangent), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", ["z", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sigma", "limit"))]
)
def test_derivatives_are_those_of_repetition(objective):
    structure, numbers, _ = from_pyhf(EVERYTHING)
    rng = np.random.default_rng(11)
    moved = {leaf: jnp.asarray(rng.normal(size=getattr(numbers, leaf).shape)) for leaf in LEAVES}
    moved = {leaf: jnp.where(getattr(numbers, leaf) != 0, 0.1 * moved[leaf], 0.0) for leaf in LEAVES}
    tangent = dataclasses.replace(numbers, **moved, constraint_width=jnp.zeros_like(numbers.constraint_width))
    compiled = value_and_slope[objective]
    expected = difference(lambda t: compiled(structure, along(numbers, tangent, t))[0], 1e-2)
    _, slope = compiled(structure, numbers)
    np.testing.assert_allclose(inner(slope, tangent), expected, rtol=1e-6)


@pytest.mark.slow
def test_derivative_of_q0_with_active_bounds(external_data):
    """At a signal strength of zero several parameters of the AGC sit at +-5."""
    structure, numbers, _ = from_pyhf(agc_workspace.build(external_data / "histos_all_file_per_process.json"))
    null = significance(structure, numbers).null_fit
    assert int(jnp.sum(jnp.abs(null.parameters) == 5.0)) >= 3
    tangent = jax.tree.map(jnp.zeros_like, numbers)
    tangent = dataclasses.replace(tangent, nominal=0.01 * numbers.nominal * jnp.linspace(-1, 1, structure.bins)[None])
    compiled = value_and_slope["q0"]
    expected = difference(lambda t: compiled(structure, along(numbers, tangent, t))[0], 1e-2)
    np.testing.assert_allclose(inner(compiled(structure, numbers)[1], tangent), expected, rtol=1e-6)


@pytest.mark.slow
def test_many_models_at_once():
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    scales = jnp.array([0.5, 1.0, 2.0])

    def z(scale):
        return discovery_significance(structure, dataclasses.replace(numbers, nominal=scale * numbers.nominal)).z

    alone = jnp.stack(
        [significance(structure, dataclasses.replace(numbers, nominal=scale * numbers.nominal)).z for scale in scales]
    )
    np.testing.assert_allclose(quick_jit(jax.vmap(z))(scales), alone, rtol=1e-9)


# --- What happens to an analysis while its cuts move -------------------------------------------------------------


def two_regions(signal, background, sigma, elsewhere=20.0):
    """A model of two bins with a statistical uncertainty, and one bin that never changes."""
    return workspace(
        [
            {
                "name": "SR",
                "samples": [
                    {"name": "background", "data": background, "modifiers": [modifier("staterror", "stat", sigma)]},
                    {"name": "signal", "data": signal, "modifiers": [MU]},
                ],
            },
            {
                "name": "safe",
                "samples": [
                    {
                        "name": "background",
                        "data": [100.0],
                        "modifiers": [modifier("normsys", "norm", {"hi": 1.1, "lo": 0.9})],
                    },
                    {"name": "signal", "data": [elsewhere], "modifiers": [MU]},
                ],
            },
        ],
        {"SR": [0.0] * len(signal), "safe": [0.0]},
    )


DEGENERATE = {
    "an empty bin": two_regions([5.0, 0.0], [20.0, 0.0], [1.0, 0.0]),
    "an empty region": two_regions([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    "a negative bin": two_regions([5.0, 1.0], [20.0, -3.0], [1.0, 2.0]),
    "signal without background": two_regions([5.0, 2.0], [20.0, 0.0], [1.0, 0.0]),
    "a bin with one event": two_regions([5.0, 2.0], [20.0, 1.5], [1.0, 1.5]),
    "background without signal": two_regions([5.0, 0.0], [20.0, 7.0], [1.0, 0.5]),
    "negative background": two_regions([5.0, 4.0], [20.0, -3.0], [1.0, 2.0]),
    "a bin with a tiny yield": two_regions([5.0, 1e-12], [20.0, 1e-13], [1.0, 1e-13]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("objective", ["z", "sigma", pytest.param("limit", marks=pytest.mark.slow)])
def test_degenerate_models_have_finite_values_and_derivatives(case, objective):
    structure, numbers, _ = from_pyhf(DEGENERATE[case])
    value, slope = value_and_slope[objective](structure, numbers)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert np.any(slope.nominal != 0)
    assert significance(structure, numbers).converged


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["z", "limit"])
def test_forward_mode_is_reverse_mode(objective):
    structure, numbers, _ = from_pyhf(DEGENERATE["a bin with one event"])
    tangent = jax.tree.map(lambda leaf: 0.1 * leaf, numbers)
    forward = quick_jit(lambda n, d: jax.jvp(lambda x: OBJECTIVES[objective](structure, x), (n,), (d,))[1])
    _, slope = value_and_slope[objective](structure, numbers)
    np.testing.assert_allclose(forward(numbers, tangent), inner(slope, tangent), rtol=1e-10)


@pytest.mark.slow
def test_empty_bins_and_regions_say_nothing():
    """Neither does a bin whose yield is negative: all three leave the significance of what remains."""
    alone = significance(*from_pyhf(two_regions([5.0], [20.0], [1.0]))[:2]).z
    for case in ("an empty bin", "a negative bin", "negative background"):
        np.testing.assert_allclose(significance(*from_pyhf(DEGENERATE[case])[:2]).z, alone, rtol=1e-12)
    assert 0 < float(significance(*from_pyhf(DEGENERATE["an empty region"])[:2]).z) < float(alone)


@pytest.mark.slow
def test_no_signal_is_no_significance():
    structure, numbers, _ = from_pyhf(two_regions([0.0, 0.0], [20.0, 7.0], [1.0, 0.5], elsewhere=0.0))
    found = significance(structure, numbers)
    assert found.converged
    assert float(found.z) == 0.0
    _, slope = value_and_slope["z"](structure, numbers)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slope))
    assert np.isinf(value_and_slope["sigma"](structure, numbers)[0])
    assert np.isinf(value_and_slope["limit"](structure, numbers)[0])


@pytest.mark.slow
def test_a_normalisation_of_nothing_does_not_spoil_the_rest():
    """A free normalisation of a sample that a cut has emptied: a flat direction of the likelihood."""
    spec = two_regions([5.0, 2.0], [20.0, 7.0], [1.0, 0.5])
    plain = from_pyhf(spec)[:2]
    for channel in spec["channels"]:
        empty = {"name": "empty", "data": [0.0] * len(channel["samples"][0]["data"])}
        channel["samples"].append({**empty, "modifiers": [modifier("normfactor", "k")]})
    structure, numbers, _ = from_pyhf(spec)
    for objective in ("z", "sigma", "limit"):
        value, slope = value_and_slope[objective](structure, numbers)
        np.testing.assert_allclose(value, value_and_slope[objective](*plain)[0], rtol=1e-9)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.slow
def test_numbers_that_are_none_give_none_and_do_not_converge():
    structure, numbers, data = from_pyhf(HELLO_WORLD)
    numbers = dataclasses.replace(numbers, nominal=numbers.nominal.at[0, 0].set(jnp.nan))
    for found in (significance(structure, numbers), significance(structure, numbers, data=data)):
        assert not found.converged
        assert np.isnan(found.z)
    sigma = uncertainty(structure, numbers)
    assert not sigma.converged
    assert np.isnan(sigma.uncertainty)
    assert np.isnan(limit(structure, numbers).mu)


@pytest.mark.slow
def test_significance_of_a_small_signal_is_proportional_to_it():
    tiny = from_pyhf(two_regions([5e-4, 2e-4], [20.0, 7.0], [1.0, 0.5], elsewhere=2e-3))[:2]
    np.testing.assert_allclose(
        significance(*tiny).z * uncertainty(*tiny, signal_strength=0.0).uncertainty, 1.0, rtol=1e-3
    )


@pytest.mark.slow
def test_a_variation_that_overshoots_is_survived():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    broken = dataclasses.replace(numbers, histosys_lo=numbers.histosys_lo - 300.0, normsys_lo=numbers.normsys_lo - 0.95)
    value, slope = value_and_slope["z"](structure, broken)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_counting_formulas():
    signal, background, sigma = jnp.array([10.0, 4.0]), jnp.array([100.0, 25.0]), jnp.array([0.0, 3.0])
    np.testing.assert_allclose(
        quick_jit(counting_significance)(signal, background, sigma), np.sqrt(1.0 + 16 / 34), rtol=1e-12
    )
    no_sigma = jnp.zeros(1)
    empty = counting_significance(jnp.array([3.0]), no_sigma, no_sigma)
    assert float(empty) == 0.0


def test_the_asimov_formula_is_the_likelihood_of_one_measured_bin():
    """A background measured by an auxiliary count is a shapesys: the closed formula is its profile likelihood."""
    background, sigma = 50.0, 6.0
    spec = workspace(
        [
            {
                "name": "SR",
                "samples": [
                    {"name": "signal", "data": [18.0], "modifiers": [MU]},
                    {"name": "background", "data": [background], "modifiers": [modifier("shapesys", "aux", [sigma])]},
                ],
            }
        ],
        {"SR": [68.0]},
    )
    structure, numbers, _ = from_pyhf(spec)
    # G. Cowan, "Discovery sensitivity for a counting experiment with background uncertainty" (2012), equation 20.
    total, variance = 18.0 + background, sigma**2
    first = total * np.log(total * (background + variance) / (background**2 + total * variance))
    second = background**2 / variance * np.log1p(variance * 18.0 / (background * (background + variance)))
    formula = np.sqrt(2 * (first - second))
    np.testing.assert_allclose(significance(structure, numbers).z, formula, rtol=1e-9)
