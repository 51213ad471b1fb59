"""Events per second and core of the ingest, against plain uproot, coffea's NanoEvents and decompression alone.

With the verification of checksums, with that of sizes, and without; and memory over many files.

A NanoAOD file of realistic width is made from a real one: its events are drawn with replacement, and floats are smeared
and cut to NanoAOD's mantissa, so that the copies do not compress away. It stays in --folder and is used again. The
source is a public file: `nanoAOD_2015_CMS_Open_Data_ttbar.root` of scikit-hep-testdata (947 branches, 200 events).

Each reader runs in its own process, after a warm-up on the source file. Time is processor time over all threads, so
that a busy machine matters little. MB are those of the branches in use, uncompressed. The floor is decompression alone:
the same branches of an open file, basket by basket, with nothing made of them. "kept" must be the same number, or the
comparison means nothing. coffea reads chunks of 200,000 events, as in the AGC. What the ratio rests on: in a file of
100,000 events, uproot takes 0.24 s to open 947 branches, which coffea pays and the pipeline does not
(`pipeline/ingest/branches.py`, 0.02 s); in long files, building NanoEvents costs coffea about as much again for every
chunk.

    python scripts/benchmarks/ingest.py SOURCE.root --coffea-python /path/to/venv-with-coffea/bin/python
"""

import argparse
import concurrent.futures
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

