"""Trains the BDTs that assign jets to the quarks of a top-quark pair, and counts how often they are right.

As the AGC trains its own: simulated ttbar events of its signal region in which the four leading jets are the four
quarks, a jet being the nearest quark within 0.4; twelve assignments an event, of which one is right; events of even
number for one BDT and of odd number for the other. The events are made for this alone:

  python -m scripts.samples.make --set assignment

Each BDT is then asked about the events of the other one: how often the three jets of the hadronic top quark are found,
by the BDT and by the rule of the AGC's main analysis (the hardest three jets with a b-tag).

Example:
  python -m scripts.experiments.assignment --output pipeline/data/assignment

Install with: pip install -e ".[bdt]"
"""

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
import xgboost
from numpy.typing import NDArray
from pipeline.analyses.assignment import FEATURES, JETS, MODELS, assignments, features

REPOSITORY = Path(__file__).resolve().parents[2]
BRANCHES = {
    "Electron": ("pt", "eta", "phi", "mass", "cutBased", "sip3d"),
    "Muon": ("pt", "eta", "phi", "mass", "tightId", "sip3d", "pfRelIso04_all"),
    "Jet": ("pt", "eta", "phi", "mass", "btagCSVV2", "jetId", "qgl"),
    "Parton": ("eta", "phi", "role"),
}
ROLES = (24, 24, 6, -6)
"""Of the jets of an assignment, as `scripts.samples.generator` numbers them."""
TAGGED = 0.5
NEAR = 0.4

LEARNING = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_leaves": 32,
    "max_depth": 0,
    "learning_rate": 0.3,
    "min_child_weight": 5,
    "reg_lambda": 1.0,
    "seed": 5,
    "nthread": 1,
}
ROUNDS = 50

Columns = dict[str, NDArray[Any]]


