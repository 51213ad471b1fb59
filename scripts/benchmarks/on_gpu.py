"""The part of `on_gpu.sh` that computes: one JSON of what a device makes of the analysis (simulated events).

Equality with a CPU, a step for several numbers of events and chunk sizes, where its time goes, the fit alone, and the
bandwidth of a copy beside it. The file is written anew after each measurement: a run that is cut short leaves the rest.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import benchmark
import jax
import jax.numpy as jnp
import numpy as np
from pipeline import analysis as exact
from pipeline import problem, translation
from pipeline.analysis import Analysis, Data
from pipeline.config import Config, load_config
from pipeline.events.devices import added
from pipeline.events.yields import SUBSAMPLES
from pipeline.ingest.samples import Sample
from pipeline.names import names_of

THRESHOLDS = 8
Row = dict[str, Any]


class Size(NamedTuple):
    """How much is measured. The largest number of events is so many times the last of `events`, one after another."""

    config: str
    events: tuple[int, ...]
    times: int
    chunks: tuple[int, ...]
    repeat: int


SIZES = {
    "full": Size("configs/agc.yaml", (100_000, 1_000_000), 10, (1 << 18, 1 << 16), 9),
    "small": Size("configs/agc.yaml", (1_500,), 2, (256,), 2),
}


def main() -> int:
    options = parsed()
    if options.plot:
        draw(json.loads(options.output.read_text()), options.plot)
        return 0
    size = SIZES[options.size]
    config = load_config(size.config)
    samples = problem.read(config)
    analysis = translation.make_analysis(config, names_of(config), len(samples))
    if options.reference:
        options.reference.write_text(json.dumps(numbers(config, samples, analysis, size)))
        return 0
    results: Row = {"about": about(), "tests": options.tests.read_text().splitlines()[-1], "steps": []}
    results["copy_bytes_per_second"] = copy_bandwidth()
    results["equality"] = compared(numbers(config, samples, analysis, size), json.loads(options.cpu.read_text()))
    for row in steps(config, samples, analysis, size):
        results["steps"].append(row)
        options.output.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(row), flush=True)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--reference", type=Path, help="write the numbers to compare with, and stop")
    parser.add_argument("--cpu", type=Path, help="numbers of a CPU")
    parser.add_argument("--tests", type=Path, help="what pytest said")
    parser.add_argument("--output", type=Path, help="the figures")
    parser.add_argument("--plot", type=Path, help="draw the figures in --output, and stop")
    return parser.parse_args()


def about() -> Row:
    devices = jax.local_devices()
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def numbers(config: Config, samples: tuple[Sample, ...], analysis: Analysis, size: Size) -> Row:
    """Yields, figure of merit and gradient of the smallest number of events."""
    at, widths = benchmark.point(config, THRESHOLDS)
    data = benchmark.enlarged(config, samples, size.events[0], 0, 1)
    evaluation = exact.evaluate(analysis, at, widths, data)
    return {
        "yields": np.asarray(exact.yields_at(analysis, at, data))[..., :2].tolist(),
        "merit": float(evaluation.merit.value),
        "gradient": {name: float(value) for name, value in evaluation.gradient.value.items()},
        "error": {name: float(value) for name, value in evaluation.gradient.error.items()},
    }


def compared(device: Row, cpu: Row) -> Row:
    """Counts differ by an absolute number, all else relatively; a derivative in units of its statistical error."""
    off = {
        name: abs(value - cpu["gradient"][name]) / cpu["error"][name] if cpu["error"][name] else 0.0
        for name, value in device["gradient"].items()
    }
    return {
        "counts": float(np.abs(np.array(device["yields"]) - np.array(cpu["yields"])).max()),
        "merit": abs(device["merit"] / cpu["merit"] - 1),
        "gradient": max(off.values()),
    }


def steps(config: Config, samples: tuple[Sample, ...], analysis: Analysis, size: Size) -> Iterator[Row]:
    """A row for each chunk size and number of events; the last number several times over, part after part."""
    for chunk in size.chunks:
        chunked = config.model_copy(update={"data": config.data.model_copy(update={"chunk": chunk})})
        for events in size.events:
            data = benchmark.enlarged(chunked, samples, events, 0, 1)
            yield row_of(config, analysis, [data], chunk, size.repeat) | profile(config, analysis, data, size.repeat)
        yield row_of(config, analysis, [data] * size.times, chunk, size.repeat)


def row_of(config: Config, analysis: Analysis, parts: list[Data], chunk: int, repeat: int) -> Row:
    groups = [group for part in parts for group in part.events.groups]
    about_events = {
        "events": sum(int(jnp.sum(group.index >= 0)) for group in groups),
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(groups)),
        "chunk": chunk,
        "parts": len(parts),
    }
    return about_events | benchmark.measured_steps(config, analysis, parts, THRESHOLDS, repeat)


def profile(config: Config, analysis: Analysis, data: Data, repeat: int) -> Row:
    """Seconds of each stage of a step, one after another; the fit is one of them."""
    at, widths = benchmark.point(config, THRESHOLDS)
    stages = {}
    _, stages["events_s"], (yields, flux) = benchmark.timed(
        lambda: exact._yields_and_flux(analysis.events, at, widths, data.events, SUBSAMPLES), repeat
    )
    _, stages["added_s"], total = benchmark.timed(lambda: added(yields), repeat)
    _, stages["fit_s"], (_, slope) = benchmark.timed(
        lambda: exact.loss_of_yields_and_slope(total, analysis, data.recipe), repeat
    )
    _, stages["contracted_s"], _ = benchmark.timed(lambda: exact._gradient(slope, flux), repeat)
    return stages | {"kernels": kernels(lambda: exact.evaluate(analysis, at, widths, data))}


def kernels(step: Callable[[], Any], most: int = 40) -> list[Row]:
    """What a GPU ran in a step: the kernels that take longest, and how often each was launched; a CPU has none."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(step())
        profiles = [jax.profiler.ProfileData.from_file(str(path)) for path in Path(folder).rglob("*.xplane.pb")]
    seconds: dict[str, list[float]] = defaultdict(list)
    for plane in (plane for profile in profiles for plane in profile.planes if plane.name.startswith("/device:GPU")):
        for event in (event for line in plane.lines if line.name.startswith("Stream") for event in line.events):
            seconds[event.name].append(event.duration_ns / 1e9)
    rows = [{"kernel": name, "launches": len(each), "seconds": sum(each)} for name, each in seconds.items()]
    total = {"kernel": "all", "launches": sum(map(len, seconds.values())), "seconds": sum(map(sum, seconds.values()))}
    return [total, *sorted(rows, key=lambda row: -row["seconds"])[:most]] if rows else []


