"""The words of an analysis in Python: cuts, regions and uncertainties, as a YAML file says them (`pipeline.config`).

problem = Problem.from_arrays(
{"signal": signal, "background": background},
weight="weight",
cuts=[Cut("met", above=50, bounds=(0, 200))],
regions=[Region("SR", observable="mass", bins=np.linspace(100, 500, 11))],
signal="signal",
systematics=[Norm("lumi", 0.03)],
)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, SupportsFloat

from pipeline.config import Config, ConfigError
from pipeline.config.reading import checked

__all__ = ["Columns", "Cut", "Network", "Norm", "Region", "Uncertainty", "Weights", "config_of"]

Names = str | Sequence[str]
Number = SupportsFloat

KEEP = {"above": "above", "below": "below", "between": "inside", "outside": "outside"}
"""What a cut says here, and in a config."""


@dataclass(frozen=True)
class Cut:
    """A condition on a variable, strict, in single precision: `Cut("met", above=50, bounds=(0, 200))`.

    Attributes:
        variable: a column of the table, or a variable of the event function.
        above, below: the threshold: x > above, x < below.
        between, outside: a window of two thresholds.
        bounds: between which a threshold may be tuned, in its own unit; without them the cut stays where it is.
        bandwidth: width of the kernel that estimates the derivative, in the same unit; chosen from the events if None.
        step: a typical step of the optimiser; a fiftieth of the bounds if None. With neither, the threshold moves in
            the rank of the events, whatever its unit.
        absolute: cut on |x|.
        on: the sets of objects that the cut makes; `event` for a cut on events.
        regions: those in which a cut on events holds; all if None.
        name: of the threshold; that of the variable if None.
        unit, label: for tables and plots.
    """

    variable: str
    _: KW_ONLY
    above: Number | None = None
    below: Number | None = None
    between: tuple[Number, Number] | None = None
    outside: tuple[Number, Number] | None = None
    bounds: tuple[Number, Number] | None = None
    bandwidth: Number | None = None
    step: Number | None = None
    absolute: bool = False
    on: Names = "event"
    regions: Names | None = None
    name: str | None = None
    unit: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        """One kind of condition.

        Raises:
            ConfigError: none, or several.
        """
        if len(self._kinds()) != 1:
            raise ConfigError(f"Cut({self.variable!r}): give exactly one of above, below, between and outside")

    def _kinds(self) -> list[str]:
        return [kind for kind in KEEP if getattr(self, kind) is not None]

    @property
    def kind(self) -> str:
        """One of `KEEP`."""
        return self._kinds()[0]

    def section(self) -> dict[str, Any]:
        """As a YAML file says it."""
        where = getattr(self, self.kind)
        place = {"between": tuple(map(float, where))} if isinstance(where, Sequence) else {"threshold": float(where)}
        tuned = {"trainable": True, "bounds": tuple(map(float, self.bounds))} if self.bounds is not None else {}
        given = {
            "bandwidth": None if self.bandwidth is None else float(self.bandwidth),
            "step": None if self.step is None else float(self.step),
            "regions": _many(self.regions),
        }
        return {
            "objects": _many(self.on),
            "variable": self.variable,
            "keep": KEEP[self.kind],
            "absolute": self.absolute,
            "unit": self.unit,
            "label": self.label,
            **place,
            **tuned,
            **{key: value for key, value in given.items() if value is not None},
        }


@dataclass(frozen=True)
class Network:
    """A learned observable: a network that is trained through the exact analysis, `Network("score", ["met", "mass"])`.

    Attributes:
        name: of the observable.
        inputs: columns of the table, variables of the event function, numbers of members (`n_jet`), or, for the first
            members of a set, a mapping `{"objects": "jet", "variables": ["pt"], "number": 4}`.
        layers: neurons of each.
        signal: processes that cross-entropy tells from the others before training; none if empty.
        settings: further keys as in a YAML file: `learning_rate`, `weight_decay`, `seed`, ….
    """

    name: str
    inputs: Sequence[str | Mapping[str, Any]]
    _: KW_ONLY
    layers: Sequence[int] = (32, 32)
    signal: Names = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def section(self) -> dict[str, Any]:
        """As a YAML file says it."""
        pretrain = {"pretrain": {"signal": _many(self.signal)}} if self.signal else {}
        inputs = tuple(each if isinstance(each, str) else dict(each) for each in self.inputs)
        return {"network": {"layers": tuple(self.layers)}, "inputs": inputs, **pretrain, **self.settings}


@dataclass(frozen=True)
class Region:
    """Events that meet all requirements, in bins of an observable.

    Attributes:
        name: of the region.
        observable: a column of the table, or a variable of the event function.
        bins: edges, in the unit of the observable; neither under- nor overflow counts. Of a learned observable, how
            many: they hold equally many expected events at the start, and the outer ones are open.
        bounds: between which all edges are tuned, in the rank of the observable; without them they stay.
        require: numbers of members of sets, and values of variables: `{"jet": [4, ], "btag": 1}`.
        title, label: for plots.
    """

    name: str
    _: KW_ONLY
    observable: str
    bins: Iterable[Number] | int
    bounds: tuple[Number, Number] | None = None
    require: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    label: str = ""

    def section(self) -> dict[str, Any]:
        """As a YAML file says it."""
        tuned = {} if self.bounds is None else {"trainable": "edges", "bounds": tuple(map(float, self.bounds))}
        return {
            "observable": self.observable,
            "bins": {"number": self.bins, "place": "quantiles"}
            if isinstance(self.bins, int)
            else {"edges": tuple(float(edge) for edge in self.bins), **tuned},
            "require": dict(self.require),
            "title": self.title,
            "label": self.label,
        }


@dataclass(frozen=True)
class Norm:
    """An uncertainty of the yield: `Norm("lumi", 0.03)`, or `Norm("tune", up=0.2, down=-0.1, on="background")`.

    Attributes:
        name: of the parameter.
        size: relative, up and down alike.
        up, down: relative changes, where they differ.
        on: the processes that it acts on; all if None.
        regions: likewise.
    """

    name: str
    size: Number | None = None
    _: KW_ONLY
    up: Number | None = None
    down: Number | None = None
    on: Names | None = None
    regions: Names | None = None

    def sections(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002 (all uncertainties alike)
        """As a YAML file says it."""
        sizes = {
            name: float(value)
            for name, value in (("size", self.size), ("up", self.up), ("down", self.down))
            if value is not None
        }
        return {}, {"title": self.name, "type": "normalization", **sizes, **_where(self.on, self.regions)}


@dataclass(frozen=True)
class Weights:
    """An uncertainty of event weights: columns of factors on the weight, such as those of pile-up.

    Attributes:
        name: of the parameter.
        up, down: columns (or weights of the event function) that multiply the weight; without `down` mirrored.
        on: the processes that it acts on; all if None.
        regions: likewise.
        split: whether the yield is taken out of the templates, so that they are a normsys and a histosys (as cabinetry
            does it), or a histosys alone.
    """

    name: str
    _: KW_ONLY
    up: str
    down: str | None = None
    on: Names | None = None
    regions: Names | None = None
    split: bool = True

    def sections(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """As a YAML file says it."""
        columns = {"up": {"weights": {self.up: 1.0}}}
        if self.down is not None:
            columns["down"] = {"weights": {self.down: 1.0}}
        return _shapes(self, key, columns)


@dataclass(frozen=True)
class Columns:
    """An uncertainty of kinematics: other columns stand in the place of nominal ones, and the selection is made anew.

    Attributes:
        name: of the parameter.
        up, down: nominal columns and what replaces them, `{"mass": "mass_up"}`; without `down` mirrored.
        on: the processes that it acts on; all if None.
        regions: likewise.
        split: whether the yield is taken out of the templates, so that they are a normsys and a histosys (as cabinetry
            does it), or a histosys alone.
    """

    name: str
    _: KW_ONLY
    up: Mapping[str, str]
    down: Mapping[str, str] | None = None
    on: Names | None = None
    regions: Names | None = None
    split: bool = True

    def sections(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """As a YAML file says it."""
        columns = {"up": {"columns": dict(self.up)}}
        if self.down is not None:
            columns["down"] = {"columns": dict(self.down)}
        return _shapes(self, key, columns)


Uncertainty = Norm | Weights | Columns
"""One nuisance parameter. Several of one name are one parameter."""


def _shapes(
    uncertainty: Weights | Columns, key: str, columns: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    on = _where(uncertainty.on, None)
    kind = "norm_plus_shape" if uncertainty.split else "histosys"
    systematic = {"title": uncertainty.name, "type": kind, **{side: f"{key}_{side}" for side in columns}}
    variations = {f"{key}_{side}": content | on for side, content in columns.items()}
    return variations, systematic | _where(uncertainty.on, uncertainty.regions)


def _where(processes: Names | None, regions: Names | None) -> dict[str, tuple[str, ...]]:
    given = {"processes": _many(processes), "regions": _many(regions)}
    return {key: names for key, names in given.items() if names is not None}


def _many(names: Names | None) -> tuple[str, ...] | None:
    return None if names is None else (names,) if isinstance(names, str) else tuple(names)


def config_of(
    processes: Iterable[str],
    cuts: Sequence[Cut],
    regions: Sequence[Region],
    signal: Names,
    systematics: Sequence[Uncertainty] = (),
    free: Names = (),
    networks: Sequence[Network] = (),
    **sections: Any,
) -> Config:
    """The config that says the same as some cuts, regions and uncertainties.

    Args:
        processes: all of them.
        cuts: the cuts.
        regions: the regions.
        signal: the processes that the parameter of interest, `mu`, scales.
        systematics: the constrained nuisance parameters.
        free: processes with a free normalisation.
        networks: the learned observables.
        sections: further sections and keys as in a YAML file; an inner mapping completes what is said here.

    Raises:
        ConfigError: something named does not exist, or contradicts something else.
    """
    names = list(processes)
    content: dict[str, Any] = {
        "name": "analysis",
        "luminosity": 1.0,
        "data": {"set": "arrays", "location": "memory"},
        "cuts": dict(zip(_names_of(cuts), (cut.section() for cut in cuts), strict=True)),
        "regions": {region.name: region.section() for region in regions},
        "observables": {network.name: network.section() for network in networks},
        "processes": {name: {"title": name} for name in names},
        "variations": {},
        "systematics": {},
        "measurement": {
            "name": "measurement",
            "poi": "mu",
            "signal": _many(signal),
            "free": {name: f"{name}_norm" for name in _many(free) or ()},
        },
    }
    for number, each in enumerate(systematics):
        key = each.name if each.name not in content["systematics"] else f"{each.name}_{number}"
        variations, systematic = each.sections(key)
        content["variations"] |= variations
        content["systematics"][key] = systematic
    for key, value in sections.items():
        content[key] = content[key] | dict(value) if isinstance(content.get(key), dict) else value
    return checked(content)


def _names_of(cuts: Sequence[Cut]) -> list[str]:
    """Of the cuts; two on one variable say which side they are."""
    number = Counter(cut.name or cut.variable for cut in cuts)
    names = [cut.name or (cut.variable if number[cut.variable] == 1 else f"{cut.variable}_{cut.kind}") for cut in cuts]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ConfigError(f"cuts: two are called '{twice[0]}'; give one of them another 'name'")
    return names
