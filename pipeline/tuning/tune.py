"""Tuning: the loop of `pipeline.tuning.descent` on a problem, with what its config says.

It yields steps and knows nobody who looks at them: who wants to show, keep or stop them does so between two of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float64
from scipy.stats import qmc

from pipeline import analysis as exact
from pipeline.analysis import Analysis, Evaluation, Gradient
from pipeline.config import Config
from pipeline.config.selection import Threshold
from pipeline.event_data import Data, Stream
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.scores import Network
from pipeline.inference.objectives import loss_of
from pipeline.ingest.manifest import InputError
from pipeline.problem import Problem
from pipeline.scales import OWN_UNIT, Kernel, Rank, apart
from pipeline.tuning.descent import Evaluate, Learner, Monitor, Search, descend, last_step
from pipeline.tuning.line_search import LossAndGradient, make_search
from pipeline.tuning.polish import polished
from pipeline.tuning.ranges import Ordered, Range, in_order
from pipeline.tuning.schedule import make_learner, make_optimiser, schedule, searches
from pipeline.tuning.steps import Step

__all__ = [
    "Look",
    "Tuned",
    "defaults",
    "evaluation",
    "exact_evaluation",
    "learners",
    "ordered",
    "ranges",
    "starts",
    "tune",
]


NO_KERNELS: Mapping[str, Kernel] = {}

MOST_OUTCOMES = 100.0
"""Of an event on average in a smooth analysis. Kernels of sensible width lead to one or two; with more than this many a
step takes minutes."""


@dataclass(frozen=True)
class Tuned:
    """A problem and the steps of its optimisation.

    Attributes:
        problem: with its bandwidths.
        history: at least one step.
        complete: whether these are all steps; False for an optimisation that was stopped.
        seconds: of the first step, which compiles, and of the others.

    Raises:
        InputError: no step had a converged fit.
    """

    problem: Problem
    history: tuple[Step, ...]
    complete: bool = True
    seconds: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """A best step is what everything else is about."""
        if not np.isfinite(self.history[-1].best_loss):
            raise InputError(
                "no step of the optimisation had a converged fit; check the cuts and the samples of the config"
            )

    @property
    def best(self) -> dict[str, Any]:
        """All parameters: thresholds and networks of the best step, and what does not move."""
        last = self.history[-1]
        return self.problem.defaults | last.best | (last.state.best if last.state is not None else {})


def defaults(config: Config) -> dict[str, float]:
    """All thresholds, trainable or not, where the config puts them."""
    return {name: cut.threshold for name, cut in config.thresholds.items()}


def learners(problem: Problem) -> dict[str, Learner]:
    """The networks that are trained."""
    return {
        name: Learner(problem.networks[name], make_learner(each, schedule(problem.config)), each.bandwidth)
        for name, each in problem.config.observables.items()
        if each.trainable
    }


@dataclass(frozen=True)
class Look:
    """One value of the exact loss of the training events, without gradient, before the steps or after them.

    Attributes:
        stage: "scouts" or "polish".
        number: of the look, from 1.
        total: how many there will be in this stage, at most.
        thresholds: where.
        loss: infinite where the fit did not converge.
    """

    stage: Literal["scouts", "polish"]
    number: int
    total: int
    thresholds: dict[str, float]
    loss: float


Watch = Callable[[Look], None]
"""Who wants to know of the looks."""


def tune(
    problem: Problem,
    resume: Step | None = None,
    watch: Watch = lambda _: None,
    start: Mapping[str, float] | None = None,
) -> Iterator[Step]:
    """One step of the optimisation after another; stop asking, and it stops.

    Args:
        problem: what is tuned, with bandwidths (`Problem.with_bandwidths`).
        resume: the last step of an interrupted optimisation, which this one goes on from, bit by bit.
        watch: is told of each look at the loss between the steps.
        start: where the first start is, if not at the default cuts.

    Raises:
        InputError: a smooth analysis would cost too much.
    """
    config, optimiser = problem.config, problem.config.optimiser
    if optimiser.forward == "smooth":
        _check_price(problem)
    taken, monitor = resume, _monitor(problem)
    places = _places(problem, watch, start)
    for taken in descend(
        evaluation(problem),
        ranges(config, problem.kernels),
        places[: optimiser.starts],
        schedule(config),
        ordered(config, problem.kernels),
        monitor=monitor,
        search=_search(problem),
        resume=resume,
        learners=learners(problem),
        offered=places[optimiser.starts :],
    ):
        yield taken
    if optimiser.polish and taken is not None and taken.number + 1 < optimiser.numbers:
        widths = {name: learner.bandwidth for name, learner in learners(problem).items()}
        place, stopped = _polished(problem, taken, watch)
        yield last_step(evaluation(problem), place, taken, optimiser.numbers - 1, widths, monitor)
        if stopped:
            raise KeyboardInterrupt


def _places(problem: Problem, watch: Watch, start: Mapping[str, float] | None) -> tuple[Mapping[str, float], ...]:
    """Where the steps may begin: the default cuts and further places; the best ones first if scouts look at them."""
    config = problem.config
    places = starts(config, problem.kernels)
    if start is not None:
        places = (dict(start), *places[1:])
    if config.optimiser.scouts == 0:
        return places
    loss = _watched(problem, problem.networks, watch, "scouts", len(places))
    losses = [loss(place) for place in places]
    return tuple(places[place] for place in np.argsort(losses, kind="stable"))


def _polished(problem: Problem, last: Step, watch: Watch) -> tuple[dict[str, float], bool]:
    """The best of some places near the best step, on the training events; and whether Ctrl-C has ended it before."""
    looks: list[Look] = []

    def watch_and_keep(look: Look) -> None:
        looks.append(look)
        watch(look)

    config, evaluations = problem.config, problem.config.optimiser.polish
    networks = last.state.best if last.state is not None else {}
    loss = _watched(problem, networks, watch_and_keep, "polish", evaluations)
    limits = ranges(config, problem.kernels), ordered(config, problem.kernels)
    try:
        return polished(loss, last.best, *limits, evaluations), False
    except KeyboardInterrupt:
        return min(looks, key=lambda look: look.loss).thresholds if looks else last.best, True


def _watched(
    problem: Problem,
    networks: Mapping[str, Network],
    watch: Watch,
    stage: Literal["scouts", "polish"],
    total: int,
) -> Callable[[Mapping[str, float]], float]:
    """The exact loss on the training events, and who watches."""
    numbers = count(1)
    exact_loss = _loss_on(problem, problem.training)

    def loss(thresholds: Mapping[str, float]) -> float:
        value = exact_loss(arrays({**thresholds, **networks}))
        watch(Look(stage, next(numbers), total, dict(thresholds), value))
        return value

    return loss


def evaluation(problem: Problem) -> Evaluate:
    """The analysis of the training events and its gradient, as the loop asks for it.

    A smooth analysis gives loss and gradient; the figure of merit and the error of the gradient are those of the exact
    one, beside it.
    """
    fixed = arrays(problem.defaults)
    exactly = exact_evaluation(problem.analysis, fixed, problem.training)
    if problem.config.optimiser.forward == "exact":
        return exactly
    smooth = _smooth_loss_and_gradient(problem)

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> Evaluation:
        loss, slope = smooth(thresholds, bandwidths)
        beside = exactly(thresholds, bandwidths)
        gradient = Gradient(value=slope, error=beside.gradient.error)
        return Evaluation(loss=loss, merit=beside.merit, gradient=gradient)

    return evaluate


def exact_evaluation(analysis: Analysis, fixed: Thresholds, data: Data | Stream) -> Evaluate:
    """The exact analysis of some events, with the boundary flux as gradient; `fixed` are thresholds that stay."""

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> Evaluation:
        return exact.evaluate(analysis, fixed | thresholds, bandwidths, data)

    return evaluate


def _smooth_loss_and_gradient(problem: Problem) -> LossAndGradient:
    fixed = arrays(problem.defaults)

    def loss_and_gradient(thresholds: Thresholds, bandwidths: Thresholds) -> tuple[Float64[Array, ""], Thresholds]:
        at = fixed | thresholds
        smooth = exact.evaluate(problem.analysis, at, bandwidths, problem.training, smooth=True)
        return smooth.loss, smooth.gradient.value

    return loss_and_gradient


def _search(problem: Problem) -> Search | None:
    """The step of an optimiser that evaluates the smooth loss by itself; None for the others."""
    config = problem.config
    optimiser = make_optimiser(schedule(config))
    if not searches(optimiser):
        return None
    return make_search(
        optimiser, _smooth_loss_and_gradient(problem), ranges(config, problem.kernels), ordered(config, problem.kernels)
    )


def _check_price(problem: Problem) -> None:
    """A smooth analysis multiplies with every jet near a threshold; told before it starts."""
    widths = arrays({name: r.bandwidth for name, r in ranges(problem.config, problem.kernels).items()})
    at = arrays(problem.defaults)
    if isinstance(problem.training, Stream):
        raise InputError(
            "optimiser.forward: smooth needs all events in memory, and they take more than it shall hold; choose "
            "'exact', or allow more with data.memory"
        )
    price = exact.outcomes_per_event(problem.analysis, at, widths, problem.training)
    if price > MOST_OUTCOMES:
        raise InputError(
            f"optimiser.forward: smooth would look at {price:.3g} outcomes an event with these bandwidths; "
            "make those of the cuts on jets narrower, or choose 'exact'"
        )


def _monitor(problem: Problem) -> Monitor | None:
    """The exact loss that decides which step is the best, if it is another than that of the steps."""
    if problem.stopping is None and problem.config.optimiser.forward == "exact":
        return None
    return _loss_on(problem, problem.stopping or problem.training)


def _loss_on(problem: Problem, data: Data | Stream) -> Monitor:
    """The exact loss on some events; infinite where the fit did not converge."""
    fixed = arrays(problem.defaults)

    def loss(thresholds: Thresholds) -> float:
        merit = exact.merit_of(problem.analysis, fixed | thresholds, data)
        return float(loss_of(problem.analysis.objective, merit)) if bool(merit.converged) else np.inf

    return loss


def ranges(config: Config, kernels: Mapping[str, Kernel] = NO_KERNELS) -> dict[str, Range]:
    """How the trainable thresholds may move, with the kernels that were chosen where the config gives none."""
    moving = {}
    for name, cut in config.thresholds.items():
        kernel = kernels.get(name) or _given(cut)
        if cut.trainable and cut.bounds is not None and kernel is not None:
            moving[name] = Range(*cut.bounds, kernel.step, kernel.bandwidth, kernel.bandwidth_end, kernel.scale)
    return moving


def _given(cut: Threshold) -> Kernel | None:
    if cut.bandwidth is None:
        return None
    return Kernel(OWN_UNIT, cut.typical_step, cut.bandwidth, cut.bandwidth_end or cut.bandwidth)


def ordered(config: Config, kernels: Mapping[str, Kernel] = NO_KERNELS) -> tuple[Ordered, ...]:
    """The bin edges that move, region by region, and the sides of windows.

    In rank they stay apart (`pipeline.scales.apart`).
    """
    rising = []
    for names, distance in config.rising:
        scale = kernels[names[0]].scale if names[0] in kernels else OWN_UNIT
        rising.append(Ordered(names, distance, apart(scale.span, len(names)) if isinstance(scale, Rank) else 0.0))
    return tuple(rising)


def starts(config: Config, kernels: Mapping[str, Kernel] = NO_KERNELS) -> tuple[dict[str, float], ...]:
    """The default thresholds, and further places within the bounds: a Latin hypercube, the same for the same seed.

    As many further ones as there are further starts, or scouts if these are more.
    """
    default = {name: cut.threshold for name, cut in config.thresholds.items() if cut.trainable}
    number = max(config.optimiser.starts - 1, config.optimiser.scouts)
    places = qmc.LatinHypercube(len(default), rng=config.seed).random(number)
    moving, points = ranges(config, kernels), [default]
    for place in places:
        at = {}
        for share, name in zip(place, default, strict=True):
            scale = moving[name].scale
            low, high = scale.place(moving[name].lower), scale.place(moving[name].upper)
            at[name] = scale.value(low + float(share) * (high - low))
        points.append(in_order(at, moving, ordered(config, kernels)))
    return tuple(points)
