"""A problem: an analysis and its events, divided into those that tuning sees and those that it does not.

It is made from a YAML file (`Problem.from_config`) or from tables in memory (`Problem.from_arrays`); everything that an
optimiser, a plot or a notebook asks of it is a method. From here on there are arrays and static structure: nothing
behind knows a file, a YAML key or awkward.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array
from rich.progress import Progress as FileProgress

from pipeline import vocabulary
from pipeline.analysis import Analysis, Evaluation, Gradient, evaluate, event_table, loss, templates_at
from pipeline.bandwidths import choose_kernels
from pipeline.config import Config, ConfigError, load_config
from pipeline.config.selection import Region as RegionConfig
from pipeline.display import escape, html_table
from pipeline.division import division, everything, fresh, with_design
from pipeline.event_data import Data, Stream, Workers
from pipeline.events.binning import placed_edges
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.scores import Network
from pipeline.events.table import EventList
from pipeline.ingest.arrays import Table, sample_of
from pipeline.ingest.samples import Sample, check_read, read_samples, skim
from pipeline.names import Names, check_unused, names_of
from pipeline.networks import begin_networks
from pipeline.population import ranks
from pipeline.progress import SILENT, Progress
from pipeline.scales import Kernel, Scale
from pipeline.translation import default_bandwidths, default_thresholds, histograms, make_analysis, make_edges
from pipeline.vocabulary import Cut, Region, Uncertainty, config_of

__all__ = ["Problem", "divide", "divide_into_folds", "read", "whole"]


Part = Literal["training", "validation", "all"]
"""Of the events: what tuning sees, what it does not, or both together."""


@dataclass(frozen=True)
class Problem:
    """An analysis and its events, ready for the optimiser.

    Thresholds are a mapping from names to numbers, each in the unit of its variable; those that are left out are where
    the config puts them.

    Attributes:
        config: the run.
        analysis: the static part.
        training: events for the gradient.
        validation: events that tuning does not see.
        stopping: events that decide when a patient optimiser stops, and which step is the best; None otherwise.
        samples: what the parts were taken from.
        left_out: objects of each collection that the analysis does not see, because their events have more of them than
            fit a bit mask: all but the hardest ones (`pipeline.events.flux.MAX_OBJECTS`).
        names: of the config, where its event function is an object.
        networks: those of learned observables where they start, by name (`pipeline.networks`).
        kernels: of the trainable thresholds to which the config gives no bandwidth, once they are chosen.
        regions: as they were given, where `config` has edges in the place of quantiles.
    """

    config: Config
    analysis: Analysis
    training: Data | Stream
    validation: Data | Stream
    stopping: Data | Stream | None
    samples: tuple[Sample, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    names: Names | None = None
    networks: Mapping[str, Network] = field(default_factory=dict)
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    regions: Mapping[str, RegionConfig] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Config | Path | str, report: Callable[[str], None] = lambda _: None) -> "Problem":
        """Read the events of a YAML file, or of a config, and put everything together.

        Args:
            config: the run.
            report: gets a line before each step that takes time.

        Raises:
            ConfigError: the config names what does not exist.
            InputError: a file is missing or unusable, or no event is left.
        """
        config = config if isinstance(config, Config) else load_config(config)
        samples = read(config, report)
        report("preparing events")
        return divide(config, samples, report=report)

    @classmethod
    def from_arrays(
        cls,
        tables: Mapping[str, Table],
        *,
        cuts: Sequence[Cut],
        regions: Sequence[Region],
        signal: str | Sequence[str],
        weight: str | None = None,
        systematics: Sequence[Uncertainty] = (),
        free: str | Sequence[str] = (),
        collision: str | Sequence[str] | None = None,
        event_function: object | None = None,
        networks: Sequence[vocabulary.Network] = (),
        **sections: Any,
    ) -> "Problem":
        """An analysis of tables of events.

        Args:
            tables: by process: a dict of arrays, a DataFrame, a pyarrow table, an awkward array of records, or the path
                of a parquet or ROOT file; one row an event.
            cuts: those with `bounds` are tuned.
            regions: the channels of the likelihood, which exclude each other.
            signal: the processes that the signal strength `mu` scales.
            weight: a column, or a formula of columns, in units of expected events; each row counts 1 without it.
            systematics: the constrained nuisance parameters.
            free: processes with a free normalisation.
            collision: columns that together name a collision, where rows are not independent of each other.
            event_function: what computes further variables (`pipeline.events.function`): an object, a dotted path, or
                the path of a Python file.
            networks: learned observables, which regions name.
            sections: further sections, as in a YAML file: `objective={"name": "signal_strength_uncertainty"}`,
                `optimiser`, `validation`, `objects`, `sets`, `require`, `name`, `title`, `seed`.

        Raises:
            ConfigError: something named does not exist, or contradicts something else.
            InputError: a table lacks a column, or has no events.
        """
        is_name = isinstance(event_function, str | Path)
        if not isinstance(event_function, Hashable):
            raise ConfigError(
                "event_function: what is compiled is kept by the function, so it must be hashable; give a module, a "
                "class, or an object that compares by identity"
            )
        if event_function is not None:
            kind = event_function if isinstance(event_function, type) else type(event_function)
            sections["event_function"] = str(event_function) if is_name else f"{kind.__module__}.{kind.__qualname__}"
        config = config_of(tables, cuts, regions, signal, systematics, free, networks, **sections)
        names = names_of(config, None if is_name else event_function)
        for name, calibration in config.calibrations.items():
            for column in calibration.scale:
                check_unused(name, column, (weight, *([collision] if isinstance(collision, str) else collision or ())))
        named = None if collision is None else (collision,) if isinstance(collision, str) else tuple(collision)
        wanted = skim(config, tuple(names.branches.values()), weight=weight or "none", collision=named)
        samples = (sample_of(process, table, wanted) for process, table in tables.items())
        return divide(config, tuple(samples), names)

    @property
    def given(self) -> Config:
        """The config before events have said where its quantiles are."""
        return self.config.model_copy(update={"regions": {**self.config.regions, **self.regions}})

    def folds(self, report: Callable[[str], None] = lambda _: None) -> tuple["Problem", ...]:
        """One problem for each fold (`validation.folds`), which it holds out; this one alone without folds.

        Each begins where the config says: a network that was trained on one fold has seen what another one holds out.
        """
        if self.config.validation.folds is None:
            return (self,)
        report("preparing events")
        return divide_into_folds(self.given, self.samples, self.names, report)

    @property
    def defaults(self) -> dict[str, Any]:
        """All parameters where they start: thresholds, trainable or not, and networks."""
        return {**self.thresholds, **self.networks}

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """All thresholds, trainable or not, where the config puts them."""
        return {name: each.threshold for name, each in self.config.thresholds.items()}

    @cached_property
    def bandwidths(self) -> dict[str, float]:
        """The width of the kernel of each trainable parameter at the start, chosen from the events if not given."""
        with jax.ensure_compile_time_eval():  # whoever compiles `loss` may be the first to ask
            given = {name: float(width) for name, width in default_bandwidths(self.config).items()}
            kernels = self.with_bandwidths().kernels
            return given | {name: kernel.width(self.thresholds[name]) for name, kernel in kernels.items()}

    def with_networks(self, parameters: Mapping[str, Any]) -> "Problem":
        """The problem with the networks that stand among some parameters in the place of those it starts from."""
        return replace(self, networks={name: parameters[name] for name in self.networks})

    def with_bandwidths(self, progress: Progress = SILENT) -> "Problem":
        """The problem with a kernel for every trainable threshold, chosen from the events where the config has none."""
        config, trained = self.config, {name: cut for name, cut in self.config.thresholds.items() if cut.trainable}
        missing = {name: cut for name, cut in trained.items() if cut.bandwidth is None and name not in self.kernels}
        if not missing:
            return self
        progress.say(f"choosing the bandwidth of {', '.join(missing)}")
        # A search along the loss wants a scale that is as smooth as the loss.
        ranked = [name for name, cut in missing.items() if cut.step is None and config.optimiser.forward == "exact"]
        scales = ranks(config, self.analysis, self.training, self.defaults, ranked)
        kernels = choose_kernels(missing, scales, [names for names, _ in config.rising], self._gradient_on)
        return replace(self, kernels={**self.kernels, **kernels})

    def _gradient_on(self, scales: Mapping[str, Scale], widths: Mapping[str, float]) -> Gradient:
        """The gradient at the default thresholds by places on some scales, with kernels of some widths on them."""
        slopes = {name: scales[name].slope(self.thresholds[name], width) for name, width in widths.items()}
        own = {name: width * slopes[name] for name, width in widths.items()}
        gradient = evaluate(self.analysis, arrays(self.defaults), arrays(own), self.training).gradient
        value, error = (
            {name: each[name] * slope for name, slope in slopes.items()} for each in (gradient.value, gradient.error)
        )
        return Gradient(value=value, error=error)

    def loss(self, thresholds: Mapping[str, Any] | None = None, part: Part = "training") -> Array:
        """What is minimised: −Z, an uncertainty or a limit; exact. A scalar that JAX can differentiate and compile.

        Compiled as it is, the events are constants of the program; `pipeline.analysis.loss` takes them as arguments.
        """
        return loss(self.analysis, self._at(thresholds), arrays(self.bandwidths), self._part(part))[0]

    def value_and_grad(self, thresholds: Mapping[str, Any] | None = None, part: Part = "training") -> Evaluation:
        """The loss, the figure of merit, and the gradient by the trainable thresholds with its statistical error."""
        return evaluate(self.analysis, self._at(thresholds), arrays(self.bandwidths), self._part(part))

    def templates(self, thresholds: Mapping[str, Any] | None = None, part: Part = "validation") -> dict[str, Any]:
        """The exact templates of each region: `hist.Hist` with axes `process`, `variation` and the observable.

        In expected events. Variances are those of the nominal templates by the finite number of events.
        """
        at, data = self._at(thresholds), self._part(part)
        placed = placed_edges(self.analysis.selection.regions, at, data.edges)
        edges = {name: np.asarray(each[0], np.float64) for name, each in placed.items()}
        return histograms(self.config, templates_at(self.analysis, at, data), edges)

    def event_table(self, thresholds: Mapping[str, Any] | None = None, part: Part = "validation") -> EventList:
        """The exact analysis event by event: region, bin, observable and weights, as NumPy arrays."""
        return event_table(self.analysis, self._at(thresholds), self._part(part))

    def _at(self, thresholds: Mapping[str, Any] | None) -> Thresholds:
        unknown = sorted(set(thresholds or ()) - set(self.defaults))
        if unknown:
            raise ConfigError(f"no threshold is called '{unknown[0]}'; there are: {', '.join(self.defaults)}")
        known = {name: value for name, value in (thresholds or {}).items() if name in self.thresholds}
        several = [name for name, value in known.items() if np.ndim(value) > 0]
        if several:
            raise ConfigError(f"{several[0]}: give one number, not an array of shape {np.shape(known[several[0]])}")
        # What JAX traces has no value yet.
        check_read(self.config, {n: float(each) for n, each in known.items() if not isinstance(each, jax.core.Tracer)})
        return arrays(self.defaults | dict(thresholds or {}))

    def _part(self, name: Part) -> Data | Stream:
        return self._everything if name == "all" else {"training": self.training, "validation": self.validation}[name]

    @cached_property
    def _everything(self) -> Data | Stream:
        names = self.names or names_of(self.config)
        return everything(self.config, names, self.analysis, self.samples, arrays(self.defaults))

    def __repr__(self) -> str:
        """A line, rather than all events."""
        config = self.config
        tuned = ", ".join(name for name, each in config.thresholds.items() if each.trainable)
        return (
            f"Problem({config.title or config.name}: {', '.join(config.processes)} in {', '.join(config.regions)}; "
            f"{config.objective.name} by {tuned})"
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = [
            (name, f"{each.threshold:g} {each.unit}", "" if each.bounds is None else "{:g} … {:g}".format(*each.bounds))
            for name, each in self.config.thresholds.items()
        ]
        events = [(s.dataset.process, s.dataset.variation, f"{len(s.events)}") for s in self.samples]
        return (
            f"<b>{escape(self.config.title or self.config.name)}</b>, {escape(self.config.objective.name)}"
            + html_table(("threshold", "at", "tuned within"), rows)
            + html_table(("process", "variation", "events"), events)
        )


def read(
    config: Config,
    report: Callable[[str], None] = lambda _: None,
    progress: FileProgress | None = None,
    executor: Executor | None = None,
) -> tuple[Sample, ...]:
    """The events of every data set of a config; arguments and errors as `pipeline.ingest.samples.read_samples`."""
    return read_samples(config, tuple(names_of(config).branches.values()), report, progress, executor)


def whole(
    config: Config, report: Callable[[str], None] = lambda _: None
) -> tuple[Analysis, dict[str, Any], Data | Stream]:
    """The analysis of a config, its default parameters, and all events; errors as `Problem.from_config`.

    Without a split: networks begin with what they see of all events.
    """
    names, samples = names_of(config), read(config, report)
    analysis = make_analysis(config, names, len(samples))
    data = everything(config, names, analysis, samples, fresh(config))
    begun, networks = begin_networks(config, analysis, fresh(config), data)
    data = data.with_edges(make_edges(begun))
    return analysis, {name: each.threshold for name, each in config.thresholds.items()} | networks, data


def divide(
    config: Config,
    samples: tuple[Sample, ...],
    names: Names | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Problem:
    """A problem from events in memory: those for training, those for validation, and perhaps those for stopping.

    With folds, the first of them is held out; `Problem.folds` goes through all. `names` are those of the config, where
    its event function is an object.

    Raises:
        InputError: one of the parts is empty.
    """
    (problem,) = _divided(config, samples, [0.0], names or names_of(config), report)
    return problem


def divide_into_folds(
    config: Config,
    samples: tuple[Sample, ...],
    names: Names | None = None,
    report: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> tuple[Problem, ...]:
    """One problem for each fold, which it holds out; `divide` without folds, with the same arguments.

    Raises:
        InputError: one of the parts is empty.
    """
    folds = config.validation.folds or 1
    turns = [fold / folds for fold in range(folds)]
    return _divided(config, samples, turns, names or names_of(config), report, workers)


def _divided(
    config: Config,
    samples: tuple[Sample, ...],
    turns: Sequence[float],
    names: Names,
    report: Callable[[str], None],
    workers: Workers | None = None,
) -> tuple[Problem, ...]:
    """Problems that hold out other events each: those from a place on in a random order of the events, a circle."""
    analysis = make_analysis(config, names, len(samples))
    divided, unseen = division(config, names, analysis, samples, turns, report, workers)
    problems = []
    for parts in divided:
        begun, networks = begin_networks(config, analysis, fresh(config), parts["training"])
        edges, at = make_edges(begun), default_thresholds(begun) | networks
        judged = with_design(analysis, at, samples, [part.with_edges(edges) for part in parts.values()])
        named = dict(zip(parts, judged, strict=True))
        training, validation, stopping = named["training"], named["validation"], named.get("stopping")
        of_events = (training, validation, stopping, samples, unseen)
        problems.append(Problem(begun, analysis, *of_events, names, networks, regions=config.regions))
    return tuple(problems)
