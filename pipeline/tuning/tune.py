"""Tuning: the loop of `pipeline.tuning.descent` on a problem, with what its config says; the steps are shown and kept."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64
from scipy.stats import qmc

from pipeline import analysis as exact
from pipeline.analysis import Data, Gradient
from pipeline.config import Config
from pipeline.events.cuts import Thresholds
from pipeline.inference.objectives import Merit, loss_of
from pipeline.ingest.manifest import InputError
from pipeline.problem import Problem
from pipeline.report.provenance import fingerprint
from pipeline.report.terminal import Terminal
from pipeline.tuning.bandwidths import lepski_bandwidths
from pipeline.tuning.checkpoint import load_checkpoint, save_checkpoint
from pipeline.tuning.descent import (
    Evaluate,
    Monitor,
    Ordered,
    Range,
    Schedule,
    Search,
    Step,
    descend,
    in_order,
    make_optimiser,
    searches,
)
from pipeline.tuning.line_search import make_search

__all__ = [
    "Optimised",
    "evaluation",
    "optimise",
    "ordered",
    "ranges",
    "schedule",
    "starts",
    "with_bandwidths",
]


MOST_OUTCOMES = 100.0
"""Of an event on average in a smooth analysis. Kernels of sensible width lead to one or two; with more than this many a
step takes minutes."""


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
        problem: what is tuned, with bandwidths.
        terminal: that shows the steps.
        checkpoint: file for the steps so far, every few of them; none without a name.
        resume: go on from that file.

    Raises:
        CheckpointError: there is nothing to resume from.
        InputError: no step had a converged fit.
    """
    config = problem.config
    history: list[Step] = []
    if resume and checkpoint is not None:
        state = make_optimiser(schedule(config)).init(_arrays(starts(config)[0]))
        history += load_checkpoint(checkpoint, fingerprint(problem), state)
        terminal.say(f"going on after step {history[-1].number}")
    if config.optimiser.forward == "smooth":
        _check_price(problem)
    steps = descend(
        evaluation(problem),
        ranges(config),
        starts(config),
        schedule(config),
        ordered(config),
        monitor=_monitor(problem),
        search=_search(problem),
        resume=history[-1] if history else None,
    )
    clock, complete = [time.perf_counter()], False
    with terminal.progress(config.optimiser.steps * config.optimiser.starts, _events(problem.training)) as show:
        try:
            for taken in steps:
                clock.append(time.perf_counter())
                history.append(taken)
                show(taken)
                if checkpoint is not None and len(history) % config.optimiser.checkpoint_every == 0:
                    save_checkpoint(checkpoint, fingerprint(problem), history)
            complete = True
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
    first = clock[min(1, len(clock) - 1)]
    return Optimised(tuple(history), complete, (first - clock[0], clock[-1] - first))


def evaluation(problem: Problem) -> Evaluate:
    """The analysis of the training events and its gradient, as the loop asks for it.

    A smooth analysis gives loss and gradient; the figure of merit and the error of the gradient are those of the exact
    one, beside it.
    """
    if problem.config.optimiser.forward == "exact":
        return _exact_evaluation(problem)
    beside, fixed = _exact_evaluation(problem), _defaults(problem)

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> tuple[tuple[Float64[Array, ""], Merit], Gradient]:
        at = fixed | thresholds
        (loss, _), slope = exact.smeared_loss_and_gradient(at, problem.analysis, bandwidths, problem.training)
        (_, merit), gradient = beside(thresholds, bandwidths)
        return (loss, merit), Gradient(value=slope, error=gradient.error)

    return evaluate


def _exact_evaluation(problem: Problem) -> Evaluate:
    fixed = _defaults(problem)

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> tuple[tuple[Float64[Array, ""], Merit], Gradient]:
        return exact.loss_and_gradient_with_error(fixed | thresholds, problem.analysis, bandwidths, problem.training)

    return evaluate


