"""The guest analyses, which prove that the engine is general: every template equals that of an independent twin.

Counts are compared integer by integer, sums of weights within the rounding of float32, at the thresholds of the config
and at random ones within their bounds; the derivatives of all yields with finite differences of the exact histograms.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pipeline.analysis import Analysis, Data, templates_at, yields_at
from pipeline.config import Config, load_config
from pipeline.events.cuts import arrays
from pipeline.ingest.samples import wanted_datasets
from pipeline.problem import whole
from pipeline.ragged import kinematics
from pipeline.validation.gradient_check import check_gradients, with_unit_weights

sys.path.insert(0, str(Path(__file__).parent))
import twins

ROOT = Path(__file__).parents[2]
GUESTS = tuple(twins.GUESTS)
QUICK = [pytest.param(name, marks=() if name == "flat_table" else pytest.mark.slow) for name in GUESTS]
"""Those with objects take a minute each to compile."""
DERIVATIVES = [
    pytest.param(name, marks={"flat_table": (), "four_leptons": pytest.mark.slow}.get(name, pytest.mark.long))
    for name in GUESTS
]


@dataclass(frozen=True)
class Guest:
    """A guest analysis with all of its events."""

    name: str
    config: Config
    analysis: Analysis
    data: Data
    counted: Data
    """The same events, each with weight 1."""


@cache
def guest(name: str) -> Guest:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    analysis, _, data = whole(config)
    return Guest(name, config, analysis, data, with_unit_weights(data))


def default_thresholds(config: Config) -> dict[str, float]:
    return {name: threshold.threshold for name, threshold in config.thresholds.items()}


def random_thresholds(config: Config, seed: int) -> dict[str, float]:
    """Within the bounds of those that are trainable; the two sides of a window in their order."""
    rng = np.random.default_rng(seed)
    drawn = {n: rng.uniform(*t.bounds) for n, t in config.thresholds.items() if t.trainable}
    for names, _ in config.rising:
        drawn |= dict(zip(names, sorted(drawn[name] for name in names), strict=True))
    return default_thresholds(config) | drawn


CROWDED = {
    "dilepton": {"lepton_pt": 27, "jet_pt": 30, "jet_btag": 0.5, "met": 40, "z_veto.low": 65, "z_veto.high": 105},
    "four_leptons": {
        "electron_pt": 10,
        "muon_pt": 9,
        "leading_pt": 30,
        "second_pt": 20,
        "mz1.low": 70,
        "mz1.high": 93,
        "mz2.low": 22,
        "mz2.high": 45,
    },
    "zprime": {
        "muon_pt": 65,
        "fatjet_pt": 500,
        "fatjet_score": 0.3,
        "jet_distance": 1.9,
        "jet_btag": 0.5,
        "met": 60,
        "lepton_ht": 170,
    },
    "flat_table": {"pt": 25, "score": 0.4, "angle": 1.2},
}
"""Thresholds with many events on both sides, so that a finite difference says something."""


def assert_equal_to_the_twin(name: str, thresholds: dict[str, float], variations: tuple[str, ...]) -> int:
    """Every template of these variations; returns how many events were compared."""
    of = guest(name)
    counts = np.asarray(yields_at(of.analysis, arrays(thresholds), of.counted))[..., 0]
    templates = np.asarray(templates_at(of.analysis, arrays(thresholds), of.data).yields)
    regions = {
        region.name: slice(region.offset, region.offset + region.bins) for region in of.analysis.selection.regions
    }
    compared = 0
    for variation in variations:
        for (region, process), expected in twins.yields(name, thresholds, variation).items():
            label = f"{name}, {region}, {process}, {variation}, at {thresholds}"
            found = counts[*place_of_counts(of.config, process, variation), regions[region]]
            np.testing.assert_array_equal(found, expected.count, err_msg=label)
            row, column = ["nominal", *of.config.variations].index(variation), list(of.config.processes).index(process)
            weights = templates[row, column, regions[region]]
            # The engine adds up in float32 within a chunk: the bound for a sum of so many terms, a few roundings each.
            bound = (expected.count + 4) * 2.0**-24 * expected.size
            assert np.all(np.abs(weights - expected.weight) <= bound), label
            compared += int(expected.count.sum())
    return compared


def place_of_counts(config: Config, process: str, variation: str) -> tuple[int, int]:
    """Number of the kinematic variation and of the data set behind a template."""
    kinematic = ["nominal", *kinematics(config)]
    datasets = wanted_datasets(config)
    dataset = (process, variation) if (process, variation) in datasets else (process, "nominal")
    return kinematic.index(variation) if variation in kinematic else 0, datasets.index(dataset)


@pytest.mark.parametrize("name", QUICK)
def test_every_template_equals_the_twin(name):
    variations = ("nominal", *guest(name).config.variations)
    assert set(variations[1:]) == set(twins.GUESTS[name].variations)
    assert assert_equal_to_the_twin(name, default_thresholds(guest(name).config), variations) > 5_000


@pytest.mark.parametrize("name", QUICK)
def test_templates_equal_the_twin_at_random_thresholds(name):
    """One varied template, another one each time, besides the nominal one."""
    variations = tuple(guest(name).config.variations)
    for seed in range(3):
        at = random_thresholds(guest(name).config, seed)
        assert_equal_to_the_twin(name, at, ("nominal", variations[seed % len(variations)]))


@pytest.mark.long
@pytest.mark.parametrize("name", GUESTS)
def test_every_template_equals_the_twin_at_twenty_random_thresholds(name):
    variations = ("nominal", *guest(name).config.variations)
    compared = [
        assert_equal_to_the_twin(name, random_thresholds(guest(name).config, 100 + n), variations) for n in range(20)
    ]
    assert min(compared) >= 0
    assert sum(compared) > 20_000


@pytest.mark.parametrize("name", DERIVATIVES)
def test_every_derivative_is_that_of_the_exact_histograms(name):
    """Of all counts, for every bin, data set and kinematic variation, and of the factors of weight variations."""
    of = guest(name)
    bandwidths = {n: t.bandwidth for n, t in of.config.thresholds.items() if t.trainable and t.bandwidth}
    assert set(bandwidths) == {n for n, t in of.config.thresholds.items() if t.trainable}
    checks = check_gradients(
        of.analysis,
        default_thresholds(of.config) | {n: float(value) for n, value in CROWDED[name].items()},
        bandwidths,
        of.counted,
    )
    for threshold, check in checks.items():
        pulls = check.pulls()
        assert len(pulls) > 10, threshold
        assert np.sqrt(np.mean(pulls**2)) < 0.5, threshold
