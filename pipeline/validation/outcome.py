"""The outcome of a run: what the tuned cuts are worth on events they have not seen, and what pyhf says of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline import analysis as exact
from pipeline.config import Config
from pipeline.event_data import Data, Stream
from pipeline.events.binning import placed_edges
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.scores import Score, number_of_weights
from pipeline.inference.histfactory.constraints import auxdata
from pipeline.inference.histfactory.to_pyhf import to_pyhf
from pipeline.inference.objectives import Merit
from pipeline.inference.significance import signal_strength_uncertainty
from pipeline.ingest.samples import Sample
from pipeline.networks import about_network
from pipeline.problem import Problem
from pipeline.progress import SILENT, Progress
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import Tuned
from pipeline.validation.comparison import Comparison, Estimate, compare, cross_validate
from pipeline.validation.crosscheck import PyhfResult, cross_checks
from pipeline.validation.importance import importance
from pipeline.validation.provenance import environment, provenance, sha256
from pipeline.validation.regions import merged_into
from pipeline.validation.varied import about_variations
from pipeline.validation.working_points import WorkingPoints, working_points

__all__ = ["SYMBOLS", "Outcome", "judge", "workspace"]

SYMBOLS = {
    "discovery_significance": "Z",
    "signal_strength_uncertainty": "σ(μ)",
    "expected_upper_limit": "limit on μ",
    "counting_significance": "Z by counting",
}
"""Of the figures of merit."""


@dataclass(frozen=True)
class Outcome:
    """What a run leads to. With folds, everything is of the first one, where nothing else is said.

    Attributes:
        config: of the run, with its bandwidths.
        larger_is_better: of the figure of merit.
        before: all parameters where they start: thresholds, and networks by the names of their scores.
        after: all parameters at the best step.
        folds: those that each fold led to.
        history: every step.
        complete: whether these are all steps, of all folds.
        comparisons: before and after on `training` and on `validation` events; with folds, an entry `cross-validation`
            over all of them.
        workspaces: of pyhf, `before` and `after`, of the validation events.
        pyhf: what it makes of them.
        merits: what we make of them.
        importance: what the gain on validation events loses if one cut stays at its default.
        measured: the signal strengths that fits to the pseudo-data find, where the config asks for such data.
        merged_bins: how many bins are not bins of their own in the likelihood, `before` and `after`.
        samples: what was read.
        left_out: objects of each collection that the analysis does not see (`pipeline.problem.Problem`).
        shared_events: of pairs of regions, at the tuned thresholds; they count in the first of the two.
        seconds: of each phase.
        scores: the learned observables.
        edges: of the bins of each region, at the best step.
        working_points: what changes with the sizes of uncertainties and the luminosity, where the config asks for it.
        variations: what was done about the noise of varied templates, and how well they are known, at the tuned cuts.
        path: of the run folder, if there is one.
    """

    config: Config
    larger_is_better: bool
    before: dict[str, Any]
    after: dict[str, Any]
    folds: tuple[dict[str, Any], ...]
    history: tuple[Step, ...]
    complete: bool
    comparisons: dict[str, Comparison]
    workspaces: dict[str, dict[str, Any]]
    pyhf: dict[str, PyhfResult]
    merits: dict[str, Merit]
    importance: dict[str, Estimate]
    measured: dict[str, Estimate]
    merged_bins: dict[str, int]
    samples: tuple[Sample, ...]
    left_out: dict[str, int]
    shared_events: dict[str, int]
    seconds: dict[str, float]
    scores: tuple[Score, ...] = ()
    edges: dict[str, list[float]] = field(default_factory=dict)
    working_points: WorkingPoints | None = None
    variations: dict[str, Any] | None = None
    path: Path | None = None

    @property
    def symbol(self) -> str:
        """Of the figure of merit."""
        return SYMBOLS[self.config.objective.name]

    @property
    def thresholds(self) -> dict[str, float]:
        """What the run recommends."""
        return self._numbers(self.after)

    @property
    def thresholds_of_folds(self) -> list[dict[str, float]]:
        """What each fold has led to; nothing without folds."""
        return [self._numbers(cuts) for cuts in self.folds] if len(self.folds) > 1 else []

    @property
    def claim(self) -> Comparison:
        """What the run claims to have gained: on events that no thresholds were tuned on."""
        return self.comparisons.get("cross-validation", self.comparisons["validation"])

    @property
    def gain(self) -> Estimate:
        """How much better the figure of merit is on these events, with its error; negative if it is worse."""
        change = self.claim.change
        return change if self.larger_is_better else Estimate(-change.value, change.error)

    @property
    def workspace(self) -> dict[str, Any]:
        """Of pyhf, at the tuned cuts."""
        return self.workspaces["after"]

    @property
    def simulated(self) -> bool:
        """Whether all events are."""
        return all(sample.dataset.source.simulated for sample in self.samples)

    @property
    def origin(self) -> str:
        """Where the events come from."""
        return ", ".join(dict.fromkeys(sample.dataset.source.label for sample in self.samples))

    @property
    def best_step(self) -> Step:
        """The step of which the thresholds are kept."""
        return next(step for step in self.history if step.number == self.history[-1].best_number)

    @property
    def trained(self) -> dict[str, int]:
        """How many weights each trained network has."""
        trained = {name for name, each in self.config.observables.items() if each.trainable}
        return {name: number_of_weights(self.after[name]) for name in self.config.observables if name in trained}

    def networks(self) -> dict[str, dict[str, Any]]:
        """Of each learned observable: what it is told, its bins, and how clear its last gradient was."""
        return {
            score.name: {
                **about_network(score, self.config.observables[score.name]),
                "weights": number_of_weights(self.after[score.name]),
                "edges": {
                    name: self.edges[name]
                    for name, region in self.config.regions.items()
                    if region.observable == score.name
                },
                "gradient": dict(
                    zip(("length", "noise"), self.best_step.network_gradient.get(score.name, (0.0, 0.0)), strict=True)
                ),
            }
            for score in self.scores
        }

    def gradient(self, name: str) -> dict[str, float] | None:
        """The derivative of the loss at the best step, and its largest significance on the way; None if fixed."""
        step = self.best_step
        if name not in step.gradient:
            return None
        return {"value": step.gradient[name], "error": step.error[name], "largest_pull": self.largest_pull(name)}

    def largest_pull(self, name: str) -> float:
        """How many errors the derivative was away from zero at most; 0 for a threshold that nothing depends on."""
        pulls = [abs(step.gradient[name]) / step.error[name] for step in self.history if step.error[name] > 0]
        return max(pulls, default=0.0)

    def as_json(self) -> dict[str, Any]:
        """The content of result.json. Everything but `seconds` and `environment` repeats bit by bit."""
        config = self.config
        return {
            "name": config.name,
            "simulated": self.simulated,
            "origin": self.origin,
            "objective": config.objective.name,
            "larger_is_better": self.larger_is_better,
            "thresholds": self._thresholds(),
            "observables": self.networks(),
            "compared": {
                part: {
                    "before": asdict(comparison.before),
                    "after": asdict(comparison.after),
                    "change": asdict(comparison.change) | {"pull": comparison.change.pull},
                    "converged": comparison.converged,
                }
                for part, comparison in self.comparisons.items()
            },
            "pyhf": {
                name: {
                    "discovery_significance": check.significance,
                    "twice_nll_without_signal": check.twice_nll,
                    "signal_strength_uncertainty": check.uncertainty,
                }
                for name, check in self.pyhf.items()
            },
            "fit": {
                name: {
                    "value": float(merit.value),
                    "converged": bool(merit.converged),
                    "gradient_norm": float(merit.gradient_norm),
                    "iterations": int(merit.iterations),
                }
                for name, merit in self.merits.items()
            },
            "importance": {name: asdict(estimate) for name, estimate in self.importance.items()},
            "working_points": None if self.working_points is None else asdict(self.working_points),
            "variations": self.variations,
            "pseudodata": {name: asdict(estimate) for name, estimate in self.measured.items()},
            "folds": self.thresholds_of_folds,
            "steps": len(self.history),
            "complete": self.complete,
            "seed": config.seed,
            "significance_of_gradients": config.optimiser.significance,
            "merged_bins": {
                **self.merged_bins,
                "minimum_effective_events": config.measurement.minimum_effective_events,
                "minimum_background": config.measurement.minimum_background,
            },
            "objects_left_out": self.left_out,
            "events_in_two_regions": self.shared_events,
            "config_sha256": sha256(config.model_dump(mode="json")),
            "data": {sample.dataset.key: provenance(sample) for sample in self.samples},
            "seconds": self.seconds,
            "environment": environment(),
        }

    def _numbers(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        return {name: parameters[name] for name in self.config.thresholds}

    def _thresholds(self) -> dict[str, Any]:
        return {
            name: {
                "before": self.before[name],
                "after": self.after[name],
                "unit": cut.unit,
                "trainable": cut.trainable,
                "at_bound": cut.at_bound(self.after[name]),
                "gradient": self.gradient(name),
            }
            for name, cut in self.config.thresholds.items()
        }


def judge(tuned: Sequence[Tuned], progress: Progress = SILENT, seconds: Mapping[str, float] | None = None) -> Outcome:
    """What the optimisation has gained, on events it has seen and on others, and what pyhf says.

    Args:
        tuned: of each fold, or of the first ones where Ctrl-C has come before the others; one without folds.
        progress: hears of each phase.
        seconds: that went before, by phase.
    """
    first = tuned[0]
    problem, config = first.problem, first.problem.config
    folds = tuple(fold.best for fold in tuned)
    stages = {"before": problem.defaults, "after": folds[0]}
    progress.say("pyhf's check, validation and bootstrap errors")
    workspaces = {name: workspace(problem, cuts) for name, cuts in stages.items()}
    uncertainty = config.objective.name == "signal_strength_uncertainty"
    with cross_checks(workspaces, uncertainty=uncertainty, parameters=problem.analysis.structure.size) as checks:
        started = time.perf_counter()
        comparisons = _comparisons(tuned, folds)
        comparison = time.perf_counter() - started
        outcome = Outcome(
            config=config,
            larger_is_better=problem.analysis.objective.larger_is_better,
            before=stages["before"],
            after=stages["after"],
            folds=folds,
            history=first.history,
            complete=len(tuned) == (config.validation.folds or 1) and all(fold.complete for fold in tuned),
            comparisons=comparisons,
            workspaces=workspaces,
            pyhf={},
            merits={n: exact.merit_of(problem.analysis, arrays(at), problem.validation) for n, at in stages.items()},
            importance=importance(problem, folds[0], config.seed),
            measured=_measured(problem, stages),
            merged_bins={name: _merged_bins(problem, cuts) for name, cuts in stages.items()},
            samples=problem.samples,
            left_out=dict(problem.left_out),
            shared_events=_shared_events(problem, stages["after"], progress),
            scores=problem.analysis.events.scores,
            edges=_edges(problem, stages["after"]),
            working_points=working_points(problem, folds[0]) if config.validation.working_points else None,
            variations=about_variations(problem, stages["after"]),
            seconds={
                **(seconds or {}),
                "first step, with compilation": first.seconds[0],
                "other steps": first.seconds[1],
                "comparison": comparison,
            },
        )
        return replace(outcome, pyhf={name: check.result() for name, check in checks.items()})


def _edges(problem: Problem, parameters: Mapping[str, Any]) -> dict[str, list[float]]:
    edges = placed_edges(problem.analysis.selection.regions, arrays(parameters), problem.training.edges)
    return {name: np.asarray(each[0], np.float64).tolist() for name, each in edges.items()}


def _shared_events(problem: Problem, thresholds: Mapping[str, Any], progress: Progress) -> dict[str, int]:
    """Validation events that the tuned thresholds put into two regions."""
    if not problem.config.may_overlap():
        return {}
    shared = exact.events_in_two_regions(problem.analysis, arrays(thresholds), problem.validation)
    for (first, second), number in shared.items() if problem.config.exclusive else ():
        progress.warn(
            f"at the tuned thresholds {number} events are in '{first}' and in '{second}'; they count in '{first}' only"
        )
    return {f"{first}, {second}": number for (first, second), number in shared.items()}


def _comparisons(tuned: Sequence[Tuned], folds: Sequence[Mapping[str, Any]]) -> dict[str, Comparison]:
    problem = tuned[0].problem
    config, analysis = problem.config, problem.analysis

    def merit(thresholds: Thresholds, data: Data | Stream) -> Merit:
        return exact.merit_of(analysis, thresholds, data)

    before, replicas = arrays(problem.defaults), config.validation.bootstrap
    parts = {"training": problem.training, "validation": problem.validation}
    comparisons = compare(merit, before, arrays(folds[0]), parts, replicas, config.seed)
    if len(tuned) > 1:
        held_out = [
            (fold.problem.validation, arrays(fold.problem.defaults), arrays(cuts))
            for fold, cuts in zip(tuned, folds, strict=True)
        ]
        comparisons["cross-validation"] = cross_validate(analysis, held_out, replicas, config.seed)
    return comparisons


def workspace(problem: Problem, thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """The pyhf workspace of the validation events at some thresholds, with Asimov or pseudo-data."""
    numbers, data = exact.model_and_data(problem.analysis, arrays(thresholds), problem.validation)
    return to_pyhf(problem.analysis.structure, numbers, measurement=problem.config.measurement.name, data=data)


def _merged_bins(problem: Problem, thresholds: Mapping[str, Any]) -> int:
    """How many bins of the validation events are not bins of their own in the likelihood: too little background."""
    templates = exact.templates_at(problem.analysis, arrays(thresholds), problem.validation)
    into = merged_into(problem.analysis, templates)
    return int(np.count_nonzero(into != np.arange(len(into))))


def _measured(problem: Problem, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    """The signal strength and its uncertainty in the pseudo-data of the validation events, if there are any."""
    structure, measured = problem.analysis.structure, {}
    for name, thresholds in stages.items():
        numbers, data = exact.model_and_data(problem.analysis, arrays(thresholds), problem.validation)
        if data is not None:
            observed = jnp.concatenate([data, auxdata(structure, numbers)])
            fitted = jax.jit(signal_strength_uncertainty, static_argnums=0)(structure, numbers, data=observed)
            error = float(fitted.uncertainty) if bool(fitted.converged) else float("nan")
            measured[name] = Estimate(float(fitted.mu), error)
    return measured
