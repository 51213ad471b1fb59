"""The first of what an event function prepared that the selected objects admit.

Cuts choose among candidates (all trijets, all assignments of jets) but never move one. So they are formed once and
sorted, best first, with a bit mask of the objects that each is made of. What is left for each threshold is integer work
on masks.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt

from pipeline.events.batch import Prepared

__all__ = ["AT_A_TIME", "MASK", "Admissible", "first_candidate", "many_at_once"]

AT_A_TIME = 5
"""Candidates in a block: each block has a price of its own, and the last one may look at too many. With five, there are
none too many for the trijets of five or seven jets, and for the fours of five or more."""
AT_ONCE = 64
"""The same on a GPU, where each turn of a loop is dear."""

MASK = "objects"
"""The column with the objects of a candidate."""

Admissible = Callable[..., Bool[Array, "*rows events"]]
"""Whether candidates are made of what is selected: of their masks, then of the sets, as bit masks of the events."""


def first_candidate(
    candidates: Prepared, columns: Sequence[str], admissible: Admissible, *sets: UInt[Array, " events"]
) -> dict[str, Array]:
    """Some columns of the first admissible candidate of each event; NaN, or 0 of a mask, where there is none.

    Args:
        candidates: of the events, the best first, with a column `MASK`, in whole blocks of `AT_A_TIME`.
        columns: which other columns to give.
        admissible: which candidates the sets admit; none that fills up the rows.
        sets: what is selected.
    """
    cpu, default = (partial(each, columns, admissible) for each in (_one_after_another, many_at_once))
    first: dict[str, Array] = jax.lax.platform_dependent(candidates, *sets, cpu=cpu, default=default)
    return first


def _one_after_another(
    columns: Sequence[str], admissible: Admissible, candidates: Prepared, *sets: UInt[Array, " events"]
) -> dict[str, Array]:
    """From the last to the first, a few at a time; each admissible one replaces what was found before.

    For the events of a chunk nothing is looked up, everything streams (a look-up of the chosen one alone took longer).
    Events that have to be gathered anyway look up the columns of the chosen one at the end: one gather a candidate
    instead of one more for each column.
    """
    blocks = candidates.rows // AT_A_TIME

    def ranks(done: Int32[Array, ""]) -> list[Int32[Array, ""]]:
        first = (blocks - 1 - done) * AT_A_TIME
        return [first + number for number in reversed(range(AT_A_TIME))]

    def streamed(done: Array, chosen: dict[str, Array]) -> dict[str, Array]:
        for rank in ranks(done.astype(jnp.int32)):
            better = admissible(candidates.row(MASK, rank), *sets)
            chosen = {name: jnp.where(better, candidates.row(name, rank), column) for name, column in chosen.items()}
        return chosen

    def looked_up(done: Array, chosen: Array) -> Array:
        for rank in ranks(done.astype(jnp.int32)):
            chosen = jnp.where(admissible(candidates.row(MASK, rank), *sets), rank, chosen)
        return chosen

    if candidates.event is None:
        absent = {name: jnp.full(sets[0].shape, _absent(candidates, name)) for name in columns}
        return jax.lax.fori_loop(0, blocks, streamed, absent)
    none = jnp.full(sets[0].shape, -1, jnp.int32)
    return _of_rank(candidates, columns, jax.lax.fori_loop(0, blocks, looked_up, none), none)


def many_at_once(
    columns: Sequence[str], admissible: Admissible, candidates: Prepared, *sets: UInt[Array, " events"]
) -> dict[str, Array]:
    """The smallest rank of an admissible candidate, many of them in one reduction."""
    events = sets[0].shape
    none = jnp.full(events, candidates.rows)

    def smallest(turn: Array, before: Int32[Array, " events"]) -> Int32[Array, " events"]:
        rank = turn.astype(jnp.int32) * AT_ONCE + jnp.arange(AT_ONCE, dtype=jnp.int32)[:, None]
        # What lies beyond the rows of these events belongs to others.
        masks = candidates.at(MASK, jnp.broadcast_to(rank, (AT_ONCE, *events)))
        allowed = admissible(masks, *(each[None] for each in sets)) & (rank < candidates.rows)
        return jnp.minimum(before, jnp.min(jnp.where(allowed, rank, candidates.rows), axis=0))

    return _of_rank(candidates, columns, jax.lax.fori_loop(0, -(-candidates.rows // AT_ONCE), smallest, none), none)


def _of_rank(
    candidates: Prepared, columns: Sequence[str], rank: Int32[Array, " events"], none: Int32[Array, " events"]
) -> dict[str, Array]:
    there, place = rank != none, jnp.maximum(rank, 0)
    return {name: jnp.where(there, candidates.at(name, place), _absent(candidates, name)) for name in columns}


def _absent(candidates: Prepared, name: str) -> Array:
    dtype = candidates.table[name].dtype
    return jnp.asarray(jnp.nan if jnp.issubdtype(dtype, jnp.floating) else 0, dtype)
