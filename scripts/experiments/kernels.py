"""Which kernel, and how wide? Bias and noise of the gradient, against exact differences of other events.

Each trainable cut with a bandwidth runs from bound to bound while the others stay. Asked for are the derivative of the
loss, with its slope by the yields held as at the default cuts, or with --yields those of each bin of each data set, in
units of its statistical error; these do not cancel. In every cell of a grid the flux in the middle stands beside the
exact difference over the cell, which knows no kernel. Both are made from disjoint subsamples of the collisions. What
they disagree by in one subsample times the same in another is on average the square of the bias, without noise; how the
flux scatters is the noise. The unit is the noise of the first kernel at the first width.

With --seeds nothing of this, but what the kernels are for: the run is tuned with each, for some divisions of the events
into those that it sees and others. Simulated events.

Examples:
  python scripts/experiments/kernels.py --config configs/agc_precision.yaml --yields --output runs/kernels.json
  python scripts/experiments/kernels.py --config configs/quickstart.yaml --seeds 10
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from pipeline.analysis import Analysis, Data, loss_of_yields_and_slope, yields_at
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.events import flux
from pipeline.events.cuts import arrays
from pipeline.events.table import list_events
from pipeline.events.yields import SUBSAMPLES, yields_and_flux
from pipeline.problem import divide, read, whole
from pipeline.validation.gradient_check import SUM_OF_SQUARES
from pipeline.validation.outcome import SYMBOLS
from pipeline.validation.provenance import environment
from pipeline.validation.rounding import with_error
from rich.console import Console
from rich.table import Table

from baselines.settings import configured, experiment_parser, write_json
from compare_bandwidths import trajectory

Values = NDArray[np.float64]
second_order = flux.kernel


def fourth_order(distance: Any, bandwidth: Any) -> Any:
    """15/32 (3 − 10u² + 7u⁴): no second moment, so a bias of O(h⁴); negative towards its ends."""
    square = (distance / bandwidth) ** 2
    value = (15 / 32) * (3 - 10 * square + 7 * square * square) / bandwidth
    return jnp.where(square < 1, value, jnp.zeros_like(value))


def two_widths(distance: Any, bandwidth: Any) -> Any:
    """The jackknife: of two Epanechnikov kernels, the one half as wide counts so much that no second moment is left."""
    return (4 * second_order(distance, bandwidth / 2) - second_order(distance, bandwidth)) / 3


KERNELS: dict[str, Callable[[Any, Any], Any]] = {
    "Epanechnikov": second_order,
    "fourth order": fourth_order,
    "two widths": two_widths,
}


@dataclass(frozen=True)
class Quality:
    """Of one kernel and width at one threshold, as a root mean square over the grid and all that is asked for.

    Attributes:
        threshold: by name.
        kernel: by name.
        factor: on the bandwidth of the config.
        noise: of the gradient on all events.
        squared_bias: within its error it may be below zero.
        error: of the squared bias.
    """

    threshold: str
    kernel: str
    factor: float
    noise: float
    squared_bias: float
    error: float

    def rmse(self, share: float) -> float:
        """Of the gradient on a share of the events."""
        return float(np.sqrt(max(self.squared_bias, 0.0) + self.noise**2 / share))


@dataclass(frozen=True)
class Gain:
    """What a run is better by at its best step, on the events that it sees and on the others; positive is better."""

    kernel: str
    factor: float
    seed: int
    training: float
    unseen: float


Histograms = Float64[np.ndarray, "subsamples kinematics datasets bins columns"]
Asked = Callable[[Histograms], Values]
"""What is asked of the histograms, linear in them: shape "subsamples entries"."""


@dataclass(frozen=True)
class Subsamples:
    """The histograms of each subsample of the events, and their derivatives, at any place of one threshold."""

    analysis: Analysis
    default: Mapping[str, Any]
    data: Data

    def exact(self, at: Mapping[str, float]) -> Histograms:
        """The hard histograms."""
        events = list_events(self.analysis.events, arrays({**self.default, **at}), self.data.events)
        layout, bins = self.analysis.layout, self.analysis.selection.bins
        shape = (SUBSAMPLES, layout.kinematics, layout.datasets, bins + 1)
        place = (events.collision % SUBSAMPLES, events.kinematic, events.dataset, events.position)
        flat = np.ravel_multi_index(place, shape)
        sums = [np.bincount(flat, column, int(np.prod(shape))).reshape(shape) for column in events.columns]
        return np.stack(sums, axis=-1)[..., :bins, :]

    def flux(self, at: Mapping[str, float], width: float) -> Histograms:
        """Their derivative by the one threshold that is named."""
        (name,) = at
        widths = arrays({name: width})
        thresholds = arrays({**self.default, **at})
        _, by_name = yields_and_flux(self.analysis.events, thresholds, widths, self.data.events, SUBSAMPLES)
        return np.moveaxis(np.asarray(by_name[name]), 2, 0)


def main() -> int:
    options = parse()
    config = configured(options)
    found = tuned(config, options) if options.seeds else measured(config, options)
    show = table_of_gains(config, found) if options.seeds else table(config, found, options.shares)
    Console(width=110, highlight=False).print(show)
    about = {"config": config.name, "objective": config.objective.name, "environment": environment()}
    write_json(options.output, {"about": about, "kernels": [asdict(each) for each in found]})
    return 0


def measured(config: Config, options: argparse.Namespace) -> list[Quality]:
    """Noise and bias of each kernel and width at each threshold."""
    analysis, default, data = whole(reaching(config, max(options.factors)), print)
    events = Subsamples(analysis, default, data)
    asked = (each_bin if options.yields else change_of_loss)(analysis, default, data)
    found = []
    for kernel, shape in KERNELS.items():
        with instead(shape):
            for name, cut in config.cuts.items():
                if cut.trainable and cut.bandwidth:
                    found += qualities(events, asked, name, kernel, cut, options)
    return found


def tuned(config: Config, options: argparse.Namespace) -> list[Gain]:
    """What the tuned cuts are better by, for each kernel, width and division of the events."""
    widest = max(options.factors)
    wide = reaching(config, widest)
    samples, found = read(wide, print), []
    for kernel, shape in KERNELS.items():
        with instead(shape):
            for seed in range(config.seed, config.seed + options.seeds):
                problem = divide(wide.model_copy(update={"seed": seed}), samples).with_bandwidths()
                sign = 1 if problem.analysis.objective.larger_is_better else -1
                for factor in options.factors:
                    run = trajectory(problem, factor / widest)
                    gains = [sign * (values[run.kept] - values[0]) for values in (run.training, run.validation)]
                    found.append(Gain(kernel, factor, seed, *gains))
    return found


def each_bin(analysis: Analysis, default: Mapping[str, Any], data: Data) -> Asked:
    """Each nominal yield in units of its statistical error."""
    variance = np.asarray(yields_at(analysis, arrays(default), data))[0, :, :, SUM_OF_SQUARES]
    filled = variance > 0
    return lambda histograms: histograms[:, 0, :, :, 0][:, filled] / np.sqrt(variance[filled])


def change_of_loss(analysis: Analysis, default: Mapping[str, Any], data: Data) -> Asked:
    """The loss to first order in the yields."""
    yields = yields_at(analysis, arrays(default), data)
    slope = np.asarray(loss_of_yields_and_slope(yields, analysis, data.recipe)[1])
    return lambda histograms: np.einsum("skdbc,kdbc->s", histograms, slope)[:, None]


def qualities(
    events: Subsamples, asked: Asked, name: str, kernel: str, cut: Any, options: argparse.Namespace
) -> list[Quality]:
    """Of a kernel at one threshold, for each width."""
    low, high = cut.bounds
    edges = np.linspace(low, high, round((high - low) / (options.cell * cut.bandwidth)) + 1)
    at_edges = np.stack([asked(events.exact({name: edge})) for edge in edges], axis=1)
    exact = np.diff(at_edges, axis=1) / (edges[1] - edges[0])
    found = []
    for factor in options.factors:
        fluxes = [asked(events.flux({name: middle}, factor * cut.bandwidth)) for middle in (edges[1:] + edges[:-1]) / 2]
        found.append(Quality(name, kernel, factor, *noise_and_bias(np.stack(fluxes, axis=1), exact)))
    return found


def parse() -> argparse.Namespace:
    parser = experiment_parser(__doc__, "configs/agc_precision.yaml")
    add = parser.add_argument
    add("--factors", type=float, nargs="+", default=[1, 2, 3, 4], metavar="F", help="on bandwidths (default: 1 to 4)")
    add("--cell", type=float, default=1, metavar="F", help="of the grid, in bandwidths (default: 1)")
    add("--yields", action="store_true", help="the derivatives of each yield, not of the loss")
    add("--shares", type=float, nargs="+", default=[1, 0.1], metavar="F", help="of the events (default: 1 and 0.1)")
    add("--seeds", type=int, default=0, metavar="N", help="tune with so many divisions of the events (default: 0)")
    return parser.parse_args()


def reaching(config: Config, factor: float) -> Config:
    """The same with wider kernels: events are read as far as those reach."""
    cuts = {}
    for name, cut in config.cuts.items():
        given = {key: getattr(cut, key) for key in ("bandwidth", "bandwidth_end")}
        cuts[name] = cut.model_copy(update={key: factor * width for key, width in given.items() if width})
    return config.model_copy(update={"cuts": cuts})


@contextmanager
def instead(kernel: Callable[[Any, Any], Any]) -> Iterator[None]:
    """The engine with another kernel for cuts; what was compiled with one is not used with another."""
    with patch.object(flux, "kernel", kernel):
        jax.clear_caches()
        yield
    jax.clear_caches()


def noise_and_bias(by_flux: Values, exact: Values) -> tuple[float, float, float]:
    """Noise, squared bias and its error (jackknife), of arrays of the shape "subsamples cells entries"."""
    number, difference = len(exact), by_flux - exact
    noise = np.sqrt(number * np.mean(np.var(by_flux, axis=0, ddof=1)))
    without = [squared(np.delete(difference, part, axis=0)) * (number / (number - 1)) ** 2 for part in range(number)]
    return float(noise), squared(difference), float(np.sqrt((number - 1) * np.var(without)))


def squared(parts: Values) -> float:
    """The mean square of what the subsamples add up to, without their noise: products of two different ones."""
    number = len(parts)
    return float(number / (number - 1) * np.mean(parts.sum(axis=0) ** 2 - np.sum(parts**2, axis=0)))


def table(config: Config, found: Sequence[Quality], shares: Sequence[float]) -> Table:
    """A row for each threshold, kernel and width."""
    grid = Table(
        title=f"{config.title or config.name}: errors of the gradient by each cut, in units of the noise of the first "
        "kernel, simulated events",
        title_justify="left",
    )
    for column in ("threshold", "kernel"):
        grid.add_column(column)
    for column in ("width", "noise", "bias²", *(f"RMSE, {share:.0%} of events" for share in shares)):
        grid.add_column(column, justify="right")
    for each in sorted(found, key=lambda one: one.threshold):
        unit = next(one.noise for one in found if one.threshold == each.threshold)
        bias = f"{each.squared_bias / unit**2:.2f} ± {each.error / unit**2:.2f}"
        errors = [each.rmse(share) * np.sqrt(share) / unit for share in shares]
        numbers = [f"{each.noise / unit:.2f}", bias, *(f"{error:.2f}" for error in errors)]
        grid.add_row(each.threshold, each.kernel, f"{each.factor:g} h", *numbers)
    return grid


def table_of_gains(config: Config, found: Sequence[Gain]) -> Table:
    """A row for each kernel and width: means over the seeds, with errors, and the difference from the first row."""
    seeds = len({each.seed for each in found})
    grid = Table(
        title=f"{config.title or config.name}: gain in {SYMBOLS[config.objective.name]}, {seeds} divisions of the "
        "simulated events",
        title_justify="left",
    )
    grid.add_column("kernel")
    for column in ("width", "seen", "unseen", "unseen, minus the first row's", "least unseen"):
        grid.add_column(column, justify="right")
    first = None
    for kernel, factor in dict.fromkeys((each.kernel, each.factor) for each in found):
        own = [each for each in found if (each.kernel, each.factor) == (kernel, factor)]
        seen, unseen = np.array([each.training for each in own]), np.array([each.unseen for each in own])
        first = unseen if first is None else first
        means = [with_error(np.mean(each), np.std(each, ddof=1) / np.sqrt(seeds)) for each in (seen, unseen)]
        more = unseen - first
        less = with_error(np.mean(more), np.std(more, ddof=1) / np.sqrt(seeds), sign=True) if np.any(more) else ""
        grid.add_row(kernel, f"{factor:g} h", *means, less, f"{unseen.min():.4f}")
    return grid


if __name__ == "__main__":
    sys.exit(guarded(main))
