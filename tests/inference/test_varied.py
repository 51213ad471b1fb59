"""Noise of varied templates: against a plain fit of lines by NumPy, pyhf's own likelihood, and pseudo-experiments."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.histfactory import Numbers, Structure, auxdata, from_pyhf, logpdf, to_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, in_merged_bins, numbers, skeleton
from pipeline.inference.significance import discovery_significance, signal_strength_uncertainty
from pipeline.inference.templates import Templates
from pipeline.inference.varied import (
    fitted,
    pruned,
    qualities,
    smoothed,
    treated,
    with_counted_errors,
    with_errors,
)

from reference.compiling import quick_jit

CHANNELS = (Channel("b CR", 4, 0), Channel("a SR", 6, 4))
MEASUREMENT = Measurement(
    name="m",
    poi="mu",
    channels=CHANNELS,
    processes=("signal", "background"),
    free=(("mu", 0),),
    nuisances=(
        Nuisance("one-sided", (0, 1), up=1),
        Nuisance("two-sided", (1,), up=2, down=3),
        Nuisance("as it is", (1,), up=2, channels=("a SR",), split=False),
        Nuisance("size", (0, 1), sizes=(0.03, -0.03)),
    ),
    bounds=(0.0, 10.0),
    minimum_effective_events=10.0,
)
EVERYTHING = replace(MEASUREMENT, smoothing=1.5, pruning=0.01, variation_errors=True)


def model_of(measurement: Measurement, structure: Structure, made: Templates) -> Numbers:
    return numbers(measurement, structure, fitted(measurement, made))


_model_of = quick_jit(model_of, static_argnums=(0, 1))


def templates(seed: int = 0) -> Templates:
    generator = np.random.default_rng(seed)
    nominal = generator.uniform(5, 100, (2, 10)) * np.array([[0.3], [3.0]])
    varied = nominal * generator.normal(1, 0.1, (4, 2, 10))
    varied[0] = nominal
    varied[2:, 0] = nominal[0]
    return Templates(
        yields=jnp.asarray(varied),
        variance=jnp.asarray(generator.uniform(0.5, 3, (2, 10))),
        shift_variance=jnp.asarray(
            generator.uniform(0.5, 3, (4, 2, 10)) * np.any(varied != nominal, axis=2)[:, :, None]
        ),
    )


def by_numpy(made: Templates, width: float) -> np.ndarray:
    """Every bin by a fit of its own (`np.polyfit`), and the yield of every region put back."""
    yields, variance = np.array(made.yields), np.asarray(made.variance)
    smooth = yields.copy()
    for v in range(1, len(yields)):
        for p in range(yields.shape[1]):
            for channel in CHANNELS:
                bins = np.arange(channel.offset, channel.offset + channel.bins)
                nominal, varied = yields[0, p, bins], yields[v, p, bins]
                effective = nominal**2 / variance[p, bins]
                values = []
                for b in bins:
                    kernel = np.exp(-((bins - b) ** 2) / (2 * width**2))
                    # NumPy squares its weights.
                    line = np.polyfit(bins - b, varied / nominal, 1, w=np.sqrt(kernel * effective))
                    values.append(max(line[1], 0))
                smooth[v, p, bins] = np.array(values) * nominal
                smooth[v, p, bins] *= varied.sum() / smooth[v, p, bins].sum()
    return smooth


@pytest.mark.parametrize("width", [0.7, 2.0])
def test_smoothing_is_a_local_fit_of_lines(width):
    made = templates()
    np.testing.assert_allclose(smoothed(made, CHANNELS, width).yields, by_numpy(made, width), rtol=1e-10)


def test_smoothing_keeps_straight_lines_the_yield_and_what_does_not_vary():
    made = templates()
    nominal = np.asarray(made.yields[0])
    lines = np.stack([np.ones(10), np.full(10, 1.3), 0.7 + 0.05 * np.arange(10), 1.5 - 0.1 * np.arange(10)])
    straight = replace(made, yields=jnp.asarray(nominal * lines[:, None]))
    smooth = smoothed(straight, CHANNELS, 1.0).yields
    np.testing.assert_array_equal(smooth[0], nominal)
    np.testing.assert_allclose(smooth, straight.yields, rtol=1e-13)
    both = [np.asarray(each.yields) for each in (made, smoothed(made, CHANNELS, 3.0))]
    for bins in (slice(0, 4), slice(4, 10)):
        before, after = (each[:, :, bins].sum(axis=2) for each in both)
        np.testing.assert_allclose(after, before, rtol=1e-13)
    np.testing.assert_allclose(both[1][2:, 0], nominal[[0, 0]], rtol=1e-14)


def test_smoothing_leaves_bins_without_nominal_yield_and_lonely_bins():
    yields = np.zeros((2, 2, 10))
    yields[0, :, 5], yields[1, :, 5], yields[1, :, 7] = 10.0, 13.0, 0.4
    lonely = smoothed(Templates(yields=jnp.asarray(yields), variance=jnp.zeros((2, 10))), CHANNELS, 2.0)
    np.testing.assert_array_equal(lonely.yields, yields)


def test_pruning_leaves_out_small_shapes_and_small_changes_of_the_yield():
    nominal = np.tile(np.array([100.0, 200.0, 300.0, 400.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0]), (2, 1))
    shape = np.array([1.003, 0.997, 1.002, 0.9985, 1.1, 0.9, 1.0, 1.0, 1.0, 1.0])
    shape[:4] /= np.sum(shape[:4] * nominal[0, :4]) / 1000
    yields = np.stack([nominal, 1.2 * nominal * shape, 1.004 * nominal * shape, nominal])
    given = Templates(yields=jnp.asarray(yields), variance=jnp.ones((2, 10)), shift_variance=jnp.ones((4, 2, 10)))
    measurement = replace(MEASUREMENT, pruning=0.01)
    made, shapes, scales = pruned(measurement, given)
    np.testing.assert_allclose(made.yields[1, 0, :4], 1.2 * nominal[0, :4])  # its shape is small, its yield is not
    np.testing.assert_array_equal(made.yields[1, 0, 4:], yields[1, 0, 4:])
    np.testing.assert_allclose(made.yields[2, 1, :4], nominal[1, :4])  # both are small
    np.testing.assert_allclose(made.yields[2, 1, 4:], yields[2, 1, 4:] / 1.004)
    np.testing.assert_array_equal(shapes[:, 0], [[False, False], [False, True], [False, True], [False, True]])
    np.testing.assert_array_equal(scales[:, 0], [[False, False], [True, True], [False, False], [False, False]])
    np.testing.assert_array_equal(made.shift_variance[1, 0], [0] * 4 + [1] * 6)
    found = qualities(measurement, given)
    assert found["two-sided"].pruned == (1, 2)
    assert found["two-sided"].of == 2


def test_pruning_at_zero_leaves_out_nothing():
    made = templates()
    np.testing.assert_array_equal(pruned(replace(MEASUREMENT, pruning=0.0), made)[0].yields, made.yields)


def test_errors_of_variations_are_those_of_both_sides_on_average():
    made = templates()
    added = np.asarray(with_errors(replace(MEASUREMENT, variation_errors=True), made).variance - made.variance)
    shifts = np.asarray(made.shift_variance)
    np.testing.assert_allclose(added[0], shifts[1, 0])
    as_it_is = np.where(np.arange(10) >= 4, shifts[2, 1], 0.0)
    np.testing.assert_allclose(added[1], shifts[1, 1] + (shifts[2, 1] + shifts[3, 1]) / 2 + as_it_is)


def test_errors_count_as_far_as_shapes_are_not_noise():
    """What James and Stein estimate, written out; a shape within its errors is noise, a clear one has them all."""
    made = templates()
    measurement = replace(MEASUREMENT, variation_errors=True)
    for size, low, high in ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (5.0, 0.9, 1.0)):
        nominal, yields = np.asarray(made.yields[0]), np.array(made.yields)
        given = replace(made, yields=jnp.asarray(nominal + size * (yields - nominal)))
        chi_squared = 0.0
        for bins in (slice(0, 4), slice(4, 10)):
            before, after = nominal[1, bins], np.asarray(given.yields)[1, 1, bins]
            shape = after * before.sum() / after.sum() - before
            chi_squared += np.sum(shape**2 / np.asarray(made.shift_variance)[1, 1, bins])
        share = max(0.0, 1 - 8 / max(chi_squared, 1e-9))
        counted = with_counted_errors(measurement, given).shift_variance
        np.testing.assert_allclose(counted[1, 1], share * made.shift_variance[1, 1], rtol=1e-12)
        assert low <= share <= high
    with pytest.raises(ValueError, match="no errors of their variations"):
        treated(measurement, replace(made, shift_variance=None))


def test_nothing_is_done_by_default():
    made = templates()
    for ours, theirs in zip(
        jax.tree.leaves(fitted(MEASUREMENT, made)), jax.tree.leaves(in_merged_bins(MEASUREMENT, made)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_the_written_workspace_is_pyhfs():
    """All remedies at once: they are numbers of an ordinary workspace."""
    structure = from_pyhf(skeleton(EVERYTHING))[0]
    made, plain = (
        jax.tree.map(np.asarray, _model_of(each, structure, templates())) for each in (EVERYTHING, MEASUREMENT)
    )
    assert np.all(made.staterror >= plain.staterror)
    assert np.any(made.staterror > plain.staterror)
    workspace = pyhf.Workspace(to_pyhf(structure, made, measurement="m"))
    model = workspace.model(
        modifier_settings={"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
    )
    data = np.asarray(workspace.data(model))
    generator = np.random.default_rng(3)
    for _ in range(3):
        at = np.asarray(model.config.suggested_init()) + generator.normal(0, 0.1, model.config.npars)
        ours = float(logpdf(structure, made, at, data))
        assert ours == pytest.approx(float(model.logpdf(at, data)[0]), rel=1e-10)
    bounds, start = model.config.suggested_bounds(), model.config.suggested_init()
    q0 = pyhf.infer.test_statistics.q0(0.0, data, model, start, bounds, model.config.suggested_fixed())
    assert discovery_significance(structure, made, data=data).q0 == pytest.approx(float(q0), rel=1e-4)


def test_derivatives_follow_through_all_remedies():
    """Along a random direction, against a central difference; no bin is merged and nothing pruned on the way."""
    structure = from_pyhf(skeleton(EVERYTHING))[0]
    generator, made, step = np.random.default_rng(5), templates(1), 1e-5
    direction = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape) * np.asarray(leaf != 0)), made)

    def along(distance: jax.Array) -> tuple[jax.Array, ...]:
        model = model_of(EVERYTHING, structure, jax.tree.map(lambda x, d: x + distance * d, made, direction))
        return model.histosys_hi, model.histosys_lo, model.normsys_hi, model.normsys_lo, model.staterror

    _, slopes = quick_jit(lambda at: jax.jvp(along, (at,), (jnp.ones(()),)))(jnp.zeros(()))
    beside = quick_jit(along)
    for slope, up, down in zip(slopes, beside(jnp.asarray(step)), beside(jnp.asarray(-step)), strict=True):
        assert np.any(np.asarray(slope) != 0)
        np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


BINS = np.arange(10)
BACKGROUND = 1000 * np.exp(-BINS / 8)
SIGNAL = 100 * np.exp(-0.5 * ((BINS - 4.5) / 1.2) ** 2)
TOY = Measurement(
    name="toy",
    poi="mu",
    channels=(Channel("SR", 10, 0),),
    processes=("signal", "background"),
    free=(("mu", 0),),
    nuisances=(Nuisance("shape", (1,), up=1),),
    bounds=(-10.0, 10.0),
    minimum_effective_events=0.0,
)
REMEDIES = {"nothing": TOY, "uncertainty": replace(TOY, variation_errors=True)}


def pulls(measurement: Measurement, weight: float, experiments: int, seed: int = 1) -> np.ndarray:
    """(μ̂ − 1) / σ in pseudo-experiments: a known effect in the data, templates from events of some weight."""
    structure = from_pyhf(skeleton(measurement))[0]
    effect = 0.1 * BACKGROUND * np.cos(np.pi * BINS / 9)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(experiments):
        data = generator.poisson(SIGNAL + BACKGROUND + generator.normal() * effect)
        varied = weight * generator.poisson((BACKGROUND + effect) / weight)
        yields = np.array([[SIGNAL, BACKGROUND], [SIGNAL, varied]])
        shifts = np.zeros((2, 2, 10))
        shifts[1, 1] = weight * varied
        made = Templates(yields=jnp.asarray(yields), variance=jnp.zeros((2, 10)), shift_variance=jnp.asarray(shifts))
        given = jax.tree.map(np.asarray, _model_of(measurement, structure, made))
        seen = np.concatenate([data.astype(float), np.asarray(auxdata(structure, given))])
        fit = signal_strength_uncertainty(structure, given, data=seen)
        assert fit.converged
        found.append((float(fit.mu) - 1) / float(fit.uncertainty))
    return np.array(found)


@pytest.mark.slow
def test_the_uncertainty_of_few_events_is_too_small_without_their_errors():
    """Ten alternative events for a hundred expected ones: 10 % noise on an effect of up to 10 %."""
    size = {label: np.sqrt(np.mean(pulls(each, 10.0, 60) ** 2)) for label, each in REMEDIES.items()}
    assert size["nothing"] > 1.1
    assert 0.6 < size["uncertainty"] < 1.1
