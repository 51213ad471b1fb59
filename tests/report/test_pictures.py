"""Figures show the numbers they are given: their artists are read back, pixels are not looked at."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from pipeline.report.pictures import (
    contour,
    cut_flow,
    distributions,
    gradients,
    history,
    impacts,
    look,
    profiles,
    systematics,
    templates,
    working_points,
)
from pipeline.validation.comparison import Estimate
from pipeline.validation.cutflow import CutFlow
from pipeline.validation.diagnostics import Contour, Contributions, Path, Profile
from pipeline.validation.distributions import Distribution
from pipeline.validation.impacts import STATISTICS, Impact
from pipeline.validation.regions import Region
from pipeline.validation.working_points import WorkingPoint, WorkingPoints

LABELS = {"jet_pt": "jet $p_T$ [GeV]", "jet_btag": "b-tag discriminant"}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    mpl.use("agg")
    with look.style():
        yield


def lines(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labelled curves of a panel."""
    return {str(line.get_label()): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def steps(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """(top, bottom) of the histograms and bands of a panel."""
    data = [patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)]
    return [(np.asarray(one.values), np.asarray(one.baseline)) for one in data]


def text(figure: Figure) -> str:
    return " ".join(artist.get_text() for artist in figure.findobj(mpl.text.Text))


def test_stack_ends_at_the_total_and_bands_are_around_it(regions: tuple[Region, ...]) -> None:
    figure = templates.draw(regions, regions, "Simulated")
    main, ratio = figure.axes[0], figure.axes[2]
    region, widths = regions[0], np.diff(regions[0].edges)
    shapes = steps(main)
    tops = [top for top, _ in shapes]
    assert any(np.allclose(top, region.total / widths) for top in tops)
    below, above = region.band
    bands = [(region.total + above) / widths, (region.total - below) / widths]
    assert any(np.allclose(top, bands[0]) and np.allclose(low, bands[1]) for top, low in shapes)
    error = region.statistical
    assert any(np.allclose(top, (region.total + error) / widths) for top, _ in shapes)
    assert any(np.allclose(top, 1 + above / region.total) for top, _ in steps(ratio))


def test_band_adds_shifts_in_quadrature(regions: tuple[Region, ...]) -> None:
    region = regions[0]
    total = np.array([15.0, 24.0, 30.5])
    shape = np.array([0.2, 0.0, 0.1]) * total
    below, above = region.band
    np.testing.assert_allclose(above, np.sqrt(0.1 * total + (0.1 * total) ** 2 + shape**2))
    np.testing.assert_allclose(below, above)


def test_every_figure_says_where_its_events_come_from(regions: tuple[Region, ...]) -> None:
    for figure in (templates.draw(regions, regions, "Simulated"), systematics.draw(regions, "Simulated")):
        assert "Simulated" in text(figure)


def test_merged_bins_are_marked(regions: tuple[Region, ...]) -> None:
    figure = templates.draw(regions, regions, "Simulated")
    assert [t.get_text() for t in figure.axes[0].texts].count("←") == 1
    assert [t.get_text() for t in figure.axes[4].texts].count("←") == 0


def test_systematics_are_ratios_to_nominal(regions: tuple[Region, ...]) -> None:
    figure = systematics.draw(regions, "Simulated")
    scale, shape = figure.axes[0], figure.axes[2]
    assert any(np.allclose(top, 1.1) for top, _ in steps(scale))
    assert any(np.allclose(top, [1.2, 1.0, 0.9]) for top, _ in steps(shape))


def way(thresholds: int, **changes: Any) -> Path:
    paths = {f"cut {number}": np.array([30.0, 31.0, 32.0]) + number for number in range(thresholds)}
    path = Path(
        symbol="Z",
        training=np.array([3.0, 5.0, 4.0]),
        stopping=None,
        validation=(np.array([0, 2]), np.array([2.0, 2.5])),
        thresholds=paths,
        certain=dict.fromkeys(paths, np.array([True, True, False])),
        starts=(0,),
        best=1,
    )
    return replace(path, **changes)


@pytest.mark.parametrize("thresholds", [1, 4, 5, 28])
def test_history_shows_every_step_and_marks_the_best(thresholds: int) -> None:
    path = way(thresholds)
    figure = history.draw(path, {name: name for name in path.thresholds}, {}, "Simulated")
    top, *others = figure.axes
    np.testing.assert_array_equal(top.lines[0].get_ydata(), [3.0, 5.0, 4.0])
    np.testing.assert_array_equal(lines(top)["validation events"], [[0, 2], [2.0, 2.5]])
    assert len(others) == thresholds
    for axes, values in zip(others, path.thresholds.values(), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), values)
        assert list(axes.lines[-1].get_xdata()) == [1, 1]
    width, height = figure.get_size_inches()
    assert height < 2 * width


