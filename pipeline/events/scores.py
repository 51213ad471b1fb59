"""Learned variables of events: a network makes one number of other variables and of the members of sets.

Its inputs are functions of the selected sets, so the flux of thresholds and kinematic variations are right by
themselves: a flip calls the network again (`pipeline.events.threshold_flux`). The weights stand among the parameters of
the analysis beside the thresholds, under the name of the score. How they move events across the edges of bins is in
`pipeline.events.weight_flux`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, PyTree

from pipeline.events.flux import block_size, for_each
from pipeline.events.function import Sets
from pipeline.events.stacking import joined

__all__ = [
    "LARGEST_INPUT",
    "Input",
    "Network",
    "Score",
    "in_blocks",
    "inputs_of",
    "number_of_weights",
    "score_of",
    "standardised",
]

LARGEST_INPUT = 4.0
"""Standardised inputs approach this many widths: rare events must not steer a network."""


@dataclass(frozen=True)
class Input:
    """A variable of the events or a number of members, `n_<set>`; or, with a `set`, variables of its first members."""

    variables: tuple[str, ...]
    set: str | None = None
    number: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of each number that the network is told."""
        if self.set is None:
            return self.variables
        return tuple(f"{self.set}.{nth}.{variable}" for variable in self.variables for nth in range(self.number))


class Score(NamedTuple):
    """The static part of a learned variable: its name, its inputs, and its network without the weights."""

    name: str
    inputs: tuple[Input, ...]
    skeleton: Any


class Network(eqx.Module):
    """The traced part: weights, and how inputs are made comparable.

    `weights` is the half of a network with the arrays in it (`equinox.partition`): any callable pytree from
    standardised inputs, shape "inputs", to a scalar. `centre` and `width` are those of the inputs.
    """

    weights: PyTree
    centre: Float32[Array, " inputs"]
    width: Float32[Array, " inputs"]


def number_of_weights(network: Network) -> int:
    """What is trained of a network."""
    return sum(leaf.size for leaf in jax.tree.leaves(network.weights))


def inputs_of(
    score: Score, parts: dict[str, tuple[str, ...]], sets: Sets, variables: dict[str, Array]
) -> Float32[Array, "inputs events"]:
    """The raw inputs; NaN where there is no such member, or no value. `parts`: of the unions, for their numbers."""
    rows: list[Array] = []
    for each in score.inputs:
        if each.set is not None:
            members = sets[each.set].first(each.variables, each.number)
            rows.append(members.reshape(-1, members.shape[-1]))
            continue
        (variable,) = each.variables
        value = variables.get(variable)
        if value is None:
            of = variable.removeprefix("n_")
            value = sum((sets[part].count for part in parts.get(of, (of,))), start=jnp.int32(0))
        rows.append(value.astype(jnp.float32)[None])
    return joined(rows)


def standardised(network: Network, inputs: Float32[Array, "inputs events"]) -> Float32[Array, "inputs events"]:
    """Inputs of centre 0 and width 1, with tails drawn in; what is not there, or infinite, is at the centre."""
    scaled = (inputs - network.centre[:, None]) / network.width[:, None]
    scaled = jnp.where(jnp.isfinite(scaled), scaled, jnp.float32(0))
    return scaled / (1 + jnp.abs(scaled) / LARGEST_INPUT)


def score_of(score: Score, weights: PyTree, inputs: Float32[Array, "inputs events"]) -> Float32[Array, " events"]:
    """What the network says of standardised inputs."""
    # A GPU would round to fewer bits, and put events into other bins than a CPU.
    with jax.default_matmul_precision("highest"):
        return jax.vmap(eqx.combine(weights, score.skeleton), in_axes=1)(inputs)


def in_blocks(
    wanted: Bool[Array, " events"],
    of_events: Callable[[Int32[Array, " some"]], Float32[Array, "rows some"]],
    rows: int,
) -> Float32[Array, "rows events"]:
    """What costs much, for wanted events only, a block of them at a time; NaN for the others."""
    events = wanted.shape[0]
    place = jnp.cumsum(wanted.astype(jnp.int32)) - 1

    def visit(
        event: Int32[Array, " some"],
        _: Int32[Array, " some"],
        real: Bool[Array, " some"],
        state: tuple[Int32[Array, ""], Float32[Array, "rows places"]],
    ) -> tuple[Int32[Array, ""], Float32[Array, "rows places"]]:
        del real  # of the last block, more is computed than is looked up
        done, dense = state
        zero = jnp.zeros((), done.dtype)
        dense = jax.lax.dynamic_update_slice(dense, of_events(event), (zero, done))
        return done + jnp.asarray(event.shape[0], done.dtype), dense

    start = jnp.zeros((), jnp.int32), jnp.zeros((rows, events + block_size(events)), jnp.float32)
    _, dense = for_each(wanted.astype(jnp.int32), visit, start)
    return jnp.where(wanted[None], dense[:, jnp.maximum(place, 0)], jnp.float32(jnp.nan))
