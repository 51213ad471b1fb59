"""The bounded Newton method on functions that are no likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.inference.newton import Expansion, minimise

from reference.compiling import quick_jit


def expanding(objective):
    def expand(x):
        return Expansion(value=objective(x), gradient=jax.grad(objective)(x), hessian=jax.hessian(objective)(x))

    return expand


def run(objective, start, lower=-10.0, upper=10.0, **options):
    start = jnp.asarray(start, jnp.float64)

    def search(start):
        return minimise(
            expanding(objective),
            start,
            movable=jnp.ones(start.shape, bool),
            lower=jnp.full(start.shape, lower),
            upper=jnp.full(start.shape, upper),
            **options,
        )

    return quick_jit(search)(start)


def banana(x):
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


def double_well(x):
    return (x[0] ** 2 - 1.0) ** 2 + x[1] ** 2


def flat_valley(x):
    """Nearly flat for a thousand of its own lengths, and it curves down all the way to the bound."""
    return 0.5 * (x[0] + x[1]) ** 2 - 1e-7 * (x[0] - x[1]) ** 2 - 1e-7 * x[0]


CASES = {
    "a curved valley": (banana, (-1.2, 1.0), (1.0, 1.0), 40),
    "a maximum, to the digit": (double_well, (0.0, 1.0), (1.0, 0.0), 20),
    "a flat valley that curves down": (flat_valley, (0.0, 0.0), (10.0, -10.0), 20),
}


@pytest.mark.parametrize("case", CASES)
def test_reaches_the_minimum(case):
    objective, start, expected, iterations = CASES[case]
    found = run(objective, start)
    assert found.converged
    assert int(found.iterations) <= iterations
    np.testing.assert_allclose(np.abs(found.parameters), np.abs(expected), atol=1e-5)
    assert float(objective(found.parameters)) <= float(objective(jnp.asarray(expected))) + 1e-9


def test_a_bound_holds_what_presses_against_it():
    found = run(banana, (-1.2, 0.2), upper=0.5)
    assert found.converged
    assert float(found.parameters[0]) == 0.5
    assert not found.free[0]
    np.testing.assert_allclose(found.parameters[1], 0.25, atol=1e-6)


def test_a_kink_is_a_minimum():
    def kinked(x):
        return jnp.where(x[0] > 0, 2.0 * x[0], -0.5 * x[0]) + (x[1] - x[0] - 1.0) ** 2

    found = run(kinked, (1.0, -1.0), kinked=np.array([True, False]))
    assert found.converged
    assert float(found.parameters[0]) == 0.0
    np.testing.assert_allclose(found.parameters[1], 1.0, atol=1e-8)


def test_what_ends_too_early_or_nowhere_says_so():
    assert not run(banana, (-1.2, 1.0), max_iterations=3).converged
    assert not run(lambda x: jnp.log(x[0] - 20.0) + x[1], (1.0, 1.0)).converged
