"""The boundary flux against a derivative that needs no kernel, bin by bin (`reference.conditional`)."""

import numpy as np
import pytest
from scipy.stats import chi2

from reference.conditional import bias, flux, size


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_flux_is_the_derivative_of_the_expected_histogram(width):
    difference, error = bias(flux(width))
    assert size(error) < 0.025
    assert np.sum((difference / error) ** 2) < chi2.isf(1e-3, len(error))


def test_the_bias_is_of_second_order():
    """Twice the width, four times the bias; and two widths together have next to none."""
    (narrow, error), (wide, _) = (bias(flux(width)) for width in (4.0, 8.0))
    assert size(wide) > 10 * size(error)
    np.testing.assert_allclose(size(wide) / size(narrow), 4, rtol=0.3)
    without, _ = bias((4 * flux(4.0) - flux(8.0)) / 3)
    assert size(without) < size(wide) / 5
