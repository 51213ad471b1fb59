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
back: the next step is half of the way to the best place, with the networks of that place. Where nothing moves for want
of a clear derivative, or in a corner of the bounds, the optimiser begins anew at the next place that somebody offers.

Networks move by optimisers of their own, at the same steps. The noise of their derivative is judged as one vector: most
single weights are within their error of zero, and to leave these out would keep a biased rest.

An optimiser that searches along a line (L-BFGS) compares losses that its own derivatives must explain. It needs a loss
that is smooth, not one of which the gradient is an estimate, and takes every derivative as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float64, PyTree

from pipeline.analysis import Evaluation, Gradient
from pipeline.errors import InputError
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.scores import Network
from pipeline.inference.objectives import Merit
from pipeline.tuning.ranges import Ordered, Range, in_order
from pipeline.tuning.schedule import Schedule, make_optimiser, update_of
from pipeline.tuning.steps import State, Step

__all__ = [
    "Evaluate",
    "Learner",
    "Search",
    "bandwidths_at",
    "descend",
    "first_state",
    "last_step",
]


NO_MOVE = 1e-9
"""In typical steps."""

Evaluate = Callable[[Thresholds, Thresholds], Evaluation]
"""(thresholds, bandwidths) to what is known there."""

Monitor = Callable[[Thresholds], float]
"""Parameters to the loss on events that the gradient does not see."""

Update = Callable[[Thresholds, PyTree, Thresholds], tuple[Thresholds, PyTree]]
"""(gradient, state, position) to (update of the position, state), in units of the steps."""

Search = Callable[[Thresholds, PyTree, Thresholds, Float64[Array, ""], Thresholds], tuple[Thresholds, PyTree]]
"""The same for an optimiser that evaluates the loss by itself: it wants to know the loss and the bandwidths, too."""


