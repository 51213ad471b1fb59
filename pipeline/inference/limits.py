"""Upper limits, observed and expected, with the CLs behind them: the asymptotic formulas of arXiv:1007.1727.

The test statistic is that of a signal which cannot be negative, `qmu~` of section 3.6: the best fit lies within the
bounds of the workspace, and a best fit above the tested strength is no evidence against it. The Asimov data are those
without signal, with every other parameter where the observed data put it. All of this is `pyhf.infer`'s convention.
`significance.expected_upper_limit` is the one to differentiate: it needs no observed data.

The functions run on the host, by NumPy: nothing is compiled.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.special import log_ndtr, ndtr, ndtri

from pipeline.inference.fit import Fit, fit_at_once
from pipeline.inference.histfactory.arrays import Array
from pipeline.inference.histfactory.constraints import bounds
from pipeline.inference.histfactory.likelihood import expected_data
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.significance import tested_position

__all__ = ["BANDS", "HypothesisTest", "Limits", "hypothesis_test", "prepare_test", "upper_limits"]

BANDS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the background
PRECISION = 1e-7  # of a limit, relative, and of the quantile there
JUMP = 1e-3  # of a quantile: where it crosses by more between two strengths that are the same, there is no limit
TRIES = 60
HIGHEST = 2.0**60  # strength that is tried


class HypothesisTest(eqx.Module):
    """The test of one signal strength.

    Attributes:
        mu: the strength.
        q: `qmu~` of the observed data; NaN above the upper bound of the strength if the best fit presses against it.
        q_asimov: `qmu~` of the Asimov data without signal.
        cls_plus_b: p-value of the strength.
        cl_b: p-value of the background alone.
        observed_cls: their ratio.
        expected_cls: the ratio at -2, -1, 0, 1 and 2 standard deviations of the background.
        converged: whether every fit did.
        left_out: other minima that were not looked for, at most in one of its fits (`Fit.left_out`).
    """

    _: KW_ONLY
    mu: Float64[Array, ""]
    q: Float64[Array, ""]
    q_asimov: Float64[Array, ""]
    cls_plus_b: Float64[Array, ""]
    cl_b: Float64[Array, ""]
    observed_cls: Float64[Array, ""]
    expected_cls: Float64[Array, " bands"]
    converged: Bool[Array, ""]
    left_out: Int[Array, ""]


class Limits(eqx.Module):
    """Upper limits; NaN where none was found.

    Attributes:
        observed: from the observed data.
        expected: at -2, -1, 0, 1 and 2 standard deviations of the background.
        scan: every test that was made, in ascending strength.
        converged: whether every fit did, and every limit was found.
        left_out: the largest of the tests'.
    """

    _: KW_ONLY
    observed: float
    expected: tuple[float, ...]
    scan: tuple[HypothesisTest, ...]
    converged: bool
    left_out: int


def prepare_test(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    *,
    poi: str | None = None,
    thorough: bool = False,
) -> Callable[[float], HypothesisTest]:
    """The test of a signal strength, as a function of it: what does not depend on it is done once.

    Args:
        structure: static.
        numbers: of the model.
        data: observed, auxiliary data after them.
        poi: the parameter to test, in place of the structure's.
        thorough: as in `fit`.

    Raises:
        ValueError: there is no such parameter, or the measurement holds it constant.
    """
    position = tested_position(structure, poi)
    is_poi, upper = np.arange(structure.size) == position, float(bounds(structure)[1][position])
    numbers, data = jax.tree.map(np.asarray, (numbers, data))
    run = partial(fit_at_once, structure, numbers, thorough=thorough)
    best = run(data)
    null = run(data, initial=np.where(is_poi, 0.0, best.parameters), held=is_poi)
    asimov = expected_data(structure, numbers, null.parameters)
    free = run(asimov, initial=null.parameters)

    def test(mu: float) -> HypothesisTest:
        held, pseudo = (
            run(values, initial=np.where(is_poi, mu, start.parameters), held=is_poi)
            for values, start in ((data, best), (asimov, free))
        )
        outcome = _test(np.float64(mu), position, best, held, free, pseudo)
        # The best fit within bounds is not the best one, and the true one may lie above the tested strength.
        return _without_observed(outcome) if mu > upper and float(best.parameters[position]) >= upper else outcome

    return test


def hypothesis_test(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    mu: float,
    *,
    poi: str | None = None,
    thorough: bool = False,
) -> HypothesisTest:
    """The test of one signal strength: `pyhf.infer.hypotest`. Arguments as in `prepare_test`."""
    return prepare_test(structure, numbers, data, poi=poi, thorough=thorough)(mu)


def upper_limits(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    *,
    poi: str | None = None,
    confidence_level: float = 0.95,
    thorough: bool = False,
) -> Limits:
    """Where CLs falls to one minus the confidence level: `pyhf.infer.intervals.upper_limits.upper_limit`.

    Arguments as in `prepare_test`. A limit beyond the upper bound of the parameter of interest is found as well.
    """
    position = tested_position(structure, poi)
    test = prepare_test(structure, numbers, data, poi=poi, thorough=thorough)
    tests: dict[float, HypothesisTest] = {}
    lower = max(float(bounds(structure)[0][position]), 0.0)

    def height(mu: float, band: int | None) -> float:
        if mu not in tests:
            tests[mu] = test(mu)
        cls = tests[mu].observed_cls if band is None else tests[mu].expected_cls[band]
        # The quantile of a p-value is nearly a straight line in the strength.
        return float(ndtri(cls)) - float(ndtri(1.0 - confidence_level))

    roots = [_root(partial(height, band=band), lower, tests) for band in (*range(len(BANDS)), None)]
    scan = tuple(tests[mu] for mu in sorted(tests))
    converged = all(bool(entry.converged) for entry in scan) and not np.isnan(roots).any()
    left_out = max(int(entry.left_out) for entry in scan)
    return Limits(observed=roots[-1], expected=tuple(roots[:-1]), scan=scan, converged=converged, left_out=left_out)


def _test(mu: Float64[Array, ""], position: int, best: Fit, held: Fit, free: Fit, pseudo: Fit) -> HypothesisTest:
    def statistic(at_mu: Fit, at_best: Fit) -> Float64[Array, ""]:
        difference = np.maximum(at_mu.deviance - at_best.deviance, 0.0)
        return np.where(at_best.parameters[position] > mu, 0.0, difference)

    q, q_asimov = statistic(held, best), statistic(pseudo, free)
    root, sigma = np.sqrt(q), np.sqrt(q_asimov)
    # Equations 66 and 67 of arXiv:1007.1727; where q is the larger, its distribution has another tail.
    beyond = (q > q_asimov) & (q_asimov > 0)
    scale = np.where(q_asimov > 0, sigma, 1.0)
    from_signal = np.where(beyond, 0.5 * (q + q_asimov) / scale, root)
    from_background = np.where(beyond, 0.5 * (q - q_asimov) / scale, root - sigma)
    cls_plus_b, cl_b = ndtr(-from_signal), ndtr(-from_background)
    bands = np.asarray(BANDS)
    fits = (best, held, free, pseudo)
    return HypothesisTest(
        mu=mu,
        q=q,
        q_asimov=q_asimov,
        cls_plus_b=cls_plus_b,
        cl_b=cl_b,
        # Both may be smaller than the smallest number.
        observed_cls=np.exp(log_ndtr(-from_signal) - log_ndtr(-from_background)),
        expected_cls=ndtr(bands - sigma) / ndtr(bands),
        converged=np.stack([entry.converged for entry in fits]).all(),
        left_out=np.stack([entry.left_out for entry in fits]).max(),
    )


def _without_observed(test: HypothesisTest) -> HypothesisTest:
    """A test whose observed data say nothing."""
    fields = ("q", "cls_plus_b", "cl_b", "observed_cls")
    return eqx.tree_at(lambda test: [getattr(test, field) for field in fields], test, [np.float64(np.nan)] * 4)


def _root(height: Callable[[float], float], lower: float, tested: dict[float, HypothesisTest]) -> float:
    """Where a falling function crosses zero: a bracket by doubling, then false position (Illinois). NaN: nowhere."""
    heights = {mu: height(mu) for mu in sorted(tested)}
    low = max([mu for mu in heights if heights[mu] > 0], default=lower)
    high = min([mu for mu in heights if mu > low and heights[mu] <= 0], default=max(1.0, 2.0 * low))
    at_low, at_high = heights.get(low, np.inf), height(high)
    while at_high > 0 and high < HIGHEST:
        low, at_low, high = high, at_high, 2.0 * high
        at_high = height(high)
    if not at_high <= 0:
        return float("nan")
    side = 0
    for _ in range(TRIES):
        straight = np.isfinite(at_low) and np.isfinite(at_high)
        middle = low + (high - low) * at_low / (at_low - at_high) if straight else 0.5 * (low + high)
        value = height(middle)
        if abs(value) < PRECISION or high - low < PRECISION * high:
            return middle if abs(value) < JUMP else float("nan")
        if value > 0:
            # Twice on the same side: the other end weighs half.
            low, at_low, at_high, side = middle, value, at_high * (0.5 if side > 0 else 1.0), 1
        else:
            high, at_high, at_low, side = middle, value, at_low * (0.5 if side < 0 else 1.0), -1
    return float("nan")
