"""The skim against the same cuts written event by event, and what it does with values that are none."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.ingest import InputError, read
from pipeline.ingest.skim import Collection, Columns, ObjectSkim, Requirement, Skim, skimmed, summed
from small_files import random_branches


def columns(branches: dict[str, ak.Array], skim: Skim) -> Columns:
    collections = {}
    for part in skim.objects:
        arrays = {name: branches[f"{part.collection}_{name}"] for name in part.columns}
        counts = ak.to_numpy(ak.num(arrays["pt"]))
        collections[part.collection] = Collection(
            counts=counts, variables={name: ak.to_numpy(ak.flatten(array)) for name, array in arrays.items()}
        )
    names = (*skim.event_columns, *(name for name in skim.optional if name in branches))
    events = {name: ak.to_numpy(branches[name]) for name in names}
    return Columns(entries=len(branches["event"]), collections=collections, events=events)


CENTRAL = float(np.float32(2.4))
CUTS = {
    "Electron": (lambda o: o["pt"] > 20 and abs(o["eta"]) < CENTRAL, ("pt", "eta")),
    "Muon": (lambda o: o["pt"] > 20 and o["tightId"], ("pt", "eta")),
    "Jet": (lambda o: o["pt"] > 25 and abs(o["eta"]) < CENTRAL and o["jetId"] & 4, ("pt", "eta", "mass")),
}
"""The fixture `skim` again, in plain Python."""


def by_loop(branches: dict[str, ak.Array]) -> list[dict]:
    rows = []
    for index, event in enumerate(ak.to_list(ak.zip(branches, depth_limit=1))):
        row = {"event": event["event"], "MET_pt": event["MET_pt"], "index": index, "weight": 1.0}
        for collection, (passes, keep) in CUTS.items():
            names = ("pt", "eta", "mass", "jetId", "tightId")
            values = zip(*(event[f"{collection}_{name}"] for name in names), strict=True)
            objects = [dict(zip(names, one, strict=True)) for one in values]
            row[collection] = [{name: one[name] for name in keep} for one in objects if passes(one)]
        if len(row["Electron"]) + len(row["Muon"]) >= 1 and len(row["Jet"]) >= 2:
            rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_cuts_written_as_a_loop(skim, seed):
    branches = random_branches(300, seed)
    result = skimmed(columns(branches, skim), skim)
    assert 30 < len(result.events) < 270
    assert ak.without_field(result.events, "collision").tolist() == by_loop(branches)
    assert result.odd == {}


def test_equal_to_awkward_on_real_events(external_data):
    """200 events of CMS Open Data, an independent selection with awkward's own masks."""
    import uproot

    cut = Skim(
        objects=(
            ObjectSkim("Muon", ("pt",), (Requirement("pt", "above", 5.0),)),
            ObjectSkim("Jet", ("pt", "btagCSVV2"), (Requirement("pt", "above", 30.0), Requirement("jetId", "bits", 4))),
        ),
        at_least=((("Muon",), 1), (("Jet",), 1)),
    )
    with uproot.open(external_data / "cms_open_data_200_events.root") as file:
        arrays = file["Events"].arrays([*cut.branches, "event"])
    muons = arrays.Muon_pt[arrays.Muon_pt > 5]
    tight = (arrays.Jet_pt > 30) & ((arrays.Jet_jetId & 4) != 0)
    keep = (ak.num(muons) >= 1) & (ak.sum(tight, axis=1) >= 1)
    events = skimmed(columns({name: arrays[name] for name in arrays.fields}, cut), cut).events
    assert ak.sum(keep) > 5
    assert events["index"].tolist() == np.flatnonzero(keep).tolist()
    assert events.Muon.pt.tolist() == muons[keep].tolist()
    assert events.Jet.btagCSVV2.tolist() == arrays.Jet_btagCSVV2[tight][keep].tolist()


def test_types_and_order_are_the_files(skim):
    result = skimmed(columns(random_branches(100), skim), skim, first_index=1000).events
    assert str(result.type.content.content("Jet")) == "var * {pt: float32, eta: float32, mass: float32}"
    assert result["event"].type.content.primitive == "uint64"
    assert result["index"].type.content.primitive == "int64"
    assert result["index"][0] >= 1000
    assert ak.any(result.Jet.pt[:, 1:] > result.Jet.pt[:, :-1]), "jets that come unsorted stay so"


def one_collection(values: list[list[float]], *requirements: Requirement, dtype=np.float32) -> list[list[float]]:
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",), requirements),))
    flat = np.array([value for event in values for value in event], dtype)
    collection = Collection(counts=np.array([len(event) for event in values]), variables={"pt": flat})
    result = skimmed(Columns(entries=len(values), collections={"Jet": collection}, events={}), skim)
    return result.events.Jet.pt.tolist()


