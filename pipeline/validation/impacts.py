"""What limits a measurement: the impact of every parameter on the expected signal strength, by fits to Asimov data."""

from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

from pipeline.inference.fit import covariance, fit_at_once
from pipeline.inference.histfactory import (
    Numbers,
    Structure,
    asimov_data,
    constraint_widths,
    modifiers_of,
    nominal_parameters,
    parameter_names,
)
from pipeline.inference.histfactory.constraints import constrained_positions
from pipeline.inference.histfactory.model import first_parameter
from pipeline.inference.postfit import impacts as of_all
from pipeline.inference.significance import poi_position

__all__ = ["STATISTICS", "Impact", "impacts"]

STATISTICS = "simulated statistics"
"""The name of all errors by the finite number of simulated events together."""


@dataclass(frozen=True)
class Impact:
    """What one parameter does to the expected measurement of the signal strength μ, the others fitted again.

    Attributes:
        parameter: its name.
        up, down: change of μ with the parameter one standard deviation of the fit higher, and lower.
        prefit_up, prefit_down: likewise one standard deviation of its constraint; NaN without constraint.
        width: the standard deviation of the fit, in units of that of the constraint: below 1, the expected data know
            more than those who stated it. Of a free parameter, the standard deviation itself; NaN of a group.
        constrained: whether there is a constraint.
        converged: whether all fits did.
    """

    parameter: str
    up: float
    down: float
    prefit_up: float
    prefit_down: float
    width: float
    constrained: bool = True
    converged: bool = True

    @property
    def size(self) -> float:
        """The larger of the two changes."""
        return max(abs(self.up), abs(self.down))


def impacts(structure: Structure, numbers: Numbers) -> tuple[Impact, ...]:
    """Every parameter of the model but the signal strength, largest impact first; those of bins as one group.

    Fits run by NumPy, on Asimov data, of which the best fit is known: signal strength 1, all else where the auxiliary
    data put it. The group of `staterror` and `shapesys` takes no fits: its impact is the root of what the variance of μ
    loses if all of them are known (in Gaussian approximation).
    """
    numbers = jax.tree.map(np.asarray, numbers)
    poi, names, places = poi_position(structure, None), parameter_names(structure), np.arange(structure.size)
    truth = np.where(places == poi, 1.0, nominal_parameters(structure, numbers))
    data = np.asarray(asimov_data(structure, numbers, truth))
    best = fit_at_once(structure, numbers, data, initial=truth)
    by_bin, constrained = _by_bin(structure), np.isin(places, constrained_positions(structure, "normal", "poisson"))
    stated = np.asarray(constraint_widths(structure, numbers))
    errors = np.asarray(covariance(structure, numbers, data, best.parameters, best.free))
    found = of_all(structure, numbers, data, best, among=~by_bin)
    rows = []
    for place in np.flatnonzero(found.tested):
        up, down, prefit_up, prefit_down = (
            float(side[place]) for side in (found.postfit_up, found.postfit_down, found.prefit_up, found.prefit_down)
        )
        rows.append(
            Impact(
                parameter=names[place],
                up=up,
                down=down,
                prefit_up=prefit_up,
                prefit_down=prefit_down,
                width=float(np.sqrt(errors[place, place]) / stated[place]),
                constrained=bool(constrained[place]),
                converged=bool(found.converged[place]),
            )
        )
    group = np.flatnonzero(by_bin & np.asarray(best.free) & (np.diag(errors) > 0))
    if len(group):
        along = errors[poi, group]
        size = float(np.sqrt(max(along @ np.linalg.pinv(errors[np.ix_(group, group)]) @ along, 0.0)))
        rows.append(Impact(STATISTICS, size, -size, np.nan, np.nan, np.nan))
    return tuple(sorted(rows, key=lambda impact: -impact.size))


def _by_bin(structure: Structure) -> NDArray[np.bool_]:
    """The parameters that each stand for the simulated events of one bin."""
    names = {m.name for kind in ("staterror", "shapesys") for m in modifiers_of(structure, kind)}
    first, chosen = first_parameter(structure), np.zeros(structure.size, bool)
    for each in structure.parameter_sets:
        if each.name in names:
            chosen[first[each.name] : first[each.name] + each.size] = True
    return chosen
