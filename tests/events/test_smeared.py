"""The expectation over smeared thresholds: against the hard analysis of smeared events, and against its own slope."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analyses import ttbar
from pipeline.analysis import Data
from pipeline.events.batch import Events
from pipeline.events.cuts import Cut, Region, Requirement, Selection, arrays, pass_probability
from pipeline.events.evaluation import EventAnalysis
from pipeline.events.flux import for_each, kernel, kernel_integral
from pipeline.events.smeared import outcomes_per_event, smeared_yields
from pipeline.events.yields import hard_yields, yields_and_flux

from reference.compiling import quick_jit
from small_analysis import LAYOUT, SELECTION, small_data

# Cuts on columns that are nothing but cut on: moving an object's value is then the same as moving its threshold.
SMEARABLE = replace(
    SELECTION,
    cuts=(
        Cut("lepton_pt", ("electron", "muon"), "pt", "above"),
        Cut("jet_eta", ("jet",), "eta", "below", absolute=True),
        Cut("jet_btag", ("btag",), "btag", "above"),
        Cut("met", ("event",), "met", "above", regions=("SR",)),
    ),
)
AT = {"lepton_pt": 40.0, "jet_eta": 1.2, "jet_btag": 0.5, "met": 20.0}
WIDTHS = {"lepton_pt": 15.0, "jet_eta": 0.3, "jet_btag": 0.2, "met": 10.0}

EDGES = ("SR.edge_0", "SR.edge_1", "SR.edge_2", "SR.edge_3")
MOVING = replace(
    SMEARABLE,
    cuts=(*SMEARABLE.cuts, Cut("jet_pt", ("jet",), "pt", "above"), Cut("ht", ("event",), "ht", "above")),
    regions=(
        replace(SMEARABLE.regions[0], edges=("CR.start", "CR.stop")),
        replace(SMEARABLE.regions[1], edges=EDGES),
    ),
)
EVERY_AT = AT | {"jet_pt": 31.7, "ht": 203.1, "CR.start": 151.3, "CR.stop": 888.8}
EVERY_AT |= dict(zip(EDGES, [101.1, 199.2, 301.3, 453.4], strict=True))
EVERY_WIDTH = WIDTHS | {"jet_pt": 2.0, "ht": 30.0, "CR.start": 40.0, "CR.stop": 40.0} | dict.fromkeys(EDGES, 30.0)


@cache
def events() -> Data:
    return small_data(events=500, seed=7)


@cache
def compiled(function, selection: Selection):
    """(thresholds, bandwidths, data) to what the function makes of the selection."""
    return quick_jit(lambda *args: function(EventAnalysis(selection, ttbar, LAYOUT), *args))


def slopes_of(analysis, at, widths, events):
    """Yields, and their derivative by each threshold that has a bandwidth, as JAX makes it."""
    moving = {name: at[name] for name in widths}
    slopes = jax.jacfwd(lambda moving: smeared_of(analysis, at | moving, widths, events))(moving)
    return smeared_of(analysis, at, widths, events), slopes


def smeared_of(analysis, at, widths, events):
    return smeared_yields(analysis)(at, widths, events)


def hard_of(analysis, at, widths, events):
    return hard_yields(analysis)(at, widths, events)


def flux_of(analysis, at, widths, events):
    yields, flux = yields_and_flux(analysis, at, widths, events)
    return yields, {name: each.sum(axis=2) for name, each in flux.items()}


def found(function, selection, at, widths, data=None):
    result = compiled(function, selection)(arrays(at), arrays(widths), (data or events()).events)
    return jax.tree.map(np.asarray, result)


# --- The pieces -------------------------------------------------------------------------------------------------------


def test_the_integral_of_the_kernel_is_one_and_its_derivative_the_kernel():
    distance, width = jnp.linspace(-2.0, 2.0, 1001), jnp.asarray(0.7)
    slope = jax.vmap(jax.grad(kernel_integral), in_axes=(0, None))(distance, width)
    np.testing.assert_allclose(slope, kernel(distance, width), atol=1e-12)
    ends = kernel_integral(jnp.asarray([-jnp.inf, -0.7, 0.0, 0.7, jnp.inf, jnp.nan]), width)
    assert ends.tolist() == [0, 0, 0.5, 1, 1, 0]


@pytest.mark.parametrize("keep", ["above", "below"])
def test_far_from_the_threshold_a_smeared_cut_is_the_hard_one(keep):
    cut, columns = Cut("cut", ("jet",), "x", keep), {"x": jnp.asarray([[28.9], [31.1], [30.0], [jnp.nan]], jnp.float32)}
    probability = pass_probability(cut, arrays({"cut": 30.0}), arrays({"cut": 1.0}), columns)[:, 0]
    assert probability.tolist() == ([0, 1, 0.5, 0] if keep == "above" else [1, 0, 0.5, 0])
    sharp = pass_probability(cut, arrays({"cut": 30.0}), {}, columns)[:, 0]
    assert sharp.tolist() == ([0, 1, 0, 0] if keep == "above" else [1, 0, 0, 0])


@pytest.mark.parametrize("keep", ["inside", "outside"])
def test_the_sides_of_a_window_are_smeared_independently(keep):
    """Against thresholds drawn from their kernels, of which the upper one may be below the lower one."""
    at, width = {"cut.low": 30.0, "cut.high": 31.0}, {"cut.low": 2.0, "cut.high": 1.0}
    values = np.linspace(27, 34, 15)
    columns = {"x": jnp.asarray(values[:, None], jnp.float32)}
    cut = Cut("cut", ("jet",), "x", keep)
    probability = pass_probability(cut, arrays(at), arrays(width), columns)[:, 0]
    draws = np.sort(np.random.default_rng(0).uniform(-1, 1, (3, 2, 200_000)), axis=0)[1]
    low, high = (at[name] + width[name] * draw for name, draw in zip(at, draws, strict=True))
    passing = (lambda x: (x > low) & (x < high)) if keep == "inside" else (lambda x: (x < low) | (x > high))
    np.testing.assert_allclose(probability, [passing(x).mean() for x in values], atol=4 * 0.5 / np.sqrt(200_000))
    assert 0.1 < probability[7] < 0.9


def test_every_item_is_visited_once_even_if_one_event_has_most():
    count = np.random.default_rng(0).integers(0, 4, 300)
    count[17] = 2500

    def visit(event, number, real, seen):
        return seen.at[event, number].add(real.astype(jnp.int32))

    seen = quick_jit(lambda count: for_each(count, visit, jnp.zeros((300, 2500), jnp.int32)))(jnp.asarray(count))
    np.testing.assert_array_equal(seen, np.arange(2500)[None] < count[:, None])


# --- The expectation --------------------------------------------------------------------------------------------------


def cut_on(group):
    of = group.objects
    return of["electron"]["pt"], of["muon"]["pt"], of["jet"]["eta"], of["jet"]["btag"], group.columns["met"]


def smeared_events(data: Data, generator: np.random.Generator) -> Data:
    """Every value that is cut on, moved by a number from the kernel: the median of three uniform ones."""

    def moved(column, width: float):
        numbers = np.sort(generator.uniform(-1, 1, (3, *column.shape)), axis=0)[1]
        return column + jnp.asarray(width * numbers, jnp.float32)

    def moved_group(group):
        widths = [WIDTHS[name] for name in ("lepton_pt", "lepton_pt", "jet_eta", "jet_btag", "met")]
        return eqx.tree_at(cut_on, group, [moved(*each) for each in zip(cut_on(group), widths, strict=True)])

    return eqx.tree_at(lambda each: each.events.groups, data, tuple(map(moved_group, data.events.groups)))


@pytest.mark.slow
def test_it_is_the_mean_of_the_hard_analysis_of_smeared_events():
    generator = np.random.default_rng(3)
    hard = np.stack([found(hard_of, SMEARABLE, AT, {}, smeared_events(events(), generator)) for _ in range(300)])
    smeared = found(smeared_of, SMEARABLE, AT, WIDTHS)
    error = hard.std(axis=0, ddof=1) / np.sqrt(len(hard))
    filled = error > 0
    pulls = (hard.mean(axis=0) - smeared)[filled] / error[filled]
    assert pulls.size > 60
    assert np.abs(pulls).max() < 4
    assert np.sqrt(np.mean(pulls**2)) < 1.3
    # The test can tell: the hard analysis of the events as they are is another one.
    unsmeared = found(hard_of, SMEARABLE, AT, {})
    assert np.abs((unsmeared - smeared)[filled] / error[filled]).max() > 10


@pytest.mark.slow
def test_narrow_kernels_give_the_hard_yields():
    """Counts to the last bit; sums of pt are added in another precision."""
    hard = found(hard_of, MOVING, EVERY_AT, {})
    narrow = {name: 1e-9 * width for name, width in EVERY_WIDTH.items()}
    for widths in (narrow, {name: narrow[name] for name in ("jet_btag", *EDGES)}):
        smeared = found(smeared_of, MOVING, EVERY_AT, widths)
        np.testing.assert_array_equal(smeared[..., :2], hard[..., :2])
        np.testing.assert_allclose(smeared, hard, rtol=2e-6)
    assert hard[..., 0].min(axis=(0, 1, 2)) >= 0
    assert np.abs(found(smeared_of, MOVING, EVERY_AT, EVERY_WIDTH) - hard)[..., 0].max() > 0.5


@pytest.mark.slow
def test_the_probabilities_of_all_outcomes_add_up_to_one():
    """Regions that hold every event, whatever becomes of its jets: nothing is lost, and nothing changes."""
    tags = {"none": (0.0, 0.0), "one": (1.0, 1.0), "more": (2.0, None)}
    regions = tuple(
        Region(name, (Requirement("btag", *ends),), "ht", 1, number) for number, (name, ends) in enumerate(tags.items())
    )
    whole = replace(SMEARABLE, cuts=SMEARABLE.cuts[:3], regions=regions)
    edges = {name: jnp.asarray([0.0, 1e9]) for name in tags}
    data = Data(events=Events(groups=events().events.groups, edges=edges), recipe=events().recipe)
    at, widths = ({name: values[name] for name in list(AT)[:3]} for values in (AT, WIDTHS))
    yields, slopes = found(slopes_of, whole, at, widths, data)
    counted = yields[..., 0].sum(axis=2)
    np.testing.assert_allclose(counted, [[500, 500, 500], [500, 500, 0]], rtol=1e-12)
    assert np.abs(slopes["jet_btag"][..., 0]).max() > 10
    for slope in slopes.values():
        np.testing.assert_allclose(slope[..., 0].sum(axis=2), 0, atol=1e-9)


# --- The derivative ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EVERY_AT))
def test_slopes_are_those_of_the_smeared_yields(name):
    """Central differences of every bin and column, in float64: the kernel is a polynomial, so little is left."""
    _, slopes = found(slopes_of, MOVING, EVERY_AT, EVERY_WIDTH)
    step = 1e-5 * EVERY_WIDTH[name]
    up, down = (
        found(smeared_of, MOVING, EVERY_AT | {name: EVERY_AT[name] + shift}, EVERY_WIDTH) for shift in (step, -step)
    )
    scale = np.abs(slopes[name]).max(axis=(0, 1, 2))
    assert np.all(scale > 0)
    assert (np.abs((up - down) / (2 * step) - slopes[name]) / scale).max() < 1e-6


@pytest.mark.slow
def test_reverse_mode_gives_the_same():
    yields, slopes = found(slopes_of, SMEARABLE, AT, WIDTHS)
    weights = np.random.default_rng(0).normal(size=yields.shape)

    def total(analysis, at, widths, events):
        return jnp.vdot(jnp.asarray(weights), smeared_of(analysis, at, widths, events))

    value, gradient = found(jax.value_and_grad(total, argnums=1), SMEARABLE, AT, WIDTHS)
    np.testing.assert_allclose(value, np.vdot(weights, yields), rtol=1e-12)
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradient[name], np.vdot(weights, slope), rtol=1e-9)


@pytest.mark.slow
def test_to_first_order_the_slopes_are_the_boundary_flux():
    """Where one object alone is near a threshold both count the same flips.

    Of the events at a threshold a share that falls with the bandwidth has a second object there: the two differ by a
    random sum over these, which falls with its square root.
    """
    differences = []
    for scale in (0.4, 0.025):
        widths = {name: scale * width for name, width in EVERY_WIDTH.items()}
        slopes, flux = (
            np.stack([widths[name] * derivative[name][..., 0] for name in widths])
            for _, derivative in (found(function, MOVING, EVERY_AT, widths) for function in (slopes_of, flux_of))
        )
        differences.append(np.linalg.norm(slopes - flux) / np.linalg.norm(flux))
    assert differences[1] < 0.15
    assert differences[1] < 0.5 * differences[0]


# --- The cost ---------------------------------------------------------------------------------------------------------


def test_outcomes_are_the_subsets_of_uncertain_objects():
    """Nominal and varied events of every data set, object by object in NumPy; only a jet can be a b-tag."""
    total, number = 0, 0
    for group in events().events.groups:
        for kinematic, chunk in zip(group.task_kinematic, group.task_chunk, strict=True):
            jets = {name: np.asarray(column[chunk], np.float64) for name, column in group.objects["jet"].items()}
            there = ~np.isnan(np.asarray(group.varied_objects["jet"]["pt"][kinematic, chunk]))
            # In bandwidths from the threshold: below −1 out for certain, above 1 in for certain.
            distance = {
                name: (np.asarray(group.objects[name]["pt"][chunk]) - AT["lepton_pt"]) / WIDTHS["lepton_pt"]
                for name in ("electron", "muon")
            }
            distance["jet"] = np.where(there, (AT["jet_eta"] - np.abs(jets["eta"])) / WIDTHS["jet_eta"], -np.inf)
            tag = (jets["btag"] - AT["jet_btag"]) / WIDTHS["jet_btag"]
            distance["btag"] = np.where(distance["jet"] > -1, tag, -np.inf)
            uncertain = sum(np.sum(np.abs(each) < 1, axis=0) for each in distance.values())
            most = {name: np.sum(each > -1, axis=0) for name, each in distance.items()}
            least = {name: np.sum(each >= 1, axis=0) for name, each in distance.items()}
            least["btag"] = np.sum((distance["btag"] >= 1) & (distance["jet"] >= 1), axis=0)
            tags = ((most["btag"] >= 1) & (least["btag"] <= 1)) | (most["btag"] >= 2)
            leptons = (most["electron"] + most["muon"] >= 1) & (least["electron"] + least["muon"] <= 1)
            possible = leptons & (most["jet"] >= 4) & tags & (np.asarray(group.weight[chunk]) != 0)
            total += np.sum(2 ** uncertain[possible])
            number += np.count_nonzero(group.weight[chunk])
    assert total > 2 * number
    assert found(outcomes_per_event, SMEARABLE, AT, WIDTHS) == total / number
