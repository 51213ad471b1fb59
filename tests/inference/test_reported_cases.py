"""Cases that failed when tried: the right value of each, by pyhf or by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.expected_limit import expected_upper_limit
from pipeline.inference.fit import fit
from pipeline.inference.histfactory import asimov_data, auxdata, diagnose, from_pyhf, logpdf, parameter_names
from pipeline.inference.significance import discovery_significance, signal_strength_uncertainty

from reference.compiling import quick_jit
from reference.workspaces import HELLO_WORLD, MU, modifier, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
]

significance = quick_jit(discovery_significance, static_argnums=0, static_argnames=("poi", "thorough"))
limit = quick_jit(expected_upper_limit, static_argnums=0, static_argnames=("method", "poi"))
run_fit = quick_jit(fit, static_argnums=0)
compiled_logpdf = quick_jit(logpdf, static_argnums=0)
asimov = quick_jit(asimov_data, static_argnums=0)
thorough_fit = quick_jit(partial(fit, thorough=True), static_argnums=0)


def one_region(background, signal, observed, *, on_background=(), on_signal=(), parameters=()):
    samples = [
        {"name": "background", "data": background, "modifiers": list(on_background)},
        {"name": "signal", "data": signal, "modifiers": [MU, *on_signal]},
    ]
    return workspace([{"name": "SR", "samples": samples}], {"SR": observed}, parameters=parameters)


def test_a_maximum_is_not_called_converged():
    """Identical up and down: the slope at zero is exactly zero, and the curvature negative."""
    even = modifier("normsys", "even", {"hi": 1.3, "lo": 1.3})
    structure, numbers, data = from_pyhf(one_region([40.0, 30.0], [5.0, 9.0], [70.0, 55.0], on_background=[even]))
    observed = significance(structure, numbers, data=data)
    names = parameter_names(structure)
    best, null = observed.best_fit, observed.null_fit
    assert observed.converged
    assert float(best.twice_nll) == pytest.approx(15.7698, abs=1e-4)
    assert abs(float(best.parameters[names.index("even")])) == pytest.approx(0.943, abs=1e-3)
    assert float(best.parameters[names.index("mu")]) == pytest.approx(2.272, abs=1e-3)
    assert float(observed.q0) == pytest.approx(2.4377, abs=1e-4)
    assert float(null.twice_nll) == pytest.approx(18.2075, abs=1e-4)
    assert abs(float(null.parameters[names.index("even")])) == pytest.approx(1.973, abs=1e-3)


def test_nor_on_asimov_data():
    even = modifier("histosys", "even", {"hi_data": [130.0, 84.0], "lo_data": [130.0, 84.0]})
    structure, numbers, _ = from_pyhf(one_region([100.0, 80.0], [30.0, 8.0], [0.0, 0.0], on_background=[even]))
    expected = significance(structure, numbers)
    assert expected.converged
    assert float(expected.z) == pytest.approx(1.054, abs=1e-3)


def test_a_limit_without_background_is_finite():
    """Its Fisher uncertainty is infinite at no signal; q is 2 s mu, so the limit is 1.9207 / s."""
    structure, numbers, _ = from_pyhf(one_region([0.0], [4.0], [0.0]))

    def mu_and_converged(numbers):
        found = expected_upper_limit(structure, numbers)
        return found.mu, found.converged

    (value, converged), slope = quick_jit(jax.value_and_grad(mu_and_converged, has_aux=True))(numbers)
    assert converged
    assert float(value) == pytest.approx(1.9207 / 4, abs=1e-4)
    assert float(slope.nominal[structure.samples.index("signal"), 0]) == pytest.approx(-1.9207 / 16, abs=1e-4)


def test_negative_observations_have_the_likelihood_of_pyhf():
    structure, numbers, data = from_pyhf(HELLO_WORLD)
    data = data.at[:2].set(jnp.array([-0.5, 44.0]))
    model = pyhf.Workspace(HELLO_WORLD).model()
    for point in ([1.0, 1.0, 1.0], [0.3, 0.9, 1.1]):
        theirs = float(model.logpdf(np.array(point), np.asarray(data))[0])
        assert float(compiled_logpdf(structure, numbers, jnp.array(point), data)) == pytest.approx(theirs, rel=1e-12)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    _, value = pyhf.infer.mle.fit(np.asarray(data), model, return_fitted_val=True)
    found = run_fit(structure, numbers, data)
    assert found.converged
    assert float(found.twice_nll) <= float(value) + 1e-6


def test_a_parameter_with_a_poisson_constraint_has_a_limit():
    """pyhf's own test of a shapesys of one bin as parameter of interest."""
    spec = workspace(
        [
            {
                "name": "SR",
                "samples": [{"name": "only", "data": [10.0], "modifiers": [modifier("shapesys", "gamma", [5.0])]}],
            }
        ],
        {"SR": [10.0]},
        poi="gamma",
    )
    structure, numbers, _ = from_pyhf(spec)
    found = limit(structure, numbers, poi="gamma[0]")
    assert not (np.isnan(found.mu) & found.converged)
    # Without events, in the bin (10 gamma) and beside it (4 gamma): q = 2 * 14 gamma.
    assert float(found.mu) == pytest.approx(1.9207 * 2 / (2 * 14), abs=1e-4)