CLUSTER = 20_000
"""Events that are written at a time: the length of a basket."""
MANTISSA = np.uint32(0xFFFFE000)
"""Keeps ten bits of mantissa, the precision of most NanoAOD floats."""
CHECKSUMS: dict[Path, str] = {}
"""What is stated of the files, taken before the clock starts."""
FLOOR = ("decompression", 1)
"""What is compared with, and on how many files."""
VARIABLES = {
    "Electron": ("pt", "eta", "phi", "mass", "cutBased", "sip3d"),
    "Muon": ("pt", "eta", "phi", "mass", "tightId", "sip3d", "pfRelIso04_all"),
    "Jet": ("pt", "eta", "phi", "mass", "btagCSVV2", "jetId"),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    if arguments.measure:
        print(json.dumps(measured(arguments.measure, arguments.files, arguments.source)))
        return 0
    # In a process of its own: a large parent would be counted as the memory of its children.
    with concurrent.futures.ProcessPoolExecutor(1) as maker:
        wide = maker.submit(wide_file, arguments.source, arguments.folder, arguments.megabytes).result()
    print(f"{wide}: {wide.stat().st_size / 1e6:.0f} MB, made from {arguments.source.name}\n")
    if arguments.workers:
        wall_times(wide, arguments.workers)
        return 0
    print("reader            files   entries      kept   events/s/core    MB/s/core   peak MB   result MB")
    runs = [*((name, 1) for name in PIPELINE), ("verify size", arguments.many), ("uproot", 1), FLOOR]
    runs += [("coffea", 1)] if arguments.coffea_python else []
    pythons = {"coffea": arguments.coffea_python}
    rates = {run: shown(run[0], pythons.get(run[0], sys.executable), run[1], arguments, wide) for run in runs}
    print("\nevents per second and core of the pipeline, which compares the size of a file, over those of")
    for run in runs:
        print(f"{run[0]:16} {run[1]:3} files: {rates['verify size', 1] / rates[run]:.2f}")
    return 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a real NanoAOD file (TTree)")
    parser.add_argument("--coffea-python", help="Python of an environment with coffea; without it, no comparison")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the wide file is made (default: here)")
    parser.add_argument("--megabytes", type=int, default=500, help="least size of the wide file (default: %(default)s)")
    parser.add_argument("--many", type=int, default=20, help="files in the memory test (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", metavar="FILES", help="instead: wall time of so many copies by workers"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the fastest counts (default: %(default)s)")
    parser.add_argument("--measure", choices=(*READERS, FLOOR[0]), help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs="*", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def shown(reader: str, python: str, files: int, arguments: argparse.Namespace, wide: Path) -> float:
    """Print a line of the table; events per second and core."""
    command = [python, __file__, str(arguments.source), "--measure", reader, "--files", *[str(wide)] * files]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(arguments.repeat))
    best = min((json.loads(run.stdout.splitlines()[-1]) for run in runs), key=lambda result: result["seconds"])
    rate = float(best["entries"] / best["seconds"])
    sizes = f"{best['peak_mb']:9.0f} {best['result_mb']:11.1f}"
    megabytes = best["megabytes"] / best["seconds"]
    print(
        f"{reader:16} {files:6} {best['entries']:9} {best['kept']:9} {rate:15.0f} {megabytes:12.0f} {sizes}", flush=True
    )
    return rate


def wall_times(wide: Path, numbers: Sequence[int]) -> None:
    """Seconds for copies of the file with one worker, with two, and with as many as pay."""
    with_pipeline([wide])  # imports, and the file in the memory of the system
    print("files   one worker   two workers   not stated")
    for number in numbers:
        seconds = []
        for workers in (1, 2, None):
            start = time.perf_counter()
            with_pipeline([wide] * number, workers=workers)
            seconds.append(time.perf_counter() - start)
        print(f"{number:5} {seconds[0]:12.1f} {seconds[1]:13.1f} {seconds[2]:12.1f}", flush=True)


def measured(reader: str, files: Sequence[Path], warm_up: Path) -> dict[str, float]:
    if reader == FLOOR[0]:
        entries, seconds, events = *decompressed(files), ak.Array([])
    else:
        READERS[reader]([warm_up])
        for file in {*files}:
            with file.open("rb") as opened:
                CHECKSUMS[file] = hashlib.file_digest(opened, "sha256").hexdigest()
        start = time.process_time()
        entries, events = READERS[reader](files)
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "entries": entries,
        "kept": len(events),
        "seconds": seconds,
        "megabytes": sum(branch.uncompressed_bytes for file in files for branch in branches_in_use(file)) / 1e6,
        "peak_mb": peak,
        "result_mb": events.nbytes / 1e6,
    }


def branches_in_use(file: Path) -> list[uproot.TBranch]:
    tree = uproot.open(file)["Events"]
    names = [f"{collection}_{variable}" for collection, variables in VARIABLES.items() for variable in variables]
    return [tree[name] for name in ("event", *(f"n{collection}" for collection in VARIABLES), *names)]


def decompressed(files: Sequence[Path]) -> tuple[int, float]:
    """The floor: entries, and seconds to decompress the branches in use; opening the files is left out."""
    entries, seconds = 0, 0.0
    for file in files:
        branches = branches_in_use(file)
        start = time.process_time()
        for branch in branches:
            for number in range(branch.num_baskets):
                branch.basket(number)
        seconds += time.process_time() - start
        entries += branches[0].num_entries
    return entries, seconds


# --- the two readers ---


def with_pipeline(files: Sequence[Path], verify: str = "size", workers: int | None = 1) -> tuple[int, ak.Array]:
    """As a run reads: what is stated of the files is compared first."""
    from pipeline.ingest import ObjectSkim, Requirement, Skim, read
    from pipeline.ingest.sources import File

    kinematic = (Requirement("pt", "above", 20), Requirement("eta", "below", 2.4, absolute=True))
    cuts = {"Electron": kinematic, "Muon": kinematic, "Jet": (*kinematic, Requirement("jetId", "bits", 4))}
    skim = Skim(
        objects=tuple(ObjectSkim(name, variables, cuts[name]) for name, variables in VARIABLES.items()),
        at_least=((("Electron", "Muon"), 1), (("Jet",), 3)),
        weight="none",
    )
    stated = [File(path=file.name, size=file.stat().st_size, sha256=CHECKSUMS.get(file)) for file in files]
    ingested = read(files, skim, stated=stated, verify=verify, workers=workers)
    return ingested.entries_read, ingested.events


def with_uproot(files: Sequence[Path], chunk: int = 200_000) -> tuple[int, ak.Array]:
    """The same with uproot and awkward alone, chunk by chunk."""
    names = [f"{collection}_{variable}" for collection, variables in VARIABLES.items() for variable in variables]
    kept, entries = [], 0
    for file in files:
        for arrays in uproot.iterate({str(file): "Events"}, ["event", *names], step_size=chunk):
            entries += len(arrays)
            objects = {
                collection: ak.zip({variable: arrays[f"{collection}_{variable}"] for variable in variables})
                for collection, variables in VARIABLES.items()
            }
            kept.append(selected(ak.zip(objects | {"event": arrays["event"]}, depth_limit=1)))
    return entries, ak.concatenate(kept)


def with_coffea(files: Sequence[Path], chunk: int = 200_000) -> tuple[int, ak.Array]:
    """The same with coffea's NanoEvents, as its users write it: chunk by chunk, masks on collections."""
    from coffea.nanoevents import NanoAODSchema, NanoEventsFactory

    kept, entries = [], 0
    for file in files:
        size = next(iter(uproot.num_entries(f"{file}:Events")))[2]
        entries += size
        for start in range(0, size, chunk):
            rows = {"entry_start": start, "entry_stop": min(start + chunk, size)}
            factory = NanoEventsFactory.from_root({str(file): "Events"}, schemaclass=NanoAODSchema, **rows)
            kept.append(selected(factory.events()))
    return entries, ak.concatenate(kept)


def selected(events: ak.Array) -> ak.Array:
    objects = {name: events[name][(events[name].pt > 20) & (abs(events[name].eta) < 2.4)] for name in VARIABLES}
    objects["Jet"] = objects["Jet"][(objects["Jet"].jetId & 4) != 0]
    counts = {name: ak.num(array.pt) for name, array in objects.items()}
    keep = (counts["Electron"] + counts["Muon"] >= 1) & (counts["Jet"] >= 3)
    fields = {
        name: ak.zip({variable: objects[name][variable][keep] for variable in variables})
        for name, variables in VARIABLES.items()
    }
    return ak.to_packed(ak.materialize(ak.zip(fields | {"event": events.event[keep]}, depth_limit=1)))


PIPELINE = {f"verify {verify}": partial(with_pipeline, verify=verify) for verify in ("size", "no", "sha256")}
READERS: dict[str, Callable[[Sequence[Path]], tuple[int, ak.Array]]] = {
    **PIPELINE,
    "uproot": with_uproot,
    "coffea": with_coffea,
}


# --- the wide file ---


def wide_file(source: Path, folder: Path, megabytes: int) -> Path:
    """A file with all branches of the source and at least so many megabytes, made unless it is there."""
    wide = folder / f"{source.stem}_{megabytes}MB.root"
    if wide.exists():
        return wide
    branches = branches_of(source)
    generator = np.random.default_rng(1)
    part = wide.with_suffix(".part")
    with uproot.recreate(part, compression=uproot.ZLIB(1)) as file:
        cluster = drawn(branches, generator, 0)
        types = {name: array.type.content for name, array in cluster.items()}
        tree = file.mktree("Events", types, field_name=lambda outer, inner: f"{outer}_{inner}" if inner else outer)
        while tree.num_entries == 0 or part.stat().st_size < megabytes * 1e6:
            tree.extend(cluster)
            cluster = drawn(branches, generator, tree.num_entries)
    return part.rename(wide)


def branches_of(source: Path) -> dict[tuple[str, str], ak.Array]:
    """The branches by collection and variable; what belongs to no collection has no variable. Counters are left out."""
    with uproot.open(source) as file:
        branches = {
            b.name: (b.array(), b.count_branch.name[1:] if b.count_branch is not None else "") for b in file["Events"]
        }
    counters = {f"n{collection}" for _, collection in branches.values()}
    return {
        (collection or name, name.removeprefix(f"{collection}_") if name != collection and collection else ""): array
        for name, (array, collection) in branches.items()
        if name not in counters
    }


def drawn(branches: dict[tuple[str, str], ak.Array], generator: np.random.Generator, first: int) -> dict[str, ak.Array]:
    """A cluster of events drawn from the source, numbered from `first`."""
    rows = generator.integers(len(branches["event", ""]), size=CLUSTER)
    columns: dict[str, Any] = {}
    for (name, variable), array in branches.items():
        values = smeared(array[rows], generator)
        columns = columns | {name: columns.get(name, {}) | {variable: values} if variable else values}
    cluster = {name: ak.zip(fields) if isinstance(fields, dict) else fields for name, fields in columns.items()}
    return cluster | {"event": ak.Array(np.arange(first, first + CLUSTER, dtype=np.uint64))}


def smeared(array: ak.Array, generator: np.random.Generator) -> ak.Array:
    """Floats moved by five per cent and cut to ten bits; anything else as it is."""
    flat = ak.to_numpy(ak.flatten(array, axis=None))
    if flat.dtype != np.float32:
        return array
    values = flat * generator.normal(1, 0.05, len(flat)).astype(np.float32)
    values = (values.view(np.uint32) & MANTISSA).view(np.float32)
    return ak.unflatten(values, ak.num(array)) if array.ndim == 2 else ak.Array(values)


if __name__ == "__main__":
    sys.exit(main())
