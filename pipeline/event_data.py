"""The events of an analysis with the recipe of its templates: in memory, or on disk, part by part."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array

from pipeline.events.batch import Edges, Events
from pipeline.events.stream import StoredParts
from pipeline.inference.templates import Recipe

__all__ = ["Data", "KeptFlux", "OfPart", "Parts", "Stream", "Workers", "parts_of", "sum_over_parts"]


class Data(eqx.Module):
    """Everything that is neither structure nor threshold: it may change without compiling again."""

    _: KW_ONLY
    events: Events
    recipe: Recipe

    @property
    def edges(self) -> Edges:
        """Of the bins of each region."""
        return self.events.edges

    def with_edges(self, edges: Edges) -> "Data":
        """The same events in other bins."""
        return eqx.tree_at(lambda each: each.events.edges, self, edges)

    def with_recipe(self, recipe: Recipe) -> "Data":
        """The same events for other templates."""
        return eqx.tree_at(lambda each: each.recipe, self, recipe)


Change = Callable[[int, Data], Data]
"""What is made of a part, given its number."""


class KeptFlux(NamedTuple):
    """The yields, and what makes a gradient of the slope of a loss by them: the flux stays where it was computed."""

    yields: Array
    gradient: Callable[[Array], dict[str, Array]]


@runtime_checkable
class Workers(Protocol):
    """Who computes with parts on disk in the place of this process (`pipeline.cluster`)."""

    @property
    def number(self) -> int:
        """How many they are."""
        ...

    def each(self, function: Callable[[int], None], numbers: Sequence[int]) -> Iterable[None]:
        """Call a function for each number."""
        ...

    def total(self, function: "OfPart", analysis: Any, arguments: tuple[Any, ...], stream: "Stream") -> Any:
        """The sum over the parts of `function(analysis, *arguments, part)`."""
        ...

    def flux(self, function: "OfPart", analysis: Any, arguments: tuple[Any, ...], stream: "Stream") -> KeptFlux:
        """Of a function that returns yields and flux of a part."""
        ...


OfPart = Callable[..., Any]
"""What follows from a part: `function(analysis, *arguments, part)`, a pytree of sums over events."""


@dataclass(frozen=True)
class Stream:
    """The events of some parts on disk, as often as one likes, while their folder exists; for whoever takes `Data`.

    The parts have one recipe, and no collision is in two of them. Each is a random share of all: the first one alone
    tells what the others are like.

    Attributes:
        stored: all parts there are.
        numbers: of those that belong to it.
        edges: of the bins of each region.
        recipe: of the templates, of all parts together.
        changes: what is made of each part when it is read.
        workers: who computes with them; this process, if nobody does.
    """

    stored: StoredParts
    numbers: tuple[int, ...]
    edges: Edges
    recipe: Recipe
    changes: tuple[Change, ...] = ()
    workers: Workers | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        """The number of parts."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[Data]:
        """One part after another."""
        for number, groups in zip(self.numbers, self.stored.read(self.numbers), strict=True):
            part = Data(events=Events(groups=groups, edges=self.edges), recipe=self.recipe)
            for change in self.changes:
                part = change(number, part)
            yield part

    def with_edges(self, edges: Edges) -> "Stream":
        """The same events in other bins."""
        return replace(self, edges=edges)

    def with_recipe(self, recipe: Recipe) -> "Stream":
        """The same events for other templates."""
        return replace(self, recipe=recipe)

    def changed(self, change: Change) -> "Stream":
        """With something made of each part."""
        return replace(self, changes=(*self.changes, change))


Parts = Data | Iterable[Data]
"""All events, or part after part of them; the parts have one recipe, and no collision is in two of them."""


def parts_of(data: Parts) -> Iterable[Data]:
    """The parts of some events; all of them, where they are in memory."""
    return (data,) if isinstance(data, Data) else data


def sum_over_parts(function: OfPart, analysis: Any, arguments: tuple[Any, ...], data: Parts) -> tuple[Any, Recipe]:
    """The sum of `function(analysis, *arguments, part)`, and the recipe of the parts."""
    if isinstance(data, Stream) and data.workers is not None:
        return data.workers.total(function, analysis, arguments, data), data.recipe
    total = None
    for part in parts_of(data):
        summand = function(analysis, *arguments, part)
        # Waiting for the sum so far keeps JAX, which computes in the background, from holding part after part.
        total = summand if total is None else jax.tree.map(_plus, total, summand)
        recipe = part.recipe
    if total is None:
        raise ValueError("there are no events: pass one part at least")
    return total, recipe


def _plus(total: Array, summand: Array) -> Array:
    return jax.block_until_ready(total) + summand  # type: ignore[no-untyped-call]
