"""The command line that fits a workspace: its JSON, its comparison, and the workspace on which others fail."""

import copy
import json

import pytest
from pipeline.fit_workspace import main as command

from reference import agc_workspace
from reference.workspaces import HELLO_WORLD, modifier, same_side

pytestmark = [
    # pyhf 0.7 validates with a part of jsonschema that is to go.
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
]


@pytest.fixture
def main():
    return lambda arguments: command([*arguments, "--no-cache"])


def run(main, tmp_path, workspace, *arguments):
    source, target = tmp_path / "workspace.json", tmp_path / "result.json"
    source.write_text(json.dumps(workspace))
    code = main([str(source), "--json", str(target), *arguments])
    return code, json.loads(target.read_text())


@pytest.mark.slow
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
    assert "goodness of fit" in text


def test_the_asimov_data_have_a_signal_of_one_wherever_the_fit_starts(main, tmp_path, capsys):
    workspace = copy.deepcopy(HELLO_WORLD)
    workspace["measurements"].append(copy.deepcopy(workspace["measurements"][0]))
    workspace["measurements"][1]["name"] = "other"
    workspace["measurements"][1]["config"]["parameters"] = [{"name": "mu", "inits": [0.5], "bounds": [[-5, 20]]}]
    code, result = run(main, tmp_path, workspace, "--measurement", "other")
    assert code == 0
    assert result["asimov"]["bestfit"]["mu"] == pytest.approx(1.0, abs=1e-8)
    assert result["observed"]["bestfit"]["mu"] == pytest.approx(-0.06687, abs=1e-4)  # pyhf's, by SLSQP


@pytest.mark.slow
def test_a_workspace_without_a_parameter_of_interest_is_fitted(main, tmp_path, capsys):
    workspace = copy.deepcopy(HELLO_WORLD)
    workspace["measurements"][0]["config"]["poi"] = ""
    # Of the two factors of one sample nothing is known but their product.
    workspace["channels"][0]["samples"][0]["modifiers"].append({"name": "k", "type": "normfactor", "data": None})
    workspace["observations"][0]["data"] = [60.0, 66.0]
    code, result = run(main, tmp_path, workspace)
    assert code == 0
    assert result["observed"]["q0"] is None
    assert result["observed"]["uncertainty"]["mu"] is None
    assert result["observed"]["uncertainty"]["uncorr_bkguncrt[1]"] > 0
    assert "-2 ln L" in capsys.readouterr().out


@pytest.mark.slow
def test_limits_toys_ranking_and_plots(main, tmp_path, capsys):
    workspace = copy.deepcopy(HELLO_WORLD)
    workspace["observations"][0]["data"] = [60.0, 66.0]
    arguments = ("--limit", "--toys", "100", "--ranking", "--plots", str(tmp_path / "plots"))
    code, result = run(main, tmp_path, workspace, *arguments)
    assert code == 0
    assert list(result["limit"]["expected"]) == ["-2", "-1", "+0", "+1", "+2"]
    assert result["limit"]["scan"][0]["cls"] > 0.05 > result["limit"]["scan"][-1]["cls"]
    assert result["toys"]["failed"] == 0
    assert set(result["ranking"]["impacts"]) == {"uncorr_bkguncrt[0]", "uncorr_bkguncrt[1]"}
    pictures = {path.name for path in (tmp_path / "plots").iterdir()}
    assert pictures == {"parameters.png", "correlation.png", "yields.png", "ranking.png", "cls.png"}
    text = capsys.readouterr().out
    assert "upper limit at 95 % (CLs): observed" in text
    assert "100 toys without signal, 0 left out" in text


def broken(path, value):
    workspace = copy.deepcopy(HELLO_WORLD)
    place = workspace
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(workspace)


