"""The YAML a user writes: every number of a run, checked before anything heavy is imported.

Models are frozen, unknown keys are errors, and defaults live here alone. A file may start from another one
(`extends: agc.yaml`); mappings are merged key by key, everything else is replaced, and `null` takes out what the other
file says (`processes: {single_top_tW: null}`).
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.corrections import CorrectionError, affine_weight

__all__ = [
    "Bins",
    "Config",
    "ConfigError",
    "Cut",
    "Data",
    "Objective",
    "Optimiser",
    "Region",
    "Systematic",
    "Threshold",
    "Validation",
    "load_config",
    "parse_settings",
]

PATHS = (("data", "manifest"), ("data", "cache"), ("variations", "corrections", "file"))
"""Keys whose values are files."""

CutObject = Literal["electron", "muon", "jet", "bjet", "event"]


class ConfigError(ValueError):
    """One sentence a user can act on: file, key, what is wrong, what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Data(_Model):
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


class Requirement(_Model):
    """A fixed requirement on an object, applied when the file is read; never trainable."""

    variable: str
    equal: float | None = None
    bits: int | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> "Requirement":
        if (self.equal is None) == (self.bits is None):
            raise ValueError(
                "give exactly one of 'equal' (a value) and 'bits' (a bit mask of which one bit must be set)"
            )
        return self


class Collection(_Model):
    """Where the objects of one kind stand in the file: a NanoAOD collection and the branches behind our names."""

    branch: str
    variables: dict[str, str]
    require: tuple[Requirement, ...] = ()


class Objects(_Model):
    """The three kinds of objects of the analysis."""

    electron: Collection
    muon: Collection
    jet: Collection


class Threshold(_Model):
    """A number of the analysis that may be tuned: a cut, or an edge of a bin.

    `bandwidth` is the width, in the threshold's own unit, of the kernel that estimates the flux through the boundary;
    it is annealed to `bandwidth_end`. Without one, it is chosen from the events (`pipeline.bandwidths`). `step` is the
    size of a typical optimisation step.
    """

    threshold: float
    unit: str = ""
    label: str = ""
    trainable: bool = False
    bounds: tuple[float, float] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    bandwidth_end: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _can_move(self) -> "Threshold":
        if self.trainable and (self.bounds is None or self.step is None):
            raise ValueError("a trainable cut needs 'bounds' and 'step'")
        if self.bandwidth_end is not None and self.bandwidth is None:
            raise ValueError("'bandwidth_end' needs a 'bandwidth' to start from")
        if self.bounds is not None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"the lower bound {low} is not below the upper bound {high}")
            if not low <= self.threshold <= high:
                raise ValueError(f"threshold {self.threshold} lies outside its bounds [{low}, {high}]")
        return self

    @property
    def widest_bandwidth(self) -> float:
        """That any kernel of it will have: the given one, or an eighth of the range."""
        low, high = self.bounds or (0.0, 0.0)
        return (high - low) / 8 if self.bandwidth is None else self.bandwidth


class Cut(Threshold):
    """One threshold: `x > threshold` (keep: above) or `x < threshold` (keep: below), strict, in float32.

    `objects` are what it cuts on; `bjet` means: a selected jet is called b-tagged if it passes.
    """

    objects: tuple[CutObject, ...]
    variable: str
    keep: Literal["above", "below"]
    absolute: bool = False
    regions: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Cut":
        if len(set(self.objects) & {"bjet", "event"}) and len(self.objects) > 1:
            raise ValueError("'bjet' and 'event' cannot be combined with other objects in one cut")
        if self.regions is not None and self.objects != ("event",):
            raise ValueError("'regions' is for event-level cuts: an object is selected once, for all regions")
        return self


class Count(_Model):
    """How many objects, both ends included; no maximum when `max` is left out."""

    min: Annotated[int, Field(ge=0)] = 0
    max: int | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> "Count":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}")
        return self

    def overlaps(self, other: "Count") -> bool:
        """Whether some number fulfils both."""
        highest = min(math.inf if count.max is None else count.max for count in (self, other))
        return max(self.min, other.min) <= highest


