"""What else a physicist would use: scans, simplex and direction searches, evolution, Bayesian optimisation.

Every method takes a counted loss on the unit cube, a place to start from and a seed, and goes on until the budget is
spent. What converges earlier starts again from a random place, so that a larger budget is never wasted. Settings are
those that their authors recommend, with first steps of a fifth of the bounds.
"""

import importlib.util
import logging
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution, minimize
from scipy.stats import qmc

from baselines.counting import BudgetSpent, Counted

__all__ = ["METHODS", "REQUIRES", "missing", "search"]

Place = NDArray[np.float64]
Method = Callable[[Counted, Place, int], None]

FIRST_STEP = 0.2
FINEST_STEP = 1e-3
"""Of the bounds; a change of the loss below `FINEST_CHANGE` counts as none."""
FINEST_CHANGE = 1e-6


def search(method: Method, counted: Counted, start: Place, seed: int) -> None:
    """Run a method until its budget is spent."""
    try:
        method(counted, start, seed)
    except BudgetSpent:
        return


def scan(counted: Counted, start: Place, seed: int) -> None:
    """A grid for one or two thresholds, a Latin hypercube for more; in random order, so that a part is a scan too."""
    generator = np.random.default_rng(seed)
    affordable = int(counted.budget)
    if len(start) <= 2:
        axis = np.linspace(0, 1, max(2, int(affordable ** (1 / len(start)))))
        places = np.stack(np.meshgrid(*[axis] * len(start)), axis=-1).reshape(-1, len(start))
    else:
        places = qmc.LatinHypercube(len(start), rng=generator).random(affordable)
    for place in generator.permutation(places):
        counted(place)


def nelder_mead(counted: Counted, start: Place) -> None:
    """The simplex of Nelder and Mead, with bounds."""
    inwards = np.where(start < 0.5, FIRST_STEP, -FIRST_STEP)
    simplex = np.concatenate([start[None], start + np.diag(inwards)])
    options = {"initial_simplex": simplex, "xatol": FINEST_STEP, "fatol": FINEST_CHANGE, "adaptive": True}
    minimize(counted, start, method="Nelder-Mead", bounds=[(0, 1)] * len(start), options=options)


def powell(counted: Counted, start: Place) -> None:
    """Powell's conjugate directions, with bounds."""
    options = {"xtol": FINEST_STEP, "ftol": FINEST_CHANGE}
    minimize(counted, start, method="Powell", bounds=[(0, 1)] * len(start), options=options)


def cobyla(counted: Counted, start: Place) -> None:
    """Powell's linear approximations with a trust region, with bounds."""
    options = {"rhobeg": FIRST_STEP, "tol": FINEST_STEP, "maxiter": 100_000}
    minimize(counted, start, method="COBYLA", bounds=[(0, 1)] * len(start), options=options)


def restarted(local: Callable[[Counted, Place], None]) -> Method:
    """A local method that starts again from a random place whenever it has converged."""

    def method(counted: Counted, start: Place, seed: int) -> None:
        generator = np.random.default_rng(seed)
        while True:
            local(counted, start)
            start = generator.random(len(start))

    return method


def cma_es(counted: Counted, start: Place, seed: int) -> None:
    """Covariance matrix adaptation; it starts again from a random place with a population twice as large."""
    import cma

    generator = np.random.default_rng(seed)
    larger = 1
    while True:
        options = {"bounds": [0, 1], "seed": int(generator.integers(1, 2**31)), "verbose": -9}
        population = larger * (4 + int(3 * np.log(len(start))))
        with warnings.catch_warnings():
            # A flat step function looks strange to it; that is no reason to stop.
            warnings.simplefilter("ignore")
            strategy = cma.CMAEvolutionStrategy(start, FIRST_STEP, options | {"popsize": population})
            while not strategy.stop():
                places = strategy.ask()
                strategy.tell(places, [counted(np.asarray(place)) for place in places])
        start, larger = generator.random(len(start)), 2 * larger


def bayesian(counted: Counted, start: Place, seed: int) -> None:
    """Bayesian optimisation with tree-structured Parzen estimators: a Gaussian process is too slow for 1,000 points."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    names = list(counted.ranges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial(dict(zip(names, np.clip(start, 0, 1).tolist(), strict=True)))
    while True:
        trial = study.ask()
        place = np.array([trial.suggest_float(name, 0.0, 1.0) for name in names])
        study.tell(trial, counted(place))


def evolution(counted: Counted, start: Place, seed: int) -> None:
    """Differential evolution (Storn and Price) over the whole of the bounds, again and again."""
    generator = np.random.default_rng(seed)
    while True:
        differential_evolution(
            counted, [(0, 1)] * len(start), x0=np.clip(start, 0, 1), rng=generator, polish=False, maxiter=10_000
        )
        start = generator.random(len(start))


METHODS: dict[str, Method] = {
    "scan": scan,
    "Nelder-Mead": restarted(nelder_mead),
    "Powell": restarted(powell),
    "COBYLA": restarted(cobyla),
    "CMA-ES": cma_es,
    "Bayesian (TPE)": bayesian,
    "differential evolution": evolution,
}

REQUIRES = {"CMA-ES": "cma", "Bayesian (TPE)": "optuna"}


def missing(method: str) -> str | None:
    """What to install for a method, if anything."""
    package = REQUIRES.get(method)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return "not installed (pip install '.[baselines]')"
