"""One run, from a config to a run folder and its outcome: what the command line does, as a function.

The steps of the story, in order: read and reconstruct events, compile, tune, compare before and after, let pyhf
recompute, write.
"""

import difflib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from pipeline.analysis import loss_of_yields_and_slope, merit_of
from pipeline.cluster import Cluster, connected
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.event_data import Data, Stream, parts_of
from pipeline.events.cuts import arrays
from pipeline.events.flux import MAX_OBJECTS
from pipeline.inference.templates import Recipe
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.samples import listed_datasets
from pipeline.memory import event_cache
from pipeline.names import Names, names_of
from pipeline.preview import Seen, check_reach, look, wrong_units
from pipeline.problem import Problem, divide_into_folds, read
from pipeline.report.folder import new_folder
from pipeline.report.terminal import Terminal
from pipeline.result import Result, write_outcome
from pipeline.translation import make_analysis
from pipeline.tuning.checkpoint import load_checkpoint, require_checkpoint, save_checkpoint
from pipeline.tuning.descent import first_state
from pipeline.tuning.schedule import make_optimiser, schedule
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import Tuned, learners, ranges, starts
from pipeline.tuning.tune import tune as steps_of
from pipeline.validation.distributions import distributions
from pipeline.validation.outcome import Outcome, judge, workspace
from pipeline.validation.provenance import fingerprint
from pipeline.validation.regions import regions

__all__ = ["checkpoint_of", "describe_inputs", "run", "tune"]

WORTH_REHEARSING = 200_000
"""Events up to which compiling takes longer than what is compiled."""

STOPPING = "stopping with the best thresholds so far; Ctrl-C again leaves at once, without a result"