class Bins(_Model):
    """Bins of an observable; neither under- nor overflow is used, as in the AGC.

    Either equal bins from `start` to `stop`, or explicit `edges`. With `trainable: range` the first and the last edge
    move, called `<region>.start` and `<region>.stop`, and the others keep their places between them; with
    `trainable: edges` all move, `<region>.edge_0` and so on. No bin gets narrower than `min_width`.
    """

    start: float | None = None
    stop: float | None = None
    number: Annotated[int, Field(ge=1)] | None = None
    edges: tuple[float, ...] | None = None
    trainable: Literal["range", "edges"] | None = None
    min_width: Annotated[float, Field(gt=0)] | None = None
    bounds: tuple[float, float] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    bandwidth_end: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _rising(self) -> "Bins":
        equal = [value is not None for value in (self.start, self.stop, self.number)]
        if self.edges is None and not all(equal):
            raise ValueError("give 'start', 'stop' and 'number' for equal bins, or a list of 'edges'")
        if self.edges is not None and any(equal):
            raise ValueError("give either 'start', 'stop' and 'number', or 'edges', not both")
        if self.start is not None and self.stop is not None and not self.start < self.stop:
            raise ValueError(f"start {self.start} is not below stop {self.stop}")
        if self.edges is not None and (len(self.edges) < 2 or any(a >= b for a, b in pairwise(self.edges))):
            raise ValueError(f"edges {list(self.edges)} do not rise; a bin needs a lower and a higher edge")
        return self

    @model_validator(mode="after")
    def _can_move(self) -> "Bins":
        if self.trainable is None:
            return self
        if self.bounds is None or self.step is None or self.min_width is None:
            raise ValueError("trainable bins need 'bounds', 'step' and 'min_width'")
        narrowest = min(b - a for a, b in pairwise(self.places))
        if narrowest < self.min_width:
            raise ValueError(f"a bin of width {narrowest:g} is narrower than min_width {self.min_width:g}")
        if self.bounds[0] > self.places[0] or self.bounds[1] < self.places[-1]:
            raise ValueError(f"the edges reach from {self.places[0]:g} to {self.places[-1]:g}, beyond their bounds")
        return self

    @property
    def places(self) -> tuple[float, ...]:
        """Where the edges are at the start."""
        match self.start, self.stop, self.number, self.edges:
            case float(start), float(stop), int(number), None:
                width = (stop - start) / number
                return (*(start + n * width for n in range(number)), stop)
            case _, _, _, edges:
                return edges or ()

    @property
    def least_distance(self) -> float:
        """Of neighbouring edges that move, so that no bin gets narrower than `min_width`."""
        bins = len(self.places) - 1 if self.trainable == "range" else 1
        return bins * (self.min_width or 0.0)

    def thresholds(self, region: str, label: str) -> dict[str, Threshold]:
        """The edges that may move, by name."""
        if self.trainable is None:
            return {}
        if self.trainable == "range":
            moving = {"start": self.places[0], "stop": self.places[-1]}
        else:
            moving = {f"edge_{number}": place for number, place in enumerate(self.places)}
        return {
            f"{region}.{name}": Threshold(
                threshold=place,
                label=f"{label or region}, {name.replace('_', ' ')}",
                trainable=True,
                bounds=self.bounds,
                bandwidth=self.bandwidth,
                bandwidth_end=self.bandwidth_end,
                step=self.step,
            )
            for name, place in moving.items()
        }


class Region(_Model):
    """A set of events and the observable that is histogrammed in it. Regions must not overlap.

    `observable` is an event-level variable, as in a cut on events: one that the selected jets make
    (`pipeline.observables`: ht, trijet_mass, …), or a branch of the file with one value per event.
    """

    jets: Count
    btags: Count
    observable: str
    bins: Bins
    title: str = ""
    label: str = ""


class Process(_Model):
    """One sample of the model. `title` is its name in the workspace and in plots."""

    title: str
    color: str = ""


