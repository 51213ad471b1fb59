"""The optax loop on a quadratic whose minimum is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pipeline.analysis import Gradient
from pipeline.events.scores import Network
from pipeline.inference.objectives import Merit
from pipeline.tuning.descent import Evaluation, Learner, bandwidths_at, descend
from pipeline.tuning.ranges import Ordered, Range
from pipeline.tuning.schedule import RATES, Schedule, make_optimiser

RANGES = {
    "jet_pt": Range(lower=25.0, upper=60.0, step=1.0, bandwidth=3.0, bandwidth_end=1.0),
    "btag": Range(lower=0.2, upper=0.95, step=0.02, bandwidth=0.05, bandwidth_end=0.05),
}
START = {"jet_pt": 30.0, "btag": 0.5}
MINIMUM = {"jet_pt": 36.0, "btag": 0.7}


def schedule(name="adam", steps=40, **arguments) -> Schedule:
    return Schedule(name=name, arguments=arguments, learning_rate=1.0, decay_to=0.1, steps=steps)


def known(gradient, error=0.0):
    """A gradient with the same statistical error of every derivative."""
    return Gradient(value=gradient, error={name: jnp.asarray(error, jnp.float64) for name in gradient})


def quadratic(minimum=MINIMUM, converged=lambda _: True, seen=None, error=0.0):
    """Σ ((x − minimum) / step)²: in units of the steps a round bowl."""

    def loss(thresholds):
        return sum(((thresholds[name] - minimum[name]) / RANGES[name].step) ** 2 for name in RANGES)

    def evaluate(thresholds, bandwidths):
        value, gradient = jax.value_and_grad(loss)(thresholds)
        if seen is not None:
            seen.append(bandwidths)
        merit = Merit(
            value=-value,
            converged=jnp.asarray(converged(value)),
            gradient_norm=jnp.zeros(()),
            iterations=jnp.zeros((), jnp.int32),
        )
        return Evaluation(loss=value, merit=merit, gradient=known(gradient, error))

    return evaluate


def run(evaluate=None, resume=None, **of_schedule):
    return list(descend(evaluate or quadratic(), RANGES, [START], schedule(**of_schedule), resume=resume))


@pytest.mark.slow
def test_it_finds_the_minimum_in_physical_units():
    steps = run(steps=60)
    assert steps[0].thresholds == START
    for name, at in MINIMUM.items():
        assert abs(steps[-1].best[name] - at) < 0.5 * RANGES[name].step


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adabelief"])
def test_any_optimiser_of_optax_may_be_named(name):
    steps = [step.loss for step in descend(quadratic(), RANGES, [START], Schedule(name, {}, 0.3, 0.1, 20))]
    assert min(steps) < 0.5 * steps[0]


def test_the_best_is_kept_and_not_the_last():
    """A learning rate that never falls overshoots on and on."""
    steps = list(descend(quadratic(), RANGES, [START], Schedule("sgd", {}, 0.99, 1.0, 15)))
    losses = [step.loss for step in steps]
    wandering = list(descend(quadratic(), RANGES, [START], Schedule("adam", {}, 5.0, 1.0, 15)))
    for taken in (steps, wandering):
        for number, step in enumerate(taken):
            best = min(range(number + 1), key=lambda n: taken[n].loss)
            assert step.best_loss == taken[best].loss
            assert step.best == taken[best].thresholds
    assert losses[-1] < losses[0]
    assert wandering[-1].loss > wandering[-1].best_loss


@pytest.mark.slow
def test_bin_edges_keep_their_order_and_their_distance():
    """Each of five edges is drawn to the same place; pressed together they stay where they are least wrong."""
    names = tuple(f"edge_{number}" for number in range(5))
    ranges = dict.fromkeys(names, Range(lower=0.0, upper=10.0, step=1.0, bandwidth=1.0, bandwidth_end=1.0))
    start = dict(zip(names, [0.0, 2.5, 5.0, 7.5, 10.0], strict=True))

    def evaluate(thresholds, _):
        value, gradient = jax.value_and_grad(lambda at: sum((one - 4.0) ** 2 for one in at.values()))(thresholds)
        merit = Merit(
            value=-value, converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
        )
        return Evaluation(loss=value, merit=merit, gradient=known(gradient))

    steps = list(descend(evaluate, ranges, [start], schedule(steps=80), [Ordered(names, 0.5)]))
    for step in steps:
        places = [step.thresholds[name] for name in names]
        assert np.diff(places).min() >= 0.5 - 1e-12
        assert min(places) >= 0
        assert max(places) <= 10
    np.testing.assert_allclose([steps[-1].best[name] for name in names], [3, 3.5, 4, 4.5, 5], atol=0.1)


def test_bounds_are_never_crossed():
    beyond = {"jet_pt": 80.0, "btag": 0.05}
    steps = run(quadratic(beyond), steps=60)
    for step in steps:
        assert all(r.lower <= step.thresholds[name] <= r.upper for name, r in RANGES.items())
    assert steps[-1].best == {"jet_pt": 60.0, "btag": 0.2}


def test_steps_are_measured_in_each_cuts_own_unit():
    """The first step of Adam is the learning rate, whatever the gradient: one `step` of each cut."""
    first, second = run(steps=2)
    assert second.thresholds["jet_pt"] - first.thresholds["jet_pt"] == pytest.approx(1.0, rel=1e-5)
    assert second.thresholds["btag"] - first.thresholds["btag"] == pytest.approx(0.02, rel=1e-5)


def test_gradients_are_reported_in_physical_units():
    (first,) = run(steps=1)
    assert first.gradient == pytest.approx({"jet_pt": -12.0, "btag": -2 * 10 / 0.02})


def test_bandwidths_narrow_geometrically():
    seen = []
    run(quadratic(seen=seen), steps=3)
    assert [float(widths["jet_pt"]) for widths in seen] == pytest.approx([3.0, np.sqrt(3.0), 1.0])
    assert [float(widths["btag"]) for widths in seen] == pytest.approx([0.05] * 3)
    assert bandwidths_at(0.0, RANGES) == {"jet_pt": 3.0, "btag": 0.05}


def test_a_single_step_has_the_widest_kernel():
    (step,) = run(steps=1)
    assert step.bandwidths["jet_pt"] == 3.0


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("stop", [1, 7, 19])
def test_resumed_loops_are_bit_identical(name, stop):
    whole = run(name=name, steps=20)
    rest = run(name=name, steps=20, resume=whole[stop - 1])
    assert len(rest) == 20 - stop
    for one, other in zip(whole[stop:], rest, strict=True):
        same = ("number", "thresholds", "bandwidths", "loss", "gradient", "best_loss", "best", "following")
        assert all(getattr(one, field) == getattr(other, field) for field in same)
        assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one.state, other.state)), strict=True))


def test_nothing_is_left_to_do_after_the_last_step():
    whole = run(steps=3)
    assert run(steps=3, resume=whole[-1]) == []


def test_steps_that_did_not_converge_are_never_the_best():
    """The minimum itself lies where no fit converges."""
    steps = run(quadratic(converged=lambda value: value > 20.0), steps=40)
    assert min(step.loss for step in steps) < 20.0
    assert steps[-1].best_loss > 20.0
    assert steps[-1].best_loss == min(step.loss for step in steps if step.loss > 20.0)


def test_without_any_converged_step_there_is_no_best():
    steps = run(quadratic(converged=lambda _: False), steps=3)
    assert steps[-1].best_loss == np.inf
    assert steps[-1].best == START


def test_a_loop_that_is_left_evaluates_no_further():
    seen = []
    loop = descend(quadratic(seen=seen), RANGES, [START], schedule(steps=40))
    next(loop)
    next(loop)
    loop.close()
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"name": "adamm"}, "optimiser.name: optax has no optimiser 'adamm'; use adam, sgd"),
        ({"name": "squared_error"}, "optimiser.name: optax.squared_error is not an optimiser"),
        ({"name": "tree_utils"}, "optimiser.name: optax.tree_utils is not an optimiser"),
        ({"name": "__version__"}, "optimiser.name: optax.__version__ is not an optimiser"),
        (
            {"name": "adam", "momentum": 0.9},
            "optimiser.arguments: optax.adam: got an unexpected keyword argument 'momentum'",
        ),
        (
            {"name": "lbfgs"},
            "optimiser.name: optax.lbfgs searches along the loss, .* set 'optimiser.forward: smooth'",
        ),
    ],
)
def test_a_bad_optimiser_is_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_optimiser(schedule(**bad))
    assert "\n" not in str(caught.value)


def test_a_gradient_within_its_error_moves_nothing():
    """At the start the derivative by jet_pt is −12 per GeV: 1.2 errors of 10, 12 errors of 1."""
    for significance, moves in ((0.0, True), (1.0, True), (2.0, False)):
        certain = Schedule("adam", {}, 1.0, 0.1, 2, significance=significance)
        first, second = descend(quadratic(error=10.0), RANGES, [START], certain)
        assert first.error == {"jet_pt": 10.0, "btag": 10.0}
        assert (second.thresholds["jet_pt"] != first.thresholds["jet_pt"]) is moves
        assert second.thresholds["btag"] != first.thresholds["btag"]


def test_shrinking_grows_with_the_error():
    """Plain descent, so that the step is the shrunk gradient itself: g (1 − (2σ/g)²)."""
    plain = Schedule("sgd", {}, 0.01, 1.0, 2, significance=2.0)
    for error in (0.0, 3.0, 5.9, 6.1):
        first, second = descend(quadratic(error=error), RANGES, [START], plain)
        moved = second.thresholds["jet_pt"] - first.thresholds["jet_pt"]
        assert moved == pytest.approx(0.12 * max(0.0, 1 - (2 * error / 12) ** 2), abs=1e-9)


def test_a_derivative_without_an_error_that_is_zero_stays_zero():
    first, second = descend(quadratic(START), RANGES, [START], Schedule("sgd", {}, 1.0, 1.0, 2, significance=2.0))
    assert second.thresholds == first.thresholds


def test_gradients_are_clipped_to_a_norm():
    """In units of the steps: the gradient is (−12, −20), its norm 23.3."""
    first, second = descend(quadratic(), RANGES, [START], Schedule("sgd", {}, 1.0, 1.0, 2, clip=1.0))
    moved = [(second.thresholds[name] - first.thresholds[name]) / RANGES[name].step for name in RANGES]
    assert np.hypot(*moved) == pytest.approx(1.0, rel=1e-6)
    assert moved[0] / moved[1] == pytest.approx(12 / 20, rel=1e-6)


def test_a_rate_that_stays_is_a_number():
    """Some optimisers take nothing else."""
    assert RATES["constant"](2.0, 10, 0.1) == 2.0


@pytest.mark.parametrize("decay", sorted(RATES.keys() - {"constant"}))
def test_the_learning_rate_falls_as_it_is_told(decay):
    rate = RATES[decay](2.0, 10, 0.1)
    assert float(rate(0)) == pytest.approx(2.0)
    assert float(rate(10)) == pytest.approx(0.2)
    fallen = [float(rate(step)) for step in range(11)]
    assert fallen == sorted(fallen, reverse=True)


def two_bowls(seen=None):
    """A shallow minimum at jet_pt 30 and a deep one at 50."""

    def evaluate(thresholds, bandwidths):
        def loss(at):
            shallow, deep = (at["jet_pt"] - 30) ** 2, (at["jet_pt"] - 50) ** 2 - 30
            return jnp.minimum(shallow, deep) + (at["btag"] - 0.5) ** 2

        value, gradient = jax.value_and_grad(loss)(thresholds)
        merit = Merit(
            value=-value, converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
        )
        return Evaluation(loss=value, merit=merit, gradient=known(gradient))

    return evaluate


@pytest.mark.slow
def test_several_starts_find_the_deeper_minimum_and_keep_it():
    starts = [{"jet_pt": place, "btag": 0.5} for place in (32.0, 52.0, 28.0)]
    steps = list(descend(two_bowls(), RANGES, starts, schedule(steps=30)))
    assert [step.number for step in steps] == list(range(90))
    for number, start in enumerate(starts):
        assert steps[30 * number].thresholds == start
        assert steps[30 * number].bandwidths == steps[0].bandwidths
    assert steps[-1].best["jet_pt"] == pytest.approx(50, abs=0.5)
    assert steps[-1].best_loss == min(step.loss for step in steps)


def test_a_patient_loop_gives_up_and_goes_to_the_next_start():
    """Started at the minimum with steps that only lead away."""
    restless = Schedule("sgd", {}, 1.2, 1.0, 20, patience=3)
    steps = list(descend(quadratic(), RANGES, [MINIMUM, START], restless))
    assert [step.number for step in steps] == [0, 1, 2, 3, 20, 21, 22, 23]
    assert [step.waited for step in steps] == [0, 1, 2, 3] * 2
    assert steps[-1].best == MINIMUM


def test_the_monitor_decides_which_step_is_the_best():
    """The loss goes on falling where the monitor, with its minimum half way, rises again."""
    half_way = {name: (START[name] + MINIMUM[name]) / 2 for name in RANGES}

    def monitor(thresholds):
        return float(quadratic(half_way)(thresholds, None).loss)

    steps = list(descend(quadratic(), RANGES, [START], schedule(steps=40), monitor=monitor))
    best = min(steps, key=lambda step: step.monitored)
    assert steps[-1].best == best.thresholds
    assert steps[-1].best_loss == best.monitored
    assert best.loss > 2 * steps[-1].loss
    patient = Schedule("adam", {}, 1.0, 0.1, 40, patience=4)
    stopped = list(descend(quadratic(), RANGES, [START], patient, monitor=monitor))
    assert len(stopped) < 40
    assert stopped[-1].best == best.thresholds


@pytest.mark.parametrize("stop", [2, 4, 5, 7])
def test_a_loop_of_several_starts_resumes_bit_identically(stop):
    restless = Schedule("adam", {}, 3.0, 1.0, 20, patience=3)
    starts = [MINIMUM, START]
    whole = list(descend(quadratic(), RANGES, starts, restless))
    assert whole[4].number == 20  # the first start was given up after four steps
    rest = list(descend(quadratic(), RANGES, starts, restless, resume=whole[stop - 1]))
    assert [(step.number, step.thresholds, step.best, step.waited) for step in rest] == [
        (step.number, step.thresholds, step.best, step.waited) for step in whole[stop:]
    ]


def test_arguments_reach_the_optimiser():
    heavy = run(name="sgd", steps=3, momentum=0.9)
    plain = run(name="sgd", steps=3)
    assert heavy[2].thresholds != plain[2].thresholds
    assert isinstance(make_optimiser(schedule(b1=0.5)), optax.GradientTransformation)


def test_from_a_plain_it_comes_back():
    """Beyond 40 nothing is left: the loss is flat there, and an optimiser with momentum runs far into it."""

    def evaluate(thresholds, _):
        at = thresholds["jet_pt"]
        inside = at < 40
        loss = jnp.where(inside, ((at - 38) / 4) ** 2 - 1, 1.0)
        slope = jnp.where(inside, (at - 38) / 8, 0.0)
        merit = Merit(
            value=-loss, converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
        )
        return Evaluation(loss=loss, merit=merit, gradient=known({"jet_pt": slope}))

    ranges = {"jet_pt": RANGES["jet_pt"]}
    steps = list(descend(evaluate, ranges, [{"jet_pt": 26.0}], Schedule("adam", {}, 2.0, 0.5, 40)))
    assert any(step.thresholds["jet_pt"] >= 40 for step in steps)
    last = [step.thresholds["jet_pt"] for step in steps[-5:]]
    assert max(last) < 40
    assert steps[-1].best["jet_pt"] == pytest.approx(38, abs=0.7)


def test_from_a_plain_networks_come_back_too():
    """They were moved there by moments that led astray: the place to return to is that of all parameters."""

    def evaluate(thresholds, _):
        weight = thresholds["score"].weights.astype(jnp.float64)
        inside = thresholds["jet_pt"] < 40
        loss = jnp.where(inside, jnp.sum(weight) - thresholds["jet_pt"] / 10, 10.0)
        slope = {"jet_pt": jnp.where(inside, -0.1, 0.0), "score": jnp.where(inside, jnp.ones(2), 0.0)}
        merit = Merit(
            value=-loss, converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
        )
        error = {name: jnp.zeros(()) for name in slope}
        return Evaluation(loss=loss, merit=merit, gradient=Gradient(value=slope, error=error))

    begin = Network(weights=jnp.zeros(2, jnp.float32), centre=jnp.zeros(1, np.float32), width=jnp.ones(1, np.float32))
    learner = {"score": Learner(begin, optax.adam(0.1), 1.0)}
    ranges, plan = {"jet_pt": RANGES["jet_pt"]}, Schedule("adam", {}, 2.0, 0.5, 20)
    steps = list(descend(evaluate, ranges, [{"jet_pt": 38.5}], plan, learners=learner))
    plains = [number for number, step in enumerate(steps[:-1]) if step.thresholds["jet_pt"] >= 40]
    assert plains
    for number in plains:
        best = steps[number].best_number
        np.testing.assert_array_equal(
            steps[number + 1].networks["score"].weights, steps[best].networks["score"].weights
        )


def plain(edge=40.0):
    """The bowl, but nothing changes below an edge of jet_pt."""
    bowl = quadratic()

    def evaluate(thresholds, bandwidths):
        here = bowl(thresholds, bandwidths)
        if float(thresholds["jet_pt"]) >= edge:
            return here
        zeros = {name: jnp.zeros(()) for name in RANGES}
        loss = jnp.asarray(1e4)
        return Evaluation(
            loss=loss,
            merit=replace(here.merit, value=-loss),
            gradient=Gradient(value=zeros, error=known(zeros, 1.0).error),
        )

    return evaluate


OFFERED = [{"jet_pt": 28.0, "btag": 0.3}, {"jet_pt": 55.0, "btag": 0.6}, {"jet_pt": 50.0, "btag": 0.6}]


def test_where_nothing_moves_the_next_offered_place_is_taken_up():
    steps = list(descend(plain(), RANGES, [START], schedule(steps=30), offered=OFFERED))
    assert [step.thresholds for step in steps[:3]] == [START, *OFFERED[:2]]
    assert [step.renewals for step in steps[:4]] == [1, 2, 2, 2]
    assert steps[-1].best_loss < steps[2].loss
    # The optimiser begins anew: the first step of Adam is the learning rate.
    assert steps[2].thresholds["jet_pt"] - steps[3].thresholds["jet_pt"] == pytest.approx(1.0, rel=1e-4)


def test_without_another_place_it_stays():
    steps = list(descend(plain(), RANGES, [START], schedule(steps=4), offered=OFFERED[:1]))
    assert [step.thresholds for step in steps] == [START, *[OFFERED[0]] * 3]
    assert {step.renewals for step in steps} == {1}


def test_a_corner_is_left_once_it_is_reached():
    """Both thresholds at their bounds, and pushed outwards."""
    beyond = quadratic({"jet_pt": 10.0, "btag": 0.0})
    steps = list(descend(beyond, RANGES, [START], schedule(steps=40), offered=[OFFERED[1]]))
    corner = next(step for step in steps if step.thresholds == {"jet_pt": 25.0, "btag": 0.2})
    assert steps[corner.number + 1].thresholds == OFFERED[1]
    assert steps[-1].best == corner.thresholds


def test_it_goes_on_bit_identically_from_an_offered_place():
    steps = list(descend(plain(), RANGES, [START], schedule(steps=9), offered=OFFERED))
    again = list(descend(plain(), RANGES, [START], schedule(steps=9), offered=OFFERED, resume=steps[1]))
    assert [step.thresholds for step in again] == [step.thresholds for step in steps[2:]]
    assert [step.renewals for step in again] == [step.renewals for step in steps[2:]]
