"""Maximum-likelihood fits: a bounded Newton method with the exact Hessian, safeguarded, and differentiable.

Each step goes to the minimum of the quadratic model, within the bounds, in the parameters that are free to move: those
not held, and not pressed against a bound. Where the Hessian is not positive definite (as often without signal) its
eigenvalues are replaced by their absolute values, which turns saddle points into descent. Of several lengths of that
step and of a plain gradient step the best one is taken, so the likelihood never gets worse. Near the minimum this is
Newton's method, and every step doubles the number of correct digits. Interpolation codes 0 and 1 have a kink at zero,
which is treated like a bound. pyhf's code 2 jumps at -1 and +1, and a fit that ends on a jump does not converge.

A likelihood may have several minima: a systematic variation that moves a yield up at +1 and at -1 fits an excess from
both sides. So the search goes on from the mirror images of a minimum, and the smallest one found is given.

The loop is not differentiated. At a minimum the slope with respect to each free parameter is zero, and that equation
defines the parameters as functions of everything else (implicit function theorem); parameters at a bound do not move.
The likelihood at its minimum changes only explicitly, not through the parameters (envelope theorem). Both rules hold in
forward and reverse mode and in higher orders, and cost nothing where no derivative is asked for. `vmap` runs many fits.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float64, Int

from pipeline.inference.histfactory.constraints import (
    bounds,
    initial_parameters,
    interpolated_positions,
    kinked_parameters,
)
from pipeline.inference.histfactory.likelihood import Terms, deviance, saturated_logpdf, terms
from pipeline.inference.histfactory.model import Numbers, Structure
from pipeline.inference.histfactory.modifiers import bins_of_parameters, rates

__all__ = ["Fit", "covariance", "fit", "fit_terms", "stiffened"]

Objective = Callable[[Float64[Array, " parameters"]], Float64[Array, ""]]

CONVERGED = 1e-9  # in -2 ln L: how far above its minimum a fit may believe to be and call itself converged
FINISHED = 1e-18  # in -2 ln L: where another step changes nothing
CLOSE = 1e-6  # in -2 ln L: where the Newton step is taken without a look at the likelihood
FLAT = 1e-8  # eigenvalues of a scaled Hessian that are smaller are rounding: nothing is known in their direction
RAISED = 0.1  # smallest eigenvalue, of a scaled Hessian, that is trusted for a step down from a saddle point
LOPSIDED = -0.8  # product of a bin's shifts up and down, over the larger square: -1 if they are opposite and equal
SHARE = 0.1  # of what all bins say of a parameter: what lopsided ones must say at least
ATTEMPTS = 200  # fits from the other side of a parameter, at most
OTHER_SIDE = 1.5  # standard deviations: at least so far on the other side
LENGTHS = tuple(2.0**-k for k in (0, 1, 2, 3, 5, 8, 12, 20))  # tried along a step


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
    thorough: bool = False,
) -> Fit:
    """Maximise the likelihood within the bounds of the structure.

    Args:
        structure: static.
        numbers: may be traced; the result has derivatives with respect to them.
        data: events in every bin, then auxiliary data; may be traced and differentiated.
        initial: where to start, and the value of held parameters; pyhf's by default.
        held: parameters to hold besides those that the structure and the numbers hold.
        max_iterations: steps at most, towards each minimum.
        thorough: look for a smaller minimum on the other side of every systematic variation, not only of lopsided ones:
            a few times slower, and hardly ever needed. Static.

    Returns:
        The fit. A fit that did not converge says so in `converged`; nothing is raised here, under `jit`.
    """
    model = terms(structure, numbers)
    if initial is None:
        initial = initial_parameters(structure)
    return fit_terms(
        structure, model, data, initial=initial, held=held, max_iterations=max_iterations, thorough=thorough
    )


def fit_terms(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    *,
    initial: Float64[Array, " parameters"],
    held: Bool[Array, " parameters"] | None = None,
    max_iterations: int = 200,
    thorough: bool = False,
    differentiable_parameters: bool = True,
) -> Fit:
    """`fit` of a prepared model.

    Without `differentiable_parameters` only `deviance` and `twice_nll` carry derivatives. That spares who needs no more
    the tracing of the other ones.
    """
    movable = model.free if held is None else model.free & ~held
    frozen_model, frozen_data, start = jax.lax.stop_gradient((model, data, initial))
    minimise = partial(
        _minimise,
        lambda parameters: deviance(structure, frozen_model, parameters, frozen_data),
        movable=movable,
        limits=bounds(structure),
        kinked=kinked_parameters(structure),
        columns=_columns(structure),
        max_iterations=max_iterations,
    )
    interpolated = np.isin(np.arange(structure.size), interpolated_positions(structure))

    def doubtful(parameters: Float64[Array, " parameters"]) -> Bool[Array, " parameters"]:
        return movable & (interpolated if thorough else _one_sided(structure, frozen_model, parameters))

    found = _smallest(minimise, start, doubtful)
    parameters = found.parameters
    if differentiable_parameters:
        parameters = _implicit(structure, model, data, parameters, found.free)
    value = _at_minimum(structure, model, data, found.parameters, found.free, found.value)
    return Fit(
        parameters=parameters,
        twice_nll=value - 2.0 * saturated_logpdf(structure, model, data),
        deviance=value,
        gradient_norm=jnp.linalg.norm(jnp.where(found.free, found.gradient * found.scale, 0.0)),
        distance=found.distance,
        iterations=found.iterations,
        converged=found.distance <= CONVERGED,
        free=found.free,
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
    inverse, unknown = _inverse_hessian(structure, terms(structure, numbers), data, parameters, free)
    return jnp.where(jnp.diag(unknown), jnp.inf, 2.0 * inverse)


def stiffened(
    matrix: Float64[Array, "parameters parameters"], among: Bool[Array, " parameters"]
) -> tuple[Float64[Array, "parameters parameters"], Float64[Array, "parameters parameters"]]:
    """A Hessian among some parameters that can be inverted, though it be flat in some directions.

    A direction without curvature gets some. What is added is not differentiated, and its own inverse is returned with
    the sum: the inverse of the sum minus that one is the inverse where the matrix is not flat, zero where it is. Among
    the other parameters the sum is the identity.
    """
    scale = jax.lax.stop_gradient(_scale(matrix))
    scaled = jax.lax.stop_gradient(_among(matrix * scale[:, None] * scale[None, :], among))

    def flat_directions(scaled: Float64[Array, "parameters parameters"]) -> Float64[Array, "parameters parameters"]:
        values, vectors = jnp.linalg.eigh(scaled)
        projector: Float64[Array, "parameters parameters"]
        projector = jnp.where(jnp.abs(values)[None, :] <= FLAT, vectors, 0.0) @ vectors.T
        return projector

    flat = jax.lax.cond(_is_definite(scaled), jnp.zeros_like, flat_directions, scaled)
    added = flat / (scale[:, None] * scale[None, :])
    return _among(matrix, among) + added, flat * scale[:, None] * scale[None, :]


def _inverse_hessian(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    parameters: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> tuple[Float64[Array, "parameters parameters"], Bool[Array, " parameters"]]:
    """The inverse of the Hessian of -2 ln L among the free parameters, and which of them nothing is known of.

    It is zero elsewhere, and in directions in which the Hessian is flat.
    """
    hessian = jax.hessian(deviance, argnums=2)(structure, model, parameters, data)
    matrix, flat = stiffened(hessian, free)
    inverse = jnp.where(free[:, None] & free[None, :], jnp.linalg.inv(matrix) - flat, 0.0)
    return inverse, jnp.diag(flat) > FLAT * _scale(hessian) ** 2


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


class _State(eqx.Module):
    """The last point, what is known there, and where to go next."""

    _: KW_ONLY
    parameters: Float64[Array, " parameters"]
    following: Float64[Array, " parameters"]
    value: Float64[Array, ""]
    gradient: Float64[Array, " parameters"]
    free: Bool[Array, " parameters"]
    scale: Float64[Array, " parameters"]
    distance: Float64[Array, ""]
    iterations: Int[Array, ""]
    going: Bool[Array, ""]


class _Columns(NamedTuple):
    """How to find a Hessian from fewer products with it than it has columns.

    A parameter that acts in one bin only, such as a staterror's, has no second derivative together with those of other
    bins. So the columns of all of these can be added, and read off the sum.
    """

    seeds: Float64[np.ndarray, "sums parameters"]
    sum_of: Int[np.ndarray, " parameters"]
    readable: Bool[np.ndarray, "parameters parameters"]
    apart: Bool[np.ndarray, "parameters parameters"]


def _columns(structure: Structure) -> _Columns:
    """One sum for each parameter of several bins, and for the first, the second, ... parameter of all single bins."""
    acts = bins_of_parameters(structure)
    single = acts.sum(axis=1) == 1
    bin_of = np.where(single, np.argmax(acts, axis=1), -1)
    rank = np.array([np.sum(single[:i] & (bin_of[:i] == bin_of[i])) for i in range(structure.size)])
    several = int(np.sum(~single))
    sum_of = np.where(single, several + rank, np.cumsum(~single) - 1)
    seeds = (np.arange(sum_of.max() + 1)[:, None] == sum_of[None, :]).astype(np.float64)
    # Rows of a sum: those of parameters of several bins are mixed up, and are read from the transposed matrix instead.
    readable = ~single[None, :] | (single[:, None] & (bin_of[:, None] == bin_of[None, :]))
    apart = single[:, None] & single[None, :] & (bin_of[:, None] != bin_of[None, :])
    return _Columns(seeds=seeds, sum_of=sum_of, readable=readable | apart, apart=apart)


def _smallest(
    minimise: Callable[[Float64[Array, " parameters"]], _State],
    start: Float64[Array, " parameters"],
    doubtful: Callable[[Float64[Array, " parameters"]], Bool[Array, " parameters"]],
) -> _State:
    """The smallest of the minima that are found from the start and from the mirror images of a minimum.

    A systematic variation that moves the yields to the same side up and down gives the likelihood two valleys. From a
    minimum each `doubtful` parameter is sent to the other side in turn, until none leads to a smaller minimum.
    """

    def going(carry: tuple[_State, Array, Array]) -> Bool[Array, ""]:
        best, attempt, in_vain = carry
        count = jnp.sum(doubtful(best.parameters))
        return (attempt == 0) | ((best.distance <= CONVERGED) & (in_vain < count) & (attempt < ATTEMPTS))

    def again(carry: tuple[_State, Array, Array]) -> tuple[_State, Array, Array]:
        best, attempt, in_vain = carry
        here = best.parameters
        candidates = doubtful(here)
        position = jnp.argsort(~candidates, stable=True)[attempt % jnp.maximum(jnp.sum(candidates), 1)]
        mirrored = here.at[position].set(-jnp.sign(here[position]) * jnp.maximum(jnp.abs(here[position]), OTHER_SIDE))
        found = minimise(jnp.where(attempt == 0, start, mirrored))
        smaller = (attempt == 0) | ((found.value < best.value - CLOSE) & (found.distance <= CONVERGED))
        chosen = jax.tree.map(partial(jnp.where, smaller), found, best)
        chosen = eqx.tree_at(lambda state: state.iterations, chosen, best.iterations + found.iterations)
        return chosen, attempt + 1, jnp.where(smaller, 0, in_vain + 1)

    shapes = jax.eval_shape(minimise, start)
    blank: _State = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    none = jnp.asarray(0)
    best, _, _ = jax.lax.while_loop(going, again, (blank, none, none))
    return best


def _one_sided(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"]
) -> Bool[Array, " parameters"]:
    """The interpolated parameters that move the expected events far from opposite ways at +1 and at -1.

    A bin is lopsided if, with shifts `odd + even` and `even - odd`, its even part is more than a ninth of the odd one.
    """
    positions = jnp.asarray(interpolated_positions(structure))

    def events(position: Int[Array, ""], alpha: float) -> Float64[Array, " bins"]:
        return rates(structure, model.effects, parameters.at[position].set(alpha))

    down, middle, up = (jax.vmap(events, in_axes=(0, None))(positions, alpha) for alpha in (-1.0, 0.0, 1.0))
    up, down = up - middle, down - middle
    larger = jnp.maximum(up**2, down**2)
    weight = larger / jnp.maximum(middle, 1.0)  # how much a bin says of the parameter
    lopsided = jnp.sum(jnp.where(up * down > LOPSIDED * larger, weight, 0.0), axis=1)
    return jnp.zeros(structure.size, bool).at[positions].set(lopsided > SHARE * jnp.sum(weight, axis=1))


def _minimise(
    objective: Objective,
    start: Float64[Array, " parameters"],
    *,
    movable: Bool[Array, " parameters"],
    limits: tuple[Float64[Array, " parameters"], Float64[Array, " parameters"]],
    kinked: Bool[np.ndarray, " parameters"],
    columns: _Columns,
    max_iterations: int,
) -> _State:
    """Newton's method within bounds; parameters that are `kinked` have a kink in the objective at zero."""

    def advance(state: _State) -> _State:
        here = state.following
        value, gradient, hessian = _expansion(objective, here, columns)
        lower, upper = limits
        if kinked.any():
            lower, upper, gradient = _one_side(objective, here, gradient, limits, kinked)
        pressed = ((here <= lower) & (gradient > 0)) | ((here >= upper) & (gradient < 0))
        free = movable & ~pressed
        slope = jnp.where(free, gradient, 0.0)
        scale = _scale(hessian)
        model = _positive(hessian, free, scale)
        newton = _solve(model, -slope, free)
        distance = -0.5 * jnp.dot(slope, newton)
        step = _within(model, slope, newton, free, lower - here, upper - here)
        following, better = _search(objective, here, value, step, -slope * scale**2, (lower, upper), distance)
        arrived = (distance <= FINISHED) | ((distance <= CONVERGED) & (distance > 0.25 * state.distance))
        return _State(
            parameters=here,
            following=following,
            value=value,
            gradient=gradient,
            free=free,
            scale=scale,
            distance=distance,
            iterations=state.iterations + 1,
            going=better & ~arrived & jnp.isfinite(distance),
        )

    nothing = jnp.zeros_like(start)
    start = jnp.where(movable, jnp.clip(start, *limits), start)
    # What is held stays where it is, outside its bounds too: the background-only fit of a signal bounded from below.
    lowest, highest = limits
    limits = jnp.where(movable, lowest, start), jnp.where(movable, highest, start)
    state = _State(
        parameters=start,
        following=start,
        value=jnp.asarray(jnp.inf),
        gradient=nothing,
        free=movable,
        scale=nothing,
        distance=jnp.asarray(jnp.inf),
        iterations=jnp.asarray(0),
        going=jnp.asarray(True),
    )
    return jax.lax.while_loop(lambda state: state.going & (state.iterations < max_iterations), advance, state)


