"""Makes the project's simulated samples: proton-proton collisions at 13 TeV as NanoAOD files.

Pythia 8 generates the processes of one set of samples (--set); a parametrised detector turns particles into electrons,
muons and jets; what the analysis would never keep is skimmed away; the rest is written as ROOT files with NanoAOD's
branches, and described in data_manifest.yaml. Nothing here is CMS simulation.

simulated is the set of the Analysis Grand Challenge: ttbar (nominal and four variations), single top and W+jets for one
lepton and four jets. Its settings, with reasons, are in scripts/samples/settings.yaml; dilepton, four_leptons and
zprime say in a file each what differs for them, and so does assignment: ttbar with the partons of the top quarks, to
train on (scripts/experiments/assignment.py). Install with: pip install -e ".[samples]"
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

import awkward as ak
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from scripts.samples.detector import simulate
from scripts.samples.generator import generate
from scripts.samples.manifest import begin, entry, update
from scripts.samples.nanoaod import write
from scripts.samples.settings import SETS, TRAINING, ProcessSettings, Settings, load
from scripts.samples.skim import skim
from scripts.samples.thinning import make_plan, places_of, thin

__all__ = ["main"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_DATA = _REPOSITORY / "pipeline" / "data"
_MAX_SEED = 900_000_000  # Pythia's


@dataclass(frozen=True, kw_only=True)
class Task:
    """One chunk of one process: what to generate, and the file that will say it is done."""

    process: ProcessSettings
    settings: Settings
    events: int
    seed: int
    file: Path

    @property
    def counts_file(self) -> Path:
        """Written last: a chunk without it does not count."""
        return self.file.with_suffix(".json")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = _parse(argv)
    try:
        _make(arguments)
    except (ValueError, OSError, PackageNotFoundError, ModuleNotFoundError) as error:
        print(f"samples.make: {_advice(error)}", file=sys.stderr)
        return 1
    return 0


def _advice(error: Exception) -> str:
    if isinstance(error, PackageNotFoundError | ModuleNotFoundError):
        return f'{error}; install the generator with: pip install -e ".[samples]"'
    return str(error)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples, after: python -m scripts.samples.make
  (alone)                                  the committed set, again (45 minutes on one core)
  --set zprime                             the committed samples of a guest analysis, again
  --seed 2 --entries -1 --output runs/large
                                           other events, nothing thinned away: thirty times as many; they are used
                                           with --set data.manifest=runs/large/data_manifest.yaml
  --set assignment --jobs 2                ttbar with its partons, in runs/assignment
  --events 2000 --output /tmp/try          a minute's try of all nine files

A run that was stopped goes on where it was: finished chunks are kept in --work and found again by their settings.""",
    )
    add = parser.add_argument
    add("--set", choices=SETS, default="simulated", help="which samples (default: simulated)")
    add("--processes", nargs="+", metavar="NAME", help="data sets, such as ttbar__nominal; default: all")
    add("--events", type=_positive, metavar="N", help="collisions to generate for each, before every filter")
    add(
        "--entries",
        type=int,
        metavar="N",
        help="most events to write for each; more are thinned, with weights; -1: no limit; default: settings.yaml",
    )
    add("--seed", type=_positive, default=1, help="the same seed and settings give the same files (default: 1)")
    add("--jobs", type=_positive, default=1, metavar="N", help="processes that generate in parallel (default: 1)")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the ROOT files go (default: pipeline/data, its folder guests/<set> for a guest analysis, and"
        " runs/assignment for what is trained on)",
    )
    add(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="manifest to update, or to begin; default: data_manifest.yaml, that of the project for the default output"
        " and one in the output folder for another",
    )
    add(
        "--work",
        type=Path,
        default=_REPOSITORY / ".cache" / "samples",
        metavar="DIR",
        help="where finished chunks wait (default: .cache/samples)",
    )
    add(
        "--muons",
        action="store_true",
        help="let muons pass the tight identification; by default none does, as in the AGC's input files, so that"
        " the selection is one of electrons and the yields compare with the published ones",
    )
    arguments = parser.parse_args(argv)
    if arguments.output is None:
        guests = _REPOSITORY / "runs" if arguments.set in TRAINING else _DATA / "guests"
        arguments.output = _DATA if arguments.set == "simulated" else guests / arguments.set
    if arguments.manifest is None:
        committed = arguments.output.resolve().is_relative_to(_DATA)
        arguments.manifest = (_REPOSITORY if committed else arguments.output) / "data_manifest.yaml"
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _make(arguments: argparse.Namespace) -> None:
    program = f"Pythia {version('pythia8mc')}"
    settings = load(arguments.set, muons=arguments.muons)
    processes = _chosen(settings, arguments.processes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    tasks = [task for p in processes for task in _plan(p, settings, arguments)]
    _generate_missing(tasks, jobs=arguments.jobs)
    entries = {}
    for process in processes:
        own = [task for task in tasks if task.process is process]
        file = arguments.output / f"{process.name}.root"
        counts = _simulate_and_write(own, settings, file, arguments)
        entries[f"{arguments.set}/{process.name}"] = entry(
            process, settings, file, path=_path(file), program=program, seed=arguments.seed, counts=counts
        )
        print(f"{file}: {counts['entries']} of {counts['events']} events, {file.stat().st_size / 1e6:.2f} MB")
    if not arguments.manifest.exists():
        begin(arguments.manifest, like=_REPOSITORY / "data_manifest.yaml")
    update(arguments.manifest, entries)


def _path(file: Path) -> str:
    """Where the manifest's source has the file: below pipeline/data, or beside a manifest of its own."""
    file = file.resolve()
    return file.relative_to(_DATA).as_posix() if file.is_relative_to(_DATA) else file.name


def _chosen(settings: Settings, names: Iterable[str] | None) -> tuple[ProcessSettings, ...]:
    known = {process.name: process for process in settings.processes}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"--processes: there is no {unknown[0]!r}; choose from {', '.join(known)}.")
    return tuple(known[name] for name in names) if names else settings.processes


