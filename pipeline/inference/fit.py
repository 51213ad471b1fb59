"""Maximum-likelihood fits: Newton's method within bounds (`newton`), from every side (`valleys`), differentiable.

Interpolation codes 0 and 1 have a kink at zero, which is treated like a bound. pyhf's code 2 jumps at -1 and +1, and a
fit that ends on a jump does not converge.

A likelihood may have several minima: a systematic variation that moves a yield up at +1 and at -1 fits an excess from
both sides. So the search goes on from the mirror images of a minimum, and the smallest one found is given. A deviance
is never negative: a minimum that fits the data leaves nothing to look for.

The loop is not differentiated. At a minimum the slope with respect to each free parameter is zero, and that equation
defines the parameters as functions of everything else (implicit function theorem); parameters at a bound do not move.
The likelihood at its minimum changes only explicitly, not through the parameters (envelope theorem). Both rules hold in
forward and reverse mode and in higher orders, and cost nothing where no derivative is asked for. `vmap` runs many fits.
"""

from dataclasses import KW_ONLY
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, constant, namespace, part
from pipeline.inference.histfactory.constraints import (
    bounds,
    kinked_parameters,
    starts,
)
from pipeline.inference.histfactory.expansion import expanded_deviance
from pipeline.inference.histfactory.likelihood import Terms, deviance, saturated_logpdf, terms
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.mirrors import mirrors, no_mirrors
from pipeline.inference.newton import Expansion, Minimum, curvature_scale, inverse_among, minimise
from pipeline.inference.valleys import smallest

__all__ = ["Fit", "covariance", "fit", "fit_at_once", "fit_terms"]

KNOWN = 1e-8  # of a scaled Hessian's inverse: less is rounding


class Fit(eqx.Module):
    """A maximum-likelihood fit and what is known about its convergence.

    Attributes:
        parameters: the best fit, in pyhf's order.
        twice_nll: -2 ln L there, with pyhf's constants.
        deviance: -2 ln of the likelihood ratio to a model that fits every datum; differences of it keep more digits.
        gradient_norm: Euclidean norm of the slopes of -2 ln L with respect to the free parameters, each parameter in
            units of one over the root of its curvature.
        distance: estimated distance to the minimum in -2 ln L (twice Minuit's EDM).
        iterations: evaluations of likelihood, gradient and Hessian, in the search for other minima too.
        converged: whether `distance` is below 1e-9, and no direction curves down.
        free: which parameters were free at the end: not held, and not at a bound that they press against.
        left_out: variations whose other side may hold a smaller minimum and was not searched, to spare time.
    """

    _: KW_ONLY
    parameters: Float64[Array, " parameters"]
    twice_nll: Float64[Array, ""]
    deviance: Float64[Array, ""]
    gradient_norm: Float64[Array, ""]
    distance: Float64[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    free: Bool[Array, " parameters"]
    left_out: Int[Array, ""]


def fit(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    *,
    initial: Float64[Array, " parameters"] | None = None,
    held: Bool[Array, " parameters"] | None = None,
    max_iterations: int | Int[Array, ""] = 200,
    thorough: bool = False,
) -> Fit:
    """Maximise the likelihood within the bounds of the structure.

    Args:
        structure: static.
        numbers: may be traced; the result has derivatives with respect to them. If all arrays are NumPy's, so is the
            computation: nothing is compiled, and there are no derivatives.
        data: events in every bin, then auxiliary data; may be traced and differentiated.
        initial: where to start, and the value of held parameters; pyhf's by default.
        held: parameters to hold besides those that the structure and the numbers hold.
        max_iterations: steps at most, towards each minimum.
        thorough: look for a smaller minimum on the other side of every variation that is not the same up and down,
            whatever that costs; else where an estimate promises one, for at most three times the first fit. Static.

    Returns:
        The fit. A fit that did not converge says so in `converged`; nothing is raised here, under `jit`.
    """
    model = terms(structure, numbers)
    if initial is None:
        initial = namespace(model, data).asarray(starts(structure))
    return fit_terms(
        structure, model, data, initial=initial, held=held, max_iterations=max_iterations, thorough=thorough
    )


def fit_at_once(structure: Structure, numbers: Numbers, data: Float64[Array, " data"], **options: Any) -> Fit:
    """`fit` by NumPy, which compiles nothing: for a few fits without derivatives, not where something is traced."""
    numbers, data, options = jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, (numbers, data, options)
    )
    return fit(structure, numbers, data, **options)


