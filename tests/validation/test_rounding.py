"""Numbers and errors as the Particle Data Group's readers expect them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.validation.rounding import with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (4.844, 6.1, "4.8 ± 6.1"),
        (97.146, 2.68, "97.1 ± 2.7"),
        (0.08612, 0.00114, "0.0861 ± 0.0011"),
        (123.4, 45.6, "123 ± 46"),
        (12345.6, 789.0, "12350 ± 790"),
        (1.0, 0.0996, "1.00 ± 0.10"),
        (3.14159, 0.0, "3.142 ± 0"),
        (3.14159, math.nan, "3.142 ± nan"),
    ],
)
def test_examples(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_sign() -> None:
    assert with_error(4.844, 6.1, sign=True) == "+4.8 ± 6.1"
    assert with_error(-4.844, 6.1, sign=True) == "-4.8 ± 6.1"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_rounding_loses_less_than_a_tenth_of_the_error(value: float, error: float) -> None:
    shown = [float(part) for part in with_error(value, error).split(" ± ")]
    assert shown[0] == pytest.approx(value, abs=0.0501 * error)
    assert shown[1] == pytest.approx(error, rel=0.0501)
