"""A fixed, small run, and every number of it that a change of the code must not move unnoticed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.ingest.samples import Sample
from pipeline.problem import divide, read
from pipeline.tuning.tune import Tuned, tune
from pipeline.validation.crosscheck import cross_check
from pipeline.validation.outcome import judge

ROOT = Path(__file__).parents[2]
REFERENCE = Path(__file__).parent / "reference.json"
SETTINGS = {"optimiser": {"steps": 12}, "validation": {"bootstrap": 4}}


def samples() -> tuple[Sample, ...]:
    return read(load_config(ROOT / "configs" / "quickstart.yaml", SETTINGS))


def numbers(events: tuple[Sample, ...], seed: int = 1, chunk: int | None = None) -> dict[str, float]:
    """The run's own result, flat.

    Other chunks add the same numbers in another order, as another compiler or processor does.
    """
    settings = SETTINGS | {"seed": seed, "data": {"chunk": chunk}}
    config = load_config(ROOT / "configs" / "quickstart.yaml", settings)
    prepared = divide(config, events).with_bandwidths()
    outcome = judge([Tuned(prepared, tuple(tune(prepared)))])
    by_pyhf = {f"pyhf, Z {when}": cross_check(outcome.workspaces[when]).significance for when in ("before", "after")}
    return dict(_of_interest(outcome.as_json())) | by_pyhf


def _of_interest(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for part, compared in found["compared"].items():
        for when in ("before", "after", "change"):
            yield f"{part}, {when}", compared[when]["value"]
    for name, one in found["thresholds"].items():
        if one["trainable"]:
            yield f"threshold {name}", one["after"]
            yield f"gradient {name}", one["gradient"]["value"]
            yield f"error of gradient {name}", one["gradient"]["error"]
    for when in ("before", "after"):
        yield f"pyhf, uncertainty {when}", found["pyhf"][when]["signal_strength_uncertainty"]
