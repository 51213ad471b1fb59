"""Ragged events to dense groups: every object once, NaN elsewhere, whatever the chunks and the folds."""

import awkward as ak
import jax
import numpy as np
import pytest
from pipeline.events.batch import EventGroup
from pipeline.events.dense import RaggedSample, dense_groups
from pipeline.events.variations import round_up
from pipeline.ingest.manifest import InputError

from small_analysis import random_sample

Groups = tuple[EventGroup, ...]


def counts(events: int, seed: int, most: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, events)


def kept(column: np.ndarray) -> list[float]:
    return column[~np.isnan(column)].tolist()


def events_of(groups: Groups, dataset: int) -> dict[int, dict]:
    """Every event that is not padding, by its row, as lists of objects."""
    found: dict[int, dict] = {}
    for group in groups:
        group = jax.tree.map(np.asarray, group)
        for chunk, place in np.argwhere((group.index >= 0) & (group.dataset == dataset)[:, None]):
            row = int(group.index[chunk, place])
            assert row not in found
            found[row] = {
                "electrons": kept(group.electrons["pt"][chunk, :, place]),
                "muons": kept(group.muons["pt"][chunk, :, place]),
                "jets": {name: kept(column[chunk, :, place]) for name, column in group.jets.items()},
                "jet_pt": [kept(group.jet_pt[k, chunk, :, place]) for k in range(len(group.jet_pt))],
                "met": float(group.variables["met"][chunk, place]),
                "weight": float(group.weight[chunk, place]),
                "collision": int(group.collision[chunk, place]),
            }
    return found


def as_given(sample: RaggedSample, kinematics: int) -> dict[int, dict]:
    """The same, straight from the ragged arrays."""
    pt = [sample.jet_pt[min(k, len(sample.jet_pt) - 1)] for k in range(kinematics)]
    return {
        int(event.index): {
            "electrons": event.electron.pt.tolist(),
            "muons": event.muon.pt.tolist(),
            "jets": {name: event.jet[name].tolist() for name in ("eta", "phi", "mass", "btag")},
            "jet_pt": [round_up(ak.to_numpy(varied[row])).tolist() for varied in pt],
            "met": float(sample.variables["met"][row]),
            "weight": float(sample.weight[row]),
            "collision": int(event.collision),
        }
        for row, event in enumerate(sample.events)
    }


@pytest.fixture(scope="module")
def samples() -> list[RaggedSample]:
    """The last one is an alternative sample without kinematic variations."""
    return [
        random_sample(counts(150, 0), 0),
        random_sample(counts(70, 1), 1),
        random_sample(counts(40, 2, most=9), 2, scales=(1.0,)),
    ]


@pytest.fixture(scope="module")
def groups(samples) -> Groups:
    ((groups, _),) = dense_groups([samples], chunk_size=64)
    return groups


def test_every_event_and_every_object_once(samples, groups):
    for number, sample in enumerate(samples):
        assert events_of(groups, number) == as_given(sample, kinematics=2)


def test_padding_is_nan_and_weighs_nothing(groups):
    for group in groups:
        padding = np.asarray(group.index) < 0
        assert np.all(np.asarray(group.weight)[padding] == 0)
        columns = [*group.jets.values(), *group.electrons.values(), *group.muons.values(), *group.jet_pt]
        for column in columns:
            assert np.all(np.isnan(np.moveaxis(np.asarray(column), 1, -1)[padding]))


def test_events_stand_with_others_of_like_multiplicity(groups):
    """No jet is cut off, and few places are empty."""
    capacities = [group.jet_pt.shape[2] for group in groups]
    assert capacities == sorted(capacities)
    for smaller, group in zip([0, *capacities], groups, strict=False):
        number = (~np.isnan(np.asarray(group.jet_pt)[0])).sum(axis=1)[np.asarray(group.index) >= 0]
        assert number.max() <= group.jet_pt.shape[2]
        assert number.min() > smaller or smaller == 0


