"""The analysis, from thresholds and events to the expected significance: one pure, differentiable function.

    yields ─▶ templates ─▶ HistFactory numbers ─▶ objective

Forward, each step is exact. Backward, the yields carry the boundary flux of the thresholds, templates and numbers are smooth
formulas, and the objective needs no differentiation through its fit. `Analysis` is static (hashable); `Data` is traced:
events are arguments of a compiled function, never constants in it.
"""

from typing import Literal, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float64

from pipeline import measurement
from pipeline.events import CandidateGroup, EventGroup
from pipeline.histfactory import Numbers, Structure
from pipeline.selection import Selection, Thresholds
from pipeline.significance import Significance, discovery_significance, signal_strength_uncertainty
from pipeline.templates import Recipe, Templates, make_templates
from pipeline.yields import Edges, Layout, hard_yields

__all__ = ["Analysis", "Data", "expected_yields", "model_numbers", "objective", "templates"]


class Analysis(NamedTuple):
    """Everything that shapes the compiled function."""

    selection: Selection
    layout: Layout
    measurement: measurement.Measurement
    structure: Structure
    objective: Literal["discovery_significance", "signal_strength_uncertainty"]


class Data(eqx.Module, strict=True):
    """Everything that is not a threshold and may be different at the next call without compiling again."""

    groups: tuple[EventGroup, ...]
    candidates: tuple[CandidateGroup, ...]
    recipe: Recipe
    edges: Edges


def expected_yields(
    analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data
) -> Float64[Array, "kinematics datasets bins columns"]:
    """Sums of event weights, exact; see `pipeline.yields`."""
    yields = hard_yields(analysis.selection, analysis.layout)
    return yields(thresholds, bandwidths, data.edges, data.groups, data.candidates)


def templates(analysis: Analysis, thresholds: Thresholds, bandwidths: Thresholds, data: Data) -> Templates:
    """Expected events of each process under each variation."""
    return make_templates(data.recipe, expected_yields(analysis, thresholds, bandwidths, data))


def model_numbers(analysis: Analysis, made: Templates) -> Numbers:
    """The numbers of the HistFactory model."""
    return measurement.numbers(analysis.measurement, analysis.structure, made)