def _one_side(
    objective: Objective,
    here: Float64[Array, " parameters"],
    gradient: Float64[Array, " parameters"],
    limits: tuple[Float64[Array, " parameters"], Float64[Array, " parameters"]],
    kinked: Bool[np.ndarray, " parameters"],
) -> tuple[Float64[Array, " parameters"], Float64[Array, " parameters"], Float64[Array, " parameters"]]:
    """Bounds within which the objective is smooth, and the gradient on that side: a kink is treated as a bound.

    `gradient` has the slopes from below. A parameter on its kink may leave it to the side where the objective falls;
    where it rises on both, the kink is the minimum, and its bounds close.
    """
    lower, upper = limits
    on_kink = kinked & (here == 0.0)
    above = jax.grad(objective)(jnp.where(on_kink, np.finfo(np.float64).tiny, here))
    up = (above <= 0) & (-above >= gradient)
    down = (gradient > 0) & ~up
    lower = jnp.where(kinked & (here >= 0) & ~(on_kink & down), jnp.maximum(lower, 0.0), lower)
    upper = jnp.where(kinked & (here <= 0) & ~(on_kink & up), jnp.minimum(upper, 0.0), upper)
    return lower, upper, jnp.where(on_kink & up, above, gradient)


def _expansion(
    objective: Objective, at: Float64[Array, " parameters"], columns: _Columns
) -> tuple[Float64[Array, ""], Float64[Array, " parameters"], Float64[Array, "parameters parameters"]]:
    """Value, gradient and Hessian, sharing what they share."""

    def slope(x: Float64[Array, " parameters"]) -> tuple[Float64[Array, " parameters"], Float64[Array, ""]]:
        value, gradient = jax.value_and_grad(objective)(x)
        return gradient, value

    def product(seed: Float64[Array, " parameters"]) -> tuple[Array, Array, Array]:
        gradient, change, value = jax.jvp(slope, (at,), (seed,), has_aux=True)
        return value, gradient, change

    value, gradient, sums = jax.vmap(product, out_axes=(None, None, -1))(jnp.asarray(columns.seeds))
    spread = jnp.where(columns.apart, 0.0, sums[:, columns.sum_of])
    return value, gradient, jnp.where(columns.readable, spread, spread.T)


