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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
import numpy as np

import pipeline
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
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise InputError(f"--cluster {address}: dask.distributed is not installed; pip install '.[dask]'") from None
    # What is told of workers that come and go is not for users.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    number = _number(address) if address.startswith(LOCAL) else 0
    with ExitStack() as stack:
        try:
            scheduler: Any = address
            if number:
                dask.config.set({"distributed.scheduler.allowed-failures": DEATHS})
                local = LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=number,
                    threads_per_worker=1,
                    memory_limit=None,
                    dashboard_address=":0",
                    silence_logs=logging.ERROR,
                )
                stack.callback(local.close, timeout=5)
                scheduler = local
            client = Client(scheduler, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
            stack.callback(client.close, timeout=1)
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--cluster {address}: no scheduler with a worker can be reached ({_said(error)})"
            ) from error
        try:
            yield Cluster(client)
        except KilledWorker as error:
            raise InputError(
                f"--cluster {address}: workers die of the same task again and again ({_said(error)}), most often "
                "because memory runs out; give each of them more, or say a smaller data.memory; --resume goes on"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise InputError(
                f"--cluster {address}: the scheduler cannot be reached any more ({_said(error)}); steps that were kept "
                "are kept: --resume goes on from there"
            ) from error


def _number(address: str) -> int:
    """Of workers of a cluster of our own."""
    number = address.removeprefix(LOCAL)
    if not number.isdigit() or not int(number):
        raise InputError(f"--cluster {address}: say how many workers, as in local:4")
    return int(number)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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

    def check(self, folder: Path) -> None:
        """Raise where a worker does not see a folder, or does not have this package.

        Raises:
            InputError: with the worker.
        """
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / f".{uuid4().hex}"
        token.touch()
        try:
            seen = self._client.run(partial(_sees, str(token)), on_error="return")
        finally:
            token.unlink()
        for worker, answer in seen.items():
            version = _said(answer) if isinstance(answer, BaseException) else answer[1]
            if version != pipeline.__version__:
                raise InputError(
                    f"the worker {worker} does not have version {pipeline.__version__} of this package ({version}); "
                    "install it where the workers run"
                )
            if not answer[0]:
                raise InputError(
                    f"{folder}: the worker {worker} does not see this folder; name one with data.cache that all "
                    "machines share"
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


def _sees(path: str) -> tuple[bool, str]:
    return Path(path).exists(), pipeline.__version__


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
