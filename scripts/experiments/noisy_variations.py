"""Does it help to do something about the noise of varied templates? Tuned with each remedy, judged by all of them.

For some divisions of the events (the seed of the config, and the ones after it) the cuts are tuned on the training part
with nothing done, with smoothed shapes, with small effects pruned, and with the statistical errors of the variations
(`measurement.variations`). What the tuned cuts gain on the events that nobody has seen is then computed with each of
these models: a remedy that is worth its name leads to cuts that gain more, whoever judges them. Simulated events.

Example:
  python scripts/experiments/noisy_variations.py --config configs/single_top.yaml --seeds 5 --set optimiser.steps=25
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pipeline.analysis import Analysis, merit_of
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.config.statistics import VariedTemplates
from pipeline.events.cuts import arrays
from pipeline.ingest.samples import Sample
from pipeline.names import names_of
from pipeline.problem import Problem, divide, read
from pipeline.translation import make_analysis
from pipeline.tuning.tune import Tuned, tune
from pipeline.validation.outcome import SYMBOLS
from pipeline.validation.provenance import environment
from pipeline.validation.rounding import with_error
from rich.console import Console
from rich.table import Table

from baselines.settings import configured, experiment_parser, write_json

REMEDIES = {
    "nothing": VariedTemplates(),
    "smoothing": VariedTemplates(smoothing=2.0),
    "pruning": VariedTemplates(pruning=0.01),
    "uncertainty": VariedTemplates(uncertainty=True),
    "both": VariedTemplates(smoothing=2.0, uncertainty=True),
}
"""`both` are smoothing and uncertainty."""


@dataclass(frozen=True)
class Run:
    """Cuts that were tuned with a remedy, on one division of the events.

    Attributes:
        remedy: by name.
        seed: of the division.
        thresholds: of the kept step.
        seen: what they gain on training events in the model that they were tuned with; positive is better.
        unseen: likewise on the others, in the model of each remedy.
        default: the figure of merit of the default cuts on these, likewise.
    """

    remedy: str
    seed: int
    thresholds: dict[str, float]
    seen: float
    unseen: dict[str, float]
    default: dict[str, float]


def main() -> int:
    options = parse()
    config = configured(options)
    found = list(runs(config, read(config, print), options.remedies, options.seeds))
    Console(width=120, highlight=False).print(table(config, found))
    about = {"config": config.name, "objective": config.objective.name, "environment": environment()}
    write_json(options.output, {"about": about, "runs": [asdict(each) for each in found]})
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/single_top.yaml")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="divisions of the events (default: 5)")
    parser.add_argument(
        "--remedies", nargs="+", choices=REMEDIES, default=list(REMEDIES), metavar="NAME", help="default: all"
    )
    return parser.parse_args()


def runs(config: Config, samples: tuple[Sample, ...], remedies: Sequence[str], seeds: int) -> Iterator[Run]:
    """Tuned with each remedy on each division of the events."""
    configs = {name: with_remedy(config, REMEDIES[name]) for name in remedies}
    analyses = {name: make_analysis(each, names_of(each), len(samples)) for name, each in configs.items()}
    knowing = with_remedy(config, REMEDIES["uncertainty"])
    for seed in range(config.seed, config.seed + seeds):
        # Its events know the errors of the variations, which the other models do not ask for.
        divided = divide(knowing.model_copy(update={"seed": seed}), samples).with_bandwidths()
        for name, analysis in analyses.items():
            yield tuned(replace(divided, config=configs[name], analysis=analysis), name, seed, analyses)


def with_remedy(config: Config, remedy: VariedTemplates) -> Config:
    """The same analysis with something done about varied templates."""
    measurement = config.measurement.model_copy(update={"variations": remedy})
    return config.model_copy(update={"measurement": measurement})


def tuned(problem: Problem, remedy: str, seed: int, judges: Mapping[str, Analysis]) -> Run:
    """One optimisation, and what the models of all remedies say of it."""
    best = Tuned(problem, tuple(tune(problem))).best
    default = {name: merit(each, problem.defaults, problem.validation) for name, each in judges.items()}
    sign = 1 if problem.analysis.objective.larger_is_better else -1
    return Run(
        remedy=remedy,
        seed=seed,
        thresholds={name: float(best[name]) for name in problem.thresholds},
        seen=sign
        * (
            merit(problem.analysis, best, problem.training)
            - merit(problem.analysis, problem.defaults, problem.training)
        ),
        unseen={name: sign * (merit(each, best, problem.validation) - default[name]) for name, each in judges.items()},
        default=default,
    )


def merit(analysis: Analysis, thresholds: Mapping[str, Any], data: Any) -> float:
    return float(merit_of(analysis, arrays(thresholds), data).value)


def table(config: Config, found: Sequence[Run]) -> Table:
    """A row for each remedy, and one for its difference to the first: means over the divisions, with errors."""
    judges = list(found[0].unseen)
    seeds = len({each.seed for each in found})
    grid = Table(
        title=f"{config.title or config.name}: gain in {SYMBOLS[config.objective.name]}, {seeds} divisions of the "
        "simulated events",
        title_justify="left",
    )
    grid.add_column("tuned with")
    for column in ("seen", *(f"unseen, judged with {name}" for name in judges)):
        grid.add_column(column, justify="right")
    by_remedy = {
        name: [each for each in found if each.remedy == name] for name in dict.fromkeys(r.remedy for r in found)
    }
    first = next(iter(by_remedy))
    grid.add_row("(default cuts)", "", *(mean(each.default[judge] for each in by_remedy[first]) for judge in judges))
    for remedy, own in by_remedy.items():
        unseen = (mean((each.unseen[judge] for each in own), sign=True) for judge in judges)
        grid.add_row(remedy, mean((each.seen for each in own), sign=True), *unseen)
    for remedy, own in by_remedy.items():
        pairs = list(zip(own, by_remedy[first], strict=True))
        more = (
            mean((each.unseen[judge] - other.unseen[judge] for each, other in pairs), sign=True) for judge in judges
        )
        if remedy != first:
            grid.add_row(f"{remedy} minus {first}", "", *more)
    return grid


def mean(values: Iterable[float], *, sign: bool = False) -> str:
    """With its error by the scatter."""
    numbers = np.array(list(values))
    error = np.std(numbers, ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else np.nan
    return with_error(float(np.mean(numbers)), float(error), sign=sign)


if __name__ == "__main__":
    sys.exit(guarded(main))
