"""Outcomes made by hand: one step, and whatever is said of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import awkward as ak
import jax.numpy as jnp
import numpy as np
from pipeline.config import Config
from pipeline.inference.objectives import Merit
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.samples import Sample
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import defaults, ranges
from pipeline.validation.comparison import Comparison
from pipeline.validation.crosscheck import PyhfResult
from pipeline.validation.outcome import Outcome


def simulated(config: Config) -> Sample:
    """Two simulated events."""
    dataset = load_manifest(config.data.manifest).dataset("simulated", "ttbar", "nominal")
    return Sample(dataset, ak.Array({"event": np.arange(2, dtype=np.uint64)}), 2)


def merit_of(value: float) -> Merit:
    return Merit(
        value=jnp.asarray(value, jnp.float64),
        converged=jnp.asarray(True),
        gradient_norm=jnp.asarray(0.0),
        iterations=jnp.asarray(0),
    )


def step_at(config: Config, moved: Mapping[str, float], pulls: Mapping[str, float]) -> Step:
    """The only step of a run; `pulls` are its derivatives in units of their errors, 0 where nothing is said."""
    at = {name: moved.get(name, config.thresholds[name].threshold) for name in ranges(config)}
    return Step(
        number=0,
        thresholds=at,
        bandwidths={name: r.bandwidth for name, r in ranges(config).items()},
        loss=-5.0,
        merit=merit_of(5.0),
        gradient={name: pulls.get(name, 0.0) for name in at},
        error=dict.fromkeys(at, 1.0),
        monitored=-5.0,
        best_loss=-5.0,
        best=at,
        best_number=0,
        lowest=-5.0,
        waited=0,
        following=at,
        state=None,
    )


def outcome_of(
    config: Config,
    comparison: Comparison,
    moved: Mapping[str, float],
    *,
    pulls: Mapping[str, float] | None = None,
    parts: Sequence[str] = ("training", "validation"),
    pyhf: PyhfResult | None = None,
    complete: bool = True,
    path: Path | None = None,
) -> Outcome:
    """An outcome whose fits agree with pyhf, if nothing else is said."""
    history = (step_at(config, moved, pulls or {}),)
    values = {"before": comparison.before.value, "after": comparison.after.value}
    return Outcome(
        config=config,
        larger_is_better=config.objective.name == "discovery_significance",
        before=defaults(config),
        after=defaults(config) | history[0].thresholds,
        folds=(),
        history=history,
        complete=complete,
        comparisons=dict.fromkeys(parts, comparison),
        workspaces={},
        pyhf={name: pyhf or PyhfResult(value, 1.0, uncertainty=value) for name, value in values.items()},
        merits={name: merit_of(value) for name, value in values.items()},
        importance={},
        measured={},
        merged_bins={"before": 0, "after": 0},
        left_out={},
        shared_events={},
        samples=(simulated(config),),
        seconds={},
        path=path,
    )