def _plan(process: ProcessSettings, settings: Settings, arguments: argparse.Namespace) -> Iterator[Task]:
    """Chunks of equal size; each is named by all that decides its content, so that another run finds it."""
    total = arguments.events or process.events
    size = min(settings.generator.chunk_events, total)
    for index in range(math.ceil(total / size)):
        events = min(size, total - index * size)
        generator = settings.generator.model_dump(exclude_defaults=True)
        identity = json.dumps([process.model_dump(include={"pythia", "bias", "enhance"}), generator, events])
        digest = hashlib.sha256(f"{identity} {process.name} {arguments.seed} {index}".encode()).digest()
        yield Task(
            process=process,
            settings=settings,
            events=events,
            seed=int.from_bytes(digest[:8]) % _MAX_SEED + 1,
            file=arguments.work / f"{process.name}-{index:05d}-{digest.hex()[:12]}.parquet",
        )


def _generate_missing(tasks: list[Task], *, jobs: int) -> None:
    missing = [task for task in tasks if not task.counts_file.exists()]
    text = TextColumn("[progress.description]{task.description}")
    with Progress(text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("generating", total=sum(task.events for task in missing))
        for task in _generated(missing, jobs):
            progress.update(bar, advance=task.events, description=task.process.name)


def _generated(tasks: list[Task], jobs: int) -> Iterator[Task]:
    """The tasks as they are done: here, or in other processes that leave the machine usable."""
    if jobs == 1:
        for task in tasks:
            _generate_chunk(task)
            yield task
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=os.nice, initargs=(10,)) as pool:
        running = {pool.submit(_generate_chunk, task): task for task in tasks}
        try:
            for done in as_completed(running):
                done.result()
                yield running[done]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _generate_chunk(task: Task) -> None:
    """Generates one chunk and leaves its events, then its counts, in the work folder."""
    chunk = generate(task.process, task.settings.generator, events=task.events, seed=task.seed)
    partial = task.file.with_suffix(".partial")
    ak.to_parquet(chunk.events, partial)
    partial.replace(task.file)
    counts = {"events": chunk.generated, "sum_of_weights": chunk.sum_of_weights}
    partial.write_text(json.dumps(counts), encoding="utf-8")
    partial.replace(task.counts_file)


def _simulate_and_write(
    tasks: list[Task], settings: Settings, file: Path, arguments: argparse.Namespace
) -> dict[str, int | float]:
    """Detector, skim and thinning of all chunks of one process; returns the manifest's counts.

    What thinning does to a chunk depends on all of them, so they pass the detector twice, with the same random numbers:
    memory holds one chunk and what is kept.
    """
    process = tasks[0].process
    counts = [json.loads(task.counts_file.read_text(encoding="utf-8")) for task in tasks]
    target = process.target_entries if arguments.entries is None else arguments.entries
    plan = None
    if settings.thinning and target > 0:
        parts = (places_of(seen, settings.thinning) for seen in _all_seen(tasks, settings))
        plan = make_plan(parts, settings.thinning, target=target)
    rng = np.random.default_rng([tasks[0].seed, len(tasks)])
    entries = write(file, (thin(seen, plan, rng) for seen in _all_seen(tasks, settings)), settings)
    return {
        "events": sum(count["events"] for count in counts),
        "entries": entries,
        "sum_of_weights": sum(count["sum_of_weights"] for count in counts),
    }


def _all_seen(tasks: Iterable[Task], settings: Settings) -> Iterator[ak.Array]:
    """The skimmed events of each chunk; always the same ones."""
    first_collision = 1
    for task in tasks:
        collisions = ak.from_parquet(task.file)
        collisions["collision"] = first_collision + np.arange(len(collisions))
        first_collision += len(collisions)
        rng = np.random.default_rng(task.seed)
        yield _seen_by_detector(collisions, task.process, settings, rng)


def _seen_by_detector(
    collisions: ak.Array, process: ProcessSettings, settings: Settings, rng: np.random.Generator
) -> ak.Array:
    """Skimmed events; with several detector draws a collision appears several times, each time with a share of it."""
    draws = process.detector_draws
    repeated = collisions[np.repeat(np.arange(len(collisions)), draws)]
    repeated["draw"] = np.tile(np.arange(1, draws + 1), len(collisions))
    events = simulate(repeated, settings.detector, rng, muons=settings.muons)
    events["genWeight"] = ak.to_numpy(events.genWeight) * process.rate_factor / draws
    return skim(events, settings.skim, muons=settings.muons)


if __name__ == "__main__":
    raise SystemExit(main())
