"""What the pictures are of: a problem and the outcome of its tuning."""

from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.problem import Problem
from pipeline.validation.outcome import Outcome
from pipeline.validation.regions import Region, regions

__all__ = ["Picture", "Scene"]


@dataclass(frozen=True)
class Picture:
    """A figure and what to see in it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Scene:
    """A problem, with its bandwidths, and the outcome of its tuning."""

    problem: Problem
    outcome: Outcome

    @property
    def config(self) -> Config:
        """The run."""
        return self.problem.config

    @property
    def symbol(self) -> str:
        """Of the figure of merit."""
        return self.outcome.symbol

    @property
    def source(self) -> str:
        """Where the events come from, and how many collisions they stand for; nothing of tables, which do not say."""
        if not self.outcome.origin:
            return ""
        energy = f" ({self.config.energy:g} TeV)" if self.config.energy is not None else ""
        return f"{self.outcome.origin}, {self.config.luminosity / 1000:.3g} fb$^{{-1}}${energy}"

    @property
    def labels(self) -> dict[str, str]:
        """Names of the thresholds for an axis, with their units."""
        return {
            name: (cut.label or name) + (f" [{cut.unit}]" if cut.unit else "")
            for name, cut in self.config.thresholds.items()
        }

    @cached_property
    def regions_before(self) -> tuple[Region, ...]:
        """Templates of the validation events at the default cuts."""
        return regions(self.problem, self.outcome.before)

    @cached_property
    def regions_after(self) -> tuple[Region, ...]:
        """Templates of the validation events at the optimised cuts."""
        return regions(self.problem, self.outcome.after)
