"""The experiment with a nuisance parameter that acts on events: where templates are linear in it, both fits agree."""

import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline import Problem  # noqa: E402
from pipeline.config import load_config  # noqa: E402

import jet_energy_scale  # noqa: E402

AT_ONE = np.array([[5000.0, 8000.0, 3000.0], [2000.0, 1500.0, 900.0]])
SLOPE = np.array([[-9000.0, 6000.0, 4000.0], [3000.0, 2000.0, 1000.0]])
SIZE = 0.03


def linear(scale: float) -> tuple[np.ndarray, np.ndarray]:
    return AT_ONE + (scale - 1) * SLOPE, SLOPE


@pytest.mark.parametrize("true", [0.98, 1.015])
def test_both_fits_find_the_same(true):
    data = linear(true)[0].sum(axis=0)
    scale, mu = jet_energy_scale.fit_events(linear, data, SIZE)
    model = jet_energy_scale.interpolated(*(linear(1 + shift)[0] for shift in (-SIZE, 0.0, SIZE)))
    pull, mu_by_pyhf = jet_energy_scale.fit_interpolated(model, data)
    # Its constraint draws the scale towards 1 by a part of its error.
    assert abs(scale - true) < 0.3 * abs(true - 1)
    assert (scale, mu) == pytest.approx((1 + SIZE * pull, mu_by_pyhf), abs=2e-4)


def test_a_fit_that_never_ends_is_told():
    with pytest.raises(RuntimeError, match="the fit is still moving by"):
        jet_energy_scale.fit_events(
            lambda scale: (AT_ONE * (1 + 0.1 * np.sign(scale - 1.01)), SLOPE), AT_ONE.sum(axis=0), 1.0
        )


@pytest.mark.slow
def test_templates_and_their_derivative_are_those_of_the_events():
    """Against a difference of the exact templates, within what single events make of it."""
    scale = {"scale": ["jet.pt"], "trainable": True, "bounds": [0.94, 1.06], "bandwidth": 0.02}
    config = load_config(REPOSITORY / "configs" / "quickstart.yaml", {"calibrations": {"jet_scale": scale}})
    expected = jet_energy_scale.templates_of(Problem.from_config(config))
    step = 0.02 * np.sqrt(3 / 5)
    difference = (expected(1 + step)[0] - expected(1 - step)[0]) / (2 * step)
    slope = expected(1.0)[1]
    assert np.corrcoef(slope.ravel(), difference.ravel())[0, 1] > 0.98
    assert slope.sum(axis=1) == pytest.approx(difference.sum(axis=1), rel=0.05)
