"""How wide the kernels of the boundary flux are at the start, where the config does not say.

A wide kernel has little noise and much bias, a narrow one the opposite. The rule is Lepski's (Theory Probab. Appl. 35
(1991) 454): take the widest kernel whose estimate agrees, within its statistical error, with that of a kernel half as
wide. What is asked to agree is the derivative of the objective itself, so the density of objects near the cut enters
through the statistical error, and each object counts for as much as it matters.

Where all derivatives are noise, every width agrees with every other, and the rule takes the widest. That is what such a
start needs: narrow kernels leave a run where it stands, on a plain whose edge they do not see.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.analysis import Gradient
from pipeline.config.selection import Threshold
from pipeline.scales import OWN_UNIT, STEPS, Kernel, Rank, Scale, apart

__all__ = ["choose_kernels", "lepski_bandwidths"]

HALVINGS = 5
"""Kernels that are tried: the widest, and so many that are each half as wide as the one before."""

ERRORS = 2.0
"""Two estimates agree if they differ by less than so many statistical errors of their difference."""

VARIANCE_OF_DIFFERENCE = 0.625
"""∫(K_h − K_h/2)² over ∫K_h², for the Epanechnikov kernel: the two estimates share their events."""


NARROWING = 4.0
"""By how much kernels narrow in an optimisation."""


def choose_kernels(
    thresholds: Mapping[str, Threshold],
    ranks: Mapping[str, Rank],
    rising: Sequence[Sequence[str]],
    gradient_on: Callable[[Mapping[str, Scale], Mapping[str, float]], Gradient],
) -> dict[str, Kernel]:
    """How thresholds move to which the config gives no bandwidth.

    Args:
        thresholds: by name.
        ranks: the scale of those that move in rank.
        rising: names of thresholds that must keep their order, and share a kernel.
        gradient_on: the gradient by places on some scales, with kernels of some widths there.
    """
    scales: dict[str, Scale] = {name: ranks.get(name, OWN_UNIT) for name in thresholds}
    spans, widest = {}, {}
    together = [names for names in rising if set(names) & set(thresholds)]
    for name, threshold in thresholds.items():
        low, high = threshold.bounds or (0.0, 1.0)
        spans[name] = scales[name].place(high) - scales[name].place(low)
        widest[name] = spans[name] / 4
    for names in together:
        places = np.array([scales[name].place(thresholds[name].threshold) for name in names])
        gaps = np.concatenate([[np.inf], np.diff(places), [np.inf]])
        for name, below, above in zip(names, gaps, gaps[1:], strict=False):
            if name in ranks:
                nearest = max(min(below, above), apart(spans[name], len(names)))
                widest[name] = min(widest[name], float(nearest) / 2)
    chosen = lepski_bandwidths(lambda widths: gradient_on(scales, widths), widest, together)
    return {
        name: Kernel(
            scales[name],
            threshold.step or spans[name] / STEPS,
            chosen[name],
            chosen[name] / NARROWING,
        )
        for name, threshold in thresholds.items()
    }


def lepski_bandwidths(
    gradient_at: Callable[[dict[str, float]], Gradient],
    widest: Mapping[str, float],
    together: Sequence[Sequence[str]] = (),
) -> dict[str, float]:
    """A bandwidth for each threshold, in its own unit.

    Args:
        gradient_at: the gradient with its errors, for given bandwidths, at the default thresholds.
        widest: the widest bandwidth of each threshold.
        together: thresholds that share one kernel, such as the edges of a region.
    """
    widths = [{name: width / 2**halvings for name, width in widest.items()} for halvings in range(HALVINGS + 1)]
    gradients = [gradient_at(kernels) for kernels in widths]
    groups = [*map(tuple, together), *((name,) for name in widest if not any(name in group for group in together))]
    chosen: dict[str, float] = {}
    for group in groups:
        agreeing = (n for n in range(HALVINGS) if _agree(gradients[n], gradients[n + 1], group))
        level = next(agreeing, HALVINGS)
        chosen |= {name: widths[level][name] for name in group}
    return {name: chosen[name] for name in widest}


def _agree(wide: Gradient, narrow: Gradient, group: Sequence[str]) -> bool:
    """Whether the derivatives by a group of thresholds differ by no more than their errors, on the average."""
    difference = np.array([float(wide.value[name] - narrow.value[name]) for name in group])
    variance = VARIANCE_OF_DIFFERENCE * np.array([float(wide.error[name]) for name in group]) ** 2
    return bool(np.sum(difference**2) <= ERRORS**2 * np.sum(variance))
