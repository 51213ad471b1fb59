"""Fit a pyhf workspace, and put pyhf's and cabinetry's answers beside ours.

For the observed data and for Asimov data with a signal strength of 1: the best fit of every parameter with errors from
the exact Hessian, -2 ln L in pyhf's convention, q0, Z and whether the fits converged; the same by pyhf (SLSQP) and by
cabinetry (Minuit), with the time each took.

    python scripts/fit_workspace.py workspace.json --measurement CMS_ttbar --json result.json
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cabinetry
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
from pipeline.fit import covariance, fit
from pipeline.histfactory import Structure, asimov_data, from_pyhf, parameter_names
from pipeline.significance import discovery_significance


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 1 if a fit of ours did not converge."""
    options = _parser().parse_args(argv)
    spec = json.loads(options.workspace.read_text(encoding="utf-8"))
    structure, numbers, data = from_pyhf(spec, options.measurement, poi=options.poi)
    model = pyhf.Workspace(spec).model(measurement_name=options.measurement, poi_name=structure.poi)
    data_sets = {"observed": data, "asimov": asimov_data(structure, numbers)}
    result: dict[str, Any] = {}
    for name, values in data_sets.items():
        ours, seconds = _timed(lambda values=values: _ours(structure, numbers, values))
        theirs = {} if options.ours_only else _others(model, np.asarray(values))
        result[name] = ours
        _print_table(structure, f"{name} data", ours, seconds, theirs)
    result["converged"] = all(result[name]["converged"] for name in data_sets)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0 if result["converged"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="a pyhf workspace (JSON)")
    parser.add_argument("--measurement", help="which measurement of the workspace; its first one by default")
    parser.add_argument("--poi", help="parameter of interest; the measurement's by default")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write our results here")
    parser.add_argument("--ours-only", action="store_true", help="do not run pyhf and cabinetry")
    return parser


def _ours(structure: Structure, numbers: Any, data: Any) -> dict[str, Any]:
    names = parameter_names(structure)
    best = jax.jit(fit, static_argnums=0)(structure, numbers, data)
    errors = jax.jit(covariance, static_argnums=0)(structure, numbers, data, best.parameters, best.free)
    discovery = jax.jit(discovery_significance, static_argnums=0)(structure, numbers, data=data)
    return {
        "bestfit": dict(zip(names, np.asarray(best.parameters).tolist(), strict=True)),
        "uncertainty": dict(zip(names, jnp.sqrt(jnp.diag(errors)).tolist(), strict=True)),
        "at_bound_or_held": [name for name, free in zip(names, best.free, strict=True) if not free],
        "twice_nll": float(best.twice_nll),
        "q0": float(discovery.q0),
        "significance": float(discovery.z),
        "gradient_norm": float(best.gradient_norm),
        "iterations": int(best.iterations),
        "converged": bool(best.converged & discovery.converged),
    }


def _others(model: pyhf.Model, data: np.ndarray) -> dict[str, tuple[Any, float]]:
    """What pyhf and cabinetry find; a sentence where they fail."""
    return {
        "pyhf SLSQP": _timed(lambda: _attempt(lambda: _by_pyhf(model, data))),
        "cabinetry": _timed(lambda: _attempt(lambda: _by_cabinetry(model, data))),
    }


def _by_pyhf(model: pyhf.Model, data: np.ndarray) -> dict[str, Any]:
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    parameters, value = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
    _, null = pyhf.infer.mle.fixed_poi_fit(0.0, data, model, return_fitted_val=True)
    q0 = max(float(null - value), 0.0) if parameters[model.config.poi_index] > 0 else 0.0
    return {"bestfit": list(parameters), "twice_nll": float(value), "q0": q0}


def _by_cabinetry(model: pyhf.Model, data: np.ndarray) -> dict[str, Any]:
    found = cabinetry.fit.fit(model, list(data))
    return {"bestfit": found.bestfit, "uncertainty": found.uncertainty, "twice_nll": found.best_twice_nll}


def _attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any] | str:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return run()
    except (pyhf.exceptions.FailedMinimization, RuntimeError, ValueError) as error:
        return f"failed: {str(error).splitlines()[0][:100]}"


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def _print_table(
    structure: Structure, title: str, ours: dict[str, Any], seconds: float, theirs: dict[str, tuple[Any, float]]
) -> None:
    print(f"\n{title}")
    columns = {name: answer for name, (answer, _) in theirs.items() if not isinstance(answer, str)}
    print(f"{'parameter':<34}{'ours':>22}" + "".join(f"{name:>22}" for name in columns))
    for i, name in enumerate(parameter_names(structure)):
        note = " *" if name in ours["at_bound_or_held"] else ""
        row = _value(ours["bestfit"][name], ours["uncertainty"][name])
        for answer in columns.values():
            row += _value(answer["bestfit"][i], answer["uncertainty"][i] if "uncertainty" in answer else None)
        print(f"{name + note:<34}{row}")
    print("* held, or pressed against a bound")
    print(
        f"ours        -2 ln L = {ours['twice_nll']:.6f}   q0 = {ours['q0']:.6f}   Z = {ours['significance']:.4f}   "
        f"{'converged' if ours['converged'] else 'NOT CONVERGED'} in {ours['iterations']} iterations, "
        f"gradient norm {ours['gradient_norm']:.1e}, {seconds:.2f} s with compilation"
    )
    for name, (answer, spent) in theirs.items():
        if isinstance(answer, str):
            print(f"{name:<11} {answer} ({spent:.2f} s)")
        else:
            q0 = f"   q0 = {answer['q0']:.6f}" if "q0" in answer else ""
            print(f"{name:<11} -2 ln L = {answer['twice_nll']:.6f}{q0}   {spent:.2f} s")


def _value(value: float, error: float | None) -> str:
    return f"{value:>12.5f}" + (f" ±{error:>8.5f}" if error is not None else " " * 10)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
