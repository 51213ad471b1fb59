"""A run over more events than it may hold, beside one that holds its events: what a step takes for each of them.

The events are the committed simulated samples, so many times over: copies of a file count as other collisions. So the
physics is that of one copy, and only time and memory are of interest.

  python scripts/benchmarks/more_than_memory.py --copies 7 70 --memory 100GB 2GB --scratch /data

Each number of copies is a run of its own, in a process of its own: `pipeline.run.run` without pictures. The first
reads the files and makes the parts; one more of the same events finds them. Memory is sampled five times a second:
what the process holds itself (RssAnon), and with it what it has mapped of the files (VmHWM), which the operating
system takes back when others need it. Both are told beyond what the process holds when it has imported everything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import ByteSize, TypeAdapter
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
SAMPLE_EVERY = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--memory", nargs="+", default=["100GB", "200MB"], help="for each number of copies")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--scratch", type=Path, help="folder for what is kept (1 GB a million events)")
    parser.add_argument("--again", action="store_true", help="run each a second time: what was kept is found")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.config, *options.measure, options.steps)))
        return 0
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for number, (copies, memory) in enumerate(zip(options.copies, options.memory, strict=True)):
            place = Path(folder) / str(number)
            copied(place, copies)
            for turn in range(2 if options.again else 1):
                command = [sys.executable, __file__, "--config", str(options.config), "--steps", str(options.steps)]
                command += ["--measure", str(place), memory, str(turn)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(
                    {"copies": copies, "memory": memory, "again": turn > 0} | json.loads(done.stdout.splitlines()[-1])
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def copied(folder: Path, copies: int) -> None:
    """A manifest of the simulated samples with every file so many times, as links."""
    manifest = yaml.safe_load((ROOT / "data_manifest.yaml").read_text())
    manifest["sources"]["simulated"]["prefixes"]["local"] = str(folder)
    for name, dataset in manifest["datasets"].items():
        if name.startswith("simulated/"):
            files = dataset["files"]
            dataset["files"] = [file | {"path": f"{copy}/{file['path']}"} for copy in range(copies) for file in files]
            for file in files:
                for copy in range(copies):
                    link = folder / str(copy) / file["path"]
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(ROOT / "pipeline" / "data" / file["path"])
    (folder / "data_manifest.yaml").write_text(yaml.safe_dump(manifest))


def measured(config: Path, place: str, memory: str, turn: str, steps: int) -> dict[str, Any]:
    """One run, with the peak of its memory."""
    from pipeline.command import keep_compiled, use_cores
    from pipeline.config import load_config
    from pipeline.run import run

    use_cores()
    keep_compiled()
    settings = {
        "data": {"manifest": f"{place}/data_manifest.yaml", "cache": f"{place}/cache", "memory": memory},
        "optimiser": {"steps": steps},
        "validation": {"bootstrap": 2},
    }
    before = resident()
    peak = {"RssAnon": 0.0, "VmHWM": 0.0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_EVERY):
            now = resident()
            peak.update(
                {name: max(peak[name], now[name] - before["VmRSS" if name == "VmHWM" else name]) for name in peak}
            )

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    outcome = run(load_config(config, settings), Path(place) / f"run_{turn}", quiet=True, plots=False)
    seconds = time.perf_counter() - started
    ended.set()
    watcher.join()
    kept = sum(file.stat().st_size for file in (Path(place) / "cache").rglob("*") if file.is_file())
    return {
        "events": sum(len(sample.events) for sample in outcome.samples),
        "seconds": outcome.seconds | {"whole run": seconds},
        "step_s": outcome.seconds["other steps"] / (steps - 1),
        "held_gb": peak["RssAnon"],
        "peak_gb": peak["VmHWM"],
        "kept_gb": kept / 1e9,
        "value": outcome.comparisons["validation"].after.value,
    }


def resident() -> dict[str, float]:
    """What this process has in memory, in GB (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {
        line[0][:-1]: int(line[1]) / 2**20 for line in lines if line and line[0] in ("VmRSS:", "RssAnon:", "VmHWM:")
    }


def report(rows: list[dict[str, Any]]) -> None:
    """A row for each run."""
    table = Table(title="a run in memory and from disk (simulated events)", title_justify="left")
    for column in (
        "events",
        "may hold",
        "reading [s]",
        "a step [s]",
        "and a million",
        "holds [GB]",
        "with mapped",
        "kept",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        events = row["events"]
        per_million = row["step_s"] / (0.5 * events / 1e6)
        allowed = TypeAdapter(ByteSize).validate_python(row["memory"])
        table.add_row(
            f"{events:,}{' again' if row['again'] else ''}",
            f"{allowed / 1e9:g} GB",
            f"{row['seconds']['reading']:.0f}",
            f"{row['step_s']:.2f}",
            f"{per_million:.3f}",
            f"{row['held_gb']:.2f}",
            f"{row['peak_gb']:.2f}",
            f"{row['kept_gb']:.2f} GB",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    sys.exit(main())
