"""The gradient of the analysis with its statistical error, and templates of parts of the events."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.events.cuts import Cut
from pipeline.events.design_effect import squared_sums
from pipeline.events.table import list_events
from pipeline.events.yields import SUBSAMPLES, yields_and_flux
from pipeline.validation.bootstrap import resampled
from pipeline.validation.comparison import cross_validate

from small_analysis import BANDWIDTHS, MEASUREMENT, THRESHOLDS, arrays, small_analysis, small_data

WIDTHS = arrays(BANDWIDTHS | {"ht": 40.0})


@pytest.fixture(scope="module")
def data():
    return small_data(events=6000)


@pytest.fixture(scope="module")
def evaluation(data) -> exact.Evaluation:
    return exact.evaluate(small_analysis(), arrays(THRESHOLDS), WIDTHS, data)


@pytest.mark.slow
def test_with_a_gpu_the_step_is_the_same(data, evaluation, monkeypatch):
    """Its order of passes, the place of the fit, and what it makes of loops; all on a CPU here."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, default, **_: default(*given))
    jax.clear_caches()
    on_gpu = exact.evaluate(small_analysis(), arrays(THRESHOLDS), WIDTHS, data)
    within = jax.jit(lambda at: exact.loss(small_analysis(), at, WIDTHS, data)[0])(arrays(THRESHOLDS))
    jax.clear_caches()
    np.testing.assert_allclose(within, evaluation.loss, rtol=1e-12)
    np.testing.assert_allclose(on_gpu.loss, evaluation.loss, rtol=1e-12)
    for name, value in evaluation.gradient.value.items():
        np.testing.assert_allclose(on_gpu.gradient.value[name], value, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(on_gpu.gradient.error[name], evaluation.gradient.error[name], rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_the_gradient_is_that_of_jax(data, evaluation):
    """The copies behind the errors add up to what scalar thresholds give; forward mode, along a direction, too."""
    analysis, at = small_analysis(), arrays(THRESHOLDS)

    def loss(at):
        return exact.loss(analysis, at, WIDTHS, data)

    (value, merit), gradient = jax.value_and_grad(loss, has_aux=True)(at)
    assert float(value) == float(evaluation.loss) == -float(merit.value)
    assert set(evaluation.gradient.value) == set(gradient) == set(WIDTHS)
    scale = max(abs(float(slope)) for slope in gradient.values())
    for name, slope in gradient.items():
        # Float32 sums over a chunk, whole or by subsamples.
        np.testing.assert_allclose(evaluation.gradient.value[name], slope, rtol=1e-5, atol=1e-5 * scale)
    direction = arrays({name: 1.0 + number for number, name in enumerate(at)})
    (_, _), (along, merit_along) = jax.jvp(loss, (at,), (direction,))
    np.testing.assert_allclose(along, sum(direction[name] * gradient[name] for name in at), rtol=1e-12)
    np.testing.assert_allclose(merit_along.value, -along, rtol=1e-12)


@pytest.mark.long
def test_a_threshold_without_bandwidth_has_no_derivative(data):
    at, width = arrays(THRESHOLDS), arrays({"jet_pt": 3.0})
    gradient = jax.grad(lambda at: exact.loss(small_analysis(), at, width, data)[0])(at)
    assert {name for name, slope in gradient.items() if slope != 0} == {"jet_pt"}
    assert set(exact.evaluate(small_analysis(), at, width, data).gradient.value) == {"jet_pt"}


@pytest.fixture(scope="module")
def flux_of():
    """(events) to yields and flux; compiled once."""
    return jax.jit(lambda events: yields_and_flux(small_analysis().events, arrays(THRESHOLDS), WIDTHS, events))


@pytest.mark.slow
def test_subsamples_add_up_and_are_disjoint(data, flux_of):
    whole = flux_of(data.events)
    parts = jax.jit(
        lambda events: yields_and_flux(small_analysis().events, arrays(THRESHOLDS), WIDTHS, events, SUBSAMPLES)
    )
    yields, flux = parts(data.events)
    np.testing.assert_array_equal(yields, whole[0])
    only = tuple(
        eqx.tree_at(lambda each: each.weight, group, jnp.where(group.collision % SUBSAMPLES == 3, group.weight, 0.0))
        for group in data.events.groups
    )
    _, of_one = parts(eqx.tree_at(lambda events: events.groups, data.events, only))
    for name, by_part in flux.items():
        assert by_part.shape[2] == SUBSAMPLES
        scale = float(jnp.abs(by_part).max())
        np.testing.assert_allclose(by_part.sum(axis=2), whole[1][name][:, :, 0], rtol=1e-4, atol=1e-4 * scale)
        np.testing.assert_allclose(of_one[name][:, :, 3], by_part[:, :, 3], rtol=1e-4, atol=1e-4 * scale)
        assert not np.any(np.delete(np.asarray(of_one[name]), 3, axis=2))


@pytest.mark.slow
def test_the_error_is_the_spread_of_bootstrap_replicas(data, evaluation, flux_of):
    """At the same slope of the loss by the yields: 16 subsamples know the error to 18 %, 80 replicas to 8 %."""
    yields = exact.yields_at(small_analysis(), arrays(THRESHOLDS), data)
    _, slope = exact.loss_of_yields_and_slope(yields, small_analysis(), data.recipe)
    generator, replicas = np.random.default_rng(5), []
    for _ in range(80):
        _, flux = flux_of(resampled(data, generator).events)
        replicas.append([float(jnp.vdot(slope, flux[name][:, :, 0])) for name in WIDTHS])
    spread = np.std(replicas, axis=0, ddof=1)
    errors = evaluation.gradient.error
    ratios = [float(errors[name]) / replica for name, replica in zip(WIDTHS, spread, strict=True)]
    assert all(0.5 < ratio < 1.7 for ratio in ratios), ratios
    assert 0.75 < np.mean(ratios) < 1.3, ratios


@pytest.mark.slow
def test_a_cut_on_leptons_and_jets_has_the_flux_of_both(data, flux_of):
    """One threshold for the pt of electrons and jets, beside two that stand at the same place."""
    events = small_analysis().events
    shared = Cut("pt", ("electron", "jet"), "pt", "above")
    rest = tuple(cut for cut in events.selection.cuts if cut.name not in ("electron_pt", "jet_pt"))
    together = events._replace(selection=dataclasses.replace(events.selection, cuts=(shared, *rest)))
    at, width = arrays({"jet_btag": 0.5, "ht": 150.0, "pt": 30.0}), arrays({"pt": 3.0})
    yields, flux = jax.jit(lambda given: yields_and_flux(together, at, width, given))(data.events)
    expected, apart = flux_of(data.events)
    np.testing.assert_array_equal(yields, expected)
    scale = float(jnp.abs(flux["pt"]).max())
    np.testing.assert_allclose(flux["pt"], apart["electron_pt"] + apart["jet_pt"], rtol=1e-4, atol=1e-4 * scale)
    assert float(jnp.abs(apart["electron_pt"]).max()) > 0.01 * scale


def halves(data):
    """The events of even and of odd collisions, each standing for the whole."""
    for parity in (0, 1):
        groups = tuple(
            eqx.tree_at(lambda each: each.weight, group, jnp.where(group.collision % 2 == parity, group.weight, 0.0))
            for group in data.events.groups
        )
        recipe = eqx.tree_at(
            lambda recipe: (recipe.yields, recipe.variance),
            data.recipe,
            (2 * data.recipe.yields, 4 * data.recipe.variance),
        )
        yield eqx.tree_at(lambda each: (each.events.groups, each.recipe), data, (groups, recipe))


@pytest.mark.slow
def test_folds_with_the_same_thresholds_are_all_events(data):
    at = arrays(THRESHOLDS)
    folds = [(half, at, at) for half in halves(data)]
    compared = cross_validate(small_analysis(), folds, replicas=3, seed=1)
    whole = float(exact.merit_of(small_analysis(), at, data).value)
    assert compared.before.value == pytest.approx(whole, rel=1e-6)
    assert compared.change.value == 0
    assert compared.change.error == 0
    assert compared.before.error > 0


@pytest.mark.slow
def test_each_fold_is_judged_by_its_own_thresholds(data):
    """Thresholds that only the other fold has leave a fold as it is."""
    at, tight = arrays(THRESHOLDS), arrays(THRESHOLDS | {"jet_pt": 45.0})
    first, second = halves(data)
    compared = cross_validate(small_analysis(), [(first, at, at), (second, at, tight)], replicas=2, seed=1)
    alone = cross_validate(small_analysis(), [(first, at, at), (second, at, at)], replicas=2, seed=1)
    swapped = cross_validate(small_analysis(), [(second, at, tight), (first, at, at)], replicas=2, seed=1)
    assert compared.before.value == alone.after.value
    assert compared.after.value != alone.after.value
    assert swapped.after.value == pytest.approx(compared.after.value, rel=1e-9)


@pytest.mark.slow
def test_the_loss_has_derivatives_through_what_is_done_about_noise():
    """By the yields, which is what the boundary flux is contracted with, along a random direction."""
    known = dataclasses.replace(MEASUREMENT, smoothing=1.0, variation_errors=True)
    analysis, data, at = small_analysis()._replace(measurement=known), small_data(3000), arrays(THRESHOLDS)
    shifts = np.asarray(data.recipe.yields - data.recipe.yields[:1])
    variances = squared_sums([list_events(analysis.events, at, data.events)], shifts, analysis.selection.bins)
    recipe = dataclasses.replace(data.recipe, shift_variance=jnp.asarray(variances))
    yields = exact.yields_at(analysis, at, data)
    direction = yields * jnp.asarray(np.random.default_rng(0).normal(size=yields.shape))

    def loss(distance: float) -> tuple[float, float]:
        """The value, and the slope along the direction."""
        (value, merit), slope = exact.loss_of_yields_and_slope(yields + distance * direction, analysis, recipe)
        assert merit.converged
        return float(value), float(jnp.sum(slope * direction))

    step = 1e-5
    (above, _), (below, _), (_, slope) = loss(step), loss(-step), loss(0.0)
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4)
