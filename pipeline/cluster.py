"""Many machines: the workers of a Dask cluster make arrays of the events, keep them on disk, and compute with them.

What follows from events are sums over them, so only those travel: yields up, thresholds and the slope of the loss down;
the flux, which is large, stays with the worker that computed it. Parts of the events lie in the folder `data.cache`,
which all machines share. A block of them has its place at a worker, which reads it faster than another one could; when
the worker dies, Dask gives it to another one. Blocks are as many as there were workers at the start and are added in
their order, so the numbers are the same to the bit, whoever computed them.

Everything is a task of `dask.distributed`, none an actor: what an actor held would be lost with its worker, and the
repeating of the step would be our own code.
"""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
import numpy as np

from pipeline.errors import InputError
from pipeline.event_data import KeptFlux, OfPart, Stream, sum_over_parts
from pipeline.events.stream import StoredParts

__all__ = ["Cluster", "connected"]

LOCAL = "local:"
PATIENCE = 20.0
"""Seconds to wait for an answer of the scheduler, and for the first worker."""
DEATHS = 100
"""Of workers with the same task, on a cluster of our own, until the task is to blame."""


@contextmanager
def connected(address: str) -> Iterator["Cluster"]:
    """The cluster at an address, `tcp://host:8786`, or one of our own on this machine, `local:4`.

    Raises:
        InputError: there is none, or no worker; or it is lost while it is used.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(f"--cluster {address}: dask.distributed is not installed; pip install '.[dask]'") from None
    for name in ("distributed", "distributed.scheduler", "distributed.core", "distributed.nanny", "distributed.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what is told of workers that come and go is not for users
    own = None
    if address.startswith(LOCAL):
        number = address.removeprefix(LOCAL)
        if not number.isdigit() or not int(number):
            raise InputError(f"--cluster {address}: say how many workers, as in local:4")
        dask.config.set({"distributed.scheduler.allowed-failures": DEATHS})
        own = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=int(number),
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        )
    client = None
    try:
        client = Client(own or address, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
        client.wait_for_workers(1, timeout=PATIENCE)
        yield Cluster(client)
    except (OSError, TimeoutError, CancelledError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"--cluster {address}: its scheduler or all of its workers cannot be reached ({reason}); steps that were "
            "kept are kept: --resume goes on from there"
        ) from error
    finally:
        if client is not None:
            client.close(timeout=1)  # type: ignore[no-untyped-call]
        if own is not None:
            own.close(timeout=5)


class Cluster:
    """Workers (`pipeline.event_data.Workers`), as they were when the run began, and as many blocks of the events."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._blocks: dict[tuple[str, tuple[int, ...]], list[Any]] = {}
        self.number = len(client.scheduler_info(n_workers=-1)["workers"])

    @property
    def executor(self) -> Executor:
        """What reads files on the workers."""
        executor: Executor = self._client.get_executor(pure=False)
        return executor

    def check_shared(self, folder: Path) -> None:
        """Raise where a worker does not see a folder.

        Raises:
            InputError: with the worker.
        """
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / f".{uuid4().hex}"
        token.touch()
        try:
            seen = self._client.run(partial(_exists, str(token)))
        finally:
            token.unlink()
        blind = [worker for worker, sees in seen.items() if not sees]
        if blind:
            raise InputError(
                f"{folder}: the worker {blind[0]} does not see this folder; name one with data.cache that all machines "
                "share"
            )

    def each(self, function: Callable[[int], None], numbers: Sequence[int]) -> Iterable[None]:
        """Call a function for each number, in any order."""
        from distributed import as_completed

        shared = self._client.scatter(function, hash=False)
        tasks = [self._client.submit(_call, shared, number, pure=False) for number in numbers]
        for task in as_completed(tasks, loop=self._client.loop):  # type: ignore[no-untyped-call]
            yield task.result()

    def total(self, function: OfPart, analysis: Any, arguments: tuple[Any, ...], stream: Stream) -> Any:
        """The sum over the parts of `function(analysis, *arguments, part)`."""
        return self._total(self._sums(function, analysis, arguments, stream))

    def flux(self, function: OfPart, analysis: Any, arguments: tuple[Any, ...], stream: Stream) -> KeptFlux:
        """Of a function that returns yields and flux of a part, each with an axis of the devices in front."""
        kept = self._sums(function, analysis, arguments, stream)

        def gradient(slope: Any) -> Any:
            return self._total([self._client.submit(_gradient, np.asarray(slope), each, pure=False) for each in kept])

        return KeptFlux(self._total([self._client.submit(_yields, each, pure=False) for each in kept]), gradient)

    def _total(self, sums: Sequence[Any]) -> Any:
        """Of what is asked of the blocks, in their order."""
        return jax.tree.map(jax.numpy.asarray, reduce(_added, self._client.gather(sums)))

    def _sums(self, function: OfPart, analysis: Any, arguments: tuple[Any, ...], stream: Stream) -> list[Any]:
        """Of each block, as futures."""
        import cloudpickle

        # The same bytes each time: workers know an analysis by them, and compile it once.
        what = cloudpickle.dumps((function, analysis))
        how = cloudpickle.dumps((jax.device_get(arguments), jax.device_get(stream.edges), stream.changes))
        return [self._client.submit(_sum_of_block, what, how, block, pure=False) for block in self._blocks_of(stream)]

    def _blocks_of(self, stream: Stream) -> list[Any]:
        """As futures, each of which has its place at a worker."""
        key = (str(stream.stored.folder), stream.numbers)
        if key not in self._blocks:
            numbers = np.array_split(np.array(stream.numbers), self.number)
            self._blocks[key] = [
                self._client.submit(Block, stream.stored.folder, tuple(map(int, own)), pure=False)
                for own in numbers
                if len(own)
            ]
        return self._blocks[key]


# --- what workers do ---


def _exists(path: str) -> bool:
    return Path(path).exists()


def _call(function: Callable[[int], None], number: int) -> None:
    function(number)


@dataclass(frozen=True)
class Block:
    """Some parts. It is said to be as large as they are, so that Dask computes with it where it is."""

    folder: Path
    numbers: tuple[int, ...]

    def __sizeof__(self) -> int:
        return sum(file.stat().st_size for number in self.numbers for file in self.folder.glob(f"part_{number:05}/*"))


def _sum_of_block(what: bytes, how: bytes, block: Block) -> Any:
    """The sum over its parts, as NumPy arrays."""
    function, analysis = _known(what)
    arguments, edges, changes = pickle.loads(how)
    stored = _stored(block.folder)
    stream = Stream(stored, block.numbers, edges, None, changes)  # type: ignore[arg-type]  # no templates are made
    return jax.device_get(sum_over_parts(function, analysis, jax.tree.map(jax.numpy.asarray, arguments), stream)[0])


def _yields(kept: tuple[Any, Any]) -> Any:
    return kept[0].sum(axis=0)


def _gradient(slope: Any, kept: tuple[Any, Any]) -> Any:
    from pipeline.analysis import gradient_of_subsamples

    return jax.device_get(gradient_of_subsamples(slope, kept[1]))


@lru_cache(maxsize=8)
def _known(what: bytes) -> Any:
    return pickle.loads(what)


@lru_cache(maxsize=8)
def _stored(folder: Path) -> StoredParts:
    """With the memory that it used before."""
    return StoredParts(folder)


def _added(first: Any, second: Any) -> Any:
    return jax.tree.map(np.add, first, second)
