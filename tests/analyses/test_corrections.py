"""Weights from correctionlib files: correctionlib's own evaluation, and the slopes of the AGC."""

from pathlib import Path

import correctionlib
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from correctionlib.schemav2 import Category, CategoryItem, Correction, CorrectionSet, Formula, Variable
from pipeline.analyses.corrections import CorrectionError, affine_weight
from pipeline.config import ConfigError, load_config

AGC = Path(__file__).parents[2] / "configs" / "agc.yaml"


def formula(expression, variables=("pt",), parameters=None):
    return Formula(
        nodetype="formula", expression=expression, parser="TFormula", variables=list(variables), parameters=parameters
    )


def written(path, data, extra=()):
    """A file with one correction, `weight`, of a jet's pt and of further inputs (name, type)."""
    inputs = [*(Variable(name=name, type=kind) for name, kind in extra), Variable(name="pt", type="real")]
    one = Correction(name="weight", version=1, inputs=inputs, output=Variable(name="w", type="real"), data=data)
    path.write_text(CorrectionSet(schema_version=2, corrections=[one]).model_dump_json(exclude_unset=True))
    return path


@st.composite
def affine_expressions(draw, depth=3):
    """(expression, whether x may be in it)."""
    number = st.floats(0.1, 4.0).map(lambda value: f"{value:.3f}")
    if depth == 0:
        return draw(st.one_of(number, st.just("x"), st.just("[0]")))
    left, right = draw(affine_expressions(depth=depth - 1)), draw(affine_expressions(depth=depth - 1))
    constant = draw(number)
    shapes = (
        f"{left} + {right}",
        f"{left} - ({right})",
        f"-({left})",
        f"({left}) * {constant}",
        f"({left})/{constant}",
    )
    return draw(st.sampled_from((*shapes, f"{constant}*({right})")))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(expression=affine_expressions(), parameter=st.floats(-2, 2))
def test_an_affine_formula_is_what_correctionlib_makes_of_it(tmp_path_factory, expression, parameter):
    file = written(tmp_path_factory.mktemp("file") / "c.json", formula(expression, parameters=[parameter]))
    weight = affine_weight(file, "weight", {})
    theirs = correctionlib.CorrectionSet.from_file(str(file))["weight"]
    for pt in (0.0, 31.7, 250.0, 1800.0):
        expected = theirs.evaluate(pt)
        assert weight.constant + weight.slope * pt == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "expression", ["x*x", "x^2", "1/x", "exp(-x/100)", "max(x, 30)", "x > 30", "2*(x + 1)*(x - 1)"]
)
def test_any_other_formula_is_refused(tmp_path, expression):
    file = written(tmp_path / "c.json", formula(expression))
    correctionlib.CorrectionSet.from_file(str(file))  # a good file all the same
    with pytest.raises(CorrectionError, match=r"correction 'weight' of .*c.json gives .*not of the form a \+ b·pt"):
        affine_weight(file, "weight", {})


def test_inputs_choose_the_category_and_fill_the_formula(tmp_path):
    leaf = formula("1 + 0.1*y*x", variables=("pt", "scale"))
    tree = Category(nodetype="category", input="year", content=[CategoryItem(key=2015, value=leaf)], default=1.0)
    file = written(tmp_path / "c.json", tree, extra=[("year", "int"), ("scale", "real")])
    assert affine_weight(file, "weight", {"year": 2015, "scale": 0.5}) == (1.0, pytest.approx(0.05))
    theirs = correctionlib.CorrectionSet.from_file(str(file))["weight"]
    assert theirs.evaluate(2015, 0.5, 40.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"year": 2016}, "correction 'weight' of .*c.json has no year '2016'; there are: 2015"),
        ({}, r"has the inputs 'year' \(int\), 'pt' \(real\); give values to all but one"),
        ({"year": "2015"}, "give values to all but one"),
        ({"year": 2015, "eta": 1.0}, "give values to all but one"),
        ({"pt": 30.0}, "give values to all but one"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, inputs, sentence):
    tree = Category(nodetype="category", input="year", content=[CategoryItem(key=2015, value=1.0)], default=1.0)
    file = written(tmp_path / "c.json", tree, extra=[("year", "int")])
    with pytest.raises(CorrectionError, match=sentence):
        affine_weight(file, "weight", inputs)


def test_a_binned_correction_is_refused(tmp_path):
    binned = {"nodetype": "binning", "input": "pt", "edges": [0, 50, 100], "content": [1.0, 1.1], "flow": "clamp"}
    file = written(tmp_path / "c.json", binned)
    with pytest.raises(CorrectionError, match="a node of type 'binning', which is not of the form"):
        affine_weight(file, "weight", {})


