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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import uproot

from pipeline.analysis import event_table
from pipeline.command import guarded, user_path
from pipeline.config import Config, ConfigError, load_config
from pipeline.events.table import EventList
from pipeline.ingest import read
from pipeline.ingest.failures import explained
from pipeline.ingest.samples import skim
from pipeline.names import names_of
from pipeline.parts import bare_data
from pipeline.ragged import kinematics
from pipeline.translation import default_thresholds, factors_of, make_analysis


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=user_path, help="NanoAOD file")
    parser.add_argument("--config", type=user_path, required=True, help="the analysis; its thresholds are used")
    parser.add_argument("--output", type=user_path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)

    def write() -> int:
        content = synchronise(load_config(options.config), options.file)
        options.output.write_text(json.dumps(content) + "\n", encoding="utf-8")
        for name, events in content.items():
            print(f"{name}: {len(events['event_index'])} events")
        return 0

    return guarded(write)


def synchronise(config: Config, file: Path, tree: str = "Events") -> dict[str, dict[str, list[int] | list[float]]]:
    """The content of the synchronisation file."""
    if config.observables:
        raise ConfigError("observables: a learned observable starts from the events of a run; synchronise without it")
    names, factors = names_of(config), list(factors_of(config))
    events = read(
        [file], skim(config, tuple(names.branches.values()), extra=_stored_factors(config, file, tree)), tree=tree
    ).events
    analysis = make_analysis(config, names, datasets=1)
    table = event_table(analysis, default_thresholds(config), bare_data(config, names, events))
    content = {}
    for number, region in enumerate(config.regions):
        for kinematic, variation in enumerate(["nominal", *kinematics(config)]):
            content[f"{region}|{variation}"] = _entry(table, (table.region == number) & (table.kinematic == kinematic))
        nominal = (table.region == number) & (table.kinematic == 0)
        for name, each in config.variations.items():
            if each.weights and not each.is_kinematic:
                weights = {factors.index(f) + 2: size for f, size in each.weights.items() if f != "nominal"}
                content[f"{region}|{name}"] = _entry(table, nominal, each.weights.get("nominal", 0.0), weights)
    return content


def _stored_factors(config: Config, file: Path, tree: str) -> dict[str, list[str]]:
    """Resolution factors that the file has, by collection."""
    columns = {(c, v.branch) for v in config.variations.values() for c in v.resolution if "." in c}
    stored: dict[str, list[str]] = {}
    for column, branch in sorted(columns):
        name = column.partition(".")[0]
        if _has_branch(file, tree, f"{config.objects[name].branch}_{branch}"):
            stored.setdefault(name, []).append(branch)
    return stored


def _has_branch(file: Path, tree: str, branch: str) -> bool:
    """Whether the file has a branch; that it has the tree is for `read` to say."""
    with explained(str(file)), uproot.open(file) as opened:
        return tree in opened and branch in opened[tree].keys()  # noqa: SIM118 (a TTree is no mapping)


def _entry(
    table: EventList, rows: np.ndarray, nominal: float = 1.0, factors: Mapping[int, float] | None = None
) -> dict[str, list[int] | list[float]]:
    order = np.argsort(table.index[rows], kind="stable")
    weight = np.full(len(order), nominal)
    for column, size in (factors or {}).items():
        weight += size * table.columns[column, rows][order].astype(np.float64)
    return {
        "event_index": table.index[rows][order].tolist(),
        "observable": table.observable[rows][order].astype(np.float64).tolist(),
        "weight": weight.tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
