"""The last stage of a search, on losses whose minimum is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.tuning.polish import polished
from pipeline.tuning.ranges import Ordered, Range

RANGES = {
    "jet_pt": Range(lower=25.0, upper=60.0, step=1.0, bandwidth=3.0, bandwidth_end=1.0),
    "btag": Range(lower=0.2, upper=0.95, step=0.02, bandwidth=0.05, bandwidth_end=0.05),
}
START = {"jet_pt": 30.0, "btag": 0.5}


class Bowl:
    """Σ ((x − minimum) / step)², which remembers where it was asked for."""

    def __init__(self, **minimum: float) -> None:
        self.minimum, self.seen = minimum, []

    def __call__(self, thresholds: dict[str, float]) -> float:
        self.seen.append(thresholds)
        return sum(((thresholds[name] - at) / RANGES[name].step) ** 2 for name, at in self.minimum.items())


def test_it_finds_the_minimum_in_each_thresholds_own_unit():
    bowl = Bowl(jet_pt=33.0, btag=0.55)
    assert polished(bowl, START, RANGES, (), 40) == pytest.approx(bowl.minimum, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.floats(10, 80), st.floats(0, 1.2))
def test_it_stays_within_bounds_and_budget_and_is_never_worse_than_the_start(evaluations, jet_pt, btag):
    bowl = Bowl(jet_pt=jet_pt, btag=btag)
    best = polished(bowl, START, RANGES, (), evaluations)
    assert len(bowl.seen) == evaluations
    assert all(r.lower <= at[name] <= r.upper for at in bowl.seen for name, r in RANGES.items())
    assert bowl(best) == min(bowl(at) for at in bowl.seen[:evaluations]) <= bowl(START)


def test_edges_keep_their_order():
    names = ("low", "high")
    ranges = dict.fromkeys(names, Range(lower=0.0, upper=10.0, step=1.0, bandwidth=1.0, bandwidth_end=1.0))
    seen = []

    def crossed(at):
        seen.append(at["high"] - at["low"])
        return (at["low"] - 6) ** 2 + (at["high"] - 4) ** 2

    best = polished(crossed, {"low": 2.0, "high": 8.0}, ranges, [Ordered(names, 1.0)], 60)
    assert min(seen) >= 1 - 1e-12
    assert [best[name] for name in names] == pytest.approx([4.5, 5.5], abs=0.1)


def test_it_sees_the_steps_that_no_kernel_sees():
    """A bowl in plateaus of half a step, and a hole of one plateau beside its middle."""

    def steps(at):
        place = round(2 * (at["jet_pt"] - 32.0)) / 2
        return place**2 - (5.0 if place == 1.0 else 0.0)

    best = polished(steps, {"jet_pt": 32.0}, {"jet_pt": RANGES["jet_pt"]}, (), 30)
    assert steps(best) == -4.0


def test_no_value_is_as_bad_as_the_worst():
    """Fits beyond 31 GeV do not converge; the minimum is at 34."""
    bowl = Bowl(jet_pt=34.0, btag=0.55)
    best = polished(lambda at: bowl(at) if at["jet_pt"] < 31 else np.inf, START, RANGES, (), 80)
    assert 30.5 < best["jet_pt"] < 31
    assert best["btag"] == pytest.approx(0.55, abs=0.01)


def test_without_any_value_it_stays():
    assert polished(lambda _: np.inf, START, RANGES, (), 20) == START
