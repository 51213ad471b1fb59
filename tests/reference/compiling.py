"""`jax.jit` for tests that compile much and run little: half the time in the compiler, the same numbers."""

from functools import partial

import jax

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
