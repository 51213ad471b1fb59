"""The report in a real browser: no console message, no request beyond the page itself, nothing wider than a phone."""

import functools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed (chromium or google-chrome)"),
]

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
MEASURE = """<!doctype html><iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="out"></pre><script>
document.getElementById("f").addEventListener("load", () => {{
  const page = document.getElementById("f").contentDocument;
  const drawn = [...page.querySelectorAll("figure svg")].map(one => one.getBoundingClientRect());
  document.getElementById("out").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth, text: page.body.innerText.length,
    pictures: drawn.length, empty: drawn.filter(one => one.width < 100 || one.height < 50).length,
    links: page.defaultView.performance.getEntriesByType("resource").length }});
}});
</script>"""


class _Server(ThreadingHTTPServer):
    asked: list[str]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing; remember what was asked for."""
        assert isinstance(self.server, _Server)
        self.server.asked.append(self.path)


@pytest.fixture
def site(run_folder: Path, tmp_path: Path) -> Iterator[tuple[str, _Server, Path]]:
    shutil.copy(run_folder / "report.html", tmp_path)
    server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(tmp_path)))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server, tmp_path
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browse(profile: Path, *arguments: str) -> tuple[str, str]:
    """(page, log) of one visit with a fresh profile; no name but the local one can be resolved."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [360, 1280])
def test_report_fits_and_asks_for_nothing(site: tuple[str, _Server, Path], width: int) -> None:
    address, server, folder = site
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    page, log = browse(folder / "profile", "--virtual-time-budget=10000", "--dump-dom", f"{address}/measure.html")
    found = re.search(r'<pre id="out">(\{.*\})</pre>', page)
    assert found, page[-500:]
    seen = json.loads(found[1])
    assert seen["width"] <= width
    assert seen["pictures"] == 9
    assert seen["empty"] == 0
    assert seen["text"] > 3000
    assert seen["links"] == 0
    assert "CONSOLE" not in log
    assert set(server.asked) <= {"/measure.html", "/report.html", "/favicon.ico"}


def test_report_opens_from_the_disk_and_can_be_printed(run_folder: Path, tmp_path: Path) -> None:
    address = (run_folder / "report.html").as_uri()
    _, log = browse(tmp_path / "profile", f"--print-to-pdf={tmp_path / 'report.pdf'}", address)
    assert "CONSOLE" not in log
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
