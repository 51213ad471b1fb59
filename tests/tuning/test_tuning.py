"""What a config says of the loop: where it starts, and how wide the kernels are."""

import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Gradient
from pipeline.config import load_config
from pipeline.problem import Problem
from pipeline.report.terminal import Terminal
from pipeline.tuning import tune as tuning
from pipeline.tuning.tune import ordered, ranges, schedule, starts, with_bandwidths

from analysis_data import ROOT
from small_analysis import small_analysis, small_data


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
    assert with_bandwidths(given, Terminal(given.config, quiet=True)) is given


def test_missing_bandwidths_are_chosen_and_then_narrowed(monkeypatch, capsys):
    """Without bias the widest kernel is taken: a quarter of the range. Others stay as they are given."""
    missing = {"bandwidth": None, "bandwidth_end": None}
    loaded = config(cuts={"jet_pt": missing}, regions={"4j2b": {"bins": missing}})

    def unbiased(_):
        def evaluate(_, widths):
            ones = {name: jnp.ones(()) for name in widths}
            return None, Gradient(value=ones, error=ones)

        return evaluate

    monkeypatch.setattr(tuning, "_exact_evaluation", unbiased)
    found = with_bandwidths(problem(loaded), Terminal(loaded, quiet=False)).config
    assert found.cuts["jet_pt"].bandwidth == pytest.approx(35 / 4)
    assert found.cuts["jet_pt"].bandwidth_end == pytest.approx(35 / 16)
    assert found.cuts["electron_pt"] == loaded.cuts["electron_pt"]
    assert found.regions["4j2b"].bins.bandwidth == pytest.approx(650 / 4)
    assert found.regions["4j1b"] == loaded.regions["4j1b"]
    assert set(ranges(found)) == {name for name, one in loaded.thresholds.items() if one.trainable}
    assert "choosing the bandwidth of jet_pt, 4j2b.edge_0" in capsys.readouterr().out
