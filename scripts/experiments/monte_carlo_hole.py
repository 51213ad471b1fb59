"""Does an optimiser fool itself? Tuned on few simulated events, judged on many that it has never seen.

A cut that empties a bin of simulated background makes the background of that bin look like none, and the significance
endless: a hole in the objective that is not physics. The AGC's regions are almost pure ttbar, so its expected
significance has such holes. Cuts are tuned on --events events, by the boundary flux and by a global search that finds
holes faster, once with bins as they are and once with the rule of the config (measurement.minimum_effective_events:
bins with too few effective background events are merged). What is claimed stands beside the mean of independent samples
of the same size, and beside all independent events. A seed draws the events anew.

Example:
  python scripts/experiments/monte_carlo_hole.py --config configs/agc.yaml --events 10000 --output runs/hole.json
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pipeline.analysis import Analysis, Data, merit_of
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.events.cuts import arrays
from pipeline.inference.objectives import loss_of
from pipeline.problem import Problem, read
from pipeline.tuning.tune import defaults, ordered, ranges, tune
from pipeline.validation.bootstrap import bootstrap
from pipeline.validation.outcome import SYMBOLS
from pipeline.validation.provenance import environment
from pipeline.validation.rounding import with_error
from rich.console import Console
from rich.table import Table

from baselines.contest import OURS
from baselines.counting import Counted, best_of
from baselines.independent import Parts, divide_by_lot, with_rule
from baselines.methods import METHODS, search
from baselines.settings import configured, experiment_parser, save_figure, write_json

GLOBAL = "differential evolution"


@dataclass(frozen=True)
class Claim:
    """What one optimiser says on one seed, and what is true.

    Attributes:
        seed: of the lots.
        rule: least effective background events in a bin; 0 for none.
        optimiser: by name.
        thresholds: tuned.
        claimed: on the training events, with its bootstrap error.
        alike: mean over independent samples of the same size, with the error of the mean.
        before: default cuts, all independent events.
        after: tuned cuts, all independent events.
        change: after − before, with the bootstrap error of the difference.
        larger_is_better: of the figure of merit.
    """

    seed: int
    rule: float
    optimiser: str
    thresholds: dict[str, float]
    claimed: tuple[float, float]
    alike: tuple[float, float]
    before: float
    after: float
    change: tuple[float, float]
    larger_is_better: bool

    @property
    def pull(self) -> float:
        """How many errors the claim is better than independent samples of the same size say."""
        excess, error = self.claimed[0] - self.alike[0], float(np.hypot(self.claimed[1], self.alike[1]))
        if error == 0:  # all bins are merged into one
            return 0.0 if excess == 0 else float("nan")
        return (excess if self.larger_is_better else -excess) / error

    @property
    def gains(self) -> bool:
        """Whether the tuned cuts are not worse than the default ones, on all independent events."""
        return self.change[0] >= 0 if self.larger_is_better else self.change[0] <= 0


def main() -> int:
    options = parse()
    config = configured(options)
    samples = read(config, print)
    rules = options.rules or [0.0, config.measurement.minimum_effective_events]
    claims: list[Claim] = []
    for number in range(options.seeds):
        seeded = config.model_copy(update={"seed": config.seed + number})
        parts = divide_by_lot(seeded, samples, options.events, options.alike)
        for rule in rules:
            analysis = with_rule(seeded, rule, len(samples))
            for optimiser in (OURS, GLOBAL):
                problem = Problem(seeded, analysis, parts.training, parts.independent, None, samples)
                tuned = tuned_by(optimiser, problem, options.evaluations)
                claim = judge(optimiser, rule, tuned, seeded, analysis, parts, options.replicas)
                claims.append(claim)
                print(f"seed {claim.seed}, rule {rule:g}, {optimiser}: {told(claim)}", flush=True)
        write_json(options.output, as_json(config, options.events, claims))
    console = Console(width=150, highlight=False)
    console.print(table(config, options.events, claims))
    save_figure(options.plot, lambda: figure(config, claims))
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc.yaml")
    add = parser.add_argument
    add("--events", type=int, default=10_000, metavar="N", help="to tune on, of all data sets (default: 10,000)")
    add("--alike", type=int, default=6, metavar="N", help="independent samples of the same size (default: 6)")
    add("--seeds", type=int, default=5, metavar="N", help="draws of the events (default: 5)")
    add("--rules", type=float, nargs="+", metavar="N", help="least effective events (default: 0 and the config's)")
    add("--evaluations", type=int, default=1000, metavar="N", help="of the global search (default: 1000)")
    add("--replicas", type=int, default=30, metavar="N", help="of the bootstrap (default: 30)")
    return parser.parse_args()


def tuned_by(optimiser: str, problem: Problem, evaluations: int) -> dict[str, float]:
    """The thresholds of the best exact value that the optimiser has seen; both start at the default cuts."""
    problem = problem.with_bandwidths()
    config, analysis, data = problem.config, problem.analysis, problem.training
    default = defaults(config)
    allowed = ranges(config, problem.kernels)

    def loss(thresholds: Mapping[str, float]) -> tuple[float, bool]:
        merit = merit_of(analysis, arrays({**default, **thresholds}), data)
        return float(loss_of(analysis.objective, merit)), bool(merit.converged)

    if optimiser == OURS:
        return {**default, **list(tune(problem))[-1].best}
    counted = Counted(loss, allowed, evaluations, ordered(config, problem.kernels))
    search(METHODS[optimiser], counted, counted.place_of({name: default[name] for name in allowed}), config.seed)
    return {**default, **best_of(counted.visits).thresholds}


def judge(
    optimiser: str,
    rule: float,
    tuned: Mapping[str, float],
    config: Config,
    analysis: Analysis,
    parts: Parts,
    replicas: int,
) -> Claim:
    """The tuned cuts on training events, on samples alike, and on all independent events."""

    def value(thresholds: Any, data: Data) -> float:
        return float(merit_of(analysis, thresholds, data).value)

    default, point = arrays(defaults(config)), arrays(tuned)
    spread = bootstrap(value, [point], parts.training, replicas, config.seed)
    others = [value(point, data) for data in parts.alike]
    before, after = (value(cuts, parts.independent) for cuts in (default, point))
    both = bootstrap(value, [default, point], parts.independent, replicas, config.seed)
    return Claim(
        seed=config.seed,
        rule=rule,
        optimiser=optimiser,
        thresholds={name: tuned[name] for name, each in config.thresholds.items() if each.trainable},
        claimed=(value(point, parts.training), float(np.std(spread, ddof=1))),
        alike=(float(np.mean(others)), float(np.std(others, ddof=1) / np.sqrt(len(others)))),
        before=before,
        after=after,
        change=(after - before, float(np.std(both[:, 1] - both[:, 0], ddof=1))),
        larger_is_better=analysis.objective.larger_is_better,
    )


def told(claim: Claim) -> str:
    return (
        f"claims {with_error(*claim.claimed)}, samples alike {with_error(*claim.alike)} ({claim.pull:+.1f} errors); "
        f"all independent events {claim.before:.3f} to {claim.after:.3f}, change {with_error(*claim.change, sign=True)}"
    )


def table(config: Config, events: int, claims: Sequence[Claim]) -> Table:
    """A row for each rule and optimiser: means over the seeds, and on how many of them the claim holds."""
    grid = Table(
        title=f"{config.title or config.name}: {SYMBOLS[config.objective.name]}, tuned on {events:,} simulated events",
        title_justify="left",
    )
    grid.add_column("bins need")
    grid.add_column("tuned by")
    columns = (
        "claimed",
        "samples alike",
        "largest excess",
        "within 3 errors",
        "independent: default",
        "tuned",
        "not worse",
    )
    for column in columns:
        grid.add_column(column, justify="right")
    for rule, optimiser in dict.fromkeys((claim.rule, claim.optimiser) for claim in claims):
        rows = [claim for claim in claims if (claim.rule, claim.optimiser) == (rule, optimiser)]
        grid.add_row(f"{rule:g} events" if rule else "nothing", optimiser, *cells(rows))
    return grid


def cells(claims: Sequence[Claim]) -> list[str]:
    seeds = len(claims)
    means = [
        np.mean(values) for values in zip(*((c.claimed[0], c.alike[0], c.before, c.after) for c in claims), strict=True)
    ]
    return [
        f"{means[0]:.3f}",
        f"{means[1]:.3f}",
        f"{max(claim.pull for claim in claims):+.1f} errors",
        f"{sum(claim.pull <= 3 for claim in claims)} of {seeds}",
        f"{means[2]:.3f}",
        f"{means[3]:.3f}",
        f"{sum(claim.gains for claim in claims)} of {seeds}",
    ]


def as_json(config: Config, events: int, claims: Sequence[Claim]) -> dict[str, Any]:
    about = {"config": config.name, "objective": config.objective.name, "events": events, "environment": environment()}
    return {"about": about, "claims": [asdict(claim) | {"pull": claim.pull} for claim in claims]}


def figure(config: Config, claims: Sequence[Claim]) -> Any:
    from baselines.figures import claimed_and_true

    groups = {
        f"{claim.optimiser}, {f'{claim.rule:g} events a bin' if claim.rule else 'no rule'}": [
            other for other in claims if (other.rule, other.optimiser) == (claim.rule, claim.optimiser)
        ]
        for claim in claims
    }
    points = {
        name: [(claim.claimed, claim.alike, claim.before, claim.after) for claim in group]
        for name, group in groups.items()
    }
    return claimed_and_true(points, SYMBOLS[config.objective.name], "Simulated")


if __name__ == "__main__":
    sys.exit(guarded(main))
