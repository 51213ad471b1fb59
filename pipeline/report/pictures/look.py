"""The look of all pictures: that of CMS publications (mplhep), at a size that a phone can show.

Text and axes are pure black on nothing, so that the page can draw them in the colour of its text, light or dark. Every
picture says where its events come from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = [
    "COLORS",
    "COLUMN",
    "ROW",
    "STATISTICAL_BAND",
    "THRESHOLD",
    "TOTAL_BAND",
    "TRAINING",
    "VALIDATION",
    "band",
    "colors",
    "in_rows",
    "lay_out",
    "panels",
    "ratio",
    "style",
    "title",
]

Values = NDArray[np.float64]
# Not imported: the process that draws needs nothing of what computes, which takes seconds to import.

COLORS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd", "#b9ac70", "#a96b59", "#e76300", "#92dadd")
"""M. A. Petroff, arXiv:2107.02270: they stay apart for colour-blind readers and in grey; CMS recommends them."""

GREY = COLORS[4]
TRAINING, VALIDATION, THRESHOLD = COLORS[2], COLORS[0], COLORS[3]
TOTAL_BAND: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "hatch": "////"}
STATISTICAL_BAND: dict[str, Any] = {"color": "black", "alpha": 0.6}
COLUMN, ROW = 4.6, 3.4
"""Size of a panel in inches."""

SIZES: dict[str, Any] = {
    "font.size": 11,
    "axes.linewidth": 1,
    "xtick.major.size": 5,
    "ytick.major.size": 5,
    # Minor ticks take most of the time of a drawing and tell little.
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.6,
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def style(name: str = "figure") -> Iterator[None]:
    """The style of all figures; `name` makes the marks inside an SVG file unique and the same in every run."""
    look: Any = {**mplhep.style.CMS, **SIZES, "svg.hashsalt": name}
    with mpl.rc_context(look):
        yield


def lay_out(figure: Figure) -> None:
    """Give every axis its final place, once and for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def in_rows(number: int, width: float) -> tuple[Figure, list[Axes]]:
    """So many panels, four in a row; the last row may be shorter."""
    columns = min(number, 4)
    figure, grid = panels(-(-number // columns), columns, width=width)
    flat = [axes for row in grid for axes in row]
    for axes in flat[number:]:
        axes.remove()
    return figure, flat[:number]


def panels(
    rows: int, columns: int, width: float = COLUMN, height: float = ROW, heights: Sequence[float] | None = None
) -> tuple[Figure, Any]:
    """A figure and its panels, a row of them for each of `rows`; sizes in inches."""
    total = height * rows if heights is None else 1.3 * ROW * rows / 2
    figure = Figure(figsize=(width * columns, total + 0.6))
    grid = {"height_ratios": heights} if heights is not None else {}
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)


def title(axes: Axes, text: str, source: str, *, narrow: bool = False) -> None:
    """What is shown on the left, where the events come from on the right; in a narrow panel one above the other."""
    axes.set_title(f"{text}\n" if narrow else text, loc="left", fontsize=10)
    axes.text(1, 1.01, source, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, style="italic")


def band(axes: Axes, edges: Values, low: Values, high: Values, **options: Any) -> None:
    """A filled band between two histograms."""
    axes.stairs(high, edges, baseline=low, fill=True, linewidth=0, **options)


def ratio(numerator: Values, denominator: Values, empty: float = 0.0) -> Values:
    """Bin by bin; `empty` where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full_like(denominator, empty), where=denominator > 0)


def colors(number: int) -> list[str]:
    """One for each process; grey is the colour of errors."""
    of_processes = [color for color in COLORS if color != GREY]
    return [of_processes[i % len(of_processes)] for i in range(number)]
