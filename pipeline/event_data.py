"""The events of an analysis with the recipe of its templates: in memory, or on disk, part by part."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace

import equinox as eqx

from pipeline.events.batch import Edges, Events
from pipeline.events.stream import StoredParts
from pipeline.inference.templates import Recipe

__all__ = ["Data", "Parts", "Stream", "parts_of"]


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
    """

    stored: StoredParts
    numbers: tuple[int, ...]
    edges: Edges
    recipe: Recipe
    changes: tuple[Change, ...] = ()

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
