"""What the report computes beside the result, against the optimiser's own gradient, pyhf and Minuit."""

import numpy as np
import pytest
from pipeline.analysis import merit_of, numbers_of
from pipeline.events.cuts import arrays
from pipeline.inference.histfactory.to_pyhf import to_pyhf
from pipeline.problem import Problem
from pipeline.report.histograms import merged
from pipeline.report.pictures import gallery
from pipeline.report.pictures.scene import Scene
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import Tuned, defaults, tune
from pipeline.validation import diagnostics
from pipeline.validation.outcome import judge
from pipeline.validation.regions import regions

schema = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
slow = pytest.mark.long


@pytest.fixture(scope="module")
def tuned(problem: Problem) -> Tuned:
    return Tuned(problem, tuple(tune(problem)))


@pytest.fixture(scope="module")
def best(tuned: Tuned) -> Step:
    return next(step for step in tuned.history if step.thresholds == tuned.history[-1].best)


def sign(problem: Problem) -> int:
    """The quickstart minimises an uncertainty."""
    return -1 if problem.analysis.objective.larger_is_better else 1


@slow
def test_contributions_add_up_to_the_gradient(problem: Problem, best: Step) -> None:
    parts = diagnostics.contributions(problem, best)
    assert {part.cut for part in parts} == set(best.gradient)
    for part in parts:
        expected = sign(problem) * part.step * best.gradient[part.cut]
        assert part.values.sum() == pytest.approx(expected, rel=1e-9)


@slow
def test_profile_goes_through_the_optimum(problem: Problem, best: Step) -> None:
    optimum = defaults(problem.config) | best.thresholds
    profiles = diagnostics.profile(problem, best, points=3)
    for part, data in (("training", problem.training), ("validation", problem.validation)):
        expected = float(merit_of(problem.analysis, arrays(optimum), data).value)
        for profile in profiles:
            (place,) = np.flatnonzero(profile.thresholds == optimum[profile.cut])
            assert getattr(profile, part)[place] == expected
            assert profile.slope == sign(problem) * best.gradient[profile.cut]


@slow
@schema
def test_regions_are_the_templates_of_the_workspace(problem: Problem, optimum: dict[str, float]) -> None:
    """Merged, they are what the model of the fit has; varied, they are its normsys times its histosys."""
    numbers = numbers_of(problem.analysis, arrays(optimum), problem.validation)
    workspace = to_pyhf(problem.analysis.structure, numbers, measurement="m")
    for region in regions(problem, optimum):
        fitted = merged(region)
        assert fitted is not None
        (channel,) = (channel for channel in workspace["channels"] if channel["name"] == region.name)
        filled = np.unique(region.merged_into)
        for sample in channel["samples"]:
            row = region.processes.index(sample["name"])
            np.testing.assert_allclose(np.array(sample["data"])[filled], fitted.nominal[row], rtol=1e-12)
            parts = {(modifier["name"], modifier["type"]): modifier["data"] for modifier in sample["modifiers"]}
            for name in region.up:
                norm, shape = parts.get((name, "normsys")), parts.get((name, "histosys"))
                for table, factor, varied in ((fitted.up, "hi", "hi_data"), (fitted.down, "lo", "lo_data")):
                    model = np.array(shape[varied] if shape else sample["data"])[filled]
                    model = model * (norm[factor] if norm else 1.0)
                    np.testing.assert_allclose(table[name][row], model, rtol=1e-9, atol=1e-9)


@slow
@schema
def test_all_pictures_are_made_and_a_broken_one_is_a_warning(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tuned.problem, judge([tuned]))
    said: list[str] = []
    monkeypatch.setattr(diagnostics, "profile", lambda *_: 1 / 0)
    names = [picture.name for picture in gallery.pictures(scene, said.append)]
    assert names == [name for name in gallery.GALLERY if name != "profiles"]
    (sentence,) = said
    assert "'profiles'" in sentence
    assert "ZeroDivisionError" in sentence


@pytest.mark.parametrize("center", [25.0, 30.0, 60.0])
def test_grid_contains_the_center_and_respects_bounds(center: float) -> None:
    grid = diagnostics.around(center, 9.0, (25.0, 60.0), 7)
    assert center in grid
    assert grid.min() >= 25
    assert grid.max() <= 60
    assert np.all(np.diff(grid) > 0)
