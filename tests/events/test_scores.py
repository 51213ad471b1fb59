"""Learned variables: values against plain NumPy, derivatives by weights against JAX's own through a smeared histogram,
derivatives by thresholds against finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Analysis, Data
from pipeline.events.batch import Events
from pipeline.events.binning import widths_beside
from pipeline.events.cuts import Cut, ObjectSet, Region, Requirement, Selection, arrays
from pipeline.events.dense import dense_groups
from pipeline.events.devices import summed
from pipeline.events.evaluation import EventAnalysis, Layout
from pipeline.events.flux import kernel_integral
from pipeline.events.scores import Input, Network, Score, standardised
from pipeline.events.smeared import smeared_yields
from pipeline.events.table import list_events, list_inputs
from pipeline.events.yields import hard_yields, weight_gradient, yields_and_flux
from pipeline.validation.gradient_check import check_gradients

from toy import NO_TEMPLATES, RMS_OF_PULLS, Toy, assert_flux_is_the_finite_difference

EDGES = (-0.25, -0.15, -0.05, 0.03, 0.1, 0.17, 0.24, 0.45)
BINS = len(EDGES) - 1
A = 1.0
"""Bandwidth, in widths of the bins beside each edge."""


def make_network(inputs: int, seed: int = 0):
    first, second = jax.random.split(jax.random.key(seed))
    made = eqx.nn.Sequential(
        [eqx.nn.Linear(inputs, 5, key=first), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(5, "scalar", key=second)]
    )
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, made)


INPUTS = (Input(("met",)), Input(("n_jet",)), Input(("pt", "eta"), "jet", 2))
NUMBER = 6
CENTRE = np.array([60, 2, 50, 40, 0, 0], np.float32)
WIDTH = np.array([30, 1, 20, 20, 1, 1], np.float32)


@pytest.fixture(scope="module")
def toy():
    generator = np.random.default_rng(5)
    events, jets = 20_000, 5
    there = np.arange(jets)[:, None] < generator.integers(0, jets + 1, events)
    pt = -np.sort(-generator.exponential(30, (jets, events)) - 20, axis=0)
    eta = generator.normal(0, 1.2, (jets, events))
    columns = {name: np.where(there, values, np.nan).astype(np.float32) for name, values in (("pt", pt), ("eta", eta))}
    met = generator.exponential(50, events).astype(np.float32)
    return Toy({"jet": columns}, {"met": met}, {"jet.pt": (1.0, 1.05)})


def yields_of(case):
    return np.asarray(hard_yields(case.analysis)(case.at, {}, case.events))


def selection_of(cuts, overflow):
    jet_pt = Cut("jet_pt", ("jet",), "pt", "above")
    requirement = (Requirement("jet", 2.0),)
    regions = (Region("SR", requirement, "score", BINS, 0, overflow=overflow),)
    return Selection((ObjectSet("jet", "jet"),), (), (jet_pt, *cuts), regions)


class Analysed:
    """A toy, its analysis and a network."""

    def __init__(self, toy, inputs=INPUTS, cuts=(), overflow=True, chunk=4096):
        number = sum(len(each.names) for each in inputs)
        weights, skeleton = eqx.partition(make_network(number), eqx.is_inexact_array)
        self.score = Score("score", inputs, skeleton)
        centre, width = (CENTRE, WIDTH) if inputs is INPUTS else (np.zeros(number), np.ones(number))
        self.network = Network(
            weights=weights, centre=jnp.asarray(centre, jnp.float32), width=jnp.asarray(width, jnp.float32)
        )
        selection = selection_of(cuts, overflow)
        self.analysis = EventAnalysis(selection, object(), Layout(1, toy.kinematics), (self.score,))
        (groups,) = dense_groups([[toy.sample()]], object(), chunk_size=chunk)
        self.events = Events(groups=groups, edges={"SR": jnp.asarray(EDGES)})
        self.at = {**arrays({"jet_pt": 30.0, "score_cut": 0.1}), "score": self.network}

    def say(self, weights, inputs):
        """The plain formula: raw inputs, shape "inputs events"."""
        scaled = (inputs - self.network.centre[:, None]) / self.network.width[:, None]
        scaled = jnp.where(jnp.isnan(scaled), 0, scaled / (1 + jnp.abs(scaled) / 4))
        return jax.vmap(eqx.combine(weights, self.score.skeleton), in_axes=1)(scaled.astype(jnp.float32))


def inputs_by_hand(toy, threshold, kinematic=0):
    """(inputs, whether there are two jets) event by event, in plain loops."""
    pt = toy.column("jet.pt", kinematic).astype(np.float32)
    eta, met = toy.column("jet.eta"), toy.column("met")
    rows, inside = np.full((NUMBER, pt.shape[1]), np.nan, np.float32), np.zeros(pt.shape[1], bool)
    for event in range(pt.shape[1]):
        jets = [jet for jet in range(len(pt)) if pt[jet, event] > np.float32(threshold)]
        rows[:2, event] = met[event], len(jets)
        for place, jet in enumerate(jets[:2]):
            rows[2 + place, event], rows[4 + place, event] = pt[jet, event], eta[jet, event]
        inside[event] = len(jets) >= 2
    return rows, inside


def test_scores_and_counts_are_those_of_plain_loops(toy):
    case = Analysed(toy)
    yields = yields_of(case)
    for kinematic in range(2):
        inputs, inside = inputs_by_hand(toy, 30.0, kinematic)
        said = np.asarray(case.say(case.network.weights, jnp.asarray(inputs)))
        place = np.clip(np.searchsorted(np.asarray(EDGES, np.float32), said, side="right") - 1, 0, BINS - 1)
        np.testing.assert_array_equal(yields[kinematic, 0, :, 0], np.bincount(place[inside], minlength=BINS))
    listed = list_events(case.analysis, case.at, case.events)
    nominal = listed.kinematic == 0
    order = np.argsort(listed.index[nominal])
    inputs, inside = inputs_by_hand(toy, 30.0)
    said = np.asarray(case.say(case.network.weights, jnp.asarray(inputs)))
    np.testing.assert_allclose(listed.observable[nominal][order][inside], said[inside], atol=1e-6)
    assert np.isnan(listed.observable[nominal][order][~inside]).all()


def test_inputs_are_those_of_plain_loops(toy):
    case = Analysed(toy, chunk=777)
    listed = list_inputs(case.analysis, case.at, case.events, case.score)
    inputs, inside = inputs_by_hand(toy, 30.0)
    np.testing.assert_array_equal(listed.inside[0], listed.inputs[1] >= 2)
    own, by_hand = (rows[:, np.lexsort(np.nan_to_num(rows, nan=-1))] for rows in (listed.inputs, inputs))
    np.testing.assert_array_equal(own, by_hand)
    assert listed.inside[0].sum() == inside.sum()


def test_beyond_the_edges_is_in_the_outer_bins_or_in_none(toy):
    (opened, closed) = (Analysed(toy, overflow=overflow) for overflow in (True, False))
    counts = [yields_of(case)[0, 0, :, 0] for case in (opened, closed)]
    assert (counts[0][1:-1] == counts[1][1:-1]).all()
    assert (counts[0][[0, -1]] >= counts[1][[0, -1]]).all()
    assert counts[0].sum() > counts[1].sum()
    _, inside = inputs_by_hand(toy, 30.0)
    assert counts[0].sum() == inside.sum()


def smeared_by_hand(case, toy, slope, weights, cut=None, absolute=False):
    """Σ slope · yields of histograms smeared with the kernel: JAX differentiates it by itself."""
    edges = jnp.asarray(EDGES)
    widths = A * widths_beside(edges)
    total = 0.0
    for kinematic in range(2):
        inputs, inside = inputs_by_hand(toy, 30.0, kinematic)
        said = case.say(weights, jnp.asarray(inputs[:, inside])).astype(jnp.float64)
        above = kernel_integral(said[None] - edges[:, None], widths[:, None])
        if case.analysis.selection.regions[0].overflow:
            above = above.at[0].set(1).at[-1].set(0)
        shares = above[:-1] - above[1:]
        if cut is not None:
            # Each boundary is smeared by itself, the others are as hard as ever.
            hard = (said[None] >= edges[:, None]).astype(jnp.float64)
            hard = hard.at[0].set(1).at[-1].set(0)
            height = jnp.abs(said) if absolute else said
            passes = jax.lax.stop_gradient(height > 0.1)
            shares = (
                shares * passes.astype(jnp.float64)[None]
                + (hard[:-1] - hard[1:]) * kernel_integral(height - 0.1, jnp.asarray(cut))[None]
            )
        total += jnp.sum(jnp.asarray(slope[kinematic, 0, :, 0])[:, None] * shares)
    return total


def gradient_of(case, bandwidths, slope):
    return summed(weight_gradient, static=(0,))(case.analysis, case.at, arrays(bandwidths), case.events, slope)


def slope_like():
    generator = np.random.default_rng(1)
    slope = np.zeros((2, 1, BINS, 2))
    slope[..., 0] = generator.normal(size=(2, 1, BINS))
    return jnp.asarray(slope)


@pytest.mark.slow
@pytest.mark.parametrize("overflow", [True, False])
def test_the_derivative_by_weights_is_that_of_a_smeared_histogram(toy, overflow):
    case = Analysed(toy, overflow=overflow)
    slope = slope_like()
    halves = gradient_of(case, {"score": A}, slope)["score"]
    expected = jax.grad(lambda weights: smeared_by_hand(case, toy, slope, weights))(case.network.weights)
    for own, reference in zip(jax.tree.leaves(halves), jax.tree.leaves(expected), strict=True):
        assert own.shape == (2, *reference.shape)
        np.testing.assert_allclose(own.sum(axis=0), reference, rtol=2e-4, atol=2e-4 * float(np.abs(reference).max()))


@pytest.mark.slow
@pytest.mark.parametrize("overflow", [True, False])
def test_the_soft_histogram_of_a_score(toy, overflow):
    """The smooth analysis spreads the score over the bins with the kernels that the derivative by weights has."""
    case, slope = Analysed(toy, overflow=overflow), slope_like()
    soft = smeared_yields(case.analysis)(case.at, arrays({"score": A}), case.events)
    expected = smeared_by_hand(case, toy, slope, case.network.weights)
    assert float(jnp.sum(slope * soft)) == pytest.approx(float(expected), rel=1e-5)
    hard = smeared_yields(case.analysis)(case.at, {}, case.events)
    np.testing.assert_allclose(hard, yields_of(case), rtol=1e-12)
    assert np.abs(np.asarray(soft - hard)).max() > 10


@pytest.mark.slow
def test_a_cut_on_the_score_lets_events_flow_through_it_too(toy):
    eta = Cut("jet_eta", ("jet",), "eta", "below", absolute=True)
    case = Analysed(toy, cuts=(eta, Cut("score_cut", ("event",), "score", "above")))
    case.at |= arrays({"jet_eta": 10.0})
    slope, width = slope_like(), 0.2
    halves = gradient_of(case, {"score": A, "score_cut": width}, slope)["score"]
    expected = jax.grad(lambda weights: smeared_by_hand(case, toy, slope, weights, cut=width))(case.network.weights)
    for own, reference in zip(jax.tree.leaves(halves), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(own.sum(axis=0), reference, rtol=5e-4, atol=5e-4 * float(np.abs(reference).max()))
    case.at |= arrays({"jet_eta": 1.8, "score_cut": -0.1})
    data = Data(events=case.events, recipe=NO_TEMPLATES)
    # Few bins lie near the cut.
    (check,) = check_gradients(Analysis(case.analysis, None, None, None), case.at, {"score_cut": 0.05}, data).values()
    assert check.pulls().size >= 4
    assert np.sqrt(np.mean(check.pulls() ** 2)) < 1.5 * RMS_OF_PULLS
    assert_flux_is_the_finite_difference(case.analysis, case.at, {"jet_pt": 2.0, "jet_eta": 0.1}, data)


@pytest.mark.slow
def test_a_cut_on_the_size_of_the_score(toy):
    """Where the score is negative, its size falls when it rises."""
    eta = Cut("jet_eta", ("jet",), "eta", "below", absolute=True)
    case = Analysed(toy, cuts=(eta, Cut("score_cut", ("event",), "score", "above", absolute=True)))
    case.at |= arrays({"jet_eta": 10.0})
    slope, width = slope_like(), 0.05
    halves = gradient_of(case, {"score": A, "score_cut": width}, slope)["score"]
    by_hand = jax.grad(lambda weights: smeared_by_hand(case, toy, slope, weights, width, absolute=True))
    for own, reference in zip(jax.tree.leaves(halves), jax.tree.leaves(by_hand(case.network.weights)), strict=True):
        np.testing.assert_allclose(own.sum(axis=0), reference, rtol=5e-4, atol=5e-4 * float(np.abs(reference).max()))


def test_what_is_infinite_is_at_the_centre_as_what_is_missing(toy):
    network = Analysed(toy).network
    inputs = np.repeat(CENTRE[:, None], 4, axis=1)
    inputs[0, 1:] = np.inf, -np.inf, np.nan
    assert (np.asarray(standardised(network, jnp.asarray(inputs))) == 0).all()


def test_open_cuts_on_scores_bring_events_in(toy):
    """Before there is a network, nothing can be cut on what it says."""
    case = Analysed(toy, cuts=(Cut("score_cut", ("event",), "score", "above"),))
    case.at |= arrays({"score_cut": 1e3})
    assert not list_inputs(case.analysis, case.at, case.events, case.score).inside.any()
    listed = list_inputs(case.analysis, case.at, case.events, case.score, opened=True)
    np.testing.assert_array_equal(listed.inside[0], listed.inputs[1] >= 2)


@pytest.mark.slow
def test_chunks_do_not_matter(toy):
    few, many = Analysed(toy, chunk=20_000), Analysed(toy, chunk=1000)
    slope = slope_like()
    yields = [yields_of(case) for case in (few, many)]
    np.testing.assert_array_equal(*yields)
    gradients = [gradient_of(case, {"score": A}, slope)["score"] for case in (few, many)]
    for first, second in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4 * float(np.abs(first).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "inputs", [INPUTS, (Input(("met",)),)], ids=["inputs that flips change", "inputs that no flip changes"]
)
def test_thresholds_flow_through_the_network(toy, inputs):
    cuts = (Cut("jet_eta", ("jet",), "eta", "below", absolute=True), Cut("met", ("event",), "met", "above"))
    case = Analysed(toy, inputs=inputs, cuts=cuts)
    case.at |= arrays({"jet_eta": 1.8, "met": 30.0 if inputs is INPUTS else 1.0})
    if len(inputs) == 1:
        scale = (jnp.full(1, 60.0, jnp.float32), jnp.full(1, 30.0, jnp.float32))
        case.at["score"] = eqx.tree_at(lambda each: (each.centre, each.width), case.network, scale)
    data = Data(events=case.events, recipe=NO_TEMPLATES)
    # A cut on the only input of a network moves one of its bins only.
    widths = {"jet_pt": 2.0, "jet_eta": 0.1} | ({"met": 5.0} if inputs is INPUTS else {})
    assert_flux_is_the_finite_difference(case.analysis, case.at, widths, data)


@pytest.mark.slow
def test_a_network_without_a_bandwidth_has_no_derivative(toy):
    case = Analysed(toy)
    assert gradient_of(case, {"jet_pt": 4.0}, slope_like()) == {}
    _, flux = yields_and_flux(case.analysis, case.at, arrays({"jet_pt": 4.0}), case.events)
    assert list(flux) == ["jet_pt"]
