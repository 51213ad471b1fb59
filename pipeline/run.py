"""One run, from a config to a run folder: what the command line does, as a function.

The steps of the story, in order: read and reconstruct events, compile, tune, compare before and after, let pyhf
recompute, write.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline import analysis as exact
from pipeline.analysis import Data
from pipeline.config import Config
from pipeline.events.cuts import Thresholds
from pipeline.inference.histfactory.constraints import auxdata
from pipeline.inference.histfactory.to_pyhf import to_pyhf
from pipeline.inference.measurement import merged_bins
from pipeline.inference.objectives import Merit
from pipeline.inference.significance import signal_strength_uncertainty
from pipeline.ingest.manifest import InputError, load_manifest
from pipeline.problem import Problem, divide_into_folds, read_samples, wanted_datasets
from pipeline.report.attempt import attempt
from pipeline.report.folder import new_folder, write_config, write_history, write_json
from pipeline.report.provenance import environment, provenance, sha256
from pipeline.report.terminal import Terminal, verdict
from pipeline.tuning.checkpoint import require_checkpoint
from pipeline.tuning.descent import Step, make_optimiser
from pipeline.tuning.tune import Optimised, optimise, schedule, with_bandwidths
from pipeline.validation.comparison import Comparison, Estimate, compare, cross_validate
from pipeline.validation.crosscheck import PyhfResult, pyhf_discovery_significance

__all__ = ["Outcome", "checkpoint_of", "describe_inputs", "judge", "run"]


@dataclass(frozen=True)
class Outcome:
    """What a run found. Thresholds are of all cuts; `compared` is keyed by the part of the events.

    `measured` are the signal strengths that fits to the pseudo-data find, where the config asks for such data. With
    folds, all is of the first one but `folds`, the thresholds that each of them led to, and `compared` has an entry
    `cross-validation` over all of them.
    """

    before: dict[str, float]
    after: dict[str, float]
    folds: tuple[dict[str, float], ...]
    history: tuple[Step, ...]
    compared: dict[str, Comparison]
    workspaces: dict[str, dict[str, Any]]
    pyhf: dict[str, PyhfResult]
    ours: dict[str, Merit]
    measured: dict[str, Estimate]
    seconds: dict[str, float]

    @property
    def claim(self) -> Comparison:
        """What the run claims to have gained: on events that no thresholds were tuned on."""
        return self.compared.get("cross-validation", self.compared["validation"])

    def gradient(self, name: str) -> dict[str, float] | None:
        """The derivative of the loss at the best step, and its largest significance on the way; None if fixed."""
        if name not in self.history[0].gradient:
            return None
        best = next(step for step in self.history if step.thresholds == self.history[-1].best)
        largest = self.largest_pull(name)
        return {"value": best.gradient[name], "error": best.error[name], "largest_pull": largest}

    def largest_pull(self, name: str) -> float:
        """How many errors the derivative was away from zero at most; 0 for a threshold that nothing depends on."""
        pulls = [abs(step.gradient[name]) / step.error[name] for step in self.history if step.error[name] > 0]
        return max(pulls, default=0.0)


def run(config: Config, output: Path, *, overwrite: bool = False, resume: bool = False, quiet: bool = False) -> int:
    """Tune, compare, and write the run folder; returns the exit code of the command line.

    While it runs, the steps so far are kept beside the folder; `resume` goes on from them. They go when the run is
    complete.
    """
    make_optimiser(schedule(config))  # a wrong name or argument is told before anything is read
    if resume:
        require_checkpoint(checkpoint_of(output))
    terminal = Terminal(config, quiet=quiet)
    with new_folder(output, overwrite=overwrite) as folder:
        started = time.perf_counter()
        with terminal.reading() as progress:
            samples = read_samples(config, terminal.say, progress)
        terminal.say("reconstructing trijets")
        problems = divide_into_folds(config, samples)
        reading = time.perf_counter() - started
        tuned = _tune(problems, output, terminal, resume=resume)
        problem, optimised = tuned[0]
        outcome = judge(tuned, terminal, reading)
        found = result(problem, outcome)
        write_json(folder / "result.json", found)
        write_json(folder / "workspace.json", outcome.workspaces["after"])
        write_json(folder / "workspace_before.json", outcome.workspaces["before"])
        write_history(folder / "history.csv", [_history_row(step) for step in outcome.history])
        write_config(folder / "config.yaml", problem.config.model_dump(mode="json"))
        _illustrate(folder, problem, outcome, found, terminal)
    terminal.table(problem, outcome, output)
    if all(of_fold.complete for _, of_fold in tuned) and len(tuned) == len(problems):
        for fold in range(len(problems)):
            checkpoint_of(output, fold).unlink(missing_ok=True)
    else:
        terminal.warn(f"stopped after step {optimised.history[-1].number}; --resume --overwrite goes on from there")
    return 0


def _tune(
    problems: Sequence[Problem], output: Path, terminal: Terminal, *, resume: bool
) -> list[tuple[Problem, Optimised]]:
    """Every fold, until one is stopped by Ctrl-C; problems come back with their bandwidths."""
    tuned: list[tuple[Problem, Optimised]] = []
    for fold, without_widths in enumerate(problems):
        if len(problems) > 1:
            terminal.say(f"fold {fold + 1} of {len(problems)}")
        problem, checkpoint = with_bandwidths(without_widths, terminal), checkpoint_of(output, fold)
        begun = resume and (fold == 0 or checkpoint.exists())
        tuned.append((problem, optimise(problem, terminal, checkpoint, resume=begun)))
        if not tuned[-1][1].complete:
            break
    return tuned


def checkpoint_of(output: Path, fold: int = 0) -> Path:
    """The file that keeps the steps of an unfinished run."""
    return output.with_name(f".{output.name}.checkpoint" + (f"_{fold + 1}" if fold else ""))


def _illustrate(folder: Path, problem: Problem, outcome: Outcome, found: Mapping[str, Any], terminal: Terminal) -> None:
    """Pictures and page, after everything that counts is written: neither a failure nor Ctrl-C loses the result."""
    terminal.say("pictures and report")
    try:
        with attempt("the report", terminal.warn):
            # matplotlib takes a second to import, which a run that fails early need not wait for.
            from pipeline.report.gallery import Scene
            from pipeline.report.illustrate import illustrate

            scene = Scene(
                problem=problem,
                before=outcome.before,
                after=outcome.after,
                steps=outcome.history,
                workspace=outcome.workspaces["after"],
                symbol=terminal.symbol,
                source=f"{found['origin']}, {problem.config.luminosity / 1000:.3g} fb$^{{-1}}$",
            )
            larger = problem.analysis.objective.larger_is_better
            words = verdict(outcome.claim, terminal.symbol, larger_is_better=larger)
            illustrate(folder, scene, found, words, terminal.warn)
    except KeyboardInterrupt:
        terminal.warn("stopped while drawing: the result is written, the report is not complete")


def describe_inputs(config: Config) -> None:
    """Print what a run would read; raises where something is missing."""
    make_optimiser(schedule(config))
    manifest = load_manifest(config.data.manifest)
    for process, variation in wanted_datasets(config):
        dataset = manifest.dataset(config.data.set, process, variation).first(config.data.max_files)
        missing = [place for place in dataset.locations(config.data.location) if _is_missing(place)]
        if missing:
            raise InputError(f"{missing[0]}: no such file; correct data.location, or get it with python -m pipeline.fetch")
        Terminal(config, quiet=False).say(f"{dataset.key}: {len(dataset.files)} files, {dataset.events} events")


def _is_missing(place: str) -> bool:
    """Whether a path leads nowhere; a URL is not looked at."""
    return "://" not in place and not Path(place).exists()


def judge(tuned: Sequence[tuple[Problem, Optimised]], terminal: Terminal, reading: float = 0.0) -> Outcome:
    """What the optimisation has gained, on events it has seen and on others, and what pyhf says."""
    problem, optimised = tuned[0]
    config, analysis, history = problem.config, problem.analysis, optimised.history
    before = {name: one.threshold for name, one in config.thresholds.items()}
    folds = tuple(before | of_fold.history[-1].best for _, of_fold in tuned)
    after = folds[0]
    started = time.perf_counter()

    def evaluate_merit(thresholds: Thresholds, data: Data) -> Merit:
        return exact.merit_of(thresholds, analysis, data)

    terminal.say("validation and bootstrap errors")
    parts = {"training": problem.training, "validation": problem.validation}
    replicas = config.validation.bootstrap
    compared = compare(evaluate_merit, _arrays(before), _arrays(after), parts, replicas, config.seed)
    if len(tuned) > 1:
        held_out = [(one.validation, _arrays(cuts)) for (one, _), cuts in zip(tuned, folds, strict=True)]
        compared["cross-validation"] = cross_validate(analysis, _arrays(before), held_out, replicas, config.seed)
    comparison = time.perf_counter() - started
    terminal.say("cross-check by pyhf")
    workspaces = {name: workspace(problem, cuts) for name, cuts in (("before", before), ("after", after))}
    wanted = config.objective.name == "signal_strength_uncertainty"
    checks = {name: pyhf_discovery_significance(made, uncertainty=wanted) for name, made in workspaces.items()}
    ours = {
        name: evaluate_merit(_arrays(cuts), problem.validation) for name, cuts in (("before", before), ("after", after))
    }
    return Outcome(
        before=before,
        after=after,
        folds=folds,
        history=history,
        compared=compared,
        workspaces=workspaces,
        pyhf=checks,
        ours=ours,
        measured=_measured(problem, {"before": before, "after": after}),
        seconds={
            "reading": reading,
            "first step, with compilation": optimised.seconds[0],
            "other steps": optimised.seconds[1],
            "comparison": comparison,
        },
    )


def workspace(problem: Problem, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """The pyhf workspace of the validation events at some thresholds, with Asimov or pseudo-data."""
    numbers, data = exact.model_and_data(_arrays(thresholds), problem.analysis, problem.validation)
    return to_pyhf(problem.analysis.structure, numbers, measurement=problem.config.measurement.name, data=data)


def _merged_bins(problem: Problem, thresholds: Mapping[str, float]) -> int:
    """How many bins of the validation events are not bins of their own in the likelihood: too little background."""
    measured = problem.analysis.measurement
    if not measured.merges:
        return 0
    made = exact.templates_at(_arrays(thresholds), problem.analysis, problem.validation)
    into = np.asarray(jax.jit(merged_bins, static_argnums=0)(measured, made))
    return int(np.count_nonzero(into != np.arange(len(into))))


def _measured(problem: Problem, cuts: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
    """The signal strength and its uncertainty in the pseudo-data of the validation events, if there are any."""
    structure, found = problem.analysis.structure, {}
    for name, thresholds in cuts.items():
        numbers, data = exact.model_and_data(_arrays(thresholds), problem.analysis, problem.validation)
        if data is not None:
            observed = jnp.concatenate([data, auxdata(structure, numbers)])
            fitted = jax.jit(signal_strength_uncertainty, static_argnums=0)(structure, numbers, data=observed)
            error = float(fitted.uncertainty) if bool(fitted.converged) else float("nan")
            found[name] = Estimate(float(fitted.mu), error)
    return found


def result(problem: Problem, outcome: Outcome) -> dict[str, Any]:
    """The content of result.json. Everything but `seconds` and `environment` repeats bit by bit."""
    config = problem.config
    return {
        "name": config.name,
        "simulated": all(sample.dataset.source.simulated for sample in problem.samples),
        "origin": ", ".join(dict.fromkeys(sample.dataset.source.label for sample in problem.samples)),
        "objective": config.objective.name,
        "larger_is_better": problem.analysis.objective.larger_is_better,
        "thresholds": {
            name: {
                "before": outcome.before[name],
                "after": outcome.after[name],
                "unit": cut.unit,
                "trainable": cut.trainable,
                "at_bound": at_bound(config, name, outcome.after[name]),
                "gradient": outcome.gradient(name),
            }
            for name, cut in config.thresholds.items()
        },
        "compared": {
            part: {
                "before": asdict(one.before),
                "after": asdict(one.after),
                "change": asdict(one.change) | {"pull": one.change.pull},
                "converged": one.converged,
            }
            for part, one in outcome.compared.items()
        },
        "pyhf": {
            name: {
                "discovery_significance": check.significance,
                "twice_nll_without_signal": check.twice_nll,
                "signal_strength_uncertainty": check.uncertainty,
            }
            for name, check in outcome.pyhf.items()
        },
        "fit": {
            name: {
                "value": float(merit.value),
                "converged": bool(merit.converged),
                "gradient_norm": float(merit.gradient_norm),
                "iterations": int(merit.iterations),
            }
            for name, merit in outcome.ours.items()
        },
        "pseudodata": {name: asdict(one) for name, one in outcome.measured.items()},
        "folds": [dict(cuts) for cuts in outcome.folds] if len(outcome.folds) > 1 else [],
        "steps": len(outcome.history),
        "seed": config.seed,
        "significance_of_gradients": config.optimiser.significance,
        "merged_bins": {
            "before": _merged_bins(problem, outcome.before),
            "after": _merged_bins(problem, outcome.after),
            "minimum_effective_events": config.measurement.minimum_effective_events,
            "minimum_background": config.measurement.minimum_background,
        },
        "config_sha256": sha256(config.model_dump(mode="json")),
        "data": {sample.dataset.key: provenance(sample) for sample in problem.samples},
        "seconds": outcome.seconds,
        "environment": environment(),
    }


def at_bound(config: Config, name: str, value: float) -> str | None:
    """Which bound a threshold ended at, if any."""
    bounds = config.thresholds[name].bounds
    if bounds is None or not config.thresholds[name].trainable:
        return None
    tolerance = 1e-6 * (bounds[1] - bounds[0])
    return next((s for s, b in zip(("lower", "upper"), bounds, strict=True) if abs(value - b) <= tolerance), None)


def _history_row(step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "value": float(step.merit.value),
        "best_loss": step.best_loss,
        "converged": bool(step.merit.converged),
        **step.thresholds,
        "monitored_loss": step.monitored,
        **{f"gradient_{name}": value for name, value in step.gradient.items()},
        **{f"gradient_error_{name}": value for name, value in step.error.items()},
        **{f"bandwidth_{name}": value for name, value in step.bandwidths.items()},
    }


def _arrays(values: Mapping[str, float]) -> Thresholds:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}
