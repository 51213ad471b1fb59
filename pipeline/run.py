"""One run, from a config to a run folder: what the command line does, as a function.

The steps of the story, in order: read and reconstruct events, compile, tune, compare before and after, let pyhf
recompute, write.
"""

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pipeline
from pipeline import analysis as exact
from pipeline.analysis import Data
from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.comparison import Comparison, Estimate, compare
from pipeline.config import Config
from pipeline.descent import Ordered, Range, Schedule, Step, descend, make_optimiser
from pipeline.histfactory.constraints import auxdata
from pipeline.histfactory.to_pyhf import to_pyhf
from pipeline.manifest import InputError, load_manifest
from pipeline.objective import Merit
from pipeline.problem import Problem, divide, read_samples, wanted_datasets
from pipeline.report.attempt import attempt
from pipeline.report.crosscheck import PyhfResult, pyhf_discovery_significance
from pipeline.report.folder import new_folder, write_config, write_history, write_json
from pipeline.report.terminal import Terminal, verdict
from pipeline.selection import Thresholds
from pipeline.significance import signal_strength_uncertainty

__all__ = [
    "Optimised",
    "Outcome",
    "checkpoint_of",
    "describe_inputs",
    "environment",
    "judge",
    "optimise",
    "ordered",
    "ranges",
    "run",
    "schedule",
]


@dataclass(frozen=True)
class Outcome:
    """What a run found. Thresholds are of all cuts; `compared` is keyed by the part of the events.

    `measured` are the signal strengths that fits to the pseudo-data find, where the config asks for such data.
    """

    before: dict[str, float]
    after: dict[str, float]
    history: tuple[Step, ...]
    compared: dict[str, Comparison]
    workspaces: dict[str, dict[str, Any]]
    pyhf: dict[str, PyhfResult]
    ours: dict[str, Merit]
    measured: dict[str, Estimate]
    seconds: dict[str, float]


def run(config: Config, output: Path, *, overwrite: bool = False, resume: bool = False, quiet: bool = False) -> int:
    """Tune, compare, and write the run folder; returns the exit code of the command line.

    While it runs, the steps so far are kept beside the folder; `resume` goes on from them. They go when the run is
    complete.
    """
    make_optimiser(schedule(config))  # a wrong name or argument is told before anything is read
    terminal = Terminal(config, quiet=quiet)
    checkpoint = checkpoint_of(output)
    with new_folder(output, overwrite=overwrite) as folder:
        started = time.perf_counter()
        with terminal.reading() as progress:
            samples = read_samples(config, terminal.say, progress)
        terminal.say("reconstructing trijets")
        problem = divide(config, samples)
        reading = time.perf_counter() - started
        optimised = optimise(problem, terminal, checkpoint, resume=resume)
        outcome = judge(problem, optimised, terminal, reading)
        found = result(problem, outcome)
        write_json(folder / "result.json", found)
        write_json(folder / "workspace.json", outcome.workspaces["after"])
        write_json(folder / "workspace_before.json", outcome.workspaces["before"])
        write_history(folder / "history.csv", [_history_row(step) for step in outcome.history])
        write_config(folder / "config.yaml", config.model_dump(mode="json"))
        _illustrate(folder, problem, outcome, found, terminal)
    terminal.table(problem, outcome, output)
    if optimised.complete:
        checkpoint.unlink(missing_ok=True)
    else:
        terminal.warn(f"stopped after step {optimised.history[-1].number}; --resume --overwrite goes on from there")
    return 0


def checkpoint_of(output: Path) -> Path:
    """The file that keeps the steps of an unfinished run."""
    return output.with_name(f".{output.name}.checkpoint")


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
                steps=tuple((step.thresholds, float(step.merit.value)) for step in outcome.history),
                workspace=outcome.workspaces["after"],
                symbol=terminal.symbol,
                source=f"{found['origin']}, {problem.config.luminosity / 1000:.3g} fb$^{{-1}}$",
            )
            larger = problem.analysis.objective.larger_is_better
            words = verdict(outcome.compared["validation"], terminal.symbol, larger_is_better=larger)
            illustrate(folder, scene, found, words, terminal.warn)
    except KeyboardInterrupt:
        terminal.warn("stopped while drawing: the result is written, the report is not complete")


def describe_inputs(config: Config) -> None:
    """Print what a run would read; raises where something is missing."""
    make_optimiser(schedule(config))
    manifest = load_manifest(config.data.manifest)
    for process, variation in wanted_datasets(config):
        dataset = manifest.dataset(config.data.set, process, variation).first(config.data.max_files)
        Terminal(config, quiet=False).say(f"{dataset.key}: {len(dataset.files)} files, {dataset.events} events")


@dataclass(frozen=True)
class Optimised:
    """The steps of an optimisation, whether these are all, and the seconds of the first one and of the others."""

    history: tuple[Step, ...]
    complete: bool
    seconds: tuple[float, float]


