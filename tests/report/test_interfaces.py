"""Other programs read what a run wrote: pyhf's command line, cabinetry's fit, and cabinetry building it again."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cabinetry
import numpy as np
import pyhf
import pytest
from click.testing import CliRunner
from pipeline.validation.crosscheck import cross_check
from pyhf.cli import cli

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")]


@pytest.fixture(autouse=True)
def _numpy() -> Iterator[None]:
    """cabinetry and pyhf's command line leave their own backend behind."""
    backend, optimizer = pyhf.get_backend()
    logging.getLogger("cabinetry").setLevel(logging.ERROR)
    yield
    pyhf.set_backend(backend, optimizer)


def pyhf_command(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", ["workspace.json", "workspace_before.json"])
def test_pyhf_inspects_the_workspace(run_folder: Path, name: str) -> None:
    shown = pyhf_command("inspect", str(run_folder / name))
    for word in ("4j1b CR", "4j2b SR", "ttbar_norm", "Jet energy scale"):
        assert word in shown


def test_workspace_follows_the_schema(run_folder: Path) -> None:
    pyhf.schema.validate(json.loads((run_folder / "workspace.json").read_text()), "workspace.json")


def test_pyhf_computes_a_limit_from_the_workspace(run_folder: Path) -> None:
    # Asimov data with signal, tested for the signal they contain: nothing to exclude. pyhf's default minimiser: Minuit
    # reaches the same minimum and then finds its own error matrix wanting.
    options = ("--optimizer", "scipy", "--test-poi", "1.0")
    found = json.loads(pyhf_command("cls", str(run_folder / "workspace.json"), *options))
    assert 0.3 < found["CLs_obs"] <= 1.0


def test_cabinetry_fits_the_workspace(run_folder: Path) -> None:
    model, data = cabinetry.model_utils.model_and_data(json.loads((run_folder / "workspace.json").read_text()))
    fitted = cabinetry.fit.fit(model, data)
    poi = fitted.labels.index("ttbar_norm")
    # On Asimov data the best fit is where the data come from.
    assert fitted.bestfit[poi] == pytest.approx(1.0, abs=0.02 * fitted.uncertainty[poi])
    assert 0 < fitted.uncertainty[poi] < 1


def test_cabinetry_builds_the_same_workspace_from_the_histograms(
    run_folder: Path, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normalisation, mirroring and splitting of variations into yield and shape, all by another program."""
    for name in ("cabinetry.yaml", "histograms.root"):
        (tmp_path / name).write_bytes((run_folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    settings = cabinetry.configuration.load("cabinetry.yaml")
    cabinetry.templates.collect(settings)
    cabinetry.templates.postprocess(settings)
    rebuilt = cross_check(cabinetry.workspace.build(settings), uncertainty=True)
    assert rebuilt.uncertainty == pytest.approx(result["pyhf"]["after"]["signal_strength_uncertainty"], rel=1e-4)


def test_history_and_thresholds_are_finite(run_folder: Path, result: dict[str, Any]) -> None:
    history = np.genfromtxt(run_folder / "history.csv", delimiter=",", names=True, usecols=("step", "value"))
    assert len(history) == result["steps"]
    assert np.all(np.isfinite(history["value"]))
