"""The same mathematics by JAX or by NumPy.

The likelihood and its fit are written once, against the array API that both share. Arrays of JAX are traced and
compiled: for derivatives, for many fits side by side, inside an analysis. Arrays of NumPy are computed at once: one fit
of a workspace has ended long before a compiler would have. What the two do not share is here.
"""

import contextlib
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Bool, Float64

__all__ = [
    "Array",
    "cholesky",
    "choose",
    "constant",
    "each",
    "hosted",
    "log_gamma",
    "namespace",
    "part",
    "solve_cholesky",
    "solve_lower",
    "upper_gamma",
    "while_loop",
]

# Checked at run time where annotations are; a type checker would ask for every operation of all three.
Array: Any = Any if TYPE_CHECKING else jax.Array | np.ndarray | np.generic

NUMPY = (np.ndarray, np.generic)

Carry = TypeVar("Carry")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])


def namespace(*trees: Any) -> Any:
    """`jax.numpy` if there is an array of JAX, or a traced one, in these trees, else `numpy`."""
    # NumPy's own are passed over first: to look for their leaves takes longer than many a step of a small fit.
    others = [tree for tree in trees if not isinstance(tree, NUMPY)]
    return jnp if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(others)) else np


def part(*static: str) -> Callable[[Function], Function]:
    """A function that JAX compiles as a part of its own, once for all who call it; NumPy just runs it.

    Its first argument is static, and so are the named ones.
    """

    def decorate(function: Function) -> Function:
        compiled = hosted(function, static_argnums=0, static_argnames=static)

        @wraps(function)
        def run(structure: Any, *arguments: Any, **options: Any) -> Any:
            if namespace(arguments, options) is jnp:
                return compiled(structure, *arguments, **options)
            with np.errstate(all="ignore"):  # as in JAX, what is no number is for the result to say
                return function(structure, *arguments, **options)

        return run  # type: ignore[return-value]

    return decorate


def hosted(function: Function, **static: Any) -> Function:
    """`jax.jit` of a function of small arrays, computed by the CPU; `static` as there.

    A fit is a long chain of operations on small matrices. On a GPU each of them is launched by itself: a fit of the AGC
    took 58 ms on an H200 and 10 ms on the CPU beside it.
    """
    as_a_part = jax.jit(function, **static)

    @cache
    def program() -> Any:
        return jax.jit(function, compiler_options=_quick_to_compile(), **static)

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        with _on_the_cpu():
            if _within_a_program(arguments, options):
                return as_a_part(*arguments, **options)
            return program()(*arguments, **options)

    return run  # type: ignore[return-value]


@cache
def _quick_to_compile() -> dict[str, Any] | None:
    """XLA's older emitters of code: a third less time for the same results, to the last bit, where arrays are small.

    A pass over events they make twice as slow. Not every version of XLA has them to choose.
    """
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return options


def _within_a_program(*trees: Any) -> bool:
    """Whether JAX traces a function that is compiled as a whole, with options of its own: constants are traced, too."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (*jax.tree.leaves(trees), jnp.zeros(())))


def _on_the_cpu() -> contextlib.AbstractContextManager[object]:
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to know no other device (JAX_PLATFORMS=cuda)
        return contextlib.nullcontext()


def while_loop(condition: Callable[[Carry], Any], body: Callable[[Carry], Carry], carry: Carry) -> Carry:
    """`jax.lax.while_loop`."""
    if namespace(carry) is jnp:
        result: Carry = jax.lax.while_loop(condition, body, carry)
        return result
    while condition(carry):
        carry = body(carry)
    return carry


def each(function: Callable[[Any], Any], rows: Any) -> Any:
    """A function of every row: `jax.lax.map`."""
    return jax.lax.map(function, rows) if namespace(rows) is jnp else np.stack([function(row) for row in rows])


def choose(
    predicate: Bool[Array, ""], if_true: Callable[..., Result], if_false: Callable[..., Result], *operands: Any
) -> Result:
    """`jax.lax.cond`: only the one that is asked for is computed."""
    if namespace(predicate, operands) is jnp:
        result: Result = jax.lax.cond(predicate, if_true, if_false, *operands)
        return result
    return if_true(*operands) if predicate else if_false(*operands)


def constant(tree: Result) -> Result:
    """`jax.lax.stop_gradient`."""
    return tree if namespace(tree) is np else jax.lax.stop_gradient(tree)


def log_gamma(x: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """The logarithm of the gamma function."""
    return _special(x).gammaln(x)


def upper_gamma(order: float, x: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """The regularised upper incomplete gamma function."""
    return _special(x).gammaincc(order, x)


def _special(x: Array) -> Any:
    """`jax.scipy.special` or `scipy.special`."""
    if namespace(x) is jnp:
        return jax.scipy.special
    import scipy.special

    return scipy.special


def cholesky(matrix: Float64[Array, "rows rows"]) -> Float64[Array, "rows rows"]:
    """The lower factor of a symmetric matrix, of which the lower half is read; NaN where it is not definite."""
    if namespace(matrix) is jnp:
        return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    from scipy.linalg.lapack import dpotrf

    # In the order of Fortran a symmetric matrix is its own transpose: nothing is copied twice.
    factor, failed = dpotrf(matrix.T, lower=True, clean=True)
    return np.full_like(matrix, np.nan) if failed else factor


def solve_cholesky(factor: Float64[Array, "rows rows"], right: Float64[Array, " rows"]) -> Float64[Array, " rows"]:
    """The solution of a linear system whose matrix has this lower factor."""
    if namespace(factor, right) is jnp:
        solution: Float64[Array, " rows"] = cho_solve((factor, True), right)
        return solution
    from scipy.linalg.lapack import dpotrs

    return dpotrs(factor, right, lower=True)[0]


def solve_lower(factor: Float64[Array, "rows rows"], right: Float64[Array, " rows"]) -> Float64[Array, " rows"]:
    """The solution of a lower triangular system."""
    if namespace(factor, right) is jnp:
        solution: Float64[Array, " rows"] = solve_triangular(factor, right, lower=True)
        return solution
    from scipy.linalg.lapack import dtrtrs

    return dtrtrs(factor, right, lower=True)[0]
