"""Histograms of other libraries in, `hist.Hist` out: whatever follows the UHI protocol, as arrays, and the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

__all__ = ["Axis", "Content", "content", "hists"]

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Axis:
    """The bins of an observable; `name` and `label` are for those who draw it."""

    edges: Values
    name: str = "observable"
    label: str = ""


@dataclass(frozen=True, eq=False)
class Content:
    """A histogram as arrays: expected events of each bin, and their variances where it has any."""

    axis: Axis
    values: Values
    variances: Values | None


def content(histogram: Any, where: str) -> Content:
    """The bins of a histogram of one axis, without flow.

    Args:
        histogram: a `hist.Hist`, a histogram of boost-histogram, uproot or ROOT, any other object that follows the UHI
            protocol, or values and edges as `numpy.histogram` returns them, which have no variances.
        where: what it is, for errors.

    Raises:
        InputError: it is none, has several axes or one without edges, or contents that are not finite.
    """
    from uhi.numpy_plottable import ensure_plottable_histogram

    try:
        plottable = ensure_plottable_histogram(histogram)
    except TypeError:
        raise InputError(
            f"{where}: a {type(histogram).__name__} is no histogram; give a hist.Hist, another object of the UHI "
            "protocol, or (values, edges)."
        ) from None
    axes = tuple(plottable.axes)
    if len(axes) != 1:
        raise InputError(f"{where}: the histogram has {len(axes)} axes; project it on one, or flatten it.")
    values, variances = np.asarray(plottable.values(), np.float64), plottable.variances()
    variances = None if variances is None else np.asarray(variances, np.float64)
    finite = np.isfinite(values).all() and (variances is None or (np.isfinite(variances) & (variances >= 0)).all())
    if not finite:
        raise InputError(f"{where}: a bin is not finite, or has a negative variance; make the histogram again.")
    own = getattr(histogram, "axes", axes)[0]
    return Content(Axis(_edges(axes[0], where), *_names(own)), values, variances)


def _edges(axis: Any, where: str) -> Values:
    bins = [axis[number] for number in range(len(axis))]
    if not all(isinstance(each, tuple) for each in bins):
        raise InputError(f"{where}: the axis is one of categories; give one with edges.")
    return np.array([bins[0][0], *(upper for _, upper in bins)], np.float64)


def _names(axis: Any) -> tuple[str, str]:
    name, label = (getattr(axis, key, "") for key in ("name", "label"))
    return (name if isinstance(name, str) and name else "observable"), (label if isinstance(label, str) else "")


def hists(
    processes: Sequence[str],
    variations: Sequence[str],
    axes: Mapping[str, Axis],
    values: Any,
    variances: Any = None,
) -> dict[str, Any]:
    """One `hist.Hist` for each region: axes `process`, `variation` and the observable.

    Args:
        processes: names.
        variations: names, the nominal one first.
        axes: of each region, in the order of the joint axis of bins.
        values: shape "variations processes bins".
        variances: of the nominal ones, shape "processes bins".
    """
    import hist  # it takes a while, and only those who look at templates need it

    tables, filled, offset = np.swapaxes(np.asarray(values), 0, 1), {}, 0
    for name, axis in axes.items():
        histogram = hist.Hist(
            hist.axis.StrCategory(list(processes), name="process"),
            hist.axis.StrCategory(list(variations), name="variation"),
            hist.axis.Variable(axis.edges, name=axis.name, label=axis.label),
            storage=hist.storage.Weight(),
            name=name,
        )
        bins = slice(offset, offset + len(axis.edges) - 1)
        view = histogram.view()
        view.value = tables[:, :, bins]
        if variances is not None:
            view.variance[:, 0] = np.asarray(variances)[:, bins]
        filled[name], offset = histogram, bins.stop
    return filled
