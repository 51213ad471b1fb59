"""How fast is one optimisation step? Value, and value with gradient, by number of events, of cores and of thresholds.

The whole analysis is measured: all data sets, variations and the fit, and the statistical error of each derivative.
Events are made by resampling the simulated samples with smeared jets; one "event" is one preselected event, analysed
under every kinematic variation. Each number of events has a process of its own. More events than --part-size are kept
on disk in parts and streamed.

Times are medians after a first call, which compiles and is told apart. The floor is the time to read the columns of the
events once at the memory bandwidth measured in the same process. Memory is that of the process: when the events are
there, and how much more at most while steps are made, compilation included.

Examples:
  python scripts/benchmarks/benchmark.py
  python scripts/benchmarks/benchmark.py --events 10000 100000 1000000 10000000 --plot benchmark.png
  python scripts/benchmarks/benchmark.py --events 100000 --config configs/every_threshold.yaml --thresholds 1 8 28
  python scripts/benchmarks/benchmark.py --events 100000 1000000 --cores 1 2
  python scripts/benchmarks/benchmark.py --events 1000000 --chunk 1048576      # a GPU wants large chunks
"""

import argparse
import dataclasses
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pipeline import problem, translation
from pipeline.analysis import Analysis, Data, evaluate, merit_of
from pipeline.command import use_cores
from pipeline.config import Config, load_config
from pipeline.event_data import Stream
from pipeline.events.batch import EventGroup
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.stream import store_parts
from pipeline.inference.templates import Recipe
from pipeline.ingest.samples import Sample
from pipeline.names import names_of
from pipeline.parts import make_data
from rich.console import Console
from rich.table import Table

FIRST = ["jet_pt", "jet_btag", "electron_pt", "jet_eta", "electron_eta", "electron_sip3d", "muon_pt", "muon_eta"]
"""The thresholds that count first; then those of the config, in its order."""

Row = dict[str, Any]


