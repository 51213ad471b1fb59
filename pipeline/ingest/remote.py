"""What a web server says about a file, and what that means for who wants to read it.

A server that is busy (429, 500, 502, 503, 504), or whose connection broke, is asked again, after the pause that it asks
for (`Retry-After`) but no longer than a minute. Every other refusal becomes one sentence at once.
"""

import logging
import re
import ssl
from dataclasses import dataclass
from typing import Any

import urllib3

from pipeline.errors import InputError

__all__ = ["HTTP", "RemoteFile", "UnreachableError", "check_page", "is_http", "probe", "refusal", "request"]

LONGEST_PAUSE = 60.0
"""Seconds that a server may make us wait before it is asked again."""
BUSY = (429, 500, 502, 503, 504)
HEAD = 512
"""Bytes that a probe asks for: enough to tell a ROOT file from a web page."""


class UnreachableError(InputError):
    """The server does not answer, so there is no need to ask it for another file."""


# What is tried again is no news; what fails in the end is one sentence.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class _Retry(urllib3.Retry):
    """As urllib3's, with an end to the pauses that a server may ask for; a bad certificate stays bad."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *rest: Any,
        **options: Any,
    ) -> "_Retry":
        if isinstance(error, urllib3.exceptions.SSLError):
            raise error
        return super().increment(method, url, response, error, *rest, **options)

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(float(seconds), LONGEST_PAUSE)


HTTP = urllib3.PoolManager(
    maxsize=16,
    timeout=urllib3.Timeout(connect=20, read=60),
    retries=_Retry(total=5, backoff_factor=0.2, status_forcelist=BUSY, raise_on_status=False),
)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a web server.

    Attributes:
        size: Bytes.
        tag: The server's name for this version; empty if it has none.
        head: The first bytes.
    """

    size: int
    tag: str
    head: bytes


def is_http(location: str) -> bool:
    """Whether a location is on a web server."""
    return re.match("https?://", location) is not None


def probe(location: str) -> RemoteFile:
    """Ask for the first bytes of a file that will be read in ranges.

    Args:
        location: URL.

    Raises:
        UnreachableError: The server does not answer.
        InputError: It refuses, or cannot send ranges of a file.
    """
    answer = request(location, {"Range": f"bytes=0-{HEAD - 1}"})
    try:
        span = re.fullmatch(r"bytes 0-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and span:
            head = answer.read(HEAD, decode_content=False)
            return RemoteFile(size=int(span[1]), tag=version(answer), head=head)
        if answer.status == 416:
            return RemoteFile(size=0, tag=version(answer), head=b"")
        if answer.status in (200, 206):
            head = answer.read(HEAD, decode_content=False)
            check_page(location, head)
            raise InputError(
                f"{location}: the server does not send parts of a file; get the whole with python -m pipeline.fetch, "
                "or use another prefix."
            )
        raise InputError(refusal(location, answer.status, answer.reason or ""))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UnreachableError(unreachable(location, error)) from error
    finally:
        answer.close()


def request(location: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """The answer to a GET, whatever its status; the body is not read yet.

    Raises:
        UnreachableError: The server does not answer.
    """
    headers = {"Accept-Encoding": "identity", **headers}
    try:
        return HTTP.request("GET", location, headers=headers, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(unreachable(location, error)) from error


def version(answer: urllib3.BaseHTTPResponse) -> str:
    """The tag of the version that was sent, or its time."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def web_page(head: bytes) -> bool:
    """Whether these first bytes are of a web page."""
    return head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def check_page(location: str, head: bytes) -> None:
    """Refuse a web page in the place of a file.

    Raises:
        InputError: These first bytes are of one.
    """
    if web_page(head):
        raise InputError(
            f"{location}: the server sends a web page, perhaps a login, instead of the file; log in and use the "
            "address that it then gives, or use another prefix."
        )


def refusal(location: str, status: int, reason: str = "") -> str:
    """A sentence for a status that is no success.

    Args:
        location: URL.
        status: Of HTTP.
        reason: The server's own words.
    """
    said = f"{status} {reason}".strip()
    if status in (401, 407):
        return f"{location}: the server wants a login ({said}); use an address with a token, or another prefix."
    if status == 403:
        return f"{location}: the server refuses access ({said}); ask its owner for leave, or use another prefix."
    if status in (404, 410):
        return f"{location}: no such file on the server ({said}); check the manifest, or use another prefix."
    if 300 <= status < 400:
        return f"{location}: the server sends the request in circles ({said}); check the address."
    if status == 429 or status >= 500:
        return f"{location}: the server is busy or fails ({said}), asked several times; try again later."
    return f"{location}: the server refuses ({said}); check the address, or use another prefix."


def unreachable(location: str, error: Exception) -> str:
    """A sentence for a server that gave no answer."""
    cause = getattr(error, "reason", None) or error
    reason = " ".join(str(cause).split())[:200]
    if "too many redirects" in reason:
        return f"{location}: the server sends the request in circles (too many redirects); check the address."
    if isinstance(cause, (urllib3.exceptions.SSLError, ssl.SSLError)):
        return (
            f"{location}: the server's certificate cannot be trusted ({reason}); install the certificates of its "
            "authority and name them in SSL_CERT_FILE, or use another prefix."
        )
    return f"{location}: cannot be reached ({reason}); check the address and the network."
