"""relaxed: sigmoid cuts, kernel-density histogram, one fit with L-BFGS-B, differentiated implicitly; one JAX function.

`relaxed.hist` takes no weights, and soft cuts are weights, so its formula stands here with them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import relaxed
import simple_case as case

jax.config.update("jax_enable_x64", True)


class WithoutSignal(eqx.Module):
    """The model at μ = 0, as `relaxed.mle.fit` wants it."""

    background: jax.Array

    def logpdf(self, pars: dict[str, jax.Array], data: jax.Array) -> jax.Array:
        """Up to a constant."""
        return log_likelihood(self.background, pars["norm"], pars["shape"], data)


def log_likelihood(samples: jax.Array, norm: jax.Array, shape: jax.Array, data: jax.Array) -> jax.Array:
    tilted = samples * (1 + shape[:, None] * case.tilt())
    rates = jnp.sum(case.KAPPA ** norm[:, None] * tilted, axis=0)
    constraints = -0.5 * jnp.sum(norm**2) - 0.5 * jnp.sum(shape**2)
    return jnp.sum(data * jnp.log(rates) - rates) + constraints


def soft_histogram(variables: jax.Array, mass: jax.Array, thresholds: jax.Array) -> jax.Array:
    passes = jnp.ones_like(mass)
    for column, threshold in zip(variables, thresholds, strict=True):
        passes *= relaxed.cut(column, threshold, slope=1 / case.SIGMOID_WIDTH)
    cumulative = jax.scipy.stats.norm.cdf(case.EDGES[:, None], loc=mass, scale=case.OBSERVABLE_BANDWIDTH)
    return jnp.sum((cumulative[1:] - cumulative[:-1]) * passes, axis=1)


def significance(thresholds: jax.Array, samples: list, weights: jax.Array) -> jax.Array:
    histogram = weights[:, None] * jnp.stack([soft_histogram(*columns, thresholds) for columns in samples])
    asimov = jnp.sum(histogram, axis=0)
    zeros = jnp.zeros(len(histogram))
    model = WithoutSignal(histogram.at[0].set(0.0))
    fitted = relaxed.mle.fit(data=asimov, model=model, init_pars={"norm": zeros, "shape": zeros})
    best = log_likelihood(histogram, zeros, zeros, asimov)
    return jnp.sqrt(2 * (best - model.logpdf(pars=fitted, data=asimov)))


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
        ["relaxed", "jaxopt", "jax"],
    )


if __name__ == "__main__":
    main()
