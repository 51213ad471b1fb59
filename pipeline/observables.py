"""Observables: pure functions of the jets of an event and of which of them are selected and b-tagged.

An observable that is cheap to evaluate again for a flipped set, like HT, is just such a function. The trijet is not:
it is a search through all trijets. One pass over them answers the search for the event as it is *and* for every event
that differs by one flipped jet or one flipped b-tag. The trick is that a trijet c is admissible under a flip by pure
bit logic,

    missing = c ∖ S,  tags = c ∩ T     (S selected, T b-tagged and selected)
    flipping jet j :  nothing missing and tagged, j not in c; or only j missing, and tagged (j itself may be the tag)
    flipping tag j :  nothing missing, and tagged by another jet than j, or j becomes the tag

so one word holds the answer for all flips at once, and the bin of the first admissible trijet is kept as bit planes:
plane b holds bit b of the bin for each flip. The price does not grow with the number of flips.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from pipeline.events import Chunk

__all__ = ["TrijetChoice", "choose_trijet", "ht", "leading_jet_pt", "ranked_pt", "trijet_code"]

_NO_FLIP = 1 << 31
_ALL = 0xFFFFFFFF


def ht(pt: Float32[Array, "jets events"], selected: UInt32[Array, " events"]) -> Float32[Array, " events"]:
    """HT in GeV: scalar sum of the transverse momenta of the selected jets, added in stored order, in float32."""
    total = jnp.zeros(pt.shape[1:], pt.dtype)
    for j in range(pt.shape[0]):
        total += jnp.where(_has(selected, j), pt[j], 0)
    return total


def leading_jet_pt(pt: Float32[Array, "jets events"], selected: UInt32[Array, " events"]) -> Float32[Array, " events"]:
    """Largest transverse momentum of the selected jets in GeV; 0 where none is selected."""
    return jnp.max(jnp.stack([jnp.where(_has(selected, j), pt[j], 0) for j in range(pt.shape[0])]), axis=0)


def ranked_pt(
    pt: Float32[Array, "jets events"], selected: UInt32[Array, " events"], ranks: int
) -> Float32[Array, "ranks events"]:
    """Transverse momentum of the first `ranks` selected jets in stored order (never sorted), 0 where absent."""
    ranked = [jnp.zeros(pt.shape[1:], pt.dtype)] * ranks
    rank = jnp.zeros(pt.shape[1:], jnp.int32)
    for j in range(pt.shape[0]):
        here = _has(selected, j)
        ranked = [jnp.where(here & (rank == r), pt[j], value) for r, value in enumerate(ranked)]
        rank += here.astype(jnp.int32)
    return jnp.stack(ranked) if ranks else jnp.zeros((0, *pt.shape[1:]), pt.dtype)


class TrijetChoice(eqx.Module, strict=True):
    """The first admissible trijet of each event, and what it would be under each flip.

    `code` is an integer a trijet stands for (its bin); `jet_planes` and `tag_planes` hold its bits, one word a plane,
    one bit a flip. `mass` and `pt` in GeV belong to the event as it is; NaN where no trijet is admissible.
    """

    jet_planes: UInt32[Array, "planes events"]
    tag_planes: UInt32[Array, "planes events"]
    mass: Float32[Array, " events"]
    pt: Float32[Array, " events"]


class _Search(NamedTuple):
    """Which flips still wait for their first admissible trijet, and what has been found; planes as separate arrays."""

    jet_open: UInt32[Array, " events"]
    tag_open: UInt32[Array, " events"]
    jet_planes: tuple[UInt32[Array, " events"], ...]
    tag_planes: tuple[UInt32[Array, " events"], ...]
    mass: Float32[Array, " events"]
    pt: Float32[Array, " events"]


def choose_trijet(
    chunk: Chunk,
    code: Callable[[Float32[Array, " events"], Float32[Array, " events"]], Int32[Array, " events"]],
    planes: int,
    selected: UInt32[Array, " events"],
    btag: UInt32[Array, " events"],
) -> TrijetChoice:
    """The highest-pt trijet of selected jets of which at least one is b-tagged: as it is and under every single flip.

    Candidates are visited one by one. The loop is not unrolled: XLA would compute the shared bit logic again for each
    of its results (measured: 10 times slower on a CPU).

    Args:
        chunk: the events, with their trijets by falling pt.
        code: (mass, pt) of a trijet to its code, below 2^planes. A choice that finds nothing has the code 2^planes − 1.
        planes: bits of the code; 0 where no region and no cut looks at a trijet, and then none is searched.
        selected: selected jets.
        btag: jets that pass the b-tag cuts, selected or not.
    """
    empty, nan = jnp.zeros_like(selected), jnp.full(selected.shape, jnp.nan, jnp.float32)
    start = _Search(~empty, ~empty, (empty,) * planes, (empty,) * planes, nan, nan)

    def visit(row: Int32[Array, ""], search: _Search) -> _Search:
        mass, pt = chunk.trijet_mass[row], chunk.trijet_pt[row]
        jet_flips, tag_flips = _admissible(chunk.trijet_jets[row], selected, btag)
        jet_first, tag_first = jet_flips & search.jet_open, tag_flips & search.tag_open
        bits = [_spread(((code(mass, pt) >> plane) & 1) == 1) for plane in range(planes)]
        unflipped = (jet_first & jnp.uint32(_NO_FLIP)) != 0
        return _Search(
            jet_open=search.jet_open ^ jet_first,
            tag_open=search.tag_open ^ tag_first,
            jet_planes=tuple(word | (jet_first & bit) for word, bit in zip(search.jet_planes, bits, strict=True)),
            tag_planes=tuple(word | (tag_first & bit) for word, bit in zip(search.tag_planes, bits, strict=True)),
            mass=jnp.where(unflipped, mass, search.mass),
            pt=jnp.where(unflipped, pt, search.pt),
        )

    end = jax.lax.fori_loop(0, chunk.trijets, visit, start) if planes else start
    nothing = jnp.zeros((0, *selected.shape), jnp.uint32)
    return TrijetChoice(
        jet_planes=jnp.stack([word | end.jet_open for word in end.jet_planes]) if planes else nothing,
        tag_planes=jnp.stack([word | end.tag_open for word in end.tag_planes]) if planes else nothing,
        mass=end.mass,
        pt=end.pt,
    )


def trijet_code(planes: UInt32[Array, "planes events"], flip: UInt32[Array, " events"]) -> Int32[Array, " events"]:
    """The code of the chosen trijet of each event after a flip, from the planes of that kind of flip.

    Without a flip (flip = 0) only `TrijetChoice.jet_planes` know the answer.
    """
    bit = jnp.where(flip == 0, jnp.uint32(_NO_FLIP), flip)
    code = jnp.zeros(flip.shape, jnp.int32)
    for plane in range(planes.shape[0]):
        code |= jnp.where((planes[plane] & bit) != 0, jnp.int32(1 << plane), jnp.int32(0))
    return code


def _admissible(
    members: UInt32[Array, " events"], selected: UInt32[Array, " events"], btag: UInt32[Array, " events"]
) -> tuple[UInt32[Array, " events"], UInt32[Array, " events"]]:
    """The flips of a jet, and those of a b-tag, under which this trijet is admissible. Bit 31: without any flip."""
    none, all_ = jnp.uint32(0), jnp.uint32(_ALL)
    missing = members & ~selected
    tags = members & selected & btag
    tagged = _spread(tags != 0)
    complete = _spread(missing == 0)
    lacks_one = _spread((missing & (missing - jnp.uint32(1))) == 0) & ~complete
    jet_flips = (complete & tagged & ~members) | (lacks_one & missing & (tagged | btag))
    two_tags = jnp.where((tags & (tags - jnp.uint32(1))) != 0, all_, none)
    tag_flips = complete & ((tagged & ~members) | (members & ~btag) | (two_tags & tags))
    # A tag flip of a jet outside the trijet changes nothing for it; of its only tag, it makes it inadmissible.
    return jet_flips, tag_flips


def _spread(condition: Bool[Array, " events"]) -> UInt32[Array, " events"]:
    """All bits set where true."""
    return jnp.where(condition, jnp.uint32(_ALL), jnp.uint32(0))


def _has(bits: UInt32[Array, " events"], j: int) -> Bool[Array, " events"]:
    return (bits & jnp.uint32(1 << j)) != 0
