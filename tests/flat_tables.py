"""A resonance on a falling spectrum in four parquet files, and the config of its analysis: quick to compile."""

from pathlib import Path

import numpy as np
import pandas as pd
from pipeline.config import Config, load_config

CONFIG = """
name: flat
luminosity: 1
data:
  tables: {signal: "signal*.parquet", background: "background*.parquet"}
  weights: weight
event_variables: {met: met, bdt: bdt, mass: mass}
processes: {signal: {title: signal}, background: {title: background}}
cuts:
  met: {objects: [event], variable: met, keep: above, threshold: 50, trainable: true, bounds: [0, 200], bandwidth: 15}
  bdt: {objects: [event], variable: bdt, keep: above, threshold: 0.5, trainable: true, bounds: [0, 1], bandwidth: 0.1}
regions:
  SR: {observable: mass, bins: {start: 100, stop: 500, number: 5}}
systematics:
  luminosity: {title: luminosity, type: normalization, up: 0.03, down: -0.03}
measurement: {name: m, poi: mu, signal: [signal], minimum_effective_events: 0}
optimiser: {steps: 3}
validation: {bootstrap: 4}
"""
MEMORY = 150_000
"""Bytes: less than the events take, and enough for some pieces of several hundred events."""


def write_tables(folder: Path) -> Path:
    """Each process in two files, one much larger than the other; and the config."""
    for process, sizes in {"signal": (900, 300), "background": (6000, 1500)}.items():
        for number, events in enumerate(sizes):
            generator = np.random.default_rng((len(process), number))
            signal = process == "signal"
            table = {
                "met": generator.exponential(60.0, events),
                "bdt": generator.beta(*((4, 2) if signal else (2, 4)), events),
                "mass": generator.normal(250.0, 30.0, events) if signal else 100 + generator.exponential(150.0, events),
                "weight": generator.uniform(0.5, 1.5, events) * (60.0 if signal else 1000.0) / sum(sizes),
            }
            pd.DataFrame(table).to_parquet(folder / f"{process}_{number}.parquet")
    (folder / "flat.yaml").write_text(CONFIG)
    return folder


def config_of(folder: Path, **data) -> Config:
    return load_config(folder / "flat.yaml", {"data": data})
