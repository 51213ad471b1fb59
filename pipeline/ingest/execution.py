"""Where the reading runs: in this process, in several, or wherever an executor sends it.

The interface is the standard library's `concurrent.futures`, which Dask speaks too
(`distributed.Client.get_executor()`), so a cluster needs no code of its own here.
"""

import concurrent.futures
import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import InputError

__all__ = ["cores", "outcomes", "quota", "workers_that_pay"]

Outcome = TypeVar("Outcome")

TIMES = ("quota", "period")

START = 4.0
"""Seconds until a new process is ready: it imports what the reading needs. Measured: 2.5 s on two quiet cores."""


def outcomes(
    function: Callable[..., Outcome],
    tasks: Sequence[tuple[Any, ...]],
    *,
    workers: int = 1,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Call a function for every task, and yield (position of the task, outcome) in the order in which they finish.

    The first exception stops the rest.

    Args:
        function: Importable by name, since it may run in another process.
        tasks: Arguments of each call; the first of them is what is being read, for messages.
        workers: Processes; 1 stays in this one.
        executor: Runs the calls instead of processes of this machine.

    Raises:
        InputError: A process was killed.
    """
    if executor is None and (workers == 1 or len(tasks) == 1):
        for position, task in enumerate(tasks):
            yield position, function(*task)
        return
    with _processes(min(workers, len(tasks))) if executor is None else contextlib.nullcontext(executor) as pool:
        with _interrupts_held():
            positions = {pool.submit(function, *task): position for position, task in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(positions):
                yield positions[future], future.result()
        except BrokenProcessPool as error:
            unread = dict.fromkeys(str(tasks[positions[future]][0]) for future in positions if _failed(future))
            raise InputError(_killed(list(unread))) from error
        finally:
            _stop(pool, positions)


def workers_that_pay(first: float, share: float, files: int) -> int:
    """Processes that end the reading soonest, once it is known how long the first file took.

    A process of its own costs some seconds before it reads anything, so it pays for files that take longer than that.

    Args:
        first: Seconds that the first file took.
        share: What is left to read, in units of the first file.
        files: How many files are left.
    """
    left = first * share
    candidates = range(1, max(1, min(cores(), files)) + 1)
    return min(candidates, key=lambda workers: left / workers + (START if workers > 1 else 0.0))


def cores() -> int:
    """Cores that this process may use: those it may run on, and no more than its control group has time for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, quota())))


def quota(groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Processor time that the control group of a container may use in as much time; infinite without a limit.

    `cpu.max` is that of control groups version 2 ("max 100000" or "400000 100000"), the other two are of version 1.
    """
    with contextlib.suppress(OSError):
        time, period = (groups / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if time == "max" else int(time) / int(period)
    with contextlib.suppress(OSError):
        time, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in TIMES)
        return math.inf if int(time) < 0 else int(time) / int(period)
    return math.inf


def _stop(pool: Executor, futures: Iterable[concurrent.futures.Future[Any]]) -> None:
    """Begin no further call."""
    if isinstance(pool, concurrent.futures.ProcessPoolExecutor):
        # Its own thread does it: a future that is cancelled from here while a process dies is an error in that thread.
        pool.shutdown(wait=False, cancel_futures=True)
        return
    for future in futures:
        future.cancel()


def _failed(future: concurrent.futures.Future[Any]) -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)


def _killed(unread: Sequence[str]) -> str:
    named = ", ".join(unread[:3]) + (f" and {len(unread) - 3} more" if len(unread) > 3 else "")
    return (
        f"{named}: a process that read one of these files was killed, most often because memory ran out; use fewer "
        "workers (data.workers), or 1."
    )


def _processes(workers: int) -> Executor:
    # Spawned, not forked: jax and uproot run threads, and a forked copy of a held lock never opens.
    return concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_die_with_the_parent
    )


def _die_with_the_parent() -> None:
    """Let Ctrl-C end this process without a word, since its parent has the word; and end it when the parent is gone."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes are started: they inherit that, until they are ready to die of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
