"""Where a smaller minimum may lie: on the other side of zero of one or two systematic variations.

At a minimum the slopes and curvatures of everything are known. So is, for a variation whose parameter is sent to the
other side, what it does to every bin: that is no expansion. How all the other parameters answer is estimated to first
order, and with that how high the likelihood ends: one solution of a linear system for each variation, and for each pair
of them a product of two. Where the estimate promises a smaller minimum, though it believe in half the constraint only,
there is a place to start from. A variation that moves its bins opposite ways at +1 and -1 promises nothing: there the
estimate is right, and the likelihood rises at least as its constraint.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int

from pipeline.inference.histfactory.arrays import Array, namespace
from pipeline.inference.histfactory.constraints import bounds, interpolated_positions
from pipeline.inference.histfactory.expansion import rate_slopes, varied_rates
from pipeline.inference.histfactory.likelihood import Terms, poisson_slopes, spread_auxdata
from pipeline.inference.histfactory.model import Structure
from pipeline.inference.histfactory.modifiers import rates
from pipeline.inference.newton import CLOSE, Minimum, inverse_among
from pipeline.inference.trust_region import TINY

__all__ = ["Mirrors", "mirrors", "no_mirrors"]

PLACES = 16  # kept, of those that promise most
SIZES = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # on the other side, and as far as on this one
NEAREST = 0.25
MARGIN = 0.5  # of the constraint of what is moved: so much too high the estimate may be
LOPSIDED = -0.8  # product of a bin's shifts up and down, over the larger square: -1 if they are opposite and equal
BENT = 0.1  # in the deviance: only variations that bend by as much are moved in pairs,
BENDING = 8  # and only so many, those that bend most


class Mirrors(NamedTuple):
    """Places to start from, in no order.

    Attributes:
        starts: the places.
        flipped: which parameters were sent elsewhere.
        turns: where these are on their way back.
        falls: by how much the deviance ends lower, estimated; -infinity where there is nothing to look for.
        others: how many more places promise something.
    """

    starts: Float64[Array, "places parameters"]
    flipped: Bool[Array, "places parameters"]
    turns: Float64[Array, "places parameters"]
    falls: Float64[Array, " places"]
    others: Int[Array, ""]


class _Moves(NamedTuple):
    """Every interpolated parameter sent to the other side.

    Attributes:
        there: where to.
        cost: what a constraint about here says there.
        rise: of the deviance, by constraint and data, if nothing else moves.
        bend: by how much the deviance notices that the events do not change in a straight line.
        shift: of the events in every bin.
        push: the change of the deviance's slopes.
        response: of all parameters, as if it could move itself too.
    """

    there: Float64[Array, "*moves"]
    cost: Float64[Array, "*moves"]
    rise: Float64[Array, "*moves"]
    bend: Float64[Array, "*moves"]
    shift: Float64[Array, "*moves bins"]
    push: Float64[Array, "*moves parameters"]
    response: Float64[Array, "*moves parameters"]


def no_mirrors(structure: Structure, start: Float64[Array, " parameters"], *, thorough: bool) -> Mirrors:
    """As many places as `mirrors` has, without promise."""
    xp, several = namespace(start), len(interpolated_positions(structure))
    count = min(several * (several + 1) // 2, PLACES + thorough * several) or 1
    return Mirrors(
        starts=xp.zeros((count, structure.size), np.float64),
        flipped=xp.zeros((count, structure.size), bool),
        turns=xp.zeros((count, structure.size), np.float64),
        falls=xp.full(count, -np.inf, np.float64),
        others=xp.asarray(0),
    )


def mirrors(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    minimum: Minimum,
    movable: Bool[Array, " parameters"],
    *,
    thorough: bool,
) -> Mirrors:
    """Where a smaller minimum may lie than this one.

    Args:
        structure: static.
        model: of the likelihood.
        data: events in every bin, then auxiliary data.
        minimum: of the deviance.
        movable: the parameters that may be moved.
        thorough: also the other side of every variation that is not the same up and down. Static.
    """
    blank, positions = no_mirrors(structure, minimum.parameters, thorough=thorough), interpolated_positions(structure)
    if not len(positions):
        return blank
    parameters = minimum.parameters
    xp, here = namespace(parameters), parameters[positions]
    inverse, _ = inverse_among(minimum.expansion.hessian, movable)
    every, second = _moves(structure, model, data, minimum, inverse)
    moves, who = _chosen(every, inverse[positions][:, positions], positions)
    places, in_pair = xp.asarray(positions)[who], np.arange(len(who)) >= len(positions)
    falls, pins = _falls(moves, second, inverse[places][:, places], moves.response[:, places])
    single = xp.diag(xp.asarray(~in_pair))
    promise = falls + MARGIN * (moves.cost[:, None] + xp.where(single, 0.0, moves.cost[None]))
    aside = in_pair & (moves.bend > BENT) & (moves.there * here[who] <= 0)
    pair = aside[:, None] & aside[None] & (who[:, None] > who[None])
    promising = (promise > CLOSE) & (single | pair & _best_sizes(xp.where(pair, falls, -np.inf), len(positions)))
    if thorough:
        promising = promising | (single & _lopsided(structure, model, parameters)[who][None])
    able = movable[places] & (moves.there != here[who]) & (minimum.value > CLOSE)
    promising = (promising & able[:, None] & able[None]).ravel()

    # The lowest first.
    falls = xp.where(promising, falls.ravel(), -np.inf)
    order = xp.argsort(-falls)[: len(blank.falls)]
    rows, columns = order // len(who), order % len(who)
    two = (rows != columns)[:, None]
    flips = xp.eye(structure.size, dtype=bool)[places]
    flipped = flips[rows] | flips[columns]
    answer = moves.response[rows] - pins[0].ravel()[order][:, None] * inverse[places][rows]
    other = moves.response[columns] - pins[1].ravel()[order][:, None] * inverse[places][columns]
    starts = parameters[None] + answer + xp.where(two, other, 0.0)
    there = xp.where(flips[rows], moves.there[rows][:, None], moves.there[columns][:, None])
    turns = xp.where(there * parameters[None] < 0, 0.0, 0.5 * (there + parameters[None]))
    return Mirrors(
        starts=xp.where(flipped, there, starts),
        flipped=flipped,
        turns=turns,
        falls=falls[order],
        others=xp.sum(promising) - xp.sum(promising[order]),
    )


def _moves(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    minimum: Minimum,
    inverse: Float64[Array, "parameters parameters"],
) -> tuple[_Moves, Float64[Array, " bins"]]:
    """Of several sizes the most promising one; and the curvatures of the deviance by the events of every bin."""
    xp, positions = namespace(minimum.parameters), interpolated_positions(structure)
    parameters, here = minimum.parameters, minimum.parameters[positions]
    lower, upper = bounds(structure)
    mirrored = xp.where(here < 0, 1.0, -1.0) * xp.maximum(xp.abs(here), NEAREST)
    there = xp.concatenate([mirrored[None], np.tile(SIZES, (len(positions), 1)).T])
    there = xp.clip(there, lower[positions][None], upper[positions][None])
    points = there @ np.eye(structure.size)[positions]

    rate = rates(structure, model.effects, parameters)
    first, second = poisson_slopes(data[: structure.bins], rate)
    shift = varied_rates(structure, model.effects, parameters, points) - rate[None, None]
    slopes = rate_slopes(structure, model.effects, parameters)
    push = (shift * second[None, None]) @ slopes
    response = -push @ inverse
    measured, width = spread_auxdata(structure, data)[positions], model.width[positions]
    away = (there - here[None]) / width[None]
    pull = (here - measured) / width
    rise = away**2 + 2.0 * away * pull[None] + shift @ first + 0.5 * (shift**2) @ second
    straight = (there - here[None])[:, :, None] * slopes.T[positions][None]
    moves = _Moves(
        there=there,
        cost=away**2,
        rise=rise,
        bend=(shift - straight) ** 2 @ second,
        shift=shift,
        push=push,
        response=response,
    )
    return moves, second


def _chosen(
    every: _Moves, inverse: Float64[Array, "interpolated interpolated"], positions: Int[np.ndarray, " interpolated"]
) -> tuple[_Moves, Int[Array, " moves"]]:
    """Each parameter's most promising size, then all sizes of those that bend most; and whose they are."""
    xp, several = namespace(every.there), len(positions)
    variance = xp.diag(inverse)
    own = every.response[:, np.arange(several), positions]
    falls = -every.rise - 0.5 * xp.sum(every.push * every.response, axis=2)
    falls = falls - 0.5 * own**2 / xp.where(variance > 0, variance, 1.0)[None]
    size = xp.argmax(falls + MARGIN * every.cost, axis=0)
    bent = xp.argsort(-every.bend[0])[:BENDING]
    who = xp.concatenate([np.arange(several), xp.tile(bent, len(every.there))])
    sizes = xp.concatenate([size, np.repeat(np.arange(len(every.there)), min(several, BENDING))])
    return jax.tree.map(lambda table: table[sizes, who], every), who


