"""What does the bandwidth do? The same run with kernels far too narrow, far too wide, and as the events choose them.

Too narrow, the gradient is made by a handful of objects: noise, which the optimiser follows. Too wide, it answers for
cuts far away: bias. Neither touches the value, which is exact at every step and shown on training and on validation
events.

Example:
  python scripts/experiments/compare_bandwidths.py --config configs/agc_precision.yaml --plot runs/bandwidths.png
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pipeline.analysis import merit_of
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.events.cuts import arrays
from pipeline.problem import Problem
from pipeline.tuning.descent import descend
from pipeline.tuning.ranges import Range
from pipeline.tuning.schedule import schedule
from pipeline.tuning.tune import defaults, evaluation, ordered, ranges
from pipeline.validation.outcome import SYMBOLS
from pipeline.validation.provenance import environment
from rich.console import Console
from rich.table import Table

from baselines.settings import configured, experiment_parser, save_figure, without_bandwidths, write_json


@dataclass(frozen=True)
class Trajectory:
    """One run: exact values and thresholds at every step, and the step that is kept."""

    scale: float
    training: list[float]
    validation: list[float]
    thresholds: dict[str, list[float]]
    kept: int


def main() -> int:
    options = parse()
    config = configured(options)
    problem = Problem.from_config(without_bandwidths(config), print).with_bandwidths()
    config = problem.config
    scales = {"too narrow": options.narrow, "automatic": 1.0, "too wide": options.wide}
    runs = {name: trajectory(problem, scale) for name, scale in scales.items()}
    Console(width=110, highlight=False).print(table(config, runs))
    about = {"config": config.name, "objective": config.objective.name, "environment": environment()}
    write_json(options.output, {"about": about, "runs": {name: asdict(run) for name, run in runs.items()}})
    save_figure(options.plot, lambda: figure(config, runs))
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc_precision.yaml")
    parser.add_argument(
        "--narrow", type=float, default=0.01, metavar="FACTOR", help="of all bandwidths (default: 0.01)"
    )
    parser.add_argument("--wide", type=float, default=20.0, metavar="FACTOR", help="of all bandwidths (default: 20)")
    return parser.parse_args()


def trajectory(problem: Problem, scale: float) -> Trajectory:
    """The optimisation with all bandwidths scaled; what it sees of the events is the same."""
    config, analysis = problem.config, problem.analysis
    default = defaults(config)
    allowed = scaled(ranges(config, problem.kernels), scale)
    evaluate = evaluation(problem)
    start = {name: default[name] for name in allowed}
    steps = list(descend(evaluate, allowed, [start], schedule(config), ordered(config, problem.kernels)))
    unseen = [merit_of(analysis, arrays({**default, **step.thresholds}), problem.validation) for step in steps]
    kept = next(step.number for step in steps if step.thresholds == steps[-1].best)
    return Trajectory(
        scale=scale,
        training=[float(step.merit.value) for step in steps],
        validation=[float(merit.value) for merit in unseen],
        thresholds={name: [step.thresholds[name] for step in steps] for name in allowed},
        kept=kept,
    )


def scaled(allowed: Mapping[str, Range], scale: float) -> dict[str, Range]:
    """The same ranges with other bandwidths."""
    return {
        name: replace(r, bandwidth=scale * r.bandwidth, bandwidth_end=scale * r.bandwidth_end)
        for name, r in allowed.items()
    }


def table(config: Config, runs: Mapping[str, Trajectory]) -> Table:
    """Where each run started, the best that it saw, and where it ended."""
    symbol = SYMBOLS[config.objective.name]
    grid = Table(title=f"{config.title or config.name}: {symbol} by bandwidth, simulated events", title_justify="left")
    for column in ("bandwidth", "start", "best", "kept step", "its validation", "last step", "its validation"):
        grid.add_column(column, justify="left" if column == "bandwidth" else "right")
    for name, run in runs.items():
        training, validation = run.training, run.validation
        values = (training[0], training[run.kept], run.kept, validation[run.kept], training[-1], validation[-1])
        grid.add_row(f"{name} (× {run.scale:g})", *(f"{value:.4g}" for value in values))
    return grid


def figure(config: Config, runs: Mapping[str, Trajectory]) -> Any:
    from baselines.figures import trajectories

    names = list(next(iter(runs.values())).thresholds)
    return trajectories(
        {f"{name} (× {run.scale:g})": (np.array(run.training), np.array(run.validation)) for name, run in runs.items()},
        {
            config.thresholds[threshold].label or threshold: [
                np.array(run.thresholds[threshold]) for run in runs.values()
            ]
            for threshold in names
        },
        SYMBOLS[config.objective.name],
        "Simulated",
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
