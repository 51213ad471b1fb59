"""Observables against plain loops; the trijet's answer to every single flip against a search from scratch."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.events import Chunk
from pipeline.observables import choose_trijet, ht, leading_jet_pt, ranked_pt, trijet_code

JETS, EVENTS, PLANES = 12, 8, 5
TRIPLES = list(combinations(range(JETS), 3))
NOTHING = 2**PLANES - 1


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
    mass = generator.uniform(0, NOTHING, pt.shape).astype(np.float32)
    return masks[order], mass, np.take_along_axis(pt, order, axis=0)


def chunk_of(jets: np.ndarray, masks: np.ndarray, mass: np.ndarray, pt: np.ndarray) -> Chunk:
    busiest = int(jets.max())
    return Chunk(
        electrons={},
        muons={},
        jets={},
        variables={},
        weight=jnp.ones(len(jets), jnp.float32),
        trijets=jnp.asarray(busiest * (busiest - 1) * (busiest - 2) // 6, jnp.int32),
        trijet_jets=jnp.asarray(masks),
        trijet_mass=jnp.asarray(mass),
        trijet_pt=jnp.asarray(pt),
    )


@jax.jit
def every_answer(chunk: Chunk, selected, btag):
    """Codes by jet flip and by tag flip, the last row without flip, and mass and pt of the event as it is."""
    choice = choose_trijet(chunk, lambda mass, _: mass.astype(jnp.int32), PLANES, selected, btag)
    flips = [jnp.full(selected.shape, 1 << j, jnp.uint32) for j in range(JETS)] + [jnp.zeros_like(selected)]
    by_jet = jnp.stack([trijet_code(choice.jet_planes, flip) for flip in flips])
    by_tag = jnp.stack([trijet_code(choice.tag_planes, flip) for flip in flips[:-1]])
    return by_jet, by_tag, choice.mass, choice.pt


def searched(masks, mass, pt, selected: int, btag: int) -> tuple[int, float, float]:
    """(code, mass, pt) of the highest-pt trijet of selected jets with a b-tag, from all of them."""
    tagged = selected & btag
    admissible = [(p, m) for t, m, p in zip(masks, mass, pt, strict=True) if t & ~selected == 0 and t & tagged != 0]
    if not admissible:
        return NOTHING, np.nan, np.nan
    p, m = max(admissible)
    return int(m), m, p


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
    by_jet, by_tag, mass, pt = (np.asarray(answer) for answer in found)
    for event in range(EVENTS):
        columns = [column[:, event].tolist() for column in trijets]
        s, b = int(selected[event]), int(btag[event])
        code, *as_it_is = searched(*columns, s, b)
        assert by_jet[-1, event] == code
        np.testing.assert_array_equal([mass[event], pt[event]], as_it_is)
        for j in range(jets[event]):
            assert by_jet[j, event] == searched(*columns, s ^ (1 << j), b)[0]
            assert by_tag[j, event] == searched(*columns, s, b ^ (1 << j))[0]


def test_both_outcomes_occur():
    """The search above means something: with half of the jets selected some events have a trijet and some have none."""
    generator, jets = np.random.default_rng(0), np.full(EVENTS, 5)
    selected, btag = (sets_of(generator, jets, 0.5) for _ in range(2))
    by_jet, *_ = every_answer(
        chunk_of(jets, *random_trijets(generator, jets)), jnp.asarray(selected), jnp.asarray(btag)
    )
    nothing = np.asarray(by_jet)[-1] == NOTHING
    assert nothing.any()
    assert not nothing.all()


def test_the_code_sees_mass_and_pt():
    jets = np.full(2, 3)
    masks, mass, pt = random_trijets(np.random.default_rng(1), jets)
    mass[0], pt[0] = [1.0, 2.0], [10.0, 300.0]
    everything = jnp.full(2, 0b111, jnp.uint32)

    def code(mass, pt):
        return mass.astype(jnp.int32) | ((pt > 100).astype(jnp.int32) << 2)

    chunk = chunk_of(jets, masks, mass, pt)
    choice = jax.jit(lambda chunk, all_: choose_trijet(chunk, code, 3, all_, all_))(chunk, everything)
    assert trijet_code(choice.jet_planes, jnp.zeros(2, jnp.uint32)).tolist() == [1, 6]


def test_without_a_code_nothing_is_searched():
    """An analysis in which no region and no cut looks at a trijet."""
    generator = np.random.default_rng(0)
    jets = np.array([3, 4])
    everything = jnp.asarray((1 << jets) - 1, jnp.uint32)
    chunk = chunk_of(jets, *random_trijets(generator, jets))
    choice = jax.jit(lambda chunk, all_: choose_trijet(chunk, lambda m, _: m.astype(jnp.int32), 0, all_, all_))(
        chunk, everything
    )
    assert choice.jet_planes.shape == choice.tag_planes.shape == (0, 2)
    assert trijet_code(choice.jet_planes, jnp.zeros(2, jnp.uint32)).tolist() == [0, 0]
    assert np.isnan(choice.mass).all()


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
    np.testing.assert_array_equal(jax.jit(ht)(jnp.asarray(pt), jnp.asarray(selected)), plain)


def test_leading_jet_is_the_largest(jets_and_sets):
    pt, selected = jets_and_sets
    plain = [max(jets, default=np.float32(0)) for jets in selected_jets(pt, selected)]
    np.testing.assert_array_equal(leading_jet_pt(jnp.asarray(pt), jnp.asarray(selected)), plain)


@pytest.mark.parametrize("ranks", [0, 1, 4, JETS + 1])
def test_ranks_are_places_in_stored_order(jets_and_sets, ranks):
    """Jets are not sorted, as in the AGC."""
    pt, selected = jets_and_sets
    plain = [[*jets, *[0.0] * ranks][:ranks] for jets in selected_jets(pt, selected)]
    found = ranked_pt(jnp.asarray(pt), jnp.asarray(selected), ranks)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(found).T, np.array(plain).reshape(len(plain), ranks))
