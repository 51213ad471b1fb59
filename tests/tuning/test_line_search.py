"""L-BFGS on functions whose minimum is known: bounds, order, and what is compiled."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Gradient
from pipeline.inference.objectives import Merit
from pipeline.tuning.descent import Evaluation, descend
from pipeline.tuning.line_search import make_search
from pipeline.tuning.ranges import Ordered, Range
from pipeline.tuning.schedule import Schedule, make_optimiser

pytestmark = pytest.mark.slow

LBFGS = Schedule("lbfgs", {}, learning_rate=1.0, decay_to=1.0, steps=20, decay="constant", smooth=True)
RANGES = {
    "jet_pt": Range(lower=25.0, upper=60.0, step=1.0, bandwidth=3.0, bandwidth_end=3.0),
    "btag": Range(lower=0.2, upper=0.95, step=0.02, bandwidth=0.05, bandwidth_end=0.05),
}
START = {"jet_pt": 30.0, "btag": 0.5}
VALLEY = jnp.asarray([41.3, 0.71])


def valley(thresholds):
    """Rosenbrock's: its minimum lies at the end of a bent valley, in units of the steps."""
    x = (thresholds["jet_pt"] - VALLEY[0]) / 4 + 1
    y = (thresholds["btag"] - VALLEY[1]) / 0.04 + 1
    return (1 - x) ** 2 + 5 * (y - x**2) ** 2


def run(loss, ranges=RANGES, start=START, schedule=LBFGS, ordered=(), resume=None):
    loss_and_gradient = jax.jit(jax.value_and_grad(loss))

    def evaluate(thresholds, bandwidths):
        value, slope = loss_and_gradient(thresholds)
        merit = Merit(
            value=-value,
            converged=jnp.asarray(True),
            gradient_norm=jnp.zeros(()),
            iterations=jnp.zeros((), jnp.int32),
        )
        # An error that would hide every derivative: a search must not care.
        return Evaluation(
            loss=value,
            merit=merit,
            gradient=Gradient(value=slope, error=jax.tree.map(lambda one: 10 * jnp.abs(one), slope)),
        )

    def searched(thresholds, bandwidths):
        assert not isinstance(thresholds["jet_pt" if "jet_pt" in ranges else "edge_0"], jax.core.Tracer)
        return loss_and_gradient(thresholds)

    search = make_search(make_optimiser(schedule), searched, ranges, ordered)
    return list(descend(evaluate, ranges, [start], schedule, ordered, search=search, resume=resume))


@pytest.fixture(scope="module")
def down_the_valley():
    return run(valley)


def test_it_finds_the_end_of_a_bent_valley(down_the_valley):
    steps = down_the_valley
    assert steps[-1].best_loss < 1e-6 < 1 < steps[0].loss
    np.testing.assert_allclose([steps[-1].best[name] for name in RANGES], VALLEY, rtol=1e-3)


def test_the_loss_falls_at_every_step(down_the_valley):
    losses = [step.loss for step in down_the_valley]
    assert all(after <= before for before, after in pairwise(losses))


def test_the_minimum_beyond_a_bound_is_found_on_the_bound():
    """The one threshold goes on to where it is best while the other is held."""

    def bowl(thresholds):
        x, y = thresholds["jet_pt"] - 80.0, (thresholds["btag"] - 0.6) / 0.02
        return x**2 + y**2 + 0.5 * x * y

    steps = run(bowl, schedule=replace(LBFGS, steps=6))
    assert steps[-1].best["jet_pt"] == pytest.approx(60.0, abs=0.01)
    # dloss/dy = 2 y + x / 2 = 0 at x = 60 − 80
    np.testing.assert_allclose(steps[-1].best["btag"], 0.6 + 0.02 * 20 / 4, rtol=1e-3)


def test_ordered_thresholds_keep_their_distance_on_the_way_and_at_the_end():
    names = ("edge_0", "edge_1", "edge_2")
    ranges = dict.fromkeys(names, Range(lower=0.0, upper=10.0, step=1.0, bandwidth=1.0, bandwidth_end=1.0))
    wish = jnp.asarray([6.0, 5.0, 9.0])

    def crowded(thresholds):
        at = jnp.stack([thresholds[name] for name in names])
        gaps = at[1:] - at[:-1]
        # Not even defined where the order is lost.
        return jnp.sum((at - wish) ** 2) + jnp.sum(jnp.where(gaps < 0.999, jnp.nan, 0.0))

    start = dict(zip(names, [1.0, 3.0, 5.0], strict=True))
    steps = run(crowded, ranges, start, replace(LBFGS, steps=4), (Ordered(names, 1.0),))
    assert all(np.isfinite(step.loss) for step in steps)
    # The nearest allowed place is (5, 6, 9), 2 away.
    assert steps[-1].best_loss < 2.1
    assert steps[-1].best["edge_2"] == pytest.approx(9.0, abs=0.1)


def test_resumed_searches_are_bit_identical(down_the_valley):
    rest = run(valley, resume=down_the_valley[-3])
    assert [step.thresholds for step in rest] == [step.thresholds for step in down_the_valley[-2:]]


def test_polyaks_step_needs_the_loss_and_a_rate_that_stays():
    """Where the lowest loss is known, each step goes to where a straight slope would reach it."""

    def bowl(thresholds):
        return (thresholds["jet_pt"] - 41.3) ** 2 + ((thresholds["btag"] - 0.71) / 0.02) ** 2

    polyak = replace(LBFGS, name="polyak_sgd", arguments={"f_min": 0.0}, steps=12)
    steps = run(bowl, schedule=polyak)
    # In a round bowl that is half of the way, so each step divides the loss by four.
    np.testing.assert_allclose([step.loss for step in steps[1:]], [step.loss / 4 for step in steps[:-1]])
    with pytest.raises(ValueError, match=r"optimiser\.decay: constant"):
        make_optimiser(replace(polyak, decay="cosine", decay_to=0.1))
