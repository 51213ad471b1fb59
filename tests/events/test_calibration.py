"""Calibrations: exact for any value, with a right derivative of everything that they move.

Random events; the jet energy scale moves cuts on objects and on events, a variable of objects that the event function
makes, a requirement, missing momentum, observables and weights.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Data
from pipeline.events.batch import Event, Prepared, take_chunk
from pipeline.events.calibration import calibrated
from pipeline.events.calibration_flux import speeds_of
from pipeline.events.cuts import (
    EVENT,
    Calibration,
    Cut,
    MissingMomentum,
    ObjectSet,
    Region,
    Requirement,
    Selection,
    arrays,
)
from pipeline.events.evaluation import EventAnalysis, Factor, Layout, evaluated, point
from pipeline.events.yields import hard_yields

from toy import Toy, assert_flux_is_the_finite_difference, random_collection

EVENTS = 60_000


class Sums:
    """How hard a jet is beside the hardest muon; the sum of all momenta, and a weight that grows with the muon's."""

    def object_variables(self, event, sets):
        hardest = jnp.max(sets["muon"].column("pt", 0.0), axis=0)
        return {"jet": {"share": event.objects["jet"]["pt"] / (20 + hardest)[None]}}

    def variables(self, event, sets):
        total = jnp.sum(sets["hard"].column("pt", 0.0), axis=0) + event.columns["met"]
        return {"total": total, "slant": total - 2 * jnp.max(sets["muon"].column("pt", 0.0), axis=0)}

    def weights(self, event, sets):
        return {"growing": 1 + jnp.max(sets["muon"].column("pt", 0.0), axis=0) / 50}


ANALYSIS = EventAnalysis(
    Selection(
        sets=(ObjectSet("muon", "muon"), ObjectSet("jet", "jet"), ObjectSet("hard", "jet", within="jet")),
        unions=(),
        cuts=(
            Cut("muon_pt", ("muon",), "pt", "inside"),
            Cut("muon_eta", ("muon",), "eta", "below", absolute=True),
            Cut("jet_pt", ("jet",), "pt", "above"),
            Cut("share", ("hard",), "share", "above"),
            Cut("slant", (EVENT,), "slant", "outside", absolute=True, regions=("low",)),
            Cut("met", (EVENT,), "met", "below"),
        ),
        regions=(
            Region("low", (Requirement("jet", 1.0), Requirement("total", 60.0, 140.0)), "slant", 8, 0),
            Region("high", (Requirement("jet", 1.0), Requirement("total", 140.0, None)), "total", 8, 8, overflow=True),
            Region("rest", (Requirement("muon", 1.0),), "n_hard", 3, 16),
        ),
        calibrations=(
            Calibration("jet_scale", (("jet", "pt"),)),
            Calibration("muon_scale", (("muon", "pt"), ("muon", "eta"))),
            Calibration("met_scale", ((EVENT, "met"), (EVENT, "pileup"))),
        ),
        missing_momentum=MissingMomentum("met", "met_phi", ("jet",), 15.0),
    ),
    Sums(),
    Layout(datasets=1, kinematics=2, factors=(Factor("growing"), Factor("pileup"), Factor("pt", "jet", 0))),
)
EDGES = {
    "low": np.array([-150.0, -60.0, -20.0, 0.0, 25.0, 45.0, 65.0, 90.0, 150.0]),
    "high": np.array([140.0, 150.0, 160.0, 172.0, 185.0, 200.0, 220.0, 250.0, 300.0]),
    "rest": np.array([-0.5, 0.5, 1.5, 4.5]),
}
CUTS = {
    "muon_pt.low": 21.0,
    "muon_pt.high": 90.0,
    "muon_eta": 1.6,
    "jet_pt": 27.0,
    "share": 0.6,
    "slant.low": 12.0,
    "slant.high": 55.0,
    "met": 120.0,
}
AT = CUTS | {"jet_scale": 1.02, "muon_scale": 0.98, "met_scale": 1.01}
WIDTHS = {"jet_scale": 0.02, "muon_scale": 0.08, "met_scale": 0.05}  # narrow beside the bins, but with events in it
PLAIN = ANALYSIS._replace(selection=replace(ANALYSIS.selection, calibrations=()))


def toy_of(events: int, scales: dict[str, float]) -> Toy:
    """With columns scaled beforehand, in float32."""
    generator = np.random.default_rng(7)
    objects = {
        "muon": random_collection(generator, events, 2),
        "jet": random_collection(generator, events, 5),
    }
    columns = {
        "met": generator.exponential(40, events),
        "met_phi": generator.uniform(-np.pi, np.pi, events),
        "pileup": generator.normal(1, 0.1, events),
    }
    columns = {name: column.astype(np.float32) for name, column in columns.items()}
    for name, factor in scales.items():
        of, _, variable = name.rpartition(".")
        (objects[of] if of else columns)[variable] *= np.float32(factor)
    return Toy(objects, columns, {"jet.pt": (1.0, 1.1)})


def data_of(events: int, scales: dict[str, float] | None = None) -> Data:
    edges = {name: jnp.asarray(places) for name, places in EDGES.items()}
    return toy_of(events, scales or {}).data(ANALYSIS.function, edges)


def yields_of(analysis: EventAnalysis, thresholds: dict[str, float], data: Data) -> np.ndarray:
    return np.asarray(jax.jit(hard_yields(analysis))(arrays(thresholds), {}, data.events))[:, 0]


