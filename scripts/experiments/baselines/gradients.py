"""The optax loop of the package with two gradients: the boundary flux, and finite differences of the exact analysis."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from pipeline.analysis import Gradient
from pipeline.events.cuts import Thresholds, arrays
from pipeline.inference.objectives import Merit
from pipeline.problem import Problem
from pipeline.tuning.descent import Evaluation, descend
from pipeline.tuning.ranges import Range
from pipeline.tuning.schedule import Schedule
from pipeline.tuning.tune import Look, tune
from pipeline.validation.gradient_check import EQUAL_SECOND_MOMENT

from baselines.counting import Counted

__all__ = ["along_differences", "along_flux", "central_differences", "cosine"]


def along_flux(counted: Counted, problem: Problem, start: Mapping[str, float], cost: float) -> None:
    """Our search, with the scouts and the polish of the config; a step counts as `cost` evaluations, a look as one."""

    def watch(look: Look) -> None:
        counted.record(look.thresholds, look.loss, bool(np.isfinite(look.loss)), 1.0)

    for step in tune(problem, watch=watch, start=start):
        counted.record(step.thresholds, step.loss, bool(step.merit.converged), cost)


def along_differences(counted: Counted, start: Mapping[str, float], schedule: Schedule, seed: int) -> None:
    """The same loop with central differences; it starts again from a random place when it is through.

    Their step is √(3/5) of the bandwidth that the flux would have: the same second moment, so the same bias.
    """

    def evaluate(thresholds: Thresholds, bandwidths: Thresholds) -> Evaluation:
        at = {name: float(value) for name, value in thresholds.items()}
        loss = counted.at(at)
        widths = {name: EQUAL_SECOND_MOMENT * float(width) for name, width in bandwidths.items()}
        slope = central_differences(counted.at, at, widths, counted.ranges)
        merit = Merit(
            value=jnp.asarray(-loss), converged=jnp.asarray(True), gradient_norm=jnp.zeros(()), iterations=jnp.int32(0)
        )
        value = arrays(slope)
        gradient = Gradient(value=value, error=jax.tree.map(jnp.zeros_like, value))
        return Evaluation(loss=jnp.asarray(loss), merit=merit, gradient=gradient)

    generator = np.random.default_rng(seed)
    while True:
        for _ in descend(evaluate, counted.ranges, [start], schedule, counted.ordered):
            pass
        start = counted.thresholds_at(generator.random(len(counted.ranges)))


def central_differences(
    loss: Callable[[Mapping[str, float]], float],
    at: Mapping[str, float],
    steps: Mapping[str, float],
    ranges: Mapping[str, Range],
) -> dict[str, float]:
    """Slope of a loss by each threshold; at a bound the difference is one-sided, because nothing lies beyond."""
    slopes = {}
    for name, step in steps.items():
        low, high = max(at[name] - step, ranges[name].lower), min(at[name] + step, ranges[name].upper)
        slopes[name] = (loss({**at, name: high}) - loss({**at, name: low})) / (high - low)
    return slopes


def cosine(one: Mapping[str, float], other: Mapping[str, float], ranges: Mapping[str, Range]) -> float:
    """Of the angle between two gradients, each threshold measured in its own `step`; NaN if one of them vanishes."""
    first, second = (np.array([slope[name] * r.step for name, r in ranges.items()]) for slope in (one, other))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else float("nan")
