"""A fit of histograms beside pyhf, which gets the same numbers written out by hand, and beside finite differences."""

import dataclasses

import boost_histogram as bh
import hist
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
import uproot
from pipeline import Norm, Shape, TemplateFit
from pipeline.config import ConfigError
from pipeline.errors import InputError
from pipeline.inference.templates import Templates

EDGES = {"SR": np.array([0.0, 50.0, 100.0, 200.0]), "CR": np.array([0.0, 1.0, 3.0])}
NOMINAL = {
    ("SR", "signal"): [3.0, 12.0, 9.0],
    ("SR", "background"): [80.0, 40.0, 15.0],
    ("SR", "fakes"): [10.0, 6.0, 4.0],
    ("CR", "background"): [200.0, 120.0],
}
SCALE_UP = {("SR", "background"): [86.0, 46.0, 18.0], ("CR", "background"): [205.0, 131.0]}
SCALE_DOWN = {("SR", "background"): [77.0, 36.0, 13.0], ("CR", "background"): [198.0, 111.0]}
TUNE_UP = {("SR", "signal"): [3.3, 12.5, 8.0]}
DATA = {"SR": [95.0, 66.0, 34.0], "CR": [207.0, 115.0]}


def histogram(region, values, variances=None):
    made = hist.Hist(hist.axis.Variable(EDGES[region], name="mass", label="m [GeV]"), storage=hist.storage.Weight())
    made.view().value, made.view().variance = values, 0.05 * np.asarray(values) if variances is None else variances
    return made


def by_region(contents):
    made = {}
    for (region, process), values in contents.items():
        made.setdefault(region, {})[process] = histogram(region, values)
    return made


def template_fit(*, split=False, **options):
    given = {"mc_statistics": "none", "data": {name: histogram(name, values) for name, values in DATA.items()}}
    return TemplateFit.from_histograms(
        by_region(NOMINAL),
        signal="signal",
        systematics=[
            Norm("lumi", 0.03),
            Norm("fakes", up=0.4, down=-0.3, on="fakes", regions="SR"),
            Shape("scale", up=by_region(SCALE_UP), down=by_region(SCALE_DOWN), split=split),
            Shape("tune", up=by_region(TUNE_UP), split=split),
        ],
        free="background",
        **(given | options),
    )


def pyhf_workspace():
    """The same, by hand."""

    def modifiers(region, process):
        made = [{"name": "lumi", "type": "normsys", "data": {"hi": 1.03, "lo": 0.97}}]
        if process == "signal":
            nominal, up = NOMINAL[region, process], TUNE_UP[region, process]
            made.append({"name": "mu", "type": "normfactor", "data": None})
            sides = {"hi_data": up, "lo_data": list(2 * np.array(nominal) - np.array(up))}
            made.append({"name": "tune", "type": "histosys", "data": sides})
        if process == "background":
            made.append({"name": "background_norm", "type": "normfactor", "data": None})
            sides = {"hi_data": SCALE_UP[region, process], "lo_data": SCALE_DOWN[region, process]}
            made.append({"name": "scale", "type": "histosys", "data": sides})
        if process == "fakes":
            made.append({"name": "fakes", "type": "normsys", "data": {"hi": 1.4, "lo": 0.7}})
        return made

    return {
        "version": "1.0.0",
        "channels": [
            {
                "name": region,
                "samples": [
                    {"name": process, "data": values, "modifiers": modifiers(region, process)}
                    for (of, process), values in NOMINAL.items()
                    if of == region
                ],
            }
            for region in EDGES
        ],
        "observations": [{"name": region, "data": values} for region, values in DATA.items()],
        "measurements": [
            {
                "name": "by hand",
                "config": {
                    "poi": "mu",
                    "parameters": [
                        {"name": name, "inits": [1.0], "bounds": [[0.0, 10.0]]} for name in ("mu", "background_norm")
                    ],
                },
            }
        ],
    }


@pytest.fixture
def minuit():
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-4))
    yield
    pyhf.set_backend("numpy", "scipy")


def likelihood(workspace):
    """Model and data, with the interpolation of a run."""
    made = pyhf.Workspace(workspace)
    codes = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
    model = made.model(modifier_settings=codes)
    return model, made.data(model)


