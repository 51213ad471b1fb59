"""The one-dimensional toy of gato-hep 0.2.1: a signal and five backgrounds, and the likelihood ratio as their score.

Gaussians in three dimensions, blurred like a detector's response: the same random numbers as `generate_toy_data_1D`, so
the same events. The score piles up at 0 and at 1. This file needs NumPy only: each peer imports it in an environment of
its own.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Tables = dict[str, dict[str, NDArray[np.float64]]]
"""By process: `score` and `weight`."""

MEANS = {
    "signal": (1.5, -1.0, -1.0),
    "bkg1": (-0.5, -0.5, 1.0),
    "bkg2": (0.5, -0.5, 0.8),
    "bkg3": (0.5, 0.5, -0.6),
    "bkg4": (-0.5, 1.0, -0.4),
    "bkg5": (-0.5, 0.5, -0.2),
}
COVARIANCE = np.eye(3) + 0.2 * (np.ones((3, 3)) - np.eye(3))
CROSS_SECTIONS = {"signal": 0.5, "bkg1": 100.0, "bkg2": 80.0, "bkg3": 50.0, "bkg4": 20.0, "bkg5": 10.0}
LUMINOSITY = 100.0
BLUR = 0.3


def make_tables(signal: int = 100_000, background: int = 300_000, seed: int = 42) -> Tables:
    """The events of one seed; another one gives independent events if it differs by six at least."""
    blur = np.random.RandomState(seed)
    backgrounds = [name for name in MEANS if name != "signal"]
    total = sum(CROSS_SECTIONS[name] for name in backgrounds)
    numbers = {"signal": signal} | {name: int(background * CROSS_SECTIONS[name] / total) for name in backgrounds}
    numbers[backgrounds[-1]] += background + signal - sum(numbers.values())
    points = {
        name: np.random.default_rng(seed + place).multivariate_normal(mean, COVARIANCE, size=numbers[name])
        for place, (name, mean) in enumerate(MEANS.items())
    }
    tables = {}
    for name, at in points.items():
        seen = at * blur.normal(1.0, BLUR, size=at.shape)
        densities = {process: _density(seen, mean) for process, mean in MEANS.items()}
        mixture = sum(CROSS_SECTIONS[process] / total * densities[process] for process in backgrounds)
        ratio = densities["signal"] / (mixture + 1e-12)
        weight = CROSS_SECTIONS[name] * LUMINOSITY / numbers[name]
        tables[name] = {"score": ratio / (1 + ratio), "weight": np.full(len(at), weight)}
    return tables


def _density(at: NDArray[np.float64], mean: tuple[float, ...]) -> NDArray[np.float64]:
    distance = at - np.array(mean)
    exponent = np.einsum("nd,de,ne->n", distance, np.linalg.inv(COVARIANCE), distance)
    return np.exp(-exponent / 2) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(COVARIANCE))


def save(path: Path, tables: Tables) -> None:
    np.savez(path, **{f"{name}.{column}": values for name, each in tables.items() for column, values in each.items()})


def load(path: Path) -> Tables:
    tables: Tables = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, column = key.partition(".")
            tables.setdefault(name, {})[column] = file[key]
    return tables
