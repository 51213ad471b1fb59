"""The auxiliary measurements: how wide each constraint is, which parameters are free, what was observed.

Two widths follow from the yields, and so they carry derivatives. A staterror's parameter multiplies the sum of its
samples, and its Gaussian width is `sqrt(sum of sigma**2) / sum of nominal`. A shapesys counts
`tau = (nominal / sigma)**2` auxiliary events, and its constraint is the Poisson probability of `tau` given
`gamma * tau`. Where a bin has no yield or no uncertainty there is nothing to measure: the parameter is held at its
start and its width is read as 1, as in pyhf.
"""

from collections.abc import Callable
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, namespace
from pipeline.inference.histfactory.model import (
    Modifier,
    Numbers,
    ParameterSet,
    Structure,
    first_parameter,
    modifiers_of,
)
from pipeline.inference.histfactory.modifiers import bin_table, parameter_of_bins

__all__ = [
    "auxdata",
    "bounds",
    "constrained_places",
    "constrained_positions",
    "constraint_widths",
    "free_parameters",
    "initial_parameters",
    "interpolated_positions",
    "kinked_parameters",
    "nominal_parameters",
    "starts",
]


def constraint_widths(structure: Structure, numbers: Numbers) -> Float64[Array, " parameters"]:
    """The width of every Gaussian constraint and the factor of every Poisson one; 1 without constraint."""
    widths = namespace(numbers).concatenate([numbers.constraint_width, *_derived_widths(structure, numbers)])
    return widths[_places(structure, _has_derived_width)]


def free_parameters(structure: Structure, numbers: Numbers) -> Bool[Array, " parameters"]:
    """Which parameters a fit may move."""
    _, staterror = _staterror_widths(structure, numbers)
    _, shapesys = _shapesys_factors(structure, numbers)
    held = np.array([flag for one in structure.parameter_sets for flag in one.fixed or (False,) * one.size], dtype=bool)
    return namespace(numbers).concatenate([~held, staterror, shapesys])[_places(structure, _is_held_by_numbers)]


@lru_cache(maxsize=256)
def constrained_positions(structure: Structure, *constraints: str) -> Int[np.ndarray, " constrained"]:
    """The positions of the parameters with these kinds of constraint ('normal', 'poisson')."""
    kinds = [s.constraint for s in structure.parameter_sets for _ in range(s.size)]
    return np.flatnonzero([kind in constraints for kind in kinds])


@lru_cache(maxsize=256)
def constrained_places(structure: Structure) -> Int[np.ndarray, " parameters"]:
    """The place of each parameter's auxiliary datum among all of them; behind the last one if it has none."""
    positions = constrained_positions(structure, "normal", "poisson")
    places = np.full(structure.size, len(positions))
    places[positions] = np.arange(len(positions))
    return places


def auxdata(structure: Structure, numbers: Numbers) -> Float64[Array, " aux"]:
    """The observed auxiliary data, in pyhf's order: that of the constrained parameters."""
    sets = structure.parameter_sets
    stated = np.array([a for s in sets for a in (s.auxdata or (np.nan,) * s.size)], dtype=np.float64)
    # A count that is not stated follows from the bins, even where its factor is stated: pyhf's rule.
    xp = namespace(numbers)
    counts = xp.concatenate([xp.ones(structure.size, np.float64), *_derived_widths(structure, numbers)])
    observed = xp.where(np.isnan(stated), counts[_places(structure, _has_derived_auxdata)], stated)
    return observed[constrained_positions(structure, "normal", "poisson")]


def initial_parameters(structure: Structure) -> Float64[Array, " parameters"]:
    """Where a fit starts: pyhf's `suggested_init`."""
    return jnp.asarray(starts(structure))


def starts(structure: Structure) -> Float64[np.ndarray, " parameters"]:
    """`initial_parameters`, static."""
    return np.array([value for s in structure.parameter_sets for value in s.initial], dtype=np.float64)


