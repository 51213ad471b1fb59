"""The event function of the AGC's machine learning: which jet is which quark of a top-quark pair, as a BDT has it.

An assignment names four jets (w1, w2, btophad, btoplep): two from the W boson of the top quark that decays to hadrons,
the later one in stored order first, the b quark beside them, and the b quark of the top quark that decays to the
lepton. The AGC (`utils/ml.py`) forms all of them from the first six selected jets, tells a BDT twenty features of each,
and takes the one with the highest score, the first of equals in lexicographic order. A b-tag is a feature and no
condition.

Neither features nor scores know of a threshold. So all assignments of the stored jets are scored once by the frozen
BDT, on the host, for each kinematic variation and each stored lepton, and sorted by score. After that the AGC's choice
is the first one whose lepton is selected and whose jets are among the first six selected ones. What is selected tells
assignments apart by their four jets and their lepton only: of the twelve that share them, the best is kept.

The AGC trains one BDT on events of even number and one on those of odd number, and asks each about the other events. So
do we.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int64, UInt, UInt32, UInt64
from numpy.typing import NDArray

from pipeline.analyses.candidates import AT_A_TIME, MASK, first_candidate
from pipeline.analyses.ttbar import ht, leading_jet_pt
from pipeline.errors import InputError
from pipeline.events.batch import Event, HostEvent
from pipeline.events.function import Sets
from pipeline.events.variations import round_down

__all__ = ["FEATURES", "JETS", "MODELS", "SCORE", "Assignment", "Assignments", "assignments", "features"]

Columns = Mapping[str, NDArray[Any]]
BDT = Callable[[Float32[np.ndarray, "rows features"]], Float32[np.ndarray, " rows"]]
"""From features of assignments to the probabilities that they are right."""

ROLES = ("w1", "w2", "btophad", "btoplep")
FEATURES = (
    "deltar_leptonbtoplep",
    "deltar_w1w2",
    "deltar_w1btophad",
    "deltar_w2btophad",
    "mass_leptonbtoplep",
    "mass_w1w2",
    "mass_w1w2btophad",
    "pt_w1w2btophad",
    *(f"{variable}_{role}" for variable in ("pt", "btag", "qgl") for role in ROLES),
)
"""What a BDT is told of an assignment, in the AGC's order and under the AGC's names; masses and pt in GeV."""
SCORE = "bdt_score"

MOMENTUM = ("pt", "eta", "phi", "mass")
LEPTONS = ("electron", "muon")
NUMBER = "event_number"
"""The variable of the events whose parity decides which BDT is asked."""
JETS = 6
"""So many of the selected jets are looked at."""
ASSIGNMENTS_AT_ONCE = 100_000
"""On the host; their features take 20 · 8 bytes each."""

MODELS = Path(__file__).parents[1] / "data" / "assignment"
"""The BDTs that come along, trained on simulated events (`scripts/experiments/assignment.py`)."""


@dataclass(frozen=True)
class Assignment:
    """The event function; `even` and `odd` are BDTs in a format of XGBoost, trained on events of such numbers.

    Its variables are `ht` and `leading_jet_pt` as in `pipeline.analyses.ttbar`, and of the chosen assignment all of
    `FEATURES` and the `bdt_score`: NaN where not four jets and a lepton are selected. Of several selected leptons, the
    one with the best score counts.
    """

    even: Path = MODELS / "even.ubj"
    odd: Path = MODELS / "odd.ubj"

    @property
    def files(self) -> tuple[Path, Path]:
        """Both BDTs."""
        return self.even, self.odd

    def prepare(self, event: HostEvent) -> dict[str, NDArray[Any]]:
        """The best assignment of every four jets and a lepton by falling score: its objects, and what is asked for.

        Raises:
            InputError: XGBoost is not there, a file is no BDT of these features, or a column is missing.
        """
        wanted = [name for name in (*FEATURES, SCORE) if event.asked is None or name in event.asked]
        if not wanted:
            return {}
        jets, leptons = _jets_and_leptons(event)
        best = _best(jets, leptons, _is_even(event), (_bdt(self.even), _bdt(self.odd)), wanted)
        order = np.lexsort((best["rank"], -best[SCORE], best["event"]))
        count = np.bincount(best["event"], minlength=jets["pt"].shape[1])
        row = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        rows = -(-int(count.max(initial=0)) // AT_A_TIME) * AT_A_TIME
        kind = _mask_of(len(jets["pt"]) + len(leptons["pt"]))
        # What fills up the rows is made of more objects than any set admits.
        table = {MASK: np.full((rows, len(count)), np.iinfo(kind).max, kind)}
        table |= {name: np.full((rows, len(count)), np.nan, np.float32) for name in wanted}
        for name, column in table.items():
            column[row, best["event"][order]] = best[name][order]
        return table

    def variables(self, event: Event, sets: Sets) -> dict[str, Float32[Array, " events"]]:
        """`ht`, `leading_jet_pt`, and what was prepared of the chosen assignment."""
        jet, table = sets["jet"], event.prepared.table
        values = {"ht": ht(jet), "leading_jet_pt": leading_jet_pt(jet)}
        if MASK not in table:
            return values
        kind, place = table[MASK].dtype, event.objects["jet"]["pt"].shape[0]
        selected = _first_members(jet.bits, JETS).astype(kind)
        for name in _lepton_collections(event.objects):
            selected |= sets[name].bits.astype(kind) << jnp.asarray(place, kind)
            place += event.objects[name]["pt"].shape[0]
        columns = [name for name in table if name != MASK]
        return values | first_candidate(event.prepared, columns, _admissible, selected)


class Assignments(NamedTuple):
    """All assignments of so many jets, in lexicographic order of (w1, w2, btophad, btoplep).

    Attributes:
        jets: their four jets.
        of_four: the numbers of the twelve assignments of each four jets, rising.
        objects: each four jets as a bit mask.
    """

    jets: Int64[np.ndarray, "assignments 4"]
    of_four: Int64[np.ndarray, "fours 12"]
    objects: UInt64[np.ndarray, " fours"]


@cache
def assignments(places: int) -> Assignments:
    """All assignments of four or more jets."""
    jets = np.array([way for way in permutations(range(places), len(ROLES)) if way[0] > way[1]], np.int64)
    masks = (np.uint64(1) << jets.astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    of_four = np.argsort(masks, kind="stable").reshape(-1, 12)
    return Assignments(jets, of_four, masks[of_four[:, 0]])


def features(
    jets: Columns, lepton: Columns, ways: Int64[np.ndarray, "assignments 4"]
) -> dict[str, Float64[np.ndarray, "events assignments"]]:
    """`FEATURES` of assignments; masses and pt in GeV. As in the AGC, azimuthal differences are not wrapped.

    Args:
        jets: `pt`, `eta`, `phi`, `mass`, `btag`, `qgl` in float64, shape "events jets".
        lepton: `pt`, `eta`, `phi`, `mass`, shape "events".
        ways: numbers of jets: w1, w2, btophad, btoplep.
    """
    w1, w2, had, lep = ways.T
    momentum, of_lepton = _momentum(jets), _momentum({name: column[:, None] for name, column in lepton.items()})
    boson = momentum[..., w1] + momentum[..., w2]
    top = boson + momentum[..., had]
    directions = {name: jets[name] for name in ("eta", "phi")}

    def distance(first: Columns, second: NDArray[np.int64]) -> Float64[np.ndarray, "events assignments"]:
        return np.hypot(*(first[name] - directions[name][:, second] for name in ("eta", "phi")))

    def of(jet: NDArray[np.int64]) -> Columns:
        return {name: column[:, jet] for name, column in directions.items()}

    values = (
        distance({name: lepton[name][:, None] for name in directions}, lep),
        distance(of(w1), w2),
        distance(of(w1), had),
        distance(of(w2), had),
        _mass(of_lepton + momentum[..., lep]),
        _mass(boson),
        _mass(top),
        np.hypot(top[0], top[1]),
        *(jets[name][:, jet] for name in ("pt", "btag", "qgl") for jet in (w1, w2, had, lep)),
    )
    return dict(zip(FEATURES, values, strict=True))


def _best(
    jets: Columns, leptons: Columns, even: Bool[np.ndarray, " events"], bdts: tuple[BDT, BDT], wanted: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Of every four jets and a lepton the best assignment, one after another.

    Besides what is asked for, its objects and its score: the number of the event, and the `rank` of the assignment
    among all of the event in lexicographic order. `bdts` were trained on events of even and of odd number.
    """
    types = {"event": np.int64, "rank": np.int64, MASK: np.uint64, SCORE: np.float32}
    parts = [{name: np.zeros(0, types.get(name, np.float32)) for name in (*types, *wanted)}]
    for places, lepton, event in _in_batches(jets, leptons):
        each = assignments(places)
        told = features(
            {name: column[:places, event].T for name, column in jets.items()},
            {name: column[lepton, event] for name, column in leptons.items()},
            each.jets,
        )
        score = _scores(told, even[event], bdts)
        best = each.of_four[np.arange(len(each.of_four)), score[:, each.of_four].argmax(axis=2)]
        bit = np.uint64(1) << (len(jets["pt"]) + lepton).astype(np.uint64)
        chosen = {
            "event": np.broadcast_to(event[:, None], best.shape),
            "rank": best,
            MASK: each.objects | bit[:, None],
            SCORE: np.take_along_axis(score, best, axis=1),
        }
        chosen |= {name: round_down(np.take_along_axis(told[name], best, 1)) for name in wanted if name != SCORE}
        parts.append({name: column.ravel() for name, column in chosen.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _scores(
    told: Columns, even: Bool[np.ndarray, " events"], bdts: tuple[BDT, BDT]
) -> Float32[np.ndarray, "events assignments"]:
    """What the BDT says of each assignment that has not seen events of this parity."""
    inputs = np.stack([told[name].astype(np.float32) for name in FEATURES], axis=-1)
    scores = np.zeros((len(even), inputs.shape[1]), np.float32)
    for events, bdt in zip((~even, even), bdts, strict=True):
        if events.any():
            scores[events] = bdt(inputs[events].reshape(-1, len(FEATURES))).reshape(-1, scores.shape[1])
    return scores


def _momentum(columns: Columns) -> Float64[np.ndarray, "4 *shape"]:
    """(px, py, pz, E) on the first axis."""
    pt, eta, phi, mass = (columns[name] for name in MOMENTUM)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.hypot(pt * np.cosh(eta), mass)])


