"""Tables that a config names itself, without a manifest: one or some files for each process, or one for all of them.

Their weights are in expected events, so nothing is stated of cross sections; sizes and checksums are taken when they
are read. A process may have a table of its own for a variation, under the name `process__variation`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config, Table
from pipeline.errors import InputError
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.sources import File, Source

__all__ = ["SET", "table_datasets", "table_source"]

SET = "tables"
"""Under which such data sets are known."""


def table_datasets(config: Config, wanted: Sequence[tuple[str, str]]) -> tuple[Dataset, ...]:
    """One data set for each process and variation.

    Args:
        config: with `data.table` or `data.tables`.
        wanted: (process, variation) of each.

    Raises:
        InputError: one has no table.
    """
    return tuple(_dataset(config, process, variation) for process, variation in wanted)


def table_source(place: str, folder: str, tree: str = "Events") -> Source:
    """Of tables that a program or a config hands over, which say nothing of where they come from."""
    return Source(
        description="tables named by a config or a program",
        licence="that of their owner",
        citation="none",
        simulated=False,
        label="",
        tree=tree,
        prefixes={place: folder},
    )


def _dataset(config: Config, process: str, variation: str) -> Dataset:
    data, name = config.data, process if variation == "nominal" else f"{process}__{variation}"
    if data.table:
        table = Table(files=data.table, where=f"{data.process} == '{name}'")
    elif name in data.tables:
        table = data.tables[name]
    else:
        raise InputError(f"data.tables: there is no '{name}'; name its files. There are: {', '.join(data.tables)}.")
    remote = [file for file in table.files if "://" in file]
    if remote:
        raise InputError(f"data.tables.{name}: {remote[0]} is a URL; fetch it, or name it in a manifest, which can.")
    missing = [file for file in table.files if not any(letter in file for letter in "*?[") and not Path(file).exists()]
    if missing:
        raise InputError(f"data.tables.{name}: {missing[0]}: there is no such file; paths count from the config.")
    folder = os.path.commonpath([Path(file).parent.absolute() for file in table.files])
    return Dataset(
        key=f"{SET}/{process}__{variation}",
        source=table_source("local", folder, data.tree),
        process=process,
        variation=variation,
        cross_section_pb=1.0,
        in_expected_events=True,
        weights=data.weights or "none",
        require=() if table.where is None else (table.where,),
        files=tuple(File(path=os.path.relpath(Path(file).absolute(), folder)) for file in table.files),
    )
