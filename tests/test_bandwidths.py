"""The width of kernels: as wide as the bias allows, given the noise."""

import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Gradient
from pipeline.bandwidths import HALVINGS, VARIANCE_OF_DIFFERENCE, lepski_bandwidths
from pipeline.events.flux import kernel


def gradient(of_width, error=0.01):
    """`of_width`: the estimate as a function of the bandwidth."""

    def at(widths):
        value = {name: jnp.asarray(of_width(name, width)) for name, width in widths.items()}
        return Gradient(
            value=value, error={name: jnp.asarray(error / np.sqrt(width)) for name, width in widths.items()}
        )

    return at


def test_without_bias_the_widest_kernel_is_taken():
    assert lepski_bandwidths(gradient(lambda *_: 1.0), {"a": 4.0, "b": 0.5}) == {"a": 4.0, "b": 0.5}


def test_more_events_allow_narrower_kernels():
    """Bias c h²: agreement is reached where ¾ c h² is within the noise, which falls with the number of events."""
    found = [
        lepski_bandwidths(gradient(lambda _, width: 1 + width**2, error), {"a": 4.0})["a"]
        for error in (20.0, 1.0, 0.1, 0.01)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == 4.0
    assert found[-1] < 0.5
    for width, error in zip(found[1:], (1.0, 0.1, 0.01), strict=True):
        for twice, agrees in ((1, True), (2, False)):
            tolerance = 2 * np.sqrt(VARIANCE_OF_DIFFERENCE) * error / np.sqrt(twice * width)
            assert bool(0.75 * (twice * width) ** 2 <= tolerance) is agrees


def test_where_nothing_agrees_the_narrowest_kernel_is_left():
    assert lepski_bandwidths(gradient(lambda _, width: np.log(width), 1e-9), {"a": 32.0}) == {"a": 32.0 / 2**HALVINGS}


def test_thresholds_that_share_a_kernel_get_one_width():
    """One of two edges is biased; alone, each would have another width."""

    def of_width(name, width):
        return width**2 if name == "biased" else 0.0

    widest = {"biased": 4.0, "plain": 4.0, "cut": 8.0}
    alone = lepski_bandwidths(gradient(of_width), widest)
    assert alone["biased"] < alone["plain"] == 4.0
    shared = lepski_bandwidths(gradient(of_width), widest, [("biased", "plain")])
    assert shared["biased"] == shared["plain"] < 4.0
    assert shared["cut"] == 8.0


@pytest.mark.parametrize("width", [0.5, 3.0])
def test_variance_of_the_difference_of_two_kernels(width):
    x = jnp.linspace(-width, width, 200_001, dtype=jnp.float32)
    wide = np.asarray(kernel(x, jnp.float32(width)), np.float64)
    narrow = np.asarray(kernel(x, jnp.float32(width / 2)), np.float64)
    assert np.sum((wide - narrow) ** 2) / np.sum(wide**2) == pytest.approx(VARIANCE_OF_DIFFERENCE, rel=1e-3)
