"""One short run of the quickstart, twice: complete, repeatable to the bit, and confirmed by pyhf."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.config import load_config
from pipeline.inference.histfactory import from_pyhf, logpdf
from pipeline.run import run

from analysis_data import ROOT

# The significance, which pyhf computes to the precision of its minimiser; tests/regression compares the uncertainty.
SHORT = {"optimiser": {"steps": 3}, "validation": {"bootstrap": 3}, "objective": {"name": "discovery_significance"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    config = load_config(ROOT / "configs" / "quickstart.yaml", SHORT)
    made = [tmp_path_factory.mktemp("runs") / name for name in ("first", "second")]
    with pytest.MonkeyPatch.context() as patch:
        # Pictures have tests of their own in tests/report, and take longer than the run.
        patch.setattr("pipeline.run._illustrate", lambda *_: None)
        for folder in made:
            assert run(config, folder, quiet=True) == 0
    return made


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


def test_nothing_half_written_is_left(folders) -> None:
    assert [path.name for path in folders[0].parent.iterdir() if path.name.startswith(".")] == []


def test_the_best_point_is_at_least_as_good_as_the_start(result) -> None:
    training = result["compared"]["training"]
    assert training["after"]["value"] >= training["before"]["value"]
    assert training["converged"]
    assert result["compared"]["validation"]["converged"]


def test_it_says_that_events_are_simulated_and_where_they_come_from(result) -> None:
    assert result["simulated"] is True
    assert all(data["sha256"] for data in result["data"].values())


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
