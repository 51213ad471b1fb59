"""A small program is one wherever it is called from: by itself or within another program."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from pipeline.inference.histfactory.arrays import hosted

CUBES = jnp.array([1.0, 8.0, 27.0])


@partial(hosted, static_argnames="power")
def raised(x: Array, power: int = 3) -> Array:
    return x**power


@pytest.mark.parametrize(
    "call",
    [
        lambda x: raised(x),
        jax.jit(lambda x: raised(x)),
        jax.jit(lambda x: x**3 * raised(jnp.ones(3))),  # of constants alone, within a program
        jax.vmap(lambda x: raised(x)),
        jax.vmap(lambda x: x**3 * raised(jnp.ones(()))),
        lambda x: jax.lax.map(raised, x),
        lambda x: raised(x, power=3),
        lambda x: jax.vmap(jax.grad(raised))(x) * x / 3,
        lambda x: jax.jit(jax.vmap(jax.hessian(raised)))(x) * x**2 / 6,
    ],
)
def test_the_result_is_the_same_from_everywhere(call: Callable[[Array], Array]) -> None:
    np.testing.assert_allclose(call(jnp.array([1.0, 2.0, 3.0])), CUBES, rtol=1e-15)
