"""What a report shows beyond the result, as plain NumPy arrays: templates, profiles, what pulls at each cut, impacts.

Everything here is computed after the optimisation, from its final thresholds, with the very functions that the
optimiser used: they are compiled already, so a look costs milliseconds. Nothing here changes a result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
from numpy.typing import NDArray

from pipeline.analysis import Analysis, Data, loss_and_gradient, loss_of_yields_and_slope, merit_of
from pipeline.config import Config
from pipeline.events.bin_edges import placed_edges
from pipeline.events.cuts import Thresholds
from pipeline.events.yields import yields_and_flux
from pipeline.inference import measurement
from pipeline.inference.templates import Templates, make_templates
from pipeline.tuning.descent import Step

__all__ = [
    "Contour",
    "Contributions",
    "Impact",
    "Path",
    "Profile",
    "Region",
    "contour",
    "contributions",
    "impacts",
    "path",
    "profile",
    "regions",
]

Values = NDArray[np.float64]

# The same function compiled with the same options: JAX finds what the optimiser compiled.
_yields_and_flux = jax.jit(yields_and_flux, static_argnums=(0, 1))


@dataclass(frozen=True)
class Region:
    """The templates of one region at some thresholds.

    Attributes:
        name: as in the workspace.
        label: of the observable, for an axis.
        edges: of the bins, in the observable's unit.
        processes: names of the samples.
        nominal: expected events, shape "processes bins".
        variance: of `nominal` by the finite number of simulated events.
        up: templates at +1 standard deviation of each systematic uncertainty, shape "processes bins".
        down: at −1.
        merged_into: the bin that each bin is merged into before the fit; −1 where it is dropped.
    """

    name: str
    label: str
    edges: Values
    processes: tuple[str, ...]
    nominal: Values
    variance: Values
    up: Mapping[str, Values]
    down: Mapping[str, Values]
    merged_into: NDArray[np.int64]

    @property
    def total(self) -> Values:
        """Expected events in each bin."""
        return np.asarray(self.nominal.sum(axis=0))

    @property
    def statistical(self) -> Values:
        """Error of the total by the finite number of simulated events."""
        return np.asarray(np.sqrt(self.variance.sum(axis=0)))

    @property
    def band(self) -> tuple[Values, Values]:
        """Downward and upward error of the total: statistical and all systematic ones in quadrature, before any fit."""
        below, above = self.variance.sum(axis=0), self.variance.sum(axis=0)
        for name in self.up:
            shifts = np.stack([self.up[name].sum(axis=0) - self.total, self.down[name].sum(axis=0) - self.total])
            below = below + np.minimum(shifts.min(axis=0), 0) ** 2
            above = above + np.maximum(shifts.max(axis=0), 0) ** 2
        return np.sqrt(below), np.sqrt(above)


@dataclass(frozen=True)
class Path:
    """The way of the optimiser.

    Attributes:
        symbol: of the figure of merit.
        training: the exact figure of merit at every step.
        stopping: likewise on the events that decide when to stop; None without such events.
        validation: places of some steps, and the figure of merit there on events that the optimiser has not seen.
        thresholds: the trainable ones, at every step.
        certain: at which steps the derivative by each is not compatible with zero.
        starts: places of the first step of each start.
        best: the place of the step whose thresholds are kept.
    """

    symbol: str
    training: Values
    stopping: Values | None
    validation: tuple[NDArray[np.int64], Values]
    thresholds: Mapping[str, Values]
    certain: Mapping[str, NDArray[np.bool_]]
    starts: tuple[int, ...]
    best: int


@dataclass(frozen=True)
class Profile:
    """The exact figure of merit along one threshold, the others at their optimum.

    `slope` is the derivative at `optimum` on the training events that the boundary flux of `bandwidth` predicts. Fits
    that did not converge are NaN.
    """

    cut: str
    thresholds: Values
    training: Values
    validation: Values
    optimum: float
    value: float
    slope: float
    bandwidth: float


@dataclass(frozen=True)
class Contributions:
    """Which bins push a cut: change of the figure of merit by one `step` of the cut, shape "processes bins".

    The sum over everything is the derivative times the step. Alternative samples count with their process.
    """

    cut: str
    step: float
    values: Values


@dataclass(frozen=True)
class Contour:
    """The exact figure of merit over two thresholds, shape "second first", the others at their optimum."""

    cuts: tuple[str, str]
    first: Values
    second: Values
    values: Values


@dataclass(frozen=True)
class Impact:
    """What one nuisance parameter does to the expected measurement of the signal strength, in Gaussian approximation.

    `shift` is the change of μ if the parameter is one post-fit standard deviation up; `width` is that standard
    deviation in units of the one before the fit: below 1 the expected data constrain it.
    """

    parameter: str
    shift: float
    width: float


def regions(config: Config, analysis: Analysis, data: Data, thresholds: Mapping[str, float]) -> tuple[Region, ...]:
    """The templates of every region, in the binning of the config."""
    bandwidths = _arrays(final_bandwidths(config))
    yields, _ = _flux(analysis, data, thresholds, bandwidths)
    made = make_templates(data.recipe, yields)
    varied = _varied(analysis, made)
    merged = np.asarray(_merged(analysis, made), np.int64)
    placed = placed_edges(analysis.selection, _arrays(thresholds), data.edges)
    views = []
    for one, settings in zip(analysis.selection.regions, config.regions.values(), strict=True):
        bins = slice(one.offset, one.offset + one.bins)
        views.append(
            Region(
                name=settings.title or one.name,
                label=settings.label or one.observable,
                edges=np.asarray(placed[one.name], np.float64),
                processes=tuple(process.title for process in config.processes.values()),
                nominal=np.asarray(made.yields[0, :, bins]),
                variance=np.asarray(made.variance[:, bins]),
                up={name: high[:, bins] for name, (high, _) in varied.items()},
                down={name: low[:, bins] for name, (_, low) in varied.items()},
                merged_into=np.where(merged[bins] < 0, -1, merged[bins] - one.offset),
            )
        )
    return tuple(views)


def _merged(analysis: Analysis, made: Templates) -> NDArray[np.int32]:
    bins = made.yields.shape[2]
    if not analysis.measurement.merges:
        return np.arange(bins, dtype=np.int32)
    return np.asarray(jax.jit(measurement.merged_bins, static_argnums=0)(analysis.measurement, made))


def _varied(analysis: Analysis, made: Templates) -> dict[str, tuple[Values, Values]]:
    """Templates at ±1 standard deviation of each systematic uncertainty, as in the model: one-sided ones mirrored."""
    yields = np.asarray(made.yields)
    varied = {}
    for nuisance in analysis.measurement.nuisances:
        high, low = yields[0].copy(), yields[0].copy()
        for process in nuisance.processes:
            if nuisance.up is None:
                high[process] *= 1 + (nuisance.size or 0.0)
                low[process] *= 1 - (nuisance.size or 0.0)
                continue
            high[process] = yields[nuisance.up, process]
            low[process] = (
                _mirrored(analysis, yields[0, process], high[process])
                if nuisance.down is None
                else yields[nuisance.down, process]
            )
        varied[nuisance.name] = (high, low)
    return varied


def _mirrored(analysis: Analysis, nominal: Values, high: Values) -> Values:
    """The template opposite to `high`: the change of a region's yield and the change of its shape, both mirrored."""
    low = np.empty_like(nominal)
    for channel in analysis.measurement.channels:
        bins = slice(channel.offset, channel.offset + channel.bins)
        total = nominal[bins].sum()
        factor = high[bins].sum() / total if total > 0 and high[bins].sum() > 0 else 1.0
        low[bins] = max(2 - factor, measurement.SMALLEST_FACTOR) * (2 * nominal[bins] - high[bins] / factor)
    return low


