"""What an analysis is tuned for: the figures of merit a config may name, all functions of the numbers of the model.

- discovery_significance: Z with which the absence of signal is excluded; larger is better.
- signal_strength_uncertainty: expected uncertainty of the measured signal strength; smaller is better.
- expected_upper_limit: median limit on the signal strength if there is no signal; smaller is better.
- counting_significance: s / sqrt(b + σ²), a rule of thumb to check the others by; larger is better.

A new one is one function: `(structure, numbers, objective) -> Merit`, entered by `register`.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float64, Int

from pipeline.inference.expected_limit import expected_upper_limit
from pipeline.inference.histfactory import Numbers, Structure
from pipeline.inference.histfactory.constraints import constrained_positions, constraint_widths, nominal_parameters
from pipeline.inference.histfactory.likelihood import expected_rates
from pipeline.inference.significance import (
    counting_significance,
    discovery_significance,
    poi_position,
    signal_strength_uncertainty,
)

__all__ = ["OBJECTIVES", "Entry", "Merit", "Objective", "figure_of_merit", "loss_of", "register"]


class Merit(eqx.Module):
    """How good the analysis is expected to be, and whether to believe it.

    Attributes:
        value: of the objective.
        converged: whether the fit behind it did.
        gradient_norm: what was left of the gradient of the likelihood at the end of the fit; 0 without a fit.
        iterations: of the fit; 0 without one.
    """

    _: KW_ONLY
    value: Float64[Array, ""]
    converged: Bool[Array, ""]
    gradient_norm: Float64[Array, ""]
    iterations: Int[Array, ""]

    def __repr__(self) -> str:
        """With its numbers."""
        return str(eqx.tree_pformat(self, short_arrays=False))


@dataclass(frozen=True)
class Objective:
    """The figure of merit; `method` and `confidence_level` are those of the upper limit."""

    name: str
    method: Literal["CLs", "CLs+b"] = "CLs"
    confidence_level: float = 0.95

    @property
    def larger_is_better(self) -> bool:
        """Whether it is maximised."""
        return _entry(self).larger_is_better

    @property
    def symbol(self) -> str:
        """What it is called in a table."""
        return _entry(self).symbol


Function = Callable[[Structure, Numbers, Objective], Merit]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A figure of merit in the registry: a differentiable function of the numbers, and how to speak of it."""

    name: str
    symbol: str
    larger_is_better: bool
    function: Function


OBJECTIVES: dict[str, Entry] = {}


def register(*, symbol: str, larger_is_better: bool) -> Callable[[Function], Function]:
    """Enter a function, by its own name, among the figures of merit."""

    def enter(function: Function) -> Function:
        name = function.__name__.removeprefix("_")
        OBJECTIVES[name] = Entry(name=name, symbol=symbol, larger_is_better=larger_is_better, function=function)
        return function

    return enter


def loss_of(objective: Objective, merit: Merit) -> Float64[Array, ""]:
    """What an optimiser minimises."""
    return -merit.value if objective.larger_is_better else merit.value


def figure_of_merit(objective: Objective, structure: Structure, numbers: Numbers) -> Merit:
    """What is expected of the measurement, from the numbers of its model.

    Raises:
        ValueError: there is no such objective.
    """
    return _entry(objective).function(structure, numbers, objective)


def _entry(objective: Objective) -> Entry:
    if objective.name not in OBJECTIVES:
        raise ValueError(f"objective {objective.name!r} is not known; choose one of {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[objective.name]


@register(symbol="Z", larger_is_better=True)
def _discovery_significance(structure: Structure, numbers: Numbers, _: Objective) -> Merit:
    expected = discovery_significance(structure, numbers)
    return _merit(expected.z, expected.converged, expected.null_fit.gradient_norm, expected.null_fit.iterations)


@register(symbol="σ(μ)", larger_is_better=False)
def _signal_strength_uncertainty(structure: Structure, numbers: Numbers, _: Objective) -> Merit:
    measured = signal_strength_uncertainty(structure, numbers)
    return _merit(measured.uncertainty, measured.converged)


@register(symbol="μ up", larger_is_better=False)
def _expected_upper_limit(structure: Structure, numbers: Numbers, objective: Objective) -> Merit:
    limit = expected_upper_limit(
        structure, numbers, method=objective.method, confidence_level=objective.confidence_level
    )
    return _merit(limit.mu, limit.converged, limit.fit.gradient_norm, limit.fit.iterations)


@register(symbol="s/√(b+σ²)", larger_is_better=True)
def _counting_significance(structure: Structure, numbers: Numbers, _: Objective) -> Merit:
    return _merit(_counting(structure, numbers), jnp.asarray(True))


def _merit(
    value: Float64[Array, ""],
    converged: Bool[Array, ""],
    gradient_norm: Float64[Array, ""] | None = None,
    iterations: Int[Array, ""] | None = None,
) -> Merit:
    return Merit(
        value=value,
        converged=converged,
        gradient_norm=jnp.zeros(()) if gradient_norm is None else gradient_norm,
        iterations=jnp.zeros((), jnp.int32) if iterations is None else iterations,
    )


def _counting(structure: Structure, numbers: Numbers) -> Float64[Array, ""]:
    """From signal and background of each bin and the background's uncertainty, to first order in all constraints."""
    nominal = nominal_parameters(structure, numbers)
    poi = poi_position(structure, None)
    without, with_signal = nominal.at[poi].set(0.0), nominal.at[poi].set(1.0)

    def background(parameters: Float64[Array, " parameters"]) -> Float64[Array, " bins"]:
        return expected_rates(structure, numbers, parameters)

    slopes = jax.jacfwd(background)(without)
    width = constraint_widths(structure, numbers)
    normal, poisson = (constrained_positions(structure, kind) for kind in ("normal", "poisson"))
    # A Poisson constraint of factor τ is τ expected events of a side measurement: relative width 1/√τ.
    normal_shifts = slopes[:, normal] * width[None, normal]
    poisson_shifts = slopes[:, poisson] / jnp.sqrt(width[None, poisson])
    shifts = jnp.concatenate([normal_shifts, poisson_shifts], axis=1)
    b = background(without)
    return counting_significance(background(with_signal) - b, b, jnp.sqrt(jnp.sum(shifts**2, axis=1)))
