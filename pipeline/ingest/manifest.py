"""What data exist: `data_manifest.yaml` as checked, frozen values.

The manifest states facts: where the files of a data set lie, how many events were generated for them, the cross
section, who made them and under which licence. From these facts follows the weight of an event, so a wrong number here
is a wrong result everywhere. The schema therefore refuses what it does not know, and this module imports neither jax
nor awkward, so that a typo answers at once.

A data set is named `<set>/<process>__<variation>`, as in `agc/ttbar__nominal`.
"""

import difflib
import fnmatch
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = [
    "Dataset",
    "File",
    "Generator",
    "InputError",
    "Manifest",
    "Source",
    "dataset_key",
    "default_manifest",
    "load_manifest",
]


class InputError(ValueError):
    """Input data, or the manifest that names them, cannot be used; the message says what, where and what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Model):
    """One file of a data set.

    Attributes:
        path: Path below the prefixes of the source.
        events: Events before every filter and skim; they set the normalisation.
        entries: Entries in the file, where a skim made it smaller than `events`.
        size: Bytes.
        sha256: Checksum of the content.
        sum_of_weights: Sum of the generator weights before every filter and skim.
    """

    path: Annotated[str, Field(min_length=1)]
    events: Annotated[int, Field(ge=0)]
    entries: Annotated[int, Field(ge=0)] | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    sum_of_weights: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @field_validator("path")
    @classmethod
    def _stays_below_the_prefix(cls, path: str) -> str:
        if path.startswith("/") or "://" in path or ".." in path.split("/"):
            raise ValueError("must be relative to the prefixes of its source, without '..'")
        return path


class Source(_Model):
    """Where data sets come from, and the terms of their use.

    Attributes:
        description: What the files are, in a sentence.
        licence: Terms under which they may be used.
        citation: What to cite.
        simulated: Whether the events are simulated by whoever runs the analysis: this project, or its user.
        label: What plots call them.
        tree: Name of the TTree or RNTuple.
        prefixes: Named places that hold the files, the preferred one first: URLs, or folders relative to the manifest.
    """

    description: str
    licence: str
    citation: str
    simulated: bool
    label: str = "Simulated"
    tree: str = "Events"
    prefixes: Annotated[dict[str, str], Field(min_length=1)]

    @field_validator("prefixes")
    @classmethod
    def _folders_are_relative_to_the_manifest(cls, prefixes: dict[str, str], info: Any) -> dict[str, str]:
        folder = (info.context or {}).get("folder", Path())
        return {name: prefix if "://" in prefix else str(folder / prefix) for name, prefix in prefixes.items()}


class Generator(_Model):
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


class Dataset(_Model):
    """The files of one process in one variation.

    Attributes:
        key: `<set>/<process>__<variation>`.
        source: Where the files come from.
        process: Physics process.
        variation: `nominal`, or what was changed in the generation.
        role: The part this variation plays in the analysis; the variation itself unless stated.
        cross_section_pb: Cross section in pb, branching fraction included.
        weights: `none`: every event counts one. `generator`: every event counts its `genWeight`.
        generator: How the events were generated.
        records: CERN Open Data record numbers.
        files: The files, in the order in which a limit on their number takes them.
    """

    key: str
    source: Source
    process: str
    variation: str
    role: str = ""
    cross_section_pb: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weights: Literal["none", "generator"] = "none"
    generator: Generator | None = None
    records: tuple[int, ...] = ()
    files: Annotated[tuple[File, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _role_is_the_variation(cls, fields: Any) -> Any:
        return {**fields, "role": fields.get("role", fields.get("variation"))} if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _is_consistent(self) -> "Dataset":
        _, _, name = self.key.partition("/")
        if name != f"{self.process}__{self.variation}":
            raise ValueError(f"the key must end in '{self.process}__{self.variation}', as process and variation say")
        if self.weights == "generator" and any(file.sum_of_weights is None for file in self.files):
            raise ValueError("with 'weights: generator' every file needs its 'sum_of_weights'")
        if len({file.path for file in self.files}) < len(self.files):
            raise ValueError("a file is listed twice")
        return self

    @property
    def events(self) -> int:
        """Events before every filter and skim."""
        return sum(file.events for file in self.files)

    @property
    def sum_of_weights(self) -> float:
        """What the event weights add up to before every filter and skim: events, or the sum of `genWeight`."""
        if self.weights == "none":
            return float(self.events)
        return sum(file.sum_of_weights or 0.0 for file in self.files)

    def first(self, max_files: int | None) -> "Dataset":
        """The same data set with only its first files, as the AGC limits its inputs.

        Args:
            max_files: How many files to keep; a shorter list is kept whole. None or, as in the AGC, -1 keeps all.

        Raises:
            InputError: `max_files` is zero or another negative number.
        """
        if max_files is None or max_files == -1:
            return self
        if max_files < 1:
            raise InputError(f"max_files is {max_files}, but it must be at least 1, or -1 for all files.")
        return self.model_copy(update={"files": self.files[:max_files]})

    def weighted(self, weights: Literal["none", "generator"] | None) -> "Dataset":
        """The same data set with its events weighted in another way; None leaves it as the manifest says.

        Raises:
            InputError: Generator weights are wanted, and the manifest does not know what they add up to.
        """
        if weights == "generator" and any(file.sum_of_weights is None for file in self.files):
            raise InputError(
                f"{self.key}: data.weights is 'generator', but the manifest has no sum_of_weights for its files; "
                "add them, or use 'none'"
            )
        return self if weights is None else self.model_copy(update={"weights": weights})

    def normalisation(self, luminosity: float) -> float:
        """Expected events per unit of event weight: cross section × luminosity / sum of weights of the files in use.

        An event counts this much, times its `genWeight` where `weights` is `generator`. The AGC never reads generator
        weights and divides by the number of events (`utils/file_input.py`, commit c37bf59).

        Args:
            luminosity: Integrated luminosity in 1/pb.

        Raises:
            InputError: The files hold no events.
        """
        if self.sum_of_weights <= 0:
            raise InputError(
                f"{self.key}: the weights of its files add up to {self.sum_of_weights}, so nothing can be normalised; "
                "use more files."
            )
        return self.cross_section_pb * luminosity / self.sum_of_weights

    def check_entries(self, entries: Sequence[int]) -> None:
        """Compare the lengths of the files that were read with what the manifest says, since the weights rest on it.

        Args:
            entries: Entries found in each file, in order.

        Raises:
            InputError: A file is longer or shorter than stated, or another number of files was read.
        """
        if len(entries) != len(self.files):
            raise InputError(f"{self.key}: {len(entries)} files were read, but the manifest lists {len(self.files)}.")
        for file, found in zip(self.files, entries, strict=True):
            stated = file.events if file.entries is None else file.entries
            if found != stated:
                raise InputError(
                    f"{self.key}: {file.path} has {found} entries, but the manifest says {stated}; fetch the file "
                    "again, or correct the manifest, since the event weights follow from it (a skimmed file has "
                    "'entries' beside 'events')."
                )

    def locations(self, prefix: str | None = None) -> tuple[str, ...]:
        """Paths or URLs of the files.

        Args:
            prefix: Name of one of the source's prefixes, or a folder or URL that holds the same tree of files, say a
                local copy. None takes the source's first prefix.

        Raises:
            InputError: The prefix is `local`, the default of a config, and the source has no such place.
        """
        prefixes = self.source.prefixes
        if prefix == "local" and prefix not in prefixes:
            raise InputError(
                f"{self.key}: there is no location 'local'; set data.location to {' or '.join(prefixes)}, "
                "or to a folder with copies of the files"
            )
        place = next(iter(prefixes.values())) if prefix is None else prefixes.get(prefix, prefix)
        return tuple(posixpath.join(place, file.path) for file in self.files)


class Manifest(_Model):
    """All data sets the project knows.

    Attributes:
        sources: By name.
        datasets: By key, `<set>/<process>__<variation>`.
    """

    sources: dict[str, Source]
    datasets: dict[str, Dataset]

    @model_validator(mode="before")
    @classmethod
    def _put_sources_and_keys_into_the_datasets(cls, document: Any) -> Any:
        if not isinstance(document, dict) or not all(
            isinstance(document.get(part), dict) for part in ("sources", "datasets")
        ):
            raise ValueError("must have the two sections 'sources' and 'datasets'")
        sources = document["sources"]
        datasets = {key: _with_source(key, entry, sources) for key, entry in document["datasets"].items()}
        return {**document, "datasets": datasets}

    def dataset(self, set_name: str, process: str, variation: str = "nominal") -> Dataset:
        """The data set of a process and variation.

        Args:
            set_name: Set of data sets, `agc` or `simulated`.
            process: Physics process.
            variation: Its variation, or the role that the variation plays.

        Raises:
            InputError: There is none, or several play that role; the message names the nearest.
        """
        key = dataset_key(set_name, process, variation)
        if key in self.datasets:
            return self.datasets[key]
        fill_the_role = [
            d for k, d in self.datasets.items() if k.startswith(f"{set_name}/{process}__") and d.role == variation
        ]
        if len(fill_the_role) == 1:
            return fill_the_role[0]
        raise InputError(f"The manifest has no data set '{key}'; {_nearest(key, self.datasets)}")

    def matching(self, pattern: str) -> tuple[Dataset, ...]:
        """The data sets whose key fits a shell pattern, such as `agc/ttbar__*`.

        Args:
            pattern: A key, or a pattern.

        Raises:
            InputError: No key fits; the message names the nearest.
        """
        keys = fnmatch.filter(self.datasets, pattern)
        if not keys:
            raise InputError(f"The manifest has no data set '{pattern}'; {_nearest(pattern, self.datasets)}")
        return tuple(self.datasets[key] for key in keys)


def dataset_key(set_name: str, process: str, variation: str = "nominal") -> str:
    """The manifest's name of a data set."""
    return f"{set_name}/{process}__{variation}"