class Systematic(_Model):
    """One constrained nuisance parameter, in cabinetry's terms (agc-spec §8.1).

    `normalization`: a fixed relative size. `norm_plus_shape`: templates of varied events, named in `up` and `down`;
    without `down` the up variation is mirrored about the nominal template (normalise first, then mirror).
    """

    title: str
    type: Literal["normalization", "norm_plus_shape"]
    processes: tuple[str, ...] | None = None
    up: str | None = None
    down: str | None = None
    size: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Systematic":
        if self.type == "normalization" and self.size is None:
            raise ValueError("a normalization systematic needs 'size'")
        if self.type == "norm_plus_shape" and self.up is None:
            raise ValueError("a norm_plus_shape systematic needs 'up', the name of a variation")
        return self


class CorrectedWeight(_Model):
    """A weight variation from a correction, with values for all inputs but the pt.

    That pt is the one of the selected jet of rank `jet`; the weight of a whole `process` depends on none.
    """

    jet: Annotated[int, Field(ge=0)] | None = None
    process: str | None = None
    inputs: dict[str, str | int | float]

    @model_validator(mode="after")
    def _one_target(self) -> "CorrectedWeight":
        if (self.jet is None) == (self.process is None):
            raise ValueError("give exactly one of 'jet' (its rank) and 'process'")
        return self


class Corrections(_Model):
    """Weight variations that a correctionlib file defines; they join `jet_weight_slope` and `process_weight`.

    With the AGC's file: `btag_var_0_up: {jet: 0, inputs: {syst_name: btag_var, direction: up}}` under `weights`.
    """

    file: Path
    correction: str
    weights: dict[str, CorrectedWeight]


class Variations(_Model):
    """How varied templates are made (agc-spec §7). Names are those that `systematics` refers to.

    `corrections` are read once, and stand in a loaded config as what they say: slopes and factors.
    """

    jet_pt_scale: dict[str, float] = {}
    jet_pt_resolution: dict[str, float] = {}
    resolution_branch: str = "resfac"
    jet_weight_slope: dict[str, tuple[Annotated[int, Field(ge=0)], float]] = {}
    process_weight: dict[str, tuple[str, float]] = {}
    samples: dict[str, str] = {}
    corrections: Corrections | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All variations, kinematic ones first."""
        return (
            *self.jet_pt_scale,
            *self.jet_pt_resolution,
            *self.jet_weight_slope,
            *self.process_weight,
            *self.samples,
        )


class Measurement(_Model):
    """Parameter of interest and what it scales.

    `poi` scales the processes in `signal`; `free` maps further processes to the names of free norm factors. Bins with
    fewer effective simulated background events, (Σw)²/Σw², than `minimum_effective_events`, or with fewer expected
    background events than `minimum_background`, are merged with their neighbours; 0 leaves all bins as they are.
    `data` are what the workspace of a run calls observed: what the model expects (asimov), or templates mixed as
    `pseudodata` says, {process: {variation: share}}. What is tuned is always what is expected.
    """

    name: str
    poi: str
    signal: tuple[str, ...]
    free: dict[str, str] = {}
    bounds: tuple[float, float] = (0.0, 10.0)
    minimum_effective_events: Annotated[float, Field(ge=0)] = 10.0
    minimum_background: Annotated[float, Field(ge=0)] = 0.0
    data: Literal["asimov", "pseudodata"] = "asimov"
    pseudodata: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _data_are_defined(self) -> "Measurement":
        if self.data == "pseudodata" and not self.pseudodata:
            raise ValueError(
                "data: pseudodata needs 'pseudodata', which says what they are made of, "
                "such as {ttbar: {ME_var: 0.5, PS_var: 0.5}}"
            )
        return self


class Objective(_Model):
    """What is maximised (a significance) or minimised (an uncertainty, a limit).

    `method` and `confidence_level` are those of the upper limit.
    """

    name: Literal[
        "discovery_significance", "signal_strength_uncertainty", "expected_upper_limit", "counting_significance"
    ] = "discovery_significance"
    method: Literal["CLs", "CLs+b"] = "CLs"
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Optimiser(_Model):
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


class Validation(_Model):
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


class Config(_Model):
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
        """The same run with kernels where it had none: each as wide as chosen at the start, half as wide at the end.

        Args:
            chosen: by threshold; the moving edges of a region share one.
        """

        def widths(name: str) -> dict[str, float]:
            return {"bandwidth": chosen[name], "bandwidth_end": chosen[name] / 2}

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
        return self.model_copy(update={"variations": _with_corrections(self.variations, self.variations.corrections)})

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


def _with_corrections(variations: Variations, corrections: Corrections) -> Variations:
    """The same variations with the weights of a correctionlib file as slopes and factors."""
    slopes, factors = dict(variations.jet_weight_slope), dict(variations.process_weight)
    for name, weight in corrections.weights.items():
        where = f"variations.corrections.weights.{name}"
        if name in variations.names:
            raise ValueError(f"{where}: the variation '{name}' is defined twice; remove one")
        try:
            constant, slope = affine_weight(corrections.file, corrections.correction, weight.inputs)
        except CorrectionError as error:
            raise ValueError(f"{where}: {error}") from None
        found = f"{where}: correction '{corrections.correction}' gives {constant:g} + {slope:g}·pt"
        if weight.process is not None:
            if slope != 0:
                raise ValueError(
                    f"{found}, but the weight of a process cannot depend on a pt; say which jet's with 'jet'"
                )
            factors[name] = (weight.process, constant)
        elif weight.jet is not None:
            if constant != 1:
                raise ValueError(f"{found}, but the weight by a jet must be 1 + slope·pt; choose another correction")
            slopes[name] = (weight.jet, slope)
    return variations.model_copy(update={"jet_weight_slope": slopes, "process_weight": factors, "corrections": None})


def _known(name: str, known: Iterable[str], where: str, what: str) -> None:
    names = list(known)
    if name not in names:
        raise ValueError(f"{where}: no {what} is called '{name}'; there are: {', '.join(names) or 'none'}")


def _different(titles: Mapping[str, str], where: str) -> None:
    """Titles are names in the workspace."""
    for (_, one), (name, other) in combinations(titles.items(), 2):
        if one == other:
            raise ValueError(f"{where}.{name}.title: '{other}' is the title of another one already")


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and check a configuration; paths in it count from the folder of the file that states them.

    Raises:
        ConfigError: with the file, the dotted key, what was found and what is allowed.
    """
    raw = _merge(_read(path), overrides or {})
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from None


