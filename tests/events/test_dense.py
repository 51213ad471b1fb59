"""Ragged events to dense groups: every object once, NaN elsewhere, whatever the chunks and the folds."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from pipeline.analyses import ttbar
from pipeline.analyses.candidates import AT_A_TIME
from pipeline.events.batch import EventGroup
from pipeline.events.dense import dense_groups
from pipeline.events.flux import MAX_OBJECTS
from pipeline.events.ragged import Ragged, RaggedSample
from pipeline.events.variations import round_down, round_up

from small_analysis import random_sample

Groups = tuple[EventGroup, ...]


def counts(events: int, seed: int, most: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, events)


def kept(column: np.ndarray) -> list[float]:
    return column[~np.isnan(column)].tolist()


def events_of(groups: Groups, dataset: int) -> dict[int, dict]:
    """Every event that is not padding, by its row: objects as lists, varied columns as a list of these."""
    events: dict[int, dict] = {}
    for group in groups:
        group = jax.tree.map(np.asarray, group)
        for chunk, place in np.argwhere((group.index >= 0) & (group.dataset == dataset)[:, None]):
            row = int(group.index[chunk, place])
            assert row not in events
            events[row] = {
                "weight": float(group.weight[chunk, place]),
                "collision": int(group.collision[chunk, place]),
            }
            for name, columns in group.objects.items():
                for variable, column in columns.items():
                    events[row][name, variable] = kept(column[chunk, :, place])
            for name, columns in group.varied_objects.items():
                for variable, column in columns.items():
                    events[row][name, variable] = [kept(each[chunk, :, place]) for each in column]
            events[row] |= {name: float(column[chunk, place]) for name, column in group.columns.items()}
            events[row] |= {name: column[:, chunk, place].tolist() for name, column in group.varied_columns.items()}
    return events


def as_given(sample: RaggedSample, kinematics: int) -> dict[int, dict]:
    """The same, straight from the ragged arrays."""

    def in_all(column: np.ndarray, part: slice | int) -> list:
        return [round_up(column[min(k, len(column) - 1), part]).tolist() for k in range(kinematics)]

    events = {}
    for place, row in enumerate(sample.index.tolist()):
        events[row] = {"weight": float(sample.weight[place]), "collision": int(sample.collision[place])}
        for name, ragged in sample.objects.items():
            end = int(ragged.counts[: place + 1].sum())
            own = slice(end - int(ragged.counts[place]), end)
            for variable, column in ragged.variables.items():
                events[row][name, variable] = in_all(column, own) if column.ndim == 2 else column[own].tolist()
        for name, column in sample.columns.items():
            events[row][name] = in_all(column, place) if column.ndim == 2 else float(column[place])
    return events


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
    (groups,) = dense_groups([samples], ttbar, chunk_size=64)
    return groups


def test_every_event_and_every_object_once(samples, groups):
    for number, sample in enumerate(samples):
        assert events_of(groups, number) == as_given(sample, kinematics=2)


def test_padding_is_nan_and_weighs_nothing(groups):
    for group in groups:
        padding = np.asarray(group.index) < 0
        assert np.all(np.asarray(group.weight)[padding] == 0)
        columns = [column for of in group.objects.values() for column in of.values()]
        columns += [each for of in group.varied_objects.values() for column in of.values() for each in column]
        assert len(columns) == 2 + 4 + 2
        for column in columns:
            assert np.all(np.isnan(np.moveaxis(np.asarray(column), 1, -1)[padding]))
        assert np.all(np.isnan(np.asarray(group.columns["met"])[padding]))


def jets_of(group: EventGroup) -> np.ndarray:
    """Number of jets, shape "chunks events"."""
    return (~np.isnan(np.asarray(group.varied_objects["jet"]["pt"])[0])).sum(axis=1)


def test_events_stand_with_others_of_like_multiplicity(groups):
    """No jet is cut off, and few places are empty."""
    capacities = [group.capacity for group in groups]
    assert capacities == sorted(capacities)
    for smaller, group in zip([0, *capacities], groups, strict=False):
        number = jets_of(group)[np.asarray(group.index) >= 0]
        assert number.max() == group.varied_objects["jet"]["pt"].shape[2] <= group.capacity
        assert number.min() > smaller or smaller == 0


def test_rows_are_prepared_for_the_busiest_event(groups):
    """Trijets, in whole blocks."""
    for group in groups:
        for kinematic, chunk in zip(group.task_kinematic.tolist(), group.task_chunk.tolist(), strict=True):
            n = int(jets_of(group)[chunk].max())
            blocks = -(-(n * (n - 1) * (n - 2) // 6) // AT_A_TIME)
            assert int(group.rows[kinematic, chunk]) == blocks * AT_A_TIME


def test_rows_of_a_task_stand_together_and_share_nothing(groups):
    """Each task has its own; an alternative sample, which is never varied, has nominal ones only."""
    for group in groups:
        rows = []
        for kinematic, chunk in zip(group.task_kinematic.tolist(), group.task_chunk.tolist(), strict=True):
            first = int(group.first[kinematic, chunk])
            rows += range(first, first + int(group.rows[kinematic, chunk]))
        assert len(rows) == len(set(rows))
        assert max(rows, default=-1) < group.prepared["objects"].shape[0]


def test_alternative_samples_have_nominal_tasks_only(groups):
    for group in groups:
        tasks = set(zip(group.task_kinematic.tolist(), group.task_chunk.tolist(), strict=True))
        dataset = group.dataset.tolist()
        assert tasks == {(k, c) for k in range(2) for c in range(len(dataset)) if k == 0 or dataset[c] != 2}
        assert len(group.task_chunk) == len(tasks)


@pytest.mark.parametrize("chunk_size", [128, 8192])
def test_chunks_change_nothing(samples, groups, chunk_size):
    (others,) = dense_groups([samples], ttbar, chunk_size=chunk_size)
    for number in range(3):
        assert events_of(others, number) == events_of(groups, number)


def test_folds_share_the_events_and_have_equal_shapes(samples):
    """Compiled code serves all of them."""
    picks = [np.random.default_rng(9).random(len(sample)) < 0.7 for sample in samples]
    folds = [
        [sample.of_events(np.flatnonzero(mask == bool(fold))) for sample, mask in zip(samples, picks, strict=True)]
        for fold in range(2)
    ]
    first, second = dense_groups(folds, ttbar, chunk_size=64)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    for number, sample in enumerate(samples):
        halves = [events_of(groups, number) for groups in (first, second)]
        assert not set(halves[0]) & set(halves[1])
        assert halves[0] | halves[1] == as_given(sample, kinematics=2)


def test_columns_have_the_precision_of_the_file(groups):
    for group in groups:
        leaves = jax.tree_util.tree_leaves_with_path(group)
        assert {str(leaf.dtype) for path, leaf in leaves if path[0].name != "prepared"} == {"float32", "int32"}
        assert {name: str(column.dtype) for name, column in group.prepared.items()} == {
            "objects": "uint16" if group.capacity <= 16 else "uint32",
            "mass": "float32",
            "pt": "float32",
        }


def test_what_is_prepared_sees_the_unrounded_columns():
    """The mass of a trijet is that of float64 jets: the scaled pt is rounded for the cuts, not for the mass."""
    sample = random_sample(np.array([3]), 5, scales=(1.03,))
    (group,) = dense_groups([[sample]], ttbar, chunk_size=64)[0]
    jets = sample.objects["jet"].variables
    pt, eta, phi, mass = (np.atleast_2d(jets[name])[0].astype(np.float64) for name in ("pt", "eta", "phi", "mass"))
    p = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(axis=1)
    expected = np.sqrt(np.hypot(pt * np.cosh(eta), mass).sum() ** 2 - p @ p)
    (place,) = np.flatnonzero(np.asarray(group.index)[0] >= 0)
    prepared = float(np.asarray(group.prepared["mass"])[group.first[0, 0], place])
    assert prepared <= expected * (1 + 1e-12)
    assert expected < float(np.nextafter(np.float32(prepared), np.float32(np.inf))) * (1 + 1e-12)


def test_columns_that_cuts_keep_below_are_rounded_down():
    """Of a collection by `collection.variable`, of the events by name; only where they are varied."""
    sample = random_sample(np.array([3, 4]), 5)
    met = sample.columns["met"].astype(np.float64) * np.array([[1.0], [1.05]])
    sample = replace(sample, columns={"met": met})
    for from_below, rounded in ((("jet.pt", "met"), round_down), ((), round_up)):
        (group,) = dense_groups([[sample]], ttbar, chunk_size=64, from_below=from_below)[0]
        row = [kept(np.asarray(each)[0, :, 1]) for each in group.varied_objects["jet"]["pt"]]
        np.testing.assert_array_equal(row, rounded(sample.objects["jet"].variables["pt"][:, 3:]))
        np.testing.assert_array_equal(np.asarray(group.varied_columns["met"])[:, 0, :2], rounded(met))
    assert np.any(round_down(met) != round_up(met))


def test_the_hardest_objects_fit_a_bit_mask():
    """Of an event with too many, those of smallest nominal pt go; the others keep their order."""
    number = np.array([4, 40, 0, 32])
    jets = random_sample(number, 3).objects["jet"]
    kept_jets = jets.hardest()
    assert kept_jets.counts.tolist() == [4, MAX_OBJECTS, 0, MAX_OBJECTS]
    first = 0
    for event, start in zip(range(4), np.cumsum(number) - number, strict=True):
        pt = jets.variables["pt"][0, start : start + number[event]]
        stays = np.sort(np.argsort(-pt, kind="stable")[:MAX_OBJECTS])
        here = slice(first, first + len(stays))
        for name, column in jets.variables.items():
            np.testing.assert_array_equal(kept_jets.variables[name][..., here], column[..., start + stays])
        first += len(stays)
    assert first == kept_jets.counts.sum()


def test_without_a_pt_the_first_objects_stay():
    ragged = Ragged(np.array([2, 5]), {"x": np.arange(7.0, dtype=np.float32)})
    assert ragged.hardest(3).variables["x"].tolist() == [0, 1, 2, 3, 4]


def test_thirty_one_jets_fit():
    (groups,) = dense_groups([[random_sample(np.array([MAX_OBJECTS]), scales=(1.0,))]], ttbar, chunk_size=64)
    assert len(events_of(groups, 0)[0]["jet", "eta"]) == MAX_OBJECTS
    trijets = MAX_OBJECTS * (MAX_OBJECTS - 1) * (MAX_OBJECTS - 2) // 6
    assert trijets <= groups[0].prepared["objects"].shape[0] < trijets + AT_A_TIME


def test_events_without_collections_are_one_group():
    """A flat table."""
    generator = np.random.default_rng(0)
    number = np.arange(100, dtype=np.int32)
    table = RaggedSample(
        objects={},
        columns={"x": generator.normal(size=100).astype(np.float32)},
        weight=np.ones(100, np.float32),
        index=number,
        collision=number,
    )
    (group,) = dense_groups([[table]], object(), chunk_size=64)[0]
    assert group.objects == group.prepared == {}
    assert events_of((group,), 0) == as_given(table, kinematics=1)
