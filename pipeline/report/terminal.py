"""What the physicist at the terminal sees: a live line while it runs, and a table at the end."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.config import Config
from pipeline.descent import Step
from pipeline.ingest.progress import events_progress
from pipeline.report.rounding import with_error

if TYPE_CHECKING:
    from pipeline.comparison import Comparison, Estimate
    from pipeline.problem import Problem
    from pipeline.run import Outcome

__all__ = ["Terminal", "verdict"]

SYMBOL = {
    "discovery_significance": "Z",
    "signal_strength_uncertainty": "σ(μ)",
    "expected_upper_limit": "limit on μ",
    "counting_significance": "Z by counting",
}
PLAIN_LINES = 10
"""Lines of progress where there is no terminal to redraw."""


class Terminal:
    """Prints to standard output; with `quiet` only the final table."""

    def __init__(self, config: Config, *, quiet: bool) -> None:
        self._config = config
        self._quiet = quiet
        self._console = Console(highlight=False)
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
        """A line that follows the optimisation: redrawn on a terminal, every few steps elsewhere.

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
            columns = (BarColumn(20), TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}"))
            with Progress(*columns, TimeRemainingColumn(), console=self._console) as bar:
                task = bar.add_task("compiling the analysis", total=steps)
                yield lambda step: bar.update(
                    task, completed=step.number + 1, description=f"{self._line(step)}  {speed.measure()}"
                )

    def _plain(self, steps: int, speed: "_Speed") -> Callable[[Step], None]:
        self._console.print("compiling the analysis")
        every, started = max(1, steps // PLAIN_LINES), time.perf_counter()

        def show(step: Step) -> None:
            pace = speed.measure()
            if step.number % every == 0 or step.number == steps - 1:
                elapsed = time.perf_counter() - started
                line = f"step {step.number:4d}  {self._line(step)}  {pace}  {elapsed:.0f} s"
                self._console.print(line, soft_wrap=True)

        return show

    def _line(self, step: Step) -> str:
        now = " ".join(f"{name} {value:.4g}" for name, value in step.thresholds.items())
        sizes = [slope * (self._config.thresholds[name].step or 1.0) for name, slope in step.gradient.items()]
        value = f"{self.symbol} {float(step.merit.value):.4f} (best {abs(step.best_loss):.4f})"
        # The gradient in the units of the optimiser: change of the value by one `step` of each cut.
        return f"{value}  |∇| {math.hypot(*sizes):.2g}  {now}"

    def table(self, problem: "Problem", outcome: "Outcome", output: Path) -> None:
        """The result: cuts and figure of merit before and after."""
        simulated = all(sample.dataset.source.simulated for sample in problem.samples)
        table = Table(title=self._config.title or self._config.name, title_justify="left")
        for column in ("", "default cuts", "optimised cuts", ""):
            table.add_column(column)
        for name, cut in self._config.thresholds.items():
            if cut.trainable:
                bound = problem_bound(outcome, self._config, name)
                table.add_row(f"{name} {cut.unit}", f"{outcome.before[name]:g}", f"{outcome.after[name]:.4g}", bound)
        table.add_section()
        for part, compared in outcome.compared.items():
            row = (
                _estimate(compared.before),
                _estimate(compared.after),
                f"change {_estimate(compared.change, sign=True)}",
            )
            table.add_row(f"{self.symbol}, {part} events", *row)
        checks = [outcome.pyhf[name] for name in ("before", "after")]
        numbers = [one.failure if one.significance is None else f"{one.significance:.4f}" for one in checks]
        table.add_row("Z by pyhf, validation events", *numbers, "from workspace.json")
        if outcome.measured:
            fitted = [_estimate(outcome.measured[name]) for name in ("before", "after")]
            table.add_row(f"{self._config.measurement.poi} in the pseudo-data", *fitted, "fit to workspace.json")
        self._console.print(table)
        larger = problem.analysis.objective.larger_is_better
        if simulated:
            self._console.print("All events are simulated.")
        self._console.print(verdict(outcome.compared["validation"], self.symbol, larger_is_better=larger))
        self._console.print(f"run folder: {output}", soft_wrap=True)
        self._console.print(f"report: {output / 'report.html'}", soft_wrap=True)


class _Speed:
    """Events per second between one step and the next; nothing for the first, which compiles."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._last: float | None = None

    def measure(self) -> str:
        last, self._last = self._last, time.perf_counter()
        return "" if last is None else f"{self._events / (self._last - last):.3g} events/s"


def problem_bound(outcome: "Outcome", config: Config, name: str) -> str:
    """A remark where a threshold ended at its bound."""
    from pipeline.run import at_bound

    bound = at_bound(config, name, outcome.after[name])
    return f"at its {bound} bound" if bound else ""


def verdict(validation: "Comparison", symbol: str, *, larger_is_better: bool) -> str:
    """The last word, in plain language: is the change on validation events significant?"""
    change = validation.change
    if change.value == 0 or (change.value > 0) != larger_is_better:
        return f"The optimised cuts are not better on validation events ({_estimate(change, sign=True)})."
    strength = "significant" if abs(change.pull) >= 2 else "not significant"
    return (
        f"On events the optimiser has not seen, {symbol} changes by {_estimate(change, sign=True)}: "
        f"{abs(change.pull):.1f} bootstrap errors, {strength}."
    )


def _estimate(estimate: "Estimate", *, sign: bool = False) -> str:
    return with_error(estimate.value, estimate.error, sign=sign)
