"""What is measured with the events: processes, variations and systematic uncertainties, and the figure of merit."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.analyses.corrections import CorrectionError, affine_weight
from pipeline.config.model import Model

__all__ = ["Measurement", "Objective", "Process", "Systematic", "Variations", "with_corrections"]


class Process(Model):
    """One sample of the model. `title` is its name in the workspace and in plots."""

    title: str
    color: str = ""


class Systematic(Model):
    """One constrained nuisance parameter, in cabinetry's terms (agc-spec §8.1).

    `normalization`: a fixed relative size. `norm_plus_shape`: templates of varied events, named in `up` and `down`;
    without `down` the up variation is mirrored about the nominal template (normalise first, then mirror).
    """

    title: str
    type: Literal["normalization", "norm_plus_shape"]
    processes: tuple[str, ...] | None = None
    up: str | None = None
    down: str | None = None
    size: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Systematic":
        if self.type == "normalization" and self.size is None:
            raise ValueError("a normalization systematic needs 'size'")
        if self.type == "norm_plus_shape" and self.up is None:
            raise ValueError("a norm_plus_shape systematic needs 'up', the name of a variation")
        return self


class CorrectedWeight(Model):
    """A weight variation from a correction, with values for all inputs but the pt.

    That pt is the one of the selected jet of rank `jet`; the weight of a whole `process` depends on none.
    """

    jet: Annotated[int, Field(ge=0)] | None = None
    process: str | None = None
    inputs: dict[str, str | int | float]

    @model_validator(mode="after")
    def _one_target(self) -> "CorrectedWeight":
        if (self.jet is None) == (self.process is None):
            raise ValueError("give exactly one of 'jet' (its rank) and 'process'")
        return self


class Corrections(Model):
    """Weight variations that a correctionlib file defines; they join `jet_weight_slope` and `process_weight`.

    With the AGC's file: `btag_var_0_up: {jet: 0, inputs: {syst_name: btag_var, direction: up}}` under `weights`.
    """

    file: Path
    correction: str
    weights: dict[str, CorrectedWeight]


class Variations(Model):
    """How varied templates are made (agc-spec §7). Names are those that `systematics` refers to.

    `corrections` are read once, and stand in a loaded config as what they say: slopes and factors.
    """

    jet_pt_scale: dict[str, float] = {}
    jet_pt_resolution: dict[str, float] = {}
    resolution_branch: str = "resfac"
    jet_weight_slope: dict[str, tuple[Annotated[int, Field(ge=0)], float]] = {}
    process_weight: dict[str, tuple[str, float]] = {}
    samples: dict[str, str] = {}
    corrections: Corrections | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All variations, kinematic ones first."""
        return (
            *self.jet_pt_scale,
            *self.jet_pt_resolution,
            *self.jet_weight_slope,
            *self.process_weight,
            *self.samples,
        )


class Measurement(Model):
    """Parameter of interest and what it scales.

    `poi` scales the processes in `signal`; `free` maps further processes to the names of free norm factors. Bins with
    fewer effective simulated background events, (Σw)²/Σw², than `minimum_effective_events`, or with fewer expected
    background events than `minimum_background`, are merged with their neighbours; 0 leaves all bins as they are.
    `data` are what the workspace of a run calls observed: what the model expects (asimov), or templates mixed as
    `pseudodata` says, {process: {variation: share}}. What is tuned is always what is expected.
    """

    name: str
    poi: str
    signal: tuple[str, ...]
    free: dict[str, str] = {}
    bounds: tuple[float, float] = (0.0, 10.0)
    minimum_effective_events: Annotated[float, Field(ge=0)] = 10.0
    minimum_background: Annotated[float, Field(ge=0)] = 0.0
    data: Literal["asimov", "pseudodata"] = "asimov"
    pseudodata: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _data_are_defined(self) -> "Measurement":
        if self.data == "pseudodata" and not self.pseudodata:
            raise ValueError(
                "data: pseudodata needs 'pseudodata', which says what they are made of, "
                "such as {ttbar: {ME_var: 0.5, PS_var: 0.5}}"
            )
        return self


class Objective(Model):
    """What is maximised (a significance) or minimised (an uncertainty, a limit).

    `method` and `confidence_level` are those of the upper limit.
    """

    name: Literal[
        "discovery_significance", "signal_strength_uncertainty", "expected_upper_limit", "counting_significance"
    ] = "discovery_significance"
    method: Literal["CLs", "CLs+b"] = "CLs"
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95


def with_corrections(variations: Variations, corrections: Corrections) -> Variations:
    """The same variations with the weights of a correctionlib file as slopes and factors."""
    slopes, factors = dict(variations.jet_weight_slope), dict(variations.process_weight)
    for name, weight in corrections.weights.items():
        where = f"variations.corrections.weights.{name}"
        if name in variations.names:
            raise ValueError(f"{where}: the variation '{name}' is defined twice; remove one")
        try:
            constant, slope = affine_weight(corrections.file, corrections.correction, weight.inputs)
        except CorrectionError as error:
            raise ValueError(f"{where}: {error}") from None
        found = f"{where}: correction '{corrections.correction}' gives {constant:g} + {slope:g}·pt"
        if weight.process is not None:
            if slope != 0:
                raise ValueError(
                    f"{found}, but the weight of a process cannot depend on a pt; say which jet's with 'jet'"
                )
            factors[name] = (weight.process, constant)
        elif weight.jet is not None:
            if constant != 1:
                raise ValueError(f"{found}, but the weight by a jet must be 1 + slope·pt; choose another correction")
            slopes[name] = (weight.jet, slope)
    return variations.model_copy(update={"jet_weight_slope": slopes, "process_weight": factors, "corrections": None})
