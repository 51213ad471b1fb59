"""One run, from a config to a run folder and its outcome: what the command line does, as a function.

The steps of the story, in order: read and reconstruct events, compile, tune, compare before and after, let pyhf
recompute, write.
"""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.analysis import Data
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.events.cuts import arrays
from pipeline.events.flux import MAX_OBJECTS
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.fileskim import rows_of_file
from pipeline.ingest.samples import listed_datasets, skim
from pipeline.names import Names, names_of
from pipeline.problem import Problem, divide_into_folds, read
from pipeline.report.attempt import attempt
from pipeline.report.folder import new_folder, write_config, write_history, write_json
from pipeline.report.terminal import Terminal
from pipeline.tuning.checkpoint import load_checkpoint, require_checkpoint, save_checkpoint
from pipeline.tuning.descent import Step, make_optimiser
from pipeline.tuning.tune import Tuned, schedule, starts, tune, with_bandwidths
from pipeline.validation.outcome import Outcome, judge
from pipeline.validation.provenance import fingerprint
from pipeline.validation.verdict import verdict

__all__ = ["checkpoint_of", "describe_inputs", "run"]


def run(
    config: Config,
    output: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    plots: bool = True,
) -> Outcome:
    """Tune, compare, and write the run folder.

    While it runs, the steps so far are kept beside the folder. They go when the run is complete.

    Args:
        config: what is run.
        output: the folder.
        overwrite: replace a folder that is there.
        resume: go on from the steps that are kept.
        quiet: print warnings and the final table only.
        plots: draw pictures and write the report; without, the numbers only.

    Raises:
        InputError: a file is missing or unusable, no event is left, or no fit converged.
        CheckpointError: there is nothing to resume from.
        OSError: the folder exists already, or cannot be written.
    """
    output, started = Path(output), time.perf_counter()
    make_optimiser(schedule(config))  # a wrong name or argument is told before anything is read
    names_of(config)  # so is a wrong name in the config
    if resume:
        require_checkpoint(checkpoint_of(output))
    terminal = Terminal(config, quiet=quiet)
    with new_folder(output, overwrite=overwrite) as folder:
        with terminal.reading() as display:
            samples = read(config, terminal.say, display)
        terminal.say("preparing events")
        problems = divide_into_folds(config, samples)
        for name, number in problems[0].left_out.items():
            terminal.warn(
                f"{number} objects of '{name}' are left out: an event keeps its {MAX_OBJECTS} hardest ones; a tighter "
                "lower bound of its pt cut leaves none out"
            )
        reading = time.perf_counter() - started
        tuned = _tuned_folds(problems, output, terminal, resume=resume)
        outcome = judge(tuned, terminal, {"reading": reading})
        outcome = replace(outcome, path=output, complete=outcome.complete and len(tuned) == len(problems))
        content = outcome.as_json() | {"verdict": asdict(verdict(outcome))}
        _write(folder, outcome, content)
        drawing = time.perf_counter()
        if plots:
            _illustrate(folder, tuned[0].problem, outcome, content, terminal)
    seconds = outcome.seconds | {"pictures and report": time.perf_counter() - drawing}
    outcome = replace(outcome, seconds=seconds)
    terminal.table(outcome)
    if outcome.complete:
        for fold in range(len(problems)):
            checkpoint_of(output, fold).unlink(missing_ok=True)
    else:
        last = outcome.history[-1].number
        terminal.warn(f"stopped after step {last}; --resume --overwrite goes on from there")
    return outcome


def _tuned_folds(problems: Sequence[Problem], output: Path, terminal: Terminal, *, resume: bool) -> list[Tuned]:
    """Every fold, until one is stopped by Ctrl-C."""
    tuned: list[Tuned] = []
    for fold, problem in enumerate(problems):
        if len(problems) > 1:
            terminal.say(f"fold {fold + 1} of {len(problems)}")
        checkpoint = checkpoint_of(output, fold)
        begun = resume and (fold == 0 or checkpoint.exists())
        tuned.append(_tuned(with_bandwidths(problem, terminal), checkpoint, terminal, resume=begun))
        if not tuned[-1].complete:
            break
    return tuned


