"""One run, whole: the data, the analysis, and how it is tuned and judged."""

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.calibration import Calibration
from pipeline.config.data import Data
from pipeline.config.former import refuse_former_keys
from pipeline.config.learning import Observable
from pipeline.config.model import Model
from pipeline.config.references import check_calibrations, check_different, check_known, check_networks
from pipeline.config.selection import (
    Collection,
    Cut,
    MissingMomentum,
    ObjectSet,
    ObjectSetOrUnion,
    Ranges,
    Region,
    Threshold,
)
from pipeline.config.statistics import Correction, Measurement, Objective, Process, Systematic, Variation

__all__ = ["Config", "Optimiser", "Validation"]


class Optimiser(Model):
    """The optax loop. Thresholds move in units of their own `step`; a kill loses `checkpoint_every` steps at most.

    The learning rate falls (`decay`) to a fraction `decay_to` in `steps` steps. Gradients are shortened to the length
    `clip`; of their components, those within `significance` statistical errors of zero count as zero. `starts` above 1
    adds starts at random places within the bounds. With `scouts`, the loss is looked at in so many places first: of
    these and the default cuts the best ones are the starts, and the next ones are taken up where nothing moves. With
    `polish`, up to so many places near the best step are looked at in the end: the last per cent of this sample, of
    which unseen events may know nothing. With `patience`, a start ends after so many steps without a better value on
    the stopping events (see `Validation`), which then also decide which step is the best.

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
    scouts: Annotated[int, Field(ge=0, le=10_000)] = 0
    starts: Annotated[int, Field(ge=1)] = 1
    polish: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 5

    @property
    def numbers(self) -> int:
        """Of the steps, all starts and the polish included."""
        return self.steps * self.starts + (1 if self.polish else 0)

    def start_of(self, number: int) -> int:
        """Which start a step belongs to; the polish belongs to the last one."""
        return min(number // self.steps, self.starts - 1)


class Validation(Model):
    """Events that the optimiser never sees, chosen by a hash of the event number.

    With `folds`, the events are cut into so many parts, each of which is held out once: the thresholds are tuned as
    often, and every event is judged by thresholds that have not seen it. `stopping` is the share of the other events
    that a patient optimiser (`optimiser.patience`) takes to decide when to stop; it is asked for then only.
    With `working_points`, a run says what the figure of merit and the optimal cuts would be if one of the leading
    uncertainties were halved, or the luminosity doubled.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    folds: Annotated[int, Field(ge=2)] | None = None
    stopping: Annotated[float, Field(gt=0, lt=1)] = 0.25
    bootstrap: Annotated[int, Field(ge=2)] = 50
    working_points: bool = True

    @property
    def held_out(self) -> float:
        """The share of the events that is held out at a time."""
        return self.fraction if self.folds is None else 1 / self.folds


