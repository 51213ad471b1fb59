"""The forward pass is the hard analysis itself: every histogram against a plain awkward implementation, count by
count."""

import awkward as ak
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.analysis import yields_at
from pipeline.events.cuts import arrays
from pipeline.events.variations import resolution_factors
from pipeline.validation.gradient_check import with_unit_weights

from analysis_data import default_thresholds, everything, file_of, random_thresholds
from reference import agc_selection as twin

EDGES = np.linspace(110.0, 550.0, 12)
POINTS = [None, *range(20)]


def counts(thresholds: dict[str, float]) -> np.ndarray:
    """Integer counts of our analysis, shape (kinematics, datasets, bins)."""
    all_ = everything()
    return np.asarray(yields_at(all_.analysis, arrays(thresholds), with_unit_weights(all_.data)))[..., 0]


def twin_thresholds(thresholds: dict[str, float]) -> twin.Thresholds:
    return twin.Thresholds(**{name.replace("_eta", "_abs_eta"): value for name, value in thresholds.items()})


def twin_counts(events: ak.Array, thresholds: dict[str, float], factor=None) -> np.ndarray:
    regions = twin.select(events, twin_thresholds(thresholds), jet_pt_factor=factor)
    return np.concatenate([twin.histogram(regions[name].observable, 1.0, EDGES)[0] for name in ("4j1b", "4j2b")])


@pytest.fixture(scope="module")
def files() -> list[ak.Array]:
    return [twin.read(file_of(sample)) for sample in everything().samples]


@pytest.mark.parametrize("point", POINTS)
def test_counts_equal_those_of_the_plain_implementation(files, point) -> None:
    config = everything().config
    if point is None:
        thresholds = default_thresholds(config)
    else:
        thresholds = random_thresholds(config, np.random.default_rng(point))
    ours = counts(thresholds)
    for number, events in enumerate(files):
        np.testing.assert_array_equal(ours[0, number], twin_counts(events, thresholds))


@pytest.mark.parametrize("dataset", range(5))
def test_jet_scale_and_resolution_move_the_same_events(files, dataset) -> None:
    all_ = everything()
    thresholds = default_thresholds(all_.config)
    ours = counts(thresholds)
    events = files[dataset]
    with uproot.open(file_of(all_.samples[dataset])) as file:
        numbers = file["Events"]["event"].array(library="np")
    jets = events.Jet
    flat = [ak.to_numpy(ak.flatten(jets[name])) for name in ("eta", "phi")]
    per_jet = np.repeat(numbers, ak.to_numpy(ak.num(jets)))
    factors = ak.unflatten(resolution_factors(per_jet, *flat, width=0.05, seed=all_.config.seed), ak.num(jets))
    np.testing.assert_array_equal(ours[1, dataset], twin_counts(events, thresholds, 1.03))
    np.testing.assert_array_equal(ours[2, dataset], twin_counts(events, thresholds, factors))


def test_alternative_samples_have_nominal_kinematics_only() -> None:
    all_ = everything()
    ours = counts(default_thresholds(all_.config))
    assert np.all(ours[1:, 5:] == 0)
    assert np.all(ours[0].sum(axis=1) > 0)


def test_sums_of_weighted_jet_pt_equal_the_plain_ones(files) -> None:
    all_ = everything()
    at = arrays(default_thresholds(all_.config))
    ours = np.asarray(yields_at(all_.analysis, at, with_unit_weights(all_.data)))[0]
    for number, events in enumerate(files):
        regions = twin.select(events, twin.Thresholds())
        for rank in range(4):
            sums = [twin.histogram(r.observable, r.jet_pt[:, rank], EDGES)[0] for r in regions.values()]
            # float32 sums within a chunk
            np.testing.assert_allclose(ours[number, :, 2 + rank], np.concatenate(sums), rtol=2e-6)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_splitting_the_weights_splits_the_yields(seed) -> None:
    """Yields are linear in the weights: two complementary halves of the events add up to all of them."""
    all_ = everything()
    generator = np.random.default_rng(seed)
    whole = with_unit_weights(all_.data)
    picks = [generator.random(group.weight.shape) < 0.5 for group in whole.events.groups]

    def part(keep: bool):
        groups = tuple(
            eqx.tree_at(lambda g: g.weight, group, jnp.where(pick == keep, group.weight, jnp.float32(0)))
            for group, pick in zip(whole.events.groups, picks, strict=True)
        )
        return eqx.tree_at(lambda d: d.events.groups, whole, groups)

    at = arrays(default_thresholds(all_.config))
    first, second, total = (np.asarray(yields_at(all_.analysis, at, d)) for d in (part(True), part(False), whole))
    np.testing.assert_array_equal(first[..., :2] + second[..., :2], total[..., :2])
