"""What the gain loses without one of the cuts: against the merit itself, and what is known of the toys."""

import numpy as np
import pipeline as pl
import pytest
from pipeline.validation.importance import importance

EVENTS = 8_000
SIGNAL, BACKGROUND = 40.0, 400.0


def events(signal: bool) -> dict[str, np.ndarray]:
    """`good` tells signal from background, `noise` does not."""
    generator = np.random.default_rng(int(signal))
    return {
        "good": generator.normal(1.0 if signal else -1.0, 1, EVENTS),
        "noise": generator.normal(0, 1, EVENTS),
        "mass": generator.uniform(0, 1, EVENTS),
        "weight": np.full(EVENTS, (SIGNAL if signal else BACKGROUND) / EVENTS),
    }


@pytest.fixture(scope="module")
def problem():
    return pl.Problem.from_arrays(
        {"signal": events(True), "background": events(False)},
        cuts=[pl.Cut(name, above=-2.0, bounds=(-3, 3), bandwidth=0.5) for name in ("good", "noise")],
        regions=[pl.Region("SR", observable="mass", bins=[0, 0.5, 1], bounds=(0, 1))],
        signal="signal",
    )


@pytest.mark.slow
def test_a_cut_that_does_nothing_costs_nothing_and_one_that_does_all_costs_all(problem):
    after = {**problem.defaults, "good": 0.5, "noise": -1.0}
    lost = importance(problem, after, seed=0)
    assert set(lost) == {"good", "noise"}

    def value(**moved: float) -> float:
        return float(problem.value_and_grad({**after, **moved}, part="validation").merit.value)

    for name, estimate in lost.items():
        assert estimate.value == pytest.approx(value() - value(**{name: problem.defaults[name]}), rel=1e-9)
        assert estimate.error > 0
    assert lost["good"].pull > 5
    # It throws away signal and background alike.
    assert lost["noise"].value < 0


def test_edges_go_back_together_and_what_did_not_move_is_left_out(problem):
    after = {**problem.defaults, "SR.edge_1": 0.7}
    assert set(importance(problem, after, seed=0)) == {"SR"}
    assert importance(problem, problem.defaults, seed=0) == {}
