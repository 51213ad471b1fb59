"""Should each data set have a bandwidth of its own? Does the error of the gradient need a term for its bias?

At the default cuts and at random ones within the bounds, the gradient of the loss, with its slope by the yields held,
is estimated with kernels of many widths, from disjoint subsamples of the collisions. From these, every rule that gives
data sets and kinematic variations widths of their own can be put together afterwards. The truth is the jackknife of two
narrow kernels, whose bias is O(h⁴).

The first table: noise and bias² of each rule, as root mean squares over places and cuts in units of the noise of the
bandwidths of the config. The product of what two different subsamples disagree with the truth by is on average bias²,
without noise. The second table divides the events into parts as small as those for training, and asks how often the
gradient of one part agrees with the truth of all others within its error: the statistical one, or one with the bias
that a kernel half as wide tells, √(stat² + max(0, b² − var b)). Simulated events.

Example:
  python scripts/experiments/kernel_rules.py --config configs/agc_precision.yaml --output runs/kernel_rules.json
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from pipeline.analysis import Analysis, Data, loss_of_yields_and_slope
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.events.cuts import arrays
from pipeline.events.yields import yields_and_flux
from pipeline.problem import whole
from pipeline.validation.gradient_check import SUM_OF_SQUARES
from pipeline.validation.provenance import environment
from pipeline.validation.rounding import with_error
from rich.console import Console
from rich.table import Table

from baselines.settings import configured, experiment_parser, write_json
from kernels import reaching, squared

FACTORS = 2.0 ** np.arange(-2, 2.01, 0.25)
"""On the bandwidths of the config."""
SUBSAMPLES = 128
BATCHES = 16
"""Of the subsamples of a part: their scatter is its statistical error, as in the engine."""
CLIP = 3.0
"""A data set has a kernel no more than so many times wider or narrower than another."""

Values = NDArray[np.float64]
Wanted = Values
"""A factor on the bandwidths for each data set, or for each kinematic variation and data set."""


class Place(NamedTuple):
    """What the kernels say somewhere: derivatives of the loss by each cut, and effective events of each data set."""

    derivatives: Float64[np.ndarray, "subsamples factors cuts kinematics datasets"]
    events: Float64[np.ndarray, " datasets"]


@dataclass(frozen=True)
class Quality:
    """Of one rule at one factor: means of the squares over places and cuts, with errors from the scatter of the places.

    Attributes:
        rule: by name.
        factor: on the bandwidths of the config.
        noise: variance of the gradient.
        bias: squared; within its error it may be below zero.
        rmse: root of the sum of both.
        more: that, minus the one of a single bandwidth that is so wide that its noise is the same; None for that one.
    """

    rule: str
    factor: float
    noise: float
    bias: tuple[float, float]
    rmse: tuple[float, float]
    more: tuple[float, float] | None


@dataclass(frozen=True)
class Coverage:
    """How often the gradient agrees with the truth, for kernels of one width and one kind of error.

    Attributes:
        factor: on the bandwidths of the config.
        kind: of the error.
        size: of the error, in units of the statistical one; root mean square.
        within: one and two errors of the truth, with errors of these shares; the error of the truth counts, too.
        zero: within one error of zero.
        beyond: of those, that are more than two errors from zero in truth.
    """

    factor: float
    kind: str
    size: float
    within: tuple[tuple[float, float], tuple[float, float]]
    zero: float
    beyond: float


def one_width(events: Values) -> Wanted:
    """The same for all: today's rule."""
    return np.ones(len(events))


def by_dataset(events: Values) -> Wanted:
    """As n^(−1/5), the optimum where the bias is O(h²); the largest data set has the bandwidth of the config."""
    return np.clip((np.maximum(events, 1) / np.max(events)) ** -0.2, 1 / CLIP, CLIP)


def rules(processes: Sequence[int], kinematics: int) -> dict[str, Callable[[Values], Wanted]]:
    """By name: factors from effective events."""
    of_process = [[other == own for other in processes] for own in processes]

    def by_process(events: Values) -> Wanted:
        return by_dataset(np.array([events[own].min() for own in of_process]))

    def wider_variations(events: Values) -> Wanted:
        return np.where(np.arange(kinematics)[:, None] == 0, 1.0, np.sqrt(2.0)) * np.ones(len(events))

    return {
        "one for all": one_width,
        "by data set": by_dataset,
        "by process": by_process,
        "variations √2 wider": wider_variations,
    }


