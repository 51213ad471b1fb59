"""Which events are read, and from where."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, model_serializer, model_validator

from pipeline.config.model import HomePath, Model

__all__ = ["Data", "Table"]


def _several(value: Any) -> Any:
    """A formula alone is a list of it."""
    return [value] if isinstance(value, str) else value


def _no(value: Any) -> Any:
    """YAML 1.1 reads `no` as false."""
    return "no" if value is False else value


class Table(Model):
    """The files of one process: paths, folders or patterns, which count from the config.

    `where` is a formula that its rows meet (`kind == 1`, `kind == 'signal'`), where a file has several processes. A
    path alone, or a list of paths, is as good.
    """

    files: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
    where: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _files_alone(cls, raw: Any) -> Any:
        return {"files": raw} if isinstance(raw, str | list | tuple) else raw


class Data(Model):
    """Which events are read, and from where: from tables that are named here, or from data sets of a manifest.

    `tables` are the files of each process, parquet or ROOT (`tree`), one row an event; `table` is one for all of them,
    whose column `process` names the process of each row. `weights` then is a column or a formula in expected events; a
    row counts 1 without. No manifest is needed.

    `manifest` is `data_manifest.yaml` beside the config, or in the folder above it, where it says nothing else.
    `max_files` as in the AGC: the first so many files, -1 for all. `weights`: every event counts one, as in the AGC
    (none), or its genWeight (generator), or a formula of branches, whatever the manifest says of its data set.
    `require` are formulas that an event must meet, such as `HLT_IsoMu24 or HLT_IsoTkMu24`; `certified` is a file of
    good luminosity blocks. What the manifest states of a file is compared with it (`verify`: its size and checksum, its
    size only, or nothing); a file that cannot be used ends the run, or is left out (`skip_bad_files`). Without a number
    of `workers` as many processes read as pay. `chunk` is how many events the analysis looks at together: on a CPU as
    many as stay in the cache of a core, on a GPU as many as keep it busy, where it says nothing else.

    Events that take more than `memory` (`8GB`; half of what is free where it says nothing else) stay on disk, and each
    step reads them part by part: in the folder `cache`, which keeps what was read for the next run, or else in the
    user's cache folder. It may be deleted at any time, but not while a run needs it.
    """

    manifest: HomePath = Path("data_manifest.yaml")
    set: str = "simulated"
    table: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    process: str | None = None
    tables: dict[str, Table] = {}
    tree: str = "Events"
    location: str = "local"
    max_files: int | None = None
    weights: str | None = None
    require: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    certified: HomePath | None = None
    verify: Annotated[Literal["sha256", "size", "no"], BeforeValidator(_no)] = "sha256"
    skip_bad_files: bool = False
    cache: HomePath | None = None
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    chunk: Annotated[int, Field(ge=64)] | None = None

    @property
    def in_tables(self) -> bool:
        """Whether tables are named, so that no manifest is read."""
        return bool(self.table or self.tables)

    @model_validator(mode="after")
    def _one_place(self) -> "Data":
        if self.table and self.tables:
            raise ValueError("give 'table', one for all processes, or 'tables', some for each; not both")
        if bool(self.table) != (self.process is not None):
            raise ValueError("'table' goes with 'process', the column that names the process of each row")
        if self.in_tables and "set" in self.model_fields_set:
            raise ValueError("'set' names data sets of a manifest, but tables are given; take one of them out")
        return self

    @model_validator(mode="after")
    def _some_files(self) -> "Data":
        if self.max_files is not None and self.max_files < 1 and self.max_files != -1:
            raise ValueError(f"max_files is {self.max_files}; give at least 1, or -1 for all files")
        return self

    @model_serializer(mode="wrap")
    def _without_set(self, dump: Callable[["Data"], dict[str, Any]]) -> dict[str, Any]:
        """What is written can be read again: beside tables, no data set of a manifest may be named."""
        return {key: value for key, value in dump(self).items() if key != "set" or not self.in_tables}