def profile(
    config: Config,
    analysis: Analysis,
    training: Data,
    validation: Data,
    optimum: Mapping[str, float],
    points: int = 9,
) -> tuple[Profile, ...]:
    """The exact figure of merit along each trainable threshold around the optimum, and the predicted tangent.

    Args:
        config: the run; a profile spans three starting bandwidths to either side, within the cut's bounds.
        analysis: its static part.
        training: events of the optimisation.
        validation: events it has not seen.
        optimum: all thresholds.
        points: evaluations a cut, on either part of the events.
    """
    bandwidths = final_bandwidths(config)
    (_, merit), gradient = loss_and_gradient(_arrays(optimum), analysis, _arrays(bandwidths), training)
    sign = _sign(analysis)
    found = []
    for name, bandwidth in bandwidths.items():
        cut = config.thresholds[name]
        grid = around(optimum[name], 3 * (cut.bandwidth or bandwidth), cut.bounds, points)
        lines = [
            np.array([_merit(analysis, data, {**optimum, name: float(value)}) for value in grid])
            for data in (training, validation)
        ]
        found.append(
            Profile(
                cut=name,
                thresholds=grid,
                training=lines[0],
                validation=lines[1],
                optimum=optimum[name],
                value=float(merit.value),
                slope=sign * float(gradient[name]),
                bandwidth=bandwidth,
            )
        )
    return tuple(found)


