"""Fetch the files of data sets from the manifest, or those that a config needs.

    python scripts/fetch_data.py --datasets agc/ttbar__nominal --max-files 1 --output agc-data
    python scripts/fetch_data.py --config configs/agc.yaml --output agc-data

The files lie below the output folder under the paths of the manifest, so that a config finds them with
`data: {location: agc-data}`. Several are fetched at a time; one that breaks off is gone on with, now or by a later run;
one that is there is left alone. A file appears under its name only when it is whole: size and checksum, where the
manifest has them, are compared. The AGC's files hold about 1.2 million events each; ask for one first.
`root://` prefixes (--prefix eos) need `pip install fsspec-xrootd`.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import ConfigError, load_config
from pipeline.ingest.download import download
from pipeline.manifest import Dataset, File, InputError, load_manifest
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where from, where to, and what is known of it."""

    location: str
    target: Path
    file: File


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    try:
        wanted = files(arguments)
    except (InputError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    if not wanted:
        print("Nothing to fetch: these files lie in a folder already.")
        return 0
    if arguments.list:
        print("\n".join(f"{one.location}  {one.file.events} events" for one in wanted))
        return 0
    failures = fetched(wanted, arguments.workers, quiet=arguments.quiet)
    for failure in failures:
        print(failure, file=sys.stderr)
    if not arguments.quiet:
        print(f"{len(wanted) - len(failures)} of {len(wanted)} files are in {arguments.output}")
    return 1 if failures else 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--datasets", nargs="+", metavar="KEY", help="data sets, as agc/ttbar__nominal; 'agc/*' takes all"
    )
    what.add_argument("--config", type=Path, help="fetch what this config reads, with its limit on the number of files")
    parser.add_argument("--max-files", type=int, help="only the first files of each data set, as the AGC's limit")
    parser.add_argument("--prefix", help="named prefix of the source (unl, eos) or a URL; default: the source's first")
    parser.add_argument("--output", type=Path, default=Path("agc-data"), help="folder (default: %(default)s)")
    parser.add_argument("--manifest", type=Path, help="another data_manifest.yaml")
    parser.add_argument("--workers", type=int, default=4, help="files at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="show what would be fetched, and fetch nothing")
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    return parser.parse_args(argv)


def files(arguments: argparse.Namespace) -> list[Wanted]:
    """What to fetch; files that a manifest has in a local folder are not among it."""
    chosen = from_config(arguments) if arguments.config else named(arguments)
    limited = [dataset.first(arguments.max_files) for dataset in chosen]
    return [
        Wanted(location, arguments.output / file.path, file)
        for dataset in limited
        for location, file in zip(dataset.locations(arguments.prefix), dataset.files, strict=True)
        if "://" in location
    ]


def named(arguments: argparse.Namespace) -> list[Dataset]:
    manifest = load_manifest(arguments.manifest)
    return list({one.key: one for name in arguments.datasets for one in manifest.matching(name)}.values())


def from_config(arguments: argparse.Namespace) -> list[Dataset]:
    from pipeline.problem import wanted_datasets  # jax is needed to say what a config reads, and for nothing else here

    config = load_config(arguments.config)
    manifest = load_manifest(arguments.manifest or config.data.manifest)
    wanted = wanted_datasets(config)
    return [manifest.dataset(config.data.set, *names).first(config.data.max_files) for names in wanted]


def fetched(wanted: Sequence[Wanted], workers: int, *, quiet: bool) -> list[str]:
    """Fetch files, several at a time; what could not be had comes back as sentences."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, disable=quiet) as progress, ThreadPoolExecutor(workers) as threads:
        outcomes = threads.map(lambda one: fetched_one(one, progress), wanted)
        return [outcome for outcome in outcomes if outcome]


def fetched_one(one: Wanted, progress: Progress) -> str | None:
    line: TaskID = progress.add_task(one.target.name[-40:], total=one.file.size)
    try:
        download(
            one.location,
            one.target,
            size=one.file.size,
            sha256=one.file.sha256,
            advance=lambda done, total: progress.update(line, completed=done, total=total),
        )
    except InputError as error:
        return str(error)
    finally:
        progress.remove_task(line)
    return None


if __name__ == "__main__":
    sys.exit(main())