def main() -> int:
    options = parse()
    config = configured(options)
    places, processes = measured(config, options.points)
    named = rules(processes, places[0].derivatives.shape[3])
    found = [quality(places, named, rule, factor, options.parts) for rule in named for factor in options.factors]
    covered = [each for factor in (*options.factors, FACTORS[-1]) for each in coverages(places, factor, options.parts)]
    console = Console(width=110, highlight=False)
    for show in (table(config, found, options), table_of_coverage(config, covered, options)):
        console.print(show)
    about = {"config": config.name, "objective": config.objective.name, "environment": environment()}
    tables = {"rules": [asdict(each) for each in found], "coverage": [asdict(each) for each in covered]}
    write_json(options.output, {"about": about, **tables})
    return 0


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc_precision.yaml")
    add = parser.add_argument
    add("--points", type=int, default=40, metavar="N", help="where to ask, default cuts included (default: 40)")
    add("--parts", type=int, default=2, choices=(2, 4, 8), help="of the events; each as for training (default: 2)")
    add("--factors", type=float, nargs="+", default=[0.5, 1, 2], metavar="F", help="on bandwidths (default: 0.5 1 2)")
    options = parser.parse_args()
    if 2 * FACTORS[0] > min(options.factors) or max(options.factors) > FACTORS[-1]:
        parser.error(f"--factors must be between {2 * FACTORS[0]:g} and {FACTORS[-1]:g}")
    return options


def measured(config: Config, points: int) -> tuple[list[Place], list[int]]:
    """Places, and the process of each data set, by its number."""
    analysis, default, data = whole(reaching(config, FACTORS[-1]), print)
    cuts = {name: cut for name, cut in config.cuts.items() if cut.trainable and cut.bandwidth}
    generator = np.random.default_rng(config.seed)
    found = [place(analysis, default, data, cuts)]
    while len(found) < points:
        at = {name: generator.uniform(*cut.bounds) for name, cut in cuts.items()}
        found.append(place(analysis, {**default, **at}, data, cuts))
    of_process = np.any(np.asarray(data.recipe.yields) != 0, axis=(0, 2, 4))
    return found, np.argmax(of_process, axis=0).tolist()


def place(analysis: Analysis, at: Mapping[str, Any], data: Data, cuts: Mapping[str, Any]) -> Place:
    """What the kernels of all widths say at some thresholds."""
    derivatives, slope = [], None
    for factor in FACTORS:
        widths = arrays({name: factor * cut.bandwidth for name, cut in cuts.items()})
        yields, flux = yields_and_flux(analysis.events, arrays(at), widths, data.events, SUBSAMPLES)
        if slope is None:
            slope = np.asarray(loss_of_yields_and_slope(yields, analysis, data.recipe)[1])
        by_cut = [np.einsum("kdbc,kdsbc->skd", slope, flux[name]) for name in cuts]
        derivatives.append(np.stack(by_cut, axis=1))
    sums = np.asarray(yields)[0].sum(axis=1)
    return Place(np.stack(derivatives, axis=1), sums[:, 0] ** 2 / np.maximum(sums[:, SUM_OF_SQUARES], 1e-300))


def nearest(factors: Values) -> Int64[np.ndarray, "..."]:
    """The numbers of the widths that are closest to some factors: none is wider than the widest."""
    distance = np.abs(np.log(FACTORS) - np.log(factors)[..., None])
    return np.argmin(distance, axis=-1)


def gradient(derivatives: Values, wanted: Wanted) -> Float64[np.ndarray, "subsamples cuts"]:
    """What each subsample adds to it, if every data set has its own width."""
    kinematics, datasets = derivatives.shape[3:]
    number = np.broadcast_to(nearest(wanted), (kinematics, datasets))
    chosen = np.take_along_axis(derivatives, number[None, None, None], axis=1)
    return np.asarray(chosen[:, 0].sum(axis=(2, 3)))


def truth(derivatives: Values) -> Float64[np.ndarray, "subsamples cuts"]:
    """The jackknife of kernels of half the width and of the whole."""
    half, one = (gradient(derivatives, np.full(derivatives.shape[-1], factor)) for factor in (0.5, 1.0))
    return (4 * half - one) / 3


def variance(subsamples: Values) -> Values:
    """Of their sum."""
    return np.asarray(len(subsamples) * np.var(subsamples, axis=0, ddof=1))


def noise_and_bias(places: Sequence[Place], rule: Callable[[Values], Wanted], factor: float, parts: int) -> Values:
    """Squares of both for each place that has events, in units of the noise of one of the parts; shape "2 places"."""
    squares = []
    for each in places:
        unit = parts * variance(gradient(each.derivatives, one_width(each.events)))
        estimate = gradient(each.derivatives, factor * rule(each.events))
        seen = unit > 0
        if not seen.any():
            continue
        shifts = (estimate - truth(each.derivatives))[:, seen] / np.sqrt(unit[seen])
        squares.append((float(np.mean(parts * variance(estimate)[seen] / unit[seen])), squared(shifts)))
    return np.array(squares).T


