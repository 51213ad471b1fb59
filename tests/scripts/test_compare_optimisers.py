"""The comparison of optimisers: what is counted, that every method finds a known minimum, and what the table says."""

import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline.analysis import Gradient  # noqa: E402
from pipeline.command import guarded  # noqa: E402
from pipeline.config import ConfigError, load_config  # noqa: E402
from pipeline.inference.objectives import Merit  # noqa: E402
from pipeline.tuning.descent import Evaluation, descend  # noqa: E402
from pipeline.tuning.ranges import Ordered, Range  # noqa: E402
from pipeline.tuning.schedule import Schedule  # noqa: E402
from pipeline.tuning.tune import Look  # noqa: E402

import compare_optimisers  # noqa: E402
from baselines import contest, figures, gradients, methods, settings  # noqa: E402
from baselines.contest import DEFAULT, OURS, Contest, Point  # noqa: E402
from baselines.counting import BudgetSpent, Counted, Visit, best_of  # noqa: E402

RANGES = {
    "jet_pt": Range(lower=25.0, upper=65.0, step=1.0, bandwidth=2.0, bandwidth_end=1.0),
    "btag": Range(lower=0.0, upper=1.0, step=0.02, bandwidth=0.1, bandwidth_end=0.05),
}
MINIMUM = {"jet_pt": 37.0, "btag": 0.7}
SCHEDULE = Schedule("adam", {}, 1.0, 0.1, 30)


def bowl(thresholds):
    """Round in the unit cube, with its minimum of −2 inside."""
    parts = [(float(thresholds[n]) - MINIMUM[n]) / (r.upper - r.lower) for n, r in RANGES.items()]
    return sum(part**2 for part in parts) - 2.0, True


def counted(budget=200.0, loss=bowl, ordered=(), ranges=RANGES):
    ticks = iter(range(10**6))
    return Counted(loss, ranges, budget, ordered, clock=lambda: float(next(ticks)))


def test_places_of_the_unit_cube_are_thresholds_within_their_bounds():
    one = counted()
    assert one.thresholds_at(np.array([0.5, 0.25])) == {"jet_pt": 45.0, "btag": 0.25}
    assert one.thresholds_at(np.array([-1.0, 7.0])) == {"jet_pt": 25.0, "btag": 1.0}
    np.testing.assert_allclose(one.place_of(one.thresholds_at(np.array([0.3, 0.8]))), [0.3, 0.8])


def test_bin_edges_stay_in_order_wherever_a_method_looks():
    ranges = {name: Range(0.0, 10.0, 1.0, 1.0, 1.0) for name in ("low", "high")}
    one = counted(loss=lambda _: (0.0, True), ordered=[Ordered(("low", "high"), 2.0)], ranges=ranges)
    assert one.thresholds_at(np.array([0.9, 0.1])) == pytest.approx({"low": 4.0, "high": 6.0})


def test_the_budget_is_never_exceeded_and_everything_is_remembered():
    one = counted(budget=3.0)
    one(np.array([0.1, 0.1]))
    one.record(MINIMUM, -5.0, True, cost=1.5)
    with pytest.raises(BudgetSpent):
        one(np.array([0.2, 0.2]))
    assert [visit.evaluations for visit in one.visits] == [1.0, 2.5]
    assert one.visits[1].thresholds == MINIMUM


def test_a_fit_without_convergence_is_never_found_and_looks_as_bad_as_the_worst():
    one = counted(loss=lambda at: (at["btag"] - 9.0, at["btag"] < 0.5))
    good, bad = one(np.array([0.5, 0.4])), one(np.array([0.5, 0.9]))
    assert bad == good == pytest.approx(-8.6)
    assert one.visits[1].loss == np.inf
    assert best_of(one.visits).thresholds["btag"] == pytest.approx(0.4)


def test_the_best_by_then_counts_what_was_paid_by_then():
    visits = [Visit(float(n), 10.0 * n, loss, {}) for n, loss in enumerate([3.0, 2.0, 5.0, 1.0], start=1)]
    assert best_of(visits, evaluations=3).loss == 2.0
    assert best_of(visits, seconds=15).loss == 3.0
    assert best_of(visits).loss == 1.0
    assert best_of(visits, evaluations=0.5).loss == 3.0


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_finds_a_known_minimum_and_spends_its_budget(name):
    if methods.missing(name):
        pytest.skip(methods.missing(name))
    one = counted(budget=150)
    methods.search(methods.METHODS[name], one, np.array([0.9, 0.1]), seed=3)
    assert best_of(one.visits).loss < -2 + 0.02
    assert len(one.visits) == (144 if name == "scan" else 150)
    for visit in one.visits:
        assert all(r.lower <= visit.thresholds[n] <= r.upper for n, r in RANGES.items())


def test_a_method_repeats_with_its_seed():
    def places(seed):
        one = counted(budget=40)
        methods.search(methods.METHODS["differential evolution"], one, np.array([0.9, 0.1]), seed)
        return [visit.thresholds for visit in one.visits]

    assert places(1) == places(1)
    assert places(1) != places(2)


