"""All methods on one division of the events: who finds what for its money, and what is it worth on other events?"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from pipeline.analysis import Data, merit_of
from pipeline.events.cuts import arrays
from pipeline.inference.objectives import loss_of
from pipeline.problem import Problem
from pipeline.tuning.ranges import Range
from pipeline.tuning.schedule import schedule
from pipeline.tuning.tune import defaults, evaluation, ordered, ranges
from pipeline.validation.bootstrap import bootstrap

from baselines.counting import Counted, Visit, best_of
from baselines.gradients import along_differences, along_flux
from baselines.methods import METHODS, search

__all__ = [
    "DEFAULT",
    "DIFFERENCES",
    "OURS",
    "STAGES",
    "Contest",
    "Point",
    "ahead",
    "ahead_on_validation",
    "compete",
    "start_near",
]

OURS, DIFFERENCES, DEFAULT = "boundary flux", "finite differences", "default cuts"
"""Names beside those of `baselines.methods`."""

STAGES = ("evaluations", "time", "factor")
"""What a method had spent: as many evaluations as ours, as much time, or some factor more evaluations."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """The best point that a method had by some stage.

    `validation`, `gain` (minus the default cuts) and `lead` (minus the boundary flux) are values of the figure of merit
    on validation events, each with its bootstrap error.
    """

    training: float
    thresholds: dict[str, float]
    validation: Pair
    gain: Pair
    lead: Pair


@dataclass(frozen=True)
class Contest:
    """One seed. `points` are keyed by method, then by stage; `gradient_cost` is in evaluations."""

    seed: int
    start: dict[str, float]
    gradient_cost: float
    seconds_per_evaluation: float
    larger_is_better: bool
    visits: dict[str, list[Visit]]
    points: dict[str, dict[str, Point]]


def compete(
    problem: Problem, others: Sequence[str], factor: float, spread: float, replicas: int, say: Callable[[str], None]
) -> Contest:
    """Run every method, then look at the validation events.

    Args:
        problem: what is tuned.
        others: the methods beside ours.
        factor: evaluations that the others may spend, over those of the boundary flux.
        spread: of the start around the default cuts, as a part of the bounds.
        replicas: of the bootstrap.
        say: gets a line from each method that is through.
    """
    config, analysis = problem.config, problem.analysis
    default = defaults(config)
    allowed, plan = ranges(config, problem.kernels), schedule(config)
    start = start_near(default, allowed, spread, config.seed)

    def loss(thresholds: Mapping[str, float]) -> tuple[float, bool]:
        merit = merit_of(analysis, arrays({**default, **thresholds}), problem.training)
        return float(loss_of(analysis.objective, merit)), bool(merit.converged)

    evaluate = evaluation(problem)
    widths = arrays(problem.bandwidths)
    seconds, with_gradient = least_seconds(lambda: loss(start), lambda: evaluate(arrays(start), widths))
    cost = with_gradient / seconds

    make = partial(Counted, loss, allowed, ordered=ordered(config, problem.kernels))
    counted = {OURS: make(budget=np.inf)}
    along_flux(counted[OURS], problem, start, cost)
    ours = counted[OURS]
    rivals = {**METHODS, DIFFERENCES: lambda rival, _, seed: along_differences(rival, start, plan, seed)}
    for name in others:
        method = rivals[name]
        counted[name] = make(budget=factor * ours.spent)
        search(method, counted[name], ours.place_of(start), config.seed)
        best = best_of(counted[name].visits).loss
        say(f"seed {config.seed}, {name}: {counted[name].spent:.0f} evaluations, best loss {best:.5g}")
    limits = {
        "evaluations": (ours.spent, np.inf),
        "time": (np.inf, ours.visits[-1].seconds),
        "factor": (factor * ours.spent, np.inf),
    }
    visits = {name: spent.visits for name, spent in counted.items()}
    best = {name: {stage: best_of(seen, *limit) for stage, limit in limits.items()} for name, seen in visits.items()}
    return Contest(
        seed=config.seed,
        start=start,
        gradient_cost=cost,
        seconds_per_evaluation=seconds,
        larger_is_better=analysis.objective.larger_is_better,
        visits=visits,
        points=judge(problem, best, replicas),
    )


def judge(problem: Problem, best: Mapping[str, Mapping[str, Visit]], replicas: int) -> dict[str, dict[str, Point]]:
    """The same points on validation events; all of them see the same bootstrap replicas."""
    default = defaults(problem.config)
    untouched = Visit(0.0, 0.0, np.inf, default)
    best = {**best, DEFAULT: dict.fromkeys(STAGES, untouched)}
    keys = {tuple({**default, **visit.thresholds}.values()) for stages in best.values() for visit in stages.values()}
    row = {key: number for number, key in enumerate(keys)}
    points = [arrays(dict(zip(default, key, strict=True))) for key in row]

    def value(thresholds: Mapping[str, jax.Array], data: Data) -> float:
        return float(merit_of(problem.analysis, dict(thresholds), data).value)

    training = [value(point, problem.training) for point in points]
    exact = [value(point, problem.validation) for point in points]
    spread = bootstrap(value, points, problem.validation, replicas, problem.config.seed)

    def row_of(visit: Visit) -> int:
        return row[tuple({**default, **visit.thresholds}.values())]

    def minus(one: int, other: int) -> Pair:
        return exact[one] - exact[other], float(np.std(spread[:, one] - spread[:, other], ddof=1))

    def point(visit: Visit, stage: str) -> Point:
        here = row_of(visit)
        return Point(
            training=training[here],
            thresholds=visit.thresholds,
            validation=(exact[here], float(np.std(spread[:, here], ddof=1))),
            gain=minus(here, row_of(untouched)),
            lead=minus(here, row_of(best[OURS][stage])),
        )

    return {name: {stage: point(visit, stage) for stage, visit in stages.items()} for name, stages in best.items()}


def ahead(contest: Contest, stage: str) -> dict[str, float]:
    """The methods that have a better value than the boundary flux on training events, and by which part of it."""
    sign = 1.0 if contest.larger_is_better else -1.0
    ours = contest.points[OURS][stage].training
    leads = {name: sign * (stages[stage].training - ours) / abs(ours) for name, stages in contest.points.items()}
    return {name: lead for name, lead in leads.items() if lead > 0}


def ahead_on_validation(contest: Contest, stage: str) -> dict[str, Pair]:
    """The methods that have a better value than the boundary flux on validation events: by how much, and its error."""
    sign = 1.0 if contest.larger_is_better else -1.0
    leads = {name: (sign * stages[stage].lead[0], stages[stage].lead[1]) for name, stages in contest.points.items()}
    return {name: lead for name, lead in leads.items() if lead[0] > 0}


def start_near(
    default: Mapping[str, float], allowed: Mapping[str, Range], spread: float, seed: int
) -> dict[str, float]:
    """A random place not farther from the default cuts than a part of the bounds."""
    generator = np.random.default_rng(seed)
    moved = {
        n: default[n] + float(generator.uniform(-spread, spread)) * (r.upper - r.lower) for n, r in allowed.items()
    }
    return {name: min(max(moved[name], r.lower), r.upper) for name, r in allowed.items()}


def least_seconds(*calls: Callable[[], Any], repeat: int = 9) -> list[float]:
    """Of each call, after one that compiles; taken in turns, because other programs may load the machine."""
    least = [math.inf] * len(calls)
    for turn in range(repeat + 1):
        for number, call in enumerate(calls):
            started = time.perf_counter()
            jax.block_until_ready(call())
            if turn > 0:
                least[number] = min(least[number], time.perf_counter() - started)
    return least
