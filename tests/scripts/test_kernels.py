"""The experiment on kernels: what it calls noise and bias, and kernels whose order is what it says."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline.config import load_config  # noqa: E402
from pipeline.events import flux  # noqa: E402

import kernels  # noqa: E402
from reference.conditional import bias, size  # noqa: E402
from reference.conditional import flux as flux_of_samples  # noqa: E402


@pytest.mark.parametrize(
    ("name", "second", "roughness"), [("Epanechnikov", 0.2, 0.6), ("fourth order", 0, 1.25), ("two widths", 0, 47 / 30)]
)
@pytest.mark.parametrize("width", [0.5, 4.0])
def test_moments_of_the_kernels(name, second, roughness, width):
    """Unit integral, no first moment; the second makes the bias, the integral of the square the noise."""
    distance = np.linspace(-width, width, 100_001)
    values = np.asarray(kernels.KERNELS[name](jnp.asarray(distance), jnp.asarray(width)))
    found = [np.trapezoid(values * distance**power, distance) / width**power for power in (0, 1, 2)]
    np.testing.assert_allclose(found, [1, 0, second], atol=1e-6)
    assert np.trapezoid(values**2, distance) * width == pytest.approx(roughness, rel=1e-6)


def test_another_kernel_is_there_for_a_while():
    own = flux.kernel
    with kernels.instead(kernels.fourth_order):
        assert flux.kernel is kernels.fourth_order
        assert kernels.two_widths(jnp.asarray(0.0), jnp.asarray(1.0)) == pytest.approx(1.75)
    assert flux.kernel is own


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_bias_is_found_in_the_noise(bias):
    """Subsamples whose flux and difference share a part of their noise, for many cells and entries."""
    generator = np.random.default_rng(2)
    parts, cells, entries = 16, 40, 25
    common, own, other = generator.normal(size=(3, parts, cells, entries))
    noise, squared_bias, error = kernels.noise_and_bias(common + own + bias, common + other)
    assert noise == pytest.approx(np.sqrt(2 * parts), rel=0.05)
    # In the sum of all parts.
    assert error < 5
    assert abs(squared_bias - (parts * bias) ** 2) < 3 * error


def test_events_are_read_as_far_as_the_widest_kernel_reaches():
    config = load_config(REPOSITORY / "configs" / "agc_precision.yaml")
    assert kernels.reaching(config, 4).cuts["jet_pt"].widest_bandwidth == 12


def test_the_table_is_in_units_of_the_first_kernel():
    found = [
        kernels.Quality("jet_pt", "Epanechnikov", 1, noise=2.0, squared_bias=-0.1, error=0.4),
        kernels.Quality("jet_pt", "fourth order", 2, noise=1.0, squared_bias=3.0, error=0.4),
    ]
    config = load_config(REPOSITORY / "configs" / "agc_precision.yaml")
    rows = [list(column.cells) for column in kernels.table(config, found, [1.0, 0.25]).columns]
    assert rows[3:] == [["1.00", "0.50"], ["-0.03 ± 0.10", "0.75 ± 0.10"], ["1.00", "1.00"], ["1.00", "0.66"]]


@pytest.mark.slow
def test_where_all_is_smooth_the_fourth_order_has_less_bias_at_equal_noise():
    """In bins of a simulated histogram whose derivative is known without a kernel."""
    noises, biases = {}, {}
    for name in ("Epanechnikov", "fourth order"):
        with kernels.instead(kernels.KERNELS[name]):
            for width in (2.0, 4.0, 8.0):
                estimates = flux_of_samples(width)
                noises[name, width] = size(estimates.std(axis=0, ddof=1))
                biases[name, width] = size(bias(estimates)[0])
    for width in (2.0, 4.0):
        assert noises["fourth order", 2 * width] == pytest.approx(noises["Epanechnikov", width], rel=0.05)
    assert biases["fourth order", 8.0] < biases["Epanechnikov", 4.0] / 2


def test_gains_stand_beside_those_of_the_first_kernel():
    found = [kernels.Gain("Epanechnikov", 1.0, seed, training=2.0, unseen=1.0 + seed) for seed in (1, 2)] + [
        kernels.Gain("fourth order", 2.0, seed, training=2.0, unseen=1.0 + 1.5 * seed) for seed in (1, 2)
    ]
    config = load_config(REPOSITORY / "configs" / "agc_precision.yaml")
    rows = [list(column.cells) for column in kernels.table_of_gains(config, found).columns]
    assert rows[2] == ["2 ± 0", "2 ± 0"]
    assert rows[4] == ["", "+0.75 ± 0.25"]
    assert rows[5] == ["2.0000", "2.5000"]
