"""Events with NaN and infinite values, from the file to the histogram, against the AGC's own way to choose.

The twin below follows the AGC's processor word by word where NaN matters: masks, NumPy's maximum of three tags, argmax.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from pipeline.analysis import event_table
from pipeline.config import load_config
from pipeline.ingest import InputError, read
from pipeline.ingest.samples import skim
from pipeline.names import names_of
from pipeline.parts import bare_data
from pipeline.translation import default_thresholds, make_analysis
from small_files import write_file

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parent.parent.parent / "configs" / "agc.yaml"
TYPES = {"cutBased": np.int32, "jetId": np.int32, "tightId": np.bool_}


def random_events(events: int, seed: int = 0) -> dict[str, ak.Array]:
    """Branches of events of which most have one electron and four jets or more."""
    generator = np.random.default_rng(seed)
    branches: dict[str, ak.Array] = {"event": ak.Array(np.arange(events, dtype=np.uint64))}
    for collection, counts in {
        "Electron": generator.choice([0, 1, 1, 2], events),
        "Muon": generator.choice([0, 0, 1], events),
        "Jet": generator.integers(3, 8, events),
    }.items():
        total = int(counts.sum())
        columns = {
            "pt": generator.exponential(50, total) + 25,
            "eta": generator.normal(0, 1, total),
            "phi": generator.uniform(-np.pi, np.pi, total),
            "mass": generator.exponential(8, total),
            "btagCSVV2": generator.random(total),
            "sip3d": generator.exponential(1.5, total),
            "pfRelIso04_all": generator.exponential(0.1, total),
            "cutBased": generator.choice([3, 4, 4], total),
            "jetId": generator.choice([2, 6, 6, 6], total),
            "tightId": generator.random(total) < 0.5,
        }
        branches |= {
            f"{collection}_{name}": ak.unflatten(values.astype(TYPES.get(name, np.float32)), counts)
            for name, values in columns.items()
        }
    return branches


def with_values(branches: dict[str, ak.Array], name: str, value: float, share: float, seed: int = 1) -> None:
    """Puts a value into a share of the objects, here and there."""
    flat = ak.to_numpy(ak.flatten(branches[name])).copy()
    flat[np.random.default_rng(seed).random(len(flat)) < share] = value
    branches[name] = ak.unflatten(flat, ak.num(branches[name]))


def by_the_agc(branches: dict[str, ak.Array]) -> dict[int, tuple[str, float]]:
    """Region and observable of each selected event."""

    def objects(collection: str) -> ak.Array:
        names = [name for name in branches if name.startswith(f"{collection}_")]
        return ak.zip({name.removeprefix(f"{collection}_"): branches[name] for name in names})

    e, m, j = objects("Electron"), objects("Muon"), objects("Jet")
    e = e[(e.pt > 30) & (abs(e.eta) < np.float32(2.1)) & (e.cutBased == 4) & (e.sip3d < 4)]
    m = m[(m.pt > 30) & (abs(m.eta) < np.float32(2.1)) & m.tightId & (m.sip3d < 4)]
    m = m[m.pfRelIso04_all < np.float32(0.15)]
    j = j[(j.pt > 30) & (abs(j.eta) < np.float32(2.4)) & ((j.jetId & 4) != 0)]
    tags = ak.sum(j.btagCSVV2 > 0.5, axis=1)
    one = (ak.num(e) + ak.num(m) == 1) & (ak.num(j) >= 4)
    sums = ak.sum(j.pt, axis=1)
    found = {row: ("4j1b", float(sums[row])) for row in np.flatnonzero(one & (tags == 1))}
    rows = np.flatnonzero(one & (tags >= 2))
    a, b, c = ak.unzip(ak.combinations(j[rows], 3))
    keep = np.maximum(a.btagCSVV2, np.maximum(b.btagCSVV2, c.btagCSVV2)) > 0.5
    x, y, z, t = (p(a) + p(b) + p(c) for p in FOUR_MOMENTUM)
    best = ak.argmax(np.hypot(x, y)[keep], axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        mass = np.sqrt(t**2 - x**2 - y**2 - z**2)[keep][best][:, 0]
    return found | {row: ("4j2b", value) for row, value in zip(rows, ak.fill_none(mass, np.nan).tolist(), strict=True)}


def double(values: ak.Array) -> ak.Array:
    return ak.values_astype(values, np.float64)


FOUR_MOMENTUM = (
    lambda jet: double(jet.pt) * np.cos(double(jet.phi)),
    lambda jet: double(jet.pt) * np.sin(double(jet.phi)),
    lambda jet: double(jet.pt) * np.sinh(double(jet.eta)),
    lambda jet: np.hypot(double(jet.pt) * np.cosh(double(jet.eta)), double(jet.mass)),
)


def by_the_pipeline(file: Path) -> dict[int, tuple[str, float]]:
    config = load_config(CONFIG)
    names = names_of(config)
    events = read([file], skim(config, tuple(names.branches.values()))).events
    analysis = make_analysis(config, names, datasets=1)
    found = event_table(analysis, default_thresholds(config), bare_data(config, names, events))
    rows = np.flatnonzero((found.region >= 0) & (found.kinematic == 0))
    regions = list(config.regions)
    return {int(found.index[row]): (regions[found.region[row]], float(found.observable[row])) for row in rows}


VALUES = (
    ("Jet_mass", np.nan),
    ("Jet_btagCSVV2", np.nan),
    ("Jet_btagCSVV2", np.inf),
    ("Jet_eta", np.nan),
    ("Jet_pt", np.nan),
    ("Jet_pt", -40.0),
    ("Electron_sip3d", np.nan),
    ("Muon_pfRelIso04_all", np.nan),
)
BLOCK = 500


@pytest.fixture(scope="module")
def blocks() -> dict[str, ak.Array]:
    """Blocks of events; in each, a share of the objects have one of the values: more of the leptons, which are few."""
    parts = []
    for name, value in VALUES:
        parts.append(random_events(BLOCK))
        with_values(parts[-1], name, value, 0.2 if name.startswith("Jet") else 0.6)
    return {name: ak.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def expected(blocks) -> dict[int, tuple[str, float]]:
    return by_the_agc(blocks)


@pytest.fixture(scope="module")
def clean() -> dict[int, tuple[str, float]]:
    return by_the_agc(random_events(BLOCK))


def test_same_events_and_observables_as_the_agc(blocks, expected, tmp_path_factory):
    found = by_the_pipeline(write_file(tmp_path_factory.mktemp("blocks") / "a.root", blocks))
    rows = sorted(expected)
    assert [found.get(row, ("", 0))[0] for row in rows] == [expected[row][0] for row in rows]
    assert len(found) == len(rows)
    np.testing.assert_allclose([found[row][1] for row in rows], [expected[row][1] for row in rows], rtol=2e-6)


@pytest.mark.parametrize("number", range(len(VALUES)), ids=[f"{name}-{value}" for name, value in VALUES])
def test_the_value_matters(expected, clean, number):
    """Or the comparison above would say nothing about it."""
    block = {row - number * BLOCK: one for row, one in expected.items() if row // BLOCK == number}
    assert len(block) > 25
    assert sum(block.get(row) != clean.get(row) for row in {*block, *clean}) >= 3


@pytest.mark.parametrize(("name", "value"), [("Jet_phi", np.nan), ("Jet_phi", -np.inf), ("Jet_pt", np.inf)])
def test_a_selected_jet_without_a_momentum_is_refused(make_file, name, value):
    branches = random_events(200)
    with_values(branches, name, value, 0.05)
    with pytest.raises(InputError, match=rf"a.root: in entry \d+ '{name}' is -?(nan|inf) for an object that passes"):
        by_the_pipeline(make_file("a.root", branches))
