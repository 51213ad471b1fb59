"""The optimiser of a config, made by optax: its name, its arguments, and a learning rate that falls.

It imports little, so that a wrong name is told at once.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from pipeline.config import Config
from pipeline.config.learning import Observable

__all__ = ["RATES", "Schedule", "make_learner", "make_optimiser", "schedule", "searches", "update_of"]

RATES: Mapping[str, Callable[[float, int, float], float | optax.Schedule]] = {
    "constant": lambda rate, _steps, _to: rate,
    "linear": lambda rate, steps, to: optax.linear_schedule(rate, to * rate, steps),
    "exponential": lambda rate, steps, to: optax.exponential_decay(rate, steps, to),
    "cosine": lambda rate, steps, to: optax.cosine_decay_schedule(rate, steps, to),
}
"""How the learning rate falls in a number of steps to a fraction of what it was; some optimisers take numbers only."""


@dataclass(frozen=True)
class Schedule:
    """The optimiser and how long it runs.

    Attributes:
        name: of an optimiser in optax.
        arguments: of that optimiser, besides the learning rate.
        learning_rate: at the start, in units of each threshold's own step.
        decay: how it falls: one of `RATES`.
        decay_to: the fraction of it that is left at the end.
        steps: from each start.
        clip: largest norm of a gradient; longer ones are shortened to it.
        significance: a derivative within so many of its statistical errors of zero counts as zero.
        patience: a start is given up after so many steps without a better value; None for never.
        smooth: whether the loss is, so that an optimiser may search along it.
    """

    name: str
    arguments: Mapping[str, float]
    learning_rate: float
    decay_to: float
    steps: int
    decay: str = "cosine"
    clip: float | None = None
    significance: float = 0.0
    patience: int | None = None
    smooth: bool = False


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


def make_optimiser(schedule: Schedule) -> optax.GradientTransformation:
    """The optax optimiser of a schedule, with a learning rate that falls, and gradients of limited length.

    Raises:
        ValueError: optax has no such optimiser, or it does not take these arguments.
    """
    rate = RATES[schedule.decay](schedule.learning_rate, schedule.steps, schedule.decay_to)
    make = getattr(optax, schedule.name, None)
    if make is None:
        raise ValueError(f"optimiser.name: optax has no optimiser '{schedule.name}'; use adam, sgd, rmsprop, …")
    try:
        if callable(make):
            inspect.signature(make).bind(rate, **schedule.arguments)
    except TypeError as error:
        raise ValueError(f"optimiser.arguments: optax.{schedule.name}: {error}") from None
    try:
        optimiser: optax.GradientTransformation = make(rate, **schedule.arguments)
        needs_loss = searches(optimiser)
    except (TypeError, AttributeError):
        raise ValueError(
            f"optimiser.name: optax.{schedule.name} is not an optimiser that needs a learning rate and gradients only; "
            "use adam, sgd, rmsprop, … (polyak_sgd takes no rate that falls: 'optimiser.decay: constant')"
        ) from None
    if needs_loss and not schedule.smooth:
        raise ValueError(
            f"optimiser.name: optax.{schedule.name} searches along the loss, which steps wherever an event is cut; "
            "set 'optimiser.forward: smooth', or use adam, sgd, rmsprop, …"
        )
    return optimiser if schedule.clip is None else optax.chain(optax.clip_by_global_norm(schedule.clip), optimiser)


def make_learner(observable: Observable, schedule: Schedule) -> optax.GradientTransformation:
    """The optimiser of a network; its rate falls as that of the thresholds does."""
    rate = RATES[schedule.decay](observable.learning_rate, schedule.steps, schedule.decay_to)
    adam = optax.adamw(rate, weight_decay=observable.weight_decay)
    return optax.chain(optax.clip_by_global_norm(observable.clip), adam)


def searches(optimiser: optax.GradientTransformation) -> bool:
    """Whether an optimiser evaluates the loss by itself.

    Raises:
        TypeError: it asks for something else, or is none.
    """
    trial = {"trial": jnp.ones(())}
    extra = {"value": jnp.ones(()), "grad": trial, "value_fn": lambda at: at["trial"] ** 2}

    def shape_of_update(**extra: Any) -> None:
        # Traced, not computed: some optimisers take seconds to compile.
        jax.eval_shape(lambda at: update_of(optimiser, at, optimiser.init(at), at, **extra), trial)

    try:
        shape_of_update()
    except TypeError:
        shape_of_update(**extra)
        return True
    return False


def update_of(
    optimiser: optax.GradientTransformation,
    gradient: PyTree,
    state: PyTree,
    position: PyTree,
    **extra: Any,
) -> tuple[PyTree, PyTree]:
    """(update, state) of one step of an optimiser."""
    # optax mixes its float32 constants with float64 gradients; this alone is why promotion is relaxed, and only here.
    with jax.numpy_dtype_promotion("standard"):
        update, state = optimiser.update(gradient, state, position, **extra)
    return update, state
