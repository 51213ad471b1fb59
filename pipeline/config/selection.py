"""What a run looks at: collections of objects, the sets that cuts make of them, regions and their bins."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.config.model import Model

__all__ = [
    "SET",
    "UNION",
    "Bins",
    "Collection",
    "Cut",
    "MissingMomentum",
    "Movable",
    "ObjectSet",
    "ObjectSetOrUnion",
    "Range",
    "Ranges",
    "Region",
    "Requirement",
    "Threshold",
]

STEPS_IN_BOUNDS = 50.0
"""A typical step of an optimiser is this part of the range of a threshold, where the config does not say."""


class MissingMomentum(Model):
    """Missing transverse momentum that follows kinematic variations of objects (a Type-1 correction).

    `pt` and `phi` are variables of the events. Where a variation changes the pt of objects of the collections `of`, the
    vector takes the opposite of what those above `above` gain in it. Objects that no threshold can select, and those
    that the requirements of the collection refuse, are not read, so they do not count: looser bounds take more along.
    """

    pt: str
    phi: str
    of: Annotated[tuple[str, ...], Field(min_length=1)]
    above: float = 15.0


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
    variables: Annotated[dict[str, str], Field(min_length=1)]
    require: tuple[Requirement, ...] = ()


class ObjectSet(Model):
    """The objects of a collection (`of`) that pass the cuts on the set; members of the set `within` which it lies.

    `of` may be left out where `within` says it.
    """

    of: str | None = None
    within: str | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> "ObjectSet":
        if self.of is None and self.within is None:
            raise ValueError("say 'of' which collection it is, or 'within' which set")
        return self


def _kind(raw: Any) -> str:
    return UNION if isinstance(raw, list | tuple) else SET


SET, UNION = "(set)", "(union)"
"""Which of two kinds an entry of `sets` is; errors have it in their place, where nobody wrote it."""

ObjectSetOrUnion = Annotated[
    Annotated[ObjectSet, Tag(SET)] | Annotated[tuple[str, ...], Tag(UNION)], Discriminator(_kind)
]
"""`{of: jet, within: jet}` is a set, `[electron, muon]` a union."""


class Movable(Model):
    """How a threshold may be tuned.

    `bandwidth` is the width, in the threshold's own unit, of the kernel that estimates the flux through the boundary;
    it is annealed to `bandwidth_end`. Without one, it is chosen from the events (`pipeline.bandwidths`). `step`
    is the size of a typical optimisation step; without one, it is a fiftieth of the bounds. Where neither is given, the
    threshold moves in the rank of the events that it divides (`pipeline.scales`), whatever its unit.
    """

    unit: str = ""
    label: str = ""
    trainable: bool = False
    bounds: tuple[float, float] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    bandwidth_end: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _can_move(self) -> "Movable":
        if self.trainable and self.bounds is None:
            raise ValueError("what is trainable needs 'bounds'")
        if self.bandwidth_end is not None and self.bandwidth is None:
            raise ValueError("'bandwidth_end' needs a 'bandwidth' to start from")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"the lower bound {self.bounds[0]} is not below the upper bound {self.bounds[1]}")
        return self

    @property
    def typical_step(self) -> float:
        """The given one, or a fiftieth of the range."""
        low, high = self.bounds or (0.0, STEPS_IN_BOUNDS)
        return (high - low) / STEPS_IN_BOUNDS if self.step is None else self.step

    @property
    def widest_bandwidth(self) -> float:
        """That any kernel of it will have: the given one, or a quarter of the range."""
        low, high = self.bounds or (0.0, 0.0)
        return (high - low) / 4 if self.bandwidth is None else self.bandwidth


class Threshold(Movable):
    """A number of the analysis that may be tuned: that of a cut, or an edge of a bin."""

    threshold: float

    @model_validator(mode="after")
    def _within_bounds(self) -> "Threshold":
        if self.bounds is not None and not self.bounds[0] <= self.threshold <= self.bounds[1]:
            low, high = self.bounds
            raise ValueError(f"threshold {self.threshold} lies outside its bounds [{low}, {high}]")
        return self

    def at_bound(self, value: float) -> str | None:
        """Which bound a value of a trainable threshold is at, if any: `lower` or `upper`."""
        if self.bounds is None or not self.trainable:
            return None
        tolerance = 1e-6 * (self.bounds[1] - self.bounds[0])
        sides = zip(("lower", "upper"), self.bounds, strict=True)
        return next((side for side, bound in sides if abs(value - bound) <= tolerance), None)


class Cut(Movable):
    """A condition on a variable, strict, in float32.

    `objects` are the sets that it makes, or `[event]`. `keep: above` and `below` have one `threshold`: x > threshold,
    x < threshold. `inside` and `outside` are windows `between` two of them, called `<cut>.low` and `<cut>.high`. A cut
    on events may hold in some `regions` only.
    """

    objects: Annotated[tuple[str, ...], Field(min_length=1)]
    variable: str
    keep: Literal["above", "below", "inside", "outside"]
    threshold: float | None = None
    between: tuple[float, float] | None = None
    absolute: bool = False
    regions: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Cut":
        if self.on_events and len(self.objects) > 1:
            raise ValueError("'event' cannot be combined with sets of objects in one cut")
        if self.regions is not None and not self.on_events:
            raise ValueError(
                "'regions' is for cuts on events: an object is selected once, for all regions; define another set of "
                "such objects, and require it in these regions"
            )
        window = self.keep in ("inside", "outside")
        if window and (self.between is None or self.threshold is not None):
            raise ValueError(f"keep: {self.keep} needs 'between: [low, high]' in the place of a threshold")
        if not window and (self.threshold is None or self.between is not None):
            raise ValueError(f"keep: {self.keep} needs a 'threshold'; a window says keep: inside, or outside")
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError(f"between: {self.between[0]} is not below {self.between[1]}")
        self.thresholds("threshold")  # they check their bounds
        return self

    @property
    def places(self) -> tuple[float, ...]:
        """Where its thresholds are."""
        return self.between or ((self.threshold,) if self.threshold is not None else ())

    @property
    def on_events(self) -> bool:
        """Whether it is a cut on events."""
        return "event" in self.objects

    def thresholds(self, name: str) -> dict[str, Threshold]:
        """Its thresholds, by the names that they have if the cut has this one."""
        places = (
            {name: self.threshold}
            if self.between is None
            else dict(zip((f"{name}.low", f"{name}.high"), self.between, strict=True))
        )
        common = {key: getattr(self, key) for key in Movable.model_fields}
        return {
            key: Threshold(**common | {"threshold": place, "label": self._label(key, name)})
            for key, place in places.items()
            if place is not None
        }

    def _label(self, key: str, name: str) -> str:
        side = key.removeprefix(name).removeprefix(".")
        return f"{self.label or name}, {side}" if side else self.label


def _range(raw: Any) -> Any:
    """`n`: exactly n; `[n]` or `[n, ]`: at least n; `[n, m]`: from n to m."""
    match raw:
        case bool():
            return raw
        case int() | float():
            return {"min": raw, "max": raw}
        case [low]:
            return {"min": low}
        case [low, high]:
            return {"min": low, "max": high}
        case list() | str() | tuple():
            raise ValueError(f"{raw!r} is no range: give n (exactly), [n, ] (at least) or [n, m] (from, to)")
    return raw


class Bounds(Model):
    """A range of numbers, both ends included; no end where it is left out."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> "Bounds":
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max:g} is below min {self.min:g}")
        return self

    def overlaps(self, other: "Bounds") -> bool:
        """Whether some number lies in both."""
        lows = [each.min for each in (self, other) if each.min is not None]
        highs = [each.max for each in (self, other) if each.max is not None]
        return not lows or not highs or max(lows) <= min(highs)