def parse_settings(settings: Sequence[str]) -> dict[str, object]:
    """`a.b=1` to {"a": {"b": 1}}, as `load_config` takes it; the value is read as YAML.

    Raises:
        ConfigError: a setting is no KEY=VALUE, is set twice, or is not YAML.
    """
    overrides: dict[str, object] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, for example --set optimiser.steps=100")
        *parents, last = key.split(".")
        place: dict[str, object] = overrides
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {parent} is set twice")
            place = inner
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", error)
            raise ConfigError(f"--set {setting}: not valid YAML ({problem}); quote or mend the value") from None
    return overrides


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'extends' leads back to this file; remove the circle")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*.yaml")], n=1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path given to --config"
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    for keys in PATHS:
        _make_absolute(raw, keys, path.parent)
    base = raw.pop("extends", None)
    return raw if base is None else _merge(_read(path.parent / base, (*seen, path.resolve())), raw)


def _make_absolute(raw: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Let a path, if there is one behind these keys, count from a folder."""
    first, *rest = keys
    value = raw.get(first)
    if rest and isinstance(value, dict):
        _make_absolute(value, rest, folder)
    elif not rest and isinstance(value, str):
        raw[first] = str((folder / value).resolve())


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if value is None and old is not None:
            del merged[key]
            continue
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _sentence(error: ValidationError) -> str:
    """The first problem as `dotted.key: what is wrong`, with the nearest known key for a misspelt one."""
    problems = error.errors()
    # A misspelt key often leaves the right one missing: name the misspelt one.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    nearest = difflib.get_close_matches(str(first["loc"][-1]), _keys_beside(first["loc"]), n=1, cutoff=0.5)
    return f"{where}: unknown key; " + (f"did you mean '{nearest[0]}'?" if nearest else "remove it")


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed where the unknown one stands, found by walking down the models."""
    model: Any = Config
    for part in location[:-1]:
        fields = getattr(model, "model_fields", {})
        annotation = fields[part].annotation if part in fields else model
        arguments = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = arguments[0] if arguments and part in fields else annotation
    return list(getattr(model, "model_fields", {}))