def _best_sizes(falls: Float64[Array, "moves moves"], several: int) -> Bool[Array, "moves moves"]:
    """Of the pairs of two parameters, which come after several single ones in all their sizes, the lowest."""
    xp, sizes = namespace(falls), len(SIZES) + 1
    pairs = falls[several:, several:]
    by_size = pairs.reshape(sizes, len(pairs) // sizes, sizes, len(pairs) // sizes)
    best = by_size == xp.max(by_size, axis=(0, 2), keepdims=True)
    return xp.pad(best.reshape(pairs.shape), ((several, 0), (several, 0)))


def _falls(
    moves: _Moves,
    second: Float64[Array, " bins"],
    inverse: Float64[Array, "moves moves"],
    response: Float64[Array, "moves moves"],
) -> tuple[Float64[Array, "moves moves"], Float64[Array, "two moves moves"]]:
    """By how much the deviance ends lower if two parameters move; on the diagonal, if one does.

    With it the forces that keep the two where they are sent, in units of the response to them.
    """
    xp = namespace(moves.rise)
    pair = ~xp.eye(len(moves.rise), dtype=bool)
    variance = xp.diag(inverse)
    variance = xp.where(variance > 0, variance, 1.0)
    one, other = variance[:, None], xp.where(pair, variance[None], 1.0)
    between = xp.where(pair, inverse, 0.0)
    own = xp.diag(response)
    row, column = own[:, None] + xp.where(pair, response.T, 0.0), xp.where(pair, response + own[None], 0.0)
    determinant = xp.maximum(one * other - between**2, TINY)
    pins = xp.stack([other * row - between * column, one * column - between * row]) / determinant[None]
    rise = moves.rise[:, None] + xp.where(pair, moves.rise[None] + (moves.shift * second[None]) @ moves.shift.T, 0.0)
    answer = moves.push @ moves.response.T
    answered = xp.diag(answer)
    answer = answered[:, None] + xp.where(pair, answered[None] + 2.0 * answer, 0.0)
    return -rise - 0.5 * answer - 0.5 * (pins[0] * row + pins[1] * column), pins


def _lopsided(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"]
) -> Bool[Array, " interpolated"]:
    """Which parameters move a bin at +1 and at -1 otherwise than nearly opposite ways."""
    xp = namespace(parameters)
    points = np.ones((3, len(parameters))) * np.array([[-1.0], [0.0], [1.0]])
    down, middle, up = varied_rates(structure, model.effects, parameters, xp.asarray(points))
    up, down = up - middle, down - middle
    return xp.any(up * down > LOPSIDED * xp.maximum(up**2, down**2), axis=1)
