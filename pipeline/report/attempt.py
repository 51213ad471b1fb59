"""What may fail without costing the result of a run: its failure becomes a sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["attempt"]


@contextmanager
def attempt(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Do something beside the result; if it fails, `warn` gets a sentence and the run goes on.

    Every exception counts, a defect of ours or of a library included: a result is worth more than its picture.
    """
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be made ({type(error).__name__}: {error}); the result is not affected")