def optimise(
    problem: Problem, terminal: Terminal, checkpoint: Path | None = None, *, resume: bool = False
) -> Optimised:
    """The steps of the optimisation; Ctrl-C ends them early, and what was found so far is kept.

    Args:
        problem: what is tuned.
        terminal: that shows the steps.
        checkpoint: file for the steps so far, every few of them; none without a name.
        resume: go on from that file.

    Raises:
        CheckpointError: there is nothing to resume from.
        InputError: no step had a converged fit.
    """
    config, analysis = problem.config, problem.analysis
    fixed = {name: one.threshold for name, one in config.thresholds.items()}

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> Any:
        return exact.loss_and_gradient(_arrays(fixed) | thresholds, analysis, bandwidths, problem.training)

    history: list[Step] = []
    if resume and checkpoint is not None:
        state = make_optimiser(schedule(config)).init(_arrays(_start(config)))
        history += load_checkpoint(checkpoint, fingerprint(problem), state)
        terminal.say(f"going on after step {history[-1].number}")
    steps = descend(
        evaluate,
        ranges(config),
        _start(config),
        schedule(config),
        ordered(config),
        resume=history[-1] if history else None,
    )
    clock = [time.perf_counter()]
    with terminal.progress(config.optimiser.steps, _events(problem.training)) as show:
        try:
            for taken in steps:
                clock.append(time.perf_counter())
                history.append(taken)
                show(taken)
                if checkpoint is not None and (taken.number + 1) % config.optimiser.checkpoint_every == 0:
                    save_checkpoint(checkpoint, fingerprint(problem), history)
        except KeyboardInterrupt:
            if not history:
                raise
            terminal.warn("stopping with the best thresholds so far; Ctrl-C again leaves at once, without a result")
    if checkpoint is not None:
        save_checkpoint(checkpoint, fingerprint(problem), history)
    if not np.isfinite(history[-1].best_loss):
        raise InputError(
            "no step of the optimisation had a converged fit; check the cuts and the samples of the config"
        )
    complete = history[-1].number == config.optimiser.steps - 1
    first = clock[min(1, len(clock) - 1)]
    return Optimised(tuple(history), complete, (first - clock[0], clock[-1] - first))


def judge(problem: Problem, optimised: Optimised, terminal: Terminal, reading: float = 0.0) -> Outcome:
    """What the optimisation has gained, on events it has seen and on others, and what pyhf says."""
    config, analysis, history = problem.config, problem.analysis, optimised.history
    before = {name: one.threshold for name, one in config.thresholds.items()}
    after = before | history[-1].best
    started = time.perf_counter()

    def evaluate_merit(thresholds: Thresholds, data: Data) -> Merit:
        return exact.merit_of(thresholds, analysis, data)

    terminal.say("validation and bootstrap errors")
    parts = {"training": problem.training, "validation": problem.validation}
    validation = config.validation
    compared = compare(evaluate_merit, _arrays(before), _arrays(after), parts, validation.bootstrap, config.seed)
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


def _events(data: Data) -> int:
    """Number of events; padding has weight 0."""
    return sum(int(np.count_nonzero(group.weight)) for group in data.groups)


def workspace(problem: Problem, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """The pyhf workspace of the validation events at some thresholds, with Asimov or pseudo-data."""
    numbers, data = exact.model_and_data(_arrays(thresholds), problem.analysis, problem.validation)
    return to_pyhf(problem.analysis.structure, numbers, measurement=problem.config.measurement.name, data=data)


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


def ranges(config: Config) -> dict[str, Range]:
    """How the trainable thresholds may move."""
    return {
        name: Range(*cut.bounds, cut.step, cut.bandwidth, cut.bandwidth_end or cut.bandwidth)
        for name, cut in config.thresholds.items()
        if cut.trainable and cut.bounds is not None and cut.step is not None and cut.bandwidth is not None
    }


def ordered(config: Config) -> tuple[Ordered, ...]:
    """The bin edges that move, region by region."""
    return tuple(
        Ordered(tuple(edges), config.regions[name].bins.least_distance)
        for name, edges in config.moving_edges.items()
        if edges
    )


def schedule(config: Config) -> Schedule:
    """The optimiser of a config."""
    optimiser = config.optimiser
    return Schedule(optimiser.name, optimiser.arguments, optimiser.learning_rate, optimiser.decay_to, optimiser.steps)


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
        "steps": len(outcome.history),
        "seed": config.seed,
        "config_sha256": _sha256(config.model_dump(mode="json")),
        "data": {sample.dataset.key: _provenance(sample) for sample in problem.samples},
        "seconds": outcome.seconds,
        "environment": environment(),
    }


def fingerprint(problem: Problem) -> str:
    """What makes two runs the same: the configuration and the events."""
    data = {sample.dataset.key: _provenance(sample) for sample in problem.samples}
    return _sha256({"config": problem.config.model_dump(mode="json"), "data": data})


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def at_bound(config: Config, name: str, value: float) -> str | None:
    """Which bound a threshold ended at, if any."""
    bounds = config.thresholds[name].bounds
    if bounds is None or not config.thresholds[name].trainable:
        return None
    tolerance = 1e-6 * (bounds[1] - bounds[0])
    return next((s for s, b in zip(("lower", "upper"), bounds, strict=True) if abs(value - b) <= tolerance), None)


def environment() -> dict[str, str]:
    """Versions of what computed the numbers."""
    packages = ("jax", "jaxlib", "optax", "equinox", "numpy", "awkward", "uproot", "pyhf")
    versions = {package: metadata.version(package) for package in packages}
    device = jax.devices()[0]
    return {
        "pipeline": pipeline.__version__,
        "python": platform.python_version(),
        **versions,
        "device": device.device_kind,
    }


def _provenance(sample: Any) -> dict[str, Any]:
    files = sample.dataset.files
    return {
        "events": sample.dataset.events,
        "entries_read": sample.entries_read,
        "entries_kept": len(sample.events),
        "sha256": [file.sha256 for file in files if file.sha256],
    }


def _history_row(step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "value": float(step.merit.value),
        "best_loss": step.best_loss,
        "converged": bool(step.merit.converged),
        **step.thresholds,
        **{f"gradient_{name}": value for name, value in step.gradient.items()},
        **{f"bandwidth_{name}": value for name, value in step.bandwidths.items()},
    }


def _start(config: Config) -> dict[str, float]:
    return {name: cut.threshold for name, cut in config.thresholds.items() if cut.trainable}


def _arrays(values: Mapping[str, float]) -> Thresholds:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}
