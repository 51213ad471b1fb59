"""Formulas over branches: the values are Python's own, and nothing else of Python gets in."""

import numpy as np
import pytest
from pipeline.ingest import InputError
from pipeline.ingest.expression import Expression

COLUMNS = {
    "a": np.array([1.5, -2.0, 0.0], np.float32),
    "n": np.array([0, 1, 3], np.int32),
    "flag": np.array([True, False, True]),
    "lhe[4]": np.array([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a * 2 + n / 4 - 1", [2.0, -4.75, -0.25]),
        ("-a", [-1.5, 2.0, 0.0]),
        ("abs(a) * lhe[4]", [1.5, 4.0, 0.0]),
        ("flag", [1, 0, 1]),
        ("flag and n", [False, False, True]),
        ("flag or n == 1", [True, True, True]),
        ("not flag", [False, True, False]),
        ("0 < n <= 1", [False, True, False]),
        ("a > 1 and (n >= 0 or flag)", [True, False, False]),
        ("a != 0", [True, True, False]),
        ("3", 3),
    ],
)
def test_values(text, expected):
    np.testing.assert_array_equal(Expression(text).value(COLUMNS), expected)


def test_branches_and_elements_are_named_once():
    expression = Expression("w * abs(x) * lhe[4] + w / lhe[0]")
    assert expression.branches == ("w", "x")
    assert expression.elements == (("lhe", 4), ("lhe", 0))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("__import__('os')", "__import__"),
        ("a.b", "a.b"),
        ("a ** 2", r"a \*\* 2"),
        ("MET_pt > 100 & flag", "100 & flag"),
        ("'text'", "'text'"),
        ("lhe[n]", r"lhe\[n\]"),
        ("lhe[-1]", r"lhe\[-1\]"),
        ("abs(a, n)", "abs"),
        ("[x for x in a]", r"\[x for x"),
        ("a if n else a", "a if n else a"),
    ],
)
def test_what_is_no_formula_is_refused(text, what):
    with pytest.raises(InputError, match=rf"'{what}.*' is not allowed in a formula.*; use names of branches"):
        Expression(text)


def test_a_slip_is_a_sentence():
    with pytest.raises(InputError, match=r"'a \*\*\* 2' is not a formula \(invalid syntax\); use names of branches"):
        Expression("a *** 2")
