"""One run, whole: the data, the analysis, and how it is tuned and judged."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.model import Model
from pipeline.config.selection import Count, Cut, Objects, Region, Threshold
from pipeline.config.statistics import Measurement, Objective, Process, Systematic, Variations, with_corrections

__all__ = ["Config", "Data", "Optimiser", "Validation"]


class Data(Model):
    """Which events are read, and from where.

    `max_files` as in the AGC: the first so many files, -1 for all. `weights`: every event counts one, as in the AGC
    (none), or its genWeight (generator), whatever the manifest says of its data set.
    """

    manifest: Path = Path("../data_manifest.yaml")
    set: str = "simulated"
    location: str = "local"
    max_files: int | None = None
    weights: Literal["none", "generator"] | None = None
    cache: Path | None = None
    workers: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _some_files(self) -> "Data":
        if self.max_files is not None and self.max_files < 1 and self.max_files != -1:
            raise ValueError(f"max_files is {self.max_files}; give at least 1, or -1 for all files")
        return self


class Optimiser(Model):
    """The optax loop. Thresholds move in units of their own `step`; a kill loses `checkpoint_every` steps at most.

    The learning rate falls (`decay`) to a fraction `decay_to` in `steps` steps. Gradients are shortened to the length
    `clip`; of their components, those within `significance` statistical errors of zero count as zero. `starts` above 1
    adds starts at random places within the bounds. With `patience`, a start ends after so many steps without a better
    value on the stopping events (see `Validation`), which then also decide which step is the best.

    The loss is `forward: exact`, with gradients that are estimates, or `smooth`: all thresholds smeared with their
    kernels, for optimisers that search along it (lbfgs). What is reported is exact in both.
    """

    name: str = "adam"
    forward: Literal["exact", "smooth"] = "exact"
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    arguments: dict[str, float] = {}
    steps: Annotated[int, Field(ge=1)] = 60
    decay: Literal["constant", "linear", "exponential", "cosine"] = "cosine"
    decay_to: Annotated[float, Field(gt=0, le=1)] = 0.1
    clip: Annotated[float, Field(gt=0)] | None = None
    significance: Annotated[float, Field(ge=0)] = 1.0
    starts: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 5


class Validation(Model):
    """Events that the optimiser never sees, chosen by a hash of the event number.

    With `folds`, the events are cut into so many parts, each of which is held out once: the thresholds are tuned as
    often, and every event is judged by thresholds that have not seen it. `stopping` is the share of the other events
    that a patient optimiser (`optimiser.patience`) takes to decide when to stop; it is asked for then only.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    folds: Annotated[int, Field(ge=2)] | None = None
    stopping: Annotated[float, Field(gt=0, lt=1)] = 0.25
    bootstrap: Annotated[int, Field(ge=2)] = 50

    @property
    def held_out(self) -> float:
        """The share of the events that is held out at a time."""
        return self.fraction if self.folds is None else 1 / self.folds