def bounds(structure: Structure) -> tuple[Float64[np.ndarray, " parameters"], Float64[np.ndarray, " parameters"]]:
    """Lower and upper bound of every parameter: pyhf's `suggested_bounds`."""
    table = np.array([pair for s in structure.parameter_sets for pair in s.bounds], dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def kinked_parameters(structure: Structure) -> Bool[np.ndarray, " parameters"]:
    """The parameters at whose zero the likelihood has a kink: those that interpolate by code 0 or code 1."""
    kinds = [("normsys", structure.normsys_code == "code1"), ("histosys", structure.histosys_code == "code0")]
    names = {one.name for kind, kinked in kinds if kinked for one in structure.modifiers if one.kind == kind}
    return np.array([one.name in names for one in structure.parameter_sets for _ in range(one.size)], dtype=bool)


def interpolated_positions(structure: Structure) -> Int[np.ndarray, " interpolated"]:
    """The positions of the parameters that interpolate between variations: those of normsys and histosys."""
    first = first_parameter(structure)
    names = {one.name for one in structure.modifiers if one.kind in ("normsys", "histosys")}
    return np.array(sorted(first[name] for name in names), dtype=np.int64)


def nominal_parameters(structure: Structure, numbers: Numbers) -> Float64[Array, " parameters"]:
    """What the auxiliary data say of every parameter that a fit may move; its start where they say nothing."""
    positions = constrained_positions(structure, "normal", "poisson")
    normal = np.isin(positions, constrained_positions(structure, "normal"))
    xp, initial = namespace(numbers), starts(structure)
    scale = xp.where(normal, 1.0, constraint_widths(structure, numbers)[positions])
    places = constrained_places(structure)
    measured = xp.concatenate([auxdata(structure, numbers) / scale, xp.zeros(1, np.float64)])[places]
    moves = free_parameters(structure, numbers) & (places < len(positions))
    return xp.where(moves, measured, initial)


def _staterror_widths(
    structure: Structure, numbers: Numbers
) -> tuple[Float64[Array, " staterror_bins"], Bool[Array, " staterror_bins"]]:
    """Relative uncertainty of the sum of samples, and whether there is one, for each modifier and bin."""
    xp, modifiers = namespace(numbers), modifiers_of(structure, "staterror")
    acts = _bin_tables(structure, modifiers)
    sigma = xp.where(acts, xp.broadcast_to(numbers.staterror, acts.shape), 0.0)
    variance = xp.sum(sigma**2, axis=1).ravel()
    total = xp.sum(xp.where(acts, numbers.nominal[None], 0.0), axis=1).ravel()
    measured = (variance > 0) & (total > 0)
    width = xp.sqrt(xp.where(measured, variance, 1.0)) / xp.where(measured, total, 1.0)
    return width, measured


def _shapesys_factors(
    structure: Structure, numbers: Numbers
) -> tuple[Float64[Array, " shapesys_bins"], Bool[Array, " shapesys_bins"]]:
    """The number of auxiliary events `tau`, and whether there are any, for each modifier and bin."""
    xp, acts = namespace(numbers), _bin_tables(structure, modifiers_of(structure, "shapesys"))
    nominal = xp.sum(xp.where(acts, numbers.nominal[None], 0.0), axis=1).ravel()
    sigma = numbers.shapesys.ravel()
    measured = (nominal > 0) & (sigma > 0)
    tau = xp.where(measured, nominal, 1.0) ** 2 / xp.where(measured, sigma, 1.0) ** 2
    return tau, measured


def _derived_widths(
    structure: Structure, numbers: Numbers
) -> tuple[Float64[Array, " staterror_bins"], Float64[Array, " shapesys_bins"]]:
    """The widths and factors that follow from the yields, for each modifier and bin."""
    staterror, _ = _staterror_widths(structure, numbers)
    shapesys, _ = _shapesys_factors(structure, numbers)
    return staterror, shapesys


def _bin_tables(structure: Structure, modifiers: tuple[Modifier, ...]) -> Bool[np.ndarray, "modifiers samples bins"]:
    tables = [bin_table(structure, modifier) for modifier in modifiers]
    return np.array(tables, dtype=bool).reshape(-1, len(structure.samples), structure.bins)


def _has_derived_width(parameter_set: ParameterSet) -> bool:
    return parameter_set.width != "stated"


def _has_derived_auxdata(parameter_set: ParameterSet) -> bool:
    return parameter_set.auxdata is None


def _is_held_by_numbers(parameter_set: ParameterSet) -> bool:
    return parameter_set.fixed is None


def _places(structure: Structure, follows: Callable[[ParameterSet], bool]) -> Int[np.ndarray, " parameters"]:
    """Where to read a property of each parameter in [stated ones, staterror modifiers x bins, shapesys x bins].

    It is read from the bins for those parameter sets in which it follows from the numbers.
    """
    sets = {parameter_set.name: parameter_set for parameter_set in structure.parameter_sets}
    places = np.arange(structure.size)
    start = structure.size
    for modifier in (*modifiers_of(structure, "staterror"), *modifiers_of(structure, "shapesys")):
        if follows(sets[modifier.name]):
            parameters = parameter_of_bins(structure, modifier)
            touched = np.flatnonzero(parameters >= 0)
            places[parameters[touched]] = start + touched
        start += structure.bins
    return places
