"""The last word of a run, in plain language: what was gained, is it significant, and what speaks against believing it.

A gain counts for nothing where a fit did not converge, where pyhf does not confirm the likelihood, or where the error
of the gain is itself hardly known. Whether the optimum is reached is another question: a gain may be real and more be
left.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.validation.outcome import Outcome

__all__ = ["Verdict", "verdict"]

SIGNIFICANT = 2.0
"""In errors."""

AGREEMENT = 0.01
"""Largest relative difference to pyhf, whose minimisers leave up to a few per mille."""

LEAST_REPLICAS = 10
"""The error of a bootstrap error is 1 / √(2 (n − 1)) of it: a quarter for ten replicas, a half for three."""


@dataclass(frozen=True)
class Verdict:
    """What is said of a run.

    Attributes:
        sentence: what was gained.
        tone: a gain beyond doubt, a gain that may be none, or no gain.
        doubts: why the gain cannot be believed yet; none in the best case.
        hints: what might give more.
    """

    sentence: str
    tone: Literal["good", "open", "bad"]
    doubts: tuple[str, ...]
    hints: tuple[str, ...]

    def __str__(self) -> str:
        """All of it."""
        return " ".join((self.sentence, *self.doubts, *self.hints))


def verdict(outcome: Outcome) -> Verdict:
    """The verdict on what the run claims."""
    doubts, hints = tuple(_doubts(outcome)), tuple(_hints(outcome))
    change, gain = outcome.claim.change, outcome.gain
    before, after = (str(estimate).partition(" ±")[0] for estimate in (outcome.claim.before, outcome.claim.after))
    where, symbol = "on events the optimiser has not seen", outcome.symbol
    if not (math.isfinite(outcome.claim.before.value) and math.isfinite(outcome.claim.after.value)):
        sentence = f"No verdict: {symbol} is {before} at the default and {after} at the optimised cuts {where}."
        return Verdict(sentence, "bad", doubts, hints)
    if change.value == 0:
        sentence = f"No gain: no step was better than the default cuts, {symbol} {before} {where}."
        return Verdict(sentence, "bad", doubts, hints)
    if gain.value < 0:
        sentence = f"No gain {where}: {symbol} goes from {before} to {after}, a change of {change:+}."
        return Verdict(sentence, "bad", doubts, hints)
    significant = gain.pull >= SIGNIFICANT
    strength = "not significant" if not significant else "significant" if not doubts else "not to be believed yet"
    sentence = (
        f"{symbol} improves from {before} to {after} {where}: the change of {change:+} is {gain.pull:.1f} bootstrap "
        f"errors, {strength}."
    )
    return Verdict(sentence, "good" if significant and not doubts else "open", doubts, hints)


def _doubts(outcome: Outcome) -> Iterator[str]:
    if not all(comparison.converged for comparison in outcome.comparisons.values()):
        yield "A fit did not converge: its figure of merit must not be used."
    yield from _objections_of_pyhf(outcome)
    stored = [name for name, each in outcome.config.observables.items() if each.network.file is not None]
    if stored:
        yield (
            f"The network of {', '.join(stored)} comes from a file: if it was trained on some of these events, it has "
            "seen them."
        )
    replicas = outcome.config.validation.bootstrap
    if replicas < LEAST_REPLICAS:
        yield (
            f"{replicas} bootstrap replicas tell an error to {100 / math.sqrt(2 * (replicas - 1)):.0f} % only; "
            f"set validation.bootstrap to {LEAST_REPLICAS} at least."
        )


def _objections_of_pyhf(outcome: Outcome) -> Iterator[str]:
    """Where it finds no result, or another one than we do, if it knows the figure of merit."""
    known = {"Z": "significance", "σ(μ)": "uncertainty"}.get(outcome.symbol)
    for name, check in outcome.pyhf.items():
        ours, cuts = float(outcome.merits[name].value), "default" if name == "before" else "optimised"
        theirs = getattr(check, known) if known else check.significance
        if theirs is None or not math.isfinite(theirs):
            yield f"pyhf has no result at the {cuts} cuts ({check.failure or 'its fit gave no number'})."
        elif known and not math.isclose(theirs, ours, rel_tol=AGREEMENT):
            yield f"pyhf finds {outcome.symbol} {theirs:.4g} at the {cuts} cuts, we {ours:.4g}: one fit is wrong."


def _hints(outcome: Outcome) -> Iterator[str]:
    if not outcome.complete:
        # From Python there is no folder yet, and nothing to resume.
        goes_on = "" if outcome.path is None else "; --resume --overwrite goes on with it"
        yield f"The optimisation was stopped{goes_on}."
        return
    moving = [name for name in outcome.config.thresholds if _would_move(outcome, name)]
    if moving:
        yield f"Not at the optimum yet: the derivative by {', '.join(moving)} is still significant. More steps help."


def _would_move(outcome: Outcome, name: str) -> bool:
    """Whether the derivative at the kept step is significant and does not point out of the bounds."""
    step, cut = outcome.best_step, outcome.config.thresholds[name]
    if name not in step.gradient or not step.error[name] > 0:
        return False
    pull = step.gradient[name] / step.error[name]
    # The loss falls against its derivative.
    outwards = "lower" if pull > 0 else "upper"
    least = max(SIGNIFICANT, outcome.config.optimiser.significance)
    return abs(pull) >= least and cut.at_bound(step.thresholds[name]) != outwards
