"""evermore and optimistix, with the formulas of soft cuts and kernel-density histograms that GRAEP uses, all compiled.

GRAEP itself runs uncompiled through awkward's JAX backend and does not work with this version of JAX.
"""

from typing import NamedTuple

import evermore as evm
import jax
import jax.numpy as jnp
import optimistix
import simple_case as case
from flax import nnx

jax.config.update("jax_enable_x64", True)


class Parameters(NamedTuple):
    """Of each sample."""

    norm: list[evm.NormalParameter]
    shape: list[evm.NormalParameter]


def rates(parameters: Parameters, samples: jax.Array) -> jax.Array:
    total = jnp.zeros(samples.shape[1])
    for yields, norm, shape in zip(samples, parameters.norm, parameters.shape, strict=True):
        up, down = yields * (1 + case.tilt()), yields * (1 - case.tilt())
        modified = norm.scale_log_symmetric(kappa=case.KAPPA) @ shape.morphing(up_template=up, down_template=down)
        total += modified(yields)
    return total


def loss(dynamic: nnx.State, args: tuple) -> jax.Array:
    graph, static, samples, data = args
    parameters = nnx.merge(graph, dynamic, static)
    log_likelihood = evm.pdf.PoissonContinuous(lamb=rates(parameters, samples)).log_prob(data).sum()
    return -(log_likelihood + evm.util.sum_over_leaves(evm.loss.get_log_probs(parameters)))


def soft_histogram(variables: jax.Array, mass: jax.Array, thresholds: jax.Array) -> jax.Array:
    passes = jnp.prod(jax.nn.sigmoid((variables - thresholds[:, None]) / case.SIGMOID_WIDTH), axis=0)
    cumulative = jax.scipy.stats.norm.cdf(case.EDGES[:, None], loc=mass, scale=case.OBSERVABLE_BANDWIDTH)
    return jnp.sum(passes * (cumulative[1:] - cumulative[:-1]), axis=1)


def significance(thresholds: jax.Array, samples: list, weights: jax.Array) -> jax.Array:
    histogram = weights[:, None] * jnp.stack([soft_histogram(*columns, thresholds) for columns in samples])
    asimov = jnp.sum(histogram, axis=0)
    each = range(len(case.SAMPLES))
    parameters = Parameters([evm.NormalParameter(0.0) for _ in each], [evm.NormalParameter(0.0) for _ in each])
    graph, dynamic, static = nnx.split(parameters, evm.filter.is_dynamic_parameter, ...)
    without_signal = (graph, static, histogram.at[0].set(0.0), asimov)
    solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
    fitted = optimistix.minimise(loss, solver, dynamic, args=without_signal, throw=False).value
    best = loss(dynamic, (graph, static, histogram, asimov))
    return jnp.sqrt(2 * (loss(fitted, without_signal) - best))


def main() -> None:
    events, _ = case.arguments()
    samples = [
        (jnp.asarray(events.variables[:, events.sample == number]), jnp.asarray(events.mass[events.sample == number]))
        for number in range(len(case.SAMPLES))
    ]
    thresholds, weights = jnp.asarray(case.start(len(events.variables))), jnp.asarray(events.weights)
    value, step = jax.jit(significance), jax.jit(jax.value_and_grad(significance))
    case.measure(
        lambda: float(value(thresholds, samples, weights)),
        lambda: jax.device_get(step(thresholds, samples, weights)),
        ["evermore", "optimistix", "flax", "jax"],
    )


if __name__ == "__main__":
    main()
