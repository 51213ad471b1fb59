"""The YAML a user writes: every number of a run, checked before anything heavy is imported.

Models are frozen, unknown keys are errors, and defaults live here alone: `data` says which events are read,
`selection` what is looked at, `statistics` what is measured with it, `run` puts these together, and `reading` makes all
of it from a file.
"""

from pipeline.config.calibration import Calibration
from pipeline.config.data import Data, Table
from pipeline.config.explained import explained
from pipeline.config.model import ConfigError
from pipeline.config.reading import load_config, parse_settings
from pipeline.config.run import Config, Optimiser, Validation
from pipeline.config.selection import Bins, Collection, Cut, ObjectSet, Region, Requirement, Threshold
from pipeline.config.statistics import Correction, Objective, Systematic, Variation

__all__ = [
    "Bins",
    "Calibration",
    "Collection",
    "Config",
    "ConfigError",
    "Correction",
    "Cut",
    "Data",
    "ObjectSet",
    "Objective",
    "Optimiser",
    "Region",
    "Requirement",
    "Systematic",
    "Table",
    "Threshold",
    "Validation",
    "Variation",
    "explained",
    "load_config",
    "parse_settings",
]