def fit_terms(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    *,
    initial: Float64[Array, " parameters"],
    held: Bool[Array, " parameters"] | None = None,
    max_iterations: int | Int[Array, ""] = 200,
    thorough: bool = False,
    differentiable_parameters: bool = True,
) -> Fit:
    """`fit` of a prepared model.

    Without `differentiable_parameters` only `deviance` and `twice_nll` carry derivatives. That spares who needs no more
    the tracing of the other ones.
    """
    movable = model.free if held is None else model.free & ~held
    xp = namespace(model, data, initial)
    frozen = constant((model, data, initial))
    best, left_out = _search(structure, *frozen, movable, xp.asarray(max_iterations), thorough=thorough)
    parameters, value = best.parameters, best.value
    if xp is jnp:
        value = _at_minimum(structure, model, data, parameters, best.free, value)
        if differentiable_parameters:
            parameters = _implicit(structure, model, data, parameters, best.free)
    return Fit(
        parameters=parameters,
        twice_nll=value - 2.0 * saturated_logpdf(structure, model, data),
        deviance=value,
        gradient_norm=xp.linalg.norm(xp.where(best.free, best.gradient * best.scale, 0.0)),
        distance=best.distance,
        iterations=best.iterations,
        converged=best.converged,
        free=best.free,
        left_out=left_out,
    )


# Compiled as a part of its own, so that it is traced once for all callers and all their derivatives.
@part("thorough")
def _search(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    start: Float64[Array, " parameters"],
    movable: Bool[Array, " parameters"],
    max_iterations: Int[Array, ""],
    *,
    thorough: bool,
) -> tuple[Minimum, Int[Array, ""]]:
    """The smallest minimum, and how many other valleys were left out."""
    xp = namespace(model, data, start)
    lower, upper = map(xp.asarray, bounds(structure))

    def expand(parameters: Float64[Array, " parameters"]) -> Expansion:
        expanded = expanded_deviance(structure, model, parameters, data)
        return Expansion(value=expanded.value, gradient=expanded.gradient, hessian=expanded.hessian)

    return smallest(
        lambda start, steps, enough: minimise(
            expand,
            start,
            movable=movable,
            lower=lower,
            upper=upper,
            kinked=kinked_parameters(structure),
            max_iterations=steps,
            enough=enough,
        ),
        start,
        lambda minimum: mirrors(structure, model, data, minimum, movable, thorough=thorough),
        no_mirrors(structure, start, thorough=thorough),
        max_iterations=max_iterations,
        thorough=thorough,
    )


def covariance(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    parameters: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> Float64[Array, "parameters parameters"]:
    """The inverse of the exact Hessian of -ln L; rows and columns of parameters that are not free are zero.

    A parameter of which nothing is known, such as the normalisation of an empty sample or each of two that only their
    product matters of, has an infinite variance. All others keep theirs.
    """
    xp = namespace(numbers, data, parameters)
    inverse, unknown = _inverse_hessian(structure, terms(structure, numbers), data, parameters, free)
    return xp.where(xp.diag(unknown), np.inf, 2.0 * inverse)


def _inverse_hessian(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    parameters: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> tuple[Float64[Array, "parameters parameters"], Bool[Array, " parameters"]]:
    """The inverse of the Hessian of -2 ln L among the free parameters, and which of them nothing is known of."""
    hessian = expanded_deviance(structure, model, parameters, data).hessian
    inverse, flat = inverse_among(hessian, free)
    return inverse, flat > KNOWN * curvature_scale(hessian) ** 2


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _implicit(
    structure: Structure,  # noqa: ARG001
    model: Terms,  # noqa: ARG001
    data: Float64[Array, " data"],  # noqa: ARG001
    parameters: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],  # noqa: ARG001
) -> Float64[Array, " parameters"]:
    """The fitted parameters, as the functions of model and data that they are."""
    return parameters


@_implicit.defjvp
def _implicit_jvp(structure: Structure, primals: Any, tangents: Any) -> Any:
    model, data, parameters, free = primals
    parameters = _implicit(structure, model, data, parameters, free)

    def slope(model: Terms, data: Float64[Array, " data"]) -> Float64[Array, " parameters"]:
        gradient: Float64[Array, " parameters"] = jax.grad(deviance, argnums=2)(structure, model, parameters, data)
        return gradient

    _, change = jax.jvp(slope, (model, data), tangents[:2])
    inverse, _ = _inverse_hessian(structure, model, data, parameters, free)
    return parameters, -inverse @ change


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at_minimum(
    structure: Structure,  # noqa: ARG001
    model: Terms,  # noqa: ARG001
    data: Float64[Array, " data"],  # noqa: ARG001
    parameters: Float64[Array, " parameters"],  # noqa: ARG001
    free: Bool[Array, " parameters"],  # noqa: ARG001
    value: Float64[Array, ""],
) -> Float64[Array, ""]:
    """The deviance at its minimum, where its derivative with respect to the parameters is zero."""
    return value


@_at_minimum.defjvp
def _at_minimum_jvp(structure: Structure, primals: Any, tangents: Any) -> Any:
    model, data, parameters, free, value = primals
    # The explicit derivative; that of the parameters enters at second order only, and is found in there.
    moving = _implicit(structure, model, data, parameters, free)
    _, change = jax.jvp(lambda m, d: deviance(structure, m, moving, d), (model, data), tangents[:2])
    return _at_minimum(structure, model, data, parameters, free, value), change
