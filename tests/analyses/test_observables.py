"""Observables against plain loops; the trijet's answer to every single flip against a search from scratch."""

from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.analyses.observables import (
    JET_OBSERVABLES,
    TRIJETS_AT_A_TIME,
    first_trijet,
    ht,
    leading_jet_pt,
    ranked_pt,
)
from pipeline.events.batch import CandidateGroup, Chunk
from pipeline.events.cuts import Count, Cut, Region
from pipeline.events.yields import yields_and_flux

from small_analysis import arrays, small_analysis, small_data

JETS, EVENTS = 12, 8
TRIPLES = list(combinations(range(JETS), 3))


def sets_of(generator: np.random.Generator, jets: np.ndarray, chance: float) -> np.ndarray:
    """A random subset of the jets of each event as a bit mask."""
    picked = (generator.random((JETS, len(jets))) < chance) & (np.arange(JETS)[:, None] < jets)
    return (picked << np.arange(JETS)[:, None]).sum(axis=0).astype(np.uint32)


def random_trijets(generator: np.random.Generator, jets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks, mass, pt) by falling pt, trijets of absent jets last, shape "candidates events"."""
    masks = np.array([sum(1 << j for j in three) for three in TRIPLES], np.uint32)
    pt = generator.exponential(100, (len(TRIPLES), len(jets))).astype(np.float32)
    pt[masks[:, None] >= (1 << jets)[None]] = 0
    order = np.argsort(-pt, axis=0, kind="stable")
    mass = generator.uniform(0, 500, pt.shape).astype(np.float32)
    return masks[order], mass, np.take_along_axis(pt, order, axis=0)


def chunk_of(jets: np.ndarray, masks: np.ndarray, mass: np.ndarray, pt: np.ndarray) -> Chunk:
    """The trijets stand between those of other chunks, which would win wherever they were looked at."""
    busiest = int(jets.max())
    trijets = busiest * (busiest - 1) * (busiest - 2) // 6
    room = -(-trijets // TRIJETS_AT_A_TIME) * TRIJETS_AT_A_TIME - trijets

    def among_others(column: np.ndarray, other: float) -> jax.Array:
        own = np.pad(column[:trijets], ((0, room), (0, 0)))
        return jnp.asarray(np.pad(own, ((3, 5), (0, 0)), constant_values=other))

    return Chunk(
        electrons={},
        muons={},
        jets={},
        variables={},
        weight=jnp.ones(len(jets), jnp.float32),
        collision=jnp.arange(len(jets), dtype=jnp.int32),
        trijets=jnp.asarray(trijets, jnp.int32),
        first_trijet=jnp.asarray(3, jnp.int32),
        candidates=CandidateGroup(
            jets=among_others(masks, 0b111),
            mass=among_others(mass, -1.0),
            pt=among_others(pt, 1e6),
            first=jnp.full((1, 1), 3, jnp.int32),
        ),
    )


@jax.jit
def every_answer(chunk: Chunk, selected, btag):
    """(mass, pt) with each jet flipped, with each b-tag flipped, and of the events as they are."""
    event = jnp.tile(jnp.arange(len(selected), dtype=jnp.int32), JETS)
    flip = jnp.repeat(jnp.uint32(1) << jnp.arange(JETS, dtype=jnp.uint32), len(selected))
    by_jet = first_trijet(chunk, selected[event] ^ flip, btag[event], event)
    by_tag = first_trijet(chunk, selected[event], btag[event] ^ flip, event)
    shape = (JETS, len(selected))
    by_jet, by_tag = (tuple(one.reshape(shape) for one in found) for found in (by_jet, by_tag))
    return by_jet, by_tag, first_trijet(chunk, selected, btag)


def searched(masks, mass, pt, selected: int, btag: int) -> tuple[float, float]:
    """(mass, pt) of the highest-pt trijet of selected jets with a b-tag, from all of them."""
    tagged = selected & btag
    admissible = [(p, m) for t, m, p in zip(masks, mass, pt, strict=True) if t & ~selected == 0 and t & tagged != 0]
    return max(admissible)[::-1] if admissible else (np.nan, np.nan)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    jets=st.lists(st.integers(3, JETS), min_size=EVENTS, max_size=EVENTS),
    select=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
    tag=st.sampled_from([0.0, 0.15, 0.4, 1.0]),
)
def test_the_choice_under_every_flip_is_that_of_a_search_from_scratch(seed, jets, select, tag):
    generator, jets = np.random.default_rng(seed), np.array(jets)
    selected, btag = (sets_of(generator, jets, chance) for chance in (select, tag))
    trijets = random_trijets(generator, jets)
    found = every_answer(chunk_of(jets, *trijets), jnp.asarray(selected), jnp.asarray(btag))
    by_jet, by_tag, as_it_is = jax.tree.map(np.asarray, found)
    for event in range(EVENTS):
        columns = [column[:, event].tolist() for column in trijets]
        s, b = int(selected[event]), int(btag[event])
        np.testing.assert_array_equal([one[event] for one in as_it_is], searched(*columns, s, b))
        for j in range(jets[event]):
            np.testing.assert_array_equal([one[j, event] for one in by_jet], searched(*columns, s ^ (1 << j), b))
            np.testing.assert_array_equal([one[j, event] for one in by_tag], searched(*columns, s, b ^ (1 << j)))


def test_both_outcomes_occur():
    """The search above means something: with half of the jets selected some events have a trijet and some have none."""
    generator, jets = np.random.default_rng(0), np.full(EVENTS, 5)
    selected, btag = (sets_of(generator, jets, 0.5) for _ in range(2))
    chunk = chunk_of(jets, *random_trijets(generator, jets))
    mass, _ = first_trijet(chunk, jnp.asarray(selected), jnp.asarray(btag))
    assert np.isnan(mass).any()
    assert not np.isnan(mass).all()


@pytest.fixture(params=range(3))
def jets_and_sets(request):
    """Transverse momenta, unsorted, absent ones NaN, and sets of present jets."""
    generator = np.random.default_rng(request.param)
    number = generator.integers(0, JETS + 1, 50)
    pt = generator.exponential(50, (JETS, 50)).astype(np.float32)
    pt[np.arange(JETS)[:, None] >= number] = np.nan
    return pt, sets_of(generator, number, 0.5)


def selected_jets(pt: np.ndarray, selected: np.ndarray) -> list[list[np.float32]]:
    """The selected jets of each event in stored order."""
    return [[pt[j, e] for j in range(JETS) if int(selected[e]) >> j & 1] for e in range(pt.shape[1])]


def test_ht_is_the_sum_in_stored_order(jets_and_sets):
    pt, selected = jets_and_sets
    plain = [sum(jets, start=np.float32(0)) for jets in selected_jets(pt, selected)]
    np.testing.assert_array_equal(jax.jit(ht)({"pt": jnp.asarray(pt)}, jnp.asarray(selected)), plain)


def test_leading_jet_is_the_largest(jets_and_sets):
    pt, selected = jets_and_sets
    plain = [max(jets, default=np.float32(0)) for jets in selected_jets(pt, selected)]
    np.testing.assert_array_equal(leading_jet_pt({"pt": jnp.asarray(pt)}, jnp.asarray(selected)), plain)


@pytest.mark.parametrize("ranks", [0, 1, 4, JETS + 1])
def test_ranks_are_places_in_stored_order(jets_and_sets, ranks):
    """Jets are not sorted, as in the AGC."""
    pt, selected = jets_and_sets
    plain = [[*jets, *[0.0] * ranks][:ranks] for jets in selected_jets(pt, selected)]
    found = ranked_pt(jnp.asarray(pt), jnp.asarray(selected), ranks)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(found).T, np.array(plain).reshape(len(plain), ranks))


def test_an_observable_with_a_name_is_histogrammed_and_cut_on(monkeypatch):
    """One pure function and one entry: regions and cuts can use it."""

    def jets_at_the_side(jets, selected):
        bits = jnp.uint32(1) << jnp.arange(len(jets["eta"]), dtype=jnp.uint32)
        inside = (selected[None] & bits[:, None]) != 0
        return jnp.sum(inside & (jnp.abs(jets["eta"]) > 1), axis=0).astype(jnp.float32)

    monkeypatch.setitem(JET_OBSERVABLES, "jets_at_the_side", jets_at_the_side)
    analysis, data = small_analysis(), small_data()
    region = Region("all", Count(4), Count(0), "jets_at_the_side", 4, 0)
    cut = Cut("side", ("event",), "jets_at_the_side", "below")
    selection = replace(analysis.selection, cuts=(*analysis.selection.cuts[:2], cut), regions=(region,))
    edges = {"all": jnp.arange(-0.5, 4.0)}
    thresholds = arrays({"electron_pt": 30.0, "jet_pt": 30.0, "side": 2.5})
    events = (edges, data.groups, data.candidates)
    yields, _ = yields_and_flux(selection, analysis.layout, thresholds, {}, *events)

    expected = np.zeros(4)
    for group in data.groups:
        pt, eta = np.asarray(group.jet_pt)[0], np.asarray(group.jets["eta"])
        good = pt > 30
        leptons = (np.asarray(group.electrons["pt"]) > 30).sum(axis=1)
        leptons += (~np.isnan(np.asarray(group.muons["pt"]))).sum(axis=1)
        side = (good & (np.abs(eta) > 1)).sum(axis=1)
        real = np.asarray(group.weight) > 0
        expected += np.bincount(side[real & (leptons == 1) & (good.sum(axis=1) >= 4) & (side < 2.5)], minlength=9)[:4]
    np.testing.assert_array_equal(yields[0, :, :, 0].sum(axis=0), expected)
    assert expected[:3].all()
    assert expected[3] == 0