class Events(NamedTuple):
    """Events of the signal region with so many jets, six at most: columns of jets and of the lepton, roles, numbers."""

    jets: Columns
    lepton: Columns
    role: NDArray[np.int64]
    number: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> "Events":
        """Some of them."""
        jets, lepton = ({name: column[keep] for name, column in each.items()} for each in (self.jets, self.lepton))
        return Events(jets, lepton, self.role[keep], self.number[keep])

    def leading(self, number: int) -> "Events":
        """With their first jets only."""
        jets = {name: column[:, :number] for name, column in self.jets.items()}
        return Events(jets, self.lepton, self.role[:, :number], self.number)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Whether each of the four quarks is one jet."""
        return np.all([(self.role == role).sum(axis=1) == ROLES.count(role) for role in ROLES], axis=0)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which of the assignments of the jets is right; shape "events assignments"."""
        ways = assignments(self.role.shape[1]).jets
        return np.all(self.role[:, ways] == np.array(ROLES), axis=2)

    @property
    def inputs(self) -> NDArray[np.float32]:
        """What a BDT is told; shape "events assignments features"."""
        told = features(self.jets, self.lepton, assignments(self.role.shape[1]).jets)
        return np.stack([told[name] for name in FEATURES], axis=-1).astype(np.float32)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parse(argv)
    samples = [*read(options.events)]
    leading = [each.leading(4) for each in samples]
    leading = [each.where(each.complete) for each in leading]
    bdts = {parity: train([each.where(each.number % 2 == parity) for each in leading]) for parity in (0, 1)}
    options.output.mkdir(parents=True, exist_ok=True)
    for parity, name in enumerate(("even", "odd")):
        file = options.output / f"{name}.ubj"
        bdts[parity].save_model(file)
        trained = sum(int((each.number % 2 == parity).sum()) for each in leading)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB, from {trained} events")
    for title, events in (
        ("four leading jets, which are the four quarks", leading),
        ("six leading jets, four of which are the four quarks", [each.where(each.complete) for each in samples]),
    ):
        number = np.concatenate([each.number for each in events])
        answers = [found(each, bdts) for each in events]
        by_bdt, by_rule = (_share(np.concatenate([answer[way] for answer in answers]), number) for way in (0, 1))
        print(f"{title}: {len(number)} events; the right three jets by the BDT {by_bdt}, by the trijet rule {by_rule}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = REPOSITORY / "runs" / "assignment" / "ttbar__nominal.root"
    parser.add_argument("--events", type=Path, default=default, metavar="FILE", help=f"default: {default}")
    parser.add_argument("--output", type=Path, default=MODELS, metavar="DIR", help=f"default: {MODELS}")
    return parser.parse_args(argv)


def read(file: Path) -> Iterator[Events]:
    """The events of the AGC's signal region with four, five, and six or more jets."""
    names = [f"{name}_{variable}" for name, variables in BRANCHES.items() for variable in variables]
    with uproot.open(file) as opened:
        flat = opened["Events"].arrays([*names, "event"])
    electrons, muons, jets, partons = (
        ak.zip({variable: flat[f"{name}_{variable}"] for variable in variables}) for name, variables in BRANCHES.items()
    )
    electrons = electrons[(electrons.cutBased == 4) & _good_lepton(electrons)]
    muons = muons[muons.tightId & (muons.pfRelIso04_all < 0.15) & _good_lepton(muons)]
    jets = jets[(jets.pt > 30) & (abs(jets.eta) < 2.4) & (jets.jetId & 4 != 0)]
    leptons = ak.concatenate([each[["pt", "eta", "phi", "mass"]] for each in (electrons, muons)], axis=1)
    selected = (ak.num(leptons) == 1) & (ak.num(jets) >= 4) & (ak.sum(jets.btagCSVV2 > TAGGED, axis=1) >= 2)
    jets["role"] = roles(jets, partons)
    jets = jets[:, :JETS]
    for places in range(4, JETS + 1):
        of = selected & (ak.num(jets) == places)
        columns = {name: ak.to_numpy(jets[of][name]).astype(np.float64) for name in ("pt", "eta", "phi", "mass", "qgl")}
        yield Events(
            columns | {"btag": ak.to_numpy(jets[of].btagCSVV2).astype(np.float64)},
            {name: ak.to_numpy(leptons[of][name][:, 0]).astype(np.float64) for name in leptons.fields},
            ak.to_numpy(jets[of].role),
            ak.to_numpy(flat.event[of]).astype(np.int64),
        )


def _good_lepton(leptons: ak.Array) -> ak.Array:
    return (leptons.pt > 30) & (abs(leptons.eta) < 2.1) & (leptons.sip3d < 4)


def roles(jets: ak.Array, partons: ak.Array) -> ak.Array:
    """The role of the nearest parton of each jet, 0 where none is near."""
    jet, parton = ak.unzip(ak.cartesian([jets, partons], nested=True))
    phi = (jet.phi - parton.phi + np.pi) % (2 * np.pi) - np.pi
    distance = np.hypot(jet.eta - parton.eta, phi)
    nearest = ak.argmin(distance, axis=2, keepdims=True)
    near = ak.firsts(distance[nearest], axis=2) < NEAR
    return ak.values_astype(ak.fill_none(ak.where(near, ak.firsts(parton.role[nearest], axis=2), 0), 0), np.int64)


def train(samples: list[Events]) -> xgboost.Booster:
    """A BDT that tells the right assignment from the eleven others."""
    inputs = np.concatenate([each.inputs.reshape(-1, len(FEATURES)) for each in samples])
    right = np.concatenate([each.right.ravel() for each in samples])
    data = xgboost.DMatrix(inputs, right, feature_names=list(FEATURES))
    return xgboost.train(LEARNING, data, ROUNDS)


def found(events: Events, bdts: dict[int, xgboost.Booster]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the three jets of the hadronic top quark are found: by the other BDT, and by the trijet rule."""
    places = events.role.shape[1]
    ways, wanted = assignments(places).jets, events.role > 0
    score = np.zeros((len(wanted), len(ways)), np.float32)
    for parity, bdt in bdts.items():
        others = events.number % 2 != parity
        inputs = events.where(others).inputs
        score[others] = bdt.inplace_predict(inputs.reshape(-1, len(FEATURES))).reshape(inputs.shape[:2])
    by_bdt = _of_jets(ways[score.argmax(axis=1), :3], places)
    triples = np.array([*combinations(range(places), 3)])
    x, y = (events.jets["pt"] * of(events.jets["phi"]) for of in (np.cos, np.sin))
    pt = np.hypot(*(axis[:, triples].sum(axis=2) for axis in (x, y)))
    tagged = events.jets["btag"][:, triples].max(axis=2) > TAGGED
    by_rule = _of_jets(triples[np.where(tagged, pt, 0).argmax(axis=1)], places)
    return np.all(by_bdt == wanted, axis=1), np.all(by_rule == wanted, axis=1)


def _of_jets(three: NDArray[np.int64], places: int) -> NDArray[np.bool_]:
    """Three jets of each event as a mask."""
    return (three[:, :, None] == np.arange(places)).any(axis=1)


def _share(found: NDArray[np.bool_], number: NDArray[np.int64]) -> str:
    """In percent. Events of one number are detector simulations of one collision, and not independent."""
    _, collision = np.unique(number, return_inverse=True)
    error = np.sqrt(np.sum(np.bincount(collision, found - found.mean()) ** 2)) / len(found)
    return f"{100 * found.mean():.1f} ± {100 * error:.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
