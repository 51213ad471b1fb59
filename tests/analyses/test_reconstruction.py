"""Trijets against awkward's combinations and vector's four-momenta, and what happens where they tie or round."""

from itertools import combinations

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
import vector
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.analyses import reconstruction
from pipeline.analyses.reconstruction import trijet_candidates

vector.register_awkward()


def random_jets(counts: list[int], seed: int) -> ak.Array:
    """Jets whose columns are float32 as in a file."""
    generator = np.random.default_rng(seed)
    total = sum(counts)
    flat = {
        "pt": generator.exponential(60, total) + 20,
        "eta": generator.normal(0, 1.5, total),
        "phi": generator.uniform(-np.pi, np.pi, total),
        "mass": generator.exponential(8, total),
    }
    return ak.unflatten(ak.zip({name: column.astype(np.float32) for name, column in flat.items()}), counts)


def dense(jets: ak.Array, places: int) -> list[np.ndarray]:
    """Columns of shape "jets events", absent jets NaN; pt in float64."""
    columns = []
    for name in ("pt", "eta", "phi", "mass"):
        padded = ak.fill_none(ak.pad_none(jets[name], places, clip=True), np.nan)
        columns.append(ak.to_numpy(padded).astype(np.float32).T)
    return [columns[0].astype(np.float64), *columns[1:]]


def candidates(jets: ak.Array, places: int):
    """(masks, mass, pt), each of shape "candidates events"."""
    return [np.asarray(column) for column in jax.jit(trijet_candidates)(*map(jnp.asarray, dense(jets, places)))]


def expected(jets: ak.Array) -> list[list[tuple[float, float, int]]]:
    """(pt, mass, mask) of every trijet of every event by falling pt, from awkward and vector in float64."""
    columns = {name: ak.values_astype(jets[name], np.float64) for name in jets.fields}
    momenta = ak.zip(columns | {"number": ak.local_index(jets.pt)}, with_name="Momentum4D")
    a, b, c = ak.unzip(ak.combinations(momenta, 3))
    total = a + b + c
    masks = 2**a.number + 2**b.number + 2**c.number
    rows = zip(total.pt.tolist(), total.mass.tolist(), masks.tolist(), strict=True)
    return [sorted(zip(*row, strict=True), key=lambda trijet: -trijet[0]) for row in rows]


def test_trijets_are_those_of_awkward_and_vector():
    counts = np.random.default_rng(0).integers(0, 9, 60).tolist()
    jets = random_jets(counts, 1)
    masks, mass, pt = candidates(jets, 8)
    assert masks.shape == (56, 60)
    for event, trijets in enumerate(expected(jets)):
        real = len(trijets)
        assert masks[:real, event].tolist() == [trijet[2] for trijet in trijets]
        np.testing.assert_allclose(pt[:real, event], [trijet[0] for trijet in trijets], rtol=1e-6)
        np.testing.assert_allclose(mass[:real, event], [trijet[1] for trijet in trijets], rtol=1e-6)
        assert np.all(np.diff(pt[:real, event]) <= 0)


def test_trijets_with_absent_jets_come_last():
    """A chunk visits as many trijets as its busiest event has: none that is real may stand behind."""
    masks, _, pt = candidates(random_jets([4, 3, 2, 0], 2), 6)
    for event, jets in enumerate([4, 3, 2, 0]):
        real = jets * (jets - 1) * (jets - 2) // 6
        assert np.all(masks[:real, event] < 1 << jets)
        assert np.all(masks[real:, event] >= 1 << jets)
        assert np.all(pt[:real, event] > 0)
        assert np.all(np.isnan(pt[real:, event]))


def test_every_trijet_once():
    masks, _, _ = candidates(random_jets([7] * 5, 3), 7)
    every = sorted(sum(1 << j for j in three) for three in combinations(range(7), 3))
    assert all(sorted(masks[:, event].tolist()) == every for event in range(5))


def test_ties_are_resolved_in_the_order_of_combinations():
    """As in the AGC, where argmax takes the first of equals."""
    four = {"pt": [50.0] * 4, "eta": [0.0] * 4, "phi": [1.0] * 4, "mass": [5.0] * 4}
    masks, _, _ = candidates(ak.zip({name: ak.Array([column]) for name, column in four.items()}), 4)
    assert masks[:, 0].tolist() == [0b0111, 0b1011, 0b1101, 0b1110]


def test_another_pt_gives_another_order():
    columns = dense(random_jets([6] * 20, 4), 6)
    varied = columns[0] * np.array([3.0, 1, 1, 1, 1, 1])[:, None]
    masks, others = (
        np.asarray(trijet_candidates(*map(jnp.asarray, [pt, *columns[1:]]))[0]) for pt in (columns[0], varied)
    )
    assert np.any(masks != others)


def test_a_trijet_without_mass_has_none():
    """Three parallel massless jets: rounding must not make the square of the mass negative, then NaN."""
    one = {"pt": [40.0, 30.0, 0.0], "eta": [1.3] * 3, "phi": [0.7] * 3, "mass": [0.0] * 3}
    _, mass, pt = candidates(ak.zip({name: ak.Array([column]) for name, column in one.items()}), 3)
    assert 0 <= mass[0, 0] < 1e-4
    np.testing.assert_allclose(pt[0, 0], 70.0, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(edge=st.floats(2.0**-10, 2.0**14, width=32), steps=st.integers(-3, 3))
def test_rounding_down_never_crosses_an_edge(edge, steps):
    """Masses a few float64 steps around an edge fall on the side where they are."""
    value = float(edge)
    for _ in range(abs(steps)):
        value = float(np.nextafter(value, np.copysign(np.inf, steps)))
    rounded = np.asarray(reconstruction._round_down(jnp.asarray([value])))[0]
    assert (rounded >= np.float32(edge)) == (value >= edge)
    assert float(rounded) <= value < float(np.nextafter(rounded, np.float32(np.inf)))
