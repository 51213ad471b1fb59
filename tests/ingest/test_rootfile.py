"""ROOT files of all shapes: records in an RNTuple, trees in folders, trees without branches, and damaged neighbours."""

import awkward as ak
import numpy as np
import pytest
import uproot
from pipeline.ingest import InputError, ObjectSkim, Requirement, Skim, read
from pipeline.ingest.fileskim import skimmed_part
from pipeline.ingest.rootfile import RootRows
from small_files import random_branches, write_file

JETS = Skim(objects=(ObjectSkim("Jet", ("pt", "eta")),))


def test_an_rntuple_that_lacks_a_branch_is_a_sentence(make_file):
    file = make_file("a.root", random_branches(5), kind="rntuple")
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "etta")),))
    with pytest.raises(
        InputError, match=r"a.root: 'Events' has no branch 'Jet_etta'; the nearest are Jet_eta"
    ) as raised:
        read([file], skim)
    assert "\n" not in str(raised.value)


def test_records_in_an_rntuple_are_collections(tmp_path, make_file, skim):
    """What uproot writes of an awkward array of records: the field `Jet.pt` instead of the branch `Jet_pt`."""
    branches = random_branches(200)
    records = {
        name: ak.zip({v: branches[f"{name}_{v}"] for v in ("pt", "eta", "mass", "jetId", "tightId")})
        for name in ("Electron", "Muon", "Jet")
    }
    records["MET"] = ak.zip({"pt": branches["MET_pt"]})
    write_file(tmp_path / "records.root", records | {"event": branches["event"]}, kind="rntuple")
    flat = make_file("a.root", branches)
    assert ak.array_equal(read([tmp_path / "records.root"], skim).events, read([flat], skim).events)


@pytest.mark.parametrize("tree", ["ntuples/Events", "ntuples/deep/Events"])
def test_a_tree_in_a_folder(tmp_path, make_file, tree):
    branches = random_branches(30)
    with uproot.recreate(tmp_path / "folder.root") as file:
        file.mktree(tree, {name: values.type.content for name, values in branches.items()}).extend(branches)
    expected = read([make_file("a.root", branches)], JETS).events
    assert ak.array_equal(read([tmp_path / "folder.root"], JETS, tree=tree).events, expected)
    with pytest.raises(InputError, match=r"has no tree 'ntuples/Event'; it holds .* in 'ntuples'"):
        read([tmp_path / "folder.root"], JETS, tree="ntuples/Event")
    with pytest.raises(InputError, match="'ntuples' is no tree but a"):
        read([tmp_path / "folder.root"], JETS, tree="ntuples")


def test_what_lies_below_a_tree_is_no_tree(make_file):
    with pytest.raises(InputError, match="has no tree 'Events/Jet_pt'"):
        read([make_file("a.root", random_branches(5))], JETS, tree="Events/Jet_pt")


class _Bare:
    """A tree as NanoAOD writes it when no event passed: no branch, no entry."""

    num_entries = 0

    def keys(self) -> list[str]:
        return []


@pytest.mark.parametrize("where", ["before", "after", "alone"])
def test_a_file_without_branches_and_events(make_file, monkeypatch, skim, where):
    from pipeline.ingest import rootfile

    full, bare = make_file("full.root", random_branches(80)), make_file("bare.root", random_branches(1))
    ordinary = rootfile._tree
    monkeypatch.setattr(
        rootfile, "_tree", lambda place, *rest: _Bare() if place.endswith("bare.root") else ordinary(place, *rest)
    )
    files = {"before": [bare, full], "after": [full, bare], "alone": [bare]}[where]
    ingested = read(files, skim)
    assert sorted(ingested.entries) == ([0] if where == "alone" else [0, 80])
    expected = read([full], skim).events
    assert ingested.events.fields == expected.fields
    if where != "alone":
        assert ingested.events.type == expected.type
        assert ingested.events.Jet.tolist() == expected.Jet.tolist()


