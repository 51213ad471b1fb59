"""The experiments on gradients, bandwidths and thin samples: parts of the events, claims, and what figures show."""

import json
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline import Network  # noqa: E402
from pipeline.config import load_config  # noqa: E402
from pipeline.events.split import lots  # noqa: E402
from pipeline.ingest.manifest import load_manifest  # noqa: E402
from pipeline.ingest.samples import Sample  # noqa: E402
from pipeline.tuning.descent import bandwidths_at  # noqa: E402
from pipeline.tuning.ranges import Range  # noqa: E402

import compare_bandwidths  # noqa: E402
import gradient_quality  # noqa: E402
import learned_gradient  # noqa: E402
import monte_carlo_hole  # noqa: E402
from baselines import figures, independent, settings  # noqa: E402
from monte_carlo_hole import Claim  # noqa: E402
from test_networks import problem_of  # noqa: E402

CONFIG = load_config(REPOSITORY / "configs" / "agc_precision.yaml")


def sample(numbers):
    dataset = load_manifest(CONFIG.data.manifest).dataset("simulated", "wjets", "nominal")
    return Sample(dataset, ak.Array({"event": np.asarray(numbers, np.uint64)}), len(numbers))


def test_lots_are_uniform_and_the_same_for_all_events_of_a_collision():
    drawn = lots(1, np.arange(20_000, dtype=np.uint64))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert len(set(lots(1, np.full(3, 7, np.uint64)))) == 1


def test_another_seed_draws_other_lots():
    one, other = (lots(seed, np.arange(20_000, dtype=np.uint64)) for seed in (1, 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(20_000)


def test_too_many_parts_are_one_sentence():
    with pytest.raises(ValueError, match="7 samples of 400 events need more than the 2000 there are"):
        independent.divide_by_lot(CONFIG, [sample(np.arange(2000))], events=400, alike=6)


def test_a_rule_changes_nothing_but_the_rule():
    analysis = independent.with_rule(CONFIG, 3.0, datasets=9)
    assert analysis.measurement.minimum_effective_events == 3.0
    assert analysis.selection == independent.with_rule(CONFIG, 0.0, datasets=9).selection
    assert CONFIG.measurement.minimum_effective_events == 10.0


def claim(claimed=5.0, alike=4.0, change=0.2, rule=0.0, seed=1, larger=True):
    return Claim(seed, rule, "powell", {"jet_pt": 30.0}, (claimed, 0.3), (alike, 0.4), 4.0, 4.2, (change, 0.1), larger)


def test_a_claim_is_too_good_when_it_exceeds_samples_alike():
    assert claim().pull == pytest.approx(2.0)
    assert claim(claimed=3.0).pull == pytest.approx(-2.0)
    # A small uncertainty is the bold claim.
    assert claim(claimed=3.0, larger=False).pull == pytest.approx(2.0)


def test_what_is_not_worse_depends_on_what_is_better():
    assert claim(change=0.0).gains
    assert not claim(change=-0.1).gains
    assert claim(change=-0.1, larger=False).gains


def test_the_table_counts_seeds_that_hold():
    claims = [claim(), claim(claimed=9.0, change=-0.2, seed=2)]
    assert monte_carlo_hole.cells(claims)[2:4] == ["+10.0 errors", "1 of 2"]
    assert monte_carlo_hole.cells(claims)[-1] == "1 of 2"
    assert monte_carlo_hole.table(CONFIG, 1000, [*claims, claim(rule=10.0)]).row_count == 2


def test_claims_are_json_and_a_figure(tmp_path):
    claims = [claim(), claim(rule=10.0)]
    settings.write_json(tmp_path / "hole.json", monte_carlo_hole.as_json(CONFIG, 1000, claims))
    assert json.loads((tmp_path / "hole.json").read_text())["claims"][0]["pull"] == pytest.approx(2.0)
    drawn = monte_carlo_hole.figure(CONFIG, claims)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["powell, no rule", "powell, 10 events a bin"]


def test_no_bandwidth_is_left_for_the_events_to_choose_all():
    config = load_config(REPOSITORY / "configs" / "every_threshold.yaml")
    assert all(one.bandwidth for one in config.thresholds.values() if one.trainable)
    bare = settings.without_bandwidths(config)
    assert not any(one.bandwidth or one.bandwidth_end for one in bare.thresholds.values())


def test_scaled_bandwidths_change_nothing_else():
    allowed = {"jet_pt": Range(25.0, 60.0, 1.0, 3.0, 1.5)}
    scaled = compare_bandwidths.scaled(allowed, 10.0)
    for progress in (0.0, 0.5, 1.0):
        assert bandwidths_at(progress, scaled)["jet_pt"] == pytest.approx(
            10 * bandwidths_at(progress, allowed)["jet_pt"]
        )
    assert (scaled["jet_pt"].lower, scaled["jet_pt"].upper, scaled["jet_pt"].step) == (25.0, 60.0, 1.0)


def test_trajectories_show_both_parts_of_the_events_and_every_threshold():
    run = compare_bandwidths.Trajectory(1.0, [3.0, 4.0], [3.5, 3.6], {"jet_pt": [30.0, 31.0]}, kept=1)
    drawn = compare_bandwidths.figure(CONFIG, {"automatic": run, "too wide": run})
    top, below = drawn.axes
    assert len(top.get_lines()) == 4
    assert len(below.get_lines()) == 2
    assert compare_bandwidths.table(CONFIG, {"automatic": run}).row_count == 1


def test_the_cosine_figure_names_its_medians():
    steps = [
        gradient_quality.Compared(n, {"jet_pt": 30.0}, {"jet_pt": 1.0}, {"jet_pt": 1.1}, {"jet_pt": 0.9}, angle, -angle)
        for n, angle in enumerate((0.5, 1.0, 0.9))
    ]
    top, below = gradient_quality.figure(CONFIG, steps).axes
    assert ["median 0.900" in text.get_text() for text in top.get_legend().get_texts()] == [True, False]
    assert top.get_ylim()[0] < -1
    assert len(below.get_lines()) == 3
    assert gradient_quality.table(CONFIG, steps).row_count == 2


def test_claims_stand_beside_a_diagonal_and_tuned_cuts_beside_the_default_ones():
    drawn = figures.claimed_and_true({"one": [((5.0, 0.1), (4.0, 0.2), 3.0, 3.5)]}, "Z", "Simulated")
    left, right = drawn.axes
    x, y = left.get_lines()[-1].get_data()
    assert list(x) == list(y)
    assert x[0] < 4.0 < 5.0 < x[1]
    assert [list(line.get_ydata()) for line in right.get_lines()] == [[3.0], [3.5]]


@pytest.mark.slow
def test_the_gradient_of_a_network_is_the_exact_difference_along_any_direction():
    """The same events, once by their flux and once analysed again; then different ones, within their errors."""
    untrained = Network("score", ["x", "y", "z"], layers=[8])
    flux, differences = learned_gradient.along_directions(problem_of(networks=[untrained]), 8)
    assert np.corrcoef(flux.sum(axis=0), differences.sum(axis=0))[0, 1] > 0.85
    pulls = learned_gradient.pulls_of(flux, differences)
    assert np.abs(pulls).max() < 4.5
    assert 0.3 < np.sqrt(np.mean(pulls**2)) < 2
