"""The optax loop: thresholds move along the gradient of the exact analysis; no I/O, no clock, no randomness.

Each threshold is measured in its own `step`, so that one learning rate suits GeV and discriminants alike, and stays
within its bounds by projection. A step is one of its own unit, or of its rank among the events (`pipeline.scales`). The
kernel of the boundary flux narrows from `bandwidth` to `bandwidth_end`: wide
ones see far, narrow ones have no bias. The objective itself never depends on a bandwidth. What counts in the end is
the best exact value seen, not the last.

A derivative is an estimate from the simulated events near a boundary, and has an error. An optimiser such as Adam knows
only its size relative to earlier ones, so it turns numerical dust into a steady march. Hence each derivative g ± σ is
shrunk to g · max(0, 1 − (k σ / g)²), the positive-part James–Stein rule with k = `significance`: what is compatible
with zero is zero, what is certain stays as it is.

Where no event changes anything any more, such as behind a cut that leaves too few of them, no derivative tells the way
back: the next step is half of the way to the best place, with the networks of that place.

Networks move by optimisers of their own, at the same steps. The noise of their derivative is judged as one vector: most
single weights are within their error of zero, and to leave these out would keep a biased rest.

An optimiser that searches along a line (L-BFGS) compares losses that its own derivatives must explain. It needs a loss
that is smooth, not one of which the gradient is an estimate, and takes every derivative as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float64, PyTree
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pipeline.analysis import Evaluation, Gradient
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.scores import Network
from pipeline.inference.objectives import Merit
from pipeline.scales import OWN_UNIT, Scale
from pipeline.tuning.schedule import Schedule, make_optimiser, update_of

__all__ = [
    "Evaluate",
    "Learner",
    "Ordered",
    "Range",
    "Search",
    "State",
    "Step",
    "bandwidths_at",
    "descend",
    "first_state",
    "in_order",
]


Evaluate = Callable[[Thresholds, Thresholds], Evaluation]
"""(thresholds, bandwidths) to what is known there."""

Monitor = Callable[[Thresholds], float]
"""Parameters to the loss on events that the gradient does not see."""

Update = Callable[[Thresholds, PyTree, Thresholds], tuple[Thresholds, PyTree]]
"""(gradient, state, position) to (update of the position, state), in units of the steps."""

Search = Callable[[Thresholds, PyTree, Thresholds, Float64[Array, ""], Thresholds], tuple[Thresholds, PyTree]]
"""The same for an optimiser that evaluates the loss by itself: it wants to know the loss and the bandwidths, too."""


@dataclass(frozen=True)
class Range:
    """How a trainable threshold may move: between bounds in its own unit, by steps and with kernels on its scale."""

    lower: float
    upper: float
    step: float
    bandwidth: float
    bandwidth_end: float
    scale: Scale = OWN_UNIT


@dataclass(frozen=True)
class Learner:
    """How a network is trained: where it starts, its optimiser, and the kernel at the edges, in widths of bins."""

    start: Network
    optimiser: optax.GradientTransformation
    bandwidth: float


class State(NamedTuple):
    """What a step leaves to the next one, besides thresholds: all arrays.

    `optimiser` is the state of the thresholds' one, `moments` those of the networks'; `networks` are those of the next
    step, and `best` those of the best step so far.
    """

    optimiser: PyTree
    networks: dict[str, Network]
    moments: dict[str, PyTree]
    best: dict[str, Network]


@dataclass(frozen=True)
class Ordered:
    """Thresholds that must rise: the edges of bins. They share their bounds and their scale.

    Attributes:
        names: in their order.
        distance: of neighbours at least, in their own unit.
        apart: likewise on their scale. Two edges pressed together would stay so: the derivative does not tell what the
            bin between them could be worth.
    """

    names: tuple[str, ...]
    distance: float
    apart: float = 0.0


@dataclass(frozen=True)
class Step:
    """One evaluation of the loop, and the state that the next one starts from.

    Attributes:
        number: from 0, through all starts; each has `Schedule.steps` numbers, of which a patient loop may leave out the
            last ones.
        thresholds: where the analysis was evaluated, trainable cuts only.
        bandwidths: of the boundary flux, each in the unit of its cut.
        loss: what is minimised.
        merit: the figure of merit there.
        gradient: of the loss by each threshold, per unit of the cut.
        error: statistical error of the gradient, likewise.
        monitored: the loss on the events of the monitor; the loss itself without one.
        best_loss: the lowest monitored loss so far, this step included, of all starts.
        best: its thresholds.
        best_number: its number; −1 as long as no fit has converged.
        lowest: the lowest monitored loss of this start.
        waited: steps since then.
        following: thresholds of the next step, if this start goes on.
        state: of the optimisers, for the next step; of the last step of an interrupted loop that is all one needs.
        networks: where the analysis was evaluated; a step that is read from a checkpoint has none.
        network_gradient: length of the gradient by the weights of each network, and of its noise.
    """

    number: int
    thresholds: dict[str, float]
    bandwidths: dict[str, float]
    loss: float
    merit: Merit
    gradient: dict[str, float]
    error: dict[str, float]
    monitored: float
    best_loss: float
    best: dict[str, float]
    best_number: int
    lowest: float
    waited: int
    following: dict[str, float]
    state: State | None
    networks: dict[str, Network] | None = None
    network_gradient: dict[str, tuple[float, float]] = field(default_factory=dict)


def descend(
    evaluate: Evaluate,
    ranges: Mapping[str, Range],
    starts: Sequence[Mapping[str, float]],
    schedule: Schedule,
    ordered: Sequence[Ordered] = (),
    monitor: Monitor | None = None,
    search: Search | None = None,
    resume: Step | None = None,
    learners: Mapping[str, Learner] | None = None,
) -> Iterator[Step]:
    """Yield one step after another; stop asking, and it stops.

    Args:
        evaluate: the analysis and its gradient.
        ranges: of the trainable thresholds.
        starts: where they begin, one start after the other; the best of all steps is kept.
        schedule: the optimiser.
        ordered: thresholds that have to keep their order.
        monitor: judges which step is the best; without it the loss does.
        search: the step of the optimiser, where it needs more than a gradient (`pipeline.tuning.line_search`).
        resume: the last step of an earlier, interrupted loop: this one goes on bit-identically.
        learners: the networks that are trained, by the names of their scores.
    """
    learners, optimiser, taken = learners or {}, make_optimiser(schedule), resume
    of_networks = {name: learner.bandwidth for name, learner in learners.items()}
    while (place := _next_place(taken, ranges, starts, schedule, learners)) is not None:
        widths = bandwidths_at((place.number % schedule.steps) / max(1, schedule.steps - 1), ranges)
        slopes = {name: r.scale.slope(place.thresholds[name], widths[name]) for name, r in ranges.items()}
        bandwidths = {name: width * slopes[name] for name, width in widths.items()}
        parameters = arrays({**place.thresholds, **place.state.networks})
        here = evaluate(parameters, arrays(bandwidths | of_networks))
        usable = bool(here.merit.converged)
        monitored = float(here.loss) if monitor is None else monitor(parameters)
        best, best_loss, best_number = place.thresholds, np.inf, -1
        best_networks = place.state.best
        if taken is not None:
            best, best_loss, best_number = taken.best, taken.best_loss, taken.best_number
        if usable and monitored < best_loss:
            best, best_loss, best_number = place.thresholds, monitored, place.number
            best_networks = place.state.networks
        improved = usable and monitored < place.lowest
        if search is None:
            update: Update = partial(update_of, optimiser)
            certain = _without_dust(here.gradient, schedule.significance)
        else:
            update, certain = _along(search, here.loss, arrays(bandwidths)), here.gradient.value
        following, state = _move(update, certain, place.state.optimiser, place.thresholds, ranges, slopes)
        networks, moments = _trained(learners, place.state, certain)
        if search is None and monitored > best_loss and _is_plain(here.gradient):
            following, networks = _halfway(place.thresholds, best, ranges), dict(best_networks)
        taken = Step(
            number=place.number,
            thresholds=place.thresholds,
            bandwidths=bandwidths,
            loss=float(here.loss),
            merit=here.merit,
            gradient={name: float(here.gradient.value[name]) for name in ranges},
            error={name: float(here.gradient.error[name]) for name in ranges},
            monitored=monitored,
            best_loss=best_loss,
            best=best,
            best_number=best_number,
            lowest=monitored if improved else place.lowest,
            waited=0 if improved else place.waited + 1,
            following=in_order(following, ranges, ordered),
            state=State(state, networks, moments, best_networks),
            networks=place.state.networks,
            network_gradient={
                name: (float(_length(here.gradient.value[name])), float(here.gradient.error[name])) for name in learners
            },
        )
        yield taken


class _Place(NamedTuple):
    """Where a step begins: what it has from the one before."""

    number: int
    thresholds: dict[str, float]
    state: State
    lowest: float
    waited: int


def first_state(
    start: Mapping[str, float], ranges: Mapping[str, Range], schedule: Schedule, learners: Mapping[str, Learner]
) -> State:
    """What the first step of a start begins with."""
    networks = {name: learner.start for name, learner in learners.items()}
    moments = {name: learner.optimiser.init(learner.start.weights) for name, learner in learners.items()}
    return State(make_optimiser(schedule).init(_scaled(start, ranges)), networks, moments, networks)


def _next_place(
    taken: Step | None,
    ranges: Mapping[str, Range],
    starts: Sequence[Mapping[str, float]],
    schedule: Schedule,
    learners: Mapping[str, Learner],
) -> _Place | None:
    """After a step of a start that goes on: where it led. Else the next start, or None after the last one."""
    start = 0
    if taken is not None:
        start, number = divmod(taken.number, schedule.steps)
        given_up = schedule.patience is not None and taken.waited >= schedule.patience
        if number + 1 < schedule.steps and not given_up and taken.state is not None:
            return _Place(taken.number + 1, taken.following, taken.state, taken.lowest, taken.waited)
        start += 1
    if start == len(starts):
        return None
    begin = dict(starts[start])
    state = first_state(begin, ranges, schedule, learners)
    if taken is not None and taken.state is not None:
        state = state._replace(best=taken.state.best)
    return _Place(start * schedule.steps, begin, state, np.inf, 0)


def _without_dust(gradient: Gradient, significance: float) -> Thresholds:
    """The derivatives, shrunk by the rule at the head of this module."""
    kept = {}
    for name, value in gradient.value.items():
        dust, size = significance * gradient.error[name], _length(value)
        factor = jnp.maximum(0.0, 1.0 - (dust / jnp.where(size == 0, 1.0, size)) ** 2)
        kept[name] = jax.tree.map(lambda each, factor=factor: each * factor, value)
    return kept


def _length(value: PyTree) -> Array:
    return jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(value)), start=jnp.zeros(())))


def _trained(
    learners: Mapping[str, Learner], state: State, gradient: Thresholds
) -> tuple[dict[str, Network], dict[str, PyTree]]:
    """One step of the optimiser of each network."""
    networks, moments = dict(state.networks), dict(state.moments)
    for name, learner in learners.items():
        weights = state.networks[name].weights
        slope = jax.tree.map(lambda each, weight: each.astype(weight.dtype), gradient[name], weights)
        change, moments[name] = update_of(learner.optimiser, slope, state.moments[name], weights)
        moved = jax.tree.map(lambda weight, step: weight + step.astype(weight.dtype), weights, change)
        networks[name] = eqx.tree_at(lambda each: each.weights, state.networks[name], moved)
    return networks, moments


def _is_plain(gradient: Gradient) -> bool:
    """Whether no event is near any threshold that would change anything: nothing tells the way."""
    return not any(float(_length(each)) for each in (*gradient.value.values(), *gradient.error.values()))


def _halfway(position: Mapping[str, float], best: Mapping[str, float], ranges: Mapping[str, Range]) -> dict[str, float]:
    """Between a place and a better one."""
    return {
        name: r.scale.value((r.scale.place(position[name]) + r.scale.place(best[name])) / 2)
        for name, r in ranges.items()
    }


def bandwidths_at(progress: float, ranges: Mapping[str, Range]) -> dict[str, float]:
    """Bandwidths on the scales after a fraction of the steps: a geometric way from the first to the last."""
    return {name: r.bandwidth * (r.bandwidth_end / r.bandwidth) ** progress for name, r in ranges.items()}


def _along(search: Search, loss: Float64[Array, ""], bandwidths: Thresholds) -> Update:
    def update(gradient: Thresholds, state: PyTree, position: Thresholds) -> tuple[Thresholds, PyTree]:
        return search(gradient, state, position, loss, bandwidths)

    return update


def _move(
    update: Update,
    gradient: Thresholds,
    state: PyTree,
    position: Mapping[str, float],
    ranges: Mapping[str, Range],
    slopes: Mapping[str, float],
) -> tuple[dict[str, float], PyTree]:
    """One step of the optimiser in units of each threshold's own step, projected onto the bounds."""
    scaled = {name: gradient[name] * slopes[name] * r.step for name, r in ranges.items()}
    change, state = update(scaled, state, _scaled(position, ranges))
    moved = {
        name: r.scale.value(r.scale.place(position[name]) + float(change[name]) * r.step) for name, r in ranges.items()
    }
    return {name: min(max(moved[name], r.lower), r.upper) for name, r in ranges.items()}, state


