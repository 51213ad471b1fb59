"""The event function of the Analysis Grand Challenge: top-quark pairs in lepton + jets.

Its observables are HT and the mass of the hardest trijet with a b-tag (the AGC's `processor`; sets `jet` and `btag`).

Cuts choose among the trijets of an event but never move one. So all of them are formed once, for each kinematic
variation, and sorted by transverse momentum; after that, the AGC's choice is the first whose three jets are all
selected and of which one is b-tagged. That is integer work on bit masks.

Four-vectors are summed in float64, once, metric (+, −, −, −), natural units: momenta, masses and energies in GeV. The
mass is then rounded *down* to float32: for every bin edge that float32 can represent, `mass >= edge` keeps its truth
value, so histograms of the float32 mass equal those of the float64 mass.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, UInt, UInt32

from pipeline.analyses.candidates import AT_A_TIME, MASK, first_candidate
from pipeline.analyses.kinematics import invariant_mass, px_py_pz_energy, transverse_momentum
from pipeline.events.batch import Event, HostEvent, Prepared
from pipeline.events.function import Members, Sets
from pipeline.events.variations import round_down

__all__ = ["first_trijet", "ht", "leading_jet_pt", "prepare", "trijet_candidates", "variables"]

Trijets = tuple[
    UInt32[np.ndarray, "candidates events"],
    Float32[np.ndarray, "candidates events"],
    Float32[np.ndarray, "candidates events"],
]
"""(bit mask of three jets, mass, pt), both in GeV."""

BLOCK = 1 << 15
"""Numbers that are computed at a time."""


def prepare(event: HostEvent) -> dict[str, Any]:
    """All trijets of the events, by falling transverse momentum; as many rows as the busiest event has, in blocks.

    A jet of which a variable is NaN is in none: the AGC asks whether the largest of the three b-tags is above the
    threshold, and NumPy's maximum with NaN is NaN. A mass that is NaN does not matter here: the choice is by pt.
    """
    jets = event.objects["jet"]
    incomplete = [np.isnan(column) for name, column in jets.items() if name not in ("pt", "mass")]
    pt = np.where(np.logical_or.reduce(incomplete), np.nan, jets["pt"]).astype(np.float64)
    number = int(np.flatnonzero(~np.isnan(jets["pt"]).all(axis=1)).max(initial=-1)) + 1
    rows = -(-(number * (number - 1) * (number - 2) // 6) // AT_A_TIME) * AT_A_TIME
    types = COLUMNS | ({MASK: np.uint16} if len(pt) <= 16 else {})
    if event.asked is not None and "trijet_pt" not in event.asked:
        types.pop("pt")
    columns = {name: np.zeros((rows, pt.shape[1]), dtype) for name, dtype in types.items()}
    if rows:
        # Absent jets come last, and a chunk has room for more jets than its events have.
        direction = (jets[name][:number].astype(np.float32) for name in ("eta", "phi", "mass"))
        trijets = dict(zip(COLUMNS, trijet_candidates(pt[:number], *direction), strict=True))
        for name, column in columns.items():
            column[: len(trijets[name])] = trijets[name][:rows]
    return columns


FOLLOWS = frozenset({"jet.pt"})
"""What may be calibrated: the order of trijets by pt stays, since all jets are scaled alike."""

COLUMNS = {MASK: np.uint32, "mass": np.float32, "pt": np.float32}
"""What `prepare` makes: a trijet as a bit mask of its jets, and its mass and pt in GeV. They are most of the
memory that events take, so masks have 16 bits where that is enough, and pt is there where it is asked for."""


def variables(event: Event, sets: Sets) -> dict[str, Float32[Array, " events"]]:
    """`ht`, `leading_jet_pt`, and of the chosen trijet `trijet_mass` and, if prepared, `trijet_pt`; all in GeV."""
    jet = sets["jet"]
    values = {"ht": ht(jet), "leading_jet_pt": leading_jet_pt(jet)}
    if "btag" in sets:
        trijet = first_trijet(event.prepared, jet.bits, sets["btag"].bits, with_objects=event.before is not None)
        if event.before is not None:
            trijet = _calibrated(trijet, event.before.objects["jet"], event.objects["jet"])
        values |= {f"trijet_{name}": column for name, column in trijet.items()}
    return values


def _calibrated(trijet: dict[str, Array], before: dict[str, Array], after: dict[str, Array]) -> dict[str, Array]:
    """Mass and pt of trijets as prepared, after calibrations of their jets: with a common scale of pt, none overtakes.

    They change by the ratio of what their three jets give now and before, which is 1 without a change.
    """
    bits = trijet[MASK].astype(jnp.uint32)

    def mass_and_pt(jets: dict[str, Array]) -> dict[str, Array]:
        three = Members(bits=bits, columns=jets).first(("pt", "eta", "phi", "mass"), 3).astype(jnp.float64)
        px, py, pz, energy = (component.sum(axis=0) for component in px_py_pz_energy(*three))
        return {"mass": invariant_mass(px, py, pz, energy), "pt": transverse_momentum(px, py)}

    now, then = mass_and_pt(after), mass_and_pt(before)
    return {
        name: column * (now[name] / then[name]).astype(jnp.float32) for name, column in trijet.items() if name != MASK
    }


def ht(jet: Members) -> Float32[Array, " events"]:
    """HT in GeV: scalar sum of the transverse momenta of the selected jets, added in stored order, in float32."""
    return jnp.sum(jet.column("pt", 0.0), axis=0)


def leading_jet_pt(jet: Members) -> Float32[Array, " events"]:
    """Largest transverse momentum of the selected jets in GeV; 0 where none is selected."""
    return jnp.max(jet.column("pt", 0.0), axis=0)


def first_trijet(
    trijets: Prepared,
    selected: UInt32[Array, " events"],
    tagged: UInt32[Array, " events"],
    *,
    with_objects: bool = False,
) -> dict[str, Array]:
    """Mass and pt in GeV of the highest-pt trijet of selected jets with a b-tag; NaN where there is none.

    Args:
        trijets: of the events, as `prepare` made them: with pt, or without.
        selected: selected jets.
        tagged: those of them that are b-tagged.
        with_objects: also give its three jets, as a bit mask: 0 where there is none.
    """
    columns = [name for name in COLUMNS if name in trijets.table and (with_objects or name != MASK)]
    return first_candidate(trijets, columns, _admissible, selected, tagged)


def _admissible(
    jets: UInt[Array, "*rows events"], selected: UInt32[Array, "*one events"], tagged: UInt32[Array, "*one events"]
) -> Bool[Array, "*rows events"]:
    """Which trijets are made of selected jets, one of them with a b-tag."""
    jets = jets.astype(jnp.uint32)
    return ((jets & ~selected) == 0) & ((jets & tagged) != 0)


def trijet_candidates(
    pt: Float64[np.ndarray, "jets events"],
    eta: Float32[np.ndarray, "jets events"],
    phi: Float32[np.ndarray, "jets events"],
    mass: Float32[np.ndarray, "jets events"],
) -> Trijets:
    """All 3-combinations of the jets of every event, by falling transverse momentum (ties: lexicographic).

    The jet mass is not scaled with pt, as in the AGC (`processor`, `four_vecs`). Trijets of absent jets come last.
    Momenta of jets and of trijets are compiled apart, since XLA would compute those of a jet anew for each trijet that
    it is in; and NumPy sorts faster.
    """
    triples = np.array(list(combinations(range(len(pt)), 3)), np.int64).reshape(-1, 3)
    first, second, third = triples.T
    jets = _of_numbers(px_py_pz_energy, pt, *(column.astype(np.float64) for column in (eta, phi, mass)))
    trijets = (component[first] + component[second] + component[third] for component in jets)
    trijet_pt, trijet_mass = _of_numbers(_pt_and_mass, *trijets)
    order = np.argsort(-trijet_pt.T, axis=1, kind="stable").T
    masks = (1 << triples).sum(axis=1).astype(np.uint32)
    falling_mass, falling_pt = (np.take_along_axis(each, order, axis=0) for each in (trijet_mass, trijet_pt))
    # On the host: on a GPU, XLA takes a number in float32 and back for the number (`xla_allow_excess_precision`).
    return masks[order], round_down(falling_mass), falling_pt.astype(np.float32)


def _pt_and_mass(
    px: Float64[Array, "..."], py: Float64[Array, "..."], pz: Float64[Array, "..."], energy: Float64[Array, "..."]
) -> tuple[Float64[Array, "..."], Float64[Array, "..."]]:
    return transverse_momentum(px, py), invariant_mass(px, py, pz, energy)


def _of_numbers(
    function: Callable[..., tuple[Array, ...]], *columns: Float64[np.ndarray, "..."]
) -> list[Float64[np.ndarray, "..."]]:
    """A function of numbers, compiled for blocks of one size: for each shape anew takes longer than all the rest."""
    shape, number = columns[0].shape, columns[0].size
    flat = [np.pad(column.ravel(), (0, -number % BLOCK)).reshape(-1, BLOCK) for column in columns]
    blocks = [_compiled(function)(*block) for block in zip(*flat, strict=True)]
    return [np.concatenate([*map(np.asarray, each)])[:number].reshape(shape) for each in zip(*blocks, strict=True)]


@cache
def _compiled(function: Callable[..., tuple[Array, ...]]) -> Any:
    return jax.jit(function)
