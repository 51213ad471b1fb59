"""The AGC's ttbar selection, written to be obvious: ragged arrays, no padding, no code shared with ``pipeline``.

The slow twin of the whole project. It follows the text of the analysis (objects, regions, observables, variations of
``iris-hep/analysis-grand-challenge``, main at c37bf59) and was checked against what the AGC's own processor makes of
600 events (``test_agc_selection.py``). Cuts are strict, and a threshold is compared in the precision of its column, as
NumPy does. Observables are computed in float64 from the float32 columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

BRANCHES = {
    "Electron": ("pt", "eta", "phi", "mass", "cutBased", "sip3d"),
    "Muon": ("pt", "eta", "phi", "mass", "tightId", "sip3d", "pfRelIso04_all"),
    "Jet": ("pt", "eta", "phi", "mass", "btagCSVV2", "jetId"),
}
SLOPE_OF_BTAG_VARIATION = 0.075 / 50.0  # a GeV of jet pt
FIT_EDGES = np.linspace(110.0, 550.0, 12)  # GeV, both regions
AGC_EDGES = np.linspace(50.0, 550.0, 26)  # GeV, the published histograms


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The AGC's cuts; pt in GeV."""

    electron_pt: float = 30.0
    electron_abs_eta: float = 2.1
    electron_sip3d: float = 4.0
    muon_pt: float = 30.0
    muon_abs_eta: float = 2.1
    muon_sip3d: float = 4.0
    muon_isolation: float = 0.15
    jet_pt: float = 30.0
    jet_abs_eta: float = 2.4
    jet_btag: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Region:
    """Events of one region.

    Attributes:
        index: rows of the input, ascending.
        observable: HT (4j1b) or trijet mass (4j2b), GeV.
        jet_pt: pt of the first four selected jets in stored order, GeV, shape (events, 4).
    """

    index: NDArray[np.int64]
    observable: NDArray[np.float64]
    jet_pt: NDArray[np.float64]


def read(path: Path | str, tree: str = "Events", extra: tuple[str, ...] = ()) -> ak.Array:
    """All events of one file: records Electron, Muon, Jet, and the extra branches under their own names."""
    names = [f"{name}_{field}" for name, fields in BRANCHES.items() for field in fields]
    with uproot.open(path) as file:
        flat = file[tree].arrays([*names, *extra])
    objects = {name: ak.zip({field: flat[f"{name}_{field}"] for field in fields}) for name, fields in BRANCHES.items()}
    return ak.zip(objects | {name: flat[name] for name in extra}, depth_limit=1)


def select(
    events: ak.Array, thresholds: Thresholds | None = None, *, jet_pt_factor: float | ak.Array | None = None
) -> dict[str, Region]:
    """Regions ``4j1b`` and ``4j2b``.

    Args:
        events: records as ``read`` makes them.
        thresholds: the AGC's when None.
        jet_pt_factor: None for nominal jets (float32 pt). A number (1.03: pt_scale_up) or one number a jet (pt_res_up)
            multiplies the pt of every jet in float64 before any cut; the mass stays, and jets are not sorted again.
    """
    cuts = thresholds or Thresholds()
    jets = events.Jet if jet_pt_factor is None else scaled(events.Jet, jet_pt_factor)
    electrons = selected_electrons(events.Electron, cuts)
    muons = selected_muons(events.Muon, cuts)
    jets = selected_jets(jets, cuts)
    tags = ak.sum(jets.btagCSVV2 > in_precision_of(jets.btagCSVV2, cuts.jet_btag), axis=1)
    preselected = (ak.num(electrons) + ak.num(muons) == 1) & (ak.num(jets) >= 4)
    control, signal = preselected & (tags == 1), preselected & (tags >= 2)
    return {
        "4j1b": region(control, jets, ht),
        "4j2b": region(signal, jets, lambda kept: trijet_mass(kept, cuts.jet_btag)),
    }


def selected_electrons(electrons: ak.Array, cuts: Thresholds) -> ak.Array:
    return electrons[
        (electrons.pt > in_precision_of(electrons.pt, cuts.electron_pt))
        & (abs(electrons.eta) < in_precision_of(electrons.eta, cuts.electron_abs_eta))
        & (electrons.cutBased == 4)
        & (electrons.sip3d < in_precision_of(electrons.sip3d, cuts.electron_sip3d))
    ]


