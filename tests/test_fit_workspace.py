"""The command line that fits a workspace: its JSON, its comparison, and the workspace on which others fail."""

import importlib.util
import json
from pathlib import Path

import pytest

from reference import agc_workspace
from reference.workspaces import HELLO_WORLD

SCRIPT = Path(__file__).parents[1] / "scripts" / "fit_workspace.py"

pytestmark = [
    # pyhf 0.7 validates with a part of jsonschema that is to go.
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("fit_workspace", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(main, tmp_path, workspace, *arguments):
    source, target = tmp_path / "workspace.json", tmp_path / "result.json"
    source.write_text(json.dumps(workspace))
    code = main([str(source), "--json", str(target), *arguments])
    return code, json.loads(target.read_text())


def test_prints_and_writes_what_was_found(main, tmp_path, capsys):
    code, result = run(main, tmp_path, HELLO_WORLD, "--measurement", "measurement")
    assert code == 0
    assert result["converged"] is True
    assert result["asimov"]["bestfit"]["mu"] == pytest.approx(1.0, abs=1e-8)
    assert result["asimov"]["significance"] == pytest.approx(result["asimov"]["q0"] ** 0.5)
    assert set(result["observed"]["bestfit"]) == set(result["observed"]["uncertainty"])
    assert result["observed"]["bestfit"]["mu"] == 0.0
    assert result["observed"]["q0"] == 0.0
    # Known from pyhf's own documentation of this model: mu at zero, and -2 ln L there.
    assert result["observed"]["twice_nll"] == pytest.approx(24.9839, abs=1e-3)
    text = capsys.readouterr().out
    assert "observed data" in text
    assert "pyhf SLSQP" in text
    assert "cabinetry" in text


def test_the_agc_workspace_where_the_default_call_of_cabinetry_fails(main, tmp_path, capsys, external_data):
    spec = agc_workspace.build(external_data / "histos_all_file_per_process.json")
    code, result = run(main, tmp_path, spec, "--ours-only")
    assert code == 0
    assert result["converged"] is True
    assert 0 < result["observed"]["bestfit"]["ttbar_norm"] < 2
    assert 0.05 < result["observed"]["uncertainty"]["ttbar_norm"] < 0.15
    assert result["asimov"]["bestfit"]["ttbar_norm"] == pytest.approx(1.0, abs=1e-8)
    assert result["asimov"]["significance"] > 100
    assert "NOT CONVERGED" not in capsys.readouterr().out