def test_comparisons_are_strict_and_in_the_precision_of_the_column():
    edge = float(np.float32(2.1))
    assert one_collection([[edge]], Requirement("pt", "below", 2.1)) == [[]], (
        "float32(2.1) < 2.1 only in double precision"
    )
    assert one_collection([[edge]], Requirement("pt", "above", 2.1)) == [[]]
    assert one_collection([[edge]], Requirement("pt", "equal", 2.1)) == [[edge]]
    assert one_collection([[2, 4, 6]], Requirement("pt", "bits", 4), dtype=np.int32) == [[4, 6]]
    assert one_collection([[3.0]], Requirement("pt", "below", 2.0, absolute=True)) == [[]]


def float_lists(values: list[list[float]]) -> ak.Array:
    return ak.values_astype(ak.Array(values), np.float32)


PT_CUT = Requirement("pt", "above", 20.0)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, -1.0])
def test_a_bad_value_fails_the_cut_on_it_and_is_counted(bad):
    branches = {
        "Jet_pt": float_lists([[50.0, bad, 40.0], [bad], []]),
        "event": ak.Array(np.arange(3, dtype=np.uint64)),
    }
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",), (PT_CUT,)),))
    result = skimmed(columns(branches, skim), skim)
    assert result.events.Jet.pt.tolist() == [[50.0, 40.0], [], []]
    assert result.odd == {"Jet": 2}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_that_nothing_cuts_on_stays(bad):
    branches = {
        "Jet_pt": float_lists([[50.0, 45.0], [40.0]]),
        "Jet_mass": float_lists([[5.0, bad], [4.0]]),
        "event": ak.Array(np.arange(2, dtype=np.uint64)),
    }
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "mass"), (PT_CUT,)),), at_least=((("Jet",), 2),))
    result = skimmed(columns(branches, skim), skim)
    assert result.events["index"].tolist() == [0]
    assert result.events.Jet.pt.tolist() == [[50.0, 45.0]]
    np.testing.assert_array_equal(result.events.Jet.mass[0], [5.0, bad])
    assert result.odd == {"Jet": 1}


@pytest.mark.parametrize("variable", ["pt", "eta", "phi"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_kept_object_without_a_momentum_is_refused(variable, bad):
    """Entry and branch are named; an object that a cut refuses, or one in an event that is not kept, does no harm."""
    branches = {f"Jet_{name}": float_lists([[50.0], [], [50.0, 50.0]]) for name in ("pt", "eta", "phi")}
    branches |= {"Jet_mass": float_lists([[5.0], [], [5.0, 5.0]]), "event": ak.Array(np.arange(3, dtype=np.uint64))}
    branches[f"Jet_{variable}"] = float_lists([[50.0], [], [50.0, bad]])
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "eta", "phi", "mass")),))
    with pytest.raises(InputError, match=rf"a.root: in entry 102 'Jet_{variable}' is {bad} for an object that passes"):
        skimmed(columns(branches, skim), skim, first_index=100, location="a.root")
    below = Skim(objects=(ObjectSkim("Jet", ("pt", "eta", "phi", "mass"), (Requirement(variable, "below", 60.0),)),))
    assert ak.num(skimmed(columns(branches, below), below).events.Jet).tolist() == [1, 0, 1]
    few = Skim(objects=skim.objects, at_least=((("Jet",), 3),))
    assert len(skimmed(columns(branches, few), few).events) == 0


def test_a_negative_pt_that_nothing_cuts_on_is_refused():
    branches = {"Jet_pt": float_lists([[50.0, -1.0]]), "event": ak.Array(np.arange(1, dtype=np.uint64))}
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",)),))
    with pytest.raises(InputError, match=r"in entry 0 'Jet_pt' is -1.0"):
        skimmed(columns(branches, skim), skim)


def test_negative_values_are_fine_where_they_mean_something():
    branches = {
        "Jet_pt": ak.values_astype(ak.Array([[50.0]]), np.float32),
        "Jet_btagCSVV2": ak.values_astype(ak.Array([[-10.0]]), np.float32),
        "event": ak.Array(np.arange(1, dtype=np.uint64)),
    }
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "btagCSVV2")),))
    assert skimmed(columns(branches, skim), skim).events.Jet.btagCSVV2.tolist() == [[-10.0]]


def test_a_bad_event_variable_stays_and_is_counted():
    branches = {
        "Jet_pt": float_lists([[50.0], [60.0], [70.0]]),
        "MET_pt": ak.values_astype(ak.Array([1.0, np.nan, np.inf]), np.float32),
        "event": ak.Array(np.arange(3, dtype=np.uint64)),
    }
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",)),), event_variables=("MET_pt",))
    result = skimmed(columns(branches, skim), skim)
    np.testing.assert_array_equal(result.events["MET_pt"], [1.0, np.nan, np.inf])
    assert result.odd == {"event": 2}


def test_a_kept_event_without_a_weight_is_refused():
    branches = {
        "Jet_pt": float_lists([[50.0], [60.0], [10.0]]),
        "genWeight": ak.values_astype(ak.Array([1.0, -2.0, np.nan]), np.float32),
        "event": ak.Array(np.arange(3, dtype=np.uint64)),
    }
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",), (PT_CUT,)),), weight="generator")
    with pytest.raises(InputError, match=r"entry 2 the weight 'genWeight' is nan, so the event cannot be counted"):
        skimmed(columns(branches, skim), skim, location="a.root")
    one_jet = Skim(skim.objects, at_least=((("Jet",), 1),), weight="generator")
    kept = skimmed(columns(branches, one_jet), one_jet).events
    assert kept["weight"].tolist() == [1.0, -2.0], "a negative weight is a weight"


