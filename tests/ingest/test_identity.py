"""The identity of an event: run, luminosity block and number together; and the parts that are made of it."""

import awkward as ak
import numpy as np
import pytest
from pipeline.ingest import InputError, Skim, read
from pipeline.ingest.identity import collision_hash, content_digest, of_file, part_share, repeated

MET = Skim(event_variables=("MET_pt",))


def jobs(count: int, events: int, *, run: int = 1, **changes) -> dict[str, ak.Array]:
    """A production whose numbers start again in every job, each with a luminosity block of its own."""
    branches = {
        "run": np.full(count * events, run, np.uint32),
        "luminosityBlock": np.repeat(np.arange(count, dtype=np.uint32), events),
        "event": np.tile(np.arange(1, events + 1, dtype=np.uint64), count),
        "MET_pt": np.random.default_rng(run).exponential(40, count * events).astype(np.float32),
    }
    return {name: ak.Array(values) for name, values in (branches | changes).items() if values is not None}


def test_every_part_of_the_number_counts():
    """Each component changes the hash, and so does their order."""
    base = [np.array([1]), np.array([2]), np.array([3])]
    hashes = {int(collision_hash(base)[0])}
    for place in range(3):
        changed = [column + (number == place) for number, column in enumerate(base)]
        hashes.add(int(collision_hash(changed)[0]))
    hashes.add(int(collision_hash(base[::-1])[0]))
    assert len(hashes) == 5


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_the_type_of_a_number_does_not_count(dtype):
    numbers = np.arange(100)
    assert np.array_equal(collision_hash([numbers.astype(dtype)]), collision_hash([numbers]))


def test_hashes_of_a_large_grid_are_all_different():
    run, block, event = (grid.ravel() for grid in np.mgrid[:10, :50, :400])
    assert repeated(collision_hash([run, block, event])) == 0


def test_numbers_that_start_again_in_each_job_name_different_collisions(make_file, caplog):
    """50 jobs of 200 events: by event number alone, they were 200 collisions of 50 events each."""
    events = read([make_file("a.root", jobs(50, 200))], MET).events
    assert len(np.unique(events["collision"])) == 10_000
    assert caplog.records == []


def test_parts_by_identity_scatter_as_independent_events_do(make_file):
    """A fair split of 10,000 events: 0.5 % rms of the yield of a half, and 7 % where whole numbers stay together."""
    events = read([make_file("a.root", jobs(50, 200))], MET).events

    def rms(numbers: np.ndarray) -> float:
        halves = [collision_hash([numbers, np.full(len(numbers), seed)]) >> np.uint64(63) for seed in range(200)]
        return float(np.std([half.mean() / 0.5 - 1 for half in halves]))

    assert rms(ak.to_numpy(events["collision"])) == pytest.approx(0.01, rel=0.2)
    assert rms(ak.to_numpy(events["event"])) == pytest.approx(0.07, rel=0.2)


def test_a_file_of_equal_numbers_is_told_apart_by_its_name(make_file, caplog):
    files = [make_file("a.root", jobs(2, 50)), make_file("b.root", jobs(2, 50))]
    events = read(files, MET, label="ttbar").events
    assert len(np.unique(events["collision"])) == 200
    assert "ttbar: run, luminosity block and event number of 100 events are those of events in another" in caplog.text


def test_moving_all_files_changes_nothing(make_file, tmp_path):
    class Stated:
        def __init__(self, path: str) -> None:
            self.path, self.size, self.sha256 = path, None, None

    files = [make_file("a.root", jobs(2, 50)), make_file("b.root", jobs(2, 50))]
    stated = [Stated("x/a.root"), Stated("x/b.root")]
    before = read(files, MET, stated=stated).events["collision"]
    (tmp_path / "moved").mkdir()
    moved = [file.rename(tmp_path / "moved" / file.name) for file in files]
    assert read(moved, MET, stated=stated).events["collision"].tolist() == before.tolist()


def test_numbers_that_repeat_in_one_file_are_one_collision_and_said(make_file, caplog):
    events = read([make_file("a.root", jobs(4, 50, luminosityBlock=None))], MET, label="ttbar").events
    assert len(np.unique(events["collision"])) == 50
    assert "ttbar: run, luminosity block and event number of 150 events are those of an earlier event" in caplog.text