def test_history_marks_derivatives_that_are_compatible_with_zero() -> None:
    axes = history.draw(way(1), {"cut 0": "cut"}, {}, "Simulated").axes[1]
    marks = {str(line.get_marker()): list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None"}
    assert marks == {".": [0, 1], "o": [2]}


def test_history_does_not_join_one_start_to_the_next() -> None:
    figure = history.draw(way(1, starts=(0, 2)), {"cut 0": "cut"}, {}, "Simulated")
    for axes in figure.axes:
        joined = [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "-"]
        assert joined == [[0, 1], [2]]


def test_history_shows_the_events_that_decide_when_to_stop() -> None:
    figure = history.draw(way(1, stopping=np.array([1.0, 2.0, 3.0])), {"cut 0": "cut"}, {}, "Simulated")
    np.testing.assert_array_equal(lines(figure.axes[0])["stopping events"][1], [1.0, 2.0, 3.0])


def test_history_shows_a_bound_only_where_the_threshold_is_near() -> None:
    figure = history.draw(way(1), {"cut 0": "cut"}, {"cut 0": (25.0, 32.0)}, "Simulated")
    low, high = figure.axes[1].get_ylim()
    shown = [line.get_ydata()[0] for line in figure.axes[1].lines if line.get_linestyle() == "--"]
    assert shown == [25.0, 32.0]
    assert low > 25
    assert high > 32


def test_tangent_has_the_slope_of_the_gradient() -> None:
    grid = np.array([28.0, 30.0, 32.0])
    profile = Profile("jet_pt", grid, grid**2, -grid, optimum=30.0, value=900.0, slope=-7.0, error=1.0, bandwidth=1.0)
    (axes,) = profiles.draw([profile], LABELS, "Z", "Simulated").axes
    shown = lines(axes)
    np.testing.assert_array_equal(shown["training events, exact"][1], grid**2)
    np.testing.assert_array_equal(shown["validation events, exact"][1], -grid)
    x, y = shown["tangent by the gradient"]
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(-7.0)
    assert y.mean() == pytest.approx(900.0)


def test_tangent_ends_where_the_threshold_may_not_go() -> None:
    grid = np.array([30.0, 32.0])
    profile = Profile("jet_pt", grid, grid, grid, optimum=30.0, value=30.0, slope=1.0, error=0.5, bandwidth=1.0)
    (axes,) = profiles.draw([profile], LABELS, "Z", "Simulated").axes
    assert list(lines(axes)["tangent by the gradient"][0]) == [30.0, 31.5]


def test_contributions_stack_upwards_and_downwards(regions: tuple[Region, ...]) -> None:
    values = np.array([[1.0, -2.0, 3.0, 0.0, 0.0, 0.0], [2.0, 1.0, -1.0, 0.0, 0.0, 1.0]])
    figure = gradients.draw([Contributions("jet_pt", 1.0, values)], regions, LABELS, "Z", "Simulated")
    left, right = figure.axes
    assert left.axison
    assert right.axison
    heights = [(bar.get_y(), bar.get_height()) for container in left.containers for bar in container]
    assert heights == [(0, 1), (0, -2), (0, 3), (1, 2), (0, 1), (0, -1)]
    assert any(np.allclose(top, [3, -1, 2]) for top, _ in steps(left))
    assert any(np.allclose(top, [0, 0, 1]) for top, _ in steps(right))


def test_panels_with_nothing_to_see_are_left_out(regions: tuple[Region, ...]) -> None:
    values = np.array([[1.0, -2.0, 3.0, 0.0, 0.01, 0.0], [2.0, 1.0, -1.0, 0.0, 0.0, 0.0]])
    figure = gradients.draw([Contributions("jet_pt", 1.0, values)], regions, LABELS, "Z", "Simulated")
    assert [axes.axison for axes in figure.axes] == [True, False]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [region.name for region in regions]


def test_contour_shows_path_and_optimum() -> None:
    grid = np.array([25.0, 30.0, 35.0])
    found = Contour(("jet_pt", "jet_btag"), grid, grid / 50, np.add.outer(grid, grid))
    path = [{"jet_pt": 30.0, "jet_btag": 0.5}, {"jet_pt": 31.0, "jet_btag": 0.55}]
    figure = contour.draw(found, path, path[-1], LABELS, "Z", "Simulated")
    shown = lines(figure.axes[0])
    np.testing.assert_array_equal(shown["path"], [[30.0, 31.0], [0.5, 0.55]])
    assert (shown["optimum"][0][0], shown["optimum"][1][0]) == (31.0, 0.55)


def test_fits_that_did_not_converge_leave_a_hole_in_the_contour() -> None:
    grid = np.array([25.0, 30.0, 35.0])
    heights = np.add.outer(grid, grid)
    heights[1, 1] = np.nan
    path = [{"jet_pt": 30.0, "jet_btag": 0.5}]
    figure = contour.draw(Contour(("jet_pt", "jet_btag"), grid, grid, heights), path, path[0], LABELS, "Z", "")
    figure.draw_without_rendering()


def test_distribution_shows_cut_and_bandwidth() -> None:
    table = (np.array([20.0, 30.0, 40.0]), np.array([[3.0, 2.0]]))
    one = Distribution("jet_pt", "objects", ("ttbar",), *table, before=30.0, after=32.0, bandwidth=1.5)
    (axes,) = distributions.draw([one], LABELS, "Simulated").axes
    shown = lines(axes)
    assert list(shown["default cut"][0]) == [30.0, 30.0]
    assert list(shown["optimised cut"][0]) == [32.0, 32.0]
    (window,) = [patch for patch in axes.patches if patch.get_label() == "bandwidth"]
    box = window.get_extents().transformed(axes.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((30.5, 33.5))


def test_cut_flow_shows_both_selections_and_joins_no_regions() -> None:
    steps = ("all read", "1 lepton", "SR", "CR")
    before = CutFlow(("ttbar",), steps, np.array([[100.0, 50.0, 9.0, 8.0]]), regions=2)
    after = CutFlow(("ttbar",), steps, np.array([[100.0, 40.0, 7.0, 6.0]]), regions=2)
    axes, table = cut_flow.draw(before, after, "Simulated").axes
    assert [text.get_text() for text in table.texts[:4]] == ["100\n(100)", "40\n(50)", "7\n(9)", "6\n(8)"]
    assert [label.get_text() for label in table.get_xticklabels()] == list(steps)
    drawn = [(line.get_linestyle(), list(line.get_ydata())) for line in axes.lines]
    assert [values for look, values in drawn if look == "None"] == [[100.0, 40.0, 7.0, 6.0], [100.0, 50.0, 9.0, 8.0]]
    assert ("-", [100.0, 40.0]) in drawn
    assert ("--", [100.0, 50.0]) in drawn


def test_impacts_stand_from_top_to_bottom() -> None:
    """Filled after the fit, outlined before it; what has no constraint shows its value instead of a pull."""
    found = [
        Impact("jes", 0.2, -0.19, 0.25, -0.24, 0.9),
        Impact("norm", -0.1, 0.1, np.nan, np.nan, 0.05, constrained=False),
        Impact(STATISTICS, 0.05, -0.05, np.nan, np.nan, np.nan),
    ]
    left, right = impacts.draw(found, "μ", "Simulated").axes
    bars = [(round(bar.get_y() + 0.35), bar.get_width()) for bar in right.patches]
    assert bars[:6] == [(2, 0.2), (2, 0.25), (2, -0.19), (2, -0.24), (1, -0.1), (1, 0.1)]
    assert [t.get_text() for t in left.get_yticklabels()] == ["jes", "norm", STATISTICS]
    assert [text.get_text() for text in left.texts if "±" in text.get_text()] == ["1.00 ± 0.05"]
    assert len(left.containers) == 1, "one pull"


def test_working_points_and_shifts() -> None:
    """One panel where no shift is known; a point of which none is known has no mark."""
    known = WorkingPoint("jes", 0.5, 0.06, {"jet_pt": Estimate(3.0, 1.5)}, Estimate(0.001, 0.001), "")
    unknown = WorkingPoint("lumi", 2.0, 0.05, {}, None, "nobody knows")
    points = WorkingPoints(0.07, {"jet_pt": Estimate(30.0, 1.5)}, {"jet_pt": 3.0}, {}, (known, unknown))
    left, right = working_points.draw(points, "σ(μ)", "Simulated").axes
    assert [list(values) for values in left.lines[1].get_data()] == [[0.06, 0.05], [1, 0]]
    assert [t.get_text() for t in left.get_yticklabels()] == ["jes uncertainty halved", "lumi uncertainty doubled"]
    (container,) = right.containers
    assert [list(values) for values in container.lines[0].get_data()] == [[1.0], [1.0]]
    (bar,) = container.lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 0], [0.5, 1.5])
    assert len(working_points.draw(replace(points, points=(unknown,)), "σ(μ)", "Simulated").axes) == 1