def test_files_that_cannot_be_used(tmp_path):
    bad = tmp_path / "bad.json"
    with pytest.raises(CorrectionError, match=r"bad.json cannot be read"):
        affine_weight(bad, "weight", {})
    bad.write_text('{"schema_version": 1}')
    with pytest.raises(CorrectionError, match=r"bad.json is not a correctionlib file of schema version 2"):
        affine_weight(bad, "weight", {})
    good = written(tmp_path / "good.json", 1.0)
    with pytest.raises(CorrectionError, match=r"good.json has no correction 'wait'; there are: weight"):
        affine_weight(good, "wait", {})


def agc_through(file, folder, changes=None):
    """configs/agc.yaml with its weight variations taken from a correctionlib file beside it."""
    raw = yaml.safe_load(AGC.read_text(encoding="utf-8"))
    raw["data"]["manifest"] = str(AGC.parent / raw["data"]["manifest"])
    slopes, factors = raw["variations"].pop("jet_weight_slope"), raw["variations"].pop("process_weight")
    weights = {
        name: {"jet": jet, "inputs": {"syst_name": "btag_var", "direction": name.split("_")[-1]}}
        for name, (jet, _) in slopes.items()
    } | {
        name: {"process": process, "inputs": {"syst_name": "scale_var", "direction": name.split("_")[-1]}}
        for name, (process, _) in factors.items()
    }
    raw["variations"]["corrections"] = {"file": str(file), "correction": "event_systematics"}
    raw["variations"]["corrections"]["weights"] = weights | (changes or {})
    path = folder / "agc.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return load_config(path)


def test_the_file_of_the_agc_gives_the_slopes_of_the_agc(external_data, tmp_path):
    """Not nearly: the two configs are equal, number by number; what is left is a config without the file."""
    expected = load_config(AGC)
    assert len(expected.variations.jet_weight_slope) == 8
    assert agc_through(external_data / "corrections.json", tmp_path) == expected


def test_the_slopes_are_the_weights_that_correctionlib_evaluates(external_data):
    theirs = correctionlib.CorrectionSet.from_file(str(external_data / "corrections.json"))["event_systematics"]
    pt = np.linspace(0, 900, 50)
    for name, (_, slope) in load_config(AGC).variations.jet_weight_slope.items():
        np.testing.assert_allclose(1 + slope * pt, theirs.evaluate("btag_var", name.split("_")[-1], pt), rtol=1e-13)


def test_a_relative_path_counts_from_the_config(tmp_path):
    (tmp_path / "corrections").mkdir()
    shape = formula("1 - 0.002*x")
    (tmp_path / "corrections" / "c.json").write_text(written(tmp_path / "c.json", shape).read_text())
    (tmp_path / "run.yaml").write_text(
        f"extends: {AGC}\nvariations: {{corrections: {{file: corrections/c.json, correction: weight, "
        "weights: {extra: {jet: 2, inputs: {}}}}}\n"
    )
    variations = load_config(tmp_path / "run.yaml").variations
    assert variations.jet_weight_slope["extra"] == (2, -0.002)
    assert variations.corrections is None
    assert "extra" in variations.names


@pytest.mark.parametrize(
    ("name", "weight", "sentence"),
    [
        ("v", {"jet": 0, "inputs": {"syst_name": "btag", "direction": "up"}}, "has no syst_name 'btag'; there are:"),
        ("v", {"jet": 0, "process": "wjets", "inputs": {}}, "exactly one of 'jet'"),
        (
            "v",
            {"process": "wjets", "inputs": {"syst_name": "btag_var", "direction": "up"}},
            r"correction 'event_systematics' gives 1 \+ 0.0015·pt, but the weight of a process cannot",
        ),
        (
            "v",
            {"jet": 0, "inputs": {"syst_name": "scale_var", "direction": "up"}},
            r"gives 1.025 \+ 0·pt, but the weight by a jet must be 1",
        ),
        ("pt_scale_up", {"jet": 0, "inputs": {}}, "'pt_scale_up' is defined twice"),
        (
            "v",
            {"process": "top", "inputs": {"syst_name": "scale_var", "direction": "up"}},
            "variations.process_weight.v: no process is called 'top'",
        ),
    ],
)
def test_a_wrong_entry_is_one_sentence_with_its_place(external_data, tmp_path, name, weight, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        agc_through(external_data / "corrections.json", tmp_path, {name: weight})
    assert str(caught.value).startswith(f"{tmp_path / 'agc.yaml'}: variations.")
    assert "\n" not in str(caught.value)
