"""How well the varied templates of a run are known, and what has been done about their noise, in numbers and words."""

from collections.abc import Mapping
from typing import Any

from pipeline.analysis import templates_at
from pipeline.events.cuts import arrays
from pipeline.inference.varied import qualities
from pipeline.problem import Problem

__all__ = ["about_variations", "in_a_sentence"]

NOISE = 0.5
"""Of a size, the statistical error that is worth a warning."""


def about_variations(problem: Problem, thresholds: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the validation events at some thresholds, as in result.json; None where nothing is done about noise."""
    measured = problem.analysis.measurement
    if not measured.treats_variations:
        return None
    found = qualities(measured, templates_at(problem.analysis, arrays(thresholds), problem.validation))
    return {
        **problem.config.measurement.variations.model_dump(),
        "systematics": {
            name: {
                "relative_error": each.error,
                "shapes_pruned": each.pruned[0],
                "yields_pruned": each.pruned[1],
                "templates": each.of,
            }
            for name, each in found.items()
        },
    }


def in_a_sentence(about: Mapping[str, Any]) -> str:
    """What was done, and which variations are mostly noise."""
    of = about["systematics"]
    done, number = [], sum(each["templates"] for each in of.values())
    if about["smoothing"]:
        done.append(f"{number} shapes are smoothed over {about['smoothing']:g} bins")
    if about["pruning"]:
        shapes, scales = (sum(each[key] for each in of.values()) for key in ("shapes_pruned", "yields_pruned"))
        done.append(f"{shapes} of {number} shapes and {scales} changes of the yield are below {about['pruning']:g}")
    if about["uncertainty"]:
        done.append("their statistical errors count with those of the nominal templates")
    noisy = [name for name, each in of.items() if (each["relative_error"] or 0.0) > NOISE]
    more = f" More than half noise: {', '.join(noisy)}." if noisy else ""
    return f"Varied templates, on validation events: {'; '.join(done)}.{more}"