class Config(Model):
    """One run, whole.

    `luminosity` normalises simulated events, but not those of tables, whose weights are in expected events; `energy` is
    that of the collisions in their centre of mass, for pictures.
    `objects` are the collections of the events; each is a set of its own name, which cuts may shrink, and `sets`
    defines further ones and unions, which count together. Regions are `exclusive`: no event is in two of them, which is
    checked on the events; without it, an event in several counts in the first. `event_variables` are branches with one
    value per event under a name of ours; a branch that a cut, a region or a weight names needs no entry.
    `event_function` is a Python file beside the config, or a dotted path (`pipeline.events.function`).
    """

    name: str
    title: str = ""
    seed: int = 1
    luminosity: Annotated[float, Field(gt=0)]
    energy: Annotated[float, Field(gt=0)] | None = None
    data: Data = Data()
    event_function: str | None = None
    objects: dict[str, Collection] = {}
    event_variables: dict[str, str] = {}
    missing_momentum: MissingMomentum | None = None
    corrections: dict[str, Correction] = {}
    calibrations: dict[str, Calibration] = {}
    sets: dict[str, ObjectSetOrUnion] = {}
    cuts: dict[str, Cut]
    require: Ranges = {}
    regions: Annotated[dict[str, Region], Field(min_length=1)]
    exclusive: bool = True
    observables: dict[str, Observable] = {}
    processes: dict[str, Process]
    variations: dict[str, Variation] = {}
    systematics: dict[str, Systematic] = {}
    measurement: Measurement
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Every number that the analysis is a function of: cuts, then bin edges that may move, then calibrations."""
        of_cuts = {key: each for name, cut in self.cuts.items() for key, each in cut.thresholds(name).items()}
        of_edges = {key: each for edges in self.moving_edges.values() for key, each in edges.items()}
        return of_cuts | of_edges | {name: each.as_threshold() for name, each in self.calibrations.items()}

    @property
    def moving_edges(self) -> dict[str, dict[str, Threshold]]:
        """The thresholds that move the bin edges of each region, in rising order; none for most."""
        return {name: region.bins.thresholds(name, region.title) for name, region in self.regions.items()}

    @property
    def rising(self) -> tuple[tuple[tuple[str, ...], float], ...]:
        """Trainable thresholds that have to keep their order, and their least distance: bin edges, and windows."""
        edges = ((tuple(e), self.regions[name].bins.least_distance) for name, e in self.moving_edges.items() if e)
        windows = (
            (tuple(cut.thresholds(name)), 0.0) for name, cut in self.cuts.items() if cut.trainable and cut.between
        )
        return (*edges, *windows)

    @property
    def object_sets(self) -> dict[str, ObjectSet]:
        """The sets of objects, each after the set that it lies within: one for each collection, and those of `sets`."""
        named = {name: each for name, each in self.sets.items() if isinstance(each, ObjectSet)}
        waiting = {name: ObjectSet(of=name) for name in self.objects if name not in self.sets} | named
        placed: dict[str, ObjectSet] = {}
        while ready := [name for name, each in waiting.items() if each.within is None or each.within in placed]:
            for name in ready:
                each = waiting.pop(name)
                of = each.of or (placed[each.within].of if each.within is not None else None)
                placed[name] = ObjectSet(of=of, within=each.within)
        return placed

    @property
    def unions(self) -> dict[str, tuple[str, ...]]:
        """Sets that count together."""
        return {name: each for name, each in self.sets.items() if isinstance(each, tuple)}

    def requirements(self, region: str) -> dict[str, Any]:
        """What a region asks for: ranges by the names of sets, unions and variables."""
        return self.require | self.regions[region].require

    def may_overlap(self) -> bool:
        """Whether an event may be in two regions, as far as their requirements tell."""
        return any(
            not any(
                name in self.requirements(b) and not asked.overlaps(self.requirements(b)[name])
                for name, asked in self.requirements(a).items()
            )
            for a, b in combinations(self.regions, 2)
        )

    @model_validator(mode="before")
    @classmethod
    def _of_this_release(cls, raw: Any) -> Any:
        refuse_former_keys(raw)
        data = raw.get("data") if isinstance(raw, dict) else None
        if isinstance(data, dict) and (data.get("table") or data.get("tables")):
            return {"luminosity": 1.0} | raw  # tables count in expected events
        return raw

    @model_validator(mode="after")
    def _sets_exist(self) -> "Config":
        for name in self.unions:
            if name in self.objects:
                raise ValueError(f"sets.{name}: '{name}' is a collection; give the union another name")
        for name, each in self.sets.items():
            if name == "event":
                raise ValueError("sets.event: 'event' stands for the event itself; choose another name")
            if isinstance(each, tuple):
                for part in each:
                    check_known(part, self.object_sets, f"sets.{name}", "set")
                continue
            if each.of is not None:
                check_known(each.of, self.objects, f"sets.{name}.of", "collection")
            if each.within is not None:
                check_known(each.within, (*self.objects, *self.sets), f"sets.{name}.within", "set")
            if name not in self.object_sets:
                raise ValueError(f"sets.{name}.within: leads back to '{name}', or to a union; name a set of objects")
            around = self.object_sets[each.within].of if each.within is not None else None
            if None not in (each.of, around) and each.of != around:
                raise ValueError(
                    f"sets.{name}: is of '{each.of}', but lies within '{each.within}', a set of '{around}'"
                )
            if each.within is not None and not any(name in cut.objects for cut in self.cuts.values()):
                raise ValueError(
                    f"sets.{name}: no cut makes it, so it would be all of '{each.within}'; "
                    f"add a cut with 'objects: [{name}]', or take the set out"
                )
        return self

    @model_validator(mode="after")
    def _calibrations_are_possible(self) -> "Config":
        check_calibrations(self)
        return self

    @model_validator(mode="after")
    def _cuts_are_possible(self) -> "Config":
        made_by_function = self.event_function is not None
        for name, cut in self.cuts.items():
            for region in cut.regions or ():
                check_known(region, self.regions, f"cuts.{name}.regions", "region")
            for of in () if cut.on_events else cut.objects:
                if of in self.unions:
                    raise ValueError(
                        f"cuts.{name}.objects: '{of}' is a union; name its sets: [{', '.join(self.unions[of])}]"
                    )
                check_known(of, self.object_sets, f"cuts.{name}.objects", "set", also=("event",))
                collection = self.object_sets[of].of or ""
                known = self.variables_of(collection)
                if not made_by_function:
                    check_known(
                        cut.variable, known, f"cuts.{name}.variable: objects.{collection}.variables", "variable"
                    )
        thresholds, networks = self.thresholds.values(), self.observables.values()
        if not any([*(each.trainable for each in thresholds), *(each.trainable for each in networks)]):
            raise ValueError("cuts: no cut is trainable; set 'trainable: true' on at least one")
        return self

    @model_validator(mode="after")
    def _networks_are_possible(self) -> "Config":
        check_networks(self)
        return self

    def variables_of(self, collection: str) -> tuple[str, ...]:
        """The variables of the objects of a collection: those of the file, and corrections."""
        corrections = (name for name, each in self.corrections.items() if each.objects == collection)
        return (*self.objects[collection].variables, *corrections)

    @model_validator(mode="after")
    def _missing_momentum_is_there(self) -> "Config":
        missing = self.missing_momentum
        if missing is None:
            return self
        for name in (missing.pt, missing.phi):
            check_known(name, self.event_variables, "missing_momentum: event_variables", "variable")
        for name in missing.of:
            check_known(name, self.objects, "missing_momentum.of", "collection")
            for variable in ("pt", "phi"):
                check_known(variable, self.objects[name].variables, f"missing_momentum.of: {name}", "variable")
        for name, variation in self.variations.items():
            varied = variation.varied_columns
            twice = [each for each in (missing.pt, missing.phi) if each in varied]
            if twice and any(f"{of}.pt" in varied for of in missing.of):
                raise ValueError(f"variations.{name}: '{twice[0]}' follows the objects already; take it out here")
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> "Config":
        for name, correction in self.corrections.items():
            if correction.objects is not None:
                check_known(correction.objects, self.objects, f"corrections.{name}.objects", "collection")
        for name, variation in self.variations.items():
            self._check_variation(name, variation)
        for name, systematic in self.systematics.items():
            for process in systematic.processes or ():
                check_known(process, self.processes, f"systematics.{name}.processes", "process")
            for region in systematic.regions or ():
                check_known(region, self.regions, f"systematics.{name}.regions", "region")
            for direction, varied in zip(("up", "down"), systematic.variations, strict=True):
                if varied is not None:
                    check_known(varied, self.variations, f"systematics.{name}.{direction}", "variation")
        for process in (*self.measurement.signal, *self.measurement.free):
            where = "signal" if process in self.measurement.signal else "free"
            check_known(process, self.processes, f"measurement.{where}", "process")
        for process, shares in self.measurement.pseudodata.items():
            check_known(process, self.processes, "measurement.pseudodata", "process")
            for variation_name in shares:
                known = ("nominal", *self.variations)
                check_known(variation_name, known, f"measurement.pseudodata.{process}", "variation")
        return self

    def _check_variation(self, name: str, variation: Variation) -> None:
        where = f"variations.{name}"
        if name == "nominal":
            raise ValueError(f"{where}: 'nominal' is what is varied; choose another name")
        for process in variation.processes or ():
            check_known(process, self.processes, f"{where}.processes", "process")
        if variation.sample is not None:
            check_known(variation.sample, self.processes, f"{where}.sample", "process")
        for column in variation.varied_columns:
            collection, _, variable = column.rpartition(".")
            if collection:
                check_known(collection, self.objects, f"{where}: {column}", "collection")
                check_known(variable, self.objects[collection].variables, f"{where}: {column}", "variable")
        for factor in variation.weights:
            of, dot, rest = factor.partition(".")
            if dot:
                check_known(of, self.object_sets, f"{where}.weights.{factor}", "set")
                known = self.variables_of(self.object_sets[of].of or "")
                check_known(rest.rpartition(".")[2], known, f"{where}.weights.{factor}", "variable")

    @model_validator(mode="after")
    def _tables_have_processes(self) -> "Config":
        alternative = [f"{each.sample}__{name}" for name, each in self.variations.items() if each.sample is not None]
        for name in self.data.tables:
            check_known(name, (*self.processes, *alternative), "data.tables", "process")
        return self

    @model_validator(mode="after")
    def _everything_counts_once(self) -> "Config":
        check_different({name: process.title for name, process in self.processes.items()}, "processes")
        for (first, before), (second, after) in combinations(self.systematics.items(), 2):
            if before.title != after.title:
                continue
            processes = set(before.processes or self.processes) & set(after.processes or self.processes)
            regions = set(before.regions or self.regions) & set(after.regions or self.regions)
            if processes and regions:
                raise ValueError(
                    f"systematics.{second}: has the title of '{first}', so both are one parameter, but both say what "
                    f"it does to {', '.join(sorted(processes))} in {', '.join(sorted(regions))}; "
                    "give it another title, or other processes or regions"
                )
        return self
