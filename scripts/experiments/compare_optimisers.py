"""Is the gradient worth it? One analysis, one exact figure of merit, and every way that a physicist would tune it.

All methods see the same training events and the same compiled function, start at the same place, and are compared
after the same number of evaluations (a value with its gradient counts as much as it takes longer than a value, measured
first) and after the same time. The others may then go on until they have spent --factor times as much. What they have
found is judged on validation events, which none has seen, with bootstrap errors. A seed divides the events anew and
draws a start near the default cuts. A fit that does not converge never counts as found.

Examples:
  python scripts/experiments/compare_optimisers.py --config configs/agc_precision.yaml --thresholds jet_pt jet_btag
  python scripts/experiments/compare_optimisers.py --thresholds electron_pt electron_eta jet_pt jet_eta jet_btag
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.problem import divide, read
from pipeline.validation.outcome import SYMBOLS
from pipeline.validation.provenance import environment
from pipeline.validation.rounding import with_error
from rich.console import Console
from rich.table import Table

from baselines.contest import DEFAULT, DIFFERENCES, OURS, STAGES, Contest, ahead, ahead_on_validation, compete
from baselines.counting import Visit
from baselines.methods import METHODS, missing
from baselines.settings import configured, experiment_parser, save_figure, without_bandwidths, write_json


def main() -> int:
    options = parse()
    config = without_bandwidths(configured(options)) if options.automatic else configured(options)
    samples = read(config, print)
    others = options.methods or [name for name in (DIFFERENCES, *METHODS) if missing(name) is None]
    contests: list[Contest] = []
    for number in range(options.seeds):
        seeded = config.model_copy(update={"seed": config.seed + number})
        problem = divide(seeded, samples).with_bandwidths()
        say = lambda line: print(line, flush=True)  # noqa: E731
        contests.append(compete(problem, others, options.factor, options.spread, options.replicas, say))
        write_json(options.output, as_json(config, contests, options.factor))
    console = Console(width=150, highlight=False)
    console.print(table(config, contests, options.factor))
    console.print("\n".join(verdicts(contests, options.factor)))
    save_figure(options.plot, lambda: figure(config, contests))
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc_precision.yaml")
    add = parser.add_argument
    add("--seeds", type=int, default=5, metavar="N", help="divisions of the events and starts (default: 5)")
    add("--automatic", action="store_true", help="bandwidths that the events choose, instead of those of the config")
    add("--factor", type=float, default=10.0, help="evaluations of the other methods over ours (default: 10)")
    add("--spread", type=float, default=0.2, help="of the start, as a part of the bounds (default: 0.2)")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=(DIFFERENCES, *METHODS),
        help="the others (default: all there are)",
    )
    add("--replicas", type=int, default=30, metavar="N", help="of the bootstrap (default: 30)")
    return parser.parse_args()


def table(config: Config, contests: Sequence[Contest], factor: float) -> Table:
    """Means over the seeds. Validation is after all evaluations; its error is that of one division of the events."""
    symbol = SYMBOLS[config.objective.name]
    names = [name for name, cut in config.thresholds.items() if cut.trainable]
    cost = statistics.median(contest.gradient_cost for contest in contests)
    grid = Table(
        title=f"{config.title or config.name}: {len(names)} thresholds, {len(contests)} seeds, simulated events\n"
        f"{symbol} on training events after the same evaluations, the same time, and {factor:g} times the evaluations; "
        f"then on validation events\n(a value with its gradient counts as {cost:.1f} evaluations)",
        title_justify="left",
    )
    grid.add_column("method")
    for column in ("evaluations", "time", f"{factor:g}×", "seconds", "validation", "gain over default", "minus ours"):
        grid.add_column(column, justify="right")
    for name in (DEFAULT, OURS, DIFFERENCES, *METHODS):
        lack = missing(name)
        if lack or name in contests[0].points:
            grid.add_row(name, *([lack] if lack else row(name, contests)))
    return grid


def row(name: str, contests: Sequence[Contest]) -> list[str]:
    points = [contest.points[name] for contest in contests]
    training = [f"{np.mean([stages[stage].training for stages in points]):.5g}" for stage in STAGES]
    seconds = [contest.visits[name][-1].seconds for contest in contests if name in contest.visits]
    last = [stages["factor"] for stages in points]
    judged = [mean_with_error([getattr(point, of) for point in last]) for of in ("validation", "gain", "lead")]
    return [*training, f"{np.mean(seconds):.1f}" if seconds else "", *judged]


def mean_with_error(pairs: Sequence[tuple[float, float]]) -> str:
    """Mean of the values, and the root mean square of their errors."""
    values, errors = np.array(pairs).T
    return with_error(float(values.mean()), float(np.sqrt((errors**2).mean())))


def verdicts(contests: Sequence[Contest], factor: float) -> list[str]:
    """On how many seeds nothing was better than the boundary flux, and by how much something was at most."""
    lines = []
    for stage, budget in (("evaluations", "as many"), ("factor", f"{factor:g} times as many")):
        leads = [ahead(contest, stage) for contest in contests]
        won = sum(not lead for lead in leads)
        seeds = f"{won} of {len(leads)} seeds"
        line = f"With {budget} evaluations nothing beats the boundary flux on training events in {seeds}"
        if won < len(leads):
            name, lead = max((pair for lead in leads for pair in lead.items()), key=lambda pair: pair[1])
            line += f"; the largest lead is {100 * lead:.2f} %, of {name}"
        lines.append(f"{line}.")
    return [*lines, verdict_on_validation(contests, factor)]


def verdict_on_validation(contests: Sequence[Contest], factor: float) -> str:
    """The same on validation events, where a lead has an error, and where nobody gains by climbing chance."""
    leads = [(name, *lead) for contest in contests for name, lead in ahead_on_validation(contest, "factor").items()]
    clear = [(name, lead, error) for name, lead, error in leads if lead > 2 * error]
    won = sum(not ahead_on_validation(contest, "factor") for contest in contests)
    line = f"On validation events, with {factor:g} times as many, nothing beats it in {won} of {len(contests)} seeds"
    if leads:
        line += f"; {len(clear)} of {len(leads)} leads are larger than twice their errors"
    if clear:
        name, lead, error = max(clear, key=lambda lead: lead[1] / lead[2])
        line += f", the clearest is {with_error(lead, error)}, of {name}"
    return f"{line}."


def as_json(config: Config, contests: Sequence[Contest], factor: float) -> dict[str, Any]:
    about = {
        "config": config.name,
        "objective": config.objective.name,
        "thresholds": [name for name, cut in config.thresholds.items() if cut.trainable],
        "factor": factor,
        "environment": environment(),
    }
    contents = []
    for contest in contests:
        content = asdict(contest)
        content["visits"] = {name: improvements(visits) for name, visits in contest.visits.items()}
        contents.append(content)
    return {"about": about, "contests": contents}


def improvements(visits: Sequence[Visit]) -> list[dict[str, Any]]:
    """The visits that were the best so far, and the last one."""
    kept, best = [], np.inf
    for number, visit in enumerate(visits):
        if visit.loss < best or number == len(visits) - 1:
            kept.append(asdict(visit) | {"loss": min(best, visit.loss)})
        best = min(best, visit.loss)
    return kept


def figure(config: Config, contests: Sequence[Contest]) -> Any:
    from baselines.figures import race

    sign = -1.0 if contests[0].larger_is_better else 1.0
    traces = {
        name: [
            (
                np.array([visit.evaluations for visit in contest.visits[name]]),
                np.array([visit.seconds for visit in contest.visits[name]]),
                sign * np.minimum.accumulate([visit.loss for visit in contest.visits[name]]),
            )
            for contest in contests
        ]
        for name in contests[0].visits
    }
    ends = [trace[2][-1] for runs in traces.values() for trace in runs]
    starts = [contest.points[DEFAULT]["factor"].training for contest in contests]
    low, high = min(*ends, *starts), max(*ends, *starts)
    margin = 0.1 * (high - low)
    return race(
        traces,
        {name: [contest.points[name]["factor"].validation for contest in contests] for name in contests[0].points},
        statistics.median(contest.visits[OURS][-1].evaluations for contest in contests),
        SYMBOLS[config.objective.name],
        "Simulated",
        (low - margin, high + margin),
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
