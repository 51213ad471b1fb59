"""What a step with a network costs, pass by pass, beside the step without it, and beside the network alone.

    taskset -c 0 python scripts/benchmarks/learned_step.py

On one core, so that processor time and wall time are one; medians. The network alone looks at blocks of 1024 events
with random inputs, as the passes over the events do: forwards, and with the derivative by its weights.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pipeline.analysis import evaluate, loss_of_yields_and_slope, yields_at
from pipeline.config import load_config
from pipeline.events.cuts import arrays
from pipeline.events.devices import summed
from pipeline.events.flux import BLOCK
from pipeline.events.scores import number_of_weights, score_of
from pipeline.events.yields import SUBSAMPLES, weight_gradient, yields_and_flux
from pipeline.problem import Problem

REPEAT = 15


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/learned.yaml"), help="with a learned observable")
    parser.add_argument("--without", type=Path, default=Path("configs/agc_precision.yaml"), help="what it extends")
    options = parser.parse_args()
    print(f"{'':28}{'step':>10}{'yields':>10}{'and flux':>10}{'weights':>10}")
    for path in (options.without, options.config):
        problem = Problem.from_config(load_config(path))
        print(f"{path.name:28}" + "".join(f"{each:7.0f} ms" for each in passes(problem).values()))
    forwards, backwards = network_alone(problem)
    (score,) = problem.analysis.events.scores
    weights = number_of_weights(problem.networks[score.name])
    print(f"{weights} weights alone: {forwards:.2f} µs an event, {backwards:.2f} µs with the derivative")


def passes(problem: Problem) -> dict[str, float]:
    """Milliseconds of a step, and of its passes over the training events."""
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
    return {name: 1e3 * median(call) for name, call in calls.items()}


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
    return per_event * median(lambda: says(weights)), per_event * median(lambda: derivative(weights))


def median(call: Callable[[], Any]) -> float:
    """Seconds, after a first call."""
    seconds = []
    for _ in range(REPEAT + 1):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


if __name__ == "__main__":
    main()
