"""The same small analysis for every peer: simulated toy events, cuts, one histogram, a model of 11 parameters.

Five samples, cuts `x > t` on independent variables, an observable in 25 bins that no cut changes, and a signal strength
with a normsys and a histosys for each sample. Both are symmetric, so that all codes of interpolation agree to better
than what is compared. This file needs NumPy only: each peer imports it in an environment of its own.
"""

import argparse
import importlib.metadata
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLES = ("signal", "ttbar", "wjets", "single_top", "other")
EXPECTED = (300.0, 4000.0, 2000.0, 1000.0, 500.0)
"""Events of each sample before the cuts."""
EDGES = np.linspace(0.0, 1000.0, 26, dtype=np.float32)
KAPPA = 1.1
"""Of the normsys: a factor at +1, its inverse at −1."""
TILT = 0.1
"""Of the histosys: by how much the last bin rises at +1, the first one falls."""
BANDWIDTH = 0.3
"""Of the kernel at a threshold, in standard deviations of the variable."""
SIGMOID_WIDTH = 0.1
"""Of soft cuts, likewise."""
OBSERVABLE_BANDWIDTH = 10.0
"""Of kernel-density histograms, in GeV; a bin is 40 wide."""


class Events(NamedTuple):
    """Columns: `variables` has shape "cuts events"; `sample` is a place in `SAMPLES`."""

    variables: NDArray[np.float32]
    mass: NDArray[np.float32]
    sample: NDArray[np.int32]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Expected events for one simulated event of each sample."""
        return np.array(EXPECTED) / np.bincount(self.sample, minlength=len(SAMPLES))


def make_events(events: int, cuts: int, seed: int = 1) -> Events:
    """Toy events; the signal stands apart by one standard deviation over all variables together."""
    generator = np.random.default_rng(seed)
    sample = generator.integers(len(SAMPLES), size=events, dtype=np.int32)
    variables = generator.normal(size=(cuts, events)).astype(np.float32)
    variables += np.where(sample == 0, np.float32(1 / np.sqrt(cuts)), np.float32(0))
    peak, width = np.array([500, 300, 250, 350, 400])[sample], np.array([60, 150, 200, 150, 250])[sample]
    mass = np.abs(generator.normal(peak, width)).astype(np.float32)
    return Events(variables, mass, sample)


def start(cuts: int) -> NDArray[np.float64]:
    """Thresholds that together keep half of the background."""
    return np.full(cuts, NormalDist().inv_cdf(1 - 0.5 ** (1 / cuts)))


def tilt(bins: int = len(EDGES) - 1) -> NDArray[np.float64]:
    """Relative change of each bin by a histosys at +1."""
    return np.linspace(-TILT, TILT, bins)


def specification(histogram: NDArray[np.float64]) -> dict[str, Any]:
    """The model in pyhf's JSON, from the expected events of each sample, shape "samples bins"."""

    def sample(name: str, yields: NDArray[np.float64]) -> dict[str, Any]:
        up, down = yields * (1 + tilt()), yields * (1 - tilt())
        modifiers = [
            {"name": f"norm_{name}", "type": "normsys", "data": {"hi": KAPPA, "lo": 1 / KAPPA}},
            {"name": f"shape_{name}", "type": "histosys", "data": {"hi_data": list(up), "lo_data": list(down)}},
        ]
        if name == SAMPLES[0]:
            modifiers.append({"name": "mu", "type": "normfactor", "data": None})
        return {"name": name, "data": list(yields), "modifiers": modifiers}

    samples = [sample(name, yields) for name, yields in zip(SAMPLES, histogram, strict=True)]
    return {"channels": [{"name": "region", "samples": samples}]}


def hard_histogram(events: Events, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Expected events, shape "samples bins", in NumPy."""
    bins = len(EDGES) - 1
    passes = np.all(events.variables > np.asarray(thresholds, np.float32)[:, None], axis=0)
    place = np.searchsorted(EDGES, events.mass, side="right") - 1
    keep = passes & (place >= 0) & (place < bins)
    counts = np.bincount(events.sample[keep] * bins + place[keep], minlength=len(SAMPLES) * bins)
    return counts.reshape(len(SAMPLES), bins) * events.weights[:, None]


def measure(
    value: Callable[[], float],
    step: Callable[[], tuple[float, Sequence[float]]] | None,
    packages: Sequence[str],
) -> None:
    """Print one JSON object for the peer that calls it: what it found, and how long it took.

    Args:
        value: the significance, finished when it returns (or the forward pass alone, without `step`).
        step: the significance and its gradient, likewise.
        packages: of which the versions are told.
    """
    _, repeat = arguments()
    row: dict[str, Any] = {"versions": {name: importlib.metadata.version(name) for name in packages}}
    if step is not None:
        row["first_s"], row["step_s"], (z, gradient) = timed(step, repeat)
        row |= {"z": float(z), "gradient": [float(slope) for slope in gradient]}
    _, row["value_s"], _ = timed(value, repeat)
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(row))


def timed(call: Callable[[], Any], repeat: int) -> tuple[float, float, Any]:
    """(first call, median of the later ones) in seconds, and the result."""
    seconds = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[1:])), result


def arguments() -> tuple[Events, int]:
    """The events of the file that the command line names, and how often to repeat."""
    parser = argparse.ArgumentParser(description="One peer of scripts/benchmark_peers.py, which calls it.")
    parser.add_argument("events", type=Path, help=".npz file of toy events")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    return load(options.events), options.repeat


def save(path: Path, events: Events) -> None:
    np.savez(path, **events._asdict())


def load(path: Path) -> Events:
    with np.load(path) as file:
        columns: Mapping[str, Any] = {name: file[name] for name in Events._fields}
    return Events(**columns)