def test_many_thresholds_are_scanned_by_a_latin_hypercube():
    ranges = {str(n): Range(0.0, 1.0, 0.1, 0.1, 0.1) for n in range(5)}
    one = counted(budget=20, loss=lambda _: (0.0, True), ranges=ranges)
    methods.search(methods.scan, one, np.full(5, 0.5), seed=0)
    for name in ranges:
        assert {int(20 * visit.thresholds[name]) for visit in one.visits} == set(range(20))


def test_a_method_whose_package_is_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert methods.missing("CMA-ES") == "not installed (pip install '.[baselines]')"
    assert methods.missing("Powell") is None


def quadratic(thresholds, _):
    def loss(at):
        return sum(((at[n] - MINIMUM[n]) / (r.upper - r.lower)) ** 2 for n, r in RANGES.items()) - 2.0

    value, gradient = jax.value_and_grad(loss)(thresholds)
    merit = Merit(
        value=-value, converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.zeros((), jnp.int32)
    )
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    return Evaluation(loss=value, merit=merit, gradient=Gradient(value=gradient, error=zeros))


def test_both_gradients_go_the_same_way():
    """Central differences of a quadratic are exact, so the two loops visit the same places."""
    start = {"jet_pt": 50.0, "btag": 0.4}
    differences = counted(budget=5 * SCHEDULE.steps)
    steps = descend(quadratic, RANGES, [start], SCHEDULE)
    with pytest.raises(BudgetSpent):
        gradients.along_differences(differences, start, SCHEDULE, seed=0)
    assert len(differences.visits) == 5 * SCHEDULE.steps
    for step, visit in zip(steps, differences.visits[::5], strict=True):
        assert visit.thresholds == pytest.approx(step.thresholds, rel=1e-6)


def test_our_search_pays_for_its_looks_and_for_its_steps(monkeypatch):
    """One evaluation a look, some more a step; a look without a value is never found."""
    asked = []

    def tune(problem, watch, start):
        asked.append((problem, start))
        watch(Look("scouts", 1, 2, {"jet_pt": 30.0, "btag": 0.5}, np.inf))
        watch(Look("scouts", 2, 2, MINIMUM, -2.0))
        yield from descend(quadratic, RANGES, [start], SCHEDULE)

    monkeypatch.setattr(gradients, "tune", tune)
    one, start = counted(budget=np.inf), {"jet_pt": 50.0, "btag": 0.4}
    gradients.along_flux(one, "a problem", start, cost=3.0)
    assert asked == [("a problem", start)]
    assert one.spent == 2 + 3 * SCHEDULE.steps
    assert [visit.loss for visit in one.visits[:2]] == [np.inf, -2.0]
    assert one.visits[2].thresholds == start


def test_differences_stay_within_the_bounds():
    at = {"jet_pt": 25.0, "btag": 0.5}
    seen = []

    def loss(thresholds):
        seen.append(thresholds)
        return thresholds["jet_pt"] * 2 - thresholds["btag"]

    slopes = gradients.central_differences(loss, at, {"jet_pt": 1.0, "btag": 0.1}, RANGES)
    assert slopes == pytest.approx({"jet_pt": 2.0, "btag": -1.0})
    assert min(one["jet_pt"] for one in seen) == 25.0


def test_the_cosine_measures_each_threshold_in_its_step():
    one, other = {"jet_pt": 1.0, "btag": 50.0}, {"jet_pt": 1.0, "btag": 0.0}
    assert gradients.cosine(one, one, RANGES) == pytest.approx(1.0)
    assert gradients.cosine(one, other, RANGES) == pytest.approx(1 / np.sqrt(2))
    assert np.isnan(gradients.cosine(one, {"jet_pt": 0.0, "btag": 0.0}, RANGES))


def test_starts_differ_by_seed_and_stay_near_the_default_and_within_bounds():
    default = {"jet_pt": 30.0, "btag": 0.5}
    starts = [contest.start_near(default, RANGES, 0.2, seed) for seed in range(20)]
    assert len({tuple(start.values()) for start in starts}) == 20
    for start in starts:
        assert 25.0 <= start["jet_pt"] <= 38.0
        assert 0.3 <= start["btag"] <= 0.7
    assert contest.start_near(default, RANGES, 0.0, 1) == default


def test_a_price_is_measured_without_the_first_call(monkeypatch):
    """On a clock that the calls themselves move: the first one compiles, a later one is disturbed."""
    now = [0.0]
    monkeypatch.setattr(contest.time, "perf_counter", lambda: now[0])

    def lasting(*seconds):
        ahead = iter(seconds)
        return lambda: now.__setitem__(0, now[0] + next(ahead))

    assert contest.least_seconds(lasting(9, 4, 2), lasting(0, 1, 7), repeat=2) == [2, 1]


def point(training, lead=(0.0, 0.0)):
    return Point(training, {"btag": 0.5}, (1.0, 0.1), (0.2, 0.05), lead)


