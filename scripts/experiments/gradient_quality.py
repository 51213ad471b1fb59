"""Does the gradient point the right way? Boundary flux beside the difference of the exact value, at each step of a run.

At every step of the optimisation the gradient is computed a second time, from central differences of the exact figure
of merit, and compared: the cosine of the angle between the two, each threshold measured in its own `step`. A difference
over ±s counts the objects within s of a threshold with equal weight, the flux weighs those within its bandwidth h by a
kernel; s = h √(3/5) gives both the same second moment. Two rules for h: the bandwidth of the flux at that step (same
question, so only a wrong gradient differs), and always the final one (the question that is finally asked). The first is
the one to judge the gradient by while bandwidths are wide; at the end both are the same.

Example:
  python scripts/experiments/gradient_quality.py --config configs/agc_precision.yaml --plot runs/gradient_quality.png
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pipeline.analysis import merit_of
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.events.cuts import arrays
from pipeline.inference.objectives import loss_of
from pipeline.problem import Problem
from pipeline.tuning.tune import defaults, ranges, tune
from pipeline.validation.gradient_check import EQUAL_SECOND_MOMENT
from pipeline.validation.provenance import environment
from rich.console import Console
from rich.table import Table

from baselines.gradients import central_differences, cosine
from baselines.settings import configured, experiment_parser, save_figure, write_json


@dataclass(frozen=True)
class Compared:
    """One step; gradients are of the loss, by one `step` of each threshold."""

    number: int
    thresholds: dict[str, float]
    flux: dict[str, float]
    same_width: dict[str, float]
    final_width: dict[str, float]
    cosine_same_width: float
    cosine_final_width: float


def main() -> int:
    options = parse()
    config = configured(options)
    problem = Problem.from_config(config, print).with_bandwidths()
    config = problem.config
    compared = compare(problem, options.every)
    Console(width=110, highlight=False).print(table(config, compared))
    about = {"config": config.name, "objective": config.objective.name, "environment": environment()}
    write_json(options.output, {"about": about, "steps": [asdict(step) for step in compared]})
    save_figure(options.plot, lambda: figure(config, compared))
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc_precision.yaml")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="compare every so many steps (default: 1)")
    return parser.parse_args()


def compare(problem: Problem, every: int) -> list[Compared]:
    """Run the optimisation, then look back at its steps."""
    config, analysis = problem.config, problem.analysis
    default, allowed = defaults(config), ranges(config, problem.kernels)

    def loss(thresholds: Mapping[str, float]) -> float:
        merit = merit_of(analysis, arrays({**default, **thresholds}), problem.training)
        return float(loss_of(analysis.objective, merit))

    def slopes(thresholds: Mapping[str, float], widths: Mapping[str, float]) -> dict[str, float]:
        steps = {name: EQUAL_SECOND_MOMENT * width for name, width in widths.items()}
        return central_differences(loss, thresholds, steps, allowed)

    taken = list(tune(problem))
    final = taken[-1].bandwidths
    compared = []
    for step in taken[::every]:
        same, last = slopes(step.thresholds, step.bandwidths), slopes(step.thresholds, final)
        in_steps = [
            {name: slope[name] * r.step for name, r in allowed.items()} for slope in (step.gradient, same, last)
        ]
        angles = [cosine(step.gradient, other, allowed) for other in (same, last)]
        compared.append(Compared(step.number, step.thresholds, *in_steps, *angles))
    return compared


def table(config: Config, compared: Sequence[Compared]) -> Table:
    """Quantiles over the steps of the run."""
    grid = Table(
        title=f"{config.title or config.name}: cosine between boundary flux and finite difference of the exact value, "
        f"{len(compared)} steps, {len(compared[0].thresholds)} thresholds, simulated events",
        title_justify="left",
    )
    for column in ("width of the difference", "median", "lowest quarter below", "lowest"):
        grid.add_column(column, justify="left" if column.startswith("width") else "right")
    for name, values in (
        ("bandwidth of the step", [step.cosine_same_width for step in compared]),
        ("final bandwidth", [step.cosine_final_width for step in compared]),
    ):
        grid.add_row(name, *(f"{np.nanquantile(values, part):.3f}" for part in (0.5, 0.25, 0.0)))
    return grid


def figure(config: Config, compared: Sequence[Compared]) -> Any:
    from baselines.figures import cosines

    labels = {name: cut.label or name for name, cut in config.thresholds.items()}
    return cosines(
        np.array([step.number for step in compared]),
        {
            "difference as wide as the step's bandwidth": np.array([step.cosine_same_width for step in compared]),
            "as wide as the final bandwidth": np.array([step.cosine_final_width for step in compared]),
        },
        {
            labels[name]: (
                np.array([step.flux[name] for step in compared]),
                np.array([step.same_width[name] for step in compared]),
            )
            for name in compared[0].flux
        },
        "Simulated",
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
