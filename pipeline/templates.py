"""Templates: the histogram of every process under every variation, with the variance of the nominal one.

Every template is linear in the yields of `pipeline.yields` (data sets × kinematic variations × columns), so all of them together
are one contraction with a constant tensor, the `Recipe`. It holds the normalisation of the data sets, which of
them is a variation of which process, and the slopes of the weight variations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64

__all__ = ["DatasetRole", "Recipe", "Templates", "effective_events", "make_recipe", "make_templates", "without_bins"]

NOMINAL = "nominal"
_SUM, _SUM_OF_SQUARES, _FIRST_RANK = 0, 1, 2
"""Columns of the yields (see `pipeline.yields`)."""


class Templates(eqx.Module, strict=True):
    """Expected events; regions stand side by side on the axis of bins. The first variation is the nominal one.

    A process to which a variation does not apply has its nominal template there. `variance` is that of the nominal
    template by the finite number of simulated events.
    """

    yields: Float64[Array, "variations processes bins"]
    variance: Float64[Array, "processes bins"]


class Recipe(eqx.Module, strict=True):
    """The constant tensors that turn yields into templates."""

    yields: Float64[Array, "variations processes kinematics datasets columns"]
    variance: Float64[Array, "processes datasets"]


@dataclass(frozen=True)
class DatasetRole:
    """What a data set is for: the nominal sample of a process, or an alternative one that is a variation of it.

    `normalisation` turns a sum of event weights into expected events.
    """

    process: str
    variation: str
    normalisation: float


def make_templates(recipe: Recipe, yields: Float64[Array, "kinematics datasets bins columns"]) -> Templates:
    """All templates at once."""
    return Templates(
        yields=jnp.einsum("vpkdc,kdbc->vpb", recipe.yields, yields),
        variance=jnp.einsum("pd,db->pb", recipe.variance, yields[0, :, :, _SUM_OF_SQUARES]),
    )


def make_recipe(
    processes: Sequence[str],
    variations: Sequence[str],
    kinematics: Sequence[str],
    datasets: Sequence[DatasetRole],
    slopes: Mapping[str, tuple[int, float]],
    factors: Mapping[str, tuple[str, float]],
    ranks: int,
) -> Recipe:
    """The tensors for a set of processes and variations.

    Args:
        processes: names, in the order of the axis.
        variations: names, `nominal` first.
        kinematics: names of the kinematic variations of the yields, `nominal` first.
        datasets: in the order of the yields.
        slopes: weight variations 1 + slope · pt of the selected jet of a rank, as (rank, slope).
        factors: weight variations of a single process, as (process, factor).
        ranks: jet ranks in the yields.
    """
    shape = (len(variations), len(processes), len(kinematics), len(datasets), _FIRST_RANK + ranks)
    tensor = np.zeros(shape)
    variance = np.zeros((len(processes), len(datasets)))
    for p, process in enumerate(processes):
        found = {role.variation: d for d, role in enumerate(datasets) if role.process == process}
        nominal = found[NOMINAL]
        variance[p, nominal] = datasets[nominal].normalisation ** 2
        for v, variation in enumerate(variations):
            d = found.get(variation, nominal)
            k = kinematics.index(variation) if variation in kinematics else 0
            row = tensor[v, p, k, d]
            row[_SUM] = 1
            if variation in slopes:
                rank, slope = slopes[variation]
                row[_FIRST_RANK + rank] = slope
            if variation in factors and factors[variation][0] == process:
                row[_SUM] = factors[variation][1]
            row *= datasets[d].normalisation
    return Recipe(yields=jnp.asarray(tensor), variance=jnp.asarray(variance))


def effective_events(made: Templates, processes: Sequence[int]) -> Float64[Array, " bins"]:
    """(Σw)² / Σw² of some processes together in each bin: how many unweighted events would have the same relative error."""
    yields, variance = made.yields[0][np.array(processes)].sum(axis=0), made.variance[np.array(processes)].sum(axis=0)
    filled = variance > 0
    return jnp.where(filled, yields**2 / jnp.where(filled, variance, 1.0), 0.0)


def without_bins(made: Templates, keep: Bool[Array, " bins"]) -> Templates:
    """The templates with nothing in the bins that are not kept: such a bin says nothing in a likelihood."""
    return Templates(
        yields=jnp.where(keep, made.yields, 0.0),
        variance=jnp.where(keep, made.variance, 0.0),
    )