Range = Annotated[Bounds, BeforeValidator(_range)]
"""How many members a set has, or what a variable is: `1`, `[4, ]`, `[1, 2]`."""


def _ranges(value: Any) -> Any:
    if isinstance(value, list | str):
        raise ValueError(
            "takes ranges of variables, {met: [50, ], HLT_IsoMu24: 1}; formulas of branches, such as "
            "[HLT_IsoMu24 or HLT_Mu50, Flag_goodVertices], belong in data.require"
        )
    return value


Ranges = Annotated[dict[str, Range], BeforeValidator(_ranges)]
"""By the name of the set or variable."""


class Bins(Model):
    """Bins of an observable; neither under- nor overflow is used, as in the AGC, but with `overflow: true`.

    Either equal bins from `start` to `stop`, or explicit `edges`. With `trainable: range` the first and the last edge
    move, called `<region>.start` and `<region>.stop`, and the others keep their places between them; with
    `trainable: edges` all move, `<region>.edge_0` and so on. No bin gets narrower than `min_width`, where it is given.
    Of a learned observable, `number` bins may have their `place: quantiles`: equally many expected events in each at
    the start.
    """

    start: float | None = None
    stop: float | None = None
    number: Annotated[int, Field(ge=1)] | None = None
    edges: tuple[float, ...] | None = None
    place: Literal["quantiles"] | None = None
    overflow: bool = False
    trainable: Literal["range", "edges"] | None = None
    min_width: Annotated[float, Field(gt=0)] | None = None
    bounds: tuple[float, float] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    bandwidth_end: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _rising(self) -> "Bins":
        equal = [value is not None for value in (self.start, self.stop, self.number)]
        if self.place is not None:
            if equal != [False, False, True] or self.edges is not None or self.trainable is not None:
                raise ValueError("place: quantiles needs a 'number' of bins, and nothing else that says where they are")
            return self
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
        if self.bounds is None:
            raise ValueError("trainable bins need 'bounds'")
        narrowest = min(b - a for a, b in pairwise(self.places))
        if self.min_width is not None and narrowest < self.min_width:
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
            case _, _, int(number), None if self.place is not None:
                return tuple(float(n) for n in range(number + 1))  # until the events say where
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
        given = {key: getattr(self, key) for key in ("bounds", "bandwidth", "bandwidth_end", "step")}
        common = {key: value for key, value in given.items() if value is not None}
        return {
            f"{region}.{name}": Threshold(
                threshold=place, label=f"{label or region}, {name.replace('_', ' ')}", trainable=True, **common
            )
            for name, place in moving.items()
        }


class Region(Model):
    """The events that meet all requirements, and the observable that is histogrammed in them.

    `require` says how many members sets and unions have, and what variables of the events are (`{jet: [4, ], btag: 1}`,
    `{opposite_sign: 1}`); the requirements of the config hold in every region. `observable` is a variable of the
    events: one that the event function makes, a number of members (`n_jet`), or a branch of the file with one value per
    event.
    """

    require: Ranges = {}
    observable: str
    bins: Bins
    title: str = ""
    label: str = ""
