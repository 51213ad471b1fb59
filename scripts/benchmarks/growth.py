"""How the cost of an optimisation grows with the number of thresholds: this package, finite differences, Nelder–Mead.

The toy analysis of `scripts/benchmarks/peers/simple_case.py` with 2 … 64 cuts. All three use the same compiled, exact
significance. A gradient costs one evaluation with boundary flux, or two plain evaluations a threshold by central
differences. Then two optimisations from the same start: optax's Adam with that gradient, and SciPy's Nelder–Mead. Both
are asked how many evaluations they need for 95 % of what Adam gains in all its steps.

Examples:
  python scripts/benchmarks/growth.py
  python scripts/benchmarks/growth.py --events 1000000 --thresholds 4 16 64 --plot growth.png
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import pipeline_step as ours
import simple_case as case

LEARNING_RATE = 0.05
SHARE = 0.95


class Row(NamedTuple):
    """One line of the table; times in seconds. A number of evaluations is None where they did not suffice."""

    thresholds: int
    value_s: float
    step_s: float
    differences_s: float
    z_start: float
    z_gradient: float
    z_simplex: float
    gradient_evaluations: int | None
    simplex_evaluations: int | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--thresholds", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=100, help="of Adam (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=2000, help="of Nelder–Mead at most (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=7, help="calls of which the median counts (default: %(default)s)")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    rows = [measured(number, options) for number in options.thresholds]
    report(rows, options)
    if options.plot:
        draw(rows, options.plot)
    if options.output:
        options.output.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    return 0


def measured(thresholds: int, options: argparse.Namespace) -> Row:
    events = case.make_events(options.events, thresholds)
    columns = ours.columns_of(events)
    compiled_value, compiled_step = ours.compiled()

    def value(at: NDArray[np.float64]) -> float:
        return float(compiled_value(jnp.asarray(at), columns))

    def step(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = jax.device_get(compiled_step(jnp.asarray(at), columns))
        return float(value), gradient

    start = case.start(thresholds)
    _, value_s, z_start = case.timed(lambda: value(start), options.repeat)
    _, step_s, _ = case.timed(lambda: step(start), options.repeat)
    _, differences_s, _ = case.timed(lambda: central_differences(value, start), 2)
    uphill = adam(step, start, options.steps)
    simplex = nelder_mead(value, start, options.evaluations)
    target = z_start + SHARE * (max(uphill) - z_start)
    reached = [first_above(target, history) for history in (uphill, simplex)]
    return Row(thresholds, value_s, step_s, value_s + differences_s, z_start, max(uphill), max(simplex), *reached)


def central_differences(value: Callable[[NDArray[np.float64]], float], at: NDArray[np.float64]) -> NDArray[np.float64]:
    shifts = np.eye(len(at)) * case.BANDWIDTH
    return np.array([(value(at + shift) - value(at - shift)) / (2 * case.BANDWIDTH) for shift in shifts])


def adam(
    step: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]], start: NDArray[np.float64], steps: int
) -> list[float]:
    """The significance at each step."""
    optimiser = optax.adam(LEARNING_RATE)
    at, state, history = start, optimiser.init(start), []
    for _ in range(steps):
        value, gradient = step(at)
        history.append(value)
        update, state = optimiser.update(-gradient, state)
        at = at + np.asarray(update)
    return history


def nelder_mead(
    value: Callable[[NDArray[np.float64]], float], start: NDArray[np.float64], evaluations: int
) -> list[float]:
    """The significance at each evaluation. The first simplex is as large as a bandwidth: SciPy's own is far smaller."""
    history = []

    def loss(at: NDArray[np.float64]) -> float:
        history.append(value(at))
        return -history[-1]

    simplex = np.vstack([start, start + np.eye(len(start)) * case.BANDWIDTH])
    minimize(loss, start, method="Nelder-Mead", options={"maxfev": evaluations, "initial_simplex": simplex})
    return history


def first_above(target: float, history: list[float]) -> int | None:
    """The number of evaluations until the target is reached."""
    return next((number for number, z in enumerate(history, 1) if z >= target), None)


def report(rows: list[Row], options: argparse.Namespace) -> None:
    table = Table(title=f"growth with the number of thresholds, {options.events:,} simulated toy events")
    for column in (
        "thresholds",
        "value",
        "value + gradient",
        "finite differences",
        "ratio",
        "Z at start",
        f"Z after {options.steps} steps",
        f"evaluations to {SHARE:.0%}",
        "by Nelder–Mead",
        "seconds",
        "by Nelder–Mead",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        seconds = (in_seconds(row.gradient_evaluations, row.step_s), in_seconds(row.simplex_evaluations, row.value_s))
        table.add_row(
            f"{row.thresholds}",
            f"{row.value_s * 1e3:.1f} ms",
            f"{row.step_s * 1e3:.1f} ms",
            f"{row.differences_s * 1e3:.0f} ms",
            f"{row.differences_s / row.step_s:.0f}",
            f"{row.z_start:.3f}",
            f"{row.z_gradient:.3f}",
            f"{row.gradient_evaluations}",
            f"{row.simplex_evaluations}" if row.simplex_evaluations else f"> {options.evaluations}",
            *seconds,
        )
    Console(width=150).print(table)


def in_seconds(evaluations: int | None, each: float) -> str:
    return f"{evaluations * each:.2f}" if evaluations else "–"


def draw(rows: list[Row], path: Path) -> None:
    """Both costs of a gradient, and evaluations to the same significance, against the number of thresholds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    cost, effort = figure.subplots(1, 2)
    thresholds = [row.thresholds for row in rows]
    cost.plot(thresholds, [row.value_s * 1e3 for row in rows], "o:", label="value alone")
    cost.plot(thresholds, [row.step_s * 1e3 for row in rows], "o-", label="boundary flux")
    cost.plot(thresholds, [row.differences_s * 1e3 for row in rows], "s--", label="finite differences")
    cost.set_ylabel("value and gradient [ms]")
    effort.plot(thresholds, [row.gradient_evaluations or np.nan for row in rows], "o-", label="Adam")
    effort.plot(thresholds, [row.simplex_evaluations or np.nan for row in rows], "s--", label="Nelder–Mead")
    effort.set_ylabel(f"evaluations to {SHARE:.0%} of the gain")
    for axes in (cost, effort):
        axes.set(xlabel="thresholds", xscale="log", yscale="log")
        axes.set_xticks(thresholds, labels=[str(number) for number in thresholds])
        axes.minorticks_off()
        axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