def small_contest(seed=1, larger=True, rival=1.9, lead=(-0.1, 0.1)):
    visits = [Visit(1.0, 0.1, -1.5, MINIMUM), Visit(2.0, 0.2, -1.4, MINIMUM), Visit(3.0, 0.3, -rival, MINIMUM)]
    values = {DEFAULT: 1.0, OURS: 2.0, "Powell": rival}
    leads = {DEFAULT: (-1.0, 0.1), OURS: (0.0, 0.0), "Powell": lead}
    rows = {name: dict.fromkeys(contest.STAGES, point(value, leads[name])) for name, value in values.items()}
    return Contest(seed, MINIMUM, 2.5, 0.01, larger, {OURS: visits, "Powell": visits}, rows)


def test_who_is_ahead_depends_on_what_is_better():
    assert contest.ahead(small_contest(), "factor") == {}
    assert contest.ahead(small_contest(rival=2.1), "factor") == pytest.approx({"Powell": 0.05})
    assert contest.ahead(small_contest(larger=False, rival=1.9), "time") == pytest.approx(
        {"Powell": 0.05, DEFAULT: 0.5}
    )


def test_the_verdict_counts_seeds_and_names_the_one_ahead():
    lines = compare_optimisers.verdicts([small_contest(), small_contest(2, rival=2.1)], 10.0)
    assert "1 of 2 seeds; the largest lead is 5.00 %, of Powell." in lines[1]
    assert "10 times as many" in lines[1]


def test_a_lead_on_validation_events_has_an_error():
    """A lead of less than twice its error is counted, but not called clear; smaller may be better."""
    doubtful = small_contest(lead=(0.3, 0.2))
    line = compare_optimisers.verdict_on_validation([small_contest(), doubtful], 10.0)
    assert line.endswith("nothing beats it in 1 of 2 seeds; 0 of 1 leads are larger than twice their errors.")
    line = compare_optimisers.verdict_on_validation([doubtful, small_contest(lead=(0.5, 0.2))], 10.0)
    assert "in 0 of 2 seeds; 1 of 2 leads are" in line
    assert line.endswith("the clearest is 0.50 ± 0.20, of Powell.")
    assert contest.ahead_on_validation(small_contest(larger=False), "factor") == {
        "Powell": (0.1, 0.1),
        DEFAULT: (1.0, 0.1),
    }


def test_traces_keep_what_improved_and_the_end():
    kept = compare_optimisers.improvements(small_contest(rival=1.3).visits[OURS])
    assert [(one["evaluations"], one["loss"]) for one in kept] == [(1.0, -1.5), (3.0, -1.5)]


def test_results_are_json_and_a_figure_with_a_line_for_each_method(tmp_path):
    config = load_config(REPOSITORY / "configs" / "single_top.yaml")
    contests = [small_contest(seed) for seed in (1, 2)]
    settings.write_json(tmp_path / "new" / "table.json", compare_optimisers.as_json(config, contests, 10.0))
    content = json.loads((tmp_path / "new" / "table.json").read_text())
    assert content["about"]["thresholds"] == ["electron_pt", "jet_pt", "jet_btag"]
    assert content["contests"][1]["points"]["Powell"]["factor"]["training"] == 1.9
    drawn = compare_optimisers.figure(config, contests)
    assert len(drawn.axes[0].get_lines()) == 3
    assert [text.get_text() for text in drawn.axes[2].get_yticklabels()] == [DEFAULT, "Powell", OURS]


def test_the_race_shows_the_best_so_far():
    trace = (np.array([1.0, 10.0, 100.0]), np.array([0.1, 1.0, 10.0]), np.array([1.0, 2.0, 3.0]))
    drawn = figures.race({"one": [trace]}, {"one": [(2.5, 0.1)]}, 10.0, "Z", "Simulated", (0.0, 4.0))
    x, y = drawn.axes[0].get_lines()[0].get_data()
    assert y[0] == 1.0
    assert y[-1] == 3.0
    assert y[np.searchsorted(x, 10.0, side="right")] == 2.0


def options(*arguments):
    parser = settings.experiment_parser("what", str(REPOSITORY / "configs" / "agc.yaml"))
    return parser.parse_args(arguments)


def test_trainable_cuts_are_chosen_on_the_command_line():
    config = settings.configured(options("--thresholds", "jet_eta", "--set", "cuts.jet_eta.threshold=2.2"))
    assert [name for name, one in config.thresholds.items() if one.trainable] == ["jet_eta"]
    assert config.cuts["jet_eta"].threshold == 2.2
    untouched = settings.configured(options())
    assert [name for name, one in untouched.cuts.items() if one.trainable] == ["electron_pt", "jet_pt", "jet_btag"]


def test_a_cut_that_does_not_exist_is_one_sentence(capsys):
    with pytest.raises(ConfigError, match=r"--thresholds jet_pr: there is no such cut; there are: electron_pt, "):
        settings.configured(options("--thresholds", "jet_pr"))
    assert guarded(lambda: settings.configured(options("--thresholds", "jet_pr"))) == 1
    assert capsys.readouterr().err.count("\n") == 1