def path(
    config: Config, analysis: Analysis, validation: Data, steps: Sequence[Step], symbol: str, points: int = 20
) -> Path:
    """The way of the optimiser, with the figure of merit on events that it has not seen at up to so many steps."""
    fixed = {name: one.threshold for name, one in config.thresholds.items()}
    best = next(place for place, step in enumerate(steps) if step.thresholds == steps[-1].best)
    seen = np.unique(np.append(np.linspace(0, len(steps) - 1, min(points, len(steps))).astype(np.int64), best))
    certain = config.optimiser.significance
    return Path(
        symbol=symbol,
        training=np.array([float(step.merit.value) for step in steps]),
        stopping=None
        if config.optimiser.patience is None
        else _sign(analysis) * np.array([step.monitored for step in steps]),
        validation=(seen, np.array([_merit(analysis, validation, {**fixed, **steps[n].thresholds}) for n in seen])),
        thresholds={name: np.array([step.thresholds[name] for step in steps]) for name in final_bandwidths(config)},
        certain={
            name: np.array([abs(step.gradient[name]) > certain * step.error[name] for step in steps])
            for name in final_bandwidths(config)
        },
        starts=tuple(n for n, step in enumerate(steps) if step.number % config.optimiser.steps == 0),
        best=best,
    )


def contributions(
    config: Config, analysis: Analysis, data: Data, thresholds: Mapping[str, float]
) -> tuple[Contributions, ...]:
    """The gradient taken apart: Σ ∂(figure of merit)/∂yield · ∂yield/∂threshold, by process and bin."""
    bandwidths = _arrays(final_bandwidths(config))
    yields, flux = _flux(analysis, data, thresholds, bandwidths)
    _, slope = loss_of_yields_and_slope(yields, analysis, data.recipe)
    # Columns of the recipe say which process a data set belongs to: its templates use no other.
    uses = np.abs(np.asarray(data.recipe.yields)).sum(axis=(0, 2, 4)) > 0
    found = []
    for name in bandwidths:
        by_dataset = np.einsum("kdbc,kdbc->db", np.asarray(slope), np.asarray(flux[name]))
        step = config.thresholds[name].step or 1.0
        found.append(Contributions(name, step, _sign(analysis) * step * (uses.astype(np.float64) @ by_dataset)))
    return tuple(found)


def contour(
    config: Config,
    analysis: Analysis,
    data: Data,
    optimum: Mapping[str, float],
    path: Sequence[Mapping[str, float]],
    points: int = 9,
) -> Contour | None:
    """The exact figure of merit over the two thresholds that moved farthest, in their steps; None with a single cut.

    The grid covers the path of the optimisation, with a margin of a bandwidth.
    """
    trained = list(final_bandwidths(config))
    if len(trained) < 2:
        return None

    def travelled(name: str) -> float:
        values = [position[name] for position in path]
        return (max(values) - min(values)) / (config.thresholds[name].step or 1.0)

    ordered = sorted(sorted(trained, key=travelled)[-2:], key=trained.index)
    grids = []
    for name in ordered:
        cut, values = config.thresholds[name], [optimum[name], *(position[name] for position in path)]
        margin, bounds = cut.bandwidth or 0.0, cut.bounds or (-np.inf, np.inf)
        grids.append(np.linspace(max(min(values) - margin, bounds[0]), min(max(values) + margin, bounds[1]), points))
    heights = [
        [_merit(analysis, data, {**optimum, ordered[0]: float(x), ordered[1]: float(y)}) for x in grids[0]]
        for y in grids[1]
    ]
    return Contour((ordered[0], ordered[1]), grids[0], grids[1], np.array(heights))


