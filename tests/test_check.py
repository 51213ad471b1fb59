"""The command that compares the gradient with finite differences, and says whether it is right."""

import numpy as np
import pytest
from pipeline.check import main, verdict
from pipeline.validation import gradient_check
from pipeline.validation.gradient_check import GradientCheck

from analysis_data import ROOT

QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


def check_with(pull: float, effective: float = 100.0) -> GradientCheck:
    ones = np.ones((1, 1, 4, 2))
    return GradientCheck(flux=ones * (1 + pull), difference=ones, error=ones, effective=ones * effective)


@pytest.mark.parametrize(
    ("check", "expected"),
    [(check_with(0.3), "agrees"), (check_with(-0.6), "disagrees"), (check_with(0.3, 5.0), "too few events")],
)
def test_pulls_have_a_verdict(check, expected):
    assert verdict(check) == expected


@pytest.fixture
def checked(monkeypatch, capsys):
    """Runs the command with checks made by hand in the place of those of the events."""

    def run(checks: dict[str, GradientCheck], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(gradient_check, "check_gradients", lambda *_: checks)
        code = main(["--config", QUICKSTART, *arguments])
        return code, " ".join(capsys.readouterr().out.split())

    return run


@pytest.mark.slow
def test_a_wrong_derivative_is_named(checked):
    code, text = checked({"jet_pt": check_with(0.1), "jet_btag": check_with(0.9)})
    assert code == 1
    assert "The gradient by jet_btag is not the slope of the exact analysis." in text


@pytest.mark.slow
def test_derivatives_that_agree_are_called_right(checked):
    code, text = checked({"jet_pt": check_with(0.1), "muon_pt": check_with(0.1, 2.0)})
    assert code == 0
    assert "The gradient is the slope of the exact analysis. Too few events near muon_pt to tell." in text


def test_a_bad_config_is_one_sentence(capsys):
    assert main(["--config", QUICKSTART, "--set", "cuts.jet_pt.bandwith=1"]) == 1
    assert "did you mean 'bandwidth'?" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m pipeline.check --config" in capsys.readouterr().out


@pytest.mark.long
def test_the_gradient_of_the_quickstart_is_right(capsys):
    assert main(["--config", QUICKSTART]) == 0
    assert "The gradient is the slope of the exact analysis." in capsys.readouterr().out
