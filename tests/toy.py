"""Random events of any collections as dense NumPy arrays, for plain loops, and the same as the engine takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from pipeline.analysis import Analysis, Data
from pipeline.events.batch import Edges, Events
from pipeline.events.dense import dense_groups
from pipeline.events.evaluation import EventAnalysis
from pipeline.events.ragged import Ragged, RaggedSample
from pipeline.inference.templates import Recipe
from pipeline.validation.gradient_check import check_gradients

NO_TEMPLATES = Recipe(yields=jnp.zeros((0, 0, 0, 0, 0)), variance=jnp.zeros((0, 0)))

# The criterion of tests/validation/test_gradients.py.
RMS_OF_PULLS = 0.5


@dataclass(frozen=True)
class Toy:
    """Events; `objects` have shape "objects events", NaN where there is none.

    `varied` are the columns (`muon.pt`, `met`) that kinematic variations scale, with a factor for each variation.
    """

    objects: Mapping[str, Mapping[str, np.ndarray]]
    columns: Mapping[str, np.ndarray]
    varied: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def kinematics(self) -> int:
        """The nominal one included."""
        return max((len(factors) for factors in self.varied.values()), default=1)

    def column(self, name: str, kinematic: int = 0) -> np.ndarray:
        """A column under a kinematic variation: in float64 where it is varied."""
        collection, _, variable = name.rpartition(".")
        column = self.objects[collection][variable] if collection else self.columns[variable]
        return column.astype(np.float64) * self.varied[name][kinematic] if name in self.varied else column

    def sample(self) -> RaggedSample:
        """For the engine."""

        def rows(name: str, column: np.ndarray) -> np.ndarray:
            factors = self.varied.get(name)
            return column if factors is None else np.array(factors)[:, None] * column.astype(np.float64)

        objects = {}
        for name, columns in self.objects.items():
            there = ~np.isnan(next(iter(columns.values()))).T
            flat = {variable: rows(f"{name}.{variable}", column.T[there]) for variable, column in columns.items()}
            objects[name] = Ragged(there.sum(axis=1), flat)
        number = np.arange(len(next(iter(self.columns.values()))), dtype=np.int32)
        return RaggedSample(
            objects=objects,
            columns={name: rows(name, column) for name, column in self.columns.items()},
            weight=np.ones(len(number), np.float32),
            index=number,
            collision=number,
            kinematics=self.kinematics,
        )

    def data(self, function: object, edges: Edges, from_below: Sequence[str] = ()) -> Data:
        """One data set without templates."""
        (groups,) = dense_groups([[self.sample()]], function, chunk_size=4096, from_below=from_below)
        return Data(events=Events(groups=groups, edges=edges), recipe=NO_TEMPLATES)


def random_collection(
    generator: np.random.Generator, events: int, most: int, variables: Mapping[str, np.ndarray | None] | None = None
) -> dict[str, np.ndarray]:
    """Up to so many objects an event, of pt (10 GeV and more), eta and phi, and of further uniform variables."""
    shape = (most, events)
    columns = {
        "pt": 10 + generator.exponential(30, shape),
        "eta": generator.normal(0, 1.2, shape),
        "phi": generator.uniform(-np.pi, np.pi, shape),
    } | {name: generator.random(shape) for name in variables or ()}
    there = np.arange(most)[:, None] < generator.integers(0, most + 1, events)
    return {name: np.where(there, column, np.nan).astype(np.float32) for name, column in columns.items()}


def histogram(observable: np.ndarray, inside: np.ndarray, edges: np.ndarray, columns: Sequence[np.ndarray]):
    """Shape "bins columns": closed on the left, without flow bins."""
    bins = np.where(inside, np.searchsorted(edges, observable, side="right") - 1, -1)
    rows = [np.bincount(bins[bins >= 0], each[bins >= 0], minlength=len(edges))[: len(edges) - 1] for each in columns]
    return np.array(rows).T


def assert_flux_is_the_finite_difference(
    analysis: EventAnalysis, thresholds: Mapping[str, float], bandwidths: Mapping[str, float], data: Data
) -> None:
    """Every threshold, kinematic variation, bin and column: kernel and box of equal second moment.

    The criterion of tests/validation/test_gradients.py for all thresholds together; a single one has few bins here,
    whose columns and variations move together.
    """
    # The figure of merit plays no part in it.
    checks = check_gradients(Analysis(analysis, None, None, None), thresholds, bandwidths, data)
    pulls = {name: check.pulls() for name, check in checks.items()}
    rms = {name: np.sqrt(np.mean(own**2)) for name, own in pulls.items()}
    assert set(rms) == set(bandwidths)
    assert min(own.size for own in pulls.values()) > 20
    assert np.sqrt(np.mean(np.concatenate(list(pulls.values())) ** 2)) < RMS_OF_PULLS, rms
    assert max(rms.values()) < 1.5 * RMS_OF_PULLS, rms
    for name, check in checks.items():
        # The finite difference is no noise: some bin is far from zero.
        filled = check.error > 0
        assert np.abs(check.difference[filled] / check.error[filled]).max() > 5, name
