"""The guest analyses once more, with hard cuts in awkward, vector and NumPy, event by event from the files.

An independent truth: nothing here imports the package, and cuts, regions, bins, variations and cross sections are
written out again. Where the package computes with 32 bits by definition (comparisons, bins), so does this.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
import vector
import yaml

__all__ = ["GUESTS", "Guest", "Selected", "Yields", "yields"]

vector.register_awkward()

ROOT = Path(__file__).parents[2]
Z_MASS = 91.1876
MASSES = {"Electron": 0.000511, "Muon": 0.10566}

Cuts = Mapping[str, float]


@dataclass(frozen=True)
class Selected:
    """The events of one region: their rows, observable, and the factor that a weight variation gives them."""

    row: np.ndarray
    observable: np.ndarray
    factor: np.ndarray


@dataclass(frozen=True)
class Yields:
    """Of one process in one region, by bin: number of events, sum of their weights, and of the sizes of the weights."""

    count: np.ndarray
    weight: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class Guest:
    """A guest analysis.

    `select(events, cuts, variation)` gives the events of each region. `samples` are the variations that have data sets
    of their own, with the process that they are of.
    """

    luminosity: float
    processes: tuple[str, ...]
    edges: Mapping[str, np.ndarray]
    variations: tuple[str, ...]
    samples: Mapping[str, str]
    select: Callable[[ak.Array, Cuts, str], dict[str, Selected]]


def yields(name: str, cuts: Cuts, variation: str = "nominal") -> dict[tuple[str, str], Yields]:
    """By region and process; of an alternative sample only the process that it is of."""
    guest = GUESTS[name]
    result = {}
    for process, events, weight in _samples(name, variation):
        for region, selected in guest.select(events, cuts, variation).items():
            edges = guest.edges[region].astype(np.float32)
            number = np.searchsorted(edges, selected.observable.astype(np.float32), side="right") - 1
            inside = (number >= 0) & (number < len(edges) - 1)
            bins, kept = number[inside], weight[selected.row[inside]] * selected.factor[inside]
            counts, weights, sizes = (
                np.bincount(bins, each, minlength=len(edges) - 1) for each in (None, kept, np.abs(kept))
            )
            result[region, process] = Yields(counts, weights, sizes)
    return result


def _samples(name: str, variation: str) -> Iterator[tuple[str, ak.Array, np.ndarray]]:
    guest = GUESTS[name]
    alternative = variation in guest.samples
    for process in (guest.samples[variation],) if alternative else guest.processes:
        events, normalisation = _read(f"{name}/{process}__{variation if alternative else 'nominal'}")
        yield process, events, ak.to_numpy(events.genWeight).astype(float) * normalisation * guest.luminosity


_FILES: dict[str, tuple[ak.Array, float]] = {}


def _read(key: str) -> tuple[ak.Array, float]:
    """The events of a data set, collections zipped, and its cross section over its sum of weights."""
    if key not in _FILES:
        document = yaml.load((ROOT / "data_manifest.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
        dataset = document["datasets"][key]
        (file,) = dataset["files"]
        path = ROOT / "pipeline" / "data" / file["path"]
        events = ak.from_parquet(path) if path.suffix == ".parquet" else _tree(path)
        _FILES[key] = events, dataset["cross_section_pb"] / file["sum_of_weights"]
    return _FILES[key]


def _tree(path: Path) -> ak.Array:
    with uproot.open(path) as file:
        columns = file["Events"].arrays(library="ak")
    flat = {name: columns[name] for name in columns.fields if columns[name].ndim == 1}
    collections: dict[str, dict[str, ak.Array]] = {}
    for name in set(columns.fields) - set(flat):
        collection, _, field = name.partition("_")
        collections.setdefault(collection, {})[field] = columns[name]
    return ak.zip(flat | {name: _objects(name, fields) for name, fields in collections.items()}, depth_limit=1)


def _objects(name: str, fields: Mapping[str, ak.Array]) -> ak.Array:
    wide = {
        field: ak.values_astype(values, "float64") if field in ("pt", "eta", "phi", "mass") else values
        for field, values in fields.items()
    }
    mass = {} if "mass" in wide else {"mass": ak.full_like(wide["pt"], MASSES[name])}
    return ak.zip(wide | mass, with_name="Momentum4D")


def _scaled(objects: ak.Array, **factors: float) -> ak.Array:
    """With some fields multiplied; what a name like pt stands for in vector stays what is stored."""
    for field, factor in factors.items():
        objects = ak.with_field(objects, objects[field] * factor, field)
    return objects


def _above(values: ak.Array, threshold: float) -> ak.Array:
    return values > float(np.float32(threshold))


def _below(values: ak.Array, threshold: float) -> ak.Array:
    return values < float(np.float32(threshold))


def _single(values: ak.Array) -> ak.Array:
    return ak.values_astype(values, "float32")


def _regions(masks: Mapping[str, tuple[ak.Array, ak.Array]], factor: ak.Array) -> dict[str, Selected]:
    """From the mask and the observable of each region."""

    def numbers(values: ak.Array, rows: np.ndarray) -> np.ndarray:
        return ak.to_numpy(ak.fill_none(values, np.nan)).astype(np.float64)[rows]

    result = {}
    for region, (mask, observable) in masks.items():
        rows = np.flatnonzero(ak.to_numpy(ak.fill_none(mask, False)))
        result[region] = Selected(rows, numbers(observable, rows), numbers(factor, rows))
    return result


# --- dilepton ---------------------------------------------------------------------------------------------------------


def _dilepton(events: ak.Array, cuts: Cuts, variation: str) -> dict[str, Selected]:
    electrons, muons, jets, met = events.Electron, events.Muon, events.Jet, ak.values_astype(events.MET_pt, "float64")
    if variation == "jet_scale_up":
        jets = _scaled(jets, pt=1.03)
    if variation == "muon_scale_up":
        muons = _scaled(muons, pt=1.01)
    if variation == "met_scale_up":
        met = met * 1.05
    electrons = electrons[_above(electrons.pt, cuts["lepton_pt"])]
    muons = muons[_above(muons.pt, cuts["lepton_pt"])]
    jets = jets[_above(jets.pt, cuts["jet_pt"])]
    tagged = jets[_above(jets.btagCSVV2, cuts["jet_btag"])]
    leptons = ak.concatenate([electrons, muons], axis=1)
    pair = ak.pad_none(leptons, 2)
    mll = _single((pair[:, 0] + pair[:, 1]).mass)
    lepton, jet = ak.unzip(ak.cartesian([leptons, tagged]))
    mlb = ak.min((lepton + jet).mass, axis=1)
    common = (ak.num(leptons) == 2) & (ak.sum(leptons.charge, axis=1) == 0) & (ak.num(jets) >= 2)
    common = common & (ak.num(tagged) >= 1) & _above(mll, 20)
    outside = _below(mll, cuts["z_veto.low"]) | _above(mll, cuts["z_veto.high"])
    same_flavour = common & outside & _above(met, cuts["met"])
    factor = ak.ones_like(met)
    if variation in ("btag_up", "btag_down"):
        sign = 1 if variation == "btag_up" else -1
        factor = 1 + sign * 0.0005 * ak.firsts(tagged.pt)
    if variation == "trigger_up":
        factor = 1 + 0.5 / ak.max(leptons.pt, axis=1)
    masks = {
        "ee": (same_flavour & (ak.num(electrons) == 2), mlb),
        "emu": (common & _above(met, 25) & (ak.num(electrons) == 1) & (ak.num(muons) == 1), mlb),
        "mumu": (same_flavour & (ak.num(muons) == 2), mlb),
    }
    return _regions(masks, factor)


# --- four leptons -----------------------------------------------------------------------------------------------------


def _four_leptons(events: ak.Array, cuts: Cuts, variation: str) -> dict[str, Selected]:
    electrons, muons = events.Electron, events.Muon
    if variation == "electron_scale_up":
        electrons = _scaled(electrons, pt=1.005)
    if variation == "muon_scale_up":
        muons = _scaled(muons, pt=1.002)
    electrons = electrons[
        _above(electrons.pt, cuts["electron_pt"]) & _below(electrons.pfRelIso03_all, 0.35) & _below(electrons.sip3d, 4)
    ]
    muons = muons[_above(muons.pt, cuts["muon_pt"]) & _below(muons.pfRelIso04_all, 0.35) & _below(muons.sip3d, 4)]
    fields = ("pt", "eta", "phi", "mass", "charge")
    parts = [
        ak.zip({name: objects[name] for name in fields} | {"flavour": flavour}, with_name="Momentum4D")
        for objects, flavour in ((electrons, 11), (muons, 13))
    ]
    leptons = ak.concatenate(parts, axis=1)
    neutral = (ak.sum(electrons.charge, axis=1) == 0) & (ak.sum(muons.charge, axis=1) == 0)
    four = (ak.num(leptons) == 4) & neutral
    momentum = ak.sort(leptons.pt, axis=1, ascending=False)
    leading, second = (_single(ak.pad_none(momentum, 2)[:, n]) for n in (0, 1))
    mz1, mz2 = _pairs(leptons, four)
    good = four & _above(leading, cuts["leading_pt"]) & _above(second, cuts["second_pt"])
    for mass, name in ((mz1, "mz1"), (mz2, "mz2")):
        good = good & _above(mass, cuts[f"{name}.low"]) & _below(mass, cuts[f"{name}.high"])
    total = ak.zip(
        {axis: ak.sum(getattr(leptons, axis), axis=1) for axis in ("px", "py", "pz", "E")}, with_name="Momentum4D"
    )
    masks = {
        "4e": (good & (ak.num(electrons) == 4), total.mass),
        "4mu": (good & (ak.num(muons) == 4), total.mass),
        "2e2mu": (good & (ak.num(electrons) == 2) & (ak.num(muons) == 2), total.mass),
    }
    return _regions(masks, ak.ones_like(total.mass))


def _pairs(leptons: ak.Array, four: ak.Array) -> tuple[ak.Array, ak.Array]:
    """Masses of the pair nearest to the Z boson, of all that could be one, and of the two other leptons."""
    index = ak.argcombinations(leptons, 2)
    one, other = ak.unzip(index)
    first, second = leptons[one], leptons[other]
    mass = (first + second).mass
    candidate = (first.flavour == second.flavour) & (first.charge + second.charge == 0)
    distance = ak.where(candidate, abs(mass - Z_MASS), np.inf)
    # Of four leptons there are six pairs; in the order of combinations the pair n and the pair 5 - n share none.
    nearest = ak.argmin(ak.mask(distance, four), axis=1, keepdims=True)
    masked = ak.mask(mass, four)
    return _single(ak.firsts(masked[nearest])), _single(ak.firsts(masked[5 - nearest]))


# --- Z' ---------------------------------------------------------------------------------------------------------------


def _zprime(events: ak.Array, cuts: Cuts, variation: str) -> dict[str, Selected]:
    muons, fat, jets, met = events.Muon, events.FatJet, events.Jet, ak.values_astype(events.MET_pt, "float64")
    if variation == "fatjet_scale_up":
        fat = _scaled(fat, pt=1.02, mass=1.02)
    if variation == "jet_scale_up":
        jets = _scaled(jets, pt=1.03)
    if variation == "met_up":
        met = met * 1.05
    muons = muons[_above(muons.pt, cuts["muon_pt"])]
    fat = fat[_above(fat.pt, cuts["fatjet_pt"]) & _above(fat.score, cuts["fatjet_score"])]
    each, others = ak.unzip(ak.cartesian([jets, fat], nested=True))
    distance = ak.fill_none(ak.min(each.deltaR(others), axis=2), np.inf)
    jets = jets[_above(jets.pt, 30) & _above(_single(distance), cuts["jet_distance"])]
    tagged = jets[_above(jets.btagCSVV2, cuts["jet_btag"])]
    lepton_ht = _single(ak.firsts(muons.pt)) + _single(met)
    missing = ak.zip(
        {
            "pt": met,
            "eta": ak.zeros_like(met),
            "phi": ak.values_astype(events.MET_phi, "float64"),
            "mass": ak.zeros_like(met),
        },
        with_name="Momentum4D",
    )
    mtt = (ak.firsts(muons) + ak.firsts(fat) + ak.firsts(tagged) + missing).mass
    common = (ak.num(muons) == 1) & (ak.num(fat) >= 1) & _above(met, cuts["met"]) & _above(lepton_ht, cuts["lepton_ht"])
    factor = ak.ones_like(met)
    if variation in ("btag_up", "btag_down"):
        sign = 1 if variation == "btag_up" else -1
        factor = 1 + sign * 0.0003 * ak.fill_none(ak.firsts(tagged.pt), 0.0)
    masks = {
        "tagged": (common & (ak.num(tagged) >= 1), mtt),
        "untagged": (common & (ak.num(tagged) == 0) & (ak.num(jets) >= 1), lepton_ht),
    }
    return _regions(masks, factor)


# --- flat table -------------------------------------------------------------------------------------------------------


def _flat_table(events: ak.Array, cuts: Cuts, variation: str) -> dict[str, Selected]:
    mass = events.mass_scale_up if variation == "scale_up" else events.mass
    factors = {"pileup_up": "puWeightUp", "pileup_down": "puWeightDown"}
    factor = events[factors[variation]] if variation in factors else ak.ones_like(mass)
    mask = _above(events.pt, cuts["pt"]) & _above(events.score, cuts["score"]) & _below(events.angle, cuts["angle"])
    return _regions({"all": (mask, mass)}, factor)


_MLB, _M4L = np.linspace(20, 200, 10), np.linspace(80, 170, 16)

GUESTS = {
    "dilepton": Guest(
        luminosity=3378,
        processes=("ttbar", "zjets", "single_top_tW"),
        edges={"ee": _MLB, "emu": _MLB, "mumu": _MLB},
        variations=("jet_scale_up", "muon_scale_up", "met_scale_up", "btag_up", "btag_down", "trigger_up", "scaleup"),
        samples={"scaleup": "ttbar"},
        select=_dilepton,
    ),
    "four_leptons": Guest(
        luminosity=35900,
        processes=("higgs", "zz"),
        edges={"4e": _M4L, "4mu": _M4L, "2e2mu": _M4L},
        variations=("electron_scale_up", "muon_scale_up"),
        samples={},
        select=_four_leptons,
    ),
    "zprime": Guest(
        luminosity=16400,
        processes=("signal", "ttbar", "wjets"),
        edges={"tagged": np.linspace(600, 3000, 13), "untagged": np.array([100.0, 200, 300, 400, 600, 1000])},
        variations=("fatjet_scale_up", "jet_scale_up", "met_up", "btag_up", "btag_down"),
        samples={},
        select=_zprime,
    ),
    "flat_table": Guest(
        luminosity=36000,
        processes=("signal", "continuum", "fakes"),
        edges={"all": np.linspace(105, 145, 17)},
        variations=("pileup_up", "pileup_down", "scale_up"),
        samples={},
        select=_flat_table,
    ),
}
