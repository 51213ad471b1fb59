"""What pyhf is asked for, where the answer is known in closed form."""

import numpy as np
import pyhf
import pytest
from pipeline.validation.crosscheck import cross_check, cross_checks

pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
SIGNAL, BACKGROUND = np.array([30.0, 50.0]), np.array([100.0, 80.0])


@pytest.fixture
def counting() -> dict:
    """Two bins, nothing uncertain but the signal strength; pyhf needs something else to fit, which is far away."""
    poi, other = ({"name": name, "type": "normfactor", "data": None} for name in ("mu", "other"))
    samples = [
        {"name": "signal", "data": SIGNAL.tolist(), "modifiers": [poi]},
        {"name": "background", "data": BACKGROUND.tolist(), "modifiers": []},
    ]
    elsewhere = {"name": "far", "samples": [{"name": "other", "data": [1000.0], "modifiers": [other]}]}
    return {
        "version": "1.0.0",
        "channels": [{"name": "near", "samples": samples}, elsewhere],
        "observations": [{"name": "near", "data": [0.0, 0.0]}, {"name": "far", "data": [0.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
    }


def test_significance_is_that_of_counting(counting: dict) -> None:
    q0 = 2 * np.sum((SIGNAL + BACKGROUND) * np.log1p(SIGNAL / BACKGROUND) - SIGNAL)
    found = cross_check(counting)
    assert found.significance == pytest.approx(np.sqrt(q0), rel=1e-6)
    assert found.uncertainty is None


def test_uncertainty_is_that_of_counting(counting: dict) -> None:
    found = cross_check(counting, uncertainty=True)
    assert found.uncertainty == pytest.approx(np.sum(SIGNAL**2 / (SIGNAL + BACKGROUND)) ** -0.5, rel=1e-3)


@pytest.mark.parametrize("parameters", [2, 200])
def test_checks_beside_other_work_find_the_same(counting: dict, parameters: int) -> None:
    """In this process, or in one for each."""
    for uncertainty in (True, False):
        with cross_checks({"before": counting}, uncertainty=uncertainty, parameters=parameters) as checks:
            assert checks["before"].result() == cross_check(counting, uncertainty=uncertainty)


def test_a_process_that_fails_says_why() -> None:
    with cross_checks({"before": {}}, uncertainty=True, parameters=200) as checks:
        assert "its process ended with" in checks["before"].result().failure


def test_a_model_without_signal_says_nothing_of_it(counting: dict) -> None:
    counting["channels"][0]["samples"][0]["data"] = [0.0, 0.0]
    assert cross_check(counting, uncertainty=True).uncertainty == np.inf


def test_the_backend_of_the_caller_stays(counting: dict) -> None:
    before = pyhf.get_backend()
    cross_check(counting, uncertainty=True)
    assert pyhf.get_backend() == before
