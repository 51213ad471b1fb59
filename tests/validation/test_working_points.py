"""Working points: against pyhf, against a toy whose optimum is known, and where nothing is known."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pipeline as pl
import pyhf
import pytest
from pipeline import analysis as exact
from pipeline.inference.histfactory import expected_data, from_pyhf, nominal_parameters
from pipeline.inference.histfactory.scaling import scaled, systematics
from pipeline.validation import working_points as module
from pipeline.validation.working_points import FLAT, LUMINOSITY, working_points
from scipy.optimize import minimize_scalar
from scipy.stats import norm

CHANGES = {"background": 0.5, LUMINOSITY: 2.0}

SPEC: dict[str, Any] = {
    "version": "1.0.0",
    "channels": [
        {
            "name": "SR",
            "samples": [
                {
                    "name": "signal",
                    "data": [12.0, 11.0],
                    "modifiers": [
                        {"name": "mu", "type": "normfactor", "data": None},
                        {"name": "lumi", "type": "lumi", "data": None},
                        {
                            "name": "scale",
                            "type": "histosys",
                            "data": {"hi_data": [14.0, 10.0], "lo_data": [9.0, 12.0]},
                        },
                        {"name": "counted", "type": "shapesys", "data": [2.0, 3.0]},
                    ],
                },
                {
                    "name": "background",
                    "data": [50.0, 52.0],
                    "modifiers": [
                        {"name": "rate", "type": "normsys", "data": {"hi": 1.21, "lo": 0.81}},
                        {"name": "scale", "type": "normsys", "data": {"hi": 1.1, "lo": 0.9}},
                        {"name": "mc", "type": "staterror", "data": [3.0, 7.0]},
                    ],
                },
            ],
        }
    ],
    "measurements": [
        {
            "name": "toy",
            "config": {
                "poi": "mu",
                "parameters": [
                    {"name": "lumi", "auxdata": [1.0], "sigmas": [0.04], "bounds": [[0.5, 1.5]], "inits": [1.0]}
                ],
            },
        }
    ],
    "observations": [{"name": "SR", "data": [60.0, 60.0]}],
}


def numbers_of(spec: Mapping[str, Any]):
    return from_pyhf(pyhf.Workspace(spec))[:2]


def at(names, changes: Mapping[str, float]):
    sizes = jnp.asarray([changes.get(name, 1.0) for name in names])
    return sizes, jnp.asarray(changes.get(LUMINOSITY, 1.0))


def spec_with(changes: Mapping[str, float]) -> dict[str, Any]:
    """The same changes, made by hand in the workspace."""
    spec = copy.deepcopy(SPEC)
    luminosity = changes.get(LUMINOSITY, 1.0)
    spec["measurements"][0]["config"]["parameters"][0]["sigmas"][0] *= changes.get("lumi", 1.0)
    for sample in spec["channels"][0]["samples"]:
        nominal = np.array(sample["data"])
        sample["data"] = (luminosity * nominal).tolist()
        for modifier in sample["modifiers"]:
            size, data = changes.get(modifier["name"], 1.0), modifier["data"]
            if modifier["type"] == "normsys":
                modifier["data"] = {side: kappa**size for side, kappa in data.items()}
            if modifier["type"] == "histosys":
                varied = {side: nominal + size * (np.array(template) - nominal) for side, template in data.items()}
                modifier["data"] = {side: (luminosity * template).tolist() for side, template in varied.items()}
            if modifier["type"] in ("staterror", "shapesys"):
                modifier["data"] = (luminosity * np.array(data)).tolist()
    return spec


@pytest.mark.parametrize(
    "changes", [{}, {"rate": 0.5}, {"scale": 0.5}, {"lumi": 0.5}, {LUMINOSITY: 2.0}, {"scale": 3.0, LUMINOSITY: 0.5}]
)
def test_scaled_numbers_are_those_of_the_changed_workspace(changes):
    structure, numbers = numbers_of(SPEC)
    names = systematics(structure)
    assert set(names) == {"lumi", "rate", "scale"}
    ours = scaled(structure, numbers, *at(names, changes))
    _, theirs = numbers_of(spec_with(changes))
    for field in ("nominal", "normsys_lo", "normsys_hi", "staterror", "shapesys", "constraint_width"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol=1e-14, err_msg=field)
    model = pyhf.Workspace(spec_with(changes)).model()
    parameters = np.array(nominal_parameters(structure, numbers)) + 0.1
    ours = jax.tree.map(np.asarray, ours)
    np.testing.assert_allclose(expected_data(structure, ours, parameters), model.expected_data(parameters), rtol=1e-12)


SIGNAL, BACKGROUND, EVENTS = 150.0, 1500.0, 100_000
MEANS = {"signal": 1.0, "background": -0.3}


def events(process: str, seed: int = 0) -> dict[str, np.ndarray]:
    """`x` tells signal from background; `y` is never cut away."""
    generator = np.random.default_rng([seed, len(process)])
    expected = SIGNAL if process == "signal" else BACKGROUND
    return {
        "x": generator.normal(MEANS[process], 1, EVENTS),
        "y": generator.uniform(0, 1, EVENTS),
        "weight": np.full(EVENTS, expected / EVENTS),
    }


def problem_of(*cuts: str, bandwidth: float = 0.3, **sections: Any) -> pl.Problem:
    known = {
        "x": pl.Cut("x", above=2.4, bounds=(-3, 5), bandwidth=bandwidth),
        "y": pl.Cut("y", above=-2.0, bounds=(-4, 3), bandwidth=0.5),
    }
    return pl.Problem.from_arrays(
        {process: events(process) for process in MEANS},
        weight="weight",
        cuts=[known[name] for name in cuts],
        regions=[pl.Region("SR", observable="y", bins=[0, 1])],
        signal="signal",
        systematics=[pl.Norm("background", 0.3, on="background"), pl.Norm("rate", 0.02)],
        **sections,
    )


@pytest.fixture(scope="module")
def problem():
    return problem_of("x")


@pytest.fixture(scope="module")
def optimum(problem):
    """Of the expectation, which knows no events: the loss by threshold and sizes, and its minimum."""
    sample = np.asarray(exact.yields_at(problem.analysis, exact_at(0.0), problem.training))
    names = systematics(problem.analysis.structure)

    def loss(x: float, changes: Mapping[str, float]) -> float:
        yields = np.zeros_like(sample)
        for dataset, mean in enumerate(MEANS.values()):
            yields[0, dataset, 0] = EVENTS / 2 * norm.sf(x - mean)  # a weight is 1 here, and so is its square
        sizes = np.concatenate([each.reshape(-1) for each in at(names, changes)])
        return float(
            exact.loss_of_yields_and_slope(jnp.asarray(yields), problem.analysis, problem.training.recipe, sizes)[0][0]
        )

    def place(changes: Mapping[str, float]) -> float:
        return float(minimize_scalar(lambda x: loss(x, changes), bounds=(0, 4), method="bounded").x)

    return loss, place


def exact_at(x: float) -> dict[str, Any]:
    return {"x": jnp.asarray(x)}


@pytest.mark.slow
def test_the_optimum_moves_as_it_does_in_expectation(problem, optimum):
    loss, place = optimum
    start = place({})
    told = working_points(problem, {"x": start}, CHANGES)
    assert abs(told.optimum["x"].value - start) < 3 * told.optimum["x"].error < 0.6
    for point in told.points:
        changes = {point.name: point.factor}
        truth = place(changes) - start
        shift = point.moved["x"]
        assert abs(shift.value - truth) < 3 * shift.error
        assert shift.error < 0.75 * abs(truth)
        gain = loss(start, changes) - loss(start + truth, changes)
        assert abs(point.gain.value - gain) < 3 * point.gain.error
    assert told.points[0].moved["x"].value < 0 < told.points[1].moved["x"].value


@pytest.mark.slow
def test_the_error_knows_of_kernels_that_are_too_wide(problem, optimum):
    _, place = optimum
    start = place({})
    wide = working_points(problem_of("x", bandwidth=0.6), {"x": start}, CHANGES)
    for point, narrow in zip(wide.points, working_points(problem, {"x": start}, CHANGES).points, strict=True):
        truth, shift = place({point.name: point.factor}) - start, point.moved["x"]
        assert abs(shift.value - truth) > abs(narrow.moved["x"].value - truth)
        assert abs(shift.value - narrow.moved["x"].value) <= shift.error


@pytest.mark.slow
def test_the_figure_of_merit_is_that_of_a_problem_with_the_other_size(problem):
    told = working_points(problem, {"x": 2.4}, {LUMINOSITY: 1.0, "background": 0.5})
    assert told.points[0].merit == pytest.approx(told.merit, rel=1e-12)
    assert told.merit == pytest.approx(float(exact.merit_of(problem.analysis, exact_at(2.4), problem.validation).value))
    assert told.points[1].merit > told.merit
    assert told.points[0].moved["x"].value == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_what_is_flat_or_at_its_bound_is_held_and_said(problem):
    beside = working_points(problem_of("x", "y"), {"x": 2.4, "y": -2.0}, CHANGES)
    alone = working_points(problem, {"x": 2.4}, CHANGES)
    assert beside.held == {"y": FLAT}
    assert [each.moved["x"].value for each in beside.points] == pytest.approx(
        [each.moved["x"].value for each in alone.points], rel=1e-6
    )
    nothing = working_points(problem_of("y"), {"y": -2.0})
    assert {each.name for each in nothing.points} == {"background", "rate", LUMINOSITY}
    far = working_points(problem, {"x": 1.2}, CHANGES)
    assert not far.optimum
    assert all(not point.moved and point.reason for point in far.points)
    bound = working_points(problem, {"x": 5.0})
    assert bound.held == {"x": "at its bound"}
    for point in (*nothing.points, *bound.points):
        assert point.reason
        assert not point.moved
        assert point.gain is None
    assert all(np.isfinite(point.merit) for point in nothing.points)


@pytest.mark.slow
def test_a_fit_that_does_not_converge_gives_no_number(problem, monkeypatch):
    def failing(yields, analysis, recipe, sizes):
        (loss, merit), slope = original(yields, analysis, recipe, sizes)
        return (loss, type(merit)(**{**vars(merit), "converged": jnp.asarray(sizes[-1] == 1)})), slope

    original = exact.loss_of_yields_and_slope
    monkeypatch.setattr(module.exact, "loss_of_yields_and_slope", failing)
    (point,) = working_points(problem, {"x": 2.4}, {LUMINOSITY: 2.0}).points
    assert np.isnan(point.merit)
    assert not point.moved
    assert "converge" in point.reason


@pytest.mark.slow
def test_the_result_has_it():
    result = pl.tune(problem_of("x"), steps=1, quiet=True)
    told = json.loads(json.dumps(result.outcome.as_json()["working_points"]))
    assert result.working_points is not None
    assert [each["name"] for each in told["points"]] == [each.name for each in result.working_points.points]
    assert told["points"][0]["name"] == "background"
    without = pl.tune(problem_of("x", validation={"working_points": False}), steps=1, quiet=True)
    assert without.working_points is None
    assert without.outcome.as_json()["working_points"] is None
