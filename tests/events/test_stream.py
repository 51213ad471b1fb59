"""Parts on disk: they give what all events together give, in one shape, compiled once, and no time for empty room."""

import jax
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.events.stream import store_parts
from pipeline.events.yields import yields_and_flux

from small_analysis import BANDWIDTHS, THRESHOLDS, arrays, small_analysis, small_data

ANALYSIS = small_analysis()
AT, WIDTHS = arrays(THRESHOLDS), arrays(BANDWIDTHS)


@pytest.fixture(scope="module")
def parts():
    """Of unequal sizes, so that chunks differ in number and in size."""
    return [small_data(events, seed, chunk_size=256) for seed, events in enumerate((700, 90))]


@pytest.fixture(scope="module")
def stored(parts, tmp_path_factory):
    return store_parts(iter(parts), tmp_path_factory.mktemp("parts") / "events")


@pytest.fixture(scope="module")
def sums(parts):
    """Yields and flux of each part as it was."""
    return [compiled(AT, WIDTHS, data) for data in parts]


@jax.jit
def compiled(at, widths, data):
    return yields_and_flux(ANALYSIS.selection, ANALYSIS.layout, at, widths, *events_of(data))


def events_of(data):
    return data.edges, data.groups, data.candidates


def test_room_changes_nothing(sums, stored):
    assert len(stored) == len(sums)
    for before, after in zip(sums, stored, strict=True):
        jax.tree.map(np.testing.assert_array_equal, compiled(AT, WIDTHS, after), before)


def test_all_have_one_shape(parts, stored):
    shapes = {str(jax.tree.map(np.shape, data)) for data in stored}
    assert len(shapes) == 1
    assert len({str(jax.tree.map(np.shape, data)) for data in parts}) == len(parts)


def test_gradient_of_parts_is_that_of_the_sum(parts, sums, stored):
    (loss, merit), gradient = exact.loss_and_gradient_of_parts(AT, ANALYSIS, WIDTHS, stored)
    total = jax.tree.map(lambda *some: sum(some[1:], start=some[0]), *sums)
    (expected, _), slope = exact.loss_of_yields_and_slope(total[0], ANALYSIS, parts[0].recipe)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for name, flux in total[1].items():
        # Subsamples of a chunk are added up in another order, in float32.
        rounding = 1e-6 * np.vdot(np.abs(slope), np.abs(flux))
        np.testing.assert_allclose(gradient.value[name], np.vdot(slope, flux), rtol=0, atol=rounding)
    np.testing.assert_allclose(exact.merit_of_parts(AT, ANALYSIS, stored).value, merit.value, rtol=1e-12)


def test_error_of_parts_is_the_scatter_of_subsamples_of_the_sum(parts, stored):
    flux = [exact._yields_and_subsampled_flux(*ANALYSIS[:2], AT, WIDTHS, *events_of(data))[1] for data in parts]
    (yields, _), _ = exact._sum_over_parts(lambda data: compiled(AT, WIDTHS, data), parts)
    _, slope = exact.loss_of_yields_and_slope(yields, ANALYSIS, parts[0].recipe)
    _, gradient = exact.loss_and_gradient_of_parts(AT, ANALYSIS, WIDTHS, stored)
    for name, error in gradient.error.items():
        of_subsamples = np.einsum("kdbc,kdsbc->ds", slope, sum(np.asarray(one[name]) for one in flux))
        variance = of_subsamples.shape[1] * np.var(of_subsamples, axis=1, ddof=1).sum()
        np.testing.assert_allclose(error, np.sqrt(variance), rtol=1e-9)
    assert any(error > 0 for error in gradient.error.values())


def test_one_compilation_serves_all_parts(stored, caplog):
    exact.merit_of_parts(AT, ANALYSIS, list(stored)[:1])
    caplog.clear()
    with jax.log_compiles():
        exact.merit_of_parts(AT, ANALYSIS, stored)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage() and "yields" in record.msg]


def test_tasks_without_events_are_not_done(parts, stored):
    """The number of turns of the loop is that of real chunks."""
    for before, after in zip(parts, stored, strict=True):
        real = [np.asarray(group.task_chunk) >= 0 for group in after.groups]
        assert [mask.sum() for mask in real if mask.any()] == [len(group.task_chunk) for group in before.groups]
        assert all(mask[: mask.sum()].all() for mask in real)


def test_no_parts_and_a_used_folder_are_refused(parts, tmp_path):
    with pytest.raises(ValueError, match="no parts"):
        store_parts([], tmp_path)
    with pytest.raises(ValueError, match="no events"):
        exact.merit_of_parts(AT, ANALYSIS, [])
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="not empty"):
        store_parts(parts, tmp_path)
