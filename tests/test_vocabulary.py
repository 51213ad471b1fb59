"""Cuts, regions and uncertainties in Python say what a YAML file says."""

import pytest
from pipeline import Columns, Cut, Norm, Region, Weights
from pipeline.config import ConfigError
from pipeline.vocabulary import config_of

REGION = Region("SR", observable="mass", bins=[0, 1, 2])


def config(*cuts, systematics=(), **sections):
    return config_of(["signal", "background"], cuts, [REGION], "signal", systematics, **sections)


@pytest.mark.parametrize(
    ("cut", "keep", "thresholds"),
    [
        (Cut("x", above=1, bounds=(0, 2)), "above", {"x": 1.0}),
        (Cut("x", below=1, bounds=(0, 2)), "below", {"x": 1.0}),
        (Cut("x", between=(0.5, 1), bounds=(0, 2)), "inside", {"x.low": 0.5, "x.high": 1.0}),
        (Cut("x", outside=(0.5, 1), bounds=(0, 2), name="veto"), "outside", {"veto.low": 0.5, "veto.high": 1.0}),
    ],
)
def test_kinds_of_cuts(cut, keep, thresholds):
    made = config(cut)
    assert [each.keep for each in made.cuts.values()] == [keep]
    assert {name: each.threshold for name, each in made.thresholds.items()} == thresholds
    assert all(each.trainable and each.typical_step == 0.04 for each in made.thresholds.values())


def test_two_cuts_on_one_variable_have_names_of_their_own():
    assert list(config(Cut("x", above=0, bounds=(-1, 1)), Cut("x", below=5)).cuts) == ["x_above", "x_below"]
    with pytest.raises(ConfigError, match="two are called 'x_above'; give one of them another 'name'"):
        config(Cut("x", above=0, bounds=(-1, 1)), Cut("x", above=5))


@pytest.mark.parametrize("sides", [{}, {"above": 1, "below": 2}])
def test_a_cut_is_one_condition(sides):
    with pytest.raises(ConfigError, match="exactly one of above, below, between and outside"):
        Cut("x", **sides)


def test_uncertainties():
    made = config(
        Cut("x", above=1, bounds=(0, 2)),
        systematics=[
            Norm("lumi", 0.03),
            Norm("tune", up=0.2, down=-0.1, on="background"),
            Norm("tune", 0.1, on="signal"),
            Weights("pileup", up="pu_up", down="pu_down"),
            Columns("scale", up={"x": "x_up"}, on=["background"]),
        ],
    )
    systematics = made.systematics
    assert systematics["lumi"].sizes == (0.03, -0.03)
    assert systematics["tune"].sizes == (0.2, -0.1)
    assert systematics["tune"].processes == ("background",)
    assert systematics["tune_2"].title == "tune", "one parameter"
    assert systematics["pileup"].variations == ("pileup_up", "pileup_down")
    assert made.variations["pileup_up"].weights == {"pu_up": 1.0}
    assert systematics["scale"].variations == ("scale_up", None)
    assert made.variations["scale_up"].columns == {"x": "x_up"}
    assert made.variations["scale_up"].processes == ("background",)


def test_further_sections_complete_what_is_said():
    made = config(Cut("x", above=1, bounds=(0, 2)), optimiser={"steps": 7}, measurement={"bounds": (-1, 5)})
    assert made.optimiser.steps == 7
    assert made.measurement.bounds == (-1, 5)
    assert made.measurement.signal == ("signal",)