def test_trijets_of_the_busiest_event_are_counted(groups):
    for group in groups:
        most = (~np.isnan(np.asarray(group.jet_pt)[0])).sum(axis=1).max(axis=1)
        assert group.trijets.tolist() == [n * (n - 1) * (n - 2) // 6 for n in most.tolist()]


def test_trijets_of_a_task_stand_together_and_share_nothing(samples):
    """Each task has its own rows; an alternative sample, which is never varied, has nominal ones only."""
    ((groups, candidates),) = dense_groups([samples], chunk_size=64)
    for group, trijets in zip(groups, candidates, strict=True):
        rows = []
        for kinematic, chunk in zip(group.task_kinematic.tolist(), group.task_chunk.tolist(), strict=True):
            first = int(trijets.first[kinematic, chunk])
            rows += range(first, first + int(group.trijets[chunk]))
        assert len(rows) == len(set(rows))
        assert max(rows, default=-1) < trijets.jets.shape[0]


def test_alternative_samples_have_nominal_tasks_only(groups):
    for group in groups:
        tasks = set(zip(group.task_kinematic.tolist(), group.task_chunk.tolist(), strict=True))
        dataset = group.dataset.tolist()
        assert tasks == {(k, c) for k in range(2) for c in range(len(dataset)) if k == 0 or dataset[c] != 2}
        assert len(group.task_chunk) == len(tasks)


@pytest.mark.parametrize("chunk_size", [128, 8192])
def test_chunks_change_nothing(samples, groups, chunk_size):
    ((others, candidates),) = dense_groups([samples], chunk_size=chunk_size)
    for number in range(3):
        assert events_of(others, number) == events_of(groups, number)
    assert len(candidates) == len(others)


def test_folds_share_the_events_and_have_equal_shapes(samples):
    """Compiled code serves all of them."""
    picks = [np.random.default_rng(9).random(len(sample.events)) < 0.7 for sample in samples]

    def part(sample: RaggedSample, mask: np.ndarray) -> RaggedSample:
        return RaggedSample(
            name=sample.name,
            events=sample.events[mask],
            jet_pt=[pt[mask] for pt in sample.jet_pt],
            weight=sample.weight[mask],
            variables={name: column[mask] for name, column in sample.variables.items()},
        )

    folds = [[part(s, m if fold else ~m) for s, m in zip(samples, picks, strict=True)] for fold in range(2)]
    first, second = dense_groups(folds, chunk_size=64)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    for number, sample in enumerate(samples):
        halves = [events_of(groups, number) for groups, _ in (first, second)]
        assert not set(halves[0]) & set(halves[1])
        assert halves[0] | halves[1] == as_given(sample, kinematics=2)


def test_columns_have_the_precision_of_the_file(groups):
    for group in groups:
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(group)} == {"float32", "int32"}


def test_trijets_are_made_of_the_unrounded_pt(samples):
    """Their mass is that of float64 jets: the scaled pt is rounded for the cuts, not for the mass."""
    ((groups, candidates),) = dense_groups([[random_sample(np.array([3]), 5, scales=(1.03,))]], chunk_size=64)
    jets = random_sample(np.array([3]), 5, scales=(1.03,)).events.jet[0]
    pt, eta, phi, mass = (ak.to_numpy(jets[name]).astype(np.float64) for name in ("pt", "eta", "phi", "mass"))
    pt = 1.03 * pt
    p = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(axis=1)
    expected = np.sqrt(np.hypot(pt * np.cosh(eta), mass).sum() ** 2 - p @ p)
    (place,) = np.flatnonzero(np.asarray(groups[0].index)[0] >= 0)
    found = float(np.asarray(candidates[0].mass)[candidates[0].first[0, 0], place])
    assert found <= expected * (1 + 1e-12)
    assert expected < float(np.nextafter(np.float32(found), np.float32(np.inf))) * (1 + 1e-12)


def test_too_many_jets_for_a_bit_mask_are_an_error():
    jets = np.array([4, 32, 5])
    with pytest.raises(
        InputError, match="sample 0: event 1 has 32 jets above the loosest threshold, and at most 31 fit"
    ):
        dense_groups([[random_sample(jets)]], chunk_size=64)


def test_thirty_one_jets_fit():
    ((groups, candidates),) = dense_groups([[random_sample(np.array([31]), scales=(1.0,))]], chunk_size=64)
    assert len(events_of(groups, 0)[0]["jets"]["eta"]) == 31
    assert 31 * 30 * 29 // 6 <= candidates[0].jets.shape[0] < 31 * 30 * 29 // 6 + 8
