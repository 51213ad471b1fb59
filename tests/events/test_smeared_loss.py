"""The smooth sibling of the whole analysis: value and gradient are consistent, as line searches need it."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.analysis import Analysis, Data
from pipeline.config import Config, load_config
from pipeline.events.smeared import outcomes_per_event
from pipeline.names import names_of
from pipeline.parts import make_data
from pipeline.problem import read
from pipeline.translation import make_analysis

from analysis_data import ROOT, default_thresholds
from reference.compiling import quick_jit
from small_analysis import BANDWIDTHS, THRESHOLDS, arrays, small_analysis, small_data

pytestmark = pytest.mark.slow

# The difference of two losses of about 0.1 to 100, each of which is right to some 1e-15 of that, over twice the step.
STEP = 1e-4
"""Of a finite difference, in bandwidths: the kernel is a polynomial, so little is left of the next order."""

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """An analysis with its events, where it is looked at, and how wide the kernels are."""

    analysis: Analysis
    data: Data
    at: Mapping[str, float]
    bandwidths: Mapping[str, float]
    units: Mapping[str, float]


def of_config(config: Config, share: float) -> Case:
    """A part of the committed events."""
    names = names_of(config)
    samples = read(config)
    analysis = make_analysis(config, names, len(samples))
    generator = np.random.default_rng(0)
    masks = [generator.random(len(sample.events)) < share for sample in samples]
    (data,) = make_data(config, names, analysis, samples, [masks])
    trainable = {name: threshold for name, threshold in config.thresholds.items() if threshold.trainable}
    return Case(
        analysis,
        data,
        default_thresholds(config),
        {name: threshold.bandwidth for name, threshold in trainable.items()},
        {name: threshold.step for name, threshold in trainable.items()},
    )


CONFIGS = {"agc.yaml": 0.3, "every_threshold.yaml": 0.1}


@pytest.fixture(
    scope="module",
    params=[
        "small",
        pytest.param("agc.yaml", marks=pytest.mark.long),
        pytest.param("every_threshold.yaml", marks=pytest.mark.long),
    ],
)
def case(request) -> Case:
    if request.param == "small":
        widths = BANDWIDTHS | {"ht": 20.0}
        return Case(small_analysis(), small_data(), THRESHOLDS, widths, widths)
    return of_config(load_config(ROOT / "configs" / request.param), CONFIGS[request.param])


@pytest.mark.parametrize("point", range(2))
def test_the_gradient_is_the_finite_difference_of_the_value(case, point):
    """For every threshold, relative to the length of the gradient in units of their steps.

    The points are random: stored values are coarse, and at a default threshold of 30 GeV many a jet of 27 GeV lies
    just where its kernel ends, where the second derivative jumps.
    """
    generator = np.random.default_rng(point)
    moved = {name: case.at[name] + 0.5 * unit * generator.normal() for name, unit in case.units.items()}
    at, widths = {**case.at, **moved}, arrays(dict(case.bandwidths))

    def loss(thresholds: Mapping[str, float]) -> float:
        value, merit = exact.loss(case.analysis, arrays(thresholds), widths, case.data, smooth=True)
        assert bool(merit.converged)
        return float(value)

    gradient = exact.evaluate(case.analysis, arrays(at), widths, case.data, smooth=True).gradient
    assert set(gradient.value) == set(case.bandwidths)
    slopes = np.array([float(gradient.value[name]) * unit for name, unit in case.units.items()])
    expected = []
    for name, unit in case.units.items():
        step = STEP * case.bandwidths[name]
        expected.append((loss({**at, name: at[name] + step}) - loss({**at, name: at[name] - step})) / (2 * step) * unit)
    assert np.count_nonzero(slopes) >= 3
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=TOLERANCE * np.linalg.norm(slopes))


def test_the_gradient_is_that_of_jax_compiled_as_a_whole():
    """And it has no error: it is no estimate."""
    analysis, data = small_analysis(), small_data()
    at, widths = arrays(THRESHOLDS), arrays(BANDWIDTHS)
    evaluation = exact.evaluate(analysis, at, widths, data, smooth=True)

    def loss(at, widths, data):
        return exact.loss(analysis, at, widths, data, smooth=True)

    (value, _), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(at, widths, data)
    np.testing.assert_allclose(evaluation.loss, value, rtol=1e-10)
    for name in at:
        np.testing.assert_allclose(gradient[name], evaluation.gradient.value.get(name, 0.0), rtol=1e-6)
    assert {float(error) for error in evaluation.gradient.error.values()} == {0.0}


def test_narrow_kernels_give_the_exact_figure_of_merit():
    analysis, data = small_analysis(), small_data()
    at = arrays({name: value + 0.0123 for name, value in THRESHOLDS.items()})
    hard = float(exact.merit_of(analysis, at, data).value)
    off = []
    for scale in (1.0, 0.1, 1e-9):
        widths = arrays({name: scale * width for name, width in BANDWIDTHS.items()})
        _, merit = exact.loss(analysis, at, widths, data, smooth=True)
        off.append(abs(float(merit.value) - hard))
    assert off[2] < 1e-6 * hard < off[1] < off[0]


def test_the_price_is_that_of_the_uncertain_jets():
    events, at = small_data(events=300).events, arrays(THRESHOLDS)
    widths = ({name: scale * width for name, width in BANDWIDTHS.items()} for scale in (1e-9, 1.0, 4.0))
    price = [outcomes_per_event(small_analysis().events, at, arrays(each), events) for each in widths]
    assert price[0] < 1 < price[1] < price[2] / 2
