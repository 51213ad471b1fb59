"""The gradient is right: bin by bin against exact finite differences, and end to end against the chain rule."""

from collections.abc import Iterable

import jax
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.analyses import ttbar
from pipeline.config import Config, load_config
from pipeline.events.cuts import arrays
from pipeline.events.yields import yields_and_flux
from pipeline.translation import default_bandwidths
from pipeline.validation.gradient_check import GradientCheck, check_gradients, with_unit_weights

from analysis_data import ROOT, all_events, default_thresholds, everything

pytestmark = pytest.mark.slow

EVERY_THRESHOLD = ROOT / "configs" / "every_threshold.yaml"

# The flux and the finite difference see the same objects with slightly different weights: for one-dimensional flows
# their difference has 0.26 times the statistical error of the finite difference (∫(K−box)² / ∫box², worked out for
# equal second moments); two boundaries in one event and curvature add to it.
RMS_OF_PULLS = 0.5
LARGEST_PULL = 3.0


# Where each threshold has enough events around it.
CENTRAL = {
    "electron_sip3d": {"threshold": 1.5},
    "ht": {"threshold": 300},
    "met": {"threshold": 30},
    "leading_jet_pt": {"threshold": 80},
    "trijet_pt": {"threshold": 120},
}
CUTS = ["electron_pt", "electron_eta", "electron_sip3d", "jet_pt", "jet_eta", "jet_btag", *list(CENTRAL)[1:]]
MUON_CUTS = ["muon_pt", "muon_eta", "muon_sip3d", "muon_isolation"]
EDGES = [f"4j2b.edge_{number}" for number in range(12)]
# No muon passes the identification in these samples, as in the AGC's (see scripts/samples): electrons stand in.
ELECTRONS_AS_MUONS = {
    "electron": {
        "branch": "Muon",
        "variables": {"pt": "pt", "eta": "eta", "sip3d": "sip3d"},
        "require": [{"variable": "tightId", "equal": 1}],
    },
    "muon": {
        "branch": "Electron",
        "variables": {"pt": "pt", "eta": "eta", "sip3d": "sip3d", "isolation": "pfRelIso03_all"},
        "require": [{"variable": "cutBased", "equal": 4}],
    },
}
FEW_MUONS_OUTSIDE = {"muon_sip3d": {"threshold": 1.5}, "muon_isolation": {"threshold": 0.07}}


def checked(loaded: Config, names: Iterable[str]) -> dict[str, GradientCheck]:
    """The check of some thresholds on all events, each of which counts one."""
    all_ = all_events(loaded)
    widths = {name: loaded.thresholds[name].bandwidth for name in names}
    return check_gradients(all_.analysis, default_thresholds(loaded), widths, with_unit_weights(all_.data))


@pytest.fixture(scope="module")
def checks() -> dict[str, GradientCheck]:
    return checked(load_config(EVERY_THRESHOLD, {"cuts": CENTRAL}), [*CUTS, *EDGES, "4j1b.start", "4j1b.stop"])


@pytest.fixture(scope="module")
def muon_checks() -> dict[str, GradientCheck]:
    return checked(load_config(EVERY_THRESHOLD, {"cuts": FEW_MUONS_OUTSIDE, "objects": ELECTRONS_AS_MUONS}), MUON_CUTS)


@pytest.mark.parametrize("cut", [*CUTS, *EDGES])
def test_flux_agrees_with_the_exact_finite_difference(checks, cut) -> None:
    """All data sets, kinematic variations, bins and columns: every template of the analysis is linear in these."""
    assert_agreement(checks[cut])


@pytest.mark.parametrize("cut", MUON_CUTS)
def test_flux_through_the_muon_cuts(muon_checks, cut) -> None:
    assert_agreement(muon_checks[cut])


@pytest.mark.parametrize("cut", ["4j1b.start", "4j1b.stop"])
def test_flux_through_a_moving_range(checks, cut) -> None:
    """An inner edge moves by a part of the step only: the finite difference there sees fewer events than the flux does.

    Hence the two are less alike, up to two independent estimates with a pull of one.
    """
    assert np.sqrt(np.mean(checks[cut].pulls() ** 2)) < 1


def test_flux_of_the_jet_energy_scale() -> None:
    """Jets cross their cut, HT and trijet masses the edges of bins, and the weights of b-tags change."""
    scale = {"scale": ["jet.pt"], "trainable": True, "bounds": [0.95, 1.05], "bandwidth": 0.03}
    loaded = load_config(ROOT / "configs" / "agc.yaml", {"calibrations": {"jet_scale": scale}})
    assert_agreement(checked(loaded, ["jet_scale"])["jet_scale"])