def quality(
    places: Sequence[Place], named: Mapping[str, Callable[[Values], Wanted]], rule: str, factor: float, parts: int
) -> Quality:
    """Of a rule at one factor, beside a single bandwidth of the same noise."""
    own = noise_and_bias(places, named[rule], factor, parts)
    single = np.stack([noise_and_bias(places, one_width, each, parts) for each in FACTORS])

    def rmse(some: Values) -> float:
        return float(np.sqrt(max(0.0, some.mean(axis=1).sum())))

    def more(some: Values, others: Values) -> float:
        noise, bias = others.mean(axis=2).T
        equal = np.interp(some[0].mean(), noise[::-1], (noise + bias)[::-1])
        return rmse(some) - float(np.sqrt(max(0.0, equal)))

    return Quality(
        rule,
        factor,
        float(own[0].mean()),
        jackknife(lambda kept: float(own[1, kept].mean()), own.shape[1]),
        jackknife(lambda kept: rmse(own[:, kept]), own.shape[1]),
        None
        if named[rule] is one_width
        else jackknife(lambda kept: more(own[:, kept], single[..., kept]), own.shape[1]),
    )


def jackknife(statistic: Callable[[Any], float], number: int) -> tuple[float, float]:
    """Of some places, and its error."""
    without = [statistic(np.delete(np.arange(number), each)) for each in range(number)]
    return statistic(np.arange(number)), float(np.sqrt((number - 1) * np.var(without)))


def coverages(places: Sequence[Place], factor: float, parts: int) -> list[Coverage]:
    """Of both kinds of errors, for kernels of one width."""
    found = [pulls(each.derivatives, factor, parts) for each in places]
    return [coverage(found, factor, kind, row) for kind, row in (("statistical", 1), ("with bias", 2))]


def pulls(derivatives: Values, factor: float, parts: int) -> Float64[np.ndarray, "numbers estimates"]:
    """Of each part and cut: estimate, its two errors squared, the truth by all other parts and its error squared."""
    wide, narrow = (gradient(derivatives, np.full(derivatives.shape[-1], each * factor)) for each in (1.0, 0.5))
    exact, numbers = truth(derivatives), []
    for part in range(parts):
        own = np.arange(len(wide)) % parts == part
        batches = [parts * each[own].reshape(BATCHES, -1, each.shape[1]).sum(axis=1) for each in (wide, narrow)]
        statistical, bias = variance(batches[0]), 4 / 3 * (batches[0] - batches[1])
        with_bias = statistical + np.maximum(0, bias.sum(axis=0) ** 2 - variance(bias))
        others = exact[~own] * parts / (parts - 1)
        numbers.append(np.stack([batches[0].sum(axis=0), statistical, with_bias, others.sum(axis=0), variance(others)]))
    return np.concatenate(numbers, axis=1)


def coverage(found: Sequence[Values], factor: float, kind: str, row: int) -> Coverage:
    """Of what `pulls` says of each place; `row` is that of the square of the error."""

    def share(errors: float) -> tuple[float, float]:
        return jackknife(lambda kept: float(np.mean(np.concatenate([pull[each] for each in kept]) < errors)), len(pull))

    pull = [np.abs(each[0] - each[3]) / np.sqrt(each[row] + each[4]) for each in found]
    estimate, statistical, _, exact, error = every = np.concatenate(found, axis=1)
    square = every[row]
    beyond = np.abs(exact) > 2 * np.sqrt(square + error)
    zero = np.abs(estimate) < np.sqrt(square)
    size = float(np.sqrt(np.mean(square / statistical)))
    within = share(1), share(2)
    return Coverage(
        factor, kind, size, within, float(np.mean(zero)), float(np.mean(beyond[zero])) if any(zero) else 0.0
    )


def table(config: Config, found: Sequence[Quality], options: argparse.Namespace) -> Table:
    """A row for each rule and factor."""
    grid = Table(
        title=f"{config.title or config.name}: the gradient of 1/{options.parts} of the simulated events at "
        f"{options.points} places",
        title_justify="left",
    )
    grid.add_column("bandwidths")
    for column in ("factor", "noise", "bias²", "RMSE", "RMSE, minus that of one width of equal noise"):
        grid.add_column(column, justify="right")
    for each in found:
        more = "" if each.more is None else with_error(*each.more, sign=True)
        numbers = [f"{np.sqrt(each.noise):.2f}", with_error(*each.bias), with_error(*each.rmse), more]
        grid.add_row(each.rule, f"{each.factor:g}", *numbers)
    return grid


def table_of_coverage(config: Config, found: Sequence[Coverage], options: argparse.Namespace) -> Table:
    """A row for each width and kind of error."""
    grid = Table(
        title=f"{config.title or config.name}: errors of the gradient of 1/{options.parts} of the simulated events",
        title_justify="left",
    )
    grid.add_column("factor", justify="right")
    grid.add_column("error")
    for column in ("size", "within one", "within two", "compatible with zero", "of these, not so in truth"):
        grid.add_column(column, justify="right")
    for each in found:
        within = [f"{share:.1%} ± {error:.1%}" for share, error in each.within]
        zero = [f"{share:.1%}" for share in (each.zero, each.beyond)]
        grid.add_row(f"{each.factor:g}", each.kind, f"{each.size:.2f}", *within, *zero)
    return grid


if __name__ == "__main__":
    sys.exit(guarded(main))
