"""The AGC's assignment of jets by a BDT, written to be obvious: event by event, no code shared with ``pipeline``.

It follows ``utils/ml.py`` of ``iris-hep/analysis-grand-challenge``: quadruples of the first six selected jets, of which
the two first are exchangeable and the later duplicate is kept; twenty features; the class-1 probability of the BDT that
was trained on events of the other parity; the first of the largest.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

NAMES = [
    "deltar_leptonbtoplep",
    "deltar_w1w2",
    "deltar_w1btophad",
    "deltar_w2btophad",
    "mass_leptonbtoplep",
    "mass_w1w2",
    "mass_w1w2btophad",
    "pt_w1w2btophad",
    *("pt_w1", "pt_w2", "pt_btophad", "pt_btoplep"),
    *("btag_w1", "btag_w2", "btag_btophad", "btag_btoplep"),
    *("qgl_w1", "qgl_w2", "qgl_btophad", "qgl_btoplep"),
]


@cache
def quadruples(jets: int) -> list[tuple[int, int, int, int]]:
    """As the AGC lists them: of two with the same jets as W pair, the later one."""
    every = list(permutations(range(jets), 4))
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for w1, w2, had, lep in every:
        label = (frozenset((w1, w2)), had, lep)
        if label in seen:
            kept.append((w1, w2, had, lep))
        seen.add(label)
    return kept


class Twin:
    """Two BDTs, and what was asked of them."""

    def __init__(self, even: Path, odd: Path) -> None:
        self.trained_on = {0: xgboost.Booster(model_file=str(even)), 1: xgboost.Booster(model_file=str(odd))}
        for booster in self.trained_on.values():
            booster.set_param({"nthread": 1})

    def chosen(self, cases: list[tuple[dict[str, np.ndarray], dict[str, float], int]]) -> list[dict[str, float]]:
        """Of events (selected jets, four or more; lepton; number): features and `bdt_score` of the best assignment."""
        told: list[np.ndarray] = []
        for jets, lepton, _ in cases:
            values = of_way(jets, lepton, np.array(quadruples(min(len(jets["pt"]), 6))))
            told.append(np.array([values[name] for name in NAMES]).T)
        found: list[dict[str, float]] = [{}] * len(cases)
        for parity, bdt in self.trained_on.items():
            others = [n for n, (_, _, number) in enumerate(cases) if number % 2 != parity]
            if not others:
                continue
            scores = bdt.inplace_predict(np.concatenate([told[n] for n in others]).astype(np.float32))
            for n, score in zip(others, np.split(scores, np.cumsum([len(told[n]) for n in others])[:-1]), strict=True):
                best = int(np.argmax(score))
                found[n] = dict(zip(NAMES, told[n][best].tolist(), strict=True)) | {"bdt_score": float(score[best])}
        return found


def of_way(jets: dict[str, np.ndarray], lepton: dict[str, float], ways: np.ndarray) -> dict[str, np.ndarray]:
    """The features of all quadruples of one event."""
    w1, w2, had, lep = ({name: np.asarray(column, float)[way] for name, column in jets.items()} for way in ways.T)
    pair, top = summed(w1, w2), summed(w1, w2, had)
    values = {
        "deltar_leptonbtoplep": apart(lepton, lep),
        "deltar_w1w2": apart(w1, w2),
        "deltar_w1btophad": apart(w1, had),
        "deltar_w2btophad": apart(w2, had),
        "mass_leptonbtoplep": mass(summed(lepton, lep)),
        "mass_w1w2": mass(pair),
        "mass_w1w2btophad": mass(top),
        "pt_w1w2btophad": np.sqrt(top[0] ** 2 + top[1] ** 2),
    }
    for role, jet in (("w1", w1), ("w2", w2), ("btophad", had), ("btoplep", lep)):
        values |= {f"{name}_{role}": jet[name] for name in ("pt", "btag", "qgl")}
    return values


def apart(one: Any, other: Any) -> np.ndarray:
    """The AGC's ΔR: the difference of azimuths is not wrapped."""
    return np.sqrt((one["eta"] - other["eta"]) ** 2 + (one["phi"] - other["phi"]) ** 2)


def summed(*objects: Any) -> list[np.ndarray]:
    """(x, y, z, E) of the sum."""
    parts = []
    for each in objects:
        x, y, z = each["pt"] * np.cos(each["phi"]), each["pt"] * np.sin(each["phi"]), each["pt"] * np.sinh(each["eta"])
        parts.append((x, y, z, np.sqrt(x**2 + y**2 + z**2 + each["mass"] ** 2)))
    return [sum(components) for components in zip(*parts, strict=True)]


def mass(momentum: list[np.ndarray]) -> np.ndarray:
    x, y, z, energy = momentum
    return np.sqrt(np.maximum(energy**2 - x**2 - y**2 - z**2, 0.0))