def test_the_jet_energy_scale_is_that_of_the_variation() -> None:
    """Every template at 1.03 is the one of `pt_scale_up` at 1, for which trijets were formed anew."""
    scale = {"scale": ["jet.pt"], "bounds": [0.95, 1.05]}
    loaded = load_config(ROOT / "configs" / "agc.yaml", {"calibrations": {"jet_scale": scale}})
    all_ = all_events(loaded)
    at = arrays(default_thresholds(loaded))
    nominal, scaled = (
        exact.templates_at(all_.analysis, at | arrays({"jet_scale": value}), all_.data).yields for value in (1.0, 1.03)
    )
    varied = 1 + list(loaded.variations).index("pt_scale_up")
    np.testing.assert_allclose(scaled[0], nominal[varied], rtol=1e-3)
    assert np.abs(nominal[varied] / nominal[0] - 1).max() > 0.05


def assert_agreement(check: GradientCheck) -> None:
    pulls = check.pulls()
    assert pulls.size > 50
    assert np.sqrt(np.mean(pulls**2)) < RMS_OF_PULLS
    assert np.abs(pulls).max() < LARGEST_PULL


def test_the_criterion_fails_for_a_broken_flip(monkeypatch) -> None:
    """Let a flipped jet leave the choice of the trijet as it was: the check must notice."""
    all_ = everything()
    as_it_is = {}
    first_trijet = ttbar.first_trijet

    def unmoved(trijets, selected, tagged, *, with_objects):
        if trijets.event is None:
            as_it_is["trijet"] = first_trijet(trijets, selected, tagged, with_objects=with_objects)
            return as_it_is["trijet"]
        return {name: column[trijets.event] for name, column in as_it_is["trijet"].items()}

    monkeypatch.setattr(ttbar, "first_trijet", unmoved)
    jax.clear_caches()
    width = {"jet_pt": all_.config.cuts["jet_pt"].bandwidth}
    broken = check_gradients(all_.analysis, default_thresholds(all_.config), width, with_unit_weights(all_.data))
    pulls = broken["jet_pt"].pulls()
    jax.clear_caches()
    assert np.sqrt(np.mean(pulls**2)) > RMS_OF_PULLS
    assert np.abs(pulls).max() > LARGEST_PULL


@pytest.mark.parametrize("config", [pytest.param("agc.yaml", marks=pytest.mark.long), "agc_precision.yaml"])
def test_the_gradient_obeys_the_chain_rule(config) -> None:
    """jax.value_and_grad through the whole function equals Σ ∂Z/∂N_b · dN_b/dφ from separately computed factors."""
    all_ = everything(config)
    analysis, data = all_.analysis, all_.data
    at, widths = arrays(default_thresholds(all_.config)), default_bandwidths(all_.config)
    whole = jax.value_and_grad(lambda at: exact.loss(analysis, at, widths, data), has_aux=True)
    (value, merit), gradient = whole(at)
    yields, flux = jax.jit(lambda events: yields_and_flux(analysis.events, at, widths, events))(data.events)
    (expected, _), slope = exact.loss_of_yields_and_slope(yields, analysis, data.recipe)
    assert bool(merit.converged)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    evaluation = exact.evaluate(analysis, at, widths, data)
    assert float(evaluation.loss) == float(value)
    for name in at:
        if name in widths:
            # Sums of single precision within a chunk, in another order.
            rounding = 1e-6 * np.vdot(np.abs(slope), np.abs(flux[name][:, :, 0]))
            np.testing.assert_allclose(gradient[name], np.vdot(slope, flux[name][:, :, 0]), atol=rounding)
            np.testing.assert_allclose(evaluation.gradient.value[name], gradient[name], atol=rounding)
            assert np.abs(gradient[name]) > 100 * rounding
        else:
            assert gradient[name] == 0


@pytest.mark.long
def test_slope_of_the_merit_by_yields_equals_finite_differences() -> None:
    """∂Z/∂N_b: the envelope theorem against central differences that fit again at each point."""
    all_ = everything()
    yields = exact.yields_at(all_.analysis, arrays(default_thresholds(all_.config)), all_.data)
    merit = jax.jit(lambda y: exact.loss_of_yields(y, all_.analysis, all_.data.recipe)[0])
    slope = np.asarray(jax.jit(jax.grad(merit))(yields))
    largest = np.argsort(np.abs(np.asarray(yields)[0, :5, :, 0]).ravel())[-10:]
    for entry in largest:
        dataset, b = np.unravel_index(entry, yields[0, :5, :, 0].shape)
        step = 1e-3 * yields[0, dataset, b, 0]
        up, down = (merit(yields.at[0, dataset, b, 0].add(shift)) for shift in (step, -step))
        numeric = (up - down) / (2 * step)
        np.testing.assert_allclose(slope[0, dataset, b, 0], numeric, rtol=1e-4, atol=1e-6 * np.abs(slope).max())