def test_large_counts_keep_their_digits():
    for events in (1e8, 1e12):
        signal = np.sqrt(events)
        structure, numbers, _ = from_pyhf(one_region([events], [signal], [events]))
        found = significance(structure, numbers)
        # (s + b) log(1 + s/b) - s, by its series.
        x = signal / events
        exact = 2 * events * (x**2 / 2 - x**3 / 6 + x**4 / 12)
        assert found.converged
        assert float(found.q0) == pytest.approx(exact, rel=1e-8)
        assert limit(structure, numbers).converged


def test_a_constant_parameter_of_interest_is_refused():
    structure, numbers, data = from_pyhf(
        one_region([50.0], [10.0], [60.0], parameters=[{"name": "mu", "fixed": True, "inits": [1.0]}])
    )
    with pytest.raises(ValueError, match=r"'mu'.*holds it constant"):
        discovery_significance(structure, numbers, data=data)
    assert any("constant" in sentence for sentence in diagnose(structure, numbers))


def test_a_start_outside_the_bounds_is_said():
    structure, numbers, _ = from_pyhf(
        one_region([50.0], [10.0], [60.0], parameters=[{"name": "mu", "inits": [7.0], "bounds": [[0.0, 5.0]]}])
    )
    assert any("'mu' starts at 7, outside its bounds [0, 5]" in sentence for sentence in diagnose(structure, numbers))


def test_a_parameter_at_its_bound_has_no_uncertainty():
    structure, numbers, data = from_pyhf(HELLO_WORLD)
    found = quick_jit(signal_strength_uncertainty, static_argnums=0)(
        structure, numbers, data=data.at[:2].set(jnp.array([30.0, 25.0]))
    )
    assert float(found.mu) == 0.0
    assert np.isnan(found.uncertainty)
    assert not found.converged


def sentences(spec):
    structure, numbers, _ = from_pyhf(spec)
    return " ".join(diagnose(structure, numbers))


def test_what_is_silently_so_in_pyhf_is_said():
    stat = modifier("staterror", "stat", [1.0])
    assert "negative, so its parameter is held" in sentences(one_region([-3.0], [10.0], [5.0], on_background=[stat]))
    assert "the likelihood is not pyhf's" in sentences(one_region([2e-11], [1e-11], [0.0]))
    vanishing = modifier("normsys", "big", {"hi": 2.0, "lo": 1e-6})
    assert "cannot limit its strength" in sentences(one_region([50.0], [10.0], [60.0], on_signal=[vanishing]))
    twice = [modifier("normsys", "a", {"hi": 1.1, "lo": 0.9}), modifier("normsys", "a", {"hi": 1.3, "lo": 0.7})]
    with pytest.warns(UserWarning, match=r"normsys 'a' stands there 2 times; only the last one counts"):
        from_pyhf(one_region([50.0], [10.0], [60.0], on_background=twice))
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    with pytest.raises(ValueError, match=r"no CLs\+b limit at -2"):
        expected_upper_limit(structure, numbers, method="CLs+b", band=-2.0)


def test_auxiliary_counts_follow_from_the_bins_though_their_factors_be_stated():
    spec = one_region(
        [50.0, 40.0],
        [5.0, 9.0],
        [55.0, 44.0],
        on_background=[modifier("shapesys", "gamma", [5.0, 8.0])],
        parameters=[{"name": "gamma", "factors": [80.0, 30.0]}],
    )
    structure, numbers, data = from_pyhf(spec)
    model = pyhf.Workspace(spec).model()
    np.testing.assert_allclose(quick_jit(auxdata, static_argnums=0)(structure, numbers), model.config.auxdata)
    point = np.asarray(model.config.suggested_init()) * 1.1
    theirs = float(model.logpdf(point, np.asarray(data))[0])
    assert float(compiled_logpdf(structure, numbers, jnp.asarray(point), data)) == pytest.approx(theirs, rel=1e-12)