BACKGROUND = ("channels", 0, "samples", 1)
REFUSED = {
    "Expecting value": "",
    "not a pyhf workspace": "[1, 2]",
    "'singlechannel' has 2 bins, but 1 observations": broken(("observations", 0, "data"), [51.0]),
    "'nothere' is not a parameter of the model": broken(("measurements", 0, "config", "poi"), "nothere"),
    "samples[1].modifiers[0]": broken((*BACKGROUND, "modifiers", 0, "type"), "strange"),
    "expected 2 size sample data but got 1": broken((*BACKGROUND, "data"), [50.0]),
    "lumi 'lumi' needs auxdata, bounds, inits": broken((*BACKGROUND, "modifiers"), [modifier("lumi", "lumi")]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(main, tmp_path, capsys, sentence):
    source = tmp_path / "workspace.json"
    source.write_text(REFUSED[sentence])
    assert main([str(source)]) == 2
    written = capsys.readouterr().err
    assert sentence in written
    assert written.count("\n") == 1


@pytest.mark.slow
def test_the_agc_workspace_where_the_default_call_of_cabinetry_fails(main, tmp_path, capsys, external_data):
    spec = agc_workspace.build(external_data / "histos_all_file_per_process.json")
    code, result = run(main, tmp_path, spec)
    assert code == 0
    assert result["converged"] is True
    assert 0 < result["observed"]["bestfit"]["ttbar_norm"] < 2
    assert 0.05 < result["observed"]["uncertainty"]["ttbar_norm"] < 0.15
    assert result["asimov"]["bestfit"]["ttbar_norm"] == pytest.approx(1.0, abs=1e-8)
    assert result["asimov"]["significance"] > 100
    assert "NOT CONVERGED" not in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_hypothesis_of_no_signal_there_is_no_z(main, tmp_path, capsys):
    """A bin that expects -3 events without signal, and in which 4 were observed: the best fit stays right."""
    workspace = copy.deepcopy(HELLO_WORLD)
    workspace["channels"][0]["samples"] = [
        {"name": "signal", "data": [5.0, 5.0], "modifiers": [modifier("normfactor", "mu")]},
        {"name": "background", "data": [-3.0, 20.0], "modifiers": []},
    ]
    workspace["observations"][0]["data"] = [4.0, 22.0]
    code, result = run(main, tmp_path, workspace, "--limit")
    assert code == 1
    # 4 / (5 mu - 3) + 22 / (5 mu + 20) = 2
    assert result["observed"]["bestfit"]["mu"] == pytest.approx(1.28522995, abs=1e-7)
    assert (result["observed"]["q0"], result["observed"]["significance"]) == (None, None)
    assert result["observed"]["converged"] is False
    assert result["limit"]["left_out"] == 0
    text = capsys.readouterr().out
    assert "no Z: the fit without signal failed, or expects a negative number in a bin with observed events" in text
    assert "nan: there is no such limit" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "said", "z"),
    [
        ([30.0, 30.0], "p = 1 ± 0, Z = 0.000 (asymptotic Z = 0.000)", 0.0),
        ([110.0, 100.0], "none with so large a q0, p < 0.03 at 95 %", None),
    ],
)
def test_toys_of_a_deficit_and_of_a_discovery(main, tmp_path, capsys, data, said, z):
    workspace = copy.deepcopy(HELLO_WORLD)
    workspace["observations"][0]["data"] = data
    _, result = run(main, tmp_path, workspace, "--toys", "100")
    assert said in capsys.readouterr().out
    assert result["toys"]["significance"] == z


@pytest.mark.slow
def test_the_limit_says_what_it_left_out_and_leaves_out_nothing_if_thorough(main, tmp_path, capsys):
    """Two variations that are the same up and down: the quick search of the limit says what it left out."""
    workspace = same_side(3, count=3)
    _, quick = run(main, tmp_path, workspace, "--limit")
    assert "variations may have a second valley" in capsys.readouterr().out.partition("upper limit")[2]
    assert quick["limit"]["left_out"] > 0
    _, thorough = run(main, tmp_path, workspace, "--limit", "--thorough")
    assert thorough["limit"]["left_out"] == 0
