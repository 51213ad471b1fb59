"""Parts on disk: they give what all events together give, in one shape, compiled once, and no time for empty room."""

import os
from dataclasses import replace

import jax
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.errors import InputError
from pipeline.events.stream import Rooms, store_parts
from pipeline.events.yields import SUBSAMPLES, yields_and_flux

from small_analysis import BANDWIDTHS, THRESHOLDS, arrays, small_analysis, small_data
from small_analysis import stored as on_disk

ANALYSIS = small_analysis()
AT, WIDTHS = arrays(THRESHOLDS), arrays(BANDWIDTHS)


@pytest.fixture(scope="module")
def parts():
    """Of unequal sizes, so that chunks differ in number and in size."""
    return [small_data(events, seed, chunk_size=256) for seed, events in enumerate((700, 90))]


@pytest.fixture(scope="module")
def stored(parts, tmp_path_factory):
    return on_disk(parts, tmp_path_factory.mktemp("parts") / "events")


@pytest.fixture(scope="module")
def sums(parts):
    """Yields and flux of each part as it was."""
    return [compiled(AT, WIDTHS, data) for data in parts]


@jax.jit
def compiled(at, widths, data):
    return yields_and_flux(ANALYSIS.events, at, widths, data.events)


@pytest.mark.slow
def test_room_changes_nothing(sums, stored):
    assert len(stored) == len(sums)
    for before, after in zip(sums, stored, strict=True):
        jax.tree.map(np.testing.assert_array_equal, compiled(AT, WIDTHS, after), before)


def test_all_have_one_shape(parts, stored):
    shapes = {str(jax.tree.map(np.shape, data)) for data in stored}
    assert len(shapes) == 1
    assert len({str(jax.tree.map(np.shape, data)) for data in parts}) == len(parts)


@pytest.mark.slow
def test_gradient_of_parts_is_that_of_the_sum(parts, sums, stored):
    whole = exact.evaluate(ANALYSIS, AT, WIDTHS, stored)
    total = jax.tree.map(lambda *some: sum(some[1:], start=some[0]), *sums)
    (expected, _), slope = exact.loss_of_yields_and_slope(total[0], ANALYSIS, parts[0].recipe)
    np.testing.assert_allclose(whole.loss, expected, rtol=1e-12)
    for name, flux in total[1].items():
        # Subsamples of a chunk are added up in another order, in float32.
        rounding = 1e-6 * np.vdot(np.abs(slope), np.abs(flux.sum(axis=2)))
        expected = np.vdot(slope, flux.sum(axis=2))
        np.testing.assert_allclose(whole.gradient.value[name], expected, rtol=0, atol=rounding)
    np.testing.assert_allclose(exact.merit_of(ANALYSIS, AT, stored).value, whole.merit.value, rtol=1e-12)


@pytest.mark.slow
def test_error_of_parts_is_the_scatter_of_subsamples_of_the_sum(parts, sums, stored):
    subsampled = jax.jit(lambda data: yields_and_flux(ANALYSIS.events, AT, WIDTHS, data.events, SUBSAMPLES)[1])
    flux = [subsampled(data) for data in parts]
    yields = sum(each[0] for each in sums)
    _, slope = exact.loss_of_yields_and_slope(yields, ANALYSIS, parts[0].recipe)
    gradient = exact.evaluate(ANALYSIS, AT, WIDTHS, stored).gradient
    for name, error in gradient.error.items():
        of_subsamples = np.einsum("kdbc,kdsbc->ds", slope, sum(np.asarray(each[name]) for each in flux))
        variance = of_subsamples.shape[1] * np.var(of_subsamples, axis=1, ddof=1).sum()
        # The same sums in float32, compiled into another function.
        np.testing.assert_allclose(error, np.sqrt(variance), rtol=1e-6)
    assert any(error > 0 for error in gradient.error.values())


@pytest.mark.slow
def test_one_compilation_serves_all_parts(stored, caplog):
    exact.merit_of(ANALYSIS, AT, list(stored)[:1])
    caplog.clear()
    with jax.log_compiles():
        exact.merit_of(ANALYSIS, AT, stored)
    messages = [record.getMessage() for record in caplog.records]
    assert not [message for message in messages if "Compiling" in message and "expected_yields" in message]


def test_tasks_without_events_are_not_done(parts, stored):
    """The number of turns of the loop is that of real chunks."""
    for before, after in zip(parts, stored, strict=True):
        real = [np.asarray(group.task_chunk) >= 0 for group in after.events.groups]
        assert [mask.sum() for mask in real if mask.any()] == [len(group.task_chunk) for group in before.events.groups]
        assert all(mask[: mask.sum()].all() for mask in real)


def test_no_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no parts"):
        store_parts(lambda _: ((), {}), 0, tmp_path)
    with pytest.raises(ValueError, match="no events"):
        exact.merit_of(ANALYSIS, AT, [])


def test_what_is_stored_is_not_made_again(parts, stored):
    """Nor is what another run of the same analysis has stored meanwhile."""

    def fail(number):
        raise AssertionError(number)

    again = store_parts(fail, len(parts), stored.stored.folder)
    assert again == stored.stored
    assert again.bytes == sum(file.stat().st_size for file in again.folder.rglob("*.*"))


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone"])
def test_damaged_parts_are_a_sentence(parts, tmp_path, damage):
    """Never what was in the memory before."""
    damaged = on_disk(parts, tmp_path / "events")
    file = tmp_path / "events" / "part_00001" / "device_00.bin"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:-64] if damage == "shorter" else content + content[:64])
    with pytest.raises(InputError, match=r"part_00001/device_00\.bin: .* gone or damaged; delete .*events"):
        list(damaged)


def test_what_a_kill_left_of_a_raw_part_is_deleted(parts, tmp_path):
    """The part itself is there by then."""
    on_disk(parts, tmp_path)
    (tmp_path / "raw_00001").mkdir()
    again = on_disk(parts, tmp_path)
    assert not (tmp_path / "raw_00001").exists()
    assert len(list(again)) == len(parts)


def test_what_killed_runs_left_is_swept(parts, tmp_path):
    old, young = (tmp_path / f"part_00000.{number}.unfinished" for number in range(2))
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    on_disk(parts, tmp_path)
    assert young.exists()
    assert not old.exists()


def test_memory_is_used_again_once_nobody_looks_at_it(stored):
    """Two parts at a time are held, however many are read; what is still in use stays as it is."""
    parts = replace(stored.stored, rooms=Rooms())
    first = next(iter(parts.read([0])))
    before = jax.tree.map(lambda column: np.array(column), first)
    for _ in range(3):
        for groups in parts.read([0, 1, 0, 1]):
            jax.block_until_ready(groups)
    jax.tree.map(np.testing.assert_array_equal, first, before)
    (rooms,) = parts.rooms._of_size.values()
    assert 2 <= len(rooms) <= 4


def test_a_cpu_computes_with_what_was_read(stored):
    """Or else every step would copy all events."""
    (group, *_) = next(iter(stored.stored.read([0])))
    rooms = [room for of_size in stored.stored.rooms._of_size.values() for room in of_size]
    for column in jax.tree.leaves((group.objects, group.varied_objects, group.prepared)):
        places = [column.unsafe_buffer_pointer() - room.ctypes.data for room in rooms]
        assert any(0 <= place < len(room) for place, room in zip(places, rooms, strict=True))


def test_some_parts_alone(parts, sums, stored):
    second = replace(stored, numbers=(1,))
    jax.tree.map(np.testing.assert_array_equal, compiled(AT, WIDTHS, next(iter(second))), sums[1])
