"""Small NanoAOD-like files, written for a test."""

from pathlib import Path

import awkward as ak
import numpy as np
import uproot


def random_branches(events: int, seed: int = 0) -> dict[str, ak.Array]:
    """Branches of unsorted objects on both sides of every cut of `skim`."""
    generator = np.random.default_rng(seed)
    branches: dict[str, ak.Array] = {}
    for collection, mean in {"Electron": 0.7, "Muon": 0.7, "Jet": 8.0}.items():
        counts = generator.poisson(mean, events)
        total = int(counts.sum())
        columns = {
            "pt": generator.exponential(40, total).astype(np.float32),
            "eta": generator.normal(0, 1.6, total).astype(np.float32),
            "mass": generator.exponential(10, total).astype(np.float32),
            "jetId": generator.choice(np.array([0, 2, 6, 6], np.int32), total),
            "tightId": generator.random(total) < 0.7,
        }
        branches |= {f"{collection}_{name}": ak.unflatten(values, counts) for name, values in columns.items()}
    branches["MET_pt"] = ak.Array(generator.exponential(40, events).astype(np.float32))
    branches["event"] = ak.Array(generator.integers(1, 2**63, events, dtype=np.uint64))
    return branches


def write_file(path: Path, branches: dict[str, ak.Array], *, kind: str = "ttree", cluster: int = 0) -> Path:
    """A file with one tree `Events`, in clusters of so many events, or one cluster."""
    branches = {name: ak.Array(values) for name, values in branches.items()}
    events = min(len(values) for values in branches.values())
    with uproot.recreate(path) as file:
        make = file.mktree if kind == "ttree" else file.mkrntuple
        tree = make("Events", {name: values.type.content for name, values in branches.items()})
        step = cluster or max(events, 1)
        for start in range(0, events, step):
            tree.extend({name: values[start : start + step] for name, values in branches.items()})
    return path
