"""A real HTTP server on the loopback that can be told to misbehave."""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, and how badly.

    Attributes:
        files: Content by path, `/a.root`.
        drops: How many answers by path break off in the middle.
        statuses: Error statuses by path, sent one after the other before the first good answer.
        ranges: Whether range requests are understood.
        tags: ETags by path; a range is only given of the version that If-Range names.
        announced: Sizes by path that are announced instead of the true ones.
        redirects: Where a path sends the client.
        retry_after: What a refusal asks the client to wait, in seconds.
        lengths: Whether answers say how long they are.
        requests: Method, path and Range header of each request so far.
        url: Address of the root.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    tags: dict[str, str] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    retry_after: int | None = None
    lengths: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def ranges_asked(self, path: str) -> list[str | None]:
        """The Range headers of the GET requests for a path."""
        return [asked for method, requested, asked in self.requests if (method, requested) == ("GET", path)]


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site while the context is open."""
    handler = type("Handler", (_Handler,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _answer(self, *, body: bool) -> None:
        site, asked = self.site, self.headers.get("Range")
        site.requests.append((self.command, self.path, asked))
        if site.statuses.get(self.path):
            wait = {} if site.retry_after is None else {"Retry-After": str(site.retry_after)}
            return self._refuse(site.statuses[self.path].pop(0), wait)
        if self.path in site.redirects:
            return self._refuse(302, {"Location": site.redirects[self.path]})
        if self.path not in site.files:
            return self._refuse(404)
        content = site.files[self.path]
        changed = self.headers.get("If-Range", site.tags.get(self.path)) != site.tags.get(self.path)
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "") if site.ranges and not changed else None
        if span is None:
            start, stop = 0, len(content)
        elif span[1]:
            start, stop = int(span[1]), min(int(span[2] or len(content)) + 1, len(content))
        else:
            start, stop = max(len(content) - int(span[2]), 0), len(content)
        if start >= len(content) > 0:
            return self._refuse(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        if self.path in site.tags:
            self.send_header("ETag", site.tags[self.path])
        if site.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if site.lengths:
            self.send_header("Content-Length", str(site.announced.get(self.path, stop - start)))
        else:
            self.close_connection = True
        self.end_headers()
        if body:
            self._send(content[start:stop])
        return None

    def _send(self, content: bytes) -> None:
        if self.site.drops.get(self.path):
            self.site.drops[self.path] -= 1
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(content)
            self.close_connection = self.path in self.site.announced or not self.site.lengths

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
