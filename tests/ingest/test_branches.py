"""Wide trees opened for a few branches: the same columns as of the whole tree, and told when something is missing."""

import awkward as ak
import numpy as np
import pytest
import uproot
from pipeline.ingest.branches import classes_for, is_complete
from pipeline.ingest.fileskim import skimmed_part
from small_files import random_branches, write_file


def opened(path, names):
    return uproot.open(path, custom_classes=classes_for(frozenset(names)), object_cache=None, array_cache=None)[
        "Events"
    ]


@pytest.mark.parametrize("seed", range(4))
def test_any_branches_of_a_real_file_read_as_from_the_whole_tree(external_data, seed):
    """947 branches as CMS software wrote them; classes and counters are defined in branches that are stepped over."""
    path = external_data / "cms_open_data_200_events.root"
    with uproot.open(path) as file:
        whole = file["Events"]
        names = np.random.default_rng(seed).choice(whole.keys(), 8, replace=False).tolist()
        counters = [whole[name].count_branch.name for name in names if whole[name].count_branch is not None]
        tree = opened(path, [*names, *counters])
        assert set(tree.keys()) == {*names, *counters}
        assert tree.num_entries == whole.num_entries
        for name in names:
            assert ak.array_equal(tree[name].array(), whole[name].array())


def test_only_what_was_asked_for_is_there(make_file):
    branches = random_branches(50)
    tree = opened(make_file("a.root", branches), ["Jet_mass", "nJet_mass", "event"])
    assert set(tree.keys()) == {"Jet_mass", "nJet_mass", "event"}
    assert ak.array_equal(tree["Jet_mass"].array(), branches["Jet_mass"])
    assert is_complete(tree, ["Jet_mass", "event"])


def test_a_missing_branch_and_a_missing_counter_show(make_file):
    path = make_file("a.root", random_branches(50))
    assert not is_complete(opened(path, ["event"]), ["event", "Jet_pt"])
    assert not is_complete(opened(path, ["Jet_pt", "event"]), ["Jet_pt", "event"])


def test_nothing_is_left_out_of_an_rntuple(make_file):
    path = make_file("a.root", random_branches(50), kind="rntuple")
    assert is_complete(opened(path, ["event"]), ["event"])


def test_a_counter_of_another_name_is_found_in_the_whole_tree(tmp_path, make_file, skim):
    """NanoAOD calls it nJet; a tree whose counter is called otherwise is opened in full, and reads the same."""
    branches = random_branches(80)
    with uproot.recreate(tmp_path / "other.root") as file:
        types = {name: values.type.content for name, values in branches.items()}
        file.mktree("Events", types, counter_name=lambda name: f"number_of_{name}").extend(branches)
    other = skimmed_part(str(tmp_path / "other.root"), "Events", skim)
    assert ak.array_equal(other.events, skimmed_part(str(make_file("a.root", branches)), "Events", skim).events)


def test_long_names(tmp_path):
    """ROOT writes the length of a long name in another way."""
    name = "x" * 300
    write_file(tmp_path / "a.root", {"event": ak.Array([1, 2]), name: ak.Array([1.0, 2.0])})
    assert opened(tmp_path / "a.root", [name]).keys() == [name]
    assert opened(tmp_path / "a.root", ["event"]).keys() == ["event"]