def default_manifest() -> Path:
    """`data_manifest.yaml` beside the package, where a checkout has it."""
    return Path(__file__).parent.parent / "data_manifest.yaml"


def load_manifest(path: str | Path | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: YAML file; None takes the checkout's own. Folders in it are relative to it.

    Raises:
        InputError: The file is missing, is not YAML, or breaks the schema; the message names the entry.
    """
    path = default_manifest() if path is None else Path(path)
    try:
        # The C parser where PyYAML has it: measured 0.04 s against 0.3 s for the 787 files of the AGC.
        document = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise InputError(
            f"{path}: the manifest cannot be read ({error.strerror}); give the path of data_manifest.yaml."
        ) from error
    except yaml.YAMLError as error:
        complaint = " ".join(str(error).replace('"<byte string>", ', "").split())
        raise InputError(f"{path}: the manifest is not valid YAML: {complaint}.") from error
    try:
        return Manifest.model_validate(document, context={"folder": path.parent})
    except ValidationError as error:
        raise InputError(_sentence(path, error)) from error


def _with_source(key: str, entry: Any, sources: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    name = entry.get("source")
    if name not in sources:
        raise ValueError(f"datasets.{key}.source is {name!r}, which is not among the sources {', '.join(sources)}")
    return {**entry, "key": key, "source": sources[name]}


def _sentence(path: Path, error: ValidationError) -> str:
    """The first complaint of pydantic as a sentence with the place."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = re.sub("^Value error, ", "", first["msg"])
    return f"{path}: {place + ': ' if place else ''}{message[0].lower()}{message[1:]}."


def _nearest(key: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}."
