"""What a step with a network costs, pass by pass, beside the step without it, and beside the network alone.

    taskset -c 0 python scripts/benchmarks/learned_step.py
    taskset -c 0 python scripts/benchmarks/learned_step.py --config configs/agc_assignment.yaml

Processor time on one core; medians of calls in turns, so that a busy machine is busy for all of them. The network
alone, where the config has one, looks at blocks of 1024 events with random inputs:
forwards, and with the derivative by its weights.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pipeline.analysis import evaluate, loss_of_yields_and_slope, yields_at
from pipeline.config import load_config
from pipeline.events.cuts import arrays
from pipeline.events.devices import summed
from pipeline.events.scores import number_of_weights, score_of
from pipeline.events.yields import SUBSAMPLES, weight_gradient, yields_and_flux
from pipeline.problem import Problem

REPEAT = 15
BLOCK = 1024
"""Events that the network alone looks at in a call: with fewer, the call would be measured."""

Key = TypeVar("Key")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/learned.yaml"), help="what is measured")
    parser.add_argument("--without", type=Path, default=Path("configs/agc_precision.yaml"), help="beside what")
    options = parser.parse_args()
    problems, starts = {}, {}
    for path in (options.without, options.config):
        started = time.process_time()
        problems[path.name] = Problem.from_config(load_config(path))
        starts[path.name] = time.process_time() - started
    calls = {(name, each): call for name, of in problems.items() for each, call in passes(of).items()}
    seconds = medians(calls)
    print(f"{'':28}{'start':>10}{'step':>10}{'yields':>10}{'and flux':>10}{'weights':>10}")
    for name in problems:
        milliseconds = (f"{1e3 * value:7.0f} ms" for (of, _), value in seconds.items() if of == name)
        print(f"{name:28}{starts[name]:8.1f} s" + "".join(milliseconds))
    problem = problems[options.config.name]
    if problem.analysis.events.scores:
        forwards, backwards = network_alone(problem)
        (score,) = problem.analysis.events.scores
        weights = number_of_weights(problem.networks[score.name])
        print(f"{weights} weights alone: {forwards:.2f} µs an event, {backwards:.2f} µs with the derivative")


def passes(problem: Problem) -> dict[str, Callable[[], Any]]:
    """A step, and its passes over the training events."""
    analysis, data = problem.analysis, problem.training
    at, widths = arrays(problem.defaults), arrays(problem.bandwidths)
    of_thresholds = {name: width for name, width in widths.items() if name in problem.config.thresholds}
    _, slope = loss_of_yields_and_slope(yields_at(analysis, at, data), analysis, data.recipe)
    gradient = summed(weight_gradient, static=(0,))
    calls: dict[str, Callable[[], Any]] = {
        "step": lambda: evaluate(analysis, at, widths, data),
        "yields": lambda: yields_at(analysis, at, data),
        "and flux": lambda: yields_and_flux(analysis.events, at, of_thresholds, data.events, SUBSAMPLES),
    }
    if analysis.events.scores:
        calls["weights"] = lambda: gradient(analysis.events, at, widths, data.events, slope)
    return calls


def network_alone(problem: Problem) -> tuple[float, float]:
    """Microseconds an event: what the network says, and that with its derivative by the weights."""
    (score,) = problem.analysis.events.scores
    network = problem.networks[score.name]
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(network.centre.shape[0], BLOCK)), jnp.float32)

    @jax.jit
    def says(weights: Any) -> jax.Array:
        return score_of(score, weights, inputs)

    derivative = jax.jit(jax.grad(lambda weights: jnp.sum(score_of(score, weights, inputs) ** 2)))
    weights, per_event = network.weights, 1e6 / BLOCK
    seconds = medians({"forwards": lambda: says(weights), "backwards": lambda: derivative(weights)})
    return per_event * seconds["forwards"], per_event * seconds["backwards"]


def medians(calls: Mapping[Key, Callable[[], Any]]) -> dict[Key, float]:
    """Seconds of each, after a first call."""
    seconds: dict[Key, list[float]] = {name: [] for name in calls}
    for _ in range(REPEAT + 1):
        for name, call in calls.items():
            started = time.process_time()
            jax.block_until_ready(call())
            seconds[name].append(time.process_time() - started)
    return {name: float(np.median(each[1:])) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
