"""What a learned observable is worth: default cuts, tuned cuts, cross-entropy, and cuts with a network, over seeds.

    python -m scripts.experiments.learned --config configs/learned.yaml --seeds 1 2 3 4 5

A seed divides the events into training and validation, and makes the first weights. Each row is the figure of merit on
validation events, which no step has seen. Simulated events.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pipeline.analysis import merit_of
from pipeline.config import Config, load_config, parse_settings
from pipeline.events.cuts import arrays
from pipeline.problem import Problem, divide, read
from pipeline.tuning.tune import Tuned, tune

ROWS = ("default cuts", "tuned cuts", "cross-entropy", "cuts + network")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/learned.yaml"), help="with a learned observable")
    parser.add_argument(
        "--without",
        type=Path,
        help="the config with the usual observables that it extends; it gets the same systematics",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    options = parser.parse_args()
    learned = load_config(options.config, parse_settings(options.set))
    usual = (
        load_config(options.without).model_copy(update={"systematics": learned.systematics})
        if options.without
        else None
    )
    print(f"{learned.title}; {learned.objective.name} on validation events")
    print("seed  " + "  ".join(f"{row:>14}" for row in ROWS) + "  training  seconds")
    table = []
    samples = read(learned)
    for seed in options.seeds:
        started = time.perf_counter()
        row, training = measured(learned, usual, samples, seed)
        table.append(row)
        values = "  ".join(f"{row.get(name, np.nan):14.4f}" for name in ROWS)
        print(f"{seed:4d}  {values}  {training:8.4f}  {time.perf_counter() - started:7.0f}", flush=True)
    for label, statistic in (("median", np.median), ("spread", np.std)):
        values = "  ".join(f"{statistic([row.get(name, np.nan) for row in table]):14.4f}" for name in ROWS)
        print(f"{label:6s}{values}")


def measured(
    learned: Config, usual: Config | None, samples: Sequence[Any], seed: int
) -> tuple[dict[str, float], float]:
    """The figure of merit of each row, and that of the last one on training events."""
    row = {}
    if usual is not None:
        problem = Problem.from_config(usual.model_copy(update={"seed": seed})).with_bandwidths()
        row["default cuts"] = unseen(problem, problem.defaults)
        row["tuned cuts"] = unseen(problem, Tuned(problem, tuple(tune(problem))).best)
    observables = {name: each.model_copy(update={"seed": seed}) for name, each in learned.observables.items()}
    config = learned.model_copy(update={"seed": seed, "observables": observables})
    problem = divide(config, tuple(samples)).with_bandwidths()
    row["cross-entropy"] = unseen(problem, problem.defaults)
    tuned = Tuned(problem, tuple(tune(problem)))
    row["cuts + network"] = unseen(problem, tuned.best)
    return row, abs(tuned.history[-1].best_loss)


def unseen(problem: Problem, parameters: Mapping[str, Any]) -> float:
    """The figure of merit on validation events."""
    merit = merit_of(problem.analysis, arrays(parameters), problem.validation)
    return float(merit.value) if bool(merit.converged) else float("nan")


if __name__ == "__main__":
    main()
