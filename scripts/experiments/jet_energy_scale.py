"""A nuisance parameter that acts on events: the jet energy scale is fitted together with the ttbar normalisation.

Data are the events themselves (simulated) with all jets scaled by some true value: what is expected, without noise. One
fit scales the jets of every event and selects anew at each of its steps, with the derivative of the hard templates by
the scale (`calibrations`). The other one is pyhf's, which interpolates between the templates at 1 - size, 1 and
1 + size, as HistFactory does. The scale has a Gaussian constraint of that size in both; nothing else is uncertain.

Example:
  python scripts/experiments/jet_energy_scale.py --config configs/quickstart.yaml --true 0.98 0.99 1.01 1.02
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pyhf
from jaxtyping import Float64
from pipeline.analysis import templates_at, yields_and_flux_at
from pipeline.command import guarded
from pipeline.config import load_config
from pipeline.events.cuts import arrays
from pipeline.inference.templates import make_templates
from pipeline.problem import Problem

SCALE = "jet_scale"
Templates = Float64[np.ndarray, "2 bins"]
"""Expected events of the signal and of everything else."""
TOLERANCE = 1e-4
"""A fit ends where it moves by less: exact templates are steps, and single events move it by more than nothing."""
MOST_STEPS = 30


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--true", type=float, nargs="+", default=[0.98, 0.99, 1.01, 1.02])
    parser.add_argument("--size", type=float, default=0.03, help="of the uncertainty of the scale (default: 0.03)")
    parser.add_argument("--bandwidth", type=float, default=0.02, help="of the kernel (default: 0.02)")
    options = parser.parse_args()
    return guarded(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    reach = 2 * options.size
    scale = {"scale": ["jet.pt"], "trainable": True, "bounds": [1 - reach, 1 + reach], "bandwidth": options.bandwidth}
    problem = Problem.from_config(load_config(options.config, {"calibrations": {SCALE: scale}}))
    expected = templates_of(problem)
    model = interpolated(*(expected(1 + shift)[0] for shift in (-options.size, 0.0, options.size)))
    print("true scale   by events: scale      mu   interpolated: scale      mu   (simulated events)")
    for true in options.true:
        data = expected(true)[0].sum(axis=0)
        scale_, mu = fit_events(expected, data, options.size)
        pull, mu_by_pyhf = fit_interpolated(model, data)
        print(
            f"{true:10.4f}   {scale_:16.5f}  {mu:6.4f}   {1 + options.size * pull:19.5f}  {mu_by_pyhf:6.4f}", flush=True
        )
    return 0


def templates_of(problem: Problem) -> Callable[[float], tuple[Templates, Templates]]:
    """From a value of the scale to the exact templates of all validation events, and their derivative by it."""
    signal = [name in problem.config.measurement.signal for name in problem.config.processes]
    at, width = arrays(problem.defaults), arrays({SCALE: problem.bandwidths[SCALE]})

    def summed(templates: np.ndarray) -> Templates:
        nominal = np.asarray(templates)[0]
        return np.stack([nominal[signal].sum(axis=0), nominal[np.logical_not(signal)].sum(axis=0)])

    def expected(value: float) -> tuple[Templates, Templates]:
        here = at | arrays({SCALE: value})
        yields, flux, recipe = yields_and_flux_at(problem.analysis, here, width, problem.validation)
        slope = flux[SCALE].sum(axis=(0, 3)).astype(yields.dtype)
        _, moved = jax.jvp(lambda each: make_templates(recipe, each).yields, (yields,), (slope,))
        return summed(templates_at(problem.analysis, here, problem.validation).yields), summed(moved)

    return expected


def fit_events(
    expected: Callable[[float], tuple[Templates, Templates]], data: Float64[np.ndarray, " bins"], size: float
) -> tuple[float, float]:
    """The scale and the normalisation of the largest likelihood, by Fisher scoring.

    Raises:
        RuntimeError: the steps do not end.
    """
    scale, mu = 1.0, 1.0
    for _ in range(MOST_STEPS):
        (signal, background), (signal_slope, background_slope) = expected(scale)
        total = mu * signal + background
        slopes = np.stack([mu * signal_slope + background_slope, signal])
        constraint = np.array([1 / size**2, 0.0])
        gradient = slopes @ (data / total - 1) - constraint * np.array([scale - 1, 0.0])
        step = np.linalg.solve((slopes / total) @ slopes.T + np.diag(constraint), gradient)
        scale, mu = scale + step[0], mu + step[1]
        if abs(step).max() < TOLERANCE:
            return float(scale), float(mu)
    raise RuntimeError(f"the fit is still moving by {abs(step).max():g} after {MOST_STEPS} steps")


def interpolated(low: Templates, nominal: Templates, high: Templates) -> pyhf.Model:
    """HistFactory's model of the same, with a two-sided `histosys`."""

    def sample(number: int, name: str, modifiers: list[dict]) -> dict:
        data = {"lo_data": low[number].tolist(), "hi_data": high[number].tolist()}
        modifiers = [*modifiers, {"name": SCALE, "type": "histosys", "data": data}]
        return {"name": name, "data": nominal[number].tolist(), "modifiers": modifiers}

    samples = [sample(0, "signal", [{"name": "mu", "type": "normfactor", "data": None}]), sample(1, "background", [])]
    return pyhf.Model({"channels": [{"name": "all", "samples": samples}]}, poi_name="mu")


def fit_interpolated(model: pyhf.Model, data: Float64[np.ndarray, " bins"]) -> tuple[float, float]:
    """The pull of the scale and the normalisation, by pyhf."""
    found = pyhf.infer.mle.fit([*data, *model.config.auxdata], model)
    places = {name: model.config.par_slice(name).start for name in (SCALE, "mu")}
    return float(found[places[SCALE]]), float(found[places["mu"]])


if __name__ == "__main__":
    sys.exit(main())
