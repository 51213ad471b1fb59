"""Fit a pyhf workspace, and put pyhf's and cabinetry's answers beside ours.

For the observed data and for Asimov data with a signal strength of 1: the best fit of every parameter with errors from
the exact Hessian, -2 ln L in pyhf's convention, q0, Z and whether the fits converged; the same by pyhf (SLSQP) and by
cabinetry (Minuit), with the time each took. Names of parameters are pyhf's `model.config.par_names`: `mu`, `stat[0]`.

    python scripts/fit_workspace.py workspace.json --measurement CMS_ttbar --json result.json

Exit code 0: every fit of ours converged; 1: one did not; 2: the workspace cannot be fitted, and a sentence says why.
In the JSON, a number that does not exist is null: the uncertainty of a parameter that nothing is known of, or q0 of a
workspace without parameter of interest.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cabinetry
import jax
import numpy as np
import pyhf
from pipeline.inference.fit import Fit, covariance, fit
from pipeline.inference.histfactory import (
    Numbers,
    Structure,
    asimov_data,
    diagnose,
    from_pyhf,
    nominal_parameters,
    parameter_names,
)
from pipeline.inference.significance import Significance, discovery_significance, poi_position

LONGEST = 240  # characters of an error that are printed

# What pyhf calls a workspace that it cannot make a model of.
_REFUSALS = (
    pyhf.exceptions.InvalidSpecification,
    pyhf.exceptions.InvalidModel,
    pyhf.exceptions.InvalidModifier,
    pyhf.exceptions.InvalidMeasurement,
    pyhf.exceptions.InvalidNameReuse,
    pyhf.exceptions.SchemaNotFound,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the exit codes above."""
    options = _parser().parse_args(argv)
    try:
        spec = json.loads(options.workspace.read_text(encoding="utf-8"))
        if not isinstance(spec, dict) or "measurements" not in spec:
            raise ValueError("not a pyhf workspace: it has no measurements.")
        structure, numbers, data = from_pyhf(spec, options.measurement, poi=options.poi)
    except (OSError, ValueError, *_REFUSALS) as error:
        print(f"{options.workspace}: {_sentence(error)}", file=sys.stderr)
        return 2
    model = pyhf.Workspace(spec).model(measurement_name=options.measurement, poi_name=structure.poi)
    notes = diagnose(structure, numbers)
    for sentence in notes:
        print(f"! {sentence}")
    data_sets = {"observed": data, "asimov": asimov_data(structure, numbers, _with_signal(structure, numbers))}
    result: dict[str, Any] = {"poi": structure.poi, "notes": notes}
    for name, values in data_sets.items():
        ours, first = _timed(lambda values=values: _ours(structure, numbers, values))
        _, again = _timed(lambda values=values: _ours(structure, numbers, values))
        theirs = {} if options.ours_only else _others(model, np.asarray(values))
        result[name] = ours
        _print_table(structure, f"{name} data", ours, (first, again), theirs)
    result["converged"] = all(result[name]["converged"] for name in data_sets)
    if options.json:
        options.json.write_text(json.dumps(_without_holes(result), indent=2, allow_nan=False), encoding="utf-8")
    return 0 if result["converged"] else 1


def _sentence(error: Exception) -> str:
    """What is wrong, without the whole of the workspace, which pyhf and jsonschema repeat."""
    what, _, rest = str(error).partition("\n\tPath: ")
    where = rest.partition("\n")[0].strip()
    what = " ".join(what.split())
    if len(what) > LONGEST:
        what = f"{what[: LONGEST // 2]} ... {what[-LONGEST // 2 :]}"
    return f"{where}: {what}" if where else what


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="a pyhf workspace (JSON)")
    parser.add_argument("--measurement", help="which measurement of the workspace; its first one by default")
    parser.add_argument("--poi", help="parameter of interest; the measurement's by default")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write our results here")
    parser.add_argument("--ours-only", action="store_true", help="do not run pyhf and cabinetry")
    return parser


@partial(jax.jit, static_argnums=0)
def _fits(structure: Structure, numbers: Numbers, data: Any) -> tuple[Fit, Any, Significance | None]:
    """The best fit, its covariance, and the test of no signal where there is a parameter of interest."""
    discovery = None if structure.poi is None else discovery_significance(structure, numbers, data=data, thorough=True)
    best = fit(structure, numbers, data, thorough=True) if discovery is None else discovery.best_fit
    return best, covariance(structure, numbers, data, best.parameters, best.free), discovery


def _with_signal(structure: Structure, numbers: Numbers) -> Any:
    """The nominal parameters with a signal strength of 1."""
    nominal = nominal_parameters(structure, numbers)
    return nominal if structure.poi is None else nominal.at[poi_position(structure, None)].set(1.0)


def _ours(structure: Structure, numbers: Numbers, data: Any) -> dict[str, Any]:
    names = parameter_names(structure)
    best, errors, discovery = jax.block_until_ready(_fits(structure, numbers, data))
    converged = best.converged if discovery is None else discovery.converged
    return {
        "bestfit": dict(zip(names, np.asarray(best.parameters).tolist(), strict=True)),
        "uncertainty": dict(zip(names, np.sqrt(np.diag(errors)).tolist(), strict=True)),
        "at_bound_or_held": [name for name, free in zip(names, best.free, strict=True) if not free],
        "twice_nll": float(best.twice_nll),
        "q0": None if discovery is None else float(discovery.q0),
        "significance": None if discovery is None else float(discovery.z),
        "gradient_norm": float(best.gradient_norm),
        "iterations": int(best.iterations),
        "converged": bool(converged),
    }


def _without_holes(value: Any) -> Any:
    """Numbers that are infinite or not numbers become null, which JSON knows."""
    if isinstance(value, dict):
        return {key: _without_holes(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _others(model: pyhf.Model, data: np.ndarray) -> dict[str, tuple[Any, float]]:
    """What pyhf and cabinetry find; a sentence where they fail."""
    return {
        "pyhf SLSQP": _timed(lambda: _attempt(lambda: _by_pyhf(model, data))),
        "cabinetry": _timed(lambda: _attempt(lambda: _by_cabinetry(model, data))),
    }


def _by_pyhf(model: pyhf.Model, data: np.ndarray) -> dict[str, Any]:
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    parameters, value = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
    if model.config.poi_index is None:
        return {"bestfit": list(parameters), "twice_nll": float(value)}
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
    except (pyhf.exceptions.FailedMinimization, RuntimeError, ValueError, AssertionError) as error:
        return f"failed: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}"


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def _print_table(
    structure: Structure,
    title: str,
    ours: dict[str, Any],
    seconds: tuple[float, float],
    theirs: dict[str, tuple[Any, float]],
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
    test = "" if ours["q0"] is None else f"   q0 = {ours['q0']:.6f}   Z = {ours['significance']:.4f}"
    print(
        f"ours        -2 ln L = {ours['twice_nll']:.6f}{test}   "
        f"{seconds[1]:.4f} s ({seconds[0]:.2f} s with compilation)   "
        f"{'converged' if ours['converged'] else 'NOT CONVERGED'} in {ours['iterations']} iterations, "
        f"gradient norm {ours['gradient_norm']:.1e}"
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
    logging.disable(logging.CRITICAL)  # pyhf writes out every fit that fails, at length
    sys.exit(main())