def _scale(hessian: Float64[Array, "parameters parameters"]) -> Float64[Array, " parameters"]:
    """One over the root of each parameter's own curvature; 1 for a parameter without any."""
    curvature = jnp.abs(jnp.diag(hessian))
    return jnp.where(curvature > 0, 1.0 / jnp.sqrt(jnp.where(curvature > 0, curvature, 1.0)), 1.0)


def _positive(
    hessian: Float64[Array, "parameters parameters"],
    free: Bool[Array, " parameters"],
    scale: Float64[Array, " parameters"],
) -> Float64[Array, "parameters parameters"]:
    """The Hessian among the free parameters if it is positive definite; else with its eigenvalues made positive.

    Eigenvalues are those of the scaled matrix: a staterror of a tenth of a per mille and a shape parameter of order one
    then weigh the same. At a saddle point small ones give steps without measure, so they are raised.
    """
    matrix = _among(hessian * scale[:, None] * scale[None, :], free)

    def by_eigenvalues(matrix: Float64[Array, "parameters parameters"]) -> Float64[Array, "parameters parameters"]:
        values, vectors = jnp.linalg.eigh(matrix)
        saddle = values[0] < -FLAT
        positive = jnp.where(saddle, jnp.maximum(jnp.abs(values), RAISED), jnp.where(values > FLAT, values, 1.0))
        raised: Float64[Array, "parameters parameters"] = (vectors * positive[None, :]) @ vectors.T
        return raised

    positive: Float64[Array, "parameters parameters"]
    positive = jax.lax.cond(_is_definite(matrix), lambda m: m, by_eigenvalues, matrix)
    return positive / (scale[:, None] * scale[None, :])


