"""How far the reading is: files, events and events per second on the terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

__all__ = ["events_progress", "file_counter"]


def events_progress(*, quiet: bool = False, console: Console | None = None) -> Progress:
    """A display for `read`, one line per data set; use it as a context.

    Args:
        quiet: Show nothing.
        console: Where to; None is the terminal.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(None, table_column=Column(ratio=1, max_width=40)),
        MofNCompleteColumn(),
        TextColumn("files"),
        _EventsPerSecond(table_column=Column(no_wrap=True)),
        _TimeLeft(table_column=Column(no_wrap=True)),
        disable=quiet,
        console=console,
    )


@contextlib.contextmanager
def file_counter(progress: Progress | None, label: str, files: int) -> Iterator[Callable[[int], None]]:
    """A function to call after each file with the number of events that were read, none if it came from the cache.

    Args:
        progress: The display, or None.
        label: Name of the data set.
        files: How many there will be.
    """
    if progress is None:
        yield _unseen
        return
    line = progress.add_task(label, total=files, events=0)

    def advance(events: int) -> None:
        progress.update(line, advance=1, events=progress.tasks[line].fields["events"] + events)

    yield advance


def _unseen(_: int) -> None:
    """Show nothing."""


class _TimeLeft(TimeRemainingColumn):
    """Nothing once there is nothing left, so that the line fits into 80 characters."""

    def render(self, task: Task) -> Text:
        return Text() if task.finished else super().render(task)


class _EventsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        events = task.fields["events"]
        seconds = task.finished_time or task.elapsed or 0
        if task.finished and not events:
            return Text("from the cache")
        return Text(f"{events:,} events" + (f", {events / seconds:,.0f}/s" if seconds else ""))