class Config(Model):
    """One run, whole."""

    name: str
    title: str = ""
    seed: int = 1
    luminosity: Annotated[float, Field(gt=0)]
    data: Data = Data()
    objects: Objects
    cuts: dict[str, Cut]
    leptons: Count = Count(min=1, max=1)
    regions: dict[str, Region]
    processes: dict[str, Process]
    variations: Variations = Variations()
    systematics: dict[str, Systematic] = {}
    measurement: Measurement
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Every number that the analysis is a function of: all cuts, then the bin edges that may move."""
        return {**self.cuts, **{name: one for edges in self.moving_edges.values() for name, one in edges.items()}}

    @property
    def moving_edges(self) -> dict[str, dict[str, Threshold]]:
        """The thresholds that move the bin edges of each region, in rising order; none for most."""
        return {name: region.bins.thresholds(name, region.title) for name, region in self.regions.items()}

    def with_bandwidths(self, chosen: Mapping[str, float]) -> "Config":
        """The same run with kernels where it had none: each as wide as chosen at the start, a quarter of it at the end.

        Args:
            chosen: by threshold; the moving edges of a region share one.
        """

        def widths(name: str) -> dict[str, float]:
            return {"bandwidth": chosen[name], "bandwidth_end": chosen[name] / 4}

        cuts = {name: cut.model_copy(update=widths(name)) if name in chosen else cut for name, cut in self.cuts.items()}
        regions = {}
        for name, region in self.regions.items():
            first = next(iter(self.moving_edges[name]), "")
            bins = region.bins.model_copy(update=widths(first)) if first in chosen else region.bins
            regions[name] = region.model_copy(update={"bins": bins})
        return self.model_copy(update={"cuts": cuts, "regions": regions})

    @model_validator(mode="after")
    def _corrections_are_read(self) -> "Config":
        if self.variations.corrections is None:
            return self
        return self.model_copy(update={"variations": with_corrections(self.variations, self.variations.corrections)})

    @model_validator(mode="after")
    def _references_exist(self) -> "Config":
        for name, systematic in self.systematics.items():
            for process in systematic.processes or ():
                _known(process, self.processes, f"systematics.{name}.processes", "process")
            for direction, variation in (("up", systematic.up), ("down", systematic.down)):
                if variation is not None:
                    _known(variation, self.variations.names, f"systematics.{name}.{direction}", "variation")
        for name, (process, _) in self.variations.process_weight.items():
            _known(process, self.processes, f"variations.process_weight.{name}", "process")
        for name, process in self.variations.samples.items():
            _known(process, self.processes, f"variations.samples.{name}", "process")
        for process in self.measurement.signal:
            _known(process, self.processes, "measurement.signal", "process")
        for process in self.measurement.free:
            _known(process, self.processes, "measurement.free", "process")
        for process, shares in self.measurement.pseudodata.items():
            _known(process, self.processes, "measurement.pseudodata", "process")
            for variation in shares:
                known = ("nominal", *self.variations.names)
                _known(variation, known, f"measurement.pseudodata.{process}", "variation")
        return self

    @model_validator(mode="after")
    def _cuts_are_possible(self) -> "Config":
        collections = {kind: getattr(self.objects, kind).variables for kind in ("electron", "muon", "jet")}
        for variable in ("pt", "eta", "phi", "mass"):
            if variable not in collections["jet"]:
                raise ValueError(f"objects.jet.variables: trijets need '{variable}'; add it")
        collections["bjet"] = collections["jet"]
        for name, cut in self.cuts.items():
            for region in cut.regions or ():
                _known(region, self.regions, f"cuts.{name}.regions", "region")
            for kind in set(cut.objects) - {"event"}:
                if cut.variable not in collections[kind]:
                    collection = f"objects.{'jet' if kind == 'bjet' else kind}.variables"
                    raise ValueError(
                        f"cuts.{name}.variable: {collection} has no '{cut.variable}'; "
                        f"there are: {', '.join(collections[kind])}"
                    )
        if not any(one.trainable for one in self.thresholds.values()):
            raise ValueError("cuts: no cut is trainable; set 'trainable: true' on at least one")
        return self

    @model_validator(mode="after")
    def _nothing_counts_twice(self) -> "Config":
        for (first, one), (second, other) in combinations(self.regions.items(), 2):
            if one.jets.overlaps(other.jets) and one.btags.overlaps(other.btags):
                raise ValueError(f"regions.{second}: overlaps with '{first}'; an event may be in one region only")
        _different({name: process.title for name, process in self.processes.items()}, "processes")
        _different({name: systematic.title for name, systematic in self.systematics.items()}, "systematics")
        return self


def _known(name: str, known: Iterable[str], where: str, what: str) -> None:
    names = list(known)
    if name not in names:
        raise ValueError(f"{where}: no {what} is called '{name}'; there are: {', '.join(names) or 'none'}")


def _different(titles: Mapping[str, str], where: str) -> None:
    """Titles are names in the workspace."""
    for (_, one), (name, other) in combinations(titles.items(), 2):
        if one == other:
            raise ValueError(f"{where}.{name}.title: '{other}' is the title of another one already")