def in_order(position: dict[str, float], ranges: Mapping[str, Range], ordered: Sequence[Ordered]) -> dict[str, float]:
    """The nearest position in which all ordered thresholds keep their distance: on their scale, then in their unit."""
    for edges in ordered:
        limits = ranges[edges.names[0]]
        scale = limits.scale
        values = np.array([position[name] for name in edges.names])
        if edges.apart > 0:
            bounds = scale.place(limits.lower), scale.place(limits.upper)
            places = _spaced(np.array([scale.place(value) for value in values]), edges.apart, *bounds)
            values = np.array([scale.value(place) for place in places])
        values = _spaced(values, edges.distance, limits.lower, limits.upper)
        position = position | dict(zip(edges.names, values.tolist(), strict=True))
    return position


def _spaced(values: NDArray[np.float64], distance: float, lower: float, upper: float) -> NDArray[np.float64]:
    """The nearest values that rise by a distance: isotonic regression, then bounds."""
    offsets = distance * np.arange(len(values))
    rising = isotonic_regression(values - offsets).x
    return np.asarray(np.clip(rising, lower, upper - offsets[-1]) + offsets)


def _scaled(position: Mapping[str, float], ranges: Mapping[str, Range]) -> Thresholds:
    return arrays({name: r.scale.place(position[name]) / r.step for name, r in ranges.items()})