@pytest.mark.slow
def test_a_damaged_file_leaves_the_next_ones_alone(make_file):
    """uproot takes a class out of the dictionary that it was given; a shared one ended every later read."""
    good = make_file("good.root", random_branches(100))
    expected = skimmed_part(str(good), "Events", JETS).events
    content = good.read_bytes()
    failures = 0
    for number, place in enumerate(_places(content, b"TBranch\0")):
        bad = good.with_name(f"bad{number}.root")
        damaged = bytearray(content)
        damaged[place - 6 : place] = b"\xff" * 6
        damaged[place + 10 : place + 40] = b"\xff" * 30
        bad.write_bytes(damaged)
        try:
            skimmed_part(str(bad), "Events", JETS)
        except InputError:
            failures += 1
        assert ak.array_equal(skimmed_part(str(good), "Events", JETS).events, expected)
    assert failures > 0


def _places(content: bytes, name: bytes) -> list[int]:
    places, start = [], content.find(name)
    while start >= 0:
        places.append(start)
        start = content.find(name, start + 1)
    return places


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
@pytest.mark.parametrize("variable", ["eta", "pt"])
def test_double_precision_is_kept(make_file, kind, variable):
    branches = random_branches(50)
    branches[f"Jet_{variable}"] = ak.values_astype(branches[f"Jet_{variable}"], np.float64)
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "eta"), (Requirement(variable, "below", 60.0),)),))
    jets = read([make_file("a.root", branches, kind=kind)], skim).events.Jet
    assert jets[variable].type.content.content.primitive == "float64"
    values = branches[f"Jet_{variable}"]
    assert jets[variable].tolist() == values[values < 60.0].tolist()


@pytest.mark.parametrize(
    ("dtype", "bits", "expected"),
    [
        (np.uint8, 1 << 8, [False, False]),
        (np.int8, 1 << 40, [False, False]),
        (np.uint8, (1 << 8) | 2, [True, False]),
        (np.int8, 1 << 7, [False, True]),
        (np.int32, 1 << 31, [False, True]),
        (np.int64, 1 << 63, [False, True]),
        (np.bool_, 3, [True, True]),
    ],
)
def test_a_bit_that_a_type_does_not_have_is_not_set(make_file, dtype, bits, expected):
    values = (
        np.array([True, True]) if dtype is np.bool_ else np.array([2, -128 if dtype != np.uint8 else 1]).astype(dtype)
    )
    branches = {"Jet_id": ak.unflatten(values, [1, 1]), "Jet_pt": ak.Array([[1.0], [1.0]])}
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",), (Requirement("id", "bits", bits),)),))
    events = read([make_file("a.root", branches)], skim).events
    assert [len(pt) == 1 for pt in events.Jet.pt] == expected


def test_a_folder_is_no_tree(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("ntuples/Events", {"event": "uint64"})
    with pytest.raises(InputError, match=r"'ntuples' is no tree but a folder; it holds 'ntuples/Events'"):
        skimmed_part(str(tmp_path / "a.root"), "ntuples", JETS)


# --- flat tables ---


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_flat_tree_without_objects_and_numbers(make_file, kind):
    values = np.linspace(0, 1, 7)
    file = make_file("a.root", {"mass": ak.Array(values), "w": ak.Array(values**2)}, kind=kind)
    events = read([file], Skim(event_variables=("mass",), weight="w * 2", require=("mass > 0.2",))).events
    assert events.fields == ["mass", "event", "index", "collision", "weight"]
    assert events["mass"].tolist() == values[2:].tolist()
    assert events["weight"].tolist() == (2 * values[2:] ** 2).tolist()
    assert events["index"].tolist() == events["event"].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(("entries", "border"), [(10**15, 10), (50, 10**15), (50, -3)])
def test_a_number_of_rows_that_is_damage_ends_at_once(entries, border):
    """Found by the fuzzer: such a tree was cut into chunks for ever."""

    class Tree:
        num_entries = entries
        cluster_summaries = (type("Cluster", (), {"num_first_entry": border}),)

    rows = RootRows("a.root", None, Tree(), frozenset({"event"}))
    with pytest.raises(InputError, match=rf"a.root: cannot be read \(it claims {entries} rows"):
        rows.chunks(["event"])