def _mass(momentum: Float64[np.ndarray, "4 *shape"]) -> Float64[np.ndarray, "*shape"]:
    px, py, pz, energy = momentum
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))


def _in_batches(
    jets: Columns, leptons: Columns
) -> Iterator[tuple[int, Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]]]:
    """Some pairs of a lepton and its event at a time, and how many jets these events have."""
    number = np.isfinite(jets["pt"]).sum(axis=0)
    for places in range(len(ROLES), len(jets["pt"]) + 1):
        lepton, event = np.nonzero(np.isfinite(leptons["pt"]) & (number == places))
        size = max(1, ASSIGNMENTS_AT_ONCE // len(assignments(places).jets)) if len(event) else 1
        for first in range(0, len(event), size):
            yield places, lepton[first : first + size], event[first : first + size]


def _jets_and_leptons(event: HostEvent) -> tuple[Columns, Columns]:
    """Columns in float64, shape "objects events", of the jets, and of the leptons of one collection after another."""
    collections = _lepton_collections(event.objects)
    needed = {"jet": (*MOMENTUM, "btag", "qgl")} | dict.fromkeys(collections or LEPTONS[:1], MOMENTUM)
    missing = [
        f"objects.{name}.variables.{variable}"
        for name, variables in needed.items()
        for variable in variables
        if variable not in event.objects.get(name, {})
    ]
    if missing:
        raise InputError(f"event_function: the assignment of jets needs {', '.join(missing)}; add what is missing")
    jets = {name: event.objects["jet"][name].astype(np.float64) for name in needed["jet"]}
    leptons = {
        name: np.concatenate([event.objects[each][name].astype(np.float64) for each in collections])
        for name in MOMENTUM
    }
    return jets, leptons


def _lepton_collections(objects: Mapping[str, Any]) -> list[str]:
    return [name for name in LEPTONS if name in objects]


def _is_even(event: HostEvent) -> Bool[np.ndarray, " events"]:
    """Whether the number of an event is even; where there is no event, it does not matter."""
    if NUMBER not in event.columns:
        raise InputError(
            f"event_variables.{NUMBER}: the assignment of jets needs the branch with the number of the event, whose "
            f"parity decides which BDT is asked; add '{NUMBER}: event'"
        )
    number = event.columns[NUMBER]
    if np.any(number >= 2.0**53):
        raise InputError(
            f"event_variables.{NUMBER}: {np.nanmax(number):.0f} is too large to know its parity; number the events anew"
        )
    return number % 2 == 0


@cache
def _bdt(file: Path) -> BDT:
    """The BDT in a file.

    Raises:
        InputError: XGBoost is not installed, or the file is no model of it, or one of something else.
    """
    try:
        # An analysis without a BDT need not have XGBoost.
        import xgboost
    except ModuleNotFoundError:
        raise InputError(
            "event_function: the BDT that assigns jets is one of XGBoost, which is not installed; "
            "pip install '.[bdt]', or pip install xgboost-cpu"
        ) from None
    if not file.exists():
        raise InputError(f"{file}: there is no such file; correct the path of the BDT in the event function")
    try:
        booster = xgboost.Booster(model_file=str(file))
    except xgboost.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[0][-150:]
        raise InputError(f"{file}: cannot be read as a model of XGBoost ({reason}); train it again") from None
    if booster.num_features() != len(FEATURES):
        raise InputError(
            f"{file}: is told {booster.num_features()} features, and not the {len(FEATURES)} of an assignment of jets; "
            "train it with those"
        )
    return booster.inplace_predict


def _mask_of(objects: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type of a bit mask of so many objects, and one bit more."""
    return next(kind for kind in (np.uint16, np.uint32, np.uint64) if objects < np.iinfo(kind).bits)


def _first_members(bits: UInt32[Array, " events"], number: int) -> UInt32[Array, " events"]:
    """The first so many members of a set in stored order."""
    others = bits
    for _ in range(number):
        others &= others - jnp.uint32(1)
    return bits & ~others


def _admissible(
    objects: UInt[Array, "*rows events"], selected: UInt[Array, "*one events"]
) -> Bool[Array, "*rows events"]:
    """Which assignments are made of selected objects."""
    return (objects & ~selected) == 0
