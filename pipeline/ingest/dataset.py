"""A data set: its files, what is stated of them, and what follows for the weight of an event.

What is stated is checked against what was read (`Dataset.as_read`); what is not stated is taken from the files. This
module imports neither jax nor awkward, so that a typo in a manifest answers at once.
"""

import logging
import posixpath
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator, model_validator

from pipeline.errors import InputError
from pipeline.ingest.expression import Expression
from pipeline.ingest.facts import FileFacts
from pipeline.ingest.sources import File, Generator, ManifestModel, Source, data_files

__all__ = ["Dataset"]

SUM_TOLERANCE = 1e-4
"""Share by which a stated sum of weights may differ: it may have been rounded, or added up in single precision."""

_Number = TypeVar("_Number", int, float)

_log = logging.getLogger(__name__)


class Dataset(ManifestModel):
    """The files of one process in one variation, perhaps of one data-taking period.

    Attributes:
        key: `<set>/<process>__<variation>`, followed by `__<period>` if there is one.
        source: Where the files come from.
        process: Physics process.
        variation: `nominal`, or what was changed in the generation.
        role: The part this variation plays in the analysis; the variation itself unless stated.
        period: Data-taking period that is simulated, one of the manifest's `periods`; empty if there is but one.
        luminosity: Of the period, in 1/pb; None without a period.
        cross_section_pb: Cross section in pb, branching fraction included.
        in_expected_events: Whether the weights are in expected events already; the cross section then says nothing.
        weights: `none`: every event counts one. `generator`: every event counts its `genWeight`. Else a formula,
            `genWeight * L1PreFiringWeight_Nom`. None: not decided, which is an error if `genWeight` differs between
            events.
        require: Formulas that an event of this data set meets, where a file has several: `genTtbarId >= 50`. The others
            count in its normalisation.
        generator: How the events were generated.
        records: CERN Open Data record numbers.
        files: The files, in the order in which a limit on their number takes them.
    """

    key: str
    source: Source
    process: str
    variation: str
    role: str = ""
    period: str = ""
    luminosity: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cross_section_pb: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    in_expected_events: bool = False
    weights: str | None = None
    require: tuple[str, ...] = ()
    generator: Generator | None = None
    records: tuple[int, ...] = ()
    files: Annotated[tuple[File, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _role_is_the_variation(cls, fields: Any) -> Any:
        return {**fields, "role": fields.get("role", fields.get("variation"))} if isinstance(fields, dict) else fields

    @field_validator("weights")
    @classmethod
    def _weights_are_a_formula(cls, weights: str | None) -> str | None:
        if weights not in (None, "none", "generator"):
            Expression(weights)
        return weights

    @field_validator("require")
    @classmethod
    def _requirements_are_formulas(cls, require: tuple[str, ...]) -> tuple[str, ...]:
        for text in require:
            Expression(text)
        return require

    @model_validator(mode="after")
    def _is_consistent(self) -> "Dataset":
        _, _, name = self.key.partition("/")
        expected = "__".join(part for part in (self.process, self.variation, self.period) if part)
        if name != expected:
            raise ValueError(f"the key must end in '{expected}', as process, variation and period say")
        if len({file.path for file in self.files}) < len(self.files):
            raise ValueError("a file is listed twice")
        return self

    @property
    def is_weighted(self) -> bool:
        """Whether the generator weights are part of the weight of an event, so that their sum normalises it."""
        if self.weights in (None, "none"):
            return False
        return self.weights == "generator" or "genWeight" in Expression(str(self.weights)).branches

    @property
    def events(self) -> int:
        """Events before every filter and skim.

        Raises:
            InputError: They are not known before the files are read.
        """
        return sum(self._known(file.path, file.events, "events") for file in self.files)

    @property
    def sum_of_weights(self) -> float:
        """What the event weights add up to before every filter and skim: events, or the sum of `genWeight`.

        Raises:
            InputError: It is not known before the files are read.
        """
        if not self.is_weighted:
            return float(self.events)
        return sum(self._known(file.path, file.sum_of_weights, "sum_of_weights") for file in self.files)

    def _known(self, path: str, value: _Number | None, name: str) -> _Number:
        if value is None:
            raise InputError(f"{self.key}: the {name} of {path} are not known before it is read; state them.")
        return value

    def expanded(self, prefix: str | None = None) -> "Dataset":
        """The same data set with the files that its patterns and folders stand for, in alphabetical order.

        Args:
            prefix: As of `locations`.

        Raises:
            InputError: A pattern fits no file, stands for files of which something is stated, or is not local.
        """
        place = self._place(prefix)
        files = [file for pattern in self.files for file in self._files_of(place, pattern)]
        return self.model_copy(update={"files": tuple(dict.fromkeys(files))})

    def _files_of(self, place: str, pattern: File) -> list[File]:
        path = Path(place) / pattern.path
        is_pattern = any(letter in pattern.path for letter in "*?[")
        if "://" in place:
            if is_pattern or pattern.path.endswith("/"):
                raise InputError(
                    f"{self.key}: '{pattern.path}' is a pattern, and {place} cannot be listed; list the files."
                )
            return [pattern]
        if path.is_file() or not (is_pattern or pattern.path.endswith("/") or path.is_dir()):
            return [pattern]
        if pattern.facts:
            raise InputError(
                f"{self.key}: '{pattern.path}' stands for several files, but states facts as of one; list the files."
            )
        folder = Path(place)
        files = data_files(path, "**/*") if path.is_dir() else data_files(folder, pattern.path)
        if not files:
            raise InputError(f"{self.key}: '{pattern.path}' fits no ROOT or parquet file in {folder}; correct it.")
        return [File(path=file.relative_to(folder).as_posix()) for file in files]

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

    def weighted(self, weights: str | None) -> "Dataset":
        """The same data set with its events weighted in another way; None leaves it as the manifest says.

        Args:
            weights: As the attribute.

        Raises:
            InputError: It is no formula.
        """
        if weights not in (None, "none", "generator"):
            Expression(weights)
        return self if weights is None else self.model_copy(update={"weights": weights})

    def as_read(self, files: Sequence[FileFacts]) -> "Dataset":
        """The data set as it was read: what was stated is checked, what was not is filled in, what was skipped is out.

        Args:
            files: What was found out about each file, in order, `Ingested.files`.

        Returns:
            The data set, of which number of events, sum of weights and the way to weigh are known; size and checksum
            of a file are those that were read, None where nobody looked.

        Raises:
            InputError: A file is longer or shorter than stated, its weights add up to something else, or the generator
                weights differ and nobody said whether to use them.
        """
        if len(files) != len(self.files):
            raise InputError(f"{self.key}: {len(files)} files were read, but the manifest lists {len(self.files)}.")
        pairs = [(file, facts) for file, facts in zip(self.files, files, strict=True) if not facts.failure]
        for file, facts in pairs:
            self._check_length(file, facts.entries)
        weights = self.weights or self._decision([facts for _, facts in pairs])
        dataset = self.model_copy(update={"weights": weights})
        return dataset.model_copy(update={"files": tuple(dataset._file_as_read(*pair) for pair in pairs)})

    def _decision(self, files: Sequence[FileFacts]) -> str:
        """The weights, where nobody stated them: none, unless they would make a difference."""
        generated = [facts.generated for facts in files if facts.generated is not None and facts.generated.events]
        if len({(sums.lowest, sums.highest) for sums in generated}) <= 1 and all(
            sums.lowest == sums.highest for sums in generated
        ):
            return "none"
        lowest, highest = min(sums.lowest for sums in generated), max(sums.highest for sums in generated)
        if not isfinite(sum(sums.total for sums in generated)):
            raise InputError(
                f"{self.key}: its genWeight is NaN or infinite in some events; leave their files out or make them "
                "again, or state 'weights: none' in the manifest (data.weights in a config) to count events."
            )
        raise InputError(
            f"{self.key}: its genWeight goes from {lowest:g} to {highest:g}, and nothing says whether to use it; state "
            "'weights: generator' in the manifest (data.weights in a config), or 'weights: none' to count events."
        )

    def _file_as_read(self, file: File, facts: FileFacts) -> File:
        """One file, checked and filled in."""
        # All genWeight of a file add up to its sum only if no skim has dropped events.
        is_whole = file.entries in (None, file.events)
        seen = facts.runs if facts.runs is not None else facts.generated if is_whole else None
        total = file.sum_of_weights
        if self.is_weighted and total is not None and seen is not None:
            where = "its tree Runs says" if facts.runs is not None else "all its genWeight add up to"
            self._check_sum(file, seen.total, where)
        if self.is_weighted and total is None and seen is None:
            raise InputError(
                f"{self.key}: the sum of the generator weights before the skim is neither stated nor in {file.path}; "
                "state it as 'sum_of_weights'."
            )
        events = facts.entries if facts.runs is None else facts.runs.events
        if facts.runs is not None and not self.is_weighted and file.events not in (None, events):
            _log.warning(
                "%s: the manifest says that %d events were generated for %s, and its events are weighted by that, but "
                "its tree Runs says %d; correct 'events', or leave it out.",
                self.key,
                file.events,
                file.path,
                events,
            )
        return file.model_copy(
            update={
                "events": events if file.events is None else file.events,
                "entries": facts.entries,
                "size": facts.size,
                "sha256": facts.sha256,
                "sum_of_weights": seen.total if total is None and seen is not None else total,
                "sum_of_squared_weights": file.sum_of_squared_weights if seen is None else seen.squares,
            }
        )

    def _check_sum(self, file: File, total: float, where: str) -> None:
        stated = file.sum_of_weights or 0.0
        if abs(stated - total) > SUM_TOLERANCE * abs(total):
            raise InputError(
                f"{self.key}: the manifest says that the weights of {file.path} add up to {stated:g}, but {where} "
                f"{total:g}; correct 'sum_of_weights', or leave it out."
            )

    def normalisation(self, luminosity: float) -> float:
        """Expected events per unit of event weight: cross section × luminosity / sum of weights of the files in use.

        1 where weights are in expected events already.

        An event counts this much, times its `genWeight` where `weights` is `generator`. The AGC never reads generator
        weights and divides by the number of events (`utils/file_input.py`, commit c37bf59).

        Args:
            luminosity: Integrated luminosity in 1/pb; if the data set has a period, the period's is taken instead.

        Raises:
            InputError: The files hold no events.
        """
        if self.in_expected_events:
            return 1.0
        if self.sum_of_weights <= 0:
            raise InputError(
                f"{self.key}: the weights of its files add up to {self.sum_of_weights}, so nothing can be normalised; "
                "use more files."
            )
        return self.cross_section_pb * (self.luminosity or luminosity) / self.sum_of_weights

    def _check_length(self, file: File, found: int) -> None:
        stated = file.events if file.entries is None else file.entries
        if stated not in (None, found):
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
        place = self._place(prefix)
        return tuple(posixpath.join(place, file.path) for file in self.files)

    def _place(self, prefix: str | None) -> str:
        """Folder or URL below which the files are."""
        prefixes = self.source.prefixes
        if prefix == "local" and prefix not in prefixes:
            raise InputError(
                f"{self.key}: there is no location 'local'; set data.location to {' or '.join(prefixes)}, "
                "or to a folder with copies of the files"
            )
        if prefix is None:
            return next(iter(prefixes.values()))
        place = prefixes.get(prefix, prefix)
        return place if "://" in place else str(Path(place).expanduser())
