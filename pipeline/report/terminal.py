"""What the physicist at the terminal sees: a live line while it runs, and a table at the end."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.config import Config
from pipeline.ingest.progress import events_progress
from pipeline.report.rounding import with_error
from pipeline.tuning.descent import Step

if TYPE_CHECKING:
    from pipeline.problem import Problem
    from pipeline.run import Outcome
    from pipeline.validation.comparison import Comparison, Estimate
    from pipeline.validation.crosscheck import PyhfResult

__all__ = ["Terminal", "verdict"]

SYMBOL = {
    "discovery_significance": "Z",
    "signal_strength_uncertainty": "σ(μ)",
    "expected_upper_limit": "limit on μ",
    "counting_significance": "Z by counting",
}
PLAIN_LINES = 10
"""Lines of progress where there is no terminal to redraw."""

PLAIN_THRESHOLDS = 8
"""With more thresholds a plain line leaves them out: nobody reads such a line, and history.csv has them."""


class Terminal:
    """Prints to standard output, or another console; with `quiet` only warnings and the final table."""

    def __init__(self, config: Config, *, quiet: bool, console: Console | None = None) -> None:
        self._config = config
        self._quiet = quiet
        # No markup: what is printed may hold brackets of its own, as in `staterror[3]`.
        self._console = console or Console(highlight=False, markup=False)
        self.symbol = SYMBOL[config.objective.name]

    def say(self, line: str) -> None:
        """One line about what happens now."""
        if not self._quiet:
            self._console.print(line)

    def warn(self, line: str) -> None:
        """One line that is printed even with `quiet`."""
        self._console.print(f"warning: {line}", style="yellow")

    @contextmanager
    def reading(self) -> Iterator[Progress | None]:
        """A display of the files and events that are read, where there is a terminal to redraw."""
        if self._quiet or not self._console.is_terminal:
            yield None
            return
        with events_progress(console=self._console) as display:
            yield display

    @contextmanager
    def progress(self, steps: int, events: int) -> Iterator[Callable[[Step], None]]:
        """A display that follows the optimisation: redrawn on a terminal, a line every few steps elsewhere.

        Args:
            steps: how many there will be.
            events: that each step looks at.
        """
        speed = _Speed(events)
        if self._quiet:
            yield lambda _: None
        elif not self._console.is_terminal:
            yield self._plain(steps, speed)
        else:
            with _Display(console=self._console) as display:
                task = display.add_task("compiling the analysis", total=steps)

                def show(step: Step) -> None:
                    display.state = Group(self._values(step), Columns(self._thresholds(step), padding=(0, 3)))
                    display.update(task, completed=step.number + 1, description=speed.measure())

                yield show

    def _plain(self, steps: int, speed: "_Speed") -> Callable[[Step], None]:
        self._console.print("compiling the analysis")
        every, started = max(1, steps // PLAIN_LINES), time.perf_counter()

        def show(step: Step) -> None:
            pace = speed.measure()
            if step.number % every == 0 or step.number == steps - 1:
                named = self._thresholds(step)
                thresholds = "  ".join(named) if len(named) <= PLAIN_THRESHOLDS else f"{len(named)} thresholds"
                elapsed = f"{time.perf_counter() - started:.0f} s"
                words = (f"step {step.number:4d}", self._values(step), thresholds, pace, elapsed)
                self._console.print("  ".join(word for word in words if word), soft_wrap=True)

        return show

    def _values(self, step: Step) -> str:
        sizes = [slope * (self._config.thresholds[name].step or 1.0) for name, slope in step.gradient.items()]
        now, best = float(step.merit.value), abs(step.best_loss)
        # The gradient in the units of the optimiser: change of the value by one `step` of each cut.
        return f"{self.symbol} {now:.4f}  best {best:.4f}  |∇| {math.hypot(*sizes):.2g}"

    def _thresholds(self, step: Step) -> list[str]:
        units = {name: cut.unit for name, cut in self._config.thresholds.items()}
        return [f"{name} {value:.4g} {units[name]}".rstrip() for name, value in step.thresholds.items()]

    def table(self, problem: "Problem", outcome: "Outcome", output: Path) -> None:
        """The result: cuts and figure of merit before and after."""
        simulated = all(sample.dataset.source.simulated for sample in problem.samples)
        table = Table(title=self._config.title or self._config.name, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("")
        for column in ("default cuts", "optimised cuts"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("change")
        for name, cut in self._config.thresholds.items():
            if cut.trainable:
                moved = (f"{outcome.before[name]:g} {cut.unit}", f"{outcome.after[name]:.4g} {cut.unit}")
                table.add_row(name, *moved, _remark(outcome, self._config, name))
        table.add_section()
        for part, compared in outcome.compared.items():
            values = (_estimate(compared.before), _estimate(compared.after), _estimate(compared.change, sign=True))
            table.add_row(f"{self.symbol}, {part}", *values)
        table.add_row(*_by_pyhf([outcome.pyhf[name] for name in ("before", "after")], self.symbol))
        if outcome.measured:
            fitted = [_estimate(outcome.measured[name]) for name in ("before", "after")]
            table.add_row(f"{self._config.measurement.poi}, pseudo-data", *fitted, "workspace.json")
        self._console.print(table)
        larger = problem.analysis.objective.larger_is_better
        if simulated:
            self._console.print("All events are simulated.")
        self._console.print(verdict(outcome.claim, self.symbol, larger_is_better=larger))
        self._console.print(f"run folder: {output}", soft_wrap=True)
        self._console.print(f"report: {output / 'report.html'}", soft_wrap=True)


class _Display(Progress):
    """A bar, and below it whatever `state` is."""

    state: RenderableType = ""

    def __init__(self, console: Console) -> None:
        text = TextColumn("{task.description}", markup=False)
        super().__init__(BarColumn(30), MofNCompleteColumn(), text, TimeRemainingColumn(), console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The lines from top to bottom."""
        yield from super().get_renderables()
        yield self.state


