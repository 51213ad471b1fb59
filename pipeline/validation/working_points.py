"""Working points: what the analysis is worth, and where its cuts belong, if an uncertainty or the luminosity differs.

A working point changes the numbers of the HistFactory model (`pipeline.inference.histfactory.scaling`), not the events.
At the optimum of a smooth loss L(θ; φ) the gradient g = ∂L/∂θ is zero. Where φ becomes φ', the optimum moves (implicit
function theorem; here as the Newton step at φ', with the curvature that holds there) by

    Δθ = −H(φ')⁻¹ Δg,  Δg = g(φ') − g(φ),  H = ∂g/∂θ,

and gains ½ Δgᵀ H(φ')⁻¹ Δg over cuts that stay. The gradient is the slope of L by the yields times the boundary flux,
and only the slope knows φ: a pass over the events serves all working points. Where the cuts are not quite at the
optimum, g(φ) remains; it drops out of Δg, so Δθ is the difference of two optima.

H is the central difference of the estimated gradients, with kernels and steps of one bandwidth. Subsamples of the
training events, left out one after another (jackknife), give the statistical error of everything that follows: what is
common to g(φ) and g(φ') is so in each of them. Added in quadrature is what kernels and steps of half the width change,
for wide ones are biased (`notebooks/tuning.md`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import analysis as exact
from pipeline.events.cuts import arrays
from pipeline.inference.histfactory.scaling import systematics
from pipeline.problem import Problem
from pipeline.validation.comparison import Estimate

__all__ = ["LUMINOSITY", "WorkingPoint", "WorkingPoints", "in_words", "working_points"]

LUMINOSITY = "integrated luminosity"
LEADING = 3
"""Systematic uncertainties that are reported: those whose halving changes the figure of merit most."""
MOST = 10
"""Thresholds up to which the curvature is asked for: it takes four passes over the events for each."""
ERRORS = 2.0
"""The smallest curvature must be so many of its errors above zero: to divide by what may be zero means nothing."""
REACH = 2.0
"""Steps up to which a shift is told: the curvature is that of one step to either side."""
FLAT = "the figure of merit is flat in it, within the error of its curvature"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class WorkingPoint:
    """The analysis if one thing were different.

    Attributes:
        name: of a systematic uncertainty, or `LUMINOSITY`.
        factor: on its size.
        merit: figure of merit on validation events, at the cuts of the run; NaN where the fit did not converge.
        moved: by how much the optimum of each threshold moves, in its own unit, with its error; empty with a `reason`.
        gain: what the moved cuts are better by than those of the run, on training events, to second order and corrected
            for the noise, so it may be negative within its error; None with a `reason`.
        reason: why nothing is said of the cuts; empty otherwise.
    """

    name: str
    factor: float
    merit: float
    moved: dict[str, Estimate]
    gain: Estimate | None
    reason: str

    def __str__(self) -> str:
        """What is different."""
        return in_words(self.name, self.factor)


def in_words(name: str, factor: float) -> str:
    """A size times a factor; "luminosity" alone may also be the name of an uncertainty."""
    size = name if name == LUMINOSITY else f"{name} uncertainty"
    return f"{size} " + {0.5: "halved", 2.0: "doubled"}.get(factor, f"times {factor:g}")


@dataclass(frozen=True)
class WorkingPoints:
    """What changes with the sizes of uncertainties and with the luminosity.

    Attributes:
        merit: figure of merit on validation events, as the run has it.
        optimum: where the gradient of the training events vanishes, with the error of this place.
        steps: over which the curvature was measured, in the unit of each of these thresholds.
        held: thresholds and networks that stay where they are in all of this, and why.
        points: uncertainties, the most important one first, then the luminosity.
    """

    merit: float
    optimum: dict[str, Estimate]
    steps: dict[str, float]
    held: dict[str, str]
    points: tuple[WorkingPoint, ...]


class _Move(NamedTuple):
    """`moved`, `gain` and `reason` of a `WorkingPoint`."""

    moved: dict[str, Estimate]
    gain: Estimate | None
    reason: str


class _Curved(NamedTuple):
    """A gradient and its derivative, in units of steps: of all events, then of all but each subsample.

    Attributes:
        gradient: shape "samples thresholds".
        hessian: shape "samples thresholds thresholds".
    """

    gradient: Values
    hessian: Values

    def among(self, places: Sequence[int]) -> "_Curved":
        """Of some thresholds, the others held."""
        return _Curved(self.gradient[:, places], self.hessian[:, places][:, :, places])

    @property
    def is_clear(self) -> bool:
        """Whether the smallest curvature is above zero by more than its noise."""
        smallest = np.asarray(np.linalg.eigvalsh(self.hessian)[:, 0], np.float64)
        return bool(smallest[0] > ERRORS * _error(smallest))

    def step(self, gradient: Values) -> Values:
        """To where a gradient vanishes."""
        return np.asarray(-np.linalg.solve(self.hessian, gradient[..., None])[..., 0], np.float64)


def working_points(
    problem: Problem, after: Mapping[str, Any], changes: Mapping[str, float] | None = None
) -> WorkingPoints:
    """What the figure of merit and the optimum would be if one size were another.

    Bins with too little background are merged as they are at the luminosity of the run.

    Args:
        problem: what was tuned, with bandwidths.
        after: all parameters at the best step.
        changes: factors on the sizes of systematic uncertainties, or on the `LUMINOSITY`, one at a time; without them,
            the leading uncertainties are halved, and the luminosity is doubled.
    """
    names = systematics(problem.analysis.structure)
    asked = dict(changes or {**dict.fromkeys(names, 0.5), LUMINOSITY: 2.0})
    nominal, *values = _merits(problem, after, [np.ones(len(names) + 1), *_factors(names, asked)])
    merits = dict(zip(asked, values, strict=True))
    if changes is None:  # what is not a number comes last
        leading = sorted(names, key=lambda name: -abs(np.nan_to_num(merits[name] - nominal)))[:LEADING]
        asked = {name: asked[name] for name in (*leading, LUMINOSITY)}
    steps, held = _steps(problem, after)
    optimum: dict[str, Estimate] = {}
    moves = dict.fromkeys(asked, _unmoved(f"more than {MOST} thresholds" if steps else "no threshold is free to move"))
    if 0 < len(steps) <= MOST:
        at_points = [np.ones(len(names) + 1), *_factors(names, asked)]
        wide, narrow = (_gradients(problem, after, steps, at_points, share) for share in (1.0, 0.5))
        free = _clear(wide[0])
        held |= {name: FLAT for place, name in enumerate(steps) if place not in free}
        steps = {name: step for place, (name, step) in enumerate(steps.items()) if place in free}
        wide, narrow = ([each.among(free) for each in curved] for curved in (wide, narrow))
        optima = [_optimum(curved[0], steps, after) for curved in (wide, narrow)]
        optimum = {name: _allowing(each, optima[1].get(name)) for name, each in optima[0].items()}
        for place, name in enumerate(asked, 1):
            at_widths = zip(optima, (wide, narrow), strict=True)
            moves[name] = _both(*(_move(problem, at, steps, each[0], each[place]) for at, each in at_widths))
    points = (WorkingPoint(name, factor, merits[name], *moves[name]) for name, factor in asked.items())
    return WorkingPoints(nominal, optimum, steps, held, tuple(points))


def _factors(names: Sequence[str], changes: Mapping[str, float]) -> list[Values]:
    """Of each working point, on the systematic uncertainties and the luminosity."""
    return [np.where(np.array([*names, LUMINOSITY]) == name, factor, 1.0) for name, factor in changes.items()]


def _merits(problem: Problem, after: Mapping[str, Any], factors: Sequence[Values]) -> list[float]:
    """On validation events; NaN where a fit did not converge."""
    yields = exact.yields_at(problem.analysis, arrays(after), problem.validation)
    merits = [
        exact.loss_of_yields_and_slope(yields, problem.analysis, problem.validation.recipe, each)[0][1]
        for each in factors
    ]
    return [float(merit.value) if bool(merit.converged) else float("nan") for merit in merits]


def _widths(problem: Problem, after: Mapping[str, Any]) -> dict[str, float]:
    """Of the kernels: as wide as at the start of the optimisation, but not across a neighbour."""
    kernels, given = problem.kernels, problem.bandwidths
    widths = {
        name: kernels[name].width(after[name]) if name in kernels else given[name]
        for name, threshold in problem.config.thresholds.items()
        if threshold.trainable
    }
    for names, _ in problem.config.rising:
        for lower, upper in pairwise(names):
            for name in {lower, upper} & set(widths):
                widths[name] = min(widths[name], (after[upper] - after[lower]) / 2)
    return widths


def _steps(problem: Problem, after: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """How far each threshold moves for its curvature, and why others are held.

    The width of its kernel: the gradient is an average over that, so over less the noise grows with the inverse of the
    step and nothing is seen more sharply; over more the curvature is that of somewhere else.
    """
    steps, held = {}, dict.fromkeys(problem.networks, "a network, kept as it is")
    for name, width in _widths(problem, after).items():
        threshold = problem.config.thresholds[name]
        low, high = threshold.bounds or (-np.inf, np.inf)
        room = min(after[name] - low, high - after[name])
        if room < width / 2:
            held[name] = "at its bound" if threshold.at_bound(after[name]) else "near its bound"
        else:
            steps[name] = min(width, room)
    return steps, held


def _gradients(
    problem: Problem, after: Mapping[str, Any], steps: Mapping[str, float], factors: Sequence[Values], share: float
) -> list[_Curved]:
    """Of each working point: the gradient at the cuts, and its change over a share of a step to either side."""
    signs = (share, -share)
    places = [dict(after) | {name: after[name] + sign * step} for name, step in steps.items() for sign in signs]
    widths, rows = arrays({name: share * width for name, width in _widths(problem, after).items()}), []
    for place in (after, *places):
        yields, flux, recipe = exact.yields_and_flux_at(problem.analysis, arrays(place), widths, problem.training)
        row = []
        for each in factors:
            (_, merit), slope = exact.loss_of_yields_and_slope(yields, problem.analysis, recipe, each)
            parts = exact.gradient_of_subsamples(slope, flux)
            own = np.array([step * np.asarray(parts[name]).sum(axis=0) for name, step in steps.items()])
            row.append(own if bool(merit.converged) else np.full_like(own, np.nan))
        rows.append(row)
    return [_curved(parts, share) for parts in np.swapaxes(rows, 0, 1)]


def _curved(parts: Values, share: float) -> _Curved:
    """From what each subsample adds, shape "places thresholds subsamples"; places are the center, then up and down."""
    number = parts.shape[-1]
    without = (parts.sum(axis=-1, keepdims=True) - parts) * number / (number - 1)
    samples = np.moveaxis(np.concatenate([parts.sum(axis=-1, keepdims=True), without], axis=-1), -1, 0)
    hessian = (samples[:, 1::2] - samples[:, 2::2]) / (2 * share)
    return _Curved(samples[:, 0], (hessian + np.swapaxes(hessian, 1, 2)) / 2)


def _error(samples: Values) -> Values:
    """Of the first, by the jackknife samples behind it."""
    number = len(samples) - 1
    return np.asarray(np.sqrt((number - 1) * np.var(samples[1:], axis=0)))


def _clear(curved: _Curved) -> list[int]:
    """Thresholds among which there is a clear minimum: those that make a direction flat are held, one after another."""
    free = list(range(curved.gradient.shape[1]))
    while free and np.all(np.isfinite(curved.hessian)) and not (own := curved.among(free)).is_clear:
        flattest = np.linalg.eigh(own.hessian[0])[1][:, 0]
        free.pop(int(np.argmax(np.abs(flattest))))
    return free


def _optimum(curved: _Curved, steps: Mapping[str, float], after: Mapping[str, Any]) -> dict[str, Estimate]:
    """Where the gradient vanishes, with its statistical error; empty where that is not known."""
    if not steps or not np.all(np.isfinite(curved.hessian)) or not curved.is_clear:
        return {}
    away = curved.step(curved.gradient)
    if np.any(np.abs(away[0]) > REACH):
        return {}
    return {
        name: Estimate(float(after[name] + step * away[0, place]), float(step * _error(away)[place]))
        for place, (name, step) in enumerate(steps.items())
    }


def _move(
    problem: Problem, optimum: Mapping[str, Estimate], steps: Mapping[str, float], base: _Curved, other: _Curved
) -> _Move:
    """Of the optimum, from one working point to another."""
    if not steps:
        return _unmoved("no threshold has a clear optimum")
    if not np.all(np.isfinite([*base.hessian, *other.hessian])):
        return _unmoved("a fit did not converge")
    if not optimum:
        return _unmoved("the cuts are farther from their optimum than the curvature is known")
    if not other.is_clear:
        return _unmoved("the figure of merit has no clear optimum there")
    difference = other.gradient - base.gradient
    away = other.step(difference)
    gains = -np.sum(difference * away, axis=1) / 2
    # Its square makes a gain of the noise alone; the jackknife takes that away (Quenouille).
    gain = len(gains[1:]) * gains[0] - (len(gains[1:]) - 1) * np.mean(gains[1:])
    moved = {}
    for (name, step), size, error in zip(steps.items(), away[0], _error(away), strict=True):
        low, high = problem.config.thresholds[name].bounds or (-np.inf, np.inf)
        if abs(size) > REACH:
            return _unmoved(f"{name} moves farther than the curvature is known")
        if not low < optimum[name].value + step * size < high:
            return _unmoved(f"the optimum of {name} is then beyond its bound")
        moved[name] = Estimate(float(step * size), float(step * error))
    return _Move(moved, Estimate(float(gain), float(_error(gains))), "")


def _both(wide: _Move, narrow: _Move) -> _Move:
    """By wide kernels, with an error that knows what narrow ones say."""
    moved = {name: _allowing(each, narrow.moved.get(name)) for name, each in wide.moved.items()}
    return _Move(moved, wide.gain and _allowing(wide.gain, narrow.gain), wide.reason)


def _allowing(wide: Estimate, narrow: Estimate | None) -> Estimate:
    """The bias by the width of a kernel is about what half the width changes, where that tells anything."""
    return wide if narrow is None else Estimate(wide.value, float(np.hypot(wide.error, narrow.value - wide.value)))


def _unmoved(reason: str) -> _Move:
    return _Move({}, None, reason)
