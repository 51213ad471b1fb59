"""One short run of the quickstart, twice: complete, repeatable to the bit, and confirmed by pyhf."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.analysis import loss_of_yields_and_slope, yields_at
from pipeline.config import load_config
from pipeline.events.cuts import arrays
from pipeline.inference.histfactory import from_pyhf, logpdf
from pipeline.names import names_of
from pipeline.problem import Problem
from pipeline.report.page import page
from pipeline.run import _compile_loss, run
from pipeline.validation.outcome import Outcome

from analysis_data import ROOT

pytestmark = pytest.mark.slow

# The significance, which pyhf computes to the precision of its minimiser; tests/regression compares the uncertainty.
SHORT = {"optimiser": {"steps": 3}, "validation": {"bootstrap": 3}, "objective": {"name": "discovery_significance"}}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[Outcome]:
    """Without pictures: they have tests of their own in tests/report, and take longer than the run."""
    config = load_config(ROOT / "configs" / "quickstart.yaml", SHORT)
    parent = tmp_path_factory.mktemp("runs")
    return [run(config, f"{parent}/{name}", quiet=True, plots=False) for name in ("first", "second")]


@pytest.fixture(scope="module")
def folders(outcomes) -> list[Path]:
    return [outcome.path for outcome in outcomes]


@pytest.fixture(scope="module")
def result(folders) -> dict:
    return json.loads((folders[0] / "result.json").read_text())


def test_a_run_repeats_to_the_bit(folders) -> None:
    first, second = (json.loads((folder / "result.json").read_text()) for folder in folders)
    for content in (first, second):
        del content["seconds"]
    assert first == second
    for name in ("workspace.json", "workspace_before.json", "history.csv", "config.yaml"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_what_is_compiled_beside_the_events_is_what_the_first_step_calls(caplog) -> None:
    """Where it was not, it would be work done twice."""
    config = load_config(ROOT / "configs" / "quickstart.yaml", SHORT)
    problem = Problem.from_config(config)
    jax.clear_caches()
    _compile_loss(config, names_of(config), len(problem.samples))
    yields = yields_at(problem.analysis, arrays(problem.defaults), problem.training)
    with jax.log_compiles():
        loss_of_yields_and_slope(yields, problem.analysis, problem.training.recipe)
        assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


def test_the_outcome_is_what_the_folder_holds(outcomes, result) -> None:
    outcome = outcomes[0]
    assert outcome.thresholds == {name: cut["after"] for name, cut in result["thresholds"].items()}
    assert all(type(value) is float for value in outcome.thresholds.values())
    assert outcome.gain.value == result["compared"]["validation"]["change"]["value"]
    assert outcome.workspace == json.loads((outcome.path / "workspace.json").read_text())
    assert len(outcome.history) == result["steps"] == 3
    assert outcome.complete


def test_without_plots_there_are_numbers_only(folders) -> None:
    names = {path.name for path in folders[0].iterdir()}
    assert names == {"result.json", "workspace.json", "workspace_before.json", "history.csv", "config.yaml"}


def test_three_replicas_are_too_few_to_believe_a_gain(result) -> None:
    assert any(doubt.startswith("3 bootstrap replicas") for doubt in result["verdict"]["doubts"])
    assert result["verdict"]["tone"] != "good"


def test_nothing_half_written_is_left(folders) -> None:
    assert [path.name for path in folders[0].parent.iterdir() if path.name.startswith(".")] == []


def test_the_best_point_is_at_least_as_good_as_the_start(result) -> None:
    training = result["compared"]["training"]
    assert training["after"]["value"] >= training["before"]["value"]
    assert training["converged"]
    assert result["compared"]["validation"]["converged"]


def test_it_says_that_events_are_simulated_and_where_they_come_from(result) -> None:
    assert result["simulated"] is True
    assert all(file["sha256"] for data in result["data"].values() for file in data["files"])


def test_the_page_of_a_real_result_can_be_made(outcomes, result) -> None:
    text = page(
        result,
        title="quickstart",
        symbol=outcomes[0].symbol,
        illustrations=[],
        warnings=[],
        configuration="name: a",
        poi="mu",
    )
    checksums = [file["sha256"] for data in result["data"].values() for file in data["files"]]
    assert checksums
    assert all(checksum in text for checksum in checksums)


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_significance_is_pyhfs(result, which) -> None:
    """pyhf with NumPy and Minuit on the workspace alone; Minuit's own precision is the tolerance."""
    assert result["fit"][which]["value"] == pytest.approx(result["pyhf"][which]["discovery_significance"], rel=1e-4)


@pytest.mark.parametrize("which", ["workspace.json", "workspace_before.json"])
def test_the_likelihood_is_pyhfs(folders, which) -> None:
    """−2 ln L at 100 random points within the bounds, of the workspace that the run wrote."""
    content = json.loads((folders[0] / which).read_text())
    workspace = pyhf.Workspace(content)
    model = workspace.model()
    structure, numbers, data = from_pyhf(content)
    generator = np.random.default_rng(7)
    bounds = np.array(model.config.suggested_bounds())
    fixed = np.array(model.config.suggested_fixed())
    for _ in range(100):
        point = np.where(fixed, model.config.suggested_init(), generator.uniform(*np.clip(bounds, -3, 3).T))
        theirs = float(model.logpdf(point.tolist(), workspace.data(model))[0])
        ours = float(logpdf(structure, numbers, jnp.asarray(point), data))
        if np.isfinite(theirs):
            assert ours == pytest.approx(theirs, rel=1e-9)


def test_the_config_as_run_can_be_run_again(folders) -> None:
    again = load_config(folders[0] / "config.yaml")
    assert again.optimiser.steps == 3
    assert set(again.cuts) == set(load_config(ROOT / "configs" / "quickstart.yaml").cuts)
