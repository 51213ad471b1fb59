"""Event-by-event synchronisation: which events our selection takes, with which observable and weight.

Analysis groups compare frameworks event by event. This writes, for one NanoAOD file and a config,

    {"<region>|<variation>": {"event_index": [...], "observable": [...], "weight": [...]}}

event_index counts from 0 in file order; observables are in GeV (also outside the histogram); weights are relative to
nominal weight 1. If the jets of the file have a branch with resolution factors (Jet_resfac), those are used.

Example:
  python -m pipeline.sync FILE.root --config configs/agc.yaml --output sync.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uproot

from pipeline.command import guarded
from pipeline.config import Config, load_config
from pipeline.events.table import EventList, list_events
from pipeline.ingest import read
from pipeline.ingest.rootfile import explained
from pipeline.problem import bare_data, default_thresholds, kinematics, make_analysis, skim


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="NanoAOD file")
    parser.add_argument("--config", type=Path, required=True, help="the analysis; its thresholds are used")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)

    def write() -> int:
        content = synchronise(load_config(options.config), options.file)
        options.output.write_text(json.dumps(content) + "\n", encoding="utf-8")
        for name, events in content.items():
            print(f"{name}: {len(events['event_index'])} events")
        return 0

    return guarded(write)


def synchronise(config: Config, file: Path, tree: str = "Events") -> dict[str, dict[str, list[float]]]:
    """The content of the synchronisation file."""
    factors = config.variations.resolution_branch
    has_factors = _has_branch(file, tree, f"{config.objects.jet.branch}_{factors}")
    events = read([file], skim(config, extra={"jet": [factors]} if has_factors else None), tree=tree).events
    analysis = make_analysis(config, datasets=1)
    table = list_events(analysis, default_thresholds(config), bare_data(config, events))
    content = {}
    for number, region in enumerate(config.regions):
        for kinematic, variation in enumerate(kinematics(config)):
            content[f"{region}|{variation}"] = _entry(table, (table.region == number) & (table.kinematic == kinematic))
        nominal = (table.region == number) & (table.kinematic == 0)
        for variation, (rank, slope) in config.variations.jet_weight_slope.items():
            content[f"{region}|{variation}"] = _entry(table, nominal, slope=slope, rank=rank)
        for variation, (_, factor) in config.variations.process_weight.items():
            content[f"{region}|{variation}"] = _entry(table, nominal, factor=factor)
    return content


def _has_branch(file: Path, tree: str, branch: str) -> bool:
    """Whether the file has a branch; that it has the tree is for `read` to say."""
    with explained(str(file)), uproot.open(file) as opened:
        return tree in opened and branch in opened[tree].keys()  # noqa: SIM118 (a TTree is no mapping)


def _entry(
    table: EventList, rows: np.ndarray, *, slope: float = 0.0, rank: int = 0, factor: float = 1.0
) -> dict[str, list[float]]:
    order = np.argsort(table.index[rows], kind="stable")
    pt = table.columns[2 + rank, rows][order].astype(np.float64)
    return {
        "event_index": table.index[rows][order].tolist(),
        "observable": table.observable[rows][order].astype(np.float64).tolist(),
        "weight": (factor * (1 + slope * pt)).tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
