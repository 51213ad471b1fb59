"""Figures to files, in processes of their own: drawing a picture takes longer than computing the next one.

A figure travels as matplotlib pickles it. `python -m pipeline.report.drawing` is such a process: it draws what it reads
from standard input, one figure after the other, and answers with the SVG of each, or with what went wrong.
"""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.report.pictures import look

__all__ = ["drawing", "files_of"]

RESOLUTION = 160
"""Dots per inch of the PNG files."""

PROCESSES = 2


def files_of(folder: Path, name: str, figure: Figure) -> str:
    """PNG and PDF into the folder, SVG for the page; laid out once and drawn three times, where `savefig` draws six."""
    folder.mkdir(exist_ok=True)
    svg = io.StringIO()
    with look.style(name):
        look.lay_out(figure)
        _draw(FigureCanvasSVG(figure).print_svg, svg, metadata={"Date": None})
        _draw(FigureCanvasPdf(figure).print_pdf, folder / f"{name}.pdf", metadata={"CreationDate": None})
        # A picture in a file of its own may end up on a dark slide.
        figure.set_facecolor("white")
        figure.set_dpi(RESOLUTION)
        _draw(FigureCanvasAgg(figure).print_png, folder / f"{name}.png")
    return svg.getvalue()


@contextmanager
def drawing() -> Iterator[Callable[[Path, str, Figure], "Future[str]"]]:
    """`files_of`, each call of which returns at once; the last of them is done when the context ends."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ExitStack() as stack:
        idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for _ in range(PROCESSES):
            command = [sys.executable, "-m", "pipeline.report.drawing"]
            environment = os.environ | {"PYTHONPATH": path}
            # To leave it closes its input, which ends it.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            idle.put(stack.enter_context(process))
        pool = stack.enter_context(ThreadPoolExecutor(PROCESSES))

        def apart(folder: Path, name: str, pickled: bytes) -> str:
            process = idle.get()
            try:
                answer = _answer(process, (folder, name, pickled))
            except (OSError, EOFError) as error:
                raise RuntimeError("the process that draws has ended") from error
            finally:
                idle.put(process)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        yield lambda folder, name, figure: pool.submit(apart, folder, name, pickle.dumps(figure))


def _answer(process: "subprocess.Popen[bytes]", question: tuple[Path, str, bytes]) -> Any:
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None
    pickle.dump(question, to)
    to.flush()
    return pickle.load(back)


def _draw(print_: Callable[..., Any], target: Path | io.StringIO, **options: Any) -> None:
    """Call one of matplotlib's writers, which have no type annotations."""
    print_(target, **options)


def _serve() -> None:
    while True:
        try:
            folder, name, pickled = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: Any = files_of(folder, name, pickle.loads(pickled))
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
