"""Fetch the files of data sets from the manifest, or those that a config needs: give --datasets or --config.

    python -m pipeline.fetch --datasets agc/ttbar__nominal --max-files 1 --output agc-data
    python -m pipeline.fetch --datasets 'agc/*' --max-files 1 --list
    python -m pipeline.fetch --config my.yaml

where my.yaml says, beside `extends: configs/agc.yaml`,

    data: {set: agc, location: agc-data, max_files: 1}

The files lie below the output folder under the paths of the manifest, where a config with `location: agc-data` finds
them. (With `location: unl` or `location: eos` a run reads them from the server, and nothing need be fetched.) Several
are fetched at a time; one that breaks off is gone on with, now or by a later run; one that is there is left alone. A
file appears under its name only when it is whole: size and checksum, where the manifest has them, are compared. The
AGC's files hold about 1.2 million events, 2 GB, each; ask for one first. `root://` prefixes (--prefix eos) need
`pip install fsspec-xrootd`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from pipeline.command import user_path
from pipeline.config import Config, ConfigError, load_config
from pipeline.errors import InputError
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.download import UnreachableError, download, part_of
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.ingest.sources import File

LOCAL = "local"
"""What a config for the simulated samples has as its location; no folder of that name is meant."""
RECORD = ".fetched.json"
"""In an output folder: from where each of its files comes, by its path."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where from, where to, what is known of it, and all places that have it."""

    location: str
    folder: Path
    file: File
    mirrors: frozenset[str]

    @property
    def target(self) -> Path:
        """Where the file will be."""
        return self.folder / self.file.path

    @property
    def is_begun(self) -> bool:
        """Whether the file, or a part of it, is there."""
        return self.target.exists() or part_of(self.target).exists()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = parsed(argv)
    try:
        wanted = files(arguments)
    except (InputError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    if not wanted:
        print("Nothing to fetch: the manifest has these files in local folders. The AGC's are --datasets 'agc/*'.")
        return 0
    if arguments.list:
        print("\n".join(f"{file.location}  {file.file.events} events" for file in wanted))
        return 0
    try:
        write_record(wanted)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    failures = fetched(wanted, arguments.workers, quiet=arguments.quiet)
    for failure in filter(None, failures):
        print(failure, file=sys.stderr)
    if not arguments.quiet:
        print(f"{len(wanted) - len(failures)} of {len(wanted)} files are in {wanted[0].folder}")
    return 1 if failures else 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--datasets", nargs="+", metavar="KEY", help="data sets, as agc/ttbar__nominal; 'agc/*' takes all"
    )
    what.add_argument(
        "--config", type=user_path, help="fetch what this config reads, with its limit on the number of files"
    )
    parser.add_argument("--max-files", type=int, help="only the first files of each data set, as the AGC's limit")
    parser.add_argument(
        "--prefix",
        help="named prefix of the source (unl, eos) or a URL; default: the config's, else the source's first",
    )
    parser.add_argument(
        "--output",
        type=user_path,
        help="folder; default: the one that the config reads from (data.location), else agc-data",
    )
    parser.add_argument("--manifest", type=user_path, help="another data_manifest.yaml")
    parser.add_argument("--workers", type=int, default=4, help="files at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="show what would be fetched, and fetch nothing")
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    return parser.parse_args(argv)


def files(arguments: argparse.Namespace) -> list[Wanted]:
    """What to fetch; files that a manifest has in a local folder are not among it.

    Raises:
        InputError: Two different files would lie in one place.
        ConfigError: The config cannot be used.
    """
    manifest, config = load_manifest(arguments.manifest), None
    if arguments.config:
        config = load_config(arguments.config)
        manifest = load_manifest(arguments.manifest or config.data.manifest)
    chosen = named(manifest, arguments.datasets) if config is None else of_config(manifest, config)
    limited = [dataset.first(arguments.max_files) for dataset in chosen]
    prefix, folder = places(arguments, config, limited)
    wanted = [
        (dataset.key, Wanted(mirrors[0], folder, file, frozenset(mirrors)))
        for dataset in limited
        for file, *mirrors in zip(dataset.files, *_mirrors(dataset, prefix), strict=True)
        if "://" in mirrors[0]
    ]
    _check_places(wanted)
    # A file that several data sets list is fetched once.
    return list({file.location: file for _, file in wanted}.values())


def _mirrors(dataset: Dataset, prefix: str | None) -> list[tuple[str, ...]]:
    """Locations of all files below the chosen prefix, then below each of the source's."""
    return [dataset.locations(prefix), *map(dataset.locations, dataset.source.prefixes)]


def _check_places(wanted: Sequence[tuple[str, Wanted]]) -> None:
    """Refuse two files of equal paths: one of them would be taken for the other."""
    first: dict[Path, tuple[str, Wanted]] = {}
    for key, file in wanted:
        other, there = first.setdefault(file.target, (key, file))
        if there.location != file.location:
            raise InputError(
                f"{key}: {file.location} and {there.location} of {other} would both lie in {file.target}, and one be "
                "taken for the other; begin the paths of one of them with a folder of its own in the manifest, and "
                "shorten the prefix of its source by it."
            )


def write_record(wanted: Sequence[Wanted]) -> None:
    """Note from where each file comes, before it does: a later command must not take it for a file of another source.

    Raises:
        InputError: One of the files is there already, and comes from somewhere else; or the folder cannot be written.
    """
    path = wanted[0].folder / RECORD
    record = _record(path)
    _check_origins(wanted, record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part_of(path).write_text(json.dumps(record | {file.file.path: file.location for file in wanted}, indent=1))
        part_of(path).replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output.") from error


def _record(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged; delete it if you know what the files beside it are.") from error


def _check_origins(wanted: Sequence[Wanted], record: Mapping[str, str]) -> None:
    for file in wanted:
        origin = record.get(file.file.path)
        # A checksum tells by itself whether the file that is there is the right one.
        if origin is not None and origin not in file.mirrors and file.is_begun and file.file.sha256 is None:
            raise InputError(
                f"{file.location}: would lie in {file.target}, which comes from {origin}; give another --output, or "
                f"delete {file.target} if it is not needed any more."
            )


def named(manifest: Manifest, names: Sequence[str]) -> list[Dataset]:
    """The data sets of these names or patterns, each once."""
    return list({dataset.key: dataset for name in names for dataset in manifest.matching(name)}.values())


def of_config(manifest: Manifest, config: Config) -> list[Dataset]:
    """The data sets that a config reads."""
    from pipeline.ingest.samples import wanted_datasets  # awkward is needed only here

    wanted = [manifest.every_period(config.data.set, *names) for names in wanted_datasets(config)]
    return [dataset.first(config.data.max_files) for periods in wanted for dataset in periods]


def places(
    arguments: argparse.Namespace, config: Config | None, datasets: Sequence[Dataset]
) -> tuple[str | None, Path]:
    """The prefix to fetch from, and the folder to fetch to: `data.location` of a config is one or the other."""
    prefix, folder = arguments.prefix, Path("agc-data")
    if config is not None:
        location = config.data.location
        is_prefix = "://" in location or any(location in dataset.source.prefixes for dataset in datasets)
        prefix = location if prefix is None and is_prefix else prefix
        folder = folder if is_prefix or location == LOCAL else Path(location).expanduser()
    return prefix, arguments.output or folder


def fetched(wanted: Sequence[Wanted], workers: int, *, quiet: bool) -> list[str]:
    """Fetch files, several at a time; what could not be had comes back as sentences, one for a server that is down."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    down: set[str] = set()
    with Progress(*columns, disable=quiet) as progress, ThreadPoolExecutor(workers) as threads:
        outcomes = threads.map(lambda file: fetched_one(file, progress, down), wanted)
        return [outcome for outcome in outcomes if outcome is not None]


def fetched_one(wanted: Wanted, progress: Progress, down: set[str]) -> str | None:
    """None if the file is there now, else why not: empty if its server did not answer for another file."""
    server = urlsplit(wanted.location).netloc
    if server in down:
        return ""
    line: TaskID = progress.add_task(wanted.target.name[-40:], total=wanted.file.size)
    try:
        download(
            wanted.location,
            wanted.target,
            size=wanted.file.size,
            sha256=wanted.file.sha256,
            advance=lambda done, total: progress.update(line, completed=done, total=total),
        )
    except UnreachableError as error:
        was_up = server not in down
        down.add(server)
        return str(error) if was_up else ""
    except InputError as error:
        return str(error)
    finally:
        progress.remove_task(line)
    return None


if __name__ == "__main__":
    sys.exit(main())
