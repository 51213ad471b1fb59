"""Templates: the histogram of every process under every variation, with the variance of the nominal one.

Every template is linear in the yields of `pipeline.events.yields` (data sets × kinematic variations × columns), so all
of them together are one contraction with a constant tensor, the `Recipe`. It holds the normalisation of the data sets,
which of them is a variation of which process, and how the variations weigh the events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int32

__all__ = [
    "DatasetRole",
    "Recipe",
    "Templates",
    "Variation",
    "average",
    "make_recipe",
    "make_templates",
    "merge_bins",
    "populated_bins",
]

_Merging = tuple[Float64[Array, ""], Float64[Array, ""], Int32[Array, ""]]
"""Of bins that are put together: expected events, squares of weights, and a place."""

NOMINAL = "nominal"
_SUM, _SUM_OF_SQUARES, _FIRST_FACTOR = 0, 1, 2
"""Columns of the yields (see `pipeline.events.yields`)."""


class Templates(eqx.Module, strict=True):
    """Expected events; regions stand side by side on the axis of bins. The first variation is the nominal one.

    A process to which a variation does not apply has its nominal template there. `variance` is that of the nominal
    template by the finite number of simulated events, `shift_variance` that of what each variation adds to it; None
    where nobody asks for it.
    """

    yields: Float64[Array, "variations processes bins"]
    variance: Float64[Array, "processes bins"]
    shift_variance: Float64[Array, "variations processes bins"] | None = None


class Recipe(eqx.Module, strict=True):
    """The constant tensors that turn yields into templates."""

    yields: Float64[Array, "variations processes kinematics datasets columns"]
    variance: Float64[Array, "processes datasets"]
    shift_variance: Float64[Array, "variations processes datasets"] | None = None

    def with_effects(self, effects: Float64[Array, " datasets"]) -> "Recipe":
        """With variances that know which events belong together."""
        return replace(self, variance=self.variance * effects[None])


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
    squares, shifts = yields[0, :, :, _SUM_OF_SQUARES], recipe.shift_variance
    return Templates(
        yields=jnp.einsum("vpkdc,kdbc->vpb", recipe.yields, yields),
        variance=jnp.einsum("pd,db->pb", recipe.variance, squares),
        shift_variance=None if shifts is None else jnp.einsum("vpd,db->vpb", shifts, squares),
    )


@dataclass(frozen=True)
class Variation:
    """A row of numbers over kinematic variations, columns of the yields and data sets; the nominal one by default.

    Attributes:
        name: of the variation; a data set of this role is used where a process has one.
        kinematic: number of the kinematic variation of the yields.
        nominal: coefficient of the weight itself.
        factors: coefficients of the weight times each factor, by its number.
        processes: that it acts on; all without it.
    """

    name: str
    kinematic: int = 0
    nominal: float = 1.0
    factors: Mapping[int, float] = field(default_factory=dict)
    processes: tuple[str, ...] | None = None


def make_recipe(
    processes: Sequence[str],
    variations: Sequence[Variation],
    kinematics: int,
    datasets: Sequence[DatasetRole],
    factors: int,
) -> Recipe:
    """The tensors for a set of processes and variations.

    Args:
        processes: names, in the order of the axis.
        variations: the nominal one first.
        kinematics: number of kinematic variations of the yields, the nominal one included.
        datasets: in the order of the yields.
        factors: number of factors of the weight in the yields.
    """
    shape = (len(variations), len(processes), kinematics, len(datasets), _FIRST_FACTOR + factors)
    tensor = np.zeros(shape)
    variance = np.zeros((len(processes), len(datasets)))
    for p, process in enumerate(processes):
        # Several data sets of one role, such as data-taking periods, add up.
        roles: dict[str, list[int]] = {}
        for d, role in enumerate(datasets):
            if role.process == process:
                roles.setdefault(role.variation, []).append(d)
        for d in roles[NOMINAL]:
            variance[p, d] = datasets[d].normalisation ** 2
        for v, variation in enumerate(variations):
            concerned = variation.processes is None or process in variation.processes
            for d in roles.get(variation.name, roles[NOMINAL]):
                row = tensor[v, p, variation.kinematic if concerned else 0, d]
                row[_SUM] = variation.nominal if concerned else 1.0
                for number, coefficient in variation.factors.items() if concerned else ():
                    row[_FIRST_FACTOR + number] = coefficient
                row *= datasets[d].normalisation
    return Recipe(yields=jnp.asarray(tensor), variance=jnp.asarray(variance))


def average(parts: Sequence[Templates]) -> Templates:
    """The templates of all events, from those that disjoint parts of them, equally large, give of the same whole."""
    share = 1.0 / len(parts)
    shifts = [part.shift_variance for part in parts if part.shift_variance is not None]
    return Templates(
        yields=share * sum((part.yields for part in parts[1:]), start=parts[0].yields),
        variance=share**2 * sum((part.variance for part in parts[1:]), start=parts[0].variance),
        shift_variance=share**2 * sum(shifts[1:], start=shifts[0]) if shifts else None,
    )


def merge_bins(made: Templates, into: Int32[Array, " bins"]) -> Templates:
    """The templates with the content of each bin moved into bin `into`; what was merged away stays empty.

    A number outside the axis drops the bin.
    """
    bins = into.shape[0]
    moved = (into[:, None] == jnp.arange(bins, dtype=jnp.int32)[None]).astype(jnp.float64)
    return jax.tree.map(lambda each: each @ moved, made)


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

    # No derivative: which bins are merged is a choice. Scans compile once what a loop over bins would repeat.
    places = first + jnp.arange(yields.shape[0], dtype=jnp.int32)
    bins = (*jax.lax.stop_gradient((yields, variance)), places)

    def take_in(state: _Merging, each: _Merging) -> tuple[_Merging, Int32[Array, ""]]:
        total, squares, start = state[0] + each[0], state[1] + each[1], state[2]
        full = enough(total, squares)
        rest = (jnp.where(full, 0.0, total), jnp.where(full, 0.0, squares), jnp.where(full, each[2] + 1, start))
        return rest, start

    zero = jnp.zeros(())
    _, into = jax.lax.scan(take_in, (zero, zero, jnp.asarray(first, jnp.int32)), bins)

    def find_last(state: _Merging, each: tuple[Array, ...]) -> tuple[_Merging, None]:
        total, squares, last = state[0] + each[0], state[1] + each[1], state[2]
        found = (last < 0) & (each[3] == each[2]) & enough(total, squares)
        return (total, squares, jnp.where(found, each[2], last)), None

    (_, _, last), _ = jax.lax.scan(find_last, (zero, zero, jnp.asarray(-1, jnp.int32)), (*bins, into), reverse=True)
    return jnp.where(last < 0, last, jnp.minimum(into, last))
