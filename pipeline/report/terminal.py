"""What the physicist at the terminal sees: a live line while it runs, and a table at the end."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.config import Config
from pipeline.ingest.progress import events_progress, file_counter
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import Look
from pipeline.validation.crosscheck import PyhfResult, advice
from pipeline.validation.outcome import SYMBOLS, Outcome
from pipeline.validation.rounding import with_error
from pipeline.validation.varied import in_a_sentence
from pipeline.validation.verdict import verdict
from pipeline.validation.working_points import WorkingPoints

__all__ = ["Terminal"]

PLAIN_LINES = 10
"""Lines of progress where there is no terminal to redraw."""

FOLDS = (
    "The cuts are those of fold 1. Use them where the folds agree (report.html, 'the cuts of each fold'); the claim is "
    "the cross-validation, in which every event is judged by the cuts of a fold that has not seen it. Where they "
    "differ, the events do not fix the cuts: to have one set of cuts, tune on all of them, or make more."
)
"""Which cuts to use."""

UNCLEAR = "* no clear gradient: at no step did its derivative stand out from its statistical error"

PLAIN_THRESHOLDS = 8
"""With more thresholds a plain line leaves them out: nobody reads such a line, and history.csv has them."""


class Terminal:
    """A `pipeline.progress.Progress` on standard output, or another console, which also shows steps and the result.

    With `quiet` only warnings and the final table. Where there is a terminal to redraw, what happens now has a spinner
    and a clock; as a context manager, it takes them away whatever happens.
    """

    def __init__(self, config: Config, *, quiet: bool, console: Console | None = None) -> None:
        self._config = config
        self._quiet = quiet
        self._started = time.perf_counter()
        # No markup: what is printed may hold brackets of its own, as in `staterror[3]`.
        self._console = console or Console(highlight=False, markup=False)
        self._symbol = SYMBOLS[config.objective.name]
        self._phase: _Phase | None = None

    def __enter__(self) -> "Terminal":
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing happens any more."""
        self._end_phase()

    def say(self, line: str) -> None:
        """One line about what happens now."""
        self._end_phase()
        if self._quiet:
            return
        if self._console.is_terminal:
            self._phase = _Phase(self._console, line)
        else:
            self._console.print(line)

    def _end_phase(self) -> None:
        phase, self._phase = self._phase, None
        if phase is not None:
            self._console.print(phase.ended())

    def warn(self, line: str) -> None:
        """One line that is printed even with `quiet`."""
        self._console.print(f"warning: {line}", style="yellow")

    @contextmanager
    def reading(self) -> Iterator[Progress | None]:
        """A display of the files and events that are read, where there is a terminal to redraw."""
        self._end_phase()
        if self._quiet or not self._console.is_terminal:
            yield None
            return
        with events_progress(console=self._console) as display:
            yield display

    @contextmanager
    def counting(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A line of the files and events that are read, where there is a terminal to redraw."""
        with self.reading() as display, file_counter(display, label, total) as advance:
            yield advance

    @contextmanager
    def steps(self, steps: int, events: int) -> Iterator["Steps"]:
        """A display that follows the optimisation: redrawn on a terminal, a line every few steps elsewhere.

        Args:
            steps: how many there will be.
            events: that each step looks at.
        """
        self._end_phase()
        speed = _Speed(events)
        if self._quiet:
            yield Steps(lambda _: None, lambda _: None)
        elif not self._console.is_terminal:
            yield self._plain(steps, speed)
        else:
            with _Display(console=self._console) as display:
                task = display.add_task("compiling the analysis", total=steps)

                def show(step: Step) -> None:
                    display.state = Group(self._values(step), Columns(self._thresholds(step), padding=(0, 3)))
                    display.update(task, completed=step.number + 1, description=speed.measure())

                yield Steps(
                    show, lambda look: display.update(task, description=f"{look.stage}, {look.number} of {look.total}")
                )

    def _plain(self, steps: int, speed: "_Speed") -> "Steps":
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

        def look(look: Look) -> None:
            if look.number == 1:
                self._console.print(f"{look.stage}: looking at up to {look.total} places")

        return Steps(show, look)

    def _values(self, step: Step) -> str:
        sizes = [slope * (self._config.thresholds[name].typical_step) for name, slope in step.gradient.items()]
        now, best = float(step.merit.value), abs(step.best_loss)
        # The gradient in the units of the optimiser: change of the value by one `step` of each cut.
        lengths = "".join(f"  |∇ {name}| {with_error(*pair)}" for name, pair in step.network_gradient.items())
        return f"{self._symbol} {now:.4f}  best {best:.4f}  |∇| {math.hypot(*sizes):.2g}{lengths}"

    def _thresholds(self, step: Step) -> list[str]:
        units = {name: cut.unit for name, cut in self._config.thresholds.items()}
        return [f"{name} {value:.4g} {units[name]}".rstrip() for name, value in step.thresholds.items()]

    def table(self, outcome: Outcome) -> None:
        """The result: cuts and figure of merit before and after, and the verdict."""
        self._end_phase()
        table = Table(title=self._config.title or self._config.name, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("")
        for column in ("default cuts", "optimised cuts"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("change")
        for name, cut in self._config.thresholds.items():
            if cut.trainable:
                moved = (f"{outcome.before[name]:g} {cut.unit}", f"{outcome.after[name]:.4g} {cut.unit}")
                table.add_row(name, *moved, _remark(outcome, name))
        for name, number in outcome.trained.items():
            table.add_row(name, "start", "trained", f"{number:,} weights")
        table.add_section()
        for part, comparison in outcome.comparisons.items():
            values = (f"{comparison.before}", f"{comparison.after}", f"{comparison.change:+}")
            table.add_row(f"{self._symbol}, {part}", *values)
        table.add_row(*_by_pyhf(outcome.pyhf, self._symbol))
        if outcome.measured:
            fitted = [f"{outcome.measured[name]}" for name in ("before", "after")]
            table.add_row(f"{self._config.measurement.poi}, pseudo-data", *fitted, "workspace.json")
        self._console.print(table)
        if any(_is_unclear(outcome, name) for name, cut in self._config.thresholds.items() if cut.trainable):
            self._console.print(UNCLEAR)
        if 1 < len(outcome.importance) <= PLAIN_THRESHOLDS:
            lost = ", ".join(f"{name} {estimate:+}" for name, estimate in outcome.importance.items())
            self._console.print(f"Of the gain, validation loses if one alone stays at its default: {lost}.")
        if outcome.working_points is not None:
            self._console.print(_working_point(outcome, outcome.working_points))
        if outcome.variations is not None:
            self._console.print(in_a_sentence(outcome.variations))
        if len(outcome.folds) > 1:
            self._console.print(FOLDS)
        if outcome.simulated:
            self._console.print("All events are simulated.")
        self._console.print(str(verdict(outcome)))

    def places(self, outcome: Outcome) -> None:
        """Where everything is, and how long it took."""
        self._end_phase()
        if outcome.path is not None:
            self._console.print(f"run folder: {outcome.path}", soft_wrap=True)
            self._console.print(advice(self._config.measurement.poi))
            if (outcome.path / "report.html").exists():
                self._console.print(f"report: {outcome.path / 'report.html'}", soft_wrap=True)
        self._console.print(f"{time.perf_counter() - self._started:.0f} s in all")


class Steps(NamedTuple):
    """What shows the steps of an optimisation, and the looks before and after them."""

    step: Callable[[Step], None]
    look: Callable[[Look], None]


class _Phase:
    """A spinner and a clock beside what happens now."""

    def __init__(self, console: Console, line: str) -> None:
        self._line, self._started = line, time.perf_counter()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._display = Progress(*columns, console=console, transient=True)
        self._display.add_task(line, total=None)
        self._display.start()

    def ended(self) -> str:
        """What has happened, and how long it took if anybody could notice."""
        self._display.stop()
        seconds = time.perf_counter() - self._started
        return self._line if seconds < 1 else f"{self._line}: {seconds:.0f} s"


class _Display(Progress):
    """A bar, and below it whatever `state` is."""

    state: RenderableType = ""

    def __init__(self, console: Console) -> None:
        text = TextColumn("{task.description}", markup=False)
        clocks = (TimeElapsedColumn(), TimeRemainingColumn())
        super().__init__(BarColumn(30), MofNCompleteColumn(), text, *clocks, console=console)

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


def _remark(outcome: Outcome, name: str) -> str:
    """How far a threshold went, whether it ended at its bound, and whether any derivative told it to go."""
    cut, before, after = outcome.config.thresholds[name], outcome.before[name], outcome.after[name]
    change = "unchanged" if after == before else f"{after - before:+.3g} {cut.unit}".rstrip()
    change += " (bound)" if cut.at_bound(after) and after != before else ""
    return f"{change} *" if _is_unclear(outcome, name) else change


def _is_unclear(outcome: Outcome, name: str) -> bool:
    return outcome.largest_pull(name) < outcome.config.optimiser.significance


def _working_point(outcome: Outcome, points: WorkingPoints) -> str:
    """The one that matters most."""
    symbol, leading, cuts = outcome.symbol, points.points[0], outcome.config.thresholds
    moved = ", ".join(
        f"{name} would move by {shift:+} {cuts[name].unit}".rstrip() for name, shift in leading.moved.items()
    )
    moved = moved or f"where the cuts would go is not known ({leading.reason})"
    return f"With {leading}: {symbol} {points.merit:.4f} → {leading.merit:.4f} on validation events; {moved}."


def _by_pyhf(checks: Mapping[str, PyhfResult], symbol: str) -> tuple[str, ...]:
    """The row of what pyhf finds on validation events: the figure of merit if it knows it, else its significance."""
    uncertainties = [checks[name].uncertainty for name in ("before", "after")]
    if symbol == SYMBOLS["signal_strength_uncertainty"] and None not in uncertainties:
        return f"{symbol} by pyhf", *(f"{uncertainty:.4f}" for uncertainty in uncertainties), "workspace.json"
    both = [checks[name] for name in ("before", "after")]
    numbers = [check.failure if check.significance is None else f"{check.significance:.4f}" for check in both]
    return "Z by pyhf", *numbers, "workspace.json"
