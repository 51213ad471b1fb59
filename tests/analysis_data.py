"""The committed simulated samples as the tests use them: read once, all events, plus the twin's view of the same
files."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pipeline.analysis import Analysis, Data
from pipeline.config import Config, load_config
from pipeline.ingest.samples import Sample
from pipeline.names import names_of
from pipeline.parts import make_data
from pipeline.problem import read
from pipeline.translation import make_analysis

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Everything:
    config: Config
    samples: tuple[Sample, ...]
    analysis: Analysis
    data: Data


@cache
def everything(config: str = "agc.yaml") -> Everything:
    """All events of all data sets of a config, without a split."""
    return all_events(load_config(ROOT / "configs" / config))


def all_events(loaded: Config) -> Everything:
    names = names_of(loaded)
    samples = read(loaded)
    analysis = make_analysis(loaded, names, len(samples))
    everything_in_it = [np.ones(len(sample.events), bool) for sample in samples]
    (data,) = make_data(loaded, names, analysis, samples, [everything_in_it])
    return Everything(loaded, samples, analysis, data)


def file_of(sample: Sample) -> Path:
    """The single file of a simulated data set."""
    (location,) = sample.dataset.locations("local")
    return Path(location)


def default_thresholds(config: Config) -> dict[str, float]:
    return {name: cut.threshold for name, cut in config.thresholds.items()}


def random_thresholds(config: Config, generator: np.random.Generator) -> dict[str, float]:
    """A point anywhere within the bounds of all cuts."""
    return {
        name: float(generator.uniform(*cut.bounds)) if cut.bounds else cut.threshold
        for name, cut in config.thresholds.items()
    }