def test_layout_is_made_once(regions: tuple[Region, ...]) -> None:
    figure = templates.draw(regions, regions, "Simulated")
    look.lay_out(figure)
    places = [axes.get_position().bounds for axes in figure.axes]
    look.lay_out(figure)
    assert [axes.get_position().bounds for axes in figure.axes] == places


def test_the_signal_lies_on_top_and_the_label_says_the_width(regions: tuple[Region, ...]) -> None:
    """Bins of widths 1, 1 and 2: content per unit."""
    axes = templates.draw(regions, regions, "", signal=["ttbar"]).axes[0]
    assert axes.get_ylabel() == "events / GeV"
    equal = Region(**{**vars(regions[0]), "edges": np.array([0.0, 40.0, 80.0, 120.0])})
    figure = templates.draw([equal], [equal], "", signal=["ttbar"])
    assert figure.axes[0].get_ylabel() == "events / 40 GeV"
    assert any(axes.get_ylabel() == "total / nominal" for axes in figure.axes)
    assert templates._from_below(("ttbar", "W+jets", "tW"), ["ttbar"]) == [2, 1, 0]
    assert templates._from_below(("W+jets", "tW", "ttbar"), ["ttbar"]) == [1, 0, 2]


def test_no_process_has_the_grey_of_the_errors() -> None:
    assert look.GREY not in look.colors(12)


def test_a_parameter_known_too_well_gets_a_sentence() -> None:
    jes = Impact("jes", 0.2, -0.2, 0.2, -0.2, 0.9)
    said = impacts._over_constrained([Impact("ME variation", 0.03, -0.03, 0.1, -0.1, 0.12), jes])
    assert "ME variation (0.12)" in said
    assert "jes" not in said
    free = Impact("norm", 0.1, -0.1, np.nan, np.nan, 0.05, constrained=False)
    assert impacts._over_constrained([jes, free]) == ""


def test_profiles_have_one_scale() -> None:
    places = np.array([1.0, 2.0, 3.0])
    steep, flat = (
        Profile(cut, places, values, values, 2.0, float(values[1]), 0.0, 0.0, 1.0)
        for cut, values in (("jet_pt", np.array([1.0, 5.0, 9.0])), ("jet_btag", np.array([4.9, 5.0, 5.1])))
    )
    first, second = profiles.draw([steep, flat], LABELS, "Z", "").axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < 1.0
    assert first.get_ylim()[1] > 9.0
