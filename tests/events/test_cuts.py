"""Cuts compare strictly and in float32; absent objects pass nothing; counts and regions have both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.events.cuts import (
    Count,
    Cut,
    Region,
    Selection,
    count_bits,
    cut_flux,
    in_region,
    passes,
    present,
    within,
)

ABOVE = Cut("pt", ("jet",), "pt", "above")
BELOW = Cut("eta", ("jet",), "eta", "below", absolute=True)
AT = {"pt": jnp.asarray(30.0), "eta": jnp.asarray(2.1)}


def column(*values: float) -> jnp.ndarray:
    """One event with so many objects."""
    return jnp.asarray(values, jnp.float32)[:, None]


def next_to(value: float) -> list[np.float32]:
    """The float32 below, at, and above a number."""
    middle = np.float32(value)
    return [np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf))]


def test_above_is_strict():
    passed = passes((ABOVE,), AT, {"pt": column(*next_to(30.0))})["pt"]
    assert passed[:, 0].tolist() == [False, False, True]


def test_below_is_strict_and_in_the_precision_of_the_data():
    """|eta| = float32(2.1), which is below 2.1 in float64, fails |eta| < 2.1."""
    values = [*next_to(2.1), *(-value for value in next_to(2.1))]
    assert float(np.float32(2.1)) < 2.1
    passed = passes((BELOW,), AT, {"eta": column(*values)})["eta"]
    assert passed[:, 0].tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("threshold", [0.15, 0.5, 2.4, 30.1, 1e-20])
@pytest.mark.parametrize("keep", ["above", "below"])
def test_comparisons_are_those_of_numpy(threshold, keep):
    values = np.array(next_to(threshold))
    cut = Cut("cut", ("jet",), "x", keep)
    ours = passes((cut,), {"cut": jnp.asarray(threshold)}, {"x": column(*values)})["cut"][:, 0]
    theirs = values > np.float32(threshold) if keep == "above" else values < np.float32(threshold)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("keep", ["above", "below"])
def test_absent_objects_pass_nothing_and_have_no_flux(keep):
    cut, columns = Cut("cut", ("jet",), "x", keep), {"x": column(np.nan, 30.5)}
    at, width = {"cut": jnp.asarray(30.0)}, {"cut": jnp.asarray(2.0)}
    assert not passes((cut,), at, columns)["cut"][0, 0]
    flux = cut_flux((cut,), at, width, columns)["cut"][:, 0]
    assert flux[0] == 0
    assert flux[1] != 0
    assert present(columns)[:, 0].tolist() == [False, True]


def test_an_infinite_value_is_an_object():
    values = {"pt": column(np.inf, -np.inf)}
    assert passes((ABOVE,), AT, values)["pt"][:, 0].tolist() == [True, False]


def test_flux_needs_all_other_cuts_but_not_the_own_one():
    columns = {"pt": column(29.0, 31.0, 31.0), "eta": column(1.0, -1.0, 2.2)}
    width = {"pt": jnp.asarray(2.0)}
    flux = cut_flux((ABOVE, BELOW), AT, width, columns)
    assert set(flux) == {"pt"}
    # 0.75 (1 − 0.25) / 2 on either side of the threshold
    np.testing.assert_allclose(flux["pt"][:, 0], [-0.28125, 0.28125, 0.0], rtol=1e-6)


def test_flux_of_an_absolute_value_counts_both_sides():
    columns = {"eta": column(2.0, -2.0, 2.2, -2.2)}
    flux = cut_flux((BELOW,), AT, {"eta": jnp.asarray(0.5)}, columns)["eta"][:, 0]
    np.testing.assert_allclose(flux[0], flux[1])
    np.testing.assert_allclose(flux[2], flux[3])
    assert flux[0] < 0 < flux[2]


def test_a_cut_serves_several_kinds_of_objects():
    both = Cut("lepton_pt", ("electron", "muon"), "pt", "above")
    selection = Selection((both, ABOVE), Count(1, 1), ())
    assert selection.on("electron") == selection.on("muon") == (both,)
    assert selection.on("jet") == (ABOVE,)
    assert selection.on("event") == ()


@pytest.mark.parametrize(
    ("count", "met"), [(Count(0), [0, 1, 2, 3]), (Count(2), [2, 3]), (Count(1, 2), [1, 2]), (Count(0, 0), [0])]
)
def test_counts_include_both_ends(count, met):
    numbers = jnp.arange(4, dtype=jnp.int32)
    assert numbers[within(count, numbers)].tolist() == met


def test_regions_ask_for_jets_and_tags():
    region = Region("4j1b", Count(4), Count(1, 1), "ht", 3, 0)
    jets, tags = jnp.asarray([4, 5, 3, 4, 4], jnp.int32), jnp.asarray([1, 1, 1, 0, 2], jnp.int32)
    assert in_region(region, jets, tags).tolist() == [True, True, False, False, False]


def test_bits_are_counted_as_python_counts_them():
    bits = np.random.default_rng(0).integers(0, 2**32, 100, dtype=np.uint32)
    assert count_bits(jnp.asarray(bits)).tolist() == [int(word).bit_count() for word in bits]


def test_bins_of_all_regions_together():
    regions = (Region("a", Count(4), Count(1, 1), "ht", 3, 0), Region("b", Count(4), Count(2), "trijet_mass", 5, 3))
    assert Selection((), Count(1, 1), regions).bins == 8


def test_thresholds_carry_no_derivative_of_their_own():
    """The comparison is a step: its derivative comes from the boundary flux, and from nowhere else."""
    total = jax.grad(lambda t: passes((ABOVE,), {"pt": t}, {"pt": column(29.0, 31.0)})["pt"].sum().astype(jnp.float64))
    assert total(jnp.asarray(30.0)) == 0