def _tuned(problem: Problem, checkpoint: Path, terminal: Terminal, *, resume: bool) -> Tuned:
    """The steps of the optimisation, each shown, every few of them kept; Ctrl-C ends them early."""
    config, name = problem.config, fingerprint(problem)
    history: list[Step] = []
    if resume:
        state = make_optimiser(schedule(config)).init(arrays(starts(config)[0]))
        history += load_checkpoint(checkpoint, name, state)
        terminal.say(f"going on after step {history[-1].number}")
    clock, complete = [time.perf_counter()], False
    steps, events = config.optimiser.steps * config.optimiser.starts, _number_of_events(problem.training)
    with terminal.steps(steps, events) as show:
        try:
            for step in tune(problem, history[-1] if history else None):
                clock.append(time.perf_counter())
                history.append(step)
                show(step)
                if len(history) % config.optimiser.checkpoint_every == 0:
                    save_checkpoint(checkpoint, name, history)
            complete = True
        except KeyboardInterrupt:
            if not history:
                raise
            terminal.warn("stopping with the best thresholds so far; Ctrl-C again leaves at once, without a result")
    save_checkpoint(checkpoint, name, history)
    first = clock[min(1, len(clock) - 1)]
    return Tuned(problem, tuple(history), complete, (first - clock[0], clock[-1] - first))


def checkpoint_of(output: Path, fold: int = 0) -> Path:
    """The file that keeps the steps of an unfinished run."""
    return output.with_name(f".{output.name}.checkpoint" + (f"_{fold + 1}" if fold else ""))


def _number_of_events(data: Data) -> int:
    """Padding has weight 0."""
    return sum(int((group.weight != 0).sum()) for group in data.events.groups)


def _write(folder: Path, outcome: Outcome, content: Mapping[str, Any]) -> None:
    """All numbers of a run."""
    write_json(folder / "result.json", content)
    write_json(folder / "workspace.json", outcome.workspaces["after"])
    write_json(folder / "workspace_before.json", outcome.workspaces["before"])
    write_history(folder / "history.csv", [_history_row(step) for step in outcome.history])
    write_config(folder / "config.yaml", outcome.config.model_dump(mode="json"))


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


def _illustrate(
    folder: Path, problem: Problem, outcome: Outcome, content: Mapping[str, Any], terminal: Terminal
) -> None:
    """Pictures and page, after everything that counts is written: neither a failure nor Ctrl-C loses the result."""
    terminal.say("pictures and report")
    try:
        with attempt("the report", terminal.warn):
            # matplotlib takes a second to import, which a run that fails early need not wait for.
            from pipeline.report.illustrate import illustrate
            from pipeline.report.pictures.scene import Scene

            illustrate(folder, Scene(problem, outcome), content, terminal.warn)
    except KeyboardInterrupt:
        terminal.warn("stopped while drawing: the result is written, the report is not complete")


def describe_inputs(config: Config) -> None:
    """Print what a run would read; raises where something is missing."""
    make_optimiser(schedule(config))
    names = names_of(config)
    terminal = Terminal(config, quiet=False)
    for dataset in listed_datasets(config):
        missing = [place for place in dataset.locations(config.data.location) if _is_missing(place)]
        if missing:
            raise InputError(
                f"{missing[0]}: no such file; correct data.location, or get it with python -m pipeline.fetch"
            )
        _check_branches(config, names, dataset)
        stated = all(file.events is not None for file in dataset.files)
        events = f"{dataset.events} events" if stated else "as many events as they hold"
        terminal.say(f"{dataset.key}: {len(dataset.files)} files, {events}")


def _check_branches(config: Config, names: Names, dataset: Dataset) -> None:
    """Raise where the first file of a data set has not what is wanted of it; a URL is not looked at.

    A name that is no branch may be a misspelt variable of the event function: the nearest of all is told.
    """
    location = dataset.locations(config.data.location)[0]
    if "://" in location:
        return
    wanted = skim(config, tuple(names.branches.values()), weight=dataset.weights, collision=dataset.source.collision)
    try:
        with rows_of_file(location, dataset.source.tree, wanted.branches):
            pass
    except InputError as error:
        unknown = [branch for branch in names.branches.values() if f"'{branch}'" in str(error)]
        near = [each for branch in unknown for each in difflib.get_close_matches(branch, names.known, n=1, cutoff=0.4)]
        hint = f" Or did you mean '{near[0]}', which needs no branch?" if near else ""
        raise InputError(f"{error}{hint}") from None


def _is_missing(place: str) -> bool:
    """Whether a path leads nowhere; a URL is not looked at."""
    return "://" not in place and not Path(place).exists()
