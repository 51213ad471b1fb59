"""A network through the exact histogram, beside the same network through a soft one, as neos and its heirs train.

    python scripts/experiments/soft_histogram.py --seeds 1 2 3 4 5

Soft: each event is spread over the bins by a kernel around its score, with the widths that our flux has. Loss and slope
are those of the soft histogram. All else is the same: events, first weights, cuts (which stay), steps, the choice of
the best step (by what each of them believes), and the derivative by the weights, which is that of the soft histogram
in both. Both are judged by the exact analysis, on events that no step has seen. Simulated events.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pipeline.analysis import (
    Analysis,
    Evaluation,
    expected_yields,
    gradient_of_weights,
    loss_of_yields_and_slope,
    merit_of,
)
from pipeline.command import guarded
from pipeline.config import Config, load_config, parse_settings
from pipeline.event_data import Data, sum_over_parts
from pipeline.events.cuts import Thresholds, arrays
from pipeline.inference.objectives import loss_of
from pipeline.problem import Problem, divide, read
from pipeline.tuning.descent import Evaluate, descend
from pipeline.tuning.schedule import schedule
from pipeline.tuning.tune import evaluation, learners

from baselines.settings import chosen, experiment_parser, write_json

HARD, SOFT = "exact", "soft"
LINE = "{seed:4d}  {width:5g}  {histogram:>9}  {seen:6.4f}  {true:6.4f}  {unseen:6.4f}  {ms:9.0f}"


def main() -> int:
    parser = experiment_parser(__doc__, "configs/learned.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0], help="of the kernels, in widths of bins")
    options = parser.parse_args()
    overrides = parse_settings(options.set)
    config = load_config(options.config, overrides)
    config = load_config(options.config, chosen(config, overrides, options.thresholds or []))
    samples, rows = read(config), []
    print("seed  width  histogram    seen    true  unseen  ms a step")
    for seed in options.seeds:
        for width in options.widths:
            for row in compared(config, samples, seed, width):
                rows.append(row)
                print(LINE.format(**row), flush=True)
    write_json(options.output, {"config": config.name, "rows": rows})
    return 0


def compared(config: Config, samples: Sequence[Any], seed: int, width: float) -> list[dict[str, Any]]:
    """Both trainings of one division of the events, each with what it believes and what is true."""
    observables = {
        name: each.model_copy(update={"seed": seed, "bandwidth": width}) for name, each in config.observables.items()
    }
    problem = divide(config.model_copy(update={"seed": seed, "observables": observables}), tuple(samples))
    rows = []
    for histogram, evaluate in ((HARD, evaluation(problem)), (SOFT, soft_evaluation(problem))):
        clock = []
        for step in descend(evaluate, {}, [{}], schedule(problem.config), learners=learners(problem)):
            last = step
            clock.append(time.perf_counter())
        seconds = statistics.median(after - before for before, after in pairwise(clock[1:]))
        assert last.state is not None
        best = arrays({**problem.defaults, **last.state.best})
        true, unseen = (exact_loss(problem, best, part) for part in (problem.training, problem.validation))
        row = {"seed": seed, "width": width, "histogram": histogram, "seen": last.best_loss, "true": true}
        rows.append(row | {"unseen": unseen, "ms": 1e3 * seconds})
    return rows


def exact_loss(problem: Problem, parameters: Thresholds, data: Any) -> float:
    """The loss of the exact analysis."""
    return float(loss_of(problem.analysis.objective, merit_of(problem.analysis, parameters, data)))


def soft_evaluation(problem: Problem) -> Evaluate:
    """The soft analysis of the training events and its derivative by the weights."""
    fixed, analysis, data = arrays(problem.defaults), problem.analysis, problem.training

    def evaluate(parameters: Thresholds, bandwidths: Thresholds) -> Evaluation:
        at = fixed | parameters
        yields, recipe = sum_over_parts(_soft_yields, analysis, (at, bandwidths), data)
        (loss, merit), slope = loss_of_yields_and_slope(yields, analysis, recipe)
        return Evaluation(loss=loss, merit=merit, gradient=gradient_of_weights(analysis, at, bandwidths, data, slope))

    return evaluate


def _soft_yields(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, part: Data) -> Any:
    return expected_yields(analysis, thresholds, bandwidths, part.events, smooth=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