def _is_definite(scaled: Float64[Array, "parameters parameters"]) -> Bool[Array, ""]:
    """Whether a matrix with a diagonal of ones is positive definite, by more than rounding."""
    return jnp.all(jnp.diag(jnp.linalg.cholesky(scaled)) ** 2 > FLAT)  # a factorisation that fails is NaN


def _among(
    matrix: Float64[Array, "parameters parameters"], free: Bool[Array, " parameters"]
) -> Float64[Array, "parameters parameters"]:
    """The matrix among the free parameters, and the identity among the others."""
    return jnp.where(free[:, None] & free[None, :], matrix, jnp.eye(len(free), dtype=jnp.float64))


def _solve(
    model: Float64[Array, "parameters parameters"],
    target: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
) -> Float64[Array, " parameters"]:
    """The solution of `model @ x = target` among the free parameters, zero elsewhere."""
    factor = jnp.linalg.cholesky(_among(model, free))
    solution: Float64[Array, " parameters"] = cho_solve((factor, True), jnp.where(free, target, 0.0))
    return solution


def _within(
    model: Float64[Array, "parameters parameters"],
    slope: Float64[Array, " parameters"],
    newton: Float64[Array, " parameters"],
    free: Bool[Array, " parameters"],
    lowest: Float64[Array, " parameters"],
    highest: Float64[Array, " parameters"],
) -> Float64[Array, " parameters"]:
    """The Newton step, changed where it would pass a bound.

    A parameter that would pass is pinned at its bound and the others are solved again, until none passes.
    """

    def passing(carry: tuple[Array, Array]) -> Bool[Array, " parameters"]:
        step, inside = carry
        return inside & ((step < lowest) | (step > highest))

    def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        step, inside = carry
        rest = inside & ~passing(carry)
        pinned = jnp.where(free & ~rest, jnp.clip(step, lowest, highest), 0.0)
        return pinned + _solve(model, -slope - model @ pinned, rest), rest

    step: Float64[Array, " parameters"]
    step, _ = jax.lax.while_loop(lambda carry: jnp.any(passing(carry)), again, (newton, free))
    return step