def run(
    config: Config,
    output: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    plots: bool = True,
    cluster: str | None = None,
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
        cluster: who computes with the events (`pipeline.cluster.connected`); this process, if nobody does.

    Raises:
        InputError: a file is missing or unusable, no event is left, or no fit converged.
        CheckpointError: there is nothing to resume from.
        OSError: the folder exists already, or cannot be written.
    """
    output = Path(output).expanduser()
    make_optimiser(schedule(config))  # a wrong name or argument is told before anything is read
    names = names_of(config)  # so is a wrong name in the config
    if resume:
        require_checkpoint(checkpoint_of(output))
    with (
        connected(cluster) if cluster is not None else nullcontext() as workers,
        Terminal(config, quiet=quiet) as terminal,
    ):
        if workers is not None:
            workers.check(config.data.cache or event_cache())
        return _run(config, names, output, terminal, workers, overwrite=overwrite, resume=resume, plots=plots)


def _run(
    config: Config,
    names: Names,
    output: Path,
    terminal: Terminal,
    workers: Cluster | None,
    *,
    overwrite: bool,
    resume: bool,
    plots: bool,
) -> Outcome:
    started = time.perf_counter()
    _check_cuts(config, names, terminal)
    with new_folder(output, overwrite=overwrite) as folder:
        with terminal.reading() as display:
            samples = read(config, terminal.say, display, None if workers is None else workers.executor)
        _beside(_compile_loss, config, names, len(samples))
        terminal.say("preparing events")
        problems = divide_into_folds(config, samples, names, terminal.say, workers)
        reading = time.perf_counter() - started
        tuned = _tuned_folds(problems, output, terminal, resume=resume)
        outcome = judge(tuned, terminal, {"reading": reading})
        outcome = replace(outcome, path=output)
        terminal.table(outcome)  # before the pictures, which take about as long as everything else
        drawing = time.perf_counter()
        if plots:
            terminal.say("pictures and report")
        write_outcome(folder, tuned[0].problem, outcome, terminal.warn, plots=plots)
    seconds = outcome.seconds | {"pictures and report": time.perf_counter() - drawing}
    outcome = replace(outcome, seconds=seconds)
    terminal.places(outcome)
    if outcome.complete:
        for fold in range(len(problems)):
            checkpoint_of(output, fold).unlink(missing_ok=True)
    else:
        last = outcome.history[-1].number
        terminal.warn(f"stopped after step {last}; --resume --overwrite goes on from there")
    return outcome


def tune(problem: Problem, steps: int | None = None, *, quiet: bool = False) -> Result:
    """Tune the thresholds of a problem, and judge the result on events that the optimiser has not seen.

    With `validation.folds` it goes through all folds, as the command line does. Ctrl-C ends it early, with the best
    thresholds so far.

    Args:
        problem: what is tuned.
        steps: how many; as the config says if None.
        quiet: show nothing but warnings.

    Raises:
        InputError: no fit converged.
    """
    if steps is not None:
        optimiser = problem.config.optimiser.model_copy(update={"steps": steps})
        problem = replace(problem, config=problem.config.model_copy(update={"optimiser": optimiser}))
    with Terminal(problem.config, quiet=quiet) as terminal:
        tuned = _tuned_folds(problem.folds(terminal.say), None, terminal, resume=False)
        first = tuned[0]
        return Result(first.problem.with_networks(first.best), judge(tuned, terminal))


def _tuned_folds(problems: Sequence[Problem], output: Path | None, terminal: Terminal, *, resume: bool) -> list[Tuned]:
    """Every fold, until one is stopped by Ctrl-C; those before it are kept."""
    for name, number in problems[0].left_out.items():
        terminal.warn(
            f"{number} objects of '{name}' are left out: an event keeps its {MAX_OBJECTS} hardest ones; a tighter "
            "lower bound of its pt cut leaves none out"
        )
    tuned: list[Tuned] = []
    for fold, problem in enumerate(problems):
        if len(problems) > 1:
            terminal.say(f"fold {fold + 1} of {len(problems)}")
        checkpoint = None if output is None else checkpoint_of(output, fold)
        begun = resume and (fold == 0 or (checkpoint is not None and checkpoint.exists()))
        try:
            tuned.append(_tuned(problem.with_bandwidths(terminal), checkpoint, terminal, resume=begun))
        except KeyboardInterrupt:  # before its first step
            if not tuned:
                raise
            terminal.warn(STOPPING)
            break
        if not tuned[-1].complete:
            break
    return tuned


def _tuned(problem: Problem, checkpoint: Path | None, terminal: Terminal, *, resume: bool) -> Tuned:
    """The steps of the optimisation, each shown, every few of them kept; Ctrl-C ends them early."""
    config, name = problem.config, fingerprint(problem)
    history: list[Step] = []
    if resume and checkpoint is not None:
        start, allowed = starts(config, problem.kernels)[0], ranges(config, problem.kernels)
        state = first_state(start, allowed, schedule(config), learners(problem))
        history += load_checkpoint(checkpoint, name, state)
        terminal.say(f"going on after step {history[-1].number}")
    clock, complete = [time.perf_counter()], False
    events = _number_of_events(problem.training)
    with terminal.steps(config.optimiser.numbers, events) as display:
        if events < WORTH_REHEARSING:
            _beside(_rehearse, problem)
        try:
            for step in steps_of(problem, history[-1] if history else None, display.look):
                clock.append(time.perf_counter())
                if history:
                    history[-1] = replace(history[-1], state=None)  # the next step had it, and networks are large
                history.append(step)
                display.step(step)
                if checkpoint is not None and len(history) % config.optimiser.checkpoint_every == 0:
                    save_checkpoint(checkpoint, name, history)
            complete = True
        except KeyboardInterrupt:
            if not history:
                raise
            terminal.warn(STOPPING)
    if checkpoint is not None:
        save_checkpoint(checkpoint, name, history)
    first = clock[min(1, len(clock) - 1)]
    return Tuned(problem, tuple(history), complete, (first - clock[0], clock[-1] - first))


def _beside(work: Callable[..., None], *arguments: Any) -> None:
    """Begin something for its programs, to have them compiled by another core; who needs one of them waits for it.

    What goes wrong there goes wrong again where it counts.
    """
    pool = ThreadPoolExecutor(1)
    pool.submit(work, *arguments)
    pool.shutdown(wait=False)


def _compile_loss(config: Config, names: Names, datasets: int) -> None:
    """What follows the histograms, whose shapes the config knows, while events become arrays."""
    analysis = make_analysis(config, names, datasets)
    layout, processes = analysis.layout, len(config.processes)
    size, columns = (layout.kinematics, layout.datasets), 2 + len(layout.factors)
    shape = (1 + len(config.variations), processes)
    recipe = Recipe(
        yields=jnp.zeros((*shape, *size, columns)),
        variance=jnp.zeros((processes, layout.datasets)),
        shift_variance=jnp.zeros((*shape, layout.datasets)) if analysis.measurement.treats_variations else None,
    )
    loss_of_yields_and_slope(jnp.zeros((*size, analysis.selection.bins, columns)), analysis, recipe)


def _rehearse(problem: Problem) -> None:
    """The validation at the default thresholds, beside the first step."""
    merit_of(problem.analysis, arrays(problem.defaults), problem.validation)
    regions(problem, problem.defaults)
    workspace(problem, problem.defaults)
    distributions(problem, problem.defaults, problem.defaults, problem.bandwidths)


def checkpoint_of(output: Path, fold: int = 0) -> Path:
    """The file that keeps the steps of an unfinished run."""
    return output.with_name(f".{output.name}.checkpoint" + (f"_{fold + 1}" if fold else ""))


def _number_of_events(data: Data | Stream) -> int:
    """Padding has weight 0; parts on disk are about equally large."""
    part = next(iter(parts_of(data)))
    number = sum(int(np.count_nonzero(group.weight)) for group in part.events.groups)
    return number * (len(data) if isinstance(data, Stream) else 1)


def _check_cuts(config: Config, names: Names, terminal: Terminal) -> None:
    """Raise before anything is computed where a cut keeps nothing; what is wrong with a file, reading tells better."""
    seen = []
    for dataset in listed_datasets(config):
        with suppress(InputError, OSError):
            seen.append(_seen(config, names, dataset))
            for sentence in wrong_units(config, seen[-1]):
                terminal.warn(f"{dataset.key}: {sentence}")
    check_reach(config, seen)


def describe_inputs(config: Config) -> None:
    """Print what a run would read, and what the first entries of each data set show.

    Raises:
        InputError: something is missing, of another length than stated, or cannot be what a cut is about.
    """
    make_optimiser(schedule(config))
    names = names_of(config)
    with Terminal(config, quiet=False) as terminal:
        check_reach(config, _described(config, names, terminal))


def _described(config: Config, names: Names, terminal: Terminal) -> list[Seen]:
    """The first entries of each data set, while the terminal says what there is."""
    seen = []
    for dataset in listed_datasets(config):
        missing = [place for place in dataset.locations(config.data.location) if _is_missing(place)]
        if missing:
            raise InputError(
                f"{missing[0]}: no such file; correct data.location, or get it with python -m pipeline.fetch"
            )
        seen.append(_seen(config, names, dataset))
        for sentence in wrong_units(config, seen[-1]):
            terminal.warn(f"{dataset.key}: {sentence}")
        stated = all(file.events is not None for file in dataset.files)
        events = f"{dataset.events} events" if stated else "as many events as they hold"
        terminal.say(f"{dataset.key}: {len(dataset.files)} files, {events}")
    return seen


def _seen(config: Config, names: Names, dataset: Dataset) -> Seen:
    """The first entries of the first file of a data set; a URL is not looked at.

    A name that is no branch may be a misspelt variable of the event function: the nearest of all is told.
    """
    location = dataset.locations(config.data.location)[0]
    if "://" in location:
        return {}
    try:
        return look(config, names, dataset, location)
    except InputError as error:
        unknown = [branch for branch in names.branches.values() if f"'{branch}'" in str(error)]
        near = [each for branch in unknown for each in difflib.get_close_matches(branch, names.known, n=1, cutoff=0.4)]
        hint = f" Or did you mean '{near[0]}', which needs no branch?" if near else ""
        raise InputError(f"{error}{hint}") from None


def _is_missing(place: str) -> bool:
    """Whether a path leads nowhere; a URL is not looked at."""
    return "://" not in place and not Path(place).exists()
