"""Pseudo-experiments: test statistics where the asymptotic formulas fail, many fits at once.

A toy fluctuates the events of every bin and every auxiliary measurement, at given parameters. A fit that does not
converge is counted and left out; it never enters a p-value.
"""

from dataclasses import KW_ONLY
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Bool, Float64, Int, PRNGKeyArray

from pipeline.inference.fit import fit
from pipeline.inference.histfactory.arrays import Array, hosted
from pipeline.inference.histfactory.constraints import constrained_positions, constraint_widths, initial_parameters
from pipeline.inference.histfactory.likelihood import expected_data
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.significance import discovery_significance, tested_position

__all__ = ["Discovery", "Statistics", "discovery_by_toys", "p_value", "pseudo_data", "toy_statistics"]

TOGETHER = 250  # fits side by side: more need memory and are no faster

Statistic = Literal["q0", "qmu"]


class Statistics(eqx.Module):
    """Test statistics of pseudo-experiments, and which of them count: those whose fits converged."""

    _: KW_ONLY
    values: Float64[Array, " toys"]
    converged: Bool[Array, " toys"]

    @property
    def failed(self) -> Int[Array, ""]:
        """How many toys were left out."""
        return jnp.sum(~self.converged)


class Discovery(eqx.Module):
    """The significance of the observed data by pseudo-experiments without signal.

    Attributes:
        q0: of the observed data.
        p_value: of the toys that counted, the share with at least that q0, with its binomial uncertainty.
        z: the significance; 0 where the data show no excess, infinite where no toy reached q0.
        asymptotic_z: the root of q0.
        failed: toys that were left out, because a fit did not converge.
    """

    _: KW_ONLY
    q0: Float64[Array, ""]
    p_value: tuple[Float64[Array, ""], Float64[Array, ""]]
    z: Float64[Array, ""]
    asymptotic_z: Float64[Array, ""]
    failed: Int[Array, ""]


def pseudo_data(
    structure: Structure,
    numbers: Numbers,
    parameters: Float64[Array, " parameters"],
    key: PRNGKeyArray,
    toys: int,
) -> Float64[Array, "toys data"]:
    """Pseudo-experiments at given parameters, auxiliary data after the bins. A negative expectation counts as none."""
    expected = expected_data(structure, numbers, parameters)
    positions = constrained_positions(structure, "normal", "poisson")
    is_normal = np.isin(positions, constrained_positions(structure, "normal"))
    gaussian = np.concatenate([np.zeros(structure.bins, dtype=bool), is_normal])
    width = jnp.concatenate([jnp.ones(structure.bins, jnp.float64), constraint_widths(structure, numbers)[positions]])
    counts, shifts = jax.random.split(key)
    shape = (toys, len(expected))
    poisson = jax.random.poisson(counts, jnp.maximum(expected, 0.0)[None], shape).astype(jnp.float64)
    normal = expected[None] + width[None] * jax.random.normal(shifts, shape, jnp.float64)
    return jnp.where(gaussian[None], normal, poisson)


@partial(hosted, static_argnums=0, static_argnames=("statistic", "poi", "thorough"))
def toy_statistics(
    structure: Structure,
    numbers: Numbers,
    toys: Float64[Array, "toys data"],
    tested: Float64[Array, ""],
    *,
    statistic: Statistic = "qmu",
    poi: str | None = None,
    thorough: bool = False,
) -> Statistics:
    """q0 or qmu of every pseudo-experiment.

    Args:
        structure: static.
        numbers: of the model.
        toys: from `pseudo_data`.
        tested: the signal strength; 0 for q0.
        statistic: 'q0' (no evidence from a deficit), or 'qmu' (none from a best fit above the strength). Static.
        poi: the parameter to test, in place of the structure's. Static.
        thorough: as in `fit`. Static.
    """
    position = tested_position(structure, poi)
    is_poi, initial = jnp.arange(structure.size) == position, initial_parameters(structure)

    def of(data: Float64[Array, " data"]) -> tuple[Float64[Array, ""], Bool[Array, ""]]:
        # Two fits by one compiled body: the free one, then the one that is held.
        def run(start: Array, held: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            begin, fixed = jnp.where(held & is_poi, tested, start), held & is_poi
            at = fit(structure, numbers, data, initial=begin, held=fixed, thorough=thorough)
            return at.parameters, (at.parameters[position], at.deviance, at.converged)

        free = jnp.stack([jnp.zeros_like(is_poi), jnp.ones_like(is_poi)])
        _, (strength, deviance, converged) = jax.lax.scan(run, initial, free)
        wrong_side = strength[0] <= tested if statistic == "q0" else strength[0] > tested
        q = jnp.where(wrong_side, 0.0, jnp.maximum(deviance[1] - deviance[0], 0.0))
        return q, converged.all()

    values, converged = jax.lax.map(of, toys, batch_size=TOGETHER)
    return Statistics(values=values, converged=converged)


def p_value(statistics: Statistics, observed: Float64[Array, ""]) -> tuple[Float64[Array, ""], Float64[Array, ""]]:
    """The share of toys at least as extreme, and its binomial uncertainty; NaN if none counted or none is observed."""
    count = jnp.sum(statistics.converged, dtype=jnp.float64)
    share = jnp.sum(statistics.converged & (statistics.values >= observed), dtype=jnp.float64) / count
    share = jnp.where(jnp.isnan(observed), jnp.nan, share)
    return share, jnp.sqrt(share * (1.0 - share) / count)


def discovery_by_toys(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    key: PRNGKeyArray,
    toys: int,
    *,
    poi: str | None = None,
    thorough: bool = False,
) -> Discovery:
    """The observed discovery significance by toys at the best fit without signal."""
    observed = jax.jit(discovery_significance, static_argnums=0, static_argnames=("poi", "thorough"))(
        structure, numbers, data=data, poi=poi, thorough=thorough
    )
    pseudo = pseudo_data(structure, numbers, observed.null_fit.parameters, key, toys)
    statistics = toy_statistics(
        structure, numbers, pseudo, jnp.asarray(0.0), statistic="q0", poi=poi, thorough=thorough
    )
    share, error = p_value(statistics, observed.q0)
    return Discovery(
        q0=observed.q0,
        p_value=(share, error),
        z=jnp.where(observed.q0 == 0, 0.0, -ndtri(share)),  # without excess every toy is at least as extreme
        asymptotic_z=observed.z,
        failed=statistics.failed,
    )
