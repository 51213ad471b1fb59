"""`jax.jit` for tests that compile much and run little: a quarter of the time in the compiler, the same numbers."""

from functools import partial

import jax

CHEAP = {"xla_backend_optimization_level": 0}
# XLA's older emitters write the same code in half the time. Not every version has them to choose.
CHEAPEST = {**CHEAP, "xla_cpu_use_fusion_emitters": False}


def _accepts(options: dict[str, object]) -> bool:
    try:
        jax.jit(lambda x: x + 1.0, compiler_options=options)(1.0)
    except jax.errors.JaxRuntimeError:
        return False
    return True


quick_jit = partial(jax.jit, compiler_options=CHEAPEST if _accepts(CHEAPEST) else CHEAP)