def test_measurements_and_parameters_that_do_not_exist():
    with pytest.raises(ValueError, match="'other' is not in the workspace; choose one of measurement"):
        from_pyhf(HELLO_WORLD, "other")
    with pytest.raises(ValueError, match="'nu' is not a parameter of the model; its normfactors are mu"):
        from_pyhf(HELLO_WORLD, poi="nu")


def test_lumi_without_bounds_is_refused_in_a_sentence():
    spec = one_region(
        [50.0],
        [5.0],
        [55.0],
        on_background=[modifier("lumi", "lumi")],
        parameters=[{"name": "lumi", "auxdata": [1.0], "sigmas": [0.02], "inits": [1.0]}],
    )
    with pytest.raises(ValueError, match="lumi 'lumi' needs bounds"):
        from_pyhf(spec)


def many_starts(structure, numbers, data, count, seed):
    """The smallest minimum from many places: what the search should have found."""
    rng = np.random.default_rng(seed)
    initial = np.array([value for s in structure.parameter_sets for value in s.initial])
    starts = np.where(initial == 0, rng.uniform(-3, 3, (count, structure.size)), initial[None] * rng.uniform(0.3, 2))
    found = [run_fit(structure, numbers, data, initial=jnp.asarray(start)) for start in starts]
    return min(float(entry.twice_nll) for entry in found if entry.converged)


def same_side(rng, count=3, vanishing=False):
    """A few bins with variations that go the same way up and down, or that take a sample away."""
    background = rng.uniform(20, 100, 3)
    variations = []
    for k in range(count):
        if vanishing:
            factors = {"hi": 1 + rng.uniform(0.05, 0.5), "lo": 0.0}
        else:
            factors = {"hi": 1 + rng.uniform(0.02, 0.4), "lo": 1 + rng.uniform(0.02, 0.4)}
        variations.append(modifier("normsys", f"n{k}", factors))
    half = (0.5 * background).tolist()
    samples = [
        {"name": f"background{k}", "data": half if k else background.tolist(), "modifiers": [variation]}
        for k, variation in enumerate(variations)
    ]
    samples.append({"name": "signal", "data": rng.uniform(1, 15, 3).tolist(), "modifiers": [MU]})
    total = background * (1 + 0.5 * (count - 1))
    observed = rng.poisson(total * rng.uniform(0.8, 1.5, 3)).astype(float).tolist()
    return workspace([{"name": "SR", "samples": samples}], {"SR": observed})


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")  # pyhf's, of a factor of 0
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("vanishing", [False, True])
def test_the_smallest_of_several_minima(vanishing):
    """One structure, many numbers: so it is compiled once."""
    for seed in range(4):
        structure, numbers, data = from_pyhf(same_side(np.random.default_rng(seed), vanishing=vanishing))
        found, quick = thorough_fit(structure, numbers, data), run_fit(structure, numbers, data)
        lowest = many_starts(structure, numbers, data, 12, seed)
        assert found.converged
        assert float(found.twice_nll) <= lowest + 1e-6
        assert int(found.left_out) == 0
        assert quick.converged
        assert float(quick.twice_nll) <= lowest + 1e-6 or int(quick.left_out) > 0


def test_the_search_is_off_where_no_variation_has_two_valleys():
    plain = modifier("normsys", "n", {"hi": 1.1, "lo": 0.9})
    structure, numbers, data = from_pyhf(one_region([50.0, 40.0], [5.0, 9.0], [70.0, 44.0], on_background=[plain]))
    found = run_fit(structure, numbers, data)
    assert int(found.iterations) < 12
    shifted = dataclasses.replace(numbers, normsys_lo=numbers.normsys_hi)
    assert int(run_fit(structure, shifted, data).iterations) > int(found.iterations)


def test_asimov_data_are_fitted_without_a_search():
    structure, numbers, _ = from_pyhf(same_side(np.random.default_rng(0)))
    assert int(run_fit(structure, numbers, asimov(structure, numbers)).iterations) <= 3