def selected_muons(muons: ak.Array, cuts: Thresholds) -> ak.Array:
    return muons[
        (muons.pt > in_precision_of(muons.pt, cuts.muon_pt))
        & (abs(muons.eta) < in_precision_of(muons.eta, cuts.muon_abs_eta))
        & muons.tightId
        & (muons.sip3d < in_precision_of(muons.sip3d, cuts.muon_sip3d))
        & (muons.pfRelIso04_all < in_precision_of(muons.pfRelIso04_all, cuts.muon_isolation))
    ]


def selected_jets(jets: ak.Array, cuts: Thresholds) -> ak.Array:
    return jets[
        (jets.pt > in_precision_of(jets.pt, cuts.jet_pt))
        & (abs(jets.eta) < in_precision_of(jets.eta, cuts.jet_abs_eta))
        & (jets.jetId & 4 != 0)
    ]


def region(mask: ak.Array, jets: ak.Array, observable) -> Region:
    kept = jets[mask]
    return Region(
        index=np.flatnonzero(ak.to_numpy(mask)),
        observable=ak.to_numpy(observable(kept)).astype(np.float64),
        jet_pt=ak.to_numpy(kept.pt[:, :4]).astype(np.float64).reshape(len(kept), 4),
    )


def scaled(jets: ak.Array, factor: float | ak.Array) -> ak.Array:
    return ak.with_field(jets, ak.values_astype(jets.pt, np.float64) * factor, "pt")


def ht(jets: ak.Array) -> ak.Array:
    """Scalar sum of the pt of all selected jets."""
    return ak.sum(ak.values_astype(jets.pt, np.float64), axis=1)


def trijet_mass(jets: ak.Array, btag: float) -> ak.Array:
    """Mass of the three jets, at least one of them tagged, whose summed momentum has the largest pt."""
    triples = ak.combinations(four_momenta(jets), 3, fields=["a", "b", "c"])
    tagged = in_precision_of(jets.btagCSVV2, btag)
    triples = triples[(triples.a.btag > tagged) | (triples.b.btag > tagged) | (triples.c.btag > tagged)]
    x, y, z, t = (triples.a[i] + triples.b[i] + triples.c[i] for i in ("x", "y", "z", "t"))
    best = ak.argmax(np.hypot(x, y), axis=1, keepdims=True)  # the first of equals, in the order of the combinations
    return np.sqrt(np.maximum(t**2 - x**2 - y**2 - z**2, 0.0))[best][:, 0]


def four_momenta(jets: ak.Array) -> ak.Array:
    pt, eta, phi, mass = (ak.values_astype(jets[name], np.float64) for name in ("pt", "eta", "phi", "mass"))
    return ak.zip(
        {
            "x": pt * np.cos(phi),
            "y": pt * np.sin(phi),
            "z": pt * np.sinh(eta),
            "t": np.hypot(pt * np.cosh(eta), mass),
            "btag": jets.btagCSVV2,
        }
    )


def btag_weight(selected: Region, jet: int, direction: str) -> NDArray[np.float64]:
    """Event weights of ``btag_var_<jet>_<direction>``: 1 ± 0.0015 times the pt of that selected jet."""
    sign = {"up": 1.0, "down": -1.0}[direction]
    return 1.0 + sign * SLOPE_OF_BTAG_VARIATION * selected.jet_pt[:, jet]


def histogram(observable, weights, edges=FIT_EDGES) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of weights and of squared weights in each bin, lower edge included, upper edge not; no flow bins."""
    bins = np.searchsorted(edges, observable, side="right") - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    weights = np.broadcast_to(np.asarray(weights, np.float64), bins.shape)[inside]
    content = np.bincount(bins[inside], weights, minlength=len(edges) - 1)
    variance = np.bincount(bins[inside], weights**2, minlength=len(edges) - 1)
    return content, variance


def in_precision_of(column: ak.Array, threshold: float) -> np.floating:
    """The threshold rounded to the type of the column: |eta| = float32(2.1) fails ``< 2.1``."""
    return ak.to_numpy(ak.flatten(column, axis=None)).dtype.type(threshold)
