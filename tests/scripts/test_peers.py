"""What the package does in the comparison with peers is the exact analysis, and its gradient the slope of it."""

import importlib.util
import sys
from pathlib import Path

import jax.numpy as jnp
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


def test_histogram_equals_numpys(peers, events):
    case, ours = peers["simple_case"], peers["pipeline_step"]
    at = case.start(CUTS)
    columns = ours.columns_of(events)
    expected = case.hard_histogram(events, at)
    np.testing.assert_array_equal(ours.histogram(jnp.asarray(at), columns), expected)
    np.testing.assert_array_equal(ours.histogram_and_flux(jnp.asarray(at), columns)[0], expected)


@pytest.mark.slow
def test_significance_equals_pyhfs_and_the_gradient_its_slope(peers, events):
    """Differences over the width of the kernel: the kernel and the difference are two estimates of one density."""
    case, ours, pyhfs = (peers[name] for name in ("simple_case", "pipeline_step", "pyhf_step"))
    at, columns = case.start(CUTS), ours.columns_of(events)
    _, step = ours.compiled()
    z, gradient = step(jnp.asarray(at), columns)
    slope, differences = pyhfs.with_gradient(events, at)
    np.testing.assert_allclose(z, slope, rtol=1e-6)
    np.testing.assert_allclose(gradient, differences, rtol=0.1)
