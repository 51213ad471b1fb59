"""What an event function sees: members of sets, against plain loops; and that the engine knows what was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.events.batch import Event, Prepared
from pipeline.events.cuts import ObjectSet, Selection, Union
from pipeline.events.function import Members, Sets, call, members

OBJECTS, EVENTS = 12, 50
SELECTION = Selection(
    sets=(
        ObjectSet("jet", "jet"),
        ObjectSet("btag", "jet", within="jet"),
        ObjectSet("tight", "jet", within="btag"),
        ObjectSet("muon", "muon"),
    ),
    unions=(Union("any", ("jet", "muon")),),
    cuts=(),
    regions=(),
)


@pytest.fixture(params=range(3))
def jets(request) -> tuple[np.ndarray, np.ndarray]:
    """Transverse momenta, unsorted, absent ones NaN; and which jets are members."""
    generator = np.random.default_rng(request.param)
    pt = generator.exponential(50, (OBJECTS, EVENTS)).astype(np.float32)
    there = np.arange(OBJECTS)[:, None] < generator.integers(0, OBJECTS + 1, EVENTS)
    pt[~there] = np.nan
    return pt, there & (generator.random(pt.shape) < 0.5)


def as_bits(mask: np.ndarray) -> jax.Array:
    return jnp.asarray((mask << np.arange(len(mask))[:, None]).sum(axis=0), jnp.uint32)


def members_of(pt: np.ndarray, mask: np.ndarray) -> Members:
    return Members(bits=as_bits(mask), columns={"pt": jnp.asarray(pt)})


def test_mask_count_and_column(jets):
    pt, mask = jets
    own = members_of(pt, mask)
    np.testing.assert_array_equal(own.mask, mask)
    np.testing.assert_array_equal(own.count, mask.sum(axis=0))
    assert own.count.dtype == jnp.int32
    np.testing.assert_array_equal(own.column("pt"), np.where(mask, pt, np.nan))
    np.testing.assert_array_equal(own.column("pt", 7.0), np.where(mask, pt, 7))


@pytest.mark.parametrize("fill", [np.nan, 0.0, 1.0])
@pytest.mark.parametrize("n", [0, 1, 3, OBJECTS])
def test_ranks_are_places_in_stored_order(jets, n, fill):
    """Objects are not sorted, as in the AGC."""
    pt, mask = jets
    plain = [([*pt[mask[:, event], event]] + [fill] * (n + 1))[n] for event in range(EVENTS)]
    ours = members_of(pt, mask).nth("pt", n, fill)
    assert ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, np.array(plain, np.float32))


def event_of(pt: np.ndarray) -> Event:
    number = jnp.zeros((), jnp.int32)
    return Event(
        objects={name: {"pt": jnp.asarray(pt)} for name in ("jet", "muon")},
        columns={},
        weight=jnp.ones(EVENTS, jnp.float32),
        collision=jnp.arange(EVENTS, dtype=jnp.int32),
        prepared=Prepared(table={}, first=number, rows=number),
    )


def test_members_of_a_set_are_members_of_the_sets_around_it():
    generator = np.random.default_rng(0)
    own = {each.name: generator.random((OBJECTS, EVENTS)) < 0.6 for each in SELECTION.sets}
    inside = members(SELECTION, {name: as_bits(mask) for name, mask in own.items()})
    tagged = own["jet"] & own["btag"]
    expected = {"jet": own["jet"], "btag": tagged, "tight": tagged & own["tight"], "muon": own["muon"]}
    assert inside.keys() == expected.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(inside[name], as_bits(mask))


def test_what_is_not_known_yet_is_left_out_with_all_that_lies_within():
    bits = as_bits(np.ones((OBJECTS, EVENTS), bool))
    assert list(members(SELECTION, {"jet": bits, "tight": bits, "muon": bits})) == ["jet", "muon"]


def test_sets_remember_what_was_asked_for(jets):
    pt, mask = jets
    bits = as_bits(mask)
    sets = Sets(SELECTION, event_of(pt), {"jet": bits, "muon": bits})
    assert "btag" not in sets
    assert "muon" in sets
    assert len(sets) == 2
    assert sets.used == set()
    np.testing.assert_array_equal(sets["jet"].column("pt"), np.where(mask, pt, np.nan))
    assert sets.used == {"jet"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jets", "no set is called 'jets'; there are: jet"),
        ("any", "'any' is a union, or a set whose members are not known yet; ask for one of: jet"),
        ("btag", "'btag' is a union, or a set whose members are not known yet; ask for one of: jet"),
    ],
)
def test_a_set_that_is_not_there_is_an_error(jets, name, sentence):
    sets = Sets(SELECTION, event_of(jets[0]), {"jet": as_bits(jets[1])})
    with pytest.raises(KeyError, match=sentence):
        sets[name]


def test_every_function_may_be_left_out():
    class OnlyVariables:
        def variables(self, event, sets):
            return {"both": (event, sets)}

    assert call(OnlyVariables(), "variables", 1, 2) == {"both": (1, 2)}
    assert call(OnlyVariables(), "weights", 1, 2) == {}


def test_prepared_rows_come_back_one_by_one_and_for_some_of_the_events():
    table = jnp.arange(30, dtype=jnp.float32).reshape(6, 5)
    rows = Prepared(table={"x": table}, first=jnp.asarray(2, jnp.int32), rows=jnp.asarray(3, jnp.int32))
    np.testing.assert_array_equal(rows.row("x", 1), table[3])
    np.testing.assert_array_equal(rows.column("x", 3), table[2:5])
    rank = jnp.asarray([0, 1, 2, 0, 1], jnp.int32)
    np.testing.assert_array_equal(rows.at("x", rank), [10, 16, 22, 13, 19])
    event = jnp.asarray([4, 0, 4], jnp.int32)
    some = Prepared(table=rows.table, first=rows.first, rows=rows.rows, event=event)
    np.testing.assert_array_equal(some.row("x", 1), [19, 15, 19])
    np.testing.assert_array_equal(some.at("x", rank[:3]), [14, 15, 24])
    np.testing.assert_array_equal(some.column("x", 2), [[14, 10, 14], [19, 15, 19]])