def copy_bandwidth() -> float:
    """Bytes a second that are read and written when a large array is copied with a change."""
    array = jnp.ones(50_000_000 if jax.default_backend() == "cpu" else 1_000_000_000, jnp.float32)
    negative = jax.jit(jnp.negative)
    return 2 * array.nbytes / benchmark.timed(lambda: negative(array), 5)[1]


def draw(results: Row, path: Path) -> None:
    """A step against the number of events, and what it is made of for the most events in memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_events, by_stage = figure.subplots(1, 2)
    chunk = results["steps"][0]["chunk"]
    rows = [row for row in results["steps"] if row["chunk"] == chunk]
    for label, name in {"value and gradient": "value_and_gradient_s", "value": "value_s"}.items():
        by_events.plot([row["events"] for row in rows], [1e3 * row[name] for row in rows], "o-", label=label)
    floor = [1e3 * row["bytes"] / results["copy_bytes_per_second"] for row in rows]
    by_events.plot([row["events"] for row in rows], floor, "o:", color="0.5", label="reading the columns once")
    by_events.set(xscale="log", yscale="log", xlabel="simulated events", ylabel="milliseconds")
    by_events.set_title(f"{results['about']['device']}, {rows[0]['thresholds']} thresholds")
    by_events.legend()
    stages = {"events_s": "pass over the events", "fit_s": "fit, on the CPU", "contracted_s": "gradient from the flux"}
    staged = [row for row in rows if "events_s" in row]
    for place, (name, label) in enumerate(stages.items()):
        offset = (place - 1) * 0.25
        by_stage.bar([at + offset for at in range(len(staged))], [1e3 * row[name] for row in staged], 0.25, label=label)
    by_stage.set_xticks(range(len(staged)), [f"{row['events']:,} events" for row in staged])
    by_stage.set(ylabel="milliseconds", title="stages, one after another")
    by_stage.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
