"""One file: what is read, in which pieces, and what is said when it cannot be."""

import importlib.util

import awkward as ak
import numpy as np
import pytest
import uproot
from pipeline.ingest import InputError, ObjectSkim, Requirement, Skim, rows
from pipeline.ingest.fileskim import joined_parts, skimmed_part
from pipeline.ingest.rootfile import root_rows
from small_files import random_branches

JETS = Skim(objects=(ObjectSkim("Jet", ("pt", "eta")),))


def everything(events: int = 0, **branches: list) -> dict[str, ak.Array]:
    floats = {name: ak.values_astype(ak.Array(values), np.float32) for name, values in branches.items()}
    return floats | {"event": ak.Array(np.arange(events, dtype=np.uint64))}


@pytest.fixture
def chunk_of_100(monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 100)


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
@pytest.mark.parametrize("cluster", [0, 30, 120, 1000])
def test_pieces_of_a_file_make_the_whole(make_file, skim, kind, cluster, chunk_of_100):
    branches = random_branches(950)
    in_clusters = make_file("a.root", branches, kind=kind, cluster=cluster)
    result = skimmed_part(str(in_clusters), "Events", skim)
    whole = skimmed_part(str(make_file("b.root", branches)), "Events", skim)
    assert result.entries == whole.entries == 950
    assert ak.array_equal(result.events, whole.events)
    assert result.events["event"].tolist() == branches["event"][result.events["index"]].tolist()


@pytest.mark.parametrize("parts", [1, 2, 3, 20])
def test_parts_of_a_file_make_the_whole(make_file, skim, parts, chunk_of_100):
    file = str(make_file("a.root", random_branches(950), cluster=60))
    whole = skimmed_part(file, "Events", skim)
    pieces = [skimmed_part(file, "Events", skim, part, parts) for part in range(parts)]
    assert ak.array_equal(joined_parts(pieces).events, whole.events)
    assert joined_parts(pieces).entries == 950
    assert all(piece.events.type.content == whole.events.type.content for piece in pieces)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (40, [(0, 120), (120, 240), (240, 300)]),
        (150, [(0, 150), (150, 300)]),
        (300, [(0, 100), (100, 300)]),
        (3, [(start, min(start + 102, 300)) for start in range(0, 300, 102)]),
    ],
)
@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_chunks_end_at_cluster_borders_and_stay_bounded(make_file, kind, cluster, expected, chunk_of_100):
    file = make_file("a.root", random_branches(300), kind=kind, cluster=cluster)
    with root_rows(str(file), "Events", ("Jet_pt", "event")) as opened:
        assert opened.chunks(("Jet_pt", "event")) == expected


def test_only_the_needed_branches_are_read(make_file, monkeypatch):
    asked = []
    arrays = uproot.TTree.arrays
    monkeypatch.setattr(
        uproot.TTree, "arrays", lambda tree, names, **rest: asked.extend(names) or arrays(tree, names, **rest)
    )
    skimmed_part(str(make_file("a.root", random_branches(50))), "Events", JETS)
    assert sorted(asked) == ["Jet_eta", "Jet_pt", "event"]


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_tree_without_entries_gives_typed_columns(make_file, skim, kind):
    empty = skimmed_part(str(make_file("a.root", random_branches(0), kind=kind)), "Events", skim)
    full = skimmed_part(str(make_file("b.root", random_branches(50), kind=kind)), "Events", skim)
    assert (len(empty.events), empty.entries) == (0, 0)
    assert empty.events.type.content == full.events.type.content


def test_events_without_objects(make_file):
    file = make_file("a.root", everything(3, Jet_pt=[[], [], []], Jet_eta=[[], [], []]))
    result = skimmed_part(str(file), "Events", JETS)
    assert result.events.Jet.pt.tolist() == [[], [], []]


# --- real files ---


def test_real_ttree(external_data):
    """CMS Open Data, 947 branches; the lengths of the lists are those of the counters."""
    file = external_data / "cms_open_data_200_events.root"
    result = skimmed_part(str(file), "Events", Skim(objects=(ObjectSkim("Jet", ("pt", "jetId", "btagCSVV2")),)))
    with uproot.open(file) as opened:
        counted, numbers = opened["Events/nJet"].array(), opened["Events/event"].array()
    assert result.entries == 200
    assert ak.num(result.events.Jet).tolist() == counted.tolist()
    assert result.events["event"].tolist() == numbers.tolist()
    assert set(ak.flatten(result.events.Jet.jetId).tolist()) == {0, 2, 6}


