"""Is the gradient by the weights of a network right? Along random directions, against exact finite differences.

    python -m scripts.experiments.learned_gradient --config configs/learned.yaml --directions 24

The loss is taken with its slope by the yields at the start of a run. Along a direction of weights, its derivative is
estimated twice, from different collisions: by the flux across the edges of bins from the even subsamples, and from the
odd ones by analysing every event again, exactly, with the weights a bit to either side. A pull is the difference of the
two over its error, which comes from how the subsamples scatter. Simulated events.
"""

import argparse
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from pipeline.analysis import loss_of_yields_and_slope, yields_at
from pipeline.config import load_config, parse_settings
from pipeline.events.batch import Events
from pipeline.events.cuts import Thresholds, arrays
from pipeline.events.devices import summed
from pipeline.events.scores import Score, score_of, standardised
from pipeline.events.table import list_events, list_inputs
from pipeline.events.yields import weight_gradient
from pipeline.problem import Problem

SUBSAMPLES = 16
STEP = 0.25
"""How far scores move to either side, in widths of a typical bin: within the kernel, and over many events."""

Values = NDArray[np.float64]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/learned.yaml"), help="with a learned observable")
    parser.add_argument("--directions", type=int, default=24)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    options = parser.parse_args()
    problem = Problem.from_config(load_config(options.config, parse_settings(options.set)))
    flux, differences = along_directions(problem, options.directions)
    pulls = pulls_of(flux, differences)
    print(f"{problem.config.title or problem.config.name}: {options.directions} directions (simulated events)")
    print("  derivative by flux    exact difference    pull")
    rows = zip(2 * flux[0::2].sum(axis=0), 2 * differences[1::2].sum(axis=0), pulls, strict=True)
    for by_flux, difference, pull in rows:
        print(f"{by_flux:20.3e}{difference:20.3e}{pull:8.2f}")
    print(f"pulls: mean {pulls.mean():.2f}, width {pulls.std():.2f}")
    print(f"cosine between the gradients of two halves of the events: {cosine(flux):.3f} (along these directions)")


def along_directions(problem: Problem, directions: int) -> tuple[Values, Values]:
    """The derivative of the loss along each direction, by flux and by differences, shape "subsamples directions"."""
    analysis, data = problem.analysis, problem.training
    (score,) = analysis.events.scores
    at = arrays(problem.defaults)
    yields = yields_at(analysis, at, data)
    _, slope = loss_of_yields_and_slope(yields, analysis, data.recipe)
    gradient = summed(weight_gradient, static=(0,))
    widths = arrays({score.name: problem.config.observables[score.name].bandwidth})
    by_weights = [
        gradient(analysis.events, at, widths, _only(data.events, number), slope)[score.name]
        for number in range(SUBSAMPLES)
    ]
    flux, differences = [], []
    for seed in range(directions):
        direction = _direction(problem, at, score, seed)
        flux.append([_along(halves, direction) for halves in by_weights])
        sides = [
            _loss_of_subsamples(problem, _moved(at, score, direction, side), np.asarray(slope)) for side in (1, -1)
        ]
        differences.append((sides[0] - sides[1]) / 2)
    return np.array(flux).T, np.array(differences).T


def pulls_of(flux: Values, differences: Values) -> Values:
    """Of the sums of the even subsamples by flux and of the odd ones by differences; noise is pooled per direction."""
    first, second = flux[0::2], differences[1::2]
    number = len(first)
    variance = number * (first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1))
    return (first.sum(axis=0) - second.sum(axis=0)) / np.sqrt(variance)


def cosine(flux: Values) -> float:
    """Between the derivatives of the even and the odd subsamples."""
    first, second = flux[0::2].sum(axis=0), flux[1::2].sum(axis=0)
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _only(events: Events, number: int) -> Events:
    """The events of one subsample; the others weigh nothing."""
    weights = [jnp.where(group.collision % SUBSAMPLES == number, group.weight, 0) for group in events.groups]
    return eqx.tree_at(lambda each: [group.weight for group in each.groups], events, weights)


def _direction(problem: Problem, at: Thresholds, score: Score, seed: int) -> Any:
    """A random direction, so long that the scores of typical events move by `STEP` widths of a typical bin."""
    network, generator = at[score.name], np.random.default_rng(seed)
    direction = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 1 / np.sqrt(leaf.shape[-1]), leaf.shape), leaf.dtype),
        network.weights,
    )
    listed = list_inputs(problem.analysis.events, at, problem.training.events, score)
    inputs = standardised(network, jnp.asarray(listed.inputs[:, listed.inside.any(axis=0)][:, :20_000]))
    _, moves = jax.jvp(lambda weights: score_of(score, weights, inputs), (network.weights,), (direction,))
    bins = np.concatenate([np.diff(np.asarray(edges)) for edges in problem.training.events.edges.values()])
    size = STEP * np.median(bins) / float(jnp.sqrt(jnp.mean(moves**2)))
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(size, leaf.dtype), direction)


def _moved(at: Thresholds, score: Score, direction: Any, side: int) -> Thresholds:
    weights = jax.tree.map(lambda leaf, step: leaf + side * step, at[score.name].weights, direction)
    return {**at, score.name: eqx.tree_at(lambda each: each.weights, at[score.name], weights)}


def _along(halves: Any, direction: Any) -> float:
    terms = [
        np.vdot(own.sum(axis=0), step) for own, step in zip(*map(jax.tree.leaves, (halves, direction)), strict=True)
    ]
    return float(sum(terms))


def _loss_of_subsamples(problem: Problem, at: Thresholds, slope: Values) -> Values:
    """Slope times yields of each subsample, from the exact list of events."""
    listed = list_events(problem.analysis.events, at, problem.training.events)
    real = listed.position < problem.analysis.selection.bins
    worth = slope[listed.kinematic[real], listed.dataset[real], listed.position[real]]
    values = np.einsum("ec,ce->e", worth, listed.columns[:, real].astype(np.float64))
    return np.bincount(listed.collision[real] % SUBSAMPLES, weights=values, minlength=SUBSAMPLES)


if __name__ == "__main__":
    main()
