"""What libraries say about a file that is missing, cut short or out of reach, as one sentence with the way out.

A damaged file makes its readers fail in any way there is: cut and flipped bytes were seen to raise fifteen kinds of
exceptions, RecursionError, MemoryError and AttributeError among them. So whatever is raised while a library reads is
taken for the file's fault. Only calls of libraries stand inside `explained`, none of our own reckoning.
"""

import contextlib
from collections.abc import Iterator

import aiohttp

from pipeline.errors import InputError
from pipeline.ingest.remote import BUSY, refusal, unreachable

__all__ = ["explained", "may_pass"]

_BROKEN_OFF = (aiohttp.ClientError, TimeoutError, ConnectionError)


@contextlib.contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one sentence.

    Args:
        location: The path or URL that is being read.

    Raises:
        InputError: Instead of whatever the libraries raised.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(_sentence(location, error)) from error


def may_pass(error: BaseException | None) -> bool:
    """Whether another attempt may end better: a connection that broke, a server that is busy."""
    status = _status(error)
    return status in BUSY if status is not None else isinstance(error, _BROKEN_OFF)


def _status(error: BaseException | None) -> int | None:
    """The status of HTTP behind an error; fsspec hides all of them behind FileNotFoundError."""
    while error is not None:
        if isinstance(error, aiohttp.ClientResponseError):
            return error.status
        error = error.__cause__
    return None


def _sentence(location: str, error: Exception) -> str:
    status = _status(error)
    if status is not None:
        return refusal(location, status)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    match error:
        case FileNotFoundError():
            return f"{location}: no such file; correct the path, or get it with python -m pipeline.fetch."
        case IsADirectoryError():
            return f"{location}: is a folder; give the path of a file."
        case PermissionError():
            return f"{location}: may not be read (permission denied); change the rights of the file."
        case ValueError() if "Protocol not known" in str(error):
            return f"{location}: this protocol is not known; correct the prefix of its source in the manifest."
        case ImportError():
            return f"{location}: this protocol needs another package ({' '.join(str(error).split())[:200]})."
        case aiohttp.ClientError():
            return unreachable(location, error)
    if "://" in location:
        advice = "check the address and the network, or get it with python -m pipeline.fetch"
    else:
        advice = "it is damaged or incomplete, so fetch or make it again"
    return f"{location}: cannot be read ({reason}); {advice}."
