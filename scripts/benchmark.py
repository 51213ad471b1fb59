"""How fast is one optimisation step? Value, and value with gradient, by number of events and of thresholds.

The whole analysis is measured: all data sets, variations and the fit.
Events are made by resampling the simulated samples with smeared jets. Times are medians after warm-up, with compilation
apart; one "event" is one preselected event, analysed under every kinematic variation. The floor is the time to read the
columns of the events once at the memory bandwidth measured in the same run.

Examples:
  python scripts/benchmark.py --config configs/agc.yaml --events 10000 100000
  python scripts/benchmark.py --config configs/agc.yaml --events 1000000 --chunk 1048576      # a GPU wants large chunks
"""

import argparse
import dataclasses
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
from pipeline import problem
from pipeline.analysis import Data, loss_and_gradient, merit_of
from pipeline.config import Config, load_config
from rich.console import Console
from rich.table import Table

ORDER = ["jet_pt", "jet_btag", "electron_pt", "jet_eta", "electron_eta", "electron_sip3d", "muon_pt", "muon_eta"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/agc.yaml"))
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--thresholds", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--chunk", type=int, default=problem.CHUNK_SIZE, help="events in a chunk")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    config = load_config(options.config)
    samples = problem.read_samples(config)
    rows = []
    for events in options.events:
        problem.CHUNK_SIZE = options.chunk
        data, analysis = enlarged(config, samples, events)
        for thresholds in options.thresholds:
            rows.append(measure(config, analysis, data, thresholds, options.repeat))
            print(json.dumps(rows[-1]), flush=True)
        del data
    device = jax.devices()[0].device_kind
    report(rows, device)
    if options.output:
        about = {"device": device, "jax": jax.__version__, "python": platform.python_version(), "chunk": options.chunk}
        options.output.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    return 0


def enlarged(config: Config, samples: tuple[problem.Sample, ...], events: int) -> tuple[Data, problem.Analysis]:
    """About that many events, drawn with replacement from every data set in proportion, jets smeared by 2 %."""
    generator = np.random.default_rng(config.seed)
    total = sum(len(sample.events) for sample in samples)
    grown = []
    for sample in samples:
        rows = generator.integers(len(sample.events), size=max(1, round(events * len(sample.events) / total)))
        drawn = sample.events[rows]
        jets = drawn[config.objects.jet.branch]
        smear = generator.normal(1, 0.02, int(ak.sum(ak.num(jets)))).astype(np.float32)
        pt = ak.values_astype(jets.pt * ak.unflatten(smear, ak.num(jets)), np.float32)
        drawn = ak.with_field(drawn, ak.with_field(jets, pt, "pt"), config.objects.jet.branch)
        drawn = ak.with_field(drawn, np.arange(len(drawn)), "index")
        drawn = ak.with_field(drawn, np.arange(len(drawn), dtype=np.uint64), "event")
        grown.append(dataclasses.replace(sample, events=drawn))
    analysis = problem.make_analysis(config, len(grown))
    (data,) = problem.make_data(config, analysis, grown, [(1.0, [np.ones(len(s.events), bool) for s in grown])])
    return data, analysis


def measure(config: Config, analysis: problem.Analysis, data: Data, thresholds: int, repeat: int) -> dict[str, float]:
    """One row of the table."""
    at = {name: jnp.asarray(cut.threshold, jnp.float64) for name, cut in config.thresholds.items()}
    widths = {name: jnp.asarray(config.thresholds[name].bandwidth, jnp.float64) for name in ORDER[:thresholds]}
    value_first, value = timed(lambda: merit_of(at, analysis, data), repeat)
    step_first, step = timed(lambda: loss_and_gradient(at, analysis, widths, data), repeat)
    merit = merit_of(at, analysis, data)
    bytes_read = sum(leaf.nbytes for leaf in jax.tree.leaves((data.groups, data.candidates)))
    return {
        "events": int(sum(int((group.index >= 0).sum()) for group in data.groups)),
        "thresholds": thresholds,
        "z": float(merit.value),
        "value_s": value,
        "value_and_gradient_s": step,
        "ratio": step / value,
        "first_value_s": value_first,
        "first_value_and_gradient_s": step_first,
        "bytes": bytes_read,
        "floor_s": bytes_read / bandwidth(),
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def timed(call: Callable[[], object], repeat: int) -> tuple[float, float]:
    """(first call, median of the later ones) in seconds."""
    seconds = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[1:]))


def bandwidth() -> float:
    """Bytes a second that a sum over a large array reads."""
    array = jnp.ones(50_000_000, jnp.float32)
    total = jax.jit(jnp.sum)
    return array.nbytes / timed(lambda: total(array), 5)[1]


def report(rows: list[dict[str, float]], device: str) -> None:
    table = Table(title=f"one step of the full analysis on {device} (simulated events)", title_justify="left")
    for column in (
        "events",
        "thresholds",
        "value",
        "value + gradient",
        "ratio",
        "first call",
        "floor",
        "steps / floor",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['events']:,}",
            f"{row['thresholds']}",
            f"{row['value_s'] * 1e3:.1f} ms",
            f"{row['value_and_gradient_s'] * 1e3:.1f} ms",
            f"{row['ratio']:.1f}",
            f"{row['first_value_and_gradient_s']:.1f} s",
            f"{row['floor_s'] * 1e3:.2f} ms",
            f"{row['value_and_gradient_s'] / row['floor_s']:.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
