"""Templates: the histogram of every process under every variation, with the variance of the nominal one.

Every template is linear in the yields of `pipeline.events.yields` (data sets × kinematic variations × columns), so all of
them together are one contraction with a constant tensor, the `Recipe`. It holds the normalisation of the data sets,
which of them is a variation of which process, and the slopes of the weight variations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int32

__all__ = [
    "DatasetRole",
    "Recipe",
    "Templates",
    "average",
    "make_recipe",
    "make_templates",
    "merge_bins",
    "populated_bins",
]

NOMINAL = "nominal"
_SUM, _SUM_OF_SQUARES, _FIRST_RANK = 0, 1, 2
"""Columns of the yields (see `pipeline.events.yields`)."""


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


def average(parts: Sequence[Templates]) -> Templates:
    """The templates of all events, from those that disjoint parts of them, equally large, give of the same whole."""
    share = 1.0 / len(parts)
    return Templates(
        yields=share * sum((part.yields for part in parts[1:]), start=parts[0].yields),
        variance=share**2 * sum((part.variance for part in parts[1:]), start=parts[0].variance),
    )


def merge_bins(made: Templates, into: Int32[Array, " bins"]) -> Templates:
    """The templates with the content of each bin moved into bin `into`; what was merged away stays empty.

    A number outside the axis drops the bin.
    """
    bins = into.shape[0]
    moved = (into[:, None] == jnp.arange(bins, dtype=jnp.int32)[None]).astype(jnp.float64)
    return Templates(yields=made.yields @ moved, variance=made.variance @ moved)


def populated_bins(
    yields: Float64[Array, " bins"],
    variance: Float64[Array, " bins"],
    minimum_effective: float,
    minimum_expected: float,
    first: int,
) -> Int32[Array, " bins"]:
    """Which bin each bin of one region is merged into, so that every bin has enough events, simulated and expected.

    From left to right, a bin takes in its right neighbours until it has enough. What is left over at the end joins the
    last bin that has, and takes in more of them where their sum has not: events of larger weight lower the effective
    number. A region without enough events altogether is dropped (−1).

    Args:
        yields: of the bins of the region, which start at `first` on the joint axis.
        variance: of the same.
        minimum_effective: effective number of simulated events, (Σw)²/Σw².
        minimum_expected: expected events.
        first: position of the region's first bin.
    """

    def enough(total: Float64[Array, ""], squares: Float64[Array, ""]) -> Bool[Array, ""]:
        simulated = (total**2 >= minimum_effective * squares) & (squares > 0)
        return simulated & (total > 0) & (total >= minimum_expected)

    bins = yields.shape[0]
    zero = jnp.zeros(())
    total, squares, start = zero, zero, jnp.asarray(first, jnp.int32)
    starts = []
    for number in range(bins):
        total, squares = total + yields[number], squares + variance[number]
        starts.append(start)
        full = enough(total, squares)
        start = jnp.where(full, jnp.int32(first + number + 1), start)
        total, squares = jnp.where(full, 0.0, total), jnp.where(full, 0.0, squares)
    into = jnp.stack(starts)

    total, squares, last = zero, zero, jnp.asarray(-1, jnp.int32)
    for number in reversed(range(bins)):
        total, squares = total + yields[number], squares + variance[number]
        is_start = into[number] == first + number
        last = jnp.where((last < 0) & is_start & enough(total, squares), jnp.int32(first + number), last)
    return jnp.where(last < 0, last, jnp.minimum(into, last))
