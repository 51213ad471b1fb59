"""A small analysis of random events: all parts of the real one, nothing of its physics, quick to compile."""

from collections.abc import Sequence
from functools import cache

import awkward as ak
import jax.numpy as jnp
import numpy as np
from pipeline.analysis import Analysis, Data
from pipeline.events.cuts import Count, Cut, Region, Selection
from pipeline.events.dense import RaggedSample, dense_groups
from pipeline.events.yields import Layout
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, skeleton
from pipeline.inference.objectives import Objective
from pipeline.inference.templates import DatasetRole, make_recipe

SELECTION = Selection(
    cuts=(
        Cut("electron_pt", ("electron",), "pt", "above"),
        Cut("jet_pt", ("jet",), "pt", "above"),
        Cut("jet_btag", ("bjet",), "btag", "above"),
        Cut("ht", ("event",), "ht", "above"),
    ),
    leptons=Count(1, 1),
    regions=(
        Region("CR", Count(4), Count(1, 1), "ht", 2, 0),
        Region("SR", Count(4), Count(2), "trijet_mass", 3, 2),
    ),
)
LAYOUT = Layout(datasets=3, kinematics=2, ranks=1)
MEASUREMENT = Measurement(
    name="small",
    poi="mu",
    channels=(Channel("CR", 2, 0), Channel("SR", 3, 2)),
    processes=("signal", "background"),
    free=(("mu", 0),),
    nuisances=(
        Nuisance("jet scale", (0, 1), up=1),
        Nuisance("tagging", (0, 1), up=2, down=3),
        Nuisance("generator", (0,), up=4),
        Nuisance("luminosity", (0, 1), size=0.03),
    ),
    bounds=(0.0, 10.0),
    minimum_effective_events=5.0,
)
VARIATIONS = ("nominal", "scale_up", "tag_up", "tag_down", "generator")
THRESHOLDS = {"electron_pt": 30.0, "jet_pt": 30.0, "jet_btag": 0.5, "ht": 150.0}
BANDWIDTHS = {"electron_pt": 3.0, "jet_pt": 3.0, "jet_btag": 0.1}


def arrays(values: dict[str, float]) -> dict[str, jnp.ndarray]:
    return {name: jnp.asarray(value, jnp.float64) for name, value in values.items()}


def random_objects(generator: np.random.Generator, counts: np.ndarray) -> ak.Array:
    total = int(counts.sum())
    flat = {
        "pt": generator.exponential(40, total) + 20,
        "eta": generator.normal(0, 1.2, total),
        "phi": generator.uniform(-np.pi, np.pi, total),
        "mass": generator.exponential(8, total),
        "btag": generator.random(total),
    }
    return ak.unflatten(ak.zip({name: column.astype(np.float32) for name, column in flat.items()}), counts)


def random_sample(jets: np.ndarray, seed: int = 0, scales: Sequence[float] = (1.0, 1.03)) -> RaggedSample:
    """Events with so many jets each; every other event shares its collision with the one before."""
    generator = np.random.default_rng(seed)
    objects = {
        "electron": random_objects(generator, generator.choice([0, 1, 1, 1, 2], len(jets)))[["pt"]],
        "muon": random_objects(generator, generator.choice([0, 0, 0, 1], len(jets)))[["pt"]],
        "jet": random_objects(generator, jets),
    }
    number = np.arange(len(jets))
    events = ak.zip(objects | {"index": number, "collision": number // 2}, depth_limit=1)
    pt = ak.values_astype(events.jet.pt, np.float64)
    return RaggedSample(
        name=f"sample {seed}",
        events=events,
        jet_pt=[scale * pt for scale in scales],
        weight=np.ones(len(jets), np.float32),
        variables={"met": generator.exponential(30, len(jets)).astype(np.float32)},
    )


@cache
def small_analysis() -> Analysis:
    structure, _, _ = from_pyhf(skeleton(MEASUREMENT))
    return Analysis(SELECTION, LAYOUT, MEASUREMENT, structure, Objective("discovery_significance"))


def small_data(events: int = 1500, seed: int = 0, chunk_size: int = 512) -> Data:
    """Signal, background, and another simulation of the signal without kinematic variations."""
    generator = np.random.default_rng(seed)
    samples = [
        random_sample(generator.integers(3, 9, events), 3 * seed + number, scales)
        for number, scales in enumerate([(1.0, 1.03), (1.0, 1.03), (1.0,)])
    ]
    ((groups, candidates),) = dense_groups([samples], chunk_size=chunk_size)
    roles = [
        DatasetRole("signal", "nominal", 0.1),
        DatasetRole("background", "nominal", 0.3),
        DatasetRole("signal", "generator", 0.1),
    ]
    slopes = {"tag_up": (0, 0.0015), "tag_down": (0, -0.0015)}
    recipe = make_recipe(MEASUREMENT.processes, VARIATIONS, ("nominal", "scale_up"), roles, slopes, {}, LAYOUT.ranks)
    edges = {"CR": jnp.asarray([150.0, 350.0, 900.0]), "SR": jnp.asarray([50.0, 200.0, 350.0, 900.0])}
    return Data(groups=groups, candidates=candidates, recipe=recipe, edges=edges)
