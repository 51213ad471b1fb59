"""Templates for other tools: read back with hist and uproot, and against sums made by hand."""

from pathlib import Path

import numpy as np
import pytest
import uproot
from pipeline.config import Config
from pipeline.report.histograms import as_hist, cabinetry_config, merged, write_histograms
from pipeline.validation.regions import Region


@pytest.fixture
def small(config: Config) -> Config:
    """The quickstart with two processes and two systematic uncertainties, those of the regions made by hand."""
    content = config.model_dump(mode="json")
    content["processes"] = {name: content["processes"][name] for name in ("ttbar", "wjets")}
    shape = {"type": "norm_plus_shape"}
    content["systematics"] = {
        "scale": {"title": "scale", **shape, "processes": ["ttbar"], "up": "scaleup", "down": "scaledown"},
        "shape": {"title": "shape", **shape, "up": "ME_var"},
    }
    return Config.model_validate(content)


def test_hist_has_named_axes_and_all_templates(small: Config, regions: tuple[Region, ...]) -> None:
    made = as_hist(small, "4j1b", regions[0])
    assert made.axes.name == ("process", "variation", "ht")
    np.testing.assert_array_equal(made["wjets", "nominal", :].values(), regions[0].nominal[1])
    np.testing.assert_array_equal(made["wjets", "nominal", :].variances(), regions[0].variance[1])
    np.testing.assert_array_equal(made["ttbar", "shape_down", :].values(), regions[0].down["shape"][0])


def test_merged_region_keeps_every_event(regions: tuple[Region, ...]) -> None:
    fitted = merged(regions[0])
    assert fitted is not None
    np.testing.assert_array_equal(fitted.edges, [0, 1, 4])
    np.testing.assert_array_equal(fitted.nominal, [[10, 50], [5, 4.5]])
    np.testing.assert_allclose(fitted.variance, 0.1 * fitted.nominal)
    np.testing.assert_allclose(fitted.up["scale"], 1.1 * fitted.nominal)


def test_region_that_is_left_out_has_no_bins(regions: tuple[Region, ...]) -> None:
    left_out = Region(**{**vars(regions[0]), "merged_into": np.array([-1, -1, -1])})
    assert merged(left_out) is None


def test_root_file_holds_what_the_regions_hold(small: Config, regions: tuple[Region, ...], tmp_path: Path) -> None:
    write_histograms(tmp_path / "h.root", small, {"after": regions, "fit": regions})
    with uproot.open(tmp_path / "h.root") as file:
        histogram = file["after/4j1b/ttbar/scale_up"]
        np.testing.assert_array_equal(histogram.values(), regions[0].up["scale"][0])
        np.testing.assert_array_equal(histogram.axis().edges(), regions[0].edges)
        np.testing.assert_array_equal(file["after/4j2b/wjets/nominal"].variances(), regions[1].variance[1])
        np.testing.assert_allclose(file["fit/4j1b/asimov/nominal"].values(), [15, 54.5])
        # A variation that does not act on a process is not written for it.
        assert "after/4j1b/wjets/scale_up" not in file
        assert "after/4j1b/wjets/shape_up" in file


def test_cabinetry_config_names_what_the_file_holds(small: Config, regions: tuple[Region, ...]) -> None:
    content = cabinetry_config(small, regions)
    assert [region["RegionPath"] for region in content["Regions"]] == ["4j1b", "4j2b"]
    assert content["Systematics"][0]["Samples"] == ["ttbar"]
    assert content["Systematics"][1]["Down"] == {"VariationPath": "shape_down"}
    assert content["NormFactors"] == [{"Name": "ttbar_norm", "Samples": ["ttbar"], "Nominal": 1, "Bounds": [0.0, 10.0]}]