def test_no_events(skim):
    result = skimmed(columns(random_branches(0), skim), skim)
    assert len(result.events) == 0
    assert result.events.type.content == skimmed(columns(random_branches(50), skim), skim).events.type.content


jets = st.lists(st.lists(st.floats(0, 100, width=32), max_size=6), min_size=1, max_size=30)


@given(events=jets, cut=st.floats(0, 100, width=32), minimum=st.integers(0, 3))
def test_counts_and_values_for_any_events(events, cut, minimum):
    skim = Skim(
        objects=(ObjectSkim("Jet", ("pt",), (Requirement("pt", "above", cut),)),), at_least=((("Jet",), minimum),)
    )
    flat = np.array([pt for event in events for pt in event], np.float32)
    collection = Collection(counts=np.array([len(event) for event in events]), variables={"pt": flat})
    chunk = Columns(entries=len(events), collections={"Jet": collection}, events={})
    expected = [(index, [pt for pt in event if pt > cut]) for index, event in enumerate(events)]
    expected = [(index, passed) for index, passed in expected if len(passed) >= minimum]
    result = skimmed(chunk, skim).events
    assert list(zip(result["index"].tolist(), result.Jet.pt.tolist(), strict=True)) == expected


def test_branches_are_those_cut_on_and_those_kept_once(skim):
    assert skim.branches == (
        *("Electron_pt", "Electron_eta", "Muon_pt", "Muon_eta", "Muon_tightId"),
        *("Jet_pt", "Jet_eta", "Jet_mass", "Jet_jetId", "MET_pt"),
    )
    assert skim.optional == ("run", "luminosityBlock", "event", "genWeight")


def test_counts_add_up_by_name():
    assert summed([{"Jet": 1}, {}, {"Jet": 2, "event": 1}]) == {"Jet": 3, "event": 1}


def test_events_must_meet_every_formula(make_file):
    branches = random_branches(100)
    generator = np.random.default_rng(5)
    flags = {name: generator.random(100) < 0.5 for name in ("HLT_a", "HLT_b", "Flag_good")}
    file = make_file("a.root", branches | {name: ak.Array(values) for name, values in flags.items()})
    skim = Skim(event_variables=("MET_pt",), require=("HLT_a or HLT_b", "Flag_good", "MET_pt > 20"))
    met = ak.to_numpy(branches["MET_pt"])
    expected = (flags["HLT_a"] | flags["HLT_b"]) & flags["Flag_good"] & (met > 20)
    assert read([file], skim).events["index"].tolist() == np.flatnonzero(expected).tolist()
    with pytest.raises(InputError, match="has no branch 'HLT_c'; the nearest are HLT_"):
        read([file], Skim(require=("HLT_c",)))


def test_a_weight_of_a_list_by_number(make_file):
    lists = ak.values_astype(ak.Array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.float32)
    weights = ak.values_astype(ak.Array([1.0, -1.0, 2.0]), np.float32)
    file = make_file("a.root", {"LHEScaleWeight": lists, "genWeight": weights})
    assert read([file], Skim(weight="genWeight * LHEScaleWeight[1]")).events["weight"].tolist() == [2.0, -4.0, 12.0]
    with pytest.raises(InputError, match=r"in entry 0 the list 'LHEScaleWeight' has 2 values, so there is no \[2\]"):
        read([file], Skim(weight="LHEScaleWeight[2]"))


@pytest.mark.parametrize("name", ["index", "collision", "weight"])
def test_names_that_the_reading_adds_are_not_given_twice(name):
    with pytest.raises(InputError, match=f"the name '{name}' is taken for what the reading adds"):
        Skim(event_variables=(name,))
    assert Skim(event_variables=("weight",), weight="weight").event_columns == ("weight",)


def test_any_number_of_collections_of_any_names(make_file):
    branches = random_branches(60)
    branches |= {name.replace("Jet", "FatJet"): values for name, values in branches.items() if "Jet" in name}
    names = ("Electron", "FatJet", "Jet", "Muon")
    skim = Skim(
        objects=tuple(ObjectSkim(name, ("pt",), (Requirement("pt", "above", 30.0),)) for name in names),
        at_least=((("FatJet", "Jet"), 6), (("Electron", "Muon", "FatJet"), 2)),
    )
    events = read([make_file("a.root", branches)], skim).events
    counts = {name: ak.sum(branches[f"{name}_pt"] > 30, axis=1) for name in names}
    keep = (counts["FatJet"] + counts["Jet"] >= 6) & (counts["Electron"] + counts["Muon"] + counts["FatJet"] >= 2)
    assert 5 < ak.sum(keep) < 60
    assert events["index"].tolist() == np.flatnonzero(keep).tolist()
    assert ak.num(events.FatJet).tolist() == counts["FatJet"][keep].tolist()