def impacts(workspace: Mapping[str, Any]) -> tuple[Impact, ...]:
    """The impact of every constrained parameter, largest first, from the Fisher information of a pyhf workspace.

    On Asimov data the best fit is known, and so is the curvature of the likelihood: J^T diag(1/rate) J plus the
    constraints. Rates are pyhf's, their derivatives central differences.
    """
    backend, optimizer = pyhf.get_backend()
    pyhf.set_backend("numpy", precision="64b")
    try:
        model = pyhf.Workspace(workspace).model()
        free = [i for i, fixed in enumerate(model.config.suggested_fixed()) if not fixed]
        names = np.array(model.config.par_names)
        covariance, width = _asimov_covariance(model, free)
    finally:
        pyhf.set_backend(backend, optimizer)
    poi = free.index(model.config.poi_index)
    spread = np.sqrt(np.diag(covariance))
    found = [
        Impact(str(names[parameter]), float(covariance[poi, row] / spread[row]), float(spread[row] / width[row]))
        for row, parameter in enumerate(free)
        if np.isfinite(width[row])
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.shift)))


def _asimov_covariance(model: Any, free: Sequence[int]) -> tuple[Values, Values]:
    """Covariance of the free parameters, and their widths before the fit (infinite without constraint)."""
    nominal = np.array(model.config.suggested_init(), np.float64)
    nominal[model.config.poi_index] = 1.0
    full = np.full(model.config.npars, np.inf)
    start = 0
    for name in model.config.par_order:
        parameters = model.config.param_set(name)
        if parameters.constrained:
            full[start : start + parameters.n_parameters] = parameters.width()
        start += parameters.n_parameters
    step, rows = 1e-4, []
    for parameter in free:
        shift = np.zeros_like(nominal)
        shift[parameter] = step
        high, low = (model.expected_data(nominal + way * shift, include_auxdata=False) for way in (1, -1))
        rows.append((np.asarray(high) - np.asarray(low)) / (2 * step))
    rate = np.asarray(model.expected_data(nominal, include_auxdata=False))
    weight = np.divide(1.0, rate, out=np.zeros_like(rate), where=rate > 0)
    slopes, width = np.array(rows), full[list(free)]
    return np.linalg.inv((slopes * weight) @ slopes.T + np.diag(1 / width**2)), width


def final_bandwidths(config: Config) -> dict[str, float]:
    """The bandwidth of each trainable cut at the end of the optimisation."""
    return {
        name: cut.bandwidth_end or cut.bandwidth
        for name, cut in config.thresholds.items()
        if cut.trainable and cut.bandwidth is not None
    }


def around(center: float, reach: float, bounds: tuple[float, float] | None, points: int) -> Values:
    """Values to either side of a center, within bounds; the center takes the place of one that is too near to it."""
    low, high = (
        (center - reach, center + reach)
        if bounds is None
        else (
            max(center - reach, bounds[0]),
            min(center + reach, bounds[1]),
        )
    )
    grid = np.linspace(low, high, points - 1)
    distant = grid[np.abs(grid - center) > 0.3 * (grid[1] - grid[0])]
    return np.sort(np.append(distant, center))


def _flux(
    analysis: Analysis, data: Data, thresholds: Mapping[str, float], bandwidths: Thresholds
) -> tuple[jax.Array, dict[str, jax.Array]]:
    events = (data.edges, data.groups, data.candidates)
    yields, flux = _yields_and_flux(analysis.selection, analysis.layout, _arrays(thresholds), bandwidths, *events)
    return yields, flux


def _merit(analysis: Analysis, data: Data, thresholds: Mapping[str, float]) -> float:
    merit = merit_of(_arrays(thresholds), analysis, data)
    return float(merit.value) if bool(merit.converged) else float("nan")


def _sign(analysis: Analysis) -> int:
    """The loss is minus what is to be large."""
    return -1 if analysis.objective.larger_is_better else 1


def _arrays(values: Mapping[str, float]) -> Thresholds:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}