@pytest.fixture(scope="module")
def data() -> Data:
    return data_of(EVENTS)


def test_at_one_nothing_changes(data):
    still = dict.fromkeys(WIDTHS, 1.0)
    np.testing.assert_array_equal(yields_of(ANALYSIS, CUTS | still, data), yields_of(PLAIN, CUTS, data))


def test_yields_are_those_of_columns_that_were_scaled_before(data):
    """Without missing momentum, which follows jets only where they are calibrated."""
    analysis = ANALYSIS._replace(selection=replace(ANALYSIS.selection, missing_momentum=None))
    scaled = data_of(EVENTS, {"jet.pt": 1.02, "muon.pt": 0.98, "muon.eta": 0.98, "met": 1.01, "pileup": 1.01})
    calibrated, expected = yields_of(analysis, AT, data), yields_of(PLAIN, CUTS, scaled)
    assert expected[..., 0].min(axis=0).mean() > 100
    # A number on the other side of a threshold by rounding: of a varied column, whose scale comes after rounding here.
    np.testing.assert_allclose(calibrated[..., 0], expected[..., 0], atol=2)
    np.testing.assert_allclose(calibrated[0], expected[0], rtol=2e-3)
    assert np.abs(calibrated[..., 0] - yields_of(PLAIN, CUTS, data)[..., 0]).max() > 20


def test_missing_momentum_takes_what_the_jets_lose():
    """Against complex numbers; a soft jet and an absent one do not count."""
    pt, phi = np.array([[40.0], [12.0], [np.nan]], np.float32), np.array([[0.3], [2.0], [np.nan]], np.float32)
    number = jnp.zeros((), jnp.int32)
    event = Event(
        objects={
            "jet": {"pt": jnp.asarray(pt), "phi": jnp.asarray(phi)},
            "muon": {"pt": jnp.asarray(pt), "eta": jnp.asarray(phi)},
        },
        columns={"met": jnp.asarray([30.0], jnp.float32), "met_phi": jnp.asarray([-1.0], jnp.float32)},
        weight=jnp.ones(1, jnp.float32),
        collision=jnp.zeros(1, jnp.int32),
        prepared=Prepared(table={}, first=number, rows=number),
    )
    after = calibrated(ANALYSIS.selection, arrays({"jet_scale": 1.1, "muon_scale": 1.0, "met_scale": 1.0}), event)
    expected = 30 * np.exp(-1j) - 4 * np.exp(0.3j)
    assert float(after.columns["met"][0]) == pytest.approx(abs(expected), rel=1e-6)
    assert float(after.columns["met_phi"][0]) == pytest.approx(np.angle(expected), rel=1e-6)
    np.testing.assert_array_equal(after.before.objects["jet"]["pt"], pt)


@pytest.mark.parametrize("value", [1.0, 1.02])
def test_speeds_are_those_of_each_event(value):
    """Where no set changes within the step, and met is not so small that it turns; at 1 nothing has been gained yet."""
    step, (group,) = 1e-3, data_of(2_000).events.groups[:1]
    edges = {name: jnp.asarray(places) for name, places in EDGES.items()}

    @jax.jit
    def described(value):
        at = arrays(AT) | {"jet_scale": value}
        here = point(ANALYSIS, at, arrays(WIDTHS), edges)
        event = calibrated(ANALYSIS.selection, at, take_chunk(group, jnp.int32(0), jnp.int32(len(group.weight) // 2)))
        hard = evaluated(here, event)
        speeds = speeds_of(here, ANALYSIS.selection.calibrations[0], event)
        return hard.variables, hard.bits, speeds.variables

    below, here, above = (described(jnp.asarray(value + shift)) for shift in (-step, 0.0, step))
    same = np.all([below[1][name] == above[1][name] for name in here[1]], axis=0)
    same &= np.asarray(here[0]["met"]) > 20
    for name in ("total", "slant", "met", "met_phi"):
        difference = (np.asarray(above[0][name], float) - np.asarray(below[0][name], float))[same] / (2 * step)
        assert np.std(difference) > 0.5
        np.testing.assert_allclose(here[2][name][same], difference, atol=0.05 * np.std(difference))


@pytest.mark.slow
@pytest.mark.parametrize("at", [{}, dict.fromkeys(WIDTHS, 1.0)], ids=["elsewhere", "at one"])
def test_flux_is_the_finite_difference(data, at):
    assert_flux_is_the_finite_difference(ANALYSIS, AT | at, WIDTHS, data)


@pytest.mark.slow
def test_thresholds_have_the_derivative_that_they_have_without_calibrations():
    """With columns that were scaled before."""
    analysis = ANALYSIS._replace(selection=replace(ANALYSIS.selection, missing_momentum=None))
    scales = {"jet.pt": 1.02, "muon.pt": 0.98, "muon.eta": 0.98, "met": 1.01, "pileup": 1.01}
    widths = arrays({"jet_pt": 4.0, "share": 0.1, "met": 20.0})

    def slopes(analysis: EventAnalysis, at: dict[str, float], data: Data) -> np.ndarray:
        events, moving = data.events, {name: jnp.asarray(at[name]) for name in widths}
        function = hard_yields(analysis)
        by_name = jax.jacfwd(lambda moving: function(arrays(at) | moving, widths, events))(moving)
        return np.stack([np.asarray(own)[0, 0, :, 0] for own in by_name.values()])

    ours, expected = slopes(analysis, AT, data_of(5_000)), slopes(PLAIN, CUTS, data_of(5_000, scales))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
