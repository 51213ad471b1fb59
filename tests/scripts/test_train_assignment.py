"""Training of the BDTs that assign jets: the truth of the jets, and which assignment is right."""

import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("xgboost", reason="pip install '.[bdt]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.analyses.assignment import FEATURES, assignments
from scripts.experiments import assignment as training


def test_a_jet_has_the_role_of_the_nearest_parton():
    partons = ak.zip({"eta": [[0.0, 0.3], [], [1.0]], "phi": [[3.1, 3.1], [], [0.0]], "role": [[24, -6], [], [6]]})
    jets = ak.zip({"eta": [[0.1, 0.2, 0.75], [0.0], []], "phi": [[-3.1, 3.1, 3.1], [0.0], []]})
    assert training.roles(jets, partons).tolist() == [[24, -6, 0], [0], []]


def events(role: list[int], number: int = 4, seed: int = 0) -> training.Events:
    """An event of so many jets, many times."""
    generator, shape = np.random.default_rng(seed), (number, len(role))
    jets = {"pt": -np.sort(-generator.uniform(30, 150, shape)), "eta": generator.normal(0, 1, shape)}
    jets |= {"phi": generator.uniform(-3, 3, shape), "mass": generator.uniform(2, 10, shape)}
    jets |= {"btag": generator.random(shape), "qgl": generator.random(shape)}
    lepton = {name: column[:, 0] for name, column in jets.items()}
    return training.Events(jets, lepton, np.tile(role, (number, 1)), np.arange(number))


@pytest.mark.parametrize("role", [[6, 24, -6, 24], [0, 24, 24, 6, -6], [24, 0, 24, -6, 0, 6]])
def test_one_assignment_is_right(role):
    of = events(role)
    assert of.complete.all()
    assert np.all(of.right.sum(axis=1) == 1)
    for way in assignments(len(role)).jets[of.right.argmax(axis=1)]:
        assert [role[jet] for jet in way] == [24, 24, 6, -6]


@pytest.mark.parametrize("role", [[24, 24, 6, 6], [24, 24, 0, 0], [24, 24, 24, -6], [24, 6, -6, 0]])
def test_events_with_another_set_of_quarks_are_not_complete(role):
    """[24, 24, 0, 0] has the sum that the AGC asks for."""
    assert not events(role).complete.any()
    assert not events(role).right.any()


def test_a_bdt_is_asked_about_events_of_the_other_parity():
    """Each finds what it was taught: the assignment with the largest mass, or with the smallest."""

    class Asked:
        def __init__(self, sign):
            self.sign = sign

        def inplace_predict(self, inputs):
            return self.sign * inputs[:, FEATURES.index("mass_w1w2btophad")]

    of = events([24, 24, 6, -6], number=200, seed=1)
    by_bdt, _ = training.found(of, {0: Asked(1.0), 1: Asked(-1.0)})
    masses = of.inputs[..., FEATURES.index("mass_w1w2btophad")]
    ways = assignments(4).jets
    for number, odd in enumerate(of.number % 2 == 1):
        chosen = masses[number].argmax() if odd else masses[number].argmin()
        assert by_bdt[number] == ({*ways[chosen][:3].tolist()} == {0, 1, 2})


def test_the_rule_takes_the_hardest_three_jets_with_a_tag():
    of = events([24, 24, 6, -6], number=1)
    of.jets["pt"][:] = [[40, 50, 60, 200]]
    of.jets["phi"][:] = 0
    of.jets["btag"][:] = [[0, 0, 0.9, 0.1]]
    nobody = {0: _Nobody(), 1: _Nobody()}
    assert not training.found(of, nobody)[1][0]
    of.jets["pt"][:] = [[40, 50, 60, 30]]
    assert training.found(of, nobody)[1][0]


class _Nobody:
    def inplace_predict(self, inputs):
        return np.zeros(len(inputs))
