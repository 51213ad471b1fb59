"""How every stage speaks to whoever listens: a terminal, a notebook, or nobody."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Silent"]

_log = logging.getLogger("pipeline")


@runtime_checkable
class Progress(Protocol):
    """Whoever listens."""

    def say(self, line: str) -> None:
        """What happens now, where it takes time."""

    def warn(self, line: str) -> None:
        """What the user must know, however quiet the listener is."""

    def counting(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A count of so many parts, such as files; to be called after each with the number of events in it."""


class Silent:
    """Shows nothing; a warning goes to the log, because it must not get lost."""

    def say(self, line: str) -> None:
        """Nothing."""

    def warn(self, line: str) -> None:
        """To the log."""
        _log.warning(line)

    @contextmanager
    def counting(self, label: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002 (of the protocol)
        """Nothing."""
        yield lambda _: None


SILENT: Progress = Silent()
"""The default of every stage."""
