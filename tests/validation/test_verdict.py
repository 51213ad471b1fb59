"""The last word: what was gained, and everything that speaks against believing it."""

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline.config import load_config
from pipeline.validation.comparison import Comparison, Estimate
from pipeline.validation.crosscheck import PyhfResult
from pipeline.validation.verdict import verdict

from analysis_data import ROOT
from outcomes import outcome_of

CONFIG = load_config(ROOT / "configs" / "agc.yaml")
UNCERTAINTY = load_config(ROOT / "configs" / "agc_precision.yaml")
GAIN = Comparison(Estimate(5.0, 1.0), Estimate(8.0, 1.0), Estimate(3.0, 1.0), True)


@pytest.mark.parametrize(
    ("change", "config", "words", "tone"),
    [
        (Estimate(3.0, 1.0), CONFIG, ["improves from 5.0 to 8.0", "3.0 bootstrap errors", ", significant."], "good"),
        (Estimate(3.0, 2.0), CONFIG, ["improves", "1.5 bootstrap errors", "not significant"], "open"),
        (Estimate(3.0, 1.0), UNCERTAINTY, ["No gain", "5.0 to 8.0", "+3.0 ± 1.0"], "bad"),
        (Estimate(0.0, 0.0), CONFIG, ["No gain"], "bad"),
    ],
)
def test_the_last_word(change, config, words, tone) -> None:
    found = verdict(outcome_of(config, replace(GAIN, change=change), {"jet_pt": 31.0}))
    assert all(word in found.sentence for word in words)
    assert ("improves" in found.sentence) != ("No gain" in found.sentence)
    assert found.tone == tone
    assert found.doubts == found.hints == ()


@pytest.mark.parametrize("side", ["before", "after"])
def test_infinity_is_no_figure_of_merit(side) -> None:
    """Where all bins are merged away, an uncertainty is infinite before and after: that is no improvement."""
    infinite = replace(
        GAIN, **{side: Estimate(float("inf"), float("nan"))}, change=Estimate(float("nan"), float("nan"))
    )
    found = verdict(outcome_of(UNCERTAINTY, infinite, {"jet_pt": 31.0}))
    assert found.tone == "bad"
    assert "No verdict" in found.sentence
    assert "improves" not in found.sentence


def doubtful(words: str, **changes) -> None:
    """A gain of three errors that is not to be believed, and why."""
    comparison, config = changes.pop("comparison", GAIN), changes.pop("config", CONFIG)
    found = verdict(outcome_of(config, comparison, {"jet_pt": 31.0}, **changes))
    assert found.tone == "open"
    assert "3.0 bootstrap errors, not to be believed yet" in found.sentence
    assert any(words in doubt for doubt in found.doubts)


def test_a_fit_that_did_not_converge() -> None:
    doubtful("A fit did not converge", comparison=replace(GAIN, converged=False))


def test_a_fit_that_pyhf_could_not_do() -> None:
    doubtful("pyhf has no result at the optimised cuts (neither", pyhf=PyhfResult(None, None, "neither converged"))


def test_a_fit_that_pyhf_does_otherwise() -> None:
    doubtful("pyhf finds Z 7 at the optimised cuts, we 8: one fit is wrong", pyhf=PyhfResult(7.0, 1.0))


def test_pyhf_may_differ_by_the_precision_of_its_minimiser() -> None:
    close = outcome_of(CONFIG, replace(GAIN, before=Estimate(8.0, 1.0)), {}, pyhf=PyhfResult(8.02, 1.0))
    assert verdict(close).doubts == ()


def test_too_few_replicas() -> None:
    few = load_config(ROOT / "configs" / "agc.yaml", {"validation": {"bootstrap": 3}})
    doubtful("3 bootstrap replicas tell an error to 50 % only", config=few)


@pytest.mark.parametrize(("at", "pull", "moving"), [(31.0, 5.0, True), (31.0, 1.5, False), (25.0, 5.0, False)])
def test_a_derivative_that_is_significant_and_leads_somewhere_is_told(at, pull, moving) -> None:
    """The loss falls towards lower thresholds: at the lower bound there is nowhere to go."""
    found = verdict(outcome_of(CONFIG, GAIN, {"jet_pt": at}, pulls={"jet_pt": pull}))
    assert any("Not at the optimum yet: the derivative by jet_pt" in hint for hint in found.hints) == moving
    assert found.tone == "good"


def test_an_optimisation_that_was_stopped_is_told() -> None:
    outcome = outcome_of(CONFIG, GAIN, {"jet_pt": 31.0}, complete=False)
    assert verdict(outcome).hints == ("The optimisation was stopped.",)
    in_a_folder = replace(outcome, path=Path("run"))
    assert verdict(in_a_folder).hints == ("The optimisation was stopped; --resume --overwrite goes on with it.",)