@dataclass(frozen=True)
class Learner:
    """How a network is trained: where it starts, its optimiser, and the kernel at the edges, in widths of bins."""

    start: Network
    optimiser: optax.GradientTransformation
    bandwidth: float


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
    offered: Sequence[Mapping[str, float]] = (),
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
        offered: places where the optimiser may begin anew, the best ones first. Networks never do.
    """
    learners, optimiser, taken = learners or {}, make_optimiser(schedule), resume
    of_networks = {name: learner.bandwidth for name, learner in learners.items()}
    while (place := _next_place(taken, ranges, starts, schedule, learners)) is not None:
        widths = bandwidths_at((place.number % schedule.steps) / max(1, schedule.steps - 1), ranges)
        slopes = {name: r.scale.slope(place.thresholds[name], widths[name]) for name, r in ranges.items()}
        bandwidths = {name: width * slopes[name] for name, width in widths.items()}
        here = _seen_at(place, bandwidths | of_networks, evaluate, monitor)
        if search is None:
            update: Update = partial(update_of, optimiser)
            certain = _without_dust(here.gradient, schedule.significance)
        else:
            update, certain = _along(search, here.loss, arrays(bandwidths)), here.gradient.value
        following, state = _move(update, certain, place.state.optimiser, place.thresholds, ranges, slopes)
        networks, moments = _trained(learners, place.state, certain)
        best = _best(place, here, taken)
        if search is None and here.monitored > best.loss and _is_plain(here.gradient):
            following, networks = _halfway(place.thresholds, best.thresholds, ranges), dict(best.networks)
        following, renewals = in_order(following, ranges, ordered), place.renewals
        if renewals < len(offered) and not learners and _stays(place.thresholds, following, ranges):
            following, renewals = dict(offered[renewals]), renewals + 1
            state = optimiser.init(_scaled(following, ranges))
        state = State(state, networks, moments, best.networks)
        taken = _taken(place, bandwidths, here, best, following, state, renewals)
        yield taken


def last_step(
    evaluate: Evaluate,
    thresholds: Mapping[str, float],
    last: Step,
    number: int,
    bandwidths: Mapping[str, float],
    monitor: Monitor | None = None,
) -> Step:
    """One more step, at a place that something else than the gradient has found, with the networks of the best one.

    Args:
        evaluate: as for `descend`.
        thresholds: the place.
        last: the last step of all starts, with its state.
        number: of the new one.
        bandwidths: of the networks.
        monitor: as for `descend`.
    """
    assert last.state is not None
    state = last.state._replace(networks=last.state.best)
    place = _Place(number, dict(thresholds), state, last.lowest, last.waited, last.renewals)
    here = _seen_at(place, last.bandwidths | dict(bandwidths), evaluate, monitor)
    best = _best(place, here, last)
    state = state._replace(best=best.networks)
    return _taken(place, last.bandwidths, here, best, place.thresholds, state, last.renewals)


class _Seen(NamedTuple):
    """An evaluation, and the loss on the events of the monitor; without one, the loss itself."""

    loss: Array
    merit: Merit
    gradient: Gradient
    monitored: float

    @property
    def usable(self) -> bool:
        """Whether the fit has converged."""
        return bool(self.merit.converged)


class _Best(NamedTuple):
    """The best of all steps so far."""

    loss: float
    thresholds: dict[str, float]
    number: int
    networks: dict[str, Network]


def _seen_at(place: "_Place", bandwidths: Mapping[str, float], evaluate: Evaluate, monitor: Monitor | None) -> _Seen:
    parameters = arrays({**place.thresholds, **place.state.networks})
    here = evaluate(parameters, arrays(bandwidths))
    without = [name for name in bandwidths if name in place.thresholds and np.isnan(here.gradient.value[name])]
    if without and bool(here.merit.converged) and np.isfinite(here.loss):
        raise InputError(
            f"step {place.number}: the derivative by {', '.join(without)} is not a number, though the loss is; "
            "something that the event function makes has none in some event (the root of 0, say): guard it by jnp.where"
        )
    monitored = float(here.loss) if monitor is None else monitor(parameters)
    return _Seen(here.loss, here.merit, here.gradient, monitored)


def _best(place: "_Place", here: _Seen, before: Step | None) -> _Best:
    if here.usable and here.monitored < (np.inf if before is None else before.best_loss):
        return _Best(here.monitored, place.thresholds, place.number, place.state.networks)
    if before is None:
        return _Best(np.inf, place.thresholds, -1, place.state.best)
    return _Best(before.best_loss, before.best, before.best_number, place.state.best)


def _taken(
    place: "_Place",
    bandwidths: dict[str, float],
    here: _Seen,
    best: _Best,
    following: dict[str, float],
    state: State,
    renewals: int,
) -> Step:
    improved = here.usable and here.monitored < place.lowest
    gradient, networks = here.gradient, place.state.networks
    return Step(
        number=place.number,
        thresholds=place.thresholds,
        bandwidths=bandwidths,
        loss=float(here.loss),
        merit=here.merit,
        gradient={name: float(gradient.value[name]) for name in bandwidths},
        error={name: float(gradient.error[name]) for name in bandwidths},
        monitored=here.monitored,
        best_loss=best.loss,
        best=best.thresholds,
        best_number=best.number,
        lowest=here.monitored if improved else place.lowest,
        waited=0 if improved else place.waited + 1,
        following=following,
        state=state,
        renewals=renewals,
        networks=networks,
        network_gradient={
            name: (float(_length(gradient.value[name])), float(gradient.error[name]))
            for name in networks
            if name in gradient.value
        },
    )


class _Place(NamedTuple):
    """Where a step begins: what it has from the one before."""

    number: int
    thresholds: dict[str, float]
    state: State
    lowest: float
    waited: int
    renewals: int


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
        if start == len(starts):  # the last step of all
            return None
        given_up = schedule.patience is not None and taken.waited >= schedule.patience
        if number + 1 < schedule.steps and not given_up and taken.state is not None:
            return _Place(taken.number + 1, taken.following, taken.state, taken.lowest, taken.waited, taken.renewals)
        start += 1
    if start == len(starts):
        return None
    begin = dict(starts[start])
    state = first_state(begin, ranges, schedule, learners)
    if taken is not None and taken.state is not None:
        state = state._replace(best=taken.state.best)
    return _Place(start * schedule.steps, begin, state, np.inf, 0, 0 if taken is None else taken.renewals)


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


def _stays(position: Mapping[str, float], following: Mapping[str, float], ranges: Mapping[str, Range]) -> bool:
    """Whether no threshold moves, but for rounding."""
    moves = (abs(r.scale.place(following[n]) - r.scale.place(position[n])) / r.step for n, r in ranges.items())
    return max(moves) < NO_MOVE


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


def _scaled(position: Mapping[str, float], ranges: Mapping[str, Range]) -> Thresholds:
    return arrays({name: r.scale.place(position[name]) / r.step for name, r in ranges.items()})
