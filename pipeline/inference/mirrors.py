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
from pipeline.inference.histfactory.expansion import interplay, rate_slopes, varied_rates
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


class _Frame(NamedTuple):
    """What the minimum says: events of every bin by all parameters, and the deviance by both.

    Attributes:
        here: the interpolated parameters.
        pull: of their constraints.
        width: of their constraints.
        first: slopes of the deviance by the events.
        second: its curvatures.
        slopes: of the events by the parameters.
        inverse: of the deviance's Hessian.
    """

    here: Float64[Array, " interpolated"]
    pull: Float64[Array, " interpolated"]
    width: Float64[Array, " interpolated"]
    first: Float64[Array, " bins"]
    second: Float64[Array, " bins"]
    slopes: Float64[Array, "bins parameters"]
    inverse: Float64[Array, "parameters parameters"]


class _Moves(NamedTuple):
    """One interpolated parameter or two, sent elsewhere together.

    Attributes:
        who: the two; one alone stands there twice.
        there: where to.
        cost: what constraints about here say there.
        shift: of the events in every bin, if no other parameter moves.
        fall: of the deviance, when the others have answered.
        pins: the forces that keep the two there, in units of the response to them.
    """

    who: Int[Array, "moves two"]
    there: Float64[Array, "moves two"]
    cost: Float64[Array, " moves"]
    shift: Float64[Array, "moves bins"]
    fall: Float64[Array, " moves"]
    pins: Float64[Array, "moves two"]


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
    parameters, xp = minimum.parameters, namespace(minimum.parameters)
    inverse, _ = inverse_among(minimum.expansion.hessian, movable)
    frame = _frame(structure, model, data, parameters, inverse)
    singles, pairs = _moves(structure, model, parameters, frame)
    promising = [move.fall + MARGIN * move.cost > CLOSE for move in (singles, pairs)]
    if thorough:
        promising[0] = promising[0] | _lopsided(structure, model, parameters)
    moves = jax.tree.map(lambda *tables: xp.concatenate(tables), singles, pairs)
    able = xp.all(movable[positions][moves.who] & (moves.there != frame.here[moves.who]), axis=1)
    promising = xp.concatenate(promising) & able & (minimum.value > CLOSE)

    # The lowest first.
    falls = xp.where(promising, moves.fall, -np.inf)
    order = xp.argsort(-falls)[: len(blank.falls)]
    moves = jax.tree.map(lambda table: table[order], moves)
    flips = xp.eye(structure.size, dtype=bool)[xp.asarray(positions)[moves.who]]
    flipped = xp.any(flips, axis=1)
    there = xp.where(flips[:, 0], moves.there[:, :1], moves.there[:, 1:])
    push = (moves.shift * frame.second[None]) @ frame.slopes
    push = push + xp.sum(xp.where(flips, moves.pins[:, :, None], 0.0), axis=1)
    return Mirrors(
        starts=xp.where(flipped, there, parameters[None] - push @ inverse),
        flipped=flipped,
        turns=xp.where(there * parameters[None] < 0, 0.0, 0.5 * (there + parameters[None])),
        falls=falls[order],
        others=xp.sum(promising) - xp.sum(promising[order]),
    )


def _frame(
    structure: Structure,
    model: Terms,
    data: Float64[Array, " data"],
    parameters: Float64[Array, " parameters"],
    inverse: Float64[Array, "parameters parameters"],
) -> _Frame:
    positions = interpolated_positions(structure)
    here, width = parameters[positions], model.width[positions]
    first, second = poisson_slopes(data[: structure.bins], rates(structure, model.effects, parameters))
    return _Frame(
        here=here,
        pull=(here - spread_auxdata(structure, data)[positions]) / width,
        width=width,
        first=first,
        second=second,
        slopes=rate_slopes(structure, model.effects, parameters),
        inverse=inverse,
    )


