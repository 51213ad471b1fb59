"""What a config says of the loop: where it starts, and how wide the kernels are."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Gradient
from pipeline.config import load_config
from pipeline.inference.objectives import Merit
from pipeline.ingest.manifest import InputError
from pipeline.problem import Problem
from pipeline.progress import Silent
from pipeline.scales import OwnUnit
from pipeline.tuning.descent import Evaluation, descend
from pipeline.tuning.schedule import schedule
from pipeline.tuning.tune import Tuned, ordered, ranges, starts, tune

from analysis_data import ROOT
from small_analysis import small_analysis, small_data

MERIT = Merit(
    value=jnp.zeros(()), converged=jnp.asarray(False), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
)


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def config(name="every_threshold", **settings):
    return load_config(ROOT / "configs" / f"{name}.yaml", settings)


def test_the_first_start_are_the_default_cuts():
    loaded = config()
    (only,) = starts(loaded)
    assert only == {name: one.threshold for name, one in loaded.thresholds.items() if one.trainable}


def test_further_starts_are_within_all_bounds_and_the_same_for_a_seed():
    loaded = config(optimiser={"starts": 9})
    found = starts(loaded)
    assert len(found) == 9
    assert found == starts(loaded)
    assert found[1:] != starts(config(optimiser={"starts": 9}, seed=2))[1:]
    for start in found:
        assert set(start) == set(ranges(loaded))
        assert all(r.lower <= start[name] <= r.upper for name, r in ranges(loaded).items())
        for one in ordered(loaded):
            assert np.diff([start[name] for name in one.names]).min() >= one.distance * (1 - 1e-9)


def test_further_starts_fill_the_range():
    """A Latin hypercube: one start in each eighth of the range of every threshold that is free."""
    loaded = config("agc", optimiser={"starts": 9})
    for name, r in ranges(loaded).items():
        shares = [(start[name] - r.lower) / (r.upper - r.lower) for start in starts(loaded)[1:]]
        assert sorted(int(8 * share) for share in shares) == list(range(8))


def test_the_schedule_is_that_of_the_config():
    settings = {"decay": "linear", "clip": 0.5, "significance": 3, "patience": 7, "steps": 11, "learning_rate": 0.3}
    made = schedule(config("agc", optimiser=settings))
    assert {name: getattr(made, name) for name in settings} == settings


def problem(loaded) -> Problem:
    """Without events: none are needed where the gradient is made up."""
    return Problem(loaded, small_analysis(), small_data(50), small_data(50), None, ())


def test_given_bandwidths_are_kept():
    given = problem(config("agc"))
    assert given.with_bandwidths() is given


def test_missing_bandwidths_are_chosen_and_then_narrowed(monkeypatch):
    """Without bias the widest kernel is taken: a quarter of the range. Others stay as they are given."""
    missing = {"bandwidth": None, "bandwidth_end": None}
    loaded = config(cuts={"jet_pt": missing}, regions={"4j2b": {"bins": missing}})

    def unbiased(_, __, widths, ___):
        ones = {name: jnp.ones(()) for name in widths}
        return Evaluation(loss=jnp.zeros(()), merit=MERIT, gradient=Gradient(value=ones, error=ones))

    said = Listener()
    monkeypatch.setattr("pipeline.problem.evaluate", unbiased)
    found = problem(loaded).with_bandwidths(said)
    assert found.config == loaded
    moving = ranges(loaded, found.kernels)
    assert set(moving) == {name for name, one in loaded.thresholds.items() if one.trainable}
    assert moving["jet_pt"].bandwidth == pytest.approx(35 / 4)
    assert moving["jet_pt"].bandwidth_end == pytest.approx(35 / 16)
    assert moving["electron_pt"] == ranges(loaded)["electron_pt"]
    assert moving["4j2b.edge_3"].bandwidth == pytest.approx(650 / 4)
    # Their steps are given, so they move in their own unit.
    assert all(isinstance(r.scale, OwnUnit) for r in moving.values())
    assert found.bandwidths["jet_pt"] == pytest.approx(35 / 4)
    assert found.with_bandwidths() is found
    assert [line[:50] for line in said.lines] == ["choosing the bandwidth of jet_pt, 4j2b.edge_0, 4j2"]


def test_without_any_converged_fit_there_is_no_best_step():
    loaded = config("agc")
    zeros = dict.fromkeys(ranges(loaded), jnp.zeros(()))
    here = Evaluation(loss=jnp.zeros(()), merit=MERIT, gradient=Gradient(value=zeros, error=zeros))
    steps = tuple(descend(lambda *_: here, ranges(loaded), starts(loaded), schedule(loaded)))
    with pytest.raises(InputError, match="no step of the optimisation had a converged fit"):
        Tuned(problem(loaded), steps)


MINIMUM = {"electron_pt": 44.0, "jet_pt": 41.0, "jet_btag": 0.7}


def bowl(thresholds):
    """A loss of the three cuts of the AGC, in units of their steps."""
    return sum(
        ((thresholds[name] - at) / r.step) ** 2 for (name, r), at in zip(STEPS.items(), MINIMUM.values(), strict=True)
    )


STEPS = ranges(load_config(ROOT / "configs" / "agc.yaml"))


@pytest.fixture
def known_loss(monkeypatch):
    """The bowl instead of events."""

    def evaluate(thresholds, _):
        value, slope = jax.value_and_grad(bowl)({name: thresholds[name] for name in MINIMUM})
        merit = replace(MERIT, converged=jnp.asarray(True), value=-value)
        errors = jax.tree.map(jnp.zeros_like, slope)
        return Evaluation(loss=value, merit=merit, gradient=Gradient(value=slope, error=errors))

    monkeypatch.setattr("pipeline.tuning.tune.evaluation", lambda _: evaluate)
    monkeypatch.setattr("pipeline.tuning.tune._loss_on", lambda *_: lambda thresholds: float(bowl(thresholds)))


def searched(**settings):
    return problem(config("agc", optimiser={"steps": 6, "starts": 2, **settings}))


@pytest.mark.usefixtures("known_loss")
def test_scouts_go_first_and_the_best_of_them_start():
    looks = []
    steps = list(tune(searched(scouts=20), watch=looks.append))
    assert [look.number for look in looks] == list(range(1, 22))
    assert {(look.stage, look.total) for look in looks} == {("scouts", 21)}
    best = sorted(looks, key=lambda look: look.loss)
    assert looks[0].thresholds == starts(config("agc"))[0]
    assert [steps[number].thresholds for number in (0, 6)] == [look.thresholds for look in best[:2]]


@pytest.mark.usefixtures("known_loss")
def test_without_scouts_nobody_looks():
    looks = []
    steps = list(tune(searched(), watch=looks.append))
    assert not looks
    assert [steps[number].thresholds for number in (0, 6)] == list(starts(searched().config))


@pytest.mark.usefixtures("known_loss")
def test_the_polish_is_one_more_step_at_the_best_place_of_its_looks():
    looks = []
    steps = list(tune(searched(polish=50), watch=looks.append))
    *descents, last = steps
    assert [step.number for step in steps] == list(range(13))
    assert searched(polish=50).config.optimiser.numbers == 13
    assert [look.stage for look in looks] == ["polish"] * 50
    assert looks[0].thresholds == descents[-1].best
    assert last.best_number == last.number
    assert last.loss == min(look.loss for look in looks) < descents[-1].best_loss
    assert last.gradient["jet_pt"] == pytest.approx(2 * (last.thresholds["jet_pt"] - 41.0) / STEPS["jet_pt"].step ** 2)


@pytest.mark.usefixtures("known_loss")
def test_an_interrupted_search_goes_on_bit_identically():
    asked = searched(polish=20, scouts=5)
    steps = list(tune(asked))
    for taken in (0, 5, 8, 11):
        again = list(tune(asked, resume=steps[taken]))
        assert [step.thresholds for step in again] == [step.thresholds for step in steps[taken + 1 :]]
        assert again[-1].best == steps[-1].best
    assert not list(tune(asked, resume=steps[-1]))


@pytest.mark.usefixtures("known_loss")
def test_ctrl_c_in_the_polish_keeps_its_best_look():
    looks, steps = [], []

    def impatient(look):
        looks.append(look)
        if look.number == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.extend(tune(searched(polish=50), watch=impatient))
    assert steps[-1].loss == steps[-1].best_loss == min(look.loss for look in looks) < steps[-2].best_loss
    assert not list(tune(searched(polish=50), resume=steps[-1]))


@pytest.mark.usefixtures("known_loss")
def test_a_start_of_ones_own():
    own = {"electron_pt": 50.0, "jet_pt": 50.0, "jet_btag": 0.5}
    assert next(tune(searched(), start=own)).thresholds == own


def test_the_polish_belongs_to_the_last_start():
    optimiser = searched(polish=20).config.optimiser
    assert [optimiser.start_of(number) for number in (0, 5, 6, 11, 12)] == [0, 0, 1, 1, 1]
