"""What a manifest states of where data come from: sources with their terms, files with their facts, generators.

Neither jax nor awkward is imported here, so that a typo in a manifest answers at once.
"""

import posixpath
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["File", "Generator", "ManifestModel", "Source", "data_files"]

SUFFIXES = (".root", ".parquet", ".pq")
"""Of the files that a folder or a pattern stands for; a part of a download is not among them."""


def data_files(folder: Path, pattern: str) -> list[Path]:
    """The ROOT and parquet files that a pattern stands for, in alphabetical order; hidden ones are left out.

    Args:
        folder: Where the pattern begins.
        pattern: As of a shell, `ttbar/*.root`; `**` stands for any folders.
    """
    files = (file for file in folder.glob(pattern) if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(file for file in files if not file.name.startswith("."))


class ManifestModel(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(ManifestModel):
    """One file of a data set, or a pattern or folder that stands for several.

    Attributes:
        path: Path below the prefixes of the source. Below a local one it may be a pattern, `ttbar/*.root`, or a folder.
        events: Events before every filter and skim; they set the normalisation. Where they are not stated, they are
            those of the tree `Runs`, or else the entries.
        entries: Entries in the file, where a skim made it smaller than `events`.
        size: Bytes.
        sha256: Checksum of the content.
        sum_of_weights: Sum of the generator weights before every filter and skim. Where it is not stated, it is that of
            the tree `Runs`, or else of all `genWeight` in the file.
        sum_of_squared_weights: Likewise, of their squares.
    """

    path: Annotated[str, Field(min_length=1)]
    events: Annotated[int, Field(ge=0)] | None = None
    entries: Annotated[int, Field(ge=0)] | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    sum_of_weights: Annotated[float, Field(allow_inf_nan=False)] | None = None
    sum_of_squared_weights: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_path_alone(cls, fields: Any) -> Any:
        return {"path": fields} if isinstance(fields, str) else fields

    @field_validator("path")
    @classmethod
    def _stays_below_the_prefix(cls, path: str) -> str:
        if path.startswith(("/", "~")) or "://" in path or ".." in path.split("/"):
            raise ValueError("must be relative to the prefixes of its source, without '..'")
        # One spelling, so that a file that is listed twice is noticed; a slash at the end means a folder.
        return posixpath.normpath(path) + ("/" if path.endswith("/") else "")

    @property
    def facts(self) -> tuple[object, ...]:
        """What is stated of it beside its path; nothing of a pattern."""
        return tuple(value for name, value in self if name != "path" and value is not None)


class Source(ManifestModel):
    """Where data sets come from, and the terms of their use.

    Attributes:
        description: What the files are, in a sentence.
        licence: Terms under which they may be used.
        citation: What to cite.
        simulated: Whether the events are simulated by whoever runs the analysis: this project, or its user.
        label: What plots call them.
        tree: Name of the TTree or RNTuple.
        collision: Branches that together name a collision, where a file has several detector simulations of one
            (`[event]`). Without it, every event is its own: run, luminosity block and event number name it.
        prefixes: Named places that hold the files, the preferred one first: URLs, or folders relative to the manifest.
    """

    description: str
    licence: str
    citation: str
    simulated: bool
    label: str = "Simulated"
    tree: str = "Events"
    collision: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    prefixes: Annotated[dict[str, str], Field(min_length=1)]

    @field_validator("prefixes")
    @classmethod
    def _folders_are_relative_to_the_manifest(cls, prefixes: dict[str, str], info: Any) -> dict[str, str]:
        folder = (info.context or {}).get("folder", Path())
        return {
            name: prefix if "://" in prefix else str(folder / Path(prefix).expanduser())
            for name, prefix in prefixes.items()
        }


class Generator(ManifestModel):
    """How the events were generated.

    Attributes:
        program: Name and version.
        settings: Settings that differ from the program's defaults, in its own words.
        seed: Seed of the random numbers.
        description: What a reader should know beyond that.
    """

    program: str
    settings: tuple[str, ...] = ()
    seed: int | None = None
    description: str = ""