def _search(
    objective: Objective,
    here: Float64[Array, " parameters"],
    value: Float64[Array, ""],
    newton: Float64[Array, " parameters"],
    descent: Float64[Array, " parameters"],
    limits: tuple[Float64[Array, " parameters"], Float64[Array, " parameters"]],
    distance: Float64[Array, ""],
) -> tuple[Float64[Array, " parameters"], Bool[Array, ""]]:
    """The best point along the Newton step and along the projected gradient, and whether it is better than here.

    All lengths are tried at once, which costs less than one Hessian. Near the minimum, where the improvement drowns in
    rounding, it is the whole Newton step.
    """
    lengths = jnp.asarray(LENGTHS)[:, None]
    trials = here[None] + jnp.concatenate([lengths * newton[None], lengths * descent[None]])
    lower, upper = (limit[None] for limit in limits)
    # `here + (bound - here)` may miss the bound by a rounding error; only a parameter that is on it is held there.
    rounding = 4 * np.finfo(np.float64).eps * jnp.abs(here)[None]
    trials = jnp.where(trials <= lower + rounding, lower, jnp.where(trials >= upper - rounding, upper, trials))
    values = jax.vmap(objective)(trials)
    best = jnp.nanargmin(values)
    close = distance <= CLOSE
    return jnp.where(close, trials[0], trials[best]), close | (values[best] < value)
