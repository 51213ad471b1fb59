"""What data exist: `data_manifest.yaml` as checked, frozen values.

The manifest states facts: where the files of a data set lie, how many events were generated for them, the cross
section, who made them and under which licence. From these facts follows the weight of an event, so a wrong number here
is a wrong result everywhere. The schema therefore refuses what it does not know, and this module imports neither jax
nor awkward, so that a typo answers at once.

A data set is named `<set>/<process>__<variation>`, as in `agc/ttbar__nominal`.
"""

import difflib
import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.ingest.dataset import Dataset
from pipeline.ingest.sources import File, Generator, ManifestModel, Source
from pipeline.yaml_file import YamlError, parsed_yaml

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


class Manifest(ManifestModel):
    """All data sets the project knows.

    Attributes:
        sources: By name.
        periods: Integrated luminosity in 1/pb of each data-taking period, by name.
        datasets: By key, `<set>/<process>__<variation>`.
    """

    sources: dict[str, Source]
    periods: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    datasets: dict[str, Dataset]

    @model_validator(mode="before")
    @classmethod
    def _put_sources_and_keys_into_the_datasets(cls, document: Any) -> Any:
        if not isinstance(document, dict) or not all(
            isinstance(document.get(part), dict) for part in ("sources", "datasets")
        ):
            raise ValueError("must have the two sections 'sources' and 'datasets'")
        sources = document["sources"]
        periods = document.get("periods") or {}
        if isinstance(periods, dict):
            periods = {str(name): luminosity for name, luminosity in periods.items()}  # a year is a number in YAML
        datasets = {
            key: _with_period(key, _with_source(key, entry, sources), periods)
            for key, entry in document["datasets"].items()
        }
        return {**document, "periods": periods, "datasets": datasets}

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

    def every_period(self, set_name: str, process: str, variation: str = "nominal") -> tuple[Dataset, ...]:
        """The data sets of a process and variation, one for each data-taking period; or the one without a period.

        Args:
            set_name: As of `dataset`.
            process: Physics process.
            variation: Its variation, or the role that the variation plays.

        Raises:
            InputError: There is none, and the message names the nearest; or some have a period, and one has none.
        """
        periods = tuple(
            dataset
            for key, dataset in self.datasets.items()
            if dataset.period
            and key.startswith(f"{set_name}/{process}__")
            and dataset.process == process
            and variation in (dataset.variation, dataset.role)
        )
        whole = self.datasets.get(dataset_key(set_name, process, variation))
        if periods and whole is not None:
            raise InputError(
                f"{whole.key}: has no period, but {periods[0].key} has one; state one for each, or for none."
            )
        return periods or (self.dataset(set_name, process, variation),)

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
    return Path(__file__).parents[2] / "data_manifest.yaml"


def load_manifest(path: str | Path | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: YAML file; None takes the checkout's own. Folders in it are relative to it.

    Raises:
        InputError: The file is missing, is not YAML, or breaks the schema; the message names the entry.
    """
    path = default_manifest() if path is None else Path(path)
    path = path.expanduser()
    try:
        document = parsed_yaml(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: the manifest cannot be read ({error.strerror}); give the path of data_manifest.yaml."
        ) from error
    except YamlError as error:
        raise InputError(f"{path}: {error}.") from error
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


def _with_period(key: str, entry: Any, periods: Any) -> Any:
    if not isinstance(entry, dict) or not entry.get("period"):
        return entry
    if not isinstance(periods, dict) or str(entry["period"]) not in periods:
        known = ", ".join(map(str, periods)) or "none"
        raise ValueError(f"datasets.{key}.period is {entry['period']!r}, which is not among the periods ({known})")
    return {**entry, "period": str(entry["period"]), "luminosity": periods[str(entry["period"])]}


def _sentence(path: Path, error: ValidationError) -> str:
    """The first complaint of pydantic as a sentence with the place."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = re.sub("^Value error, ", "", first["msg"])
    return f"{path}: {place + ': ' if place else ''}{message[0].lower()}{message[1:].rstrip('.')}."


def _nearest(key: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}."
