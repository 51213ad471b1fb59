"""A small part of the simulated events to tune cuts on, and independent ones that tell what the cuts are worth.

Parts are made by lot, collision by collision, so no two parts share one. Some of the independent events make further
samples of the size of the first: a significance with 10,000 simulated events is not the one with a million, because the
statistical errors of the templates are part of the likelihood, so a claim is to be compared with its like.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import awkward as ak
import numpy as np
from pipeline.analysis import Analysis, Data
from pipeline.config import Config
from pipeline.division import with_design
from pipeline.events.split import lots
from pipeline.ingest.samples import Sample
from pipeline.names import names_of
from pipeline.parts import make_data
from pipeline.translation import default_thresholds, make_analysis

__all__ = ["Parts", "divide_by_lot", "with_rule"]


@dataclass(frozen=True)
class Parts:
    """`training` events, `alike` samples of the same size, and all events but the training ones: `independent`."""

    training: Data
    alike: tuple[Data, ...]
    independent: Data


def with_rule(config: Config, minimum: float, datasets: int) -> Analysis:
    """The analysis with another least number of effective background events in a bin."""
    measurement = config.measurement.model_copy(update={"minimum_effective_events": minimum})
    return make_analysis(config.model_copy(update={"measurement": measurement}), names_of(config), datasets)


def divide_by_lot(config: Config, samples: Sequence[Sample], events: int, alike: int) -> Parts:
    """Parts of about so many events, all data sets in proportion; the seed of the config draws the lots.

    Raises:
        ValueError: there are too few events for so many parts.
    """
    total = sum(len(sample.events) for sample in samples)
    share = events / total
    if (1 + alike) * share > 1:
        raise ValueError(
            f"{1 + alike} samples of {events} events need more than the {total} there are; ask for fewer events"
        )
    drawn = [lots(config.seed, ak.to_numpy(sample.events.collision).astype(np.uint64)) for sample in samples]
    small = [[(lot >= number * share) & (lot < (number + 1) * share) for lot in drawn] for number in range(1 + alike)]
    rest = [lot >= share for lot in drawn]
    names = names_of(config)
    analysis = make_analysis(config, names, len(samples))
    parts = make_data(config, names, analysis, samples, [*small, rest])
    training, *others, independent = with_design(analysis, default_thresholds(config), samples, parts)
    return Parts(training, tuple(others), independent)
