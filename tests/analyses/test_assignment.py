"""The assignment of jets by a BDT: the choice under every selection against a search that asks the BDT directly."""

import sys
from functools import partial
from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analyses import assignment, candidates
from pipeline.analyses.assignment import FEATURES, MODELS, Assignment, assignments, features
from pipeline.errors import InputError
from pipeline.events.batch import Event, HostEvent, Prepared
from pipeline.events.cuts import ObjectSet, Selection
from pipeline.events.function import Sets
from pipeline.events.variations import round_down

xgboost = pytest.importorskip("xgboost", reason="pip install '.[bdt]'")

from reference.assignment import NAMES, Twin, of_way, quadruples  # noqa: E402

JETS, ELECTRONS, MUONS = 9, 2, 1
SOME = ("mass_w1w2btophad", "pt_w2", "btag_btoplep", "bdt_score")
"""Variables that tell assignments apart; each one more takes its time to compile."""
SETS = Selection(tuple(ObjectSet(name, name) for name in ("jet", "electron", "muon")), (), (), ())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two small BDTs of noise; with so few leaves, many assignments have equal scores."""
    folder, generator = tmp_path_factory.mktemp("bdts"), np.random.default_rng(3)
    paths = {}
    for name in ("even", "odd"):
        inputs = generator.uniform(0, 200, (2000, len(FEATURES))).astype(np.float32)
        inputs[:, :4], inputs[:, 12:] = inputs[:, :4] / 50, inputs[:, 12:] / 200
        data = xgboost.DMatrix(inputs, generator.random(2000) < 0.3)
        paths[name] = folder / f"{name}.ubj"
        xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, data, 4).save_model(paths[name])
    return paths


def random_objects(generator, counts: np.ndarray, places: int) -> dict[str, np.ndarray]:
    """Columns in float32, shape "places events", NaN where there is no object."""
    shape = (places, len(counts))
    columns = {
        "pt": generator.exponential(40, shape) + 20,
        "eta": generator.normal(0, 1.2, shape),
        "phi": generator.uniform(-np.pi, np.pi, shape),
        "mass": generator.exponential(8, shape),
        "btag": generator.random(shape),
        "qgl": generator.random(shape),
    }
    there = np.arange(places)[:, None] < counts
    return {name: np.where(there, column, np.nan).astype(np.float32) for name, column in columns.items()}


def random_event(seed: int, events: int = 60, asked=None) -> HostEvent:
    """Events of 0 to 9 jets and 0 to 3 leptons; pt in float64, as of a variation."""
    generator = np.random.default_rng(seed)
    of = {
        "jet": random_objects(generator, generator.integers(0, JETS + 1, events), JETS),
        "electron": random_objects(generator, generator.integers(0, ELECTRONS + 1, events), ELECTRONS),
        "muon": random_objects(generator, generator.integers(0, MUONS + 1, events), MUONS),
    }
    of["jet"]["pt"] = of["jet"]["pt"].astype(np.float64) * 1.03
    return HostEvent(of, {"event_number": generator.integers(0, 2**52, events).astype(np.float64)}, asked)


def random_sets(event: HostEvent, seed: int, chance: float) -> dict[str, np.ndarray]:
    """Bit masks of some of the objects that are there."""
    generator, bits = np.random.default_rng(seed), {}
    for name, columns in event.objects.items():
        picked = np.isfinite(columns["pt"]) & (generator.random(columns["pt"].shape) < chance)
        bits[name] = (picked << np.arange(len(picked))[:, None]).sum(axis=0).astype(np.uint32)
    return bits


def prepared_of(table: dict[str, np.ndarray]) -> Prepared:
    """The rows stand between those of others, which would be admissible anywhere."""
    rows = max(map(len, table.values()), default=0)
    among = {name: jnp.asarray(np.pad(column, ((3, 5), (0, 0)))) for name, column in table.items()}
    return Prepared(table=among, first=jnp.asarray(3, jnp.int32), rows=jnp.asarray(rows, jnp.int32))


def variables(function: Assignment, event: HostEvent, bits: dict[str, np.ndarray], some=None) -> dict[str, np.ndarray]:
    """What the event function makes of the events, or of `some` of them."""
    whole = Event(
        objects=jax.tree.map(lambda column: jnp.asarray(column, jnp.float32), dict(event.objects)),
        columns={},
        weight=jnp.ones(len(bits["jet"]), jnp.float32),
        collision=jnp.zeros(len(bits["jet"]), jnp.int32),
        prepared=prepared_of(function.prepare(event)),
    )

    @jax.jit
    def compute(whole, bits):
        of = whole if some is None else whole.at(jnp.asarray(some))
        return function.variables(of, Sets(SETS, of, bits))

    chosen = bits if some is None else {name: each[some] for name, each in bits.items()}
    return jax.tree.map(np.asarray, compute(whole, jax.tree.map(jnp.asarray, chosen)))


def searched(twin: Twin, event: HostEvent, bits: dict[str, np.ndarray], number: int) -> dict[str, float]:
    """Of one event: of the selected leptons the one with the best score, the first of equals in rank of assignments."""

    def members(name):
        return [place for place in range(32) if int(bits[name][number]) >> place & 1]

    if len(members("jet")) < 4:
        return {}
    jets = {name: column[members("jet"), number] for name, column in event.objects["jet"].items()}
    own = int(event.columns["event_number"][number])
    found = []
    for name in ("electron", "muon"):
        for place in members(name):
            lepton = {v: float(column[place, number]) for v, column in event.objects[name].items()}
            found += twin.chosen([(jets, lepton, own)])
    return max(found, key=lambda each: each["bdt_score"], default={})


# --- Features and assignments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jets", "number"), [(4, 12), (5, 60), (6, 180)])
def test_assignments_are_those_of_the_agc(jets, number):
    ways = assignments(jets)
    assert len(ways.jets) == number
    assert ways.jets.tolist() == [list(way) for way in quadruples(jets)]


@pytest.mark.parametrize("jets", [4, 7])
def test_the_twelve_assignments_of_four_jets_stand_together(jets):
    ways = assignments(jets)
    assert ways.of_four.shape == (comb(jets, 4), 12)
    assert sorted(ways.of_four.ravel()) == list(range(len(ways.jets)))
    assert np.all(np.diff(ways.of_four, axis=1) > 0)
    fours = [{*ways.jets[number].tolist()} for number in ways.of_four.ravel()]
    assert fours == [{j for j in range(jets) if int(mask) >> j & 1} for mask in np.repeat(ways.objects, 12)]
    assert {frozenset(four) for four in fours} == {frozenset(four) for four in combinations(range(jets), 4)}


def test_features_are_those_of_the_agc():
    generator = np.random.default_rng(0)
    jets = {name: column.T.astype(float) for name, column in random_objects(generator, np.full(20, 5), 5).items()}
    lepton = {name: column[0].astype(float) for name, column in random_objects(generator, np.full(20, 1), 1).items()}
    told = features(jets, lepton, assignments(5).jets)
    assert tuple(told) == FEATURES == tuple(NAMES)
    for event in range(20):
        own = {name: column[event] for name, column in jets.items()}
        expected = of_way(own, {name: column[event] for name, column in lepton.items()}, np.array(quadruples(5)))
        for name in NAMES:
            np.testing.assert_allclose(told[name][event], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


# --- The choice -------------------------------------------------------------------------------------------------------


def assert_chosen(twin, event, bits, values):
    """The variables of every event; returns how many had an assignment."""
    there = 0
    for number in range(len(bits["jet"])):
        expected = searched(twin, event, bits, number)
        for name in SOME:
            if not expected:
                assert np.isnan(values[name][number]), (name, number)
            else:
                np.testing.assert_allclose(values[name][number], expected[name], rtol=2e-6, atol=1e-6, err_msg=name)
        there += bool(expected)
    return there


@pytest.mark.parametrize("chance", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("choose", [None, candidates.many_at_once], ids=["of this device", "of a GPU"])
def test_the_best_of_what_is_selected_is_taken(files, monkeypatch, choose, chance):
    """Many ties; up to nine jets, of which six are looked at; up to three leptons."""
    if choose is not None:
        monkeypatch.setattr(
            assignment, "first_candidate", lambda table, columns, allowed, *sets: choose(columns, allowed, table, *sets)
        )
    function, twin, event = Assignment(**files), Twin(**files), random_event(1, asked=SOME)
    bits = random_sets(event, 2, chance)
    values = variables(function, event, bits)
    assert assert_chosen(twin, event, bits, values) > 10
    np.testing.assert_allclose(
        values["ht"],
        [
            sum(np.float32(event.objects["jet"]["pt"][j, n]) for j in range(JETS) if int(bits["jet"][n]) >> j & 1)
            for n in range(60)
        ],
        rtol=1e-5,
    )


def test_events_that_are_gathered_choose_as_all_do(files):
    """As the engine asks for flips: some of the events, some of them twice."""
    function, event = Assignment(**files), random_event(4, asked=SOME)
    bits, some = random_sets(event, 5, 0.8), np.array([3, 3, 50, 0, 17, 59], np.int32)
    all_of_them, gathered = variables(function, event, bits), variables(function, event, bits, some)
    for name, column in all_of_them.items():
        np.testing.assert_array_equal(gathered[name], column[some])


def test_each_bdt_is_asked_about_events_of_the_other_parity(files):
    event = random_event(6, asked=("bdt_score",))
    bits = random_sets(event, 7, 1.0)
    scores = variables(Assignment(**files), event, bits)["bdt_score"]
    even = event.columns["event_number"] % 2 == 0
    by_one = {
        name: variables(Assignment(even=file, odd=file), event, bits)["bdt_score"] for name, file in files.items()
    }
    np.testing.assert_array_equal(scores, np.where(even, by_one["odd"], by_one["even"]))
    there = np.isfinite(scores)
    assert np.any(by_one["odd"][there & even] != by_one["even"][there & even])
    assert np.any(by_one["odd"][there & ~even] != by_one["even"][there & ~even])


# --- What is prepared -------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_prepared(files):
    function = Assignment(**files)
    event = random_event(8)
    whole, mass = function.prepare(event), function.prepare(event._replace(asked=("mass_w1w2btophad", "ht")))
    assert set(whole) == {candidates.MASK, *FEATURES, "bdt_score"}
    assert set(mass) == {candidates.MASK, "mass_w1w2btophad"}
    np.testing.assert_array_equal(mass["mass_w1w2btophad"], whole["mass_w1w2btophad"])
    assert function.prepare(event._replace(asked=("ht",))) == {}
    nothing = event._replace(asked=("ht",))
    assert set(variables(function, nothing, random_sets(event, 1, 1.0))) == {"ht", "leading_jet_pt"}


def test_as_many_rows_as_the_busiest_event_has(files):
    """One for every four jets and a lepton, in whole blocks; by falling score."""
    event = random_event(9)
    table = Assignment(**files).prepare(event)
    jets, electrons, muons = (
        np.isfinite(event.objects[name]["pt"]).sum(axis=0) for name in ("jet", "electron", "muon")
    )
    rows = np.array([comb(int(number), 4) for number in jets]) * (electrons + muons)
    assert len(table[candidates.MASK]) == -(-rows.max() // candidates.AT_A_TIME) * candidates.AT_A_TIME
    np.testing.assert_array_equal(np.isfinite(table["bdt_score"]).sum(axis=0), rows)
    for number, real in enumerate(rows):
        assert np.all(np.diff(table["bdt_score"][:real, number]) <= 0)
    assert table[candidates.MASK].dtype == np.uint16


def test_values_are_on_the_right_side_of_every_edge(files, monkeypatch):
    """float64 masses are rounded down to float32."""
    exact = {}

    def kept(values):
        exact.setdefault("masses", []).append(values)
        return round_down(values)

    monkeypatch.setattr(assignment, "round_down", kept)
    mass = Assignment(**files).prepare(random_event(10, asked=("mass_w1w2",)))["mass_w1w2"]
    masses = np.sort(np.concatenate([each.ravel() for each in exact["masses"]]))
    rounded = np.sort(mass[np.isfinite(mass)])
    assert np.all(rounded <= masses)
    assert np.all(np.nextafter(rounded, np.float32(np.inf)) > masses)


@pytest.mark.parametrize(("objects", "kind"), [(15, np.uint16), (16, np.uint32), (31, np.uint32), (32, np.uint64)])
def test_a_mask_has_room_for_all_objects_and_one_more(objects, kind):
    assert assignment._mask_of(objects) is kind


# --- What is wrong is said --------------------------------------------------------------------------------------------


def test_without_xgboost_one_is_told_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    assignment._bdt.cache_clear()
    with pytest.raises(InputError, match=r"one of XGBoost, which is not installed; pip install '\.\[bdt\]'"):
        Assignment(**files).prepare(random_event(11))


def test_a_file_that_is_no_bdt_is_named(files, tmp_path):
    broken, other = tmp_path / "broken.ubj", tmp_path / "other.ubj"
    broken.write_bytes(b"no model")
    data = xgboost.DMatrix(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1]))
    xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 1).save_model(other)
    for file, sentence in (
        (broken, "cannot be read as a model of XGBoost"),
        (tmp_path / "absent.ubj", "there is no such file"),
        (other, "is told 3 features, and not the 20"),
    ):
        with pytest.raises(InputError, match=sentence) as error:
            Assignment(even=file, odd=files["odd"]).prepare(random_event(11))
        assert str(file) in str(error.value)


def without(event: HostEvent, collection: str, variable: str) -> HostEvent:
    columns = {name: column for name, column in event.objects[collection].items() if name != variable}
    return event._replace(objects={**event.objects, collection: columns})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (partial(without, collection="jet", variable="qgl"), "needs objects.jet.variables.qgl"),
        (partial(without, collection="muon", variable="phi"), "needs objects.muon.variables.phi"),
        (lambda event: event._replace(objects={"jet": event.objects["jet"]}), "objects.electron.variables.pt"),
        (lambda event: event._replace(columns={}), "event_variables.event_number: .* add 'event_number: event'"),
        (
            lambda event: event._replace(columns={"event_number": np.full(60, 2.0**53)}),
            "9007199254740992 is too large to know its parity",
        ),
    ],
)
def test_what_is_missing_is_named(files, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        Assignment(**files).prepare(changed(random_event(12)))


def test_events_with_electrons_only_need_no_muons(files):
    event = random_event(13)
    alone = event._replace(objects={name: event.objects[name] for name in ("jet", "electron")})
    table = Assignment(**files).prepare(alone)
    assert np.isfinite(table["bdt_score"]).any()


# --- What comes along -------------------------------------------------------------------------------------------------


def test_the_bdts_that_come_along_are_small_and_different():
    even, odd = (MODELS / f"{name}.ubj" for name in ("even", "odd"))
    assert even.stat().st_size + odd.stat().st_size < 300_000
    inputs = np.random.default_rng(0).uniform(0, 100, (100, len(FEATURES))).astype(np.float32)
    scores = [xgboost.Booster(model_file=str(file)).inplace_predict(inputs) for file in (even, odd)]
    assert all(np.all((score > 0) & (score < 1)) for score in scores)
    assert np.any(scores[0] != scores[1])
