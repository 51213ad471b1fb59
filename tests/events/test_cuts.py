"""Cuts compare strictly and in float32; absent objects pass nothing; windows have two sides, ranges both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.events.cuts import (
    Cut,
    Requirement,
    Selection,
    Side,
    arrays,
    cut_flux,
    passes,
    passes_all,
    present,
    side_flux,
    within,
)

from small_analysis import SELECTION

ABOVE = Cut("pt", ("jet",), "pt", "above")
BELOW = Cut("eta", ("jet",), "eta", "below", absolute=True)
INSIDE = Cut("window", ("jet",), "x", "inside")
OUTSIDE = Cut("window", ("jet",), "x", "outside")
AT = arrays({"pt": 30.0, "eta": 2.1})
WINDOW = arrays({"window.low": 76.1, "window.high": 106.1})


def column(*values: float) -> jnp.ndarray:
    """One event with so many objects."""
    return jnp.asarray(values, jnp.float32)[:, None]


def next_to(value: float) -> list[np.float32]:
    """The float32 below, at, and above a number."""
    middle = np.float32(value)
    return [np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf))]


def test_above_is_strict():
    passed = passes(ABOVE, AT, {"pt": column(*next_to(30.0))})
    assert passed[:, 0].tolist() == [False, False, True]


def test_below_is_strict_and_in_the_precision_of_the_data():
    """|eta| = float32(2.1), which is below 2.1 in float64, fails |eta| < 2.1."""
    values = [*next_to(2.1), *(-value for value in next_to(2.1))]
    assert float(np.float32(2.1)) < 2.1
    passed = passes(BELOW, AT, {"eta": column(*values)})
    assert passed[:, 0].tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("threshold", [0.15, 0.5, 2.4, 30.1, 1e-20])
@pytest.mark.parametrize("keep", ["above", "below"])
def test_comparisons_are_those_of_numpy(threshold, keep):
    values = np.array(next_to(threshold))
    cut = Cut("cut", ("jet",), "x", keep)
    ours = passes(cut, {"cut": jnp.asarray(threshold)}, {"x": column(*values)})[:, 0]
    theirs = values > np.float32(threshold) if keep == "above" else values < np.float32(threshold)
    np.testing.assert_array_equal(ours, theirs)


def test_a_window_has_two_thresholds_and_leaves_out_both():
    """Inside: low < x < high; outside: x < low or x > high; as NumPy compares in float32."""
    assert INSIDE.sides == (Side("window.low", True), Side("window.high", False))
    assert OUTSIDE.sides == (Side("window.low", False), Side("window.high", True))
    values = np.array([*next_to(76.1), 90.0, *next_to(106.1), np.nan], np.float32)
    low, high = np.float32(76.1), np.float32(106.1)
    inside, outside = (passes(cut, WINDOW, {"x": column(*values)})[:, 0] for cut in (INSIDE, OUTSIDE))
    np.testing.assert_array_equal(inside, (values > low) & (values < high))
    np.testing.assert_array_equal(outside, (values < low) | (values > high))
    assert not inside[-1]
    assert not outside[-1]


@pytest.mark.parametrize("keep", ["above", "below"])
def test_absent_objects_pass_nothing_and_have_no_flux(keep):
    cut, columns = Cut("cut", ("jet",), "x", keep), {"x": column(np.nan, 30.5)}
    at, width = {"cut": jnp.asarray(30.0)}, {"cut": jnp.asarray(2.0)}
    assert not passes(cut, at, columns)[0, 0]
    flux = cut_flux((cut,), at, width, columns)["cut"][:, 0]
    assert flux[0] == 0
    assert flux[1] != 0
    assert present(columns)[:, 0].tolist() == [False, True]


def test_an_infinite_value_is_an_object():
    assert passes(ABOVE, AT, {"pt": column(np.inf, -np.inf)})[:, 0].tolist() == [True, False]


def test_who_is_there_is_a_question_of_pt():
    """An object may lack a variable; it then fails the cuts on that one only."""
    columns = {"eta": column(np.nan, np.nan, 1.0), "pt": column(31.0, np.nan, 31.0)}
    assert present(columns)[:, 0].tolist() == [True, False, True]
    assert passes_all((ABOVE,), AT, columns)[:, 0].tolist() == [True, False, True]
    assert passes_all((ABOVE, BELOW), AT, columns)[:, 0].tolist() == [False, False, True]
    assert passes_all((), AT, columns)[:, 0].tolist() == [True, False, True]


def test_flux_needs_all_other_cuts_but_not_the_own_one():
    columns = {"pt": column(29.0, 31.0, 31.0), "eta": column(1.0, -1.0, 2.2)}
    flux = cut_flux((ABOVE, BELOW), AT, {"pt": jnp.asarray(2.0)}, columns)
    assert set(flux) == {"pt"}
    # 0.75 (1 − 0.25) / 2 on either side of the threshold
    np.testing.assert_allclose(flux["pt"][:, 0], [-0.28125, 0.28125, 0.0], rtol=1e-6)


def test_flux_of_an_absolute_value_counts_both_sides():
    columns = {"eta": column(2.0, -2.0, 2.2, -2.2)}
    flux = cut_flux((BELOW,), AT, {"eta": jnp.asarray(0.5)}, columns)["eta"][:, 0]
    np.testing.assert_allclose(flux[0], flux[1])
    np.testing.assert_allclose(flux[2], flux[3])
    assert flux[0] < 0 < flux[2]


@pytest.mark.parametrize("cut", [INSIDE, OUTSIDE], ids=["inside", "outside"])
def test_each_side_of_a_window_has_the_flux_of_a_cut_of_its_own(cut):
    """Where an object decides nothing at one side, because the other one has decided, there is none."""
    values = column(75.0, 77.0, 105.0, 107.0, 90.0, np.nan)
    width = arrays({"window.low": 2.0, "window.high": 2.0})
    flux = side_flux(cut, WINDOW, width, {"x": values}, ~jnp.isnan(values))
    for side in cut.sides:
        alone = Cut(side.threshold, ("jet",), "x", "above" if side.above else "below")
        expected = cut_flux((alone,), WINDOW, {side.threshold: jnp.asarray(2.0)}, {"x": values})[side.threshold]
        np.testing.assert_array_equal(flux[side.threshold], expected)
        assert np.count_nonzero(expected) == 2
    narrow = arrays({"window.low": 90.0, "window.high": 90.5})
    flux = side_flux(cut, narrow, width, {"x": column(89.5, 90.2, 91.0)}, jnp.ones((3, 1), bool))
    decides = {"inside": {"low": [1, 1, 0], "high": [0, 1, 1]}, "outside": {"low": [1, 1, 0], "high": [0, 1, 1]}}
    for side, expected in decides[cut.keep].items():
        assert (np.asarray(flux[f"window.{side}"])[:, 0] != 0).tolist() == [bool(each) for each in expected]


def test_a_side_without_a_bandwidth_has_no_flux():
    values = column(77.0, 105.0)
    flux = side_flux(INSIDE, WINDOW, {"window.low": jnp.asarray(2.0)}, {"x": values}, ~jnp.isnan(values))
    assert set(flux) == {"window.low"}


def test_a_cut_serves_several_sets():
    both = Cut("lepton_pt", ("electron", "muon"), "pt", "above")
    selection = Selection(SELECTION.sets, (), (both, ABOVE), ())
    assert selection.on("electron") == selection.on("muon") == (both,)
    assert selection.on("jet") == (ABOVE,)
    assert selection.on("event") == ()


def test_an_object_crosses_a_boundary_in_all_sets_of_its_collection_at_once():
    electron, muon, jet, btag = SELECTION.sets
    both, jets = Cut("a", ("electron", "muon"), "pt", "above"), Cut("b", ("btag", "jet"), "pt", "above")
    events = Cut("c", ("event",), "met", "above")
    selection = Selection(SELECTION.sets, (), (both, jets, ABOVE, events), ())
    assert selection.by_sets() == {(electron,): [both], (muon,): [both], (jet, btag): [jets], (jet,): [ABOVE]}


@pytest.mark.parametrize(
    ("ends", "met"), [((None, None), [0, 1, 2, 3]), ((2.0, None), [2, 3]), ((1.0, 2.0), [1, 2]), ((0.0, 0.0), [0])]
)
def test_requirements_include_both_ends(ends, met):
    for dtype in (jnp.int32, jnp.float32):
        numbers = jnp.arange(4, dtype=dtype)
        assert numbers[within(Requirement("jet", *ends), numbers)].tolist() == met


def test_a_slack_widens_a_requirement_at_both_ends():
    numbers = jnp.arange(6, dtype=jnp.int32)
    assert numbers[within(Requirement("jet", 2.0, 3.0), numbers, slack=1)].tolist() == [1, 2, 3, 4]


def test_a_variable_that_is_no_number_meets_no_requirement():
    values = jnp.asarray([jnp.nan, 0.5], jnp.float32)
    for ends in ((None, None), (0.0, None), (0.0, 1.0)):
        assert within(Requirement("x", *ends), values).tolist() == [False, True]


def test_parts_of_sets_and_unions_and_bins_of_all_regions_together():
    assert SELECTION.parts("lepton") == ("electron", "muon")
    assert SELECTION.parts("btag") == ("btag",)
    assert SELECTION.parts("met") == ()
    assert SELECTION.bins == 5


def test_thresholds_carry_no_derivative_of_their_own():
    """The comparison is a step: its derivative comes from the boundary flux, and from nowhere else."""
    total = jax.grad(lambda t: passes(ABOVE, {"pt": t}, {"pt": column(29.0, 31.0)}).sum().astype(jnp.float64))
    assert total(jnp.asarray(30.0)) == 0
