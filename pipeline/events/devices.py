"""Several devices: each works its own events, without waiting for another, and what comes out is added up.

The chunks of a group are dealt out to the devices (`pipeline.events.dense`). Along every axis of chunks, tasks or
prepared rows, equal stretches belong to one device after another; numbers of chunks and rows count within a stretch, so
that a device needs no other. One compiled program serves all of them. Nothing is exchanged while it runs: its results
have an axis `devices` in front, and are added afterwards, on one device, always in the same order.
"""

from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from pipeline.events.batch import EventGroup

__all__ = ["added", "compiled", "deal", "divided_axis", "from_devices", "on_each_device", "placed", "summed"]

AXIS = "devices"
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,WHILE,CONDITIONAL"
"""What may be part of a graph of kernels (CUDA graph) on a GPU; XLA by itself leaves out what branches."""
KINEMATICS_FIRST = ("varied_objects", "varied_columns", "first", "rows")
"""Columns of a group whose first axis is that of kinematic variations; that of chunks comes second."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def deal(cost: np.ndarray, load: np.ndarray) -> np.ndarray:
    """Numbers of chunks for each device, as many for all: the costliest first, each to the one with least to do.

    Args:
        cost: of each chunk.
        load: what each device has to do already; the cost of its chunks is added to it.

    Returns:
        Shape "devices chunks", −1 where a device has fewer.
    """
    room = -(-len(cost) // len(load))
    hands: list[list[int]] = [[] for _ in load]
    for chunk in np.argsort(-cost, kind="stable"):
        device = min((place for place, hand in enumerate(hands) if len(hand) < room), key=lambda place: load[place])
        hands[device].append(int(chunk))
        load[device] += cost[chunk]
    return np.array([sorted(hand) + [-1] * (room - len(hand)) for hand in hands], np.int64).reshape(len(load), room)


def placed(column: np.ndarray, devices: int, axis: int = 0) -> Array:
    """A column of a group in the memory of the devices, which have equal stretches along an axis."""
    if devices == 1:
        return jnp.asarray(column)
    return jax.device_put(column, NamedSharding(_mesh(devices), _along(axis)))


def from_devices(pieces: list[Array], axis: int) -> Array:
    """A column of a group from the stretches of all devices along an axis, each in the memory of its device."""
    if len(pieces) == 1:
        return pieces[0]
    shape = list(pieces[0].shape)
    shape[axis] *= len(pieces)
    sharding = NamedSharding(_mesh(len(pieces)), _along(axis))
    return jax.make_array_from_single_device_arrays(tuple(shape), sharding, pieces)


def on_each_device(work: Callable[[tuple[EventGroup, ...]], Result], groups: tuple[EventGroup, ...]) -> Result:
    """What each device makes of its part of the groups, with an axis `devices` in front of every array."""

    def stacked(groups: tuple[EventGroup, ...]) -> Result:
        return jax.tree.map(lambda each: each[None], work(groups))

    # One device is no exception: another program would round the sums of float32 otherwise.
    devices = max((group.devices for group in groups), default=1)
    axes = tuple(_axes(group) for group in groups)
    return jax.shard_map(stacked, mesh=_mesh(devices), in_specs=(axes,), out_specs=_along(0), check_vma=False)(groups)


def compiled(function: Callable[Parameters, Result], static: tuple[int, ...] = ()) -> Callable[Parameters, Result]:
    """A pass over the events, compiled; `static`: places of such arguments.

    A GPU runs it as one graph, loops included: to launch its many small kernels one by one takes longer than they do.
    """

    @cache
    def program(graphs: bool) -> Callable[Parameters, Result]:
        options = {"xla_gpu_enable_command_buffer": GRAPHS} if graphs else None
        return jax.jit(function, static_argnums=static, compiler_options=options)

    @wraps(function)
    def run(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        # Within another function that is compiled, it has no options of its own.
        graphs = jax.default_backend() == "gpu" and not _traced((arguments, keywords))
        return program(graphs)(*arguments, **keywords)

    return run


def summed(function: Callable[Parameters, Result], static: tuple[int, ...] = ()) -> Callable[Parameters, Result]:
    """A function with results of each device, compiled, and these added; `static`: places of such arguments."""
    pass_over_events = compiled(function, static)

    @wraps(function)
    def sum_of(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        return added(pass_over_events(*arguments, **keywords))

    return sum_of


def added(results: Result) -> Result:
    """Results of each device, added: the first axis of every array goes."""
    if not _traced(results):
        # By way of the host: devices that wait for each other would be killed by XLA when one is late.
        results = jax.device_get(results)
    return _added(results)


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


@jax.jit
def _added(results: Any) -> Any:
    return jax.tree.map(lambda each: each.sum(axis=0), results)


@lru_cache
def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))


def divided_axis(field: str) -> int:
    """The axis along which the columns of a field of a group are divided among the devices."""
    return int(field in KINEMATICS_FIRST)


def _along(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, AXIS)  # type: ignore[no-untyped-call]


def _axes(group: EventGroup) -> EventGroup:
    axes: EventGroup = jax.tree_util.tree_map_with_path(lambda path, _: _along(divided_axis(path[0].name)), group)
    return axes
