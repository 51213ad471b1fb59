"""What the package does in the comparison with peers is the exact analysis, and its gradient the slope of it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parents[2] / "scripts" / "benchmarks" / "peers"
CUTS = 3


@pytest.fixture(scope="module")
def peers():
    """The modules of the toy case, of this package's step and of pyhf's: here both live in one environment."""
    modules = {}
    for name in ("simple_case", "pipeline_step", "pyhf_step"):
        spec = importlib.util.spec_from_file_location(name, PEERS / f"{name}.py")
        sys.modules[name] = modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    yield modules
    for name in modules:
        del sys.modules[name]


@pytest.fixture(scope="module")
def events(peers):
    return peers["simple_case"].make_events(200_000, CUTS)


@pytest.fixture(scope="module")
def problem(peers, events):
    return peers["pipeline_step"].problem_of(events)


def test_histogram_equals_numpys(peers, events, problem):
    case = peers["simple_case"]
    expected = case.hard_histogram(events, case.start(CUTS))
    (templates,) = problem.templates(part="all").values()
    np.testing.assert_allclose(templates[:, "nominal", :].values(), expected, rtol=1e-12)
    for number, name in enumerate(case.SAMPLES):
        up = templates[name, f"shape_{name}_up", :].values()
        np.testing.assert_allclose(up, expected[number] * (1 + case.tilt()), rtol=1e-5)


@pytest.mark.slow
def test_significance_equals_pyhfs_and_the_gradient_its_slope(peers, events, problem):
    """Differences over the width of the kernel: the kernel and the difference are two estimates of one density.

    Varied templates are sums of single-precision weights, those of the toy case are scaled nominal ones.
    """
    z, gradient = peers["pipeline_step"].step(problem)
    slope, differences = peers["pyhf_step"].with_gradient(events, peers["simple_case"].start(CUTS))
    np.testing.assert_allclose(z, slope, rtol=2e-5)
    np.testing.assert_allclose(gradient, differences, rtol=0.1)
