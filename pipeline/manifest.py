"""Write a manifest for your files: entries, sums of weights, sizes and checksums are read, the rest is asked for.

    python -m pipeline.manifest ttbar=ttbar/*.root wjets=wjets/ --cross-sections ttbar=831.76 wjets=61526.7
    python -m pipeline.manifest ttbar__nominal.root ttbar__scaleup.root wjets.root

A process, perhaps with its variation (`ttbar__scaleup`), is given before an equals sign; files without one are named
by their own name, and those of a folder by its name. Folders and patterns stand for the ROOT and parquet files in
them. Sums of weights and the number of events before a skim come from NanoAOD's tree `Runs` where a file has one, else
from `genWeight` and the entries. Files whose generator weights differ are weighted by them. A cross section that is not
given is left empty, and the manifest asks for it when it is used. Every file is read whole, for its checksum.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from pipeline.command import user_path
from pipeline.errors import InputError
from pipeline.ingest.facts import FileFacts
from pipeline.ingest.sources import data_files

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="[PROCESS=]FILES", help="a file, a folder or a pattern")
    parser.add_argument("--cross-sections", nargs="+", default=[], metavar="PROCESS=PB", help="in pb, of each process")
    parser.add_argument("--set", default="mine", dest="name", help="name of the set (default: %(default)s)")
    parser.add_argument("--tree", default="Events", help="name of the TTree or RNTuple (default: %(default)s)")
    parser.add_argument("--output", type=user_path, default=Path("data_manifest.yaml"), help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        if arguments.output.exists():
            raise InputError(f"{arguments.output}: is there already; delete it, or give another --output.")
        groups = _groups(arguments.files)
        cross_sections = _cross_sections(arguments.cross_sections, groups)
        content = _manifest(groups, cross_sections, arguments.name, arguments.tree, arguments.output.parent)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=200)
        arguments.output.write_text(f"# Written by python -m pipeline.manifest; correct what you know better.\n{text}")
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for key, dataset in content["datasets"].items():
        missing = "" if dataset["cross_section_pb"] else "; fill in its cross_section_pb"
        print(f"{key}: {len(dataset['files'])} files, weights: {dataset['weights']}{missing}")
    print(f"written to {arguments.output}")
    return 0


def _groups(arguments: Sequence[str]) -> dict[tuple[str, str], list[Path]]:
    """The files of each process and variation."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for argument in arguments:
        name, separator, pattern = argument.rpartition("=")
        for path in _files(pattern):
            process, _, variation = (name if separator else _name(pattern, path)).partition("__")
            files = groups.setdefault((process, variation or "nominal"), [])
            files += [] if path in files else [path]
    return groups


def _name(argument: str, file: Path) -> str:
    folder = Path(argument).expanduser()
    return folder.resolve().name if folder.is_dir() else file.stem


def _files(pattern: str) -> list[Path]:
    if "://" in pattern:
        raise InputError(f"{pattern}: is a URL, and a checksum needs the whole file; fetch it, and give its path.")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    folder, rest = (path, "**/*") if path.is_dir() else (Path(path.anchor), str(path.relative_to(path.anchor)))
    files = data_files(folder, rest)
    if not files:
        raise InputError(f"{pattern}: there is no ROOT or parquet file of this name; correct it.")
    return files


def _cross_sections(arguments: Sequence[str], groups: Mapping[tuple[str, str], Any]) -> dict[str, float]:
    known = {process for process, _ in groups}
    values: dict[str, float] = {}
    for argument in arguments:
        process, _, value = argument.partition("=")
        if process not in known:
            raise InputError(
                f"--cross-sections {argument}: there is no process '{process}'; it has {', '.join(known)}."
            )
        try:
            values[process] = float(value)
        except ValueError:
            raise InputError(f"--cross-sections {argument}: '{value}' is no number; give it in pb.") from None
    return values


def _manifest(
    groups: Mapping[tuple[str, str], Sequence[Path]],
    cross_sections: Mapping[str, float],
    name: str,
    tree: str,
    folder: Path,
) -> dict[str, Any]:
    root = Path(os.path.commonpath([path.resolve().parent for paths in groups.values() for path in paths]))
    source = {
        "description": f"The files below {root.name}; say what they are.",
        "licence": "not stated",
        "citation": "not stated",
        "simulated": False,
        "label": "Simulation",
        "tree": tree,
        "prefixes": {"local": os.path.relpath(root, folder.resolve())},
    }
    datasets = {
        f"{name}/{process}__{variation}": {
            "source": "files",
            "process": process,
            "variation": variation,
            "cross_section_pb": cross_sections.get(process),
            **_dataset(paths, root, tree),
        }
        for (process, variation), paths in groups.items()
    }
    return {"sources": {"files": source}, "datasets": datasets}


def _dataset(paths: Sequence[Path], root: Path, tree: str) -> dict[str, Any]:
    from pipeline.ingest.reading import read  # awkward and uproot take a second: after the arguments are good
    from pipeline.ingest.skim import Skim

    facts = read(paths, Skim(), tree=tree, workers=1).files
    ranges = {(f.generated.lowest, f.generated.highest) for f in facts if f.generated and f.generated.events}
    weighted = len(ranges) > 1 or any(lowest != highest for lowest, highest in ranges)
    _check_weights(facts, weighted)
    files = [
        {"path": path.resolve().relative_to(root).as_posix(), "sha256": file.sha256, **_file(file)}
        for path, file in zip(paths, facts, strict=True)
    ]
    return {"weights": "generator" if weighted else "none", "files": files}


def _check_weights(files: Sequence[FileFacts], weighted: bool) -> None:
    for file in files:
        if file.generated is not None and not isfinite(file.generated.total):
            raise InputError(f"{file.location}: its genWeight is NaN or infinite in some events; make it again.")
        if weighted and file.generated is None:
            raise InputError(
                f"{file.location}: has no genWeight, but other files of the same process have, and it differs between "
                "their events; give them as another process."
            )


def _file(facts: FileFacts) -> dict[str, Any]:
    sums = facts.runs or facts.generated
    weights = {} if sums is None else {"sum_of_weights": sums.total, "sum_of_squared_weights": sums.squares}
    events = facts.entries if facts.runs is None else facts.runs.events
    return {"size": facts.size, "events": events, "entries": facts.entries, **weights}


if __name__ == "__main__":
    sys.exit(main())