def main() -> int:
    options = parsed()
    if options.measure:
        for row in measured(options):
            print(json.dumps(row), flush=True)
        return 0
    rows = [row for events in options.events for cores in options.cores for row in in_own_process(events, cores)]
    about = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "python": platform.python_version()}
    report(rows, about["device"])
    if options.plot:
        draw(rows, options.plot)
    if options.output:
        options.output.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/agc.yaml"))
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--thresholds", type=int, nargs="+", default=[8])
    parser.add_argument("--cores", type=int, nargs="+", default=[1], help="of the CPU, each in a process of its own")
    parser.add_argument("--chunk", type=int, help="events in a chunk (default: as suits the device)")
    parser.add_argument("--part-size", type=int, default=1_000_000, help="most events in memory")
    parser.add_argument("--scratch", type=Path, help="folder for the parts of more events than that (1 GB a million)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="picture of the growth with events and thresholds")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(events: int, cores: int) -> list[Row]:
    """The rows for one number of events and cores; they go to the screen as they come."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(events), str(cores)]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            rows.append(json.loads(line))
    if process.returncode:
        raise SystemExit(f"the measurement of {events} events ended with exit code {process.returncode}")
    return rows


# --- one number of events ---


def measured(options: argparse.Namespace) -> Iterator[Row]:
    events, cores = options.measure
    use_cores(cores)
    config = load_config(options.config, {} if options.chunk is None else {"data": {"chunk": options.chunk}})
    samples = problem.read(config)
    analysis = translation.make_analysis(config, names_of(config), len(samples))
    number = -(-events // options.part_size)
    make = partial(enlarged, config, samples, events // number, parts=number)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        parts = [make(0)] if number == 1 else on_disk(config, make, number, Path(folder))
        size = {"events": 0, "bytes": 0, "cores": cores}
        for data in parts:
            size["events"] += sum(int(jnp.sum(group.index >= 0)) for group in data.events.groups)
            size["bytes"] += sum(leaf.nbytes for leaf in jax.tree.leaves(data.events.groups))
        building = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        for thresholds in options.thresholds:
            row = measured_steps(config, analysis, parts, thresholds, options.repeat)
            yield size | {"building_peak_gb": building} | row | {"floor_s": size["bytes"] / bandwidth()}


def on_disk(config: Config, make: Callable[[int], Data], number: int, folder: Path) -> Stream:
    """As many parts on disk."""
    recipes: list[Recipe] = []

    def part(seed: int) -> tuple[tuple[EventGroup, ...], dict[str, Any]]:
        data = make(seed)
        recipes.append(data.recipe)
        return data.events.groups, {}

    stored = store_parts(part, number, folder)
    return Stream(stored, tuple(range(number)), translation.make_edges(config), recipes[0])


def enlarged(config: Config, samples: tuple[Sample, ...], events: int, seed: int, parts: int) -> Data:
    """About that many events, drawn with replacement from every data set in proportion, jets smeared by 2 %."""
    generator = np.random.default_rng((config.seed, seed))
    total = sum(len(sample.events) for sample in samples)
    grown = []
    for sample in samples:
        rows = generator.integers(len(sample.events), size=max(1, round(events * len(sample.events) / total)))
        drawn = sample.events[rows]
        jets = drawn[config.objects["jet"].branch]
        smear = generator.normal(1, 0.02, int(ak.sum(ak.num(jets)))).astype(np.float32)
        pt = ak.values_astype(jets.pt * ak.unflatten(smear, ak.num(jets)), np.float32)
        drawn = ak.with_field(drawn, ak.with_field(jets, pt, "pt"), config.objects["jet"].branch)
        drawn = ak.with_field(drawn, np.arange(len(drawn)), "index")
        drawn = ak.with_field(drawn, np.arange(len(drawn), dtype=np.uint64), "collision")
        grown.append(dataclasses.replace(sample, events=drawn))
    names, everything = names_of(config), [np.ones(len(sample.events), bool) for sample in grown]
    analysis = translation.make_analysis(config, names, len(grown))
    (data,) = make_data(config, names, analysis, grown, [everything])
    share = (data.recipe.yields / parts, data.recipe.variance / parts**2)
    return eqx.tree_at(lambda part: (part.recipe.yields, part.recipe.variance), data, share)


def measured_steps(config: Config, analysis: Analysis, parts: Iterable[Data], thresholds: int, repeat: int) -> Row:
    """Times and memory for one number of thresholds."""
    at, widths = point(config, thresholds)
    before = forget_peak()
    value_first, value, merit = timed(lambda: merit_of(analysis, at, parts), repeat)
    step_first, step, _ = timed(lambda: evaluate(analysis, at, widths, parts), repeat)
    return {
        "thresholds": len(widths),
        "merit": float(merit.value),
        "value_s": value,
        "value_and_gradient_s": step,
        "first_value_s": value_first,
        "first_value_and_gradient_s": step_first,
        "memory_gb": before,
        "beyond_gb": memory("VmHWM") - before,
    }


def point(config: Config, thresholds: int) -> tuple[Thresholds, Thresholds]:
    """Where the config puts all thresholds, and the bandwidths of so many of them."""
    named = [name for name, cut in config.thresholds.items() if cut.bandwidth]
    chosen = sorted(named, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))[:thresholds]
    at = arrays({name: cut.threshold for name, cut in config.thresholds.items()})
    return at, arrays({name: config.thresholds[name].bandwidth or 0.0 for name in chosen})


def timed(call: Callable[[], Any], repeat: int) -> tuple[float, float, Any]:
    """(first call, median of the later ones) in seconds, and the result."""
    seconds = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[1:])), result


def bandwidth() -> float:
    """Bytes a second that a sum over a large array reads."""
    array = jnp.ones(50_000_000, jnp.float32)
    total = jax.jit(jnp.sum)
    return array.nbytes / timed(lambda: total(array), 5)[1]


def forget_peak() -> float:
    """Memory of this process in GB; from now on the peak (VmHWM) counts from here (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory("VmRSS")


def memory(name: str) -> float:
    """An entry of /proc/self/status, in GB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20


# --- what is shown ---


def report(rows: list[Row], device: str) -> None:
    table = Table(title=f"one step of the full analysis on {device} (simulated events)", title_justify="left")
    columns = {
        "events": lambda row: f"{row['events']:,}",
        "cores": lambda row: f"{row['cores']}",
        "thresholds": lambda row: f"{row['thresholds']}",
        "value": lambda row: f"{row['value_s'] * 1e3:.1f} ms",
        "value + gradient": lambda row: f"{row['value_and_gradient_s'] * 1e3:.1f} ms",
        "ratio": lambda row: f"{row['value_and_gradient_s'] / row['value_s']:.1f}",
        "events/s": lambda row: f"{row['events'] / row['value_and_gradient_s'] / 1e6:.2f} M",
        "first call": lambda row: f"{row['first_value_and_gradient_s']:.1f} s",
        "floor": lambda row: f"{row['floor_s'] * 1e3:.1f} ms",
        "step / floor": lambda row: f"{row['value_and_gradient_s'] / row['floor_s']:.0f}",
        "memory": lambda row: f"{row['memory_gb']:.1f} GB",
        "beyond": lambda row: f"{row['beyond_gb']:.1f} GB",
        "building": lambda row: f"{row['building_peak_gb']:.1f} GB",
    }
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    Console(width=150).print(table)


def draw(rows: list[Row], path: Path) -> None:
    """Times against the number of events, and against that of thresholds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_events, by_thresholds = figure.subplots(1, 2)
    most, largest = max(row["thresholds"] for row in rows), max(row["events"] for row in rows)
    curves = {"value and gradient": "value_and_gradient_s", "value": "value_s", "floor": "floor_s"}
    for axes, along, those in (
        (by_events, "events", [row for row in rows if row["thresholds"] == most]),
        (by_thresholds, "thresholds", [row for row in rows if row["events"] == largest]),
    ):
        for label, name in curves.items():
            axes.plot([row[along] for row in those], [row[name] for row in those], "o-", label=label)
        axes.set(xlabel=along, ylabel="seconds")
    by_events.set(xscale="log", yscale="log", title=f"{most} thresholds")
    by_thresholds.set(ylim=(0, None), title=f"{largest:,} events")
    by_events.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