def test_what_the_manifest_declares_is_believed_without_a_word(make_file, caplog):
    """Detector draws differ in run, and lie in two files."""
    files = [make_file(f"{run}.root", jobs(1, 50, run=run)) for run in (1, 2)]
    events = read(files, Skim(event_variables=("MET_pt",), collision=("event",))).events
    assert len(np.unique(events["collision"])) == 50
    assert caplog.records == []


def test_a_declared_branch_must_be_there(make_file):
    with pytest.raises(InputError, match="has no branch 'event_id'; the nearest are event"):
        read([make_file("a.root", jobs(1, 5))], Skim(event_variables=("MET_pt",), collision=("event_id",)))


def test_without_an_event_number_the_row_and_the_file_name_an_event(make_file):
    branches = {"MET_pt": jobs(1, 50)["MET_pt"]}
    files = [make_file("a.root", branches), make_file("b.root", branches)]
    events = read(files, MET).events
    assert len(np.unique(events["collision"])) == 100
    assert events["event"].tolist() == [*range(50), *range(50)]
    assert read(files[:1], MET).events["collision"].tolist() == events["collision"][:50].tolist()


def test_our_own_samples_have_more_events_than_collisions(caplog):
    """Their detector draws stay together, as their manifest says."""
    from pipeline.ingest.manifest import load_manifest

    dataset = load_manifest().dataset("simulated", "single_top_s_chan")
    skim = Skim(event_variables=("MET_pt",), weight=dataset.weights, collision=dataset.source.collision)
    ingested = read(dataset.locations(), skim, stated=dataset.files)
    numbers = ingested.events["event"]
    assert len(np.unique(ingested.events["collision"])) == len(np.unique(numbers)) < len(numbers)
    assert caplog.records == []
    assert dataset.as_read(ingested.files).sum_of_weights == dataset.sum_of_weights


def test_of_file_is_another_bijection_for_each_name():
    hashes = collision_hash([np.arange(1000)])
    one, other = of_file(hashes, "a"), of_file(hashes, "b")
    assert repeated(np.concatenate([hashes, one, other])) == 0


# --- the share of a part ---


def test_parts_are_normalised_by_their_own_weight():
    generator = np.random.default_rng(0)
    weight = generator.normal(1, 0.5, 1000)
    part = generator.random(1000) < 0.3
    share = part_share(weight, part, "ttbar")
    assert share + part_share(weight, ~part, "ttbar") == pytest.approx(1)
    assert weight[part].sum() / share == pytest.approx(weight.sum())


def test_weights_that_cancel_say_nothing_of_the_size_of_a_part():
    """One of three events with weights 1, 1, -1 is not the whole, and two of them are not nothing."""
    weight = np.array([1.0, 1.0, -1.0])
    assert part_share(weight, np.array([True, False, False]), "ttbar") == pytest.approx(1 / 3)
    assert part_share(weight, np.array([False, True, True]), "ttbar") == pytest.approx(2 / 3)


@pytest.mark.parametrize("weight", [[0.0, 0.0], [], [1.0, 2.0]])
def test_a_part_without_events_is_empty_and_said(weight, caplog):
    assert part_share(np.array(weight), np.zeros(len(weight), bool), "ttbar") == 1.0
    assert ("ttbar: one of the parts (training, validation) has none of its 2 events" in caplog.text) == bool(weight)


# --- the digest of what was read ---


def test_the_digest_is_of_values_and_types():
    events = ak.Array([{"x": 1.0, "jets": [1, 2]}, {"x": 2.0, "jets": []}])
    digest = content_digest(events)
    assert content_digest(ak.Array(events.tolist())) == digest
    assert content_digest(ak.concatenate([events, events])[:2]) == digest
    assert content_digest(ak.with_field(events, [1.0, 2.5], "x")) != digest
    assert content_digest(ak.with_field(events, [1, 2], "x")) != digest
    assert content_digest(events[:1]) != digest
    assert content_digest(events[::-1]) != digest


def test_the_digest_of_a_reading_tells_a_replaced_file(make_file, tmp_path):
    """What a run that goes on must compare: equal entries, other events."""
    file = make_file("a.root", jobs(2, 50))
    first = read([file], MET).digest
    assert read([file], MET, cache=tmp_path / "cache").digest == first
    assert read([file], MET, cache=tmp_path / "cache").digest == first, "from the cache, too"
    make_file("a.root", jobs(2, 50, MET_pt=np.ones(100, np.float32)))
    assert read([file], MET).digest != first