def test_the_workspace_is_pyhfs():
    """A process that is absent from a region has no events there."""
    ours, theirs = (likelihood(workspace) for workspace in (template_fit().workspace, pyhf_workspace()))
    assert ours[0].config.par_names == theirs[0].config.par_names
    np.testing.assert_allclose(ours[1], theirs[1])
    generator = np.random.default_rng(2)
    for _ in range(5):
        at = np.array(ours[0].config.suggested_init()) + generator.normal(0, 0.3, len(ours[0].config.par_names))
        assert ours[0].logpdf(at, ours[1])[0] == pytest.approx(theirs[0].logpdf(at, theirs[1])[0], rel=1e-12)


@pytest.mark.slow
def test_expected_and_observed_are_pyhfs(minuit):
    fit, (model, data) = template_fit(), likelihood(pyhf_workspace())

    def significance(observed):
        held, best = (
            run(*arguments, return_fitted_val=True)[1]
            for run, arguments in (
                (pyhf.infer.mle.fixed_poi_fit, (0.0, observed, model)),
                (pyhf.infer.mle.fit, (observed, model)),
            )
        )
        return np.sqrt(float(held) - float(best))

    nominal = model.config.suggested_init()
    assert fit.merit().converged
    assert fit.merit().value == pytest.approx(significance(model.expected_data(nominal)), abs=1e-4)
    assert fit.observed.significance.z == pytest.approx(significance(data), abs=1e-4)
    limits = fit.observed.limits
    assert float(pyhf.infer.hypotest(limits.observed, data, model)) == pytest.approx(0.05, abs=1e-4)
    _, expected = pyhf.infer.hypotest(limits.expected[2], data, model, return_expected=True)
    assert float(expected) == pytest.approx(0.05, abs=1e-4)
    best = pyhf.infer.mle.fit(data, model)
    assert fit.observed.strength.mu == pytest.approx(best[model.config.poi_index], abs=1e-3)


def moved(fit, table, place, by):
    """The fit with one content another."""
    pieces = {"yields": fit.templates.yields, "variance": fit.templates.variance}
    pieces[table] = pieces[table].at[place].add(by)
    return Templates(**pieces)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["discovery_significance", "signal_strength_uncertainty", "expected_upper_limit"])
def test_derivatives_are_finite_differences(objective):
    """By contents of nominal and of varied templates, and by the variances of the nominal ones."""
    fit = template_fit(mc_statistics="gaussian", split=True)
    merit, slope = fit.value_and_grad(objective)
    assert merit.converged
    places = [("yields", (0, 0, 1)), ("yields", (0, 1, 0)), ("yields", (0, 1, 4)), ("variance", (1, 2))]
    places += [
        ("yields", (fit.variations.index(name), process, 2)) for name, process in (("scale_down", 1), ("tune_up", 0))
    ]
    for table, place in places:
        step = 1e-3
        sides = [
            dataclasses.replace(fit, templates=moved(fit, table, place, way * step)).value_and_grad(objective)[0].value
            for way in (1, -1)
        ]
        difference = float(sides[0] - sides[1]) / (2 * step)
        # What varies the signal says nothing where there is none: in the fit behind a significance.
        assert (difference == 0) == (
            objective == "discovery_significance" and place == (fit.variations.index("tune_up"), 0, 2)
        )
        assert float(getattr(slope, table)[place]) == pytest.approx(difference, rel=1e-4, abs=1e-8)
    shown = fit.slopes(objective)
    assert shown["CR"]["background", "nominal", 1].value == slope.yields[0, 1, 4]
    assert shown["SR"].axes[2].name == "mass"
    # A template that does not vary a process says nothing of it.
    assert shown["SR"]["fakes", "scale_up", 0].value == 0


@pytest.mark.long
def test_merging_is_what_coarser_bins_give():
    fit = template_fit()
    change = fit.merging()
    assert {region: len(values) for region, values in change.items()} == {"SR": 2, "CR": 1}
    before = fit.merit().value
    coarser = [
        fit.merged({"SR": [0, 100, 200]}),
        fit.merged({"SR": [0, 50, 200]}),
        fit.merged({"CR": [0, 3]}),
    ]
    np.testing.assert_allclose(
        np.concatenate(list(change.values())), [each.merit().value - before for each in coarser], atol=1e-9
    )
    assert all(value <= 1e-9 for value in change["SR"])
    assert coarser[0].workspace["observations"] == [
        {"name": "CR", "data": DATA["CR"]},
        {"name": "SR", "data": [161.0, 34.0]},
    ]