class _Speed:
    """Events per second between one step and the next; nothing for the first, which compiles."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._last: float | None = None

    def measure(self) -> str:
        last, self._last = self._last, time.perf_counter()
        return "" if last is None else f"{float(f'{self._events / (self._last - last):.2g}'):,.0f} events/s"


def _remark(outcome: "Outcome", config: Config, name: str) -> str:
    """Where a threshold ended at its bound, or never had a reason to move."""
    from pipeline.run import at_bound

    bound = at_bound(config, name, outcome.after[name])
    if outcome.largest_pull(name) < config.optimiser.significance:
        return "no clear gradient"
    return f"at {bound} bound" if bound else ""


def _by_pyhf(checks: "Sequence[PyhfResult]", symbol: str) -> tuple[str, ...]:
    """The row of what pyhf finds on validation events: the figure of merit if it knows it, else its significance."""
    if symbol == SYMBOL["signal_strength_uncertainty"] and all(one.uncertainty is not None for one in checks):
        return f"{symbol} by pyhf", *(f"{one.uncertainty:.4f}" for one in checks), "workspace.json"
    numbers = [one.failure if one.significance is None else f"{one.significance:.4f}" for one in checks]
    return "Z by pyhf", *numbers, "workspace.json"


def verdict(validation: "Comparison", symbol: str, *, larger_is_better: bool) -> str:
    """The last word, in plain language: what was gained on validation events, and is it significant?"""
    change = validation.change
    before, after = (_estimate(one).partition(" ±")[0] for one in (validation.before, validation.after))
    where, by = "on events the optimiser has not seen", _estimate(change, sign=True)
    if change.value == 0:
        return f"No gain: no step was better than the default cuts, {symbol} {before} {where}."
    if (change.value > 0) != larger_is_better:
        return f"No gain {where}: {symbol} goes from {before} to {after}, a change of {by}."
    strength = "significant" if abs(change.pull) >= 2 else "not significant"
    return (
        f"{symbol} improves from {before} to {after} {where}: the change of {by} is {abs(change.pull):.1f} bootstrap "
        f"errors, {strength}."
    )


def _estimate(estimate: "Estimate", *, sign: bool = False) -> str:
    return with_error(estimate.value, estimate.error, sign=sign)
