"""A small analysis of random events: all parts of the real one, nothing of its physics, quick to compile."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from pipeline.analyses import ttbar
from pipeline.analysis import Analysis, Data
from pipeline.event_data import Stream
from pipeline.events.batch import Events
from pipeline.events.cuts import Cut, ObjectSet, Region, Requirement, Selection, Union
from pipeline.events.cuts import arrays as arrays
from pipeline.events.dense import dense_groups
from pipeline.events.evaluation import EventAnalysis, Factor, Layout
from pipeline.events.ragged import Ragged, RaggedSample
from pipeline.events.stream import store_parts
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, skeleton
from pipeline.inference.objectives import Objective
from pipeline.inference.templates import DatasetRole, Variation, make_recipe

SETS = (
    ObjectSet("electron", "electron"),
    ObjectSet("muon", "muon"),
    ObjectSet("jet", "jet"),
    ObjectSet("btag", "jet", within="jet"),
)
LEPTON = Union("lepton", ("electron", "muon"))
ONE_LEPTON = Requirement("lepton", 1.0, 1.0)
FOUR_JETS = Requirement("jet", 4.0)
SELECTION = Selection(
    sets=SETS,
    unions=(LEPTON,),
    cuts=(
        Cut("electron_pt", ("electron",), "pt", "above"),
        Cut("jet_pt", ("jet",), "pt", "above"),
        Cut("jet_btag", ("btag",), "btag", "above"),
        Cut("ht", ("event",), "ht", "above"),
    ),
    regions=(
        Region("CR", (ONE_LEPTON, FOUR_JETS, Requirement("btag", 1.0, 1.0)), "ht", 2, 0),
        Region("SR", (ONE_LEPTON, FOUR_JETS, Requirement("btag", 2.0)), "trijet_mass", 3, 2),
    ),
)
LAYOUT = Layout(datasets=3, kinematics=2, factors=(Factor("pt", "jet", 0),))
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
        Nuisance("luminosity", (0, 1), sizes=(0.03, -0.03)),
    ),
    bounds=(0.0, 10.0),
    minimum_effective_events=5.0,
)
VARIATIONS = (
    Variation("nominal"),
    Variation("scale_up", kinematic=1),
    Variation("tag_up", factors={0: 0.0015}),
    Variation("tag_down", factors={0: -0.0015}),
    Variation("generator"),
)
EDGES = {"CR": jnp.asarray([150.0, 350.0, 900.0]), "SR": jnp.asarray([50.0, 200.0, 350.0, 900.0])}
THRESHOLDS = {"electron_pt": 30.0, "jet_pt": 30.0, "jet_btag": 0.5, "ht": 150.0}
BANDWIDTHS = {"electron_pt": 3.0, "jet_pt": 3.0, "jet_btag": 0.1}


def stored(parts: Sequence[Data], folder: Path) -> Stream:
    """Parts of events on disk."""
    stored = store_parts(lambda number: (parts[number].events.groups, {}), len(parts), folder)
    return Stream(stored, tuple(range(len(parts))), parts[0].edges, parts[0].recipe)


def random_objects(generator: np.random.Generator, counts: np.ndarray) -> dict[str, np.ndarray]:
    total = int(counts.sum())
    flat = {
        "pt": generator.exponential(40, total) + 20,
        "eta": generator.normal(0, 1.2, total),
        "phi": generator.uniform(-np.pi, np.pi, total),
        "mass": generator.exponential(8, total),
        "btag": generator.random(total),
    }
    return {name: column.astype(np.float32) for name, column in flat.items()}


def random_sample(jets: np.ndarray, seed: int = 0, scales: Sequence[float] = (1.0, 1.03)) -> RaggedSample:
    """Events with so many jets each; every other event shares its collision with the one before."""
    generator = np.random.default_rng(seed)
    objects = {}
    for name, chances in (("electron", [0, 1, 1, 1, 2]), ("muon", [0, 0, 0, 1])):
        counts = generator.choice(chances, len(jets))
        objects[name] = Ragged(counts, {"pt": random_objects(generator, counts)["pt"]})
    columns = random_objects(generator, jets)
    columns["pt"] = np.array(scales)[:, None] * columns["pt"].astype(np.float64)
    number = np.arange(len(jets), dtype=np.int32)
    return RaggedSample(
        objects=objects | {"jet": Ragged(jets, columns)},
        columns={"met": generator.exponential(30, len(jets)).astype(np.float32)},
        weight=np.ones(len(jets), np.float32),
        index=number,
        collision=number // 2,
        kinematics=len(scales),
    )


@cache
def small_analysis() -> Analysis:
    structure, _, _ = from_pyhf(skeleton(MEASUREMENT))
    events = EventAnalysis(SELECTION, ttbar, LAYOUT)
    return Analysis(events, MEASUREMENT, structure, Objective("discovery_significance"))


def small_data(events: int = 1500, seed: int = 0, chunk_size: int = 512, devices: int = 1) -> Data:
    """Signal, background, and another simulation of the signal without kinematic variations."""
    generator = np.random.default_rng(seed)
    samples = [
        random_sample(generator.integers(3, 9, events), 3 * seed + number, scales)
        for number, scales in enumerate([(1.0, 1.03), (1.0, 1.03), (1.0,)])
    ]
    (groups,) = dense_groups([samples], ttbar, chunk_size=chunk_size, devices=devices)
    roles = [
        DatasetRole("signal", "nominal", 0.1),
        DatasetRole("background", "nominal", 0.3),
        DatasetRole("signal", "generator", 0.1),
    ]
    recipe = make_recipe(MEASUREMENT.processes, VARIATIONS, LAYOUT.kinematics, roles, len(LAYOUT.factors))
    return Data(events=Events(groups=groups, edges=EDGES), recipe=recipe)
