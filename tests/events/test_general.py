"""Any analysis, not the one this began with: yields against plain NumPy, flux against finite differences.

Random events, three analyses of them. What the engine flips in one set may move an observable, a region, a weight,
another set. Each threshold is compared in all bins, kinematic variations and columns of the yields.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Data
from pipeline.events.batch import Events
from pipeline.events.cuts import Cut, ObjectSet, Region, Requirement, Selection, Union, arrays
from pipeline.events.dense import dense_groups
from pipeline.events.evaluation import EventAnalysis, Factor, Layout
from pipeline.events.flux import MAX_OBJECTS
from pipeline.events.smeared import smeared_yields
from pipeline.events.variations import round_up
from pipeline.events.yields import hard_yields

from reference.compiling import quick_jit
from toy import NO_TEMPLATES, Toy, assert_flux_is_the_finite_difference, histogram, random_collection

EVENTS = 40_000


def yields_of(analysis: EventAnalysis, thresholds: dict[str, float], data: Data) -> np.ndarray:
    """Of the only data set: shape "kinematics bins columns"."""
    return np.asarray(jax.jit(hard_yields(analysis))(arrays(thresholds), {}, data.events))[:, 0]


def above(column: np.ndarray, threshold: float) -> np.ndarray:
    """A threshold has the precision of the data."""
    return column > np.float32(threshold)


def below(column: np.ndarray, threshold: float) -> np.ndarray:
    return column < np.float32(threshold)


def assert_equal_sums(ours: np.ndarray, expected: np.ndarray) -> None:
    """Counts to the last one; sums of factors in float32 within a chunk."""
    np.testing.assert_array_equal(ours[..., :2], expected[..., :2])
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert np.mean(expected[..., 0] > 20) > 0.7


# --- Leptons: observables, flavours, windows, weights, variations ----------------------------------------------------


class Leptons:
    """Sums of pt of all selected leptons, and which they are."""

    def variables(self, event, sets):
        total = sum(jnp.sum(sets[name].column("pt", 0.0), axis=0) for name in ("electron", "muon"))
        flavour = 10 * sets["electron"].count + sets["muon"].count
        return {"lepton_sum": total, "flavour": flavour.astype(jnp.float32)}

    def weights(self, event, sets):
        return {"hard_muons": 1 + jnp.max(sets["muon"].column("pt", 0.0), axis=0) / 100}


LEPTONS = EventAnalysis(
    Selection(
        sets=tuple(ObjectSet(name, name) for name in ("electron", "muon", "jet")),
        unions=(Union("lepton", ("electron", "muon")),),
        cuts=(
            Cut("electron_pt", ("electron",), "pt", "above"),
            Cut("muon_pt", ("muon",), "pt", "above"),
            Cut("lepton_eta", ("electron", "muon"), "eta", "below", absolute=True),
            Cut("crack", ("electron",), "eta", "outside", absolute=True),
            Cut("jet_window", ("jet",), "pt", "inside"),
            Cut("veto", ("event",), "lepton_sum", "outside", regions=("ee", "emu")),
            Cut("met_window", ("event",), "met", "inside", regions=("met",)),
        ),
        regions=(
            # Told apart by a variable; the last one overlaps with the others, which come first.
            Region("ee", (Requirement("lepton", 2.0, 2.0), Requirement("flavour", 20.0, 20.0)), "lepton_sum", 8, 0),
            Region("emu", (Requirement("lepton", 2.0, 2.0), Requirement("flavour", 11.0, 11.0)), "lepton_sum", 8, 8),
            Region("met", (Requirement("lepton", 1.0), Requirement("met", 40.0, None)), "n_jet", 5, 16),
        ),
    ),
    Leptons(),
    Layout(
        datasets=1,
        kinematics=3,
        factors=(
            Factor("pt", "muon", 0),
            Factor("sf", "jet", fill=1.0),
            Factor("pileup"),
            Factor("hard_muons"),
            Factor("lepton_sum"),
        ),
    ),
)
SUMS = [30.0, 60.0, 68.0, 80.0, 100.0, 115.0, 130.0, 150.0, 400.0]
LEPTON_EDGES = {"ee": SUMS, "emu": SUMS, "met": [-0.5, 0.5, 1.5, 2.5, 3.5, 5.5]}
LEPTON_AT = {
    "electron_pt": 21.0,
    "muon_pt": 19.0,
    "lepton_eta": 1.5,
    "crack.low": 0.6,
    "crack.high": 1.1,
    "jet_window.low": 22.0,
    "jet_window.high": 55.0,
    "veto.low": 71.0,
    "veto.high": 106.0,
    "met_window.low": 45.0,
    "met_window.high": 95.0,
}
LEPTON_WIDTHS = dict.fromkeys(LEPTON_AT, 4.0) | {"lepton_eta": 0.2, "crack.low": 0.1, "crack.high": 0.1}
FROM_BELOW = ("electron.eta", "muon.eta")


def lepton_events(events: int) -> Toy:
    """With a variation of a lepton column, and one of an event column."""
    generator = np.random.default_rng(1)
    objects = {
        "electron": random_collection(generator, events, 3),
        "muon": random_collection(generator, events, 3),
        "jet": random_collection(generator, events, 5, ["sf"]),
    }
    columns = {"met": generator.exponential(50, events), "pileup": generator.normal(1, 0.1, events)}
    varied = {"muon.pt": (1.0, 1.05, 1.0), "muon.eta": (1.0, 0.97, 1.0), "met": (1.0, 1.0, 1.1)}
    return Toy(objects, {name: column.astype(np.float32) for name, column in columns.items()}, varied)


def plain_leptons(toy: Toy, at: dict[str, float], kinematic: int) -> np.ndarray:
    def column(name: str) -> np.ndarray:
        return toy.column(name, kinematic)

    eta = np.abs(column("electron.eta"))
    electron = above(column("electron.pt"), at["electron_pt"]) & below(eta, at["lepton_eta"])
    electron &= below(eta, at["crack.low"]) | above(eta, at["crack.high"])
    muon = above(column("muon.pt"), at["muon_pt"]) & below(np.abs(column("muon.eta")), at["lepton_eta"])
    jet = above(column("jet.pt"), at["jet_window.low"]) & below(column("jet.pt"), at["jet_window.high"])
    met = column("met")
    electrons, muons = electron.sum(axis=0), muon.sum(axis=0)
    muon_pt = np.where(muon, column("muon.pt"), 0)
    total = np.where(electron, column("electron.pt"), 0).sum(axis=0) + muon_pt.sum(axis=0)
    outside = below(total, at["veto.low"]) | above(total, at["veto.high"])
    ee = (electrons == 2) & (muons == 0) & outside
    emu = (electrons == 1) & (muons == 1) & outside
    window = above(met, at["met_window.low"]) & below(met, at["met_window.high"])
    high = (electrons + muons >= 1) & (met >= 40) & window & ~ee & ~emu
    first = np.where(muons > 0, np.take_along_axis(muon_pt, muon.argmax(axis=0)[None], axis=0)[0], 0)
    product = np.prod(np.where(jet, column("jet.sf"), 1), axis=0)
    ones = np.ones(len(met))
    columns = [ones, ones, first, product, column("pileup"), 1 + muon_pt.max(axis=0) / 100, total]
    return np.concatenate(
        [
            histogram(observable, inside, np.array(LEPTON_EDGES[name]), columns)
            for name, inside, observable in (("ee", ee, total), ("emu", emu, total), ("met", high, jet.sum(axis=0)))
        ]
    )


@pytest.fixture(scope="module")
def lepton_toy() -> tuple[Toy, Data]:
    toy = lepton_events(EVENTS)
    edges = {name: jnp.asarray(places) for name, places in LEPTON_EDGES.items()}
    return toy, toy.data(LEPTONS.function, edges, FROM_BELOW)


def test_yields_of_leptons_are_plain_sums(lepton_toy):
    toy, data = lepton_toy
    for shift in (0.0, 0.05):
        at = {name: (1 + shift) * value for name, value in LEPTON_AT.items()}
        ours = yields_of(LEPTONS, at, data)
        assert_equal_sums(ours, np.array([plain_leptons(toy, at, kinematic) for kinematic in range(3)]))


@pytest.mark.slow
def test_flux_of_leptons_is_the_finite_difference(lepton_toy):
    _, data = lepton_toy
    assert_flux_is_the_finite_difference(LEPTONS, LEPTON_AT, LEPTON_WIDTHS, data)


@pytest.mark.slow
def test_smooth_yields_of_leptons():
    """Their derivative is the finite difference of themselves, and narrow kernels give the hard yields."""
    edges = {name: jnp.asarray(places) for name, places in LEPTON_EDGES.items()}
    events = lepton_events(600).data(LEPTONS.function, edges, FROM_BELOW).events
    # Not where stored values are.
    at = {name: value + 0.0123 for name, value in LEPTON_AT.items()}
    smooth = quick_jit(smeared_yields(LEPTONS))
    direction = {name: (-1.0) ** number * LEPTON_WIDTHS[name] for number, name in enumerate(at)}

    def along(step):
        moved = {name: value + step * direction[name] for name, value in at.items()}
        return smooth(moved, arrays(LEPTON_WIDTHS), events)

    _, slope = jax.jvp(along, (jnp.asarray(0.0),), (jnp.asarray(1.0),))
    step = 1e-5
    numeric = (along(jnp.asarray(step)) - along(jnp.asarray(-step))) / (2 * step)
    scale = np.abs(numeric).max(axis=(0, 1, 2))
    assert np.all(scale > 0.1)
    np.testing.assert_array_less(np.abs(slope - numeric), np.broadcast_to(1e-6 * scale, slope.shape))

    hard = quick_jit(hard_yields(LEPTONS))(arrays(at), {}, events)
    narrow = [
        np.abs(smooth(arrays(at), arrays({name: scale * w for name, w in LEPTON_WIDTHS.items()}), events) - hard)
        for scale in (1.0, 0.1, 1e-9)
    ]
    assert narrow[0].max() > narrow[1].max() > narrow[2].max()
    np.testing.assert_allclose(narrow[2] / np.maximum(np.abs(hard), 1), 0, atol=2e-6)


# --- Sets within sets, several sets on a collection, and a cut on what other sets make -------------------------------


class Cleaning:
    """The distance of each jet from the nearest selected muon; the sum of pt of those that are clean."""

    def object_variables(self, event, sets):
        jets, muon = event.objects["jet"], sets["muon"]
        eta = jets["eta"][:, None] - muon.column("eta")[None]
        phi = jnp.abs(jets["phi"][:, None] - muon.column("phi")[None])
        distance = jnp.hypot(eta, jnp.minimum(phi, 2 * jnp.pi - phi))
        return {"jet": {"dr": jnp.min(jnp.where(jnp.isnan(distance), 99, distance), axis=1)}}

    def variables(self, event, sets):
        return {"clean_sum": jnp.sum(sets["clean"].column("pt", 0.0), axis=0)}


NESTED = EventAnalysis(
    Selection(
        sets=(
            ObjectSet("muon", "muon"),
            ObjectSet("hard_muon", "muon"),
            ObjectSet("jet", "jet"),
            ObjectSet("central", "jet"),
            ObjectSet("clean", "jet", within="jet"),
            ObjectSet("btag", "jet", within="clean"),
            ObjectSet("tight", "jet", within="btag"),
        ),
        # Both of one collection: a muon may count twice.
        unions=(Union("any_muon", ("muon", "hard_muon")),),
        cuts=(
            Cut("muon_pt", ("muon",), "pt", "above"),
            Cut("hard_muon_pt", ("hard_muon",), "pt", "above"),
            Cut("jet_pt", ("jet", "central"), "pt", "above"),
            Cut("central_eta", ("central",), "eta", "below", absolute=True),
            Cut("dr", ("clean",), "dr", "above"),
            Cut("btag", ("btag",), "btag", "above"),
            Cut("tight", ("tight",), "btag", "above"),
        ),
        regions=(
            Region("any", (Requirement("any_muon", 2.0, 2.0), Requirement("central", 1.0)), "n_central", 4, 0),
            # A central jet that fails pt is in neither set: one threshold, two counts that change at once.
            Region("both", (Requirement("jet", 3.0, 3.0), Requirement("central", 2.0, 2.0)), "clean_sum", 4, 4),
            Region("one", (Requirement("muon", 1.0), Requirement("btag", 1.0, 1.0)), "clean_sum", 8, 8),
            Region("tight", (Requirement("tight", 1.0), Requirement("jet", 2.0)), "clean_sum", 8, 16),
        ),
    ),
    Cleaning(),
    Layout(datasets=1, kinematics=1, factors=(Factor("pt", "tight", 0),)),
)
SUMS_OF_JETS = [20.0, 70.0, 95.0, 110.0, 125.0, 145.0, 170.0, 210.0, 500.0]
NESTED_EDGES = {
    "any": [0.5, 1.5, 2.5, 3.5, 6.5],
    "both": [20.0, 110.0, 140.0, 180.0, 500.0],
    "one": SUMS_OF_JETS,
    "tight": SUMS_OF_JETS,
}
NESTED_AT = {
    "muon_pt": 25.0,
    "hard_muon_pt": 40.0,
    "jet_pt": 27.0,
    "central_eta": 1.1,
    "dr": 0.9,
    "btag": 0.5,
    "tight": 0.75,
}
NESTED_WIDTHS = {
    "muon_pt": 4.0,
    "hard_muon_pt": 4.0,
    "jet_pt": 2.0,
    "central_eta": 0.15,
    "dr": 0.2,
    "btag": 0.1,
    "tight": 0.1,
}


def plain_nested(toy: Toy, at: dict[str, float]) -> np.ndarray:
    muons, jets = toy.objects["muon"], toy.objects["jet"]
    muon, hard_muon = above(muons["pt"], at["muon_pt"]), above(muons["pt"], at["hard_muon_pt"])
    jet = above(jets["pt"], at["jet_pt"])
    central = jet & below(np.abs(jets["eta"]), at["central_eta"])
    dr = np.full(jet.shape, np.inf)
    for own, eta, phi in zip(muon, muons["eta"], muons["phi"], strict=True):
        around = np.abs(jets["phi"] - phi)
        distance = np.hypot(jets["eta"] - eta, np.minimum(around, 2 * np.pi - around))
        dr = np.where(own & (distance < dr), distance, dr)
    clean = jet & above(dr, at["dr"])
    btag = clean & above(jets["btag"], at["btag"])
    tight = btag & above(jets["btag"], at["tight"])
    number = {name: mask.sum(axis=0) for name, mask in locals().items() if mask is not None and name in NESTED_SETS}
    either = (number["muon"] + number["hard_muon"] == 2) & (number["central"] >= 1)
    both = (number["jet"] == 3) & (number["central"] == 2) & ~either
    one = (number["muon"] >= 1) & (number["btag"] == 1) & ~either & ~both
    two = (number["tight"] >= 1) & (number["jet"] >= 2) & ~either & ~both & ~one
    total = np.where(clean, jets["pt"], 0).sum(axis=0)
    pt = np.take_along_axis(jets["pt"], tight.argmax(axis=0)[None], axis=0)[0]
    ones = np.ones(len(total))
    columns = [ones, ones, np.where(number["tight"] > 0, pt, 0)]
    return np.concatenate(
        [
            histogram(observable, inside, np.array(NESTED_EDGES[name]), columns)
            for name, inside, observable in (
                ("any", either, number["central"]),
                ("both", both, total),
                ("one", one, total),
                ("tight", two, total),
            )
        ]
    )


NESTED_SETS = {each.name for each in NESTED.selection.sets}


@pytest.fixture(scope="module")
def nested_toy() -> tuple[Toy, Data]:
    generator = np.random.default_rng(2)
    muons = random_collection(generator, EVENTS, 3)
    toy = Toy({"muon": muons, "jet": random_collection(generator, EVENTS, 6, ["btag"])}, {"met": np.zeros(EVENTS)})
    return toy, toy.data(NESTED.function, {name: jnp.asarray(places) for name, places in NESTED_EDGES.items()})


def test_yields_of_nested_sets_are_plain_sums(nested_toy):
    toy, data = nested_toy
    for shift in (0.0, 0.05):
        at = {name: (1 + shift) * value for name, value in NESTED_AT.items()}
        ours = yields_of(NESTED, at, data)[0]
        expected = plain_nested(toy, at)
        np.testing.assert_array_equal(ours[:, 0], expected[:, 0])
        np.testing.assert_allclose(ours[:, 2], expected[:, 2], rtol=1e-5)
        assert np.mean(expected[:, 0] > 20) > 0.7


@pytest.mark.slow
def test_flux_of_nested_sets_is_the_finite_difference(nested_toy):
    """A muon that is flipped makes jets clean or not, and these are those among which b-tags are."""
    _, data = nested_toy
    assert_flux_is_the_finite_difference(NESTED, NESTED_AT, NESTED_WIDTHS, data)


def test_a_cut_on_what_the_event_function_makes_cannot_be_smeared(nested_toy):
    _, data = nested_toy
    with pytest.raises(ValueError, match=r"sets.clean: a cut on it is on a variable that the event function makes"):
        jax.eval_shape(smeared_yields(NESTED), arrays(NESTED_AT), arrays({"muon_pt": 4.0}), data.events)


def test_a_cut_on_two_sets_of_a_collection_cannot_be_smeared(nested_toy):
    """It has one threshold, which an object meets in both sets at once; sharp, it is no problem."""
    _, data = nested_toy
    cuts = tuple(cut for cut in NESTED.selection.cuts if cut.name != "dr")
    analysis = NESTED._replace(selection=replace(NESTED.selection, cuts=cuts))
    with pytest.raises(ValueError, match=r"cuts.jet_pt: is on 'jet' and 'central', sets of one collection"):
        jax.eval_shape(smeared_yields(analysis), arrays(NESTED_AT), arrays(NESTED_WIDTHS), data.events)
    sharp = {name: width for name, width in NESTED_WIDTHS.items() if name not in ("dr", "jet_pt")}
    jax.eval_shape(smeared_yields(analysis), arrays(NESTED_AT), arrays(sharp), data.events)


# --- A flat table, and objects without end ---------------------------------------------------------------------------


class Sum:
    def variables(self, event, sets):
        return {"sum": event.columns["x"] + event.columns["y"]}


TABLE = EventAnalysis(
    Selection(
        sets=(),
        unions=(),
        cuts=(
            Cut("x", ("event",), "x", "above"),
            Cut("y", ("event",), "y", "inside"),
            Cut("sum", ("event",), "sum", "below", absolute=True, regions=("first",)),
        ),
        regions=(
            Region("first", (Requirement("kind", 1.0, 2.0),), "sum", 8, 0),
            Region("second", (), "y", 8, 8),
        ),
    ),
    Sum(),
    Layout(datasets=1, kinematics=2, factors=(Factor("weight"),)),
)
TABLE_EDGES = {"first": np.linspace(-2, 2, 9), "second": np.linspace(-1.3, 1.7, 9)}
TABLE_AT = {"x": -0.4, "y.low": -0.9, "y.high": 1.2, "sum": 1.25}


@pytest.fixture(scope="module")
def table() -> tuple[Toy, Data]:
    generator = np.random.default_rng(3)
    columns = {name: generator.normal(0, 1, EVENTS) for name in ("x", "y")}
    columns |= {"kind": generator.integers(0, 4, EVENTS), "weight": generator.exponential(1, EVENTS)}
    toy = Toy({}, {name: column.astype(np.float32) for name, column in columns.items()}, {"x": (1.0, 1.1)})
    return toy, toy.data(TABLE.function, {name: jnp.asarray(places) for name, places in TABLE_EDGES.items()})


def test_yields_of_a_flat_table_are_plain_sums(table):
    toy, data = table
    expected = []
    for kinematic in range(2):
        x, y, kind, weight = (toy.column(name, kinematic) for name in ("x", "y", "kind", "weight"))
        kept = above(x, TABLE_AT["x"]) & above(y, TABLE_AT["y.low"]) & below(y, TABLE_AT["y.high"])
        total = round_up(x) + y if kinematic else x + y
        first = kept & (kind >= 1) & (kind <= 2) & below(np.abs(total), TABLE_AT["sum"])
        columns = [np.ones(EVENTS), np.ones(EVENTS), weight]
        parts = (("first", first, total), ("second", kept & ~first, y))
        expected.append(np.concatenate([histogram(o, i, np.array(TABLE_EDGES[name]), columns) for name, i, o in parts]))
    assert_equal_sums(yields_of(TABLE, TABLE_AT, data), np.array(expected))


def test_flux_of_a_flat_table_is_the_finite_difference(table):
    _, data = table
    assert_flux_is_the_finite_difference(TABLE, TABLE_AT, dict.fromkeys(TABLE_AT, 0.2), data)


def test_more_objects_than_a_bit_mask_holds_are_counted_right():
    """The hardest are kept: what a threshold above them selects is complete."""
    generator = np.random.default_rng(4)
    collection = random_collection(generator, 500, 60)
    there = ~np.isnan(collection["pt"])
    sample = Toy({"jet": collection}, {"met": np.zeros(500, np.float32)}).sample()
    sample = replace(sample, objects={"jet": sample.objects["jet"].hardest()})
    assert there.sum(axis=0).max() > MAX_OBJECTS >= sample.objects["jet"].counts.max()
    analysis = EventAnalysis(
        Selection(
            sets=(ObjectSet("jet", "jet"),),
            unions=(),
            cuts=(Cut("pt", ("jet",), "pt", "above"),),
            regions=(Region("all", (), "n_jet", 40, 0),),
        ),
        object(),
        Layout(datasets=1, kinematics=1),
    )
    edges = {"all": jnp.arange(-0.5, 40.0)}
    for threshold in (40.0, 1.0):
        (groups,) = dense_groups([[sample]], object(), chunk_size=512)
        ours = yields_of(
            analysis, {"pt": threshold}, Data(events=Events(groups=groups, edges=edges), recipe=NO_TEMPLATES)
        )
        number = np.minimum((collection["pt"] > threshold).sum(axis=0), MAX_OBJECTS)
        np.testing.assert_array_equal(ours[0, :, 0], np.bincount(number, minlength=40))
