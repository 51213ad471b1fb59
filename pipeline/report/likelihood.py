"""Pictures of a fit: best values, ranking, correlations, yields and the CLs scan, from its result as in the JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["plot_workspace"]

MOST = 40  # parameters in one picture
BAND_COLOURS = ("#f5d742", "#6abf5e")  # two and one standard deviations, as in every limit plot


def plot_workspace(folder: Path, result: dict[str, Any]) -> list[Path]:
    """Write every picture that the result allows; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Axes], None]] = {
        "parameters": lambda axes: _parameters(axes, result["observed"]),
        "correlation": lambda axes: _correlation(axes, result["observed"]),
        "yields": lambda axes: _yields(axes, result["observed"]),
    }
    if "ranking" in result:
        pictures["ranking"] = lambda axes: _ranking(axes, result["ranking"]["impacts"], result["poi"])
    if "limit" in result:
        pictures["cls"] = lambda axes: _scan(axes, result["limit"], result["poi"])
    paths = []
    for name, draw in pictures.items():
        figure = Figure(figsize=(7, 6), layout="constrained")
        draw(figure.add_subplot())
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _parameters(axes: Axes, fit: dict[str, Any]) -> None:
    names = [name for name in fit["bestfit"] if name not in fit["at_bound_or_held"]][:MOST]
    place = np.arange(len(names))
    axes.errorbar(
        [fit["bestfit"][name] for name in names],
        place,
        xerr=[fit["uncertainty"][name] if np.isfinite(fit["uncertainty"][name]) else 0.0 for name in names],
        fmt="o",
        color="black",
        markersize=3,
    )
    axes.set_yticks(place, names, fontsize=6)
    axes.set_xlabel("best fit")


def _correlation(axes: Axes, fit: dict[str, Any]) -> None:
    matrix = np.array(fit["correlation"])
    strong = np.argsort(-np.max(np.abs(matrix - np.eye(len(matrix))), axis=0))[:MOST]
    names = [list(fit["bestfit"])[i] for i in strong]
    image = axes.imshow(matrix[np.ix_(strong, strong)], vmin=-1, vmax=1, cmap="RdBu_r")
    axes.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=5)
    axes.set_yticks(np.arange(len(names)), names, fontsize=5)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes, label="correlation")


def _yields(axes: Axes, fit: dict[str, Any]) -> None:
    expected, error = np.array(fit["yields"]), np.array(fit["yield_uncertainty"])
    edges = np.arange(len(expected) + 1) - 0.5
    axes.stairs(expected, edges, color="tab:blue", label="after the fit")
    axes.stairs(expected + error, edges, baseline=expected - error, fill=True, alpha=0.4, label="uncertainty")
    data = np.array(fit["data"])
    axes.errorbar(np.arange(len(data)), data, yerr=np.sqrt(np.maximum(data, 0)), fmt="o", color="black", label="data")
    axes.set_xlabel("bin")
    axes.set_ylabel("events")
    axes.legend()


def _ranking(axes: Axes, impacts: dict[str, dict[str, float]], poi: str) -> None:
    names = list(impacts)[:MOST][::-1]
    place = np.arange(len(names))
    for kind, colour in (("up", "tab:red"), ("down", "tab:blue")):
        after = [impacts[name][f"postfit_{kind}"] for name in names]
        before = [impacts[name][f"prefit_{kind}"] for name in names]
        axes.barh(place, np.nan_to_num(before), 0.8, fill=False, edgecolor=colour, linewidth=0.8)
        axes.barh(place, np.nan_to_num(after), 0.8, color=colour, alpha=0.6, label=kind)
    axes.set_yticks(place, names, fontsize=6)
    axes.set_xlabel(f"impact on {poi} (filled: after the fit)")
    axes.legend()


def _scan(axes: Axes, limit: dict[str, Any], poi: str) -> None:
    mu = [test["mu"] for test in limit["scan"]]
    bands = np.array([test["expected_cls"] for test in limit["scan"]])
    for (low, high), colour in zip(((0, 4), (1, 3)), BAND_COLOURS, strict=True):
        axes.fill_between(mu, bands[:, low], bands[:, high], color=colour)
    axes.plot(mu, bands[:, 2], "k--", label="expected")
    axes.plot(mu, [test["cls"] for test in limit["scan"]], "k.-", label="observed")
    axes.axhline(0.05, color="tab:red", linewidth=0.8)
    axes.set_xlabel(poi)
    axes.set_ylabel("CLs")
    axes.set_ylim(0, 1)
    axes.legend()
