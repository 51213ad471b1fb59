"""What a run looks at: objects and the cuts on them, regions and their bins."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.model import Model

__all__ = ["Bins", "Collection", "Count", "Cut", "Objects", "Region", "Requirement", "Threshold"]

CutObject = Literal["electron", "muon", "jet", "bjet", "event"]


class Requirement(Model):
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


class Collection(Model):
    """Where the objects of one kind stand in the file: a NanoAOD collection and the branches behind our names."""

    branch: str
    variables: dict[str, str]
    require: tuple[Requirement, ...] = ()


class Objects(Model):
    """The three kinds of objects of the analysis."""

    electron: Collection
    muon: Collection
    jet: Collection


class Threshold(Model):
    """A number of the analysis that may be tuned: a cut, or an edge of a bin.

    `bandwidth` is the width, in the threshold's own unit, of the kernel that estimates the flux through the boundary;
    it is annealed to `bandwidth_end`. Without one, it is chosen from the events (`pipeline.tuning.bandwidths`). `step` is the
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
        """That any kernel of it will have: the given one, or a quarter of the range."""
        low, high = self.bounds or (0.0, 0.0)
        return (high - low) / 4 if self.bandwidth is None else self.bandwidth

    def at_bound(self, value: float) -> str | None:
        """Which bound a value of it lies on, `lower` or `upper`, if it is one that moves; None for neither."""
        if self.bounds is None or not self.trainable:
            return None
        tolerance = 1e-6 * (self.bounds[1] - self.bounds[0])
        sides = zip(("lower", "upper"), self.bounds, strict=True)
        return next((side for side, bound in sides if abs(value - bound) <= tolerance), None)


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


class Count(Model):
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


class Bins(Model):
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


class Region(Model):
    """A set of events and the observable that is histogrammed in it. Regions must not overlap.

    `observable` is an event-level variable, as in a cut on events: one that the selected jets make
    (`pipeline.analyses.observables`: ht, trijet_mass, …), or a branch of the file with one value per event.
    """

    jets: Count
    btags: Count
    observable: str
    bins: Bins
    title: str = ""
    label: str = ""
