"""What a learned observable is worth: default cuts, tuned cuts, cross-entropy, and cuts with a network, over seeds.

    python -m scripts.experiments.learned --config configs/learned.yaml --seeds 1 2 3 4 5

A seed divides the events into training and validation, and makes the first weights. Each row is the figure of merit on
validation events, which no step has seen; with --independent, also on all events of a sample that has nothing to do
with them, such as the larger one of scripts/samples. Simulated events.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pipeline.analysis import Data, Stream, merit_of
from pipeline.config import Config, load_config, parse_settings
from pipeline.events.cuts import arrays
from pipeline.problem import Problem, divide, read, whole
from pipeline.tuning.tune import Tuned, tune

Row = dict[tuple[str, str], float]
"""By row and sample."""
SAMPLES = ("validation", "independent")
ROWS = ("default cuts", "tuned cuts", "cross-entropy", "cuts + network")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/learned.yaml"), help="with a learned observable")
    parser.add_argument(
        "--without",
        type=Path,
        help="the config with the usual observables that it extends; it gets the same events and systematics",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--independent", type=Path, metavar="MANIFEST", help="of another sample: judge on it, too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    options = parser.parse_args()
    learned = load_config(options.config, parse_settings(options.set))
    usual = (
        load_config(options.without).model_copy(update={"systematics": learned.systematics, "data": learned.data})
        if options.without
        else None
    )
    elsewhere = {
        config.name: whole(with_manifest(config, options.independent))[2]
        for config in (learned, usual)
        if config is not None and options.independent is not None
    }
    print(f"{learned.title}; {learned.objective.name}")
    print("seed  judged on    " + "  ".join(f"{row:>14}" for row in ROWS) + "  training  seconds")
    table = []
    samples = read(learned)
    for seed in options.seeds:
        started = time.perf_counter()
        row, training = measured(learned, usual, samples, seed, elsewhere)
        table.append(row)
        seconds = time.perf_counter() - started
        for name in SAMPLES[: 1 + bool(elsewhere)]:
            print(f"{seed:4d}  {name:11s}  {line(row, name)}  {training:8.4f}  {seconds:7.0f}", flush=True)
    for label, statistic in (("median", np.median), ("spread", np.std)):
        for name in SAMPLES[: 1 + bool(elsewhere)]:
            keys = {(row, sample) for each in table for row, sample in each}
            print(
                f"{label:6s}{name:11s}  {line({key: float(statistic([r[key] for r in table])) for key in keys}, name)}"
            )


def with_manifest(config: Config, manifest: Path) -> Config:
    """The same question to the events of another manifest."""
    return config.model_copy(update={"data": config.data.model_copy(update={"manifest": manifest})})


def line(row: Row, sample: str) -> str:
    """Of the table."""
    return "  ".join(f"{row.get((name, sample), np.nan):14.4f}" for name in ROWS)


def measured(
    learned: Config, usual: Config | None, samples: Sequence[Any], seed: int, elsewhere: Mapping[str, Data | Stream]
) -> tuple[Row, float]:
    """The figure of merit of each row on each sample, and that of the last one on training events."""
    row: Row = {}
    if usual is not None:
        problem = Problem.from_config(usual.model_copy(update={"seed": seed})).with_bandwidths()
        row |= unseen(problem, "default cuts", problem.defaults, elsewhere)
        row |= unseen(problem, "tuned cuts", Tuned(problem, tuple(tune(problem))).best, elsewhere)
    observables = {name: each.model_copy(update={"seed": seed}) for name, each in learned.observables.items()}
    config = learned.model_copy(update={"seed": seed, "observables": observables})
    problem = divide(config, tuple(samples)).with_bandwidths()
    row |= unseen(problem, "cross-entropy", problem.defaults, elsewhere)
    tuned = Tuned(problem, tuple(tune(problem)))
    row |= unseen(problem, "cuts + network", tuned.best, elsewhere)
    return row, abs(tuned.history[-1].best_loss)


def unseen(problem: Problem, name: str, parameters: Mapping[str, Any], elsewhere: Mapping[str, Data | Stream]) -> Row:
    """The figure of merit of a row on events that no step has seen; bins are those of the problem."""
    row: Row = {}
    other = elsewhere.get(problem.config.name)
    independent = None if other is None else other.with_edges(problem.validation.edges)
    for sample, data in zip(SAMPLES, (problem.validation, independent), strict=True):
        if data is not None:
            merit = merit_of(problem.analysis, arrays(parameters), data)
            row[name, sample] = float(merit.value) if bool(merit.converged) else float("nan")
    return row


if __name__ == "__main__":
    main()