@pytest.mark.slow
def test_real_rntuple(external_data):
    """Ten events of record 19980; agc-spec counts 75 jets in them."""
    file = external_data / "cms_open_data_ttbar_10_events_rntuple.root"
    result = skimmed_part(
        str(file), "Events", Skim(objects=(ObjectSkim("Jet", ("pt",)), ObjectSkim("Muon", ("tightId",))))
    )
    assert result.entries == 10
    assert ak.sum(ak.num(result.events.Jet)) == 75
    assert not ak.any(result.events.Muon.tightId)


# --- what can be wrong with a file ---


def refused(location: object, message: str, tree: str = "Events", skim: Skim = JETS) -> None:
    with pytest.raises(InputError, match=message) as raised:
        skimmed_part(str(location), tree, skim)
    assert str(raised.value).startswith(f"{location}: ")
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "nowhere.root", r"no such file; correct the path, or get it with python -m pipeline.fetch")


def test_a_folder_is_no_file(tmp_path):
    refused(tmp_path, "is a folder; give the path of a file")


def test_bits_of_a_float(make_file):
    branches = random_branches(20)
    branches["Jet_jetId"] = ak.values_astype(branches["Jet_jetId"], np.float32)
    skim = Skim(objects=(ObjectSkim("Jet", ("pt",), (Requirement("jetId", "bits", 4),)),))
    message = r"branch 'Jet_jetId' has the type float32, but bits are required of it; require a value with 'equal'"
    refused(make_file("a.root", branches), message, skim=skim)


def test_missing_tree(make_file):
    refused(make_file("a.root", random_branches(5)), r"has no tree 'Event'; it holds Events", tree="Event")


def test_missing_branch_names_the_nearest(make_file):
    file = make_file("a.root", random_branches(5))
    skim = Skim(objects=(ObjectSkim("Jet", ("pt", "etta", "btag")),))
    refused(
        file, r"'Events' has no branch 'Jet_etta' \(and 1 more that are wanted\); the nearest are Jet_eta", skim=skim
    )


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_file_that_was_cut(make_file, kind, fraction):
    whole = make_file("a.root", random_branches(2000), kind=kind, cluster=500)
    content = whole.read_bytes()
    cut = whole.with_name("cut.root")
    cut.write_bytes(content[: int(fraction * len(content))])
    refused(cut, r"cannot be read \(.*\); it is damaged or incomplete, so fetch or make it again")


def test_not_a_root_file(tmp_path):
    text = tmp_path / "a.root"
    text.write_text("<html>404 Not Found</html>" * 100)
    refused(text, r"is a web page, perhaps of a login or an error, under the name of a data file; delete it and fetch")
    text.write_bytes(b"\x1f\x8b\x08" + bytes(100))
    refused(text, r"is compressed by gzip; give a ROOT or parquet file")
    text.write_bytes(b"pt,eta\n1,2\n")
    refused(text, r"is no ROOT and no parquet file \(it starts with b'pt,eta")
    text.write_bytes(b"")
    refused(text, r"is empty; fetch or make it again")


def test_damaged_baskets(make_file):
    file = make_file("a.root", random_branches(2000))
    with uproot.open(file) as opened:
        basket = opened["Events/Jet_pt"].basket_key(0)
        middle = basket.data_cursor.index + basket.data_compressed_bytes // 2
    content = bytearray(file.read_bytes())
    content[middle : middle + 50] = b"x" * 50
    file.write_bytes(content)
    refused(file, r"cannot be read \(.*\); it is damaged")


def test_variables_that_disagree_on_the_number_of_objects(make_file):
    file = make_file("a.root", everything(3, Jet_pt=[[1], [2, 3], [4]], Jet_eta=[[1], [2, 3], []]))
    refused(file, r"in entry 2 the branches 'Jet_pt' and 'Jet_eta' list 1 and 0 objects; the file contradicts itself")


def test_disagreement_that_sums_to_the_same(make_file):
    file = make_file("a.root", everything(2, Jet_pt=[[1], [2, 3]], Jet_eta=[[1, 2], [3]]))
    refused(file, r"in entry 0 the branches 'Jet_pt' and 'Jet_eta' list 1 and 2 objects")


def test_branches_of_the_wrong_shape(make_file):
    flat = make_file("a.root", everything(2, Jet_pt=[1.0, 2.0], Jet_eta=[[1], [2]]))
    refused(flat, r"branch 'Jet_pt' is not a list per event; 'Jet' must be lists")
    skim = Skim(objects=(), event_variables=("Jet_eta",))
    refused(flat, r"branch 'Jet_eta' is a list per event, but one value per event is needed", skim=skim)


@pytest.mark.skipif(importlib.util.find_spec("fsspec_xrootd") is not None, reason="fsspec-xrootd is installed")
def test_a_protocol_without_its_package():
    refused("root://somewhere//a.root", r"this protocol needs another package \(Install fsspec-xrootd")


def test_an_unknown_protocol():
    refused("nonsense://somewhere/a.root", r"a.root: this protocol is not known; correct the prefix")
