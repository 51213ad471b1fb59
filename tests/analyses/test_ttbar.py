"""HT, and the trijet: all of them against awkward and vector, and the choice under every flip against a search."""

from functools import partial
from itertools import combinations

import awkward as ak
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.analyses import ttbar
from pipeline.analyses.candidates import AT_A_TIME, many_at_once
from pipeline.analyses.ttbar import first_trijet, ht, leading_jet_pt, prepare, trijet_candidates
from pipeline.events.batch import HostEvent, Prepared
from pipeline.events.function import Members
from pipeline.events.variations import round_down

vector.register_awkward()

# --- All trijets ------------------------------------------------------------------------------------------------------


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
    return trijet_candidates(*dense(jets, places))


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


@pytest.mark.slow
def test_another_pt_gives_another_order():
    columns = dense(random_jets([6] * 20, 4), 6)
    varied = columns[0] * np.array([3.0, 1, 1, 1, 1, 1])[:, None]
    masks, others = (trijet_candidates(pt, *columns[1:])[0] for pt in (columns[0], varied))
    assert np.any(masks != others)


def test_a_trijet_without_mass_has_none():
    """Three parallel massless jets: rounding must not make the square of the mass negative, then NaN."""
    three = {"pt": [40.0, 30.0, 0.0], "eta": [1.3] * 3, "phi": [0.7] * 3, "mass": [0.0] * 3}
    _, mass, pt = candidates(ak.zip({name: ak.Array([column]) for name, column in three.items()}), 3)
    assert 0 <= mass[0, 0] < 1e-4
    np.testing.assert_allclose(pt[0, 0], 70.0, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(edge=st.floats(2.0**-10, 2.0**14, width=32), steps=st.integers(-3, 3))
def test_rounding_down_never_crosses_an_edge(edge, steps):
    """Masses a few float64 steps around an edge fall on the side where they are."""
    value = float(edge)
    for _ in range(abs(steps)):
        value = float(np.nextafter(value, np.copysign(np.inf, steps)))
    (rounded,) = round_down(np.array([value]))
    assert (rounded >= np.float32(edge)) == (value >= edge)
    assert float(rounded) <= value < float(np.nextafter(rounded, np.float32(np.inf)))


def on_a_gpu(trijets: Prepared, selected: jax.Array, tagged: jax.Array) -> dict[str, jax.Array]:
    """`first_trijet` as a GPU does it."""
    columns = [name for name in ("mass", "pt") if name in trijets.table]
    return many_at_once(columns, ttbar._admissible, trijets, selected, tagged)


def host_event(jets: ak.Array, places: int) -> HostEvent:
    columns = dict(zip(("pt", "eta", "phi", "mass"), dense(jets, places), strict=True))
    return HostEvent({"jet": columns | {"btag": np.where(np.isnan(columns["pt"]), np.nan, 0.7)}}, {})


def test_as_many_trijets_are_prepared_as_the_busiest_event_has():
    """In whole blocks; the rows are those of all combinations, whatever room there is for more jets."""
    jets = random_jets([5, 3, 0], 6)
    prepared = prepare(host_event(jets, 7))
    assert {len(column) for column in prepared.values()} == {10}
    masks, mass, pt = candidates(jets, 5)
    np.testing.assert_array_equal(prepared["objects"], masks[:10])
    np.testing.assert_array_equal(prepared["mass"], mass[:10])
    np.testing.assert_array_equal(prepared["pt"], pt[:10])
    assert len(prepare(host_event(random_jets([2, 0], 6), 2))["objects"]) == 0


def test_a_jet_without_pt_hides_no_other():
    event = host_event(random_jets([4], 6), 6)
    event.objects["jet"]["pt"][0] = np.nan
    assert prepare(event)["objects"][0, 0] == 0b1110


def test_the_pt_of_trijets_is_prepared_where_it_is_asked_for():
    event, sets = host_event(random_jets([5, 3], 6), 5), {"jet": np.uint32([0b11111, 0b111])}
    prepared = {asked: prepare(event._replace(asked=asked)) for asked in (None, ("trijet_pt",), ("trijet_mass",))}
    assert set(prepared[None]) == set(prepared[("trijet_pt",)]) == {"objects", "mass", "pt"}
    assert set(prepared[("trijet_mass",)]) == {"objects", "mass"}
    answers = {}
    for asked, table in prepared.items():
        number = jnp.asarray(len(table["objects"]), jnp.int32)
        trijets = Prepared(table=jax.tree.map(jnp.asarray, table), first=jnp.asarray(0, jnp.int32), rows=number)
        for choose in (first_trijet, on_a_gpu):
            answers[asked, choose] = choose(trijets, jnp.asarray(sets["jet"]), jnp.asarray(sets["jet"]))
    with_pt, without = answers[None, first_trijet], answers[("trijet_mass",), first_trijet]
    assert (set(with_pt), set(without)) == ({"mass", "pt"}, {"mass"})
    for answer in answers.values():
        np.testing.assert_array_equal(answer["mass"], with_pt["mass"])
    assert np.isfinite(with_pt["mass"]).all()


def test_a_jet_without_direction_or_tag_is_in_no_trijet():
    """NumPy's maximum of three b-tags, one of them NaN, is NaN, which is above no threshold."""
    for name in ("eta", "phi", "btag"):
        event = host_event(random_jets([5], 6), 5)
        event.objects["jet"][name][1] = np.nan
        prepared = prepare(event)
        real = np.isfinite(prepared["pt"][:, 0]) & (prepared["pt"][:, 0] > 0)
        assert real.sum() == 4
        assert not np.any(prepared["objects"][real, 0] & 0b10)


# --- The choice among them --------------------------------------------------------------------------------------------

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


def prepared_of(jets: np.ndarray, masks: np.ndarray, mass: np.ndarray, pt: np.ndarray) -> Prepared:
    """The trijets stand between those of other chunks, which would win wherever they were looked at."""
    busiest = int(jets.max())
    trijets = busiest * (busiest - 1) * (busiest - 2) // 6
    room = -(-trijets // AT_A_TIME) * AT_A_TIME - trijets

    def among_others(column: np.ndarray, other: float) -> jax.Array:
        own = np.pad(column[:trijets], ((0, room), (0, 0)))
        return jnp.asarray(np.pad(own, ((3, 5), (0, 0)), constant_values=other))

    return Prepared(
        table={"objects": among_others(masks, 0b111), "mass": among_others(mass, -1.0), "pt": among_others(pt, 1e6)},
        first=jnp.asarray(3, jnp.int32),
        rows=jnp.asarray(trijets + room, jnp.int32),
    )


@partial(jax.jit, static_argnums=0)
def every_answer(choose, prepared: Prepared, selected, btag):
    """Mass and pt with each jet flipped, with each b-tag flipped, and of the events as they are."""
    event = jnp.tile(jnp.arange(len(selected), dtype=jnp.int32), JETS)
    flip = jnp.repeat(jnp.uint32(1) << jnp.arange(JETS, dtype=jnp.uint32), len(selected))
    some = Prepared(table=prepared.table, first=prepared.first, rows=prepared.rows, event=event)

    def answer(selected, btag):
        # A b-tagged jet is a selected one.
        return {name: each.reshape(JETS, -1) for name, each in choose(some, selected, btag & selected).items()}

    by_jet = answer(selected[event] ^ flip, btag[event])
    by_tag = answer(selected[event], btag[event] ^ flip)
    return by_jet, by_tag, choose(prepared, selected, btag & selected)


def searched(masks, mass, pt, selected: int, btag: int) -> tuple[float, float]:
    """(mass, pt) of the highest-pt trijet of selected jets with a b-tag, from all of them."""
    tagged = selected & btag
    admissible = [(p, m) for t, m, p in zip(masks, mass, pt, strict=True) if t & ~selected == 0 and t & tagged != 0]
    return max(admissible)[::-1] if admissible else (np.nan, np.nan)


@pytest.mark.slow
@pytest.mark.parametrize("choose", [first_trijet, on_a_gpu], ids=["of this device", "of a GPU"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    jets=st.lists(st.integers(3, JETS), min_size=EVENTS, max_size=EVENTS),
    select=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
    tag=st.sampled_from([0.0, 0.15, 0.4, 1.0]),
)
def test_the_choice_under_every_flip_is_that_of_a_search_from_scratch(choose, seed, jets, select, tag):
    generator, jets = np.random.default_rng(seed), np.array(jets)
    selected, btag = (sets_of(generator, jets, chance) for chance in (select, tag))
    trijets = random_trijets(generator, jets)
    found = every_answer(choose, prepared_of(jets, *trijets), jnp.asarray(selected), jnp.asarray(btag))
    by_jet, by_tag, as_it_is = jax.tree.map(np.asarray, found)
    for event in range(EVENTS):
        columns = [column[:, event].tolist() for column in trijets]
        s, b = int(selected[event]), int(btag[event])
        np.testing.assert_array_equal([as_it_is[name][event] for name in ("mass", "pt")], searched(*columns, s, b))
        for j in range(jets[event]):
            answers = [[each[name][j, event] for name in ("mass", "pt")] for each in (by_jet, by_tag)]
            np.testing.assert_array_equal(answers[0], searched(*columns, s ^ (1 << j), b))
            np.testing.assert_array_equal(answers[1], searched(*columns, s, b ^ (1 << j)))


def test_both_outcomes_occur():
    """The search above means something: with half of the jets selected some events have a trijet and some have none."""
    generator, jets = np.random.default_rng(0), np.full(EVENTS, 5)
    selected, btag = (sets_of(generator, jets, 0.5) for _ in range(2))
    prepared = prepared_of(jets, *random_trijets(generator, jets))
    mass = first_trijet(prepared, jnp.asarray(selected), jnp.asarray(btag & selected))["mass"]
    assert np.isnan(mass).any()
    assert not np.isnan(mass).all()


# --- HT and the leading jet -------------------------------------------------------------------------------------------


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


def jets_of(pt: np.ndarray, selected: np.ndarray) -> Members:
    return Members(bits=jnp.asarray(selected), columns={"pt": jnp.asarray(pt)})


def test_ht_is_the_sum_in_stored_order(jets_and_sets):
    pt, selected = jets_and_sets
    plain = [sum(jets, start=np.float32(0)) for jets in selected_jets(pt, selected)]
    np.testing.assert_array_equal(jax.jit(ht)(jets_of(pt, selected)), plain)


def test_leading_jet_is_the_largest(jets_and_sets):
    pt, selected = jets_and_sets
    plain = [max(jets, default=np.float32(0)) for jets in selected_jets(pt, selected)]
    np.testing.assert_array_equal(leading_jet_pt(jets_of(pt, selected)), plain)