def _moves(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"], frame: _Frame
) -> tuple[_Moves, _Moves]:
    """Each parameter, and each pair of those that bend most, in the most promising of several sizes."""
    xp, positions, here = namespace(parameters), interpolated_positions(structure), frame.here
    lower, upper = bounds(structure)
    mirrored = xp.where(here < 0, 1.0, -1.0) * xp.maximum(xp.abs(here), NEAREST)
    there = xp.concatenate([mirrored[None], np.tile(SIZES, (len(positions), 1)).T])
    there = xp.clip(there, lower[positions][None], upper[positions][None])
    points = there @ np.eye(structure.size)[positions]
    shift = varied_rates(structure, model.effects, parameters, points)
    shift = shift - rates(structure, model.effects, parameters)[None, None]
    sizes, several, bins = shift.shape

    alone = xp.asarray(np.arange(several).repeat(sizes)[:, None].repeat(2, axis=1))
    ends, changes = xp.moveaxis(there, 0, 1).reshape(-1, 1), xp.moveaxis(shift, 0, 1).reshape(-1, bins)
    singles = _answered(frame, positions, alone, xp.concatenate([ends, ends], axis=1), changes)

    straight = (there - here[None])[:, :, None] * frame.slopes.T[positions][None]
    bend = (shift - straight) ** 2 @ frame.second
    # One near zero has no side yet.
    aside = (bend > BENT) & ((there * here[None] <= 0) | (xp.abs(here) < NEAREST)[None])
    bent = xp.argsort(-bend[0])[:BENDING]
    couples, grid = np.stack(np.triu_indices(len(bent), 1)), np.stack(np.divmod(np.arange(sizes**2), sizes))
    rows, columns = (grid[:, None, :] * len(bent) + couples[:, :, None]).reshape(2, -1)
    extra = interplay(structure, model.effects, parameters, points, bent)[rows, columns]
    ends, changes, aside = there[:, bent].ravel(), shift[:, bent].reshape(-1, bins), aside[:, bent].ravel()
    who = xp.stack([bent[rows % len(bent)], bent[columns % len(bent)]], axis=1)
    together = changes[rows] + changes[columns] + extra
    pairs = _answered(frame, positions, who, xp.stack([ends[rows], ends[columns]], axis=1), together)
    pairs = pairs._replace(fall=xp.where(aside[rows] & aside[columns], pairs.fall, -np.inf))
    return _most_promising(singles, sizes), _most_promising(pairs, sizes**2)


def _answered(
    frame: _Frame,
    positions: Int[np.ndarray, " interpolated"],
    who: Int[Array, "moves two"],
    there: Float64[Array, "moves two"],
    shift: Float64[Array, "moves bins"],
) -> _Moves:
    """How all the other parameters answer to moves, to first order."""
    xp, both = namespace(shift), who[:, 0] != who[:, 1]
    counts = xp.stack([xp.ones_like(both), both], axis=1)
    away = xp.where(counts, (there - frame.here[who]) / frame.width[who], 0.0)
    cost = xp.sum(away**2, axis=1)
    rise = cost + 2.0 * xp.sum(away * frame.pull[who], axis=1) + shift @ frame.first + 0.5 * shift**2 @ frame.second
    weighted, slopes, inverse = shift * frame.second[None], frame.slopes, frame.inverse
    push = weighted @ slopes
    response = -(weighted @ (slopes @ inverse) if len(slopes) < len(inverse) else push @ inverse)
    own = xp.where(counts, xp.take_along_axis(response[:, positions], who, axis=1), 0.0)
    places = xp.asarray(positions)[who]
    variance = inverse[places, places]
    one, other = xp.where(counts & (variance > 0), variance, 1.0).T
    between = xp.where(both, inverse[places[:, 0], places[:, 1]], 0.0)
    row, column = own.T
    pins = xp.stack([other * row - between * column, one * column - between * row], axis=1)
    pins = pins / xp.maximum(one * other - between**2, TINY)[:, None]
    fall = -rise - 0.5 * xp.sum(push * response, axis=1) - 0.5 * xp.sum(pins * own, axis=1)
    return _Moves(who=who, there=there, cost=cost, shift=shift, fall=fall, pins=pins)


def _most_promising(moves: _Moves, sizes: int) -> _Moves:
    """Of so many moves in a row that differ in size only, one."""
    xp = namespace(moves.fall)
    best = xp.argmax((moves.fall + MARGIN * moves.cost).reshape(-1, sizes), axis=1)
    return jax.tree.map(lambda table: table[best + sizes * np.arange(len(best))], moves)


def _lopsided(
    structure: Structure, model: Terms, parameters: Float64[Array, " parameters"]
) -> Bool[Array, " interpolated"]:
    """Which parameters move a bin at +1 and at -1 otherwise than nearly opposite ways."""
    xp = namespace(parameters)
    points = np.ones((3, len(parameters))) * np.array([[-1.0], [0.0], [1.0]])
    down, middle, up = varied_rates(structure, model.effects, parameters, xp.asarray(points))
    up, down = up - middle, down - middle
    return xp.any(up * down > LOPSIDED * xp.maximum(up**2, down**2), axis=1)
