"""The optax loop: thresholds move along the gradient of the exact analysis; no I/O, no clock, no randomness.

Each threshold is measured in its own `step`, so that one learning rate suits GeV and discriminants alike, and stays
within its bounds by projection. The kernel of the boundary flux narrows from `bandwidth` to `bandwidth_end`: wide
ones see far, narrow ones have no bias. The objective itself never depends on a bandwidth. What counts in the end is
the best exact value seen, not the last.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float64, PyTree
from scipy.optimize import isotonic_regression

from pipeline.objective import Merit
from pipeline.selection import Thresholds

__all__ = ["Ordered", "Range", "Schedule", "Step", "bandwidths_at", "descend", "in_order", "make_optimiser"]

Evaluate = Callable[[Thresholds, Thresholds], tuple[tuple[Float64[Array, ""], Merit], Thresholds]]
"""(thresholds, bandwidths) to ((loss, figure of merit), gradient of the loss)."""


@dataclass(frozen=True)
class Range:
    """How a trainable threshold may move; all in the cut's own unit."""

    lower: float
    upper: float
    step: float
    bandwidth: float
    bandwidth_end: float


@dataclass(frozen=True)
class Ordered:
    """Thresholds that must rise, each by at least `distance`: the edges of bins. They share their bounds."""

    names: tuple[str, ...]
    distance: float


@dataclass(frozen=True)
class Schedule:
    """The optimiser and how long it runs; `name` is that of an optimiser in optax."""

    name: str
    arguments: Mapping[str, float]
    learning_rate: float
    decay_to: float
    steps: int


@dataclass(frozen=True)
class Step:
    """One evaluation of the loop, and the state that the next one starts from.

    Attributes:
        number: from 0.
        thresholds: where the analysis was evaluated, trainable cuts only.
        bandwidths: of the boundary flux.
        loss: what is minimised.
        merit: the figure of merit there.
        gradient: of the loss by each threshold, per unit of the cut.
        best_loss: the lowest so far, this step included.
        best: its thresholds.
        following: thresholds of the next step.
        state: the optimiser's, for the next step.
    """

    number: int
    thresholds: dict[str, float]
    bandwidths: dict[str, float]
    loss: float
    merit: Merit
    gradient: dict[str, float]
    best_loss: float
    best: dict[str, float]
    following: dict[str, float]
    state: PyTree


def descend(
    evaluate: Evaluate,
    ranges: Mapping[str, Range],
    start: Mapping[str, float],
    schedule: Schedule,
    ordered: Sequence[Ordered] = (),
    resume: Step | None = None,
) -> Iterator[Step]:
    """Yield one step after another; stop asking, and it stops.

    Args:
        evaluate: the analysis and its gradient.
        ranges: of the trainable thresholds.
        start: where they begin.
        schedule: the optimiser.
        ordered: thresholds that have to keep their order.
        resume: the last step of an earlier, interrupted loop: this one goes on bit-identically.
    """
    optimiser = make_optimiser(schedule)
    first = 0 if resume is None else resume.number + 1
    position = dict(start) if resume is None else resume.following
    state = optimiser.init(_scaled(position, ranges)) if resume is None else resume.state
    best, best_loss = (dict(start), np.inf) if resume is None else (resume.best, resume.best_loss)
    for number in range(first, schedule.steps):
        bandwidths = bandwidths_at(number / max(1, schedule.steps - 1), ranges)
        (loss, merit), gradient = evaluate(_arrays(position), _arrays(bandwidths))
        if bool(merit.converged) and float(loss) < best_loss:
            best, best_loss = position, float(loss)
        following, state = _move(optimiser, gradient, state, position, ranges)
        following = in_order(following, ranges, ordered)
        slope = {name: float(gradient[name]) for name in ranges}
        yield Step(number, position, bandwidths, float(loss), merit, slope, best_loss, best, following, state)
        position = following


def make_optimiser(schedule: Schedule) -> optax.GradientTransformation:
    """The optax optimiser of a schedule, with a learning rate that falls along a cosine.

    Raises:
        ValueError: optax has no such optimiser, or it does not take these arguments.
    """
    rate = optax.cosine_decay_schedule(schedule.learning_rate, schedule.steps, alpha=schedule.decay_to)
    make = getattr(optax, schedule.name, None)
    if make is None:
        raise ValueError(f"optimiser.name: optax has no optimiser '{schedule.name}'; use adam, sgd, rmsprop, …")
    try:
        if callable(make):
            inspect.signature(make).bind(rate, **schedule.arguments)
    except TypeError as error:
        raise ValueError(f"optimiser.arguments: optax.{schedule.name}: {error}") from None
    try:
        made: optax.GradientTransformation = make(rate, **schedule.arguments)
        _update(made, {"trial": jnp.ones(())}, made.init({"trial": jnp.ones(())}), {"trial": jnp.ones(())})
    except (TypeError, AttributeError):
        raise ValueError(
            f"optimiser.name: optax.{schedule.name} is not an optimiser that needs a learning rate and gradients only; "
            "use adam, sgd, rmsprop, …"
        ) from None
    return made


def bandwidths_at(progress: float, ranges: Mapping[str, Range]) -> dict[str, float]:
    """Bandwidths after a fraction of the steps: a geometric way from the first to the last."""
    return {name: r.bandwidth * (r.bandwidth_end / r.bandwidth) ** progress for name, r in ranges.items()}


def _move(
    optimiser: optax.GradientTransformation,
    gradient: Thresholds,
    state: PyTree,
    position: Mapping[str, float],
    ranges: Mapping[str, Range],
) -> tuple[dict[str, float], PyTree]:
    """One step of the optimiser in units of each threshold's own step, projected onto the bounds."""
    scaled = {name: gradient[name] * r.step for name, r in ranges.items()}
    update, state = _update(optimiser, scaled, state, _scaled(position, ranges))
    moved = {name: position[name] + float(update[name]) * r.step for name, r in ranges.items()}
    return {name: min(max(moved[name], r.lower), r.upper) for name, r in ranges.items()}, state


def in_order(position: dict[str, float], ranges: Mapping[str, Range], ordered: Sequence[Ordered]) -> dict[str, float]:
    """The nearest position in which all ordered thresholds keep their distance: isotonic regression, then bounds."""
    for one in ordered:
        offsets = one.distance * np.arange(len(one.names))
        rising = isotonic_regression(np.array([position[name] for name in one.names]) - offsets).x
        lower, upper = ranges[one.names[0]].lower, ranges[one.names[0]].upper - offsets[-1]
        placed = np.clip(rising, lower, upper) + offsets
        position = position | dict(zip(one.names, placed.tolist(), strict=True))
    return position


def _update(
    optimiser: optax.GradientTransformation, gradient: Thresholds, state: PyTree, position: Thresholds
) -> tuple[Thresholds, PyTree]:
    # optax mixes its float32 constants with float64 gradients; this alone is why promotion is relaxed, and only here.
    with jax.numpy_dtype_promotion("standard"):
        update, state = optimiser.update(gradient, state, position)
    return update, state


def _scaled(position: Mapping[str, float], ranges: Mapping[str, Range]) -> Thresholds:
    return _arrays({name: position[name] / r.step for name, r in ranges.items()})


def _arrays(values: Mapping[str, float]) -> Thresholds:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}
