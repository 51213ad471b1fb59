"""Maximum-likelihood fits: a bounded Newton method with the exact Hessian, safeguarded, and differentiable.

Each step minimises the quadratic model in the parameters that are free to move: those not held, and not pressed against
a bound. Where the Hessian is not positive definite (it often is not at a signal strength of zero) its eigenvalues are
replaced by their absolute values, which turns saddle points into descent. The step is projected on the bounds and halved
until the likelihood improves. Near the minimum this is Newton's method, and the last steps double the correct digits.

The loop is not differentiated. At a minimum the free parameters obey `gradient = 0`, so their derivative with respect to
anything else is one Newton step of the changed gradient (implicit function theorem); that step is added with value zero.
Parameters at a bound do not move. First derivatives of parameters and second derivatives of the likelihood at its
minimum are right in forward and reverse mode, and `vmap` runs many fits at once.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float64, Int

from pipeline.histfactory.constraints import bounds, free_parameters, initial_parameters
from pipeline.histfactory.likelihood import deviance, saturated_logpdf, terms
from pipeline.histfactory.model import Numbers, Structure

__all__ = ["Fit", "covariance", "fit"]

Objective = Callable[[Float64[Array, " parameters"]], Float64[Array, ""]]

CONVERGED = 1e-9  # in -2 ln L: how far above its minimum a fit may believe to be and call itself converged
FINISHED = 1e-18  # in -2 ln L: where another step changes nothing
SUFFICIENT = 1e-4  # Armijo's fraction of the decrease that the gradient promises
SHORTEST = 1e-12  # fraction of a Newton step at which the search for a better point is given up


class Fit(eqx.Module):
    """A maximum-likelihood fit and what is known about its convergence.

    Attributes:
        parameters: the best fit, in pyhf's order.
        twice_nll: -2 ln L there, with pyhf's constants.
        deviance: -2 ln of the likelihood ratio to a model that fits every datum; differences of it keep more digits.
        gradient_norm: Euclidean norm of the gradient of -2 ln L, of the free parameters, each in units of its own
            uncertainty (one over the root of its curvature).
        distance: estimated distance to the minimum in -2 ln L (twice Minuit's EDM).
        iterations: Newton steps.
        converged: whether `distance` is below 1e-9.
        free: which parameters were free at the end: not held, and not at a bound that they press against.
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


def fit(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    *,
    initial: Float64[Array, " parameters"] | None = None,
    held: Bool[Array, " parameters"] | None = None,
    max_iterations: int = 200,
) -> Fit:
    """Maximise the likelihood within the bounds of the structure.

    Args:
        structure: static.
        numbers: may be traced; the result has derivatives with respect to them.
        data: events in every bin, then auxiliary data; may be traced and differentiated.
        initial: where to start, and the value of held parameters; pyhf's by default.
        held: parameters to hold besides those that the structure and the numbers hold.
        max_iterations: Newton steps at most.

    Returns:
        The fit. A fit that did not converge says so in `converged`; nothing is raised here, under `jit`.
    """
    model = terms(structure, numbers)
    start = initial_parameters(structure) if initial is None else initial
    movable = free_parameters(structure, numbers)
    if held is not None:
        movable = movable & ~held
    frozen_model, frozen_data, start = jax.lax.stop_gradient((model, data, start))
    state = _minimise(
        lambda parameters: deviance(structure, frozen_model, parameters, frozen_data),
        start,
        movable,
        bounds(structure),
        noise=1e-15 * jnp.sum(jnp.abs(frozen_data)),
        max_iterations=max_iterations,
    )
    gradient = jax.grad(deviance, argnums=2)(structure, model, state.parameters, data)
    step = _newton_step(state.hessian, jnp.where(state.free, gradient, 0.0), state.free)
    parameters = state.parameters + (step - jax.lax.stop_gradient(step))
    value = deviance(structure, model, parameters, data)
    return Fit(
        parameters=parameters,
        twice_nll=value - 2.0 * saturated_logpdf(structure, model, data),
        deviance=value,
        gradient_norm=jnp.linalg.norm(jnp.where(state.free, state.gradient, 0.0) / _curvature_root(state.hessian)),
        distance=state.distance,
        iterations=state.iterations,
        converged=state.distance <= CONVERGED,
        free=state.free,
    )


def covariance(
    structure: Structure,
    numbers: Numbers,
    data: Float64[Array, " data"],
    parameters: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> Float64[Array, "parameters parameters"]:
    """The inverse of the exact Hessian of -ln L; rows and columns of parameters that are not free are zero."""
    model = terms(structure, numbers)
    hessian = jax.hessian(deviance, argnums=2)(structure, model, parameters, data)
    both = free[:, None] & free[None, :]
    identity = jnp.eye(structure.size, dtype=jnp.float64)
    inverse = jnp.linalg.inv(jnp.where(both, 0.5 * hessian, identity))
    return jnp.where(both, inverse, 0.0)


class _State(eqx.Module):
    """Where the minimisation stands, and the step it will try next."""

    _: KW_ONLY
    parameters: Float64[Array, " parameters"]
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    hessian: Float64[Array, "parameters parameters"]
    free: Bool[Array, " parameters"]
    step: Float64[Array, " parameters"]
    distance: Float64[Array, ""]
    iterations: Int[Array, ""]
    stuck: Bool[Array, ""]


def _minimise(
    objective: Objective,
    start: Float64[Array, " parameters"],
    movable: Bool[Array, " parameters"],
    limits: tuple[Float64[Array, " parameters"], Float64[Array, " parameters"]],
    *,
    noise: Float64[Array, ""],
    max_iterations: int,
) -> _State:
    """Newton's method within bounds; `noise` is the rounding error of the objective."""
    lower, upper = limits
    size = len(start)

    def going(state: _State) -> Bool[Array, ""]:
        return (state.distance > FINISHED) & ~state.stuck & (state.iterations < max_iterations)

    def advance(state: _State) -> _State:
        parameters, moved = _search(objective, state, limits, noise)
        (value, gradient), derivative = jax.linearize(jax.value_and_grad(objective), parameters)
        hessian = jax.vmap(derivative)(jnp.eye(size, dtype=jnp.float64))[1]
        pressed = ((parameters <= lower) & (gradient > 0)) | ((parameters >= upper) & (gradient < 0))
        free = movable & ~pressed
        step = _newton_step(hessian, jnp.where(free, gradient, 0.0), free)
        distance = -0.5 * jnp.dot(gradient, step)
        idle = (distance <= CONVERGED) & (distance > 0.25 * state.distance)
        return _State(
            parameters=parameters,
            value=value,
            gradient=gradient,
            hessian=hessian,
            free=free,
            step=step,
            distance=jnp.where(jnp.isfinite(value), distance, jnp.inf),
            iterations=state.iterations + 1,
            stuck=~moved | idle | ~jnp.isfinite(distance),
        )

    # The first round has no step to try: it evaluates the start. So the loop's body is compiled once.
    nothing = jnp.zeros(size, jnp.float64)
    state = _State(
        parameters=jnp.where(movable, jnp.clip(start, lower, upper), start),
        value=jnp.asarray(jnp.inf),
        gradient=nothing,
        hessian=jnp.zeros((size, size), jnp.float64),
        free=movable,
        step=nothing,
        distance=jnp.asarray(jnp.inf),
        iterations=jnp.asarray(-1),
        stuck=jnp.asarray(False),
    )
    return jax.lax.while_loop(going, advance, state)


def _search(
    objective: Objective,
    state: _State,
    limits: tuple[Float64[Array, " parameters"], Float64[Array, " parameters"]],
    noise: Float64[Array, ""],
) -> tuple[Float64[Array, " parameters"], Bool[Array, ""]]:
    """Halve the projected step until it improves the objective; whether it did."""

    def trial(length: Float64[Array, ""]) -> Float64[Array, " parameters"]:
        moved = state.parameters + length * state.step
        return jnp.where(state.free, jnp.clip(moved, *limits), state.parameters)

    def improves(length: Float64[Array, ""], value: Float64[Array, ""]) -> Bool[Array, ""]:
        promised = jnp.minimum(jnp.dot(state.gradient, trial(length) - state.parameters), 0.0)
        return value <= state.value + SUFFICIENT * promised + noise

    def going(carry: tuple[Float64[Array, ""], Float64[Array, ""]]) -> Bool[Array, ""]:
        length, value = carry
        return ~improves(length, value) & (length > SHORTEST)

    def shorten(carry: tuple[Float64[Array, ""], Float64[Array, ""]]) -> tuple[Float64[Array, ""], Float64[Array, ""]]:
        length = 0.5 * carry[0]
        return length, objective(trial(length))

    length, value = jax.lax.while_loop(going, shorten, (jnp.asarray(2.0), jnp.asarray(jnp.nan)))
    return trial(length), improves(length, value)


def _newton_step(
    hessian: Float64[Array, "parameters parameters"],
    gradient: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> Float64[Array, " parameters"]:
    """Minus the inverse Hessian times the gradient, in the free parameters; by absolute eigenvalues where needed.

    Parameters are scaled by the root of their curvature first: a staterror of a tenth of a per mille and a shape
    parameter of order one then weigh the same.
    """
    scale = jnp.where(free, 1.0 / _curvature_root(hessian), 0.0)
    matrix = hessian * scale[:, None] * scale[None, :] + jnp.diag(jnp.where(free, 0.0, 1.0))
    target = gradient * scale

    def by_cholesky(target: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
        return cho_solve((factor, True), target)

    def by_eigenvalues(target: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
        values, vectors = jnp.linalg.eigh(matrix)
        return vectors @ ((vectors.T @ target) / jnp.maximum(jnp.abs(values), 1e-10))

    factor = jnp.linalg.cholesky(matrix)
    definite = jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.diag(factor) > 1e-5)
    return -scale * jax.lax.cond(definite, by_cholesky, by_eigenvalues, target)


def _curvature_root(hessian: Float64[Array, "parameters parameters"]) -> Float64[Array, " parameters"]:
    """The root of each parameter's own curvature; 1 for a parameter without any."""
    curvature = jnp.abs(jnp.diag(hessian))
    return jnp.where(curvature > 0, jnp.sqrt(jnp.where(curvature > 0, curvature, 1.0)), 1.0)