def test_thin_bins_are_merged_with_their_data():
    fit = template_fit(minimum_background=30.0)
    counts = {each["name"]: each["data"] for each in fit.workspace["observations"]}
    assert counts == {"SR": [95.0, 100.0, 0.0], "CR": DATA["CR"]}


def other_kinds(tmp_path):
    """The same numbers by other libraries."""
    values, edges = np.array(NOMINAL["SR", "signal"]), EDGES["SR"]
    boost = bh.Histogram(bh.axis.Variable(edges), storage=bh.storage.Weight())
    boost.view().value, boost.view().variance = values, 0.05 * values
    with uproot.recreate(tmp_path / "histograms.root") as file:
        file["signal"] = boost
    return boost, uproot.open(tmp_path / "histograms.root")["signal"], (values, edges)


def test_histograms_of_other_libraries(tmp_path):
    kinds = other_kinds(tmp_path)
    for number, each in enumerate(kinds):
        fit = TemplateFit.from_histograms(
            {"SR": {"signal": each, "background": histogram("SR", NOMINAL["SR", "background"])}},
            signal="signal",
            mc_statistics="none" if number == 2 else "gaussian",
        )
        np.testing.assert_allclose(fit.templates.yields[0, 0], NOMINAL["SR", "signal"])
        np.testing.assert_allclose(fit.axes["SR"].edges, EDGES["SR"])
        if number < 2:
            np.testing.assert_allclose(fit.templates.variance[0], 0.05 * jnp.asarray(NOMINAL["SR", "signal"]))
    with pytest.raises(InputError, match="SR, signal: the histogram has no variances"):
        TemplateFit.from_histograms({"SR": {"signal": kinds[2]}}, signal="signal")


OTHER_BINS = {"SR": {"signal": (np.ones(2), np.arange(3.0))}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"signal": "signl"}, "signal: no process is called 'signl'; there are: signal"),
        ({"systematics": [Norm("lumi", 0.03, regions="SB")]}, "lumi: no region is called 'SB'"),
        ({"systematics": [Norm("lumi", -2)]}, "leaves nothing of it"),
        ({"systematics": [Norm("lumi", 0.1), Norm("lumi", 0.2)]}, "two called 'lumi' act on 'signal' in 'SR'"),
        ({"systematics": [Shape("tune", up=OTHER_BINS)]}, "tune_up, SR, signal: other bins than the first"),
        ({"systematics": [Shape("tune", up=by_region(SCALE_UP))]}, "tune_up: no region is called 'CR'"),
        ({"systematics": [Shape("tune", up={"SR": {"other": histogram("SR", [1, 2, 3])}})]}, "no nominal histogram"),
        ({"data": {}}, "data: no histogram is called 'SR'"),
        ({"data": {"SR": [1, 2, 3]}}, "data, SR: a list is no histogram"),
        ({"data": {"SR": (np.ones((2, 2)), np.arange(3.0), np.arange(3.0))}}, "has 2 axes"),
        ({"data": {"SR": (np.array([1, np.nan, 1]), EDGES["SR"])}}, "a bin is not finite"),
        ({"mc_statistics": "gauss"}, "mc_statistics: 'gauss' is none of"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(changes, sentence):
    given = {"signal": "signal"} | changes
    with pytest.raises((InputError, ConfigError, ValueError), match=sentence):
        TemplateFit.from_histograms({"SR": {"signal": histogram("SR", NOMINAL["SR", "signal"])}}, **given)


@pytest.mark.parametrize("edges", [[0, 100], [0, 60, 200], [0, 100, 50, 200], []])
def test_coarser_bins_have_edges_that_are_there(edges):
    with pytest.raises(InputError, match="SR: new edges have to be some of the present ones"):
        template_fit().merged({"SR": edges})


def test_no_data_no_observation():
    with pytest.raises(InputError, match="data: there are none"):
        template_fit(data=None).observed  # noqa: B018


def test_it_shows_itself():
    fit = template_fit()
    assert repr(fit) == "TemplateFit(signal, background, fakes in SR, CR; mu; lumi, fakes, scale, tune)"
    assert "<td>135</td>" in fit._repr_html_()
