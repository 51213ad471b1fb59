"""What a template fit is made of: histograms by region and process, read, checked, and put side by side."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, SupportsFloat

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64
from numpy.typing import NDArray
from scipy.linalg import block_diag

from pipeline.config import Systematic
from pipeline.errors import InputError
from pipeline.histograms import Axis, Content, content
from pipeline.inference.measurement import Channel, Nuisance
from pipeline.vocabulary import Norm

__all__ = [
    "Histograms",
    "Layout",
    "Names",
    "Shape",
    "check_known",
    "check_variances",
    "places",
    "read",
    "several",
    "shared_axis",
    "subset",
]

Names = str | Sequence[str]
Histograms = Mapping[str, Mapping[str, Any]]
"""By region and process; what a histogram may be says `pipeline.histograms.content`."""
Contents = Mapping[tuple[str, str], Content]
"""The same, read."""
Table = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """An uncertainty that has varied histograms: `Shape("scale", up={"SR": {"background": h}})`.

    Attributes:
        name: of the parameter.
        up, down: by region and process; it acts where there is one. Without `down` mirrored.
        split: whether the yield is taken out of the templates, so that they are a normsys and a histosys (as cabinetry
            does it), or a histosys alone.
    """

    name: str
    _: KW_ONLY
    up: Histograms
    down: Histograms | None = None
    split: bool = True


@dataclass(frozen=True, eq=False)
class Layout:
    """Where things stand on the joint axes of the templates: processes, and the bins of all regions side by side."""

    axes: Mapping[str, Axis]
    processes: tuple[str, ...]

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """Of the likelihood, one for each region."""
        lengths = [len(axis.edges) - 1 for axis in self.axes.values()]
        offsets = np.cumsum([0, *lengths]).tolist()
        return tuple(Channel(*each) for each in zip(self.axes, lengths, offsets[:-1], strict=True))

    def templates(self, nominal: Contents, shapes: Sequence[Shape]) -> dict[str, Table]:
        """All templates by name, the nominal one first; where a shape does not act it is the nominal one."""
        start = self._filled(self._empty, {place: each.values for place, each in self._checked("nominal", nominal)})
        tables = {"nominal": start}
        for shape in shapes:
            for side, given in (("up", shape.up), ("down", shape.down)):
                name = f"{shape.name}_{side}"
                if given is None:
                    continue
                if name in tables:
                    raise InputError(f"systematics: two shapes are called '{shape.name}'; make them one.")
                varied = dict(self._checked(name, read(name, given)))
                for region, process in varied.keys() - nominal.keys():
                    raise InputError(
                        f"{name}: '{process}' has no nominal histogram in '{region}'; give one, or no varied."
                    )
                tables[name] = self._filled(start, {place: each.values for place, each in varied.items()})
        return tables

    def variances(self, nominal: Contents) -> Float64[Array, "processes bins"]:
        """Of the nominal templates; 0 where they have none."""
        known = {place: each.variances for place, each in nominal.items() if each.variances is not None}
        return jnp.asarray(self._filled(self._empty, known))

    def counts(self, data: Mapping[str, Any]) -> Float64[np.ndarray, " bins"]:
        """Of the data."""
        for region in self.axes:
            check_known(region, data, "data", "histogram")
        contents = {(region, ""): content(histogram, f"data, {region}") for region, histogram in data.items()}
        checked = {region: each.values for (region, _), each in self._checked("data", contents)}
        return np.concatenate([checked[region] for region in self.axes])

    def nuisances(self, systematics: Sequence[Norm | Shape], variations: Sequence[str]) -> tuple[Nuisance, ...]:
        """The constrained parameters; `variations` are the names of the templates, in their order."""
        made = [
            nuisance
            for each in systematics
            for nuisance in (self._norm(each) if isinstance(each, Norm) else self._shape(each, variations))
        ]
        places = [(n.name, p, c.name) for n in made for p in n.processes for c in self.channels if n.acts_on(p, c)]
        for name, process, region in (place for place, times in Counter(places).items() if times > 1):
            raise InputError(f"systematics: two called '{name}' act on '{self.processes[process]}' in '{region}'.")
        return tuple(made)

    def _norm(self, norm: Norm) -> list[Nuisance]:
        """A change of yields; the schema of YAML files knows what is possible."""
        stated = Systematic(**norm.sections("")[1])
        for region in stated.regions or ():
            check_known(region, self.axes, norm.name, "region")
        on = several(stated.processes or self.processes, self.processes, norm.name)
        places = tuple(self.processes.index(process) for process in on)
        return [Nuisance(norm.name, places, sizes=stated.sizes, channels=stated.regions)]

    def _shape(self, shape: Shape, variations: Sequence[str]) -> list[Nuisance]:
        """One for each process: each has its own regions."""
        up, down = ({(r, p) for r, of in side.items() for p in of} for side in (shape.up, shape.down or shape.up))
        if up != down:
            raise InputError(f"{shape.name}: up and down have other regions or processes; give both for each.")
        rows = (
            variations.index(f"{shape.name}_up"),
            None if shape.down is None else variations.index(f"{shape.name}_down"),
        )
        on = {process: tuple(region for region in self.axes if (region, process) in up) for process in self.processes}
        return [
            Nuisance(shape.name, (number,), *rows, channels=on[process], split=shape.split)
            for number, process in enumerate(self.processes)
            if on[process]
        ]

    @property
    def _empty(self) -> Table:
        return np.zeros((len(self.processes), sum(channel.bins for channel in self.channels)))

    def _filled(self, start: Table, values: Mapping[tuple[str, str], Table]) -> Table:
        table, channels = start.copy(), {channel.name: channel for channel in self.channels}
        for (region, process), found in values.items():
            first = channels[region].offset
            table[self.processes.index(process), first : first + channels[region].bins] = found
        return table

    def _checked(self, what: str, contents: Contents) -> Iterator[tuple[tuple[str, str], Content]]:
        for (region, process), found in contents.items():
            check_known(region, self.axes, what, "region")
            if not _same(found.axis.edges, self.axes[region].edges):
                raise InputError(
                    f"{what}, {region}{process and ', '}{process}: other bins than the first histogram of the region; "
                    "fill all of them in the same ones."
                )
            yield (region, process), found


def read(what: str, given: Histograms) -> Contents:
    """Histograms by region and process as arrays; errors as of `content`."""
    return {
        (region, process): content(histogram, f"{what}, {region}, {process}")
        for region, of in given.items()
        for process, histogram in of.items()
    }


def shared_axis(region: str, contents: Contents) -> Axis:
    """The axis of a region: that of its first histogram.

    Raises:
        InputError: there is none.
    """
    axes = [each.axis for (of, _), each in contents.items() if of == region]
    if not axes:
        raise InputError(f"nominal, {region}: there is no histogram; give one for each process, or leave it out.")
    return axes[0]


def check_variances(contents: Contents) -> None:
    """Raise where the constraint of the simulated statistics asks for what is not there."""
    for (region, process), found in contents.items():
        if found.variances is None:
            raise InputError(
                f"nominal, {region}, {process}: the histogram has no variances; fill it with storage=Weight(), or give "
                'mc_statistics="none" if the templates are exact.'
            )


def check_known(name: str, known: Iterable[str], where: str, what: str) -> None:
    """Raise where a name is not among those that are known."""
    if name not in known:
        raise InputError(f"{where}: no {what} is called '{name}'; there are: {', '.join(known)}.")


def several(names: Names, known: Sequence[str], where: str) -> list[str]:
    """Names of processes, one or some, each of which exists."""
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        check_known(name, known, where, "process")
    return listed


def subset(region: str, present: Table, new: Sequence[SupportsFloat]) -> Table:
    """The edges of coarser bins.

    Raises:
        InputError: one of them is no present one, or the first or last of these is missing.
    """
    edges = np.array([float(edge) for edge in new])
    at = np.clip(np.searchsorted(present, edges - 1e-9 * np.ptp(present)), 0, len(present) - 1)
    ends = len(edges) > 1 and at[0] == 0 and at[-1] == len(present) - 1 and bool(np.all(np.diff(at) > 0))
    if not ends or not _same(present[at], edges):
        raise InputError(
            f"{region}: new edges have to be some of the present ones, in rising order, with the first and the last of "
            f"them: {', '.join(f'{edge:g}' for edge in present)}."
        )
    return present[at]


def places(fine: Mapping[str, Axis], coarse: Mapping[str, Axis]) -> Float64[np.ndarray, "fine coarse"]:
    """1 where a bin of the joint axis goes."""
    centres = [0.5 * (axis.edges[1:] + axis.edges[:-1]) for axis in fine.values()]
    blocks = [
        np.searchsorted(axis.edges, each)[:, None] - 1 == np.arange(len(axis.edges) - 1)[None]
        for each, axis in zip(centres, coarse.values(), strict=True)
    ]
    return block_diag(*blocks).astype(np.float64)


def _same(edges: Table, wanted: Table) -> bool:
    return len(edges) == len(wanted) and np.allclose(edges, wanted, rtol=1e-9, atol=1e-12)