def _search(problem: Problem) -> Search | None:
    """The step of an optimiser that evaluates the smooth loss by itself; None for the others."""
    config, fixed = problem.config, _defaults(problem)
    optimiser = make_optimiser(schedule(config))
    if not searches(optimiser):
        return None

    def loss_and_gradient(thresholds: Thresholds, bandwidths: Thresholds) -> tuple[Float64[Array, ""], Thresholds]:
        at = fixed | thresholds
        (loss, _), slope = exact.smeared_loss_and_gradient(at, problem.analysis, bandwidths, problem.training)
        return loss, slope

    return make_search(optimiser, loss_and_gradient, ranges(config), ordered(config))


def _check_price(problem: Problem) -> None:
    """A smooth analysis multiplies with every jet near a threshold; told before it starts."""
    widths = {name: one.bandwidth for name, one in ranges(problem.config).items()}
    price = exact.smeared_outcomes(_defaults(problem), problem.analysis, _arrays(widths), problem.training)
    if price > MOST_OUTCOMES:
        raise InputError(
            f"optimiser.forward: smooth would look at {price:.3g} outcomes an event with these bandwidths; "
            "make those of the cuts on jets narrower, or choose 'exact'"
        )


def _defaults(problem: Problem) -> Thresholds:
    return _arrays({name: one.threshold for name, one in problem.config.thresholds.items()})


def _monitor(problem: Problem) -> Monitor | None:
    """The exact loss that decides which step is the best, if it is another than that of the steps.

    On the stopping events, if there are any; infinite where the fit did not converge.
    """
    if problem.stopping is None and problem.config.optimiser.forward == "exact":
        return None
    data, fixed = problem.stopping or problem.training, _defaults(problem)

    def monitor(thresholds: Thresholds) -> float:
        merit = exact.merit_of(fixed | thresholds, problem.analysis, data)
        return float(loss_of(problem.analysis.objective, merit)) if bool(merit.converged) else np.inf

    return monitor


def with_bandwidths(problem: Problem, terminal: Terminal) -> Problem:
    """The problem with a kernel for every trainable threshold, chosen from the events where the config has none."""
    config = problem.config
    missing = {n: one for n, one in config.thresholds.items() if one.trainable and one.bandwidth is None}
    if not missing:
        return problem
    terminal.say(f"choosing the bandwidth of {', '.join(missing)}")
    evaluate, at = _exact_evaluation(problem), _defaults(problem)
    edges = [tuple(of_region) for of_region in config.moving_edges.values() if of_region.keys() & missing.keys()]
    chosen = lepski_bandwidths(
        lambda widths: evaluate(at, _arrays(widths))[1],
        {name: one.widest_bandwidth for name, one in missing.items()},
        edges,
    )
    return replace(problem, config=config.with_bandwidths(chosen))


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
    return Schedule(
        name=optimiser.name,
        arguments=optimiser.arguments,
        learning_rate=optimiser.learning_rate,
        decay_to=optimiser.decay_to,
        steps=optimiser.steps,
        decay=optimiser.decay,
        clip=optimiser.clip,
        significance=optimiser.significance,
        patience=optimiser.patience,
        smooth=optimiser.forward == "smooth",
    )


def starts(config: Config) -> tuple[dict[str, float], ...]:
    """The default thresholds, and further places within the bounds: a Latin hypercube, the same for the same seed."""
    default = {name: cut.threshold for name, cut in config.thresholds.items() if cut.trainable}
    places = qmc.LatinHypercube(len(default), rng=config.seed).random(config.optimiser.starts - 1)
    found = [default]
    for place in places:
        at = {}
        for share, name in zip(place, default, strict=True):
            low, high = config.thresholds[name].bounds or (default[name], default[name])
            at[name] = low + float(share) * (high - low)
        found.append(in_order(at, ranges(config), ordered(config)))
    return tuple(found)


def _events(data: Data) -> int:
    """Number of events; padding has weight 0."""
    return sum(int(np.count_nonzero(group.weight)) for group in data.groups)


def _arrays(values: Mapping[str, float]) -> Thresholds:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}
