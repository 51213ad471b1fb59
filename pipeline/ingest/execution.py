"""Where the reading runs: in this process, in several, or wherever an executor sends it.

The interface is the standard library's `concurrent.futures`, which Dask speaks too
(`distributed.Client.get_executor()`), so a cluster needs no code of its own here.
"""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["outcomes"]

Outcome = TypeVar("Outcome")


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
        tasks: Arguments of each call.
        workers: Processes; 1 stays in this one.
        executor: Runs the calls instead of processes of this machine.
    """
    if executor is None and (workers == 1 or len(tasks) == 1):
        for position, task in enumerate(tasks):
            yield position, function(*task)
        return
    with _processes(min(workers, len(tasks))) if executor is None else contextlib.nullcontext(executor) as pool:
        positions = {pool.submit(function, *task): position for position, task in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(positions):
                yield positions[future], future.result()
        finally:
            for future in positions:
                future.cancel()


def _processes(workers: int) -> Executor:
    # Spawned, not forked: jax and uproot run threads, and a forked copy of a held lock never opens.
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
