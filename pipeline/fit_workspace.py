"""Fit a pyhf workspace: best fit, significance, and what else is asked for.

    python -m pipeline.fit_workspace workspace.json --measurement CMS_ttbar --limit --ranking --plots plots

For the observed data and for Asimov data with a signal strength of 1: the best fit of every parameter with errors from
the exact Hessian, -2 ln L in pyhf's convention, goodness of fit, q0, Z and whether the fits converged. On demand: upper
limits with their bands and the CLs scan behind them, toys, the ranking of impacts, plots. Names of parameters are
pyhf's `model.config.par_names`: `mu`, `stat[0]`.

Exit code 0: every fit converged; 1: one did not; 2: the workspace cannot be fitted, and a sentence says why.
In the JSON, a number that does not exist is null: the uncertainty of a parameter that is held, presses against a bound,
or that nothing is known of (`at_bound_or_held` lists the first two); q0 of a workspace without parameter of interest.
Fits, limits and the ranking are computed by NumPy and compile nothing. Toys are compiled, and what is compiled stays in
the user's cache folder (`--no-cache` leaves it alone).
"""

import argparse
import json
import logging
import math
import os
import sys
import time
import warnings
from typing import Any, cast

from pipeline.command import keep_compiled, user_path

LONGEST = 240  # characters of an error that are printed
SHOWN = 20  # rows of the ranking


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the exit codes above."""
    options = _parser().parse_args(argv)
    # For matrices of some hundred rows the threads of OpenBLAS wait for each other longer than they compute, and beside
    # another job many times as long. It must know before it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.cache:
        keep_compiled()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            structure, numbers, data = _read(options)
    except _refusals() as error:
        print(f"{options.workspace}: {_sentence(error)}", file=sys.stderr)
        return 2
    from pipeline.inference.histfactory import diagnose

    notes = [str(entry.message) for entry in caught if entry.category is UserWarning]
    notes += diagnose(structure, numbers)
    for sentence in notes:
        print(f"! {sentence}")
    result: dict[str, Any] = {"poi": structure.poi, "notes": notes}
    result |= _fits(structure, numbers, data, thorough=options.thorough)
    if options.limit:
        result["limit"] = _limits(structure, numbers, data, thorough=options.thorough)
    if options.toys:
        result["toys"] = _toys(structure, numbers, data, options)
    if options.ranking:
        result["ranking"] = _ranking(structure, numbers, data, result["observed"], thorough=options.thorough)
    result["converged"] = all(part["converged"] for part in result.values() if isinstance(part, dict))
    if options.plots:
        from pipeline.report.likelihood import plot_workspace

        for path in plot_workspace(options.plots, result):
            print(f"wrote {path}")
    if options.json:
        options.json.write_text(json.dumps(_without_holes(result), indent=2, allow_nan=False), encoding="utf-8")
    return 0 if result["converged"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.fit_workspace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workspace", type=user_path, help="a pyhf workspace (JSON)")
    parser.add_argument("--measurement", help="which measurement of the workspace; its first one by default")
    parser.add_argument("--poi", help="parameter of interest; the measurement's by default")
    parser.add_argument("--limit", action="store_true", help="upper limits, observed and expected, at 95 %% (CLs)")
    parser.add_argument("--toys", type=int, default=0, metavar="N", help="p-value of q0 by so many toys without signal")
    parser.add_argument("--seed", type=int, default=0, help="of the toys")
    parser.add_argument("--ranking", action="store_true", help="impacts of all parameters on that of interest")
    parser.add_argument("--plots", type=user_path, metavar="DIR", help="write plots into this folder")
    parser.add_argument("--json", type=user_path, metavar="OUT", help="write the results here")
    parser.add_argument("--thorough", action="store_true", help="look for further minima whatever that costs")
    parser.add_argument(
        "--no-cache", action="store_false", dest="cache", help="compile everything anew, and keep nothing for next time"
    )
    return parser


def _read(options: argparse.Namespace) -> Any:
    import jax
    import numpy as np

    from pipeline.inference.histfactory import from_pyhf
    from pipeline.inference.significance import tested_position

    spec = json.loads(options.workspace.read_text(encoding="utf-8"))
    if not isinstance(spec, dict) or "measurements" not in spec:
        raise ValueError("not a pyhf workspace: it has no measurements.")
    structure, numbers, data = from_pyhf(spec, options.measurement, poi=options.poi)
    if structure.poi is not None:
        tested_position(structure, None)
    elif options.limit or options.toys or options.ranking:
        raise ValueError("no parameter of interest: name one by --poi for limits, toys and a ranking.")
    return structure, *jax.tree.map(np.asarray, (numbers, data))


def _refusals() -> tuple[type[Exception], ...]:
    """What pyhf calls a workspace that it cannot make a model of."""
    import pyhf

    return (
        OSError,
        ValueError,
        pyhf.exceptions.InvalidSpecification,
        pyhf.exceptions.InvalidModel,
        pyhf.exceptions.InvalidModifier,
        pyhf.exceptions.InvalidMeasurement,
        pyhf.exceptions.InvalidNameReuse,
        pyhf.exceptions.SchemaNotFound,
    )


def _sentence(error: Exception) -> str:
    """What is wrong, without the whole of the workspace, which pyhf and jsonschema repeat."""
    what, _, rest = str(error).partition("\n\tPath: ")
    where = rest.partition("\n")[0].strip()
    what = " ".join(what.split())
    if len(what) > LONGEST:
        what = f"{what[: LONGEST // 2]} ... {what[-LONGEST // 2 :]}"
    return f"{where}: {what}" if where else what


def _fits(structure: Any, numbers: Any, data: Any, *, thorough: bool) -> dict[str, Any]:
    """Observed and Asimov data: free, and without signal where there is one to leave out."""
    sets = {"observed": data, "asimov": _asimov(structure, numbers)}
    results = {}
    for name, values in sets.items():
        start = time.perf_counter()
        results[name] = _one_data_set(structure, numbers, values, thorough=thorough)
        results[name]["seconds"] = time.perf_counter() - start
        _print_table(f"{name} data", results[name])
    return results


def _asimov(structure: Any, numbers: Any) -> Any:
    import numpy as np

    from pipeline.inference.histfactory import asimov_data, nominal_parameters
    from pipeline.inference.significance import poi_position

    nominal = nominal_parameters(structure, numbers)
    if structure.poi is not None:
        nominal = np.where(np.arange(structure.size) == poi_position(structure, None), 1.0, nominal)
    return asimov_data(structure, numbers, nominal)


def _around(structure: Any, numbers: Any, data: Any, best: Any) -> tuple[Any, ...]:
    """What the derivatives at a best fit say: uncertainties, correlations, yields, goodness of fit."""
    import numpy as np

    from pipeline.inference.fit import covariance
    from pipeline.inference.postfit import correlation, goodness_of_fit, yields

    errors = covariance(structure, numbers, data, best.parameters, best.free)
    sigma = np.where(best.free, np.sqrt(np.diag(errors)), np.nan)
    rates = yields(structure, numbers, best.parameters, errors)
    return sigma, correlation(errors), rates, goodness_of_fit(structure, best)


def _one_data_set(structure: Any, numbers: Any, data: Any, *, thorough: bool) -> dict[str, Any]:
    import numpy as np

    from pipeline.inference.fit import Fit, fit
    from pipeline.inference.histfactory import parameter_names
    from pipeline.inference.significance import discovery_significance

    names = parameter_names(structure)
    if structure.poi is None:
        best = fit(structure, numbers, data, thorough=thorough)
        q0, z, converged, left_out = None, None, bool(best.converged), int(best.left_out)
    else:
        test = discovery_significance(structure, numbers, data=data, thorough=thorough)
        best, converged = cast(Fit, test.best_fit), bool(test.converged)  # data are given, so they are fitted
        q0, z, left_out = float(test.q0), float(test.z), int(best.left_out + test.null_fit.left_out)
    sigma, correlations, rates, quality = _around(structure, numbers, data, best)
    return {
        "bestfit": dict(zip(names, np.asarray(best.parameters).tolist(), strict=True)),
        "uncertainty": dict(zip(names, np.asarray(sigma).tolist(), strict=True)),
        "at_bound_or_held": [name for name, free in zip(names, np.asarray(best.free), strict=True) if not free],
        "correlation": np.asarray(correlations).tolist(),
        "yields": np.asarray(rates.expected).tolist(),
        "yield_uncertainty": np.asarray(rates.uncertainty).tolist(),
        "data": np.asarray(data[: structure.bins]).tolist(),
        "twice_nll": float(best.twice_nll),
        "deviance": float(quality.deviance),
        "degrees_of_freedom": quality.degrees_of_freedom,
        "p_value": float(quality.p_value),
        "q0": q0,
        "significance": z,
        "gradient_norm": float(best.gradient_norm),
        "iterations": int(best.iterations),
        "left_out": left_out,
        "converged": converged,
    }


def _limits(structure: Any, numbers: Any, data: Any, *, thorough: bool) -> dict[str, Any]:
    from pipeline.inference.limits import BANDS, upper_limits

    limits = upper_limits(structure, numbers, data, thorough=thorough)
    bands = dict(zip((f"{band:+g}" for band in BANDS), limits.expected, strict=True))
    expected = ", ".join(f"{band}σ: {value:.4f}" for band, value in bands.items())
    print(f"\nupper limit at 95 % (CLs): observed {limits.observed:.4f}; expected {expected}")
    if any(math.isnan(limit) for limit in (limits.observed, *limits.expected)):
        print(
            "nan: there is no such limit. CLs never falls to 5 %, because the strength does nothing; or it lies below "
            "that at every strength; or a bin expects a negative number without signal; or the best fit of "
            f"'{structure.poi}' presses against its upper bound: widen that."
        )
    scan = [
        {"mu": float(t.mu), "cls": float(t.observed_cls), "expected_cls": t.expected_cls.tolist(), "q": float(t.q)}
        for t in limits.scan
    ]
    _print_left_out(limits.left_out)
    return {
        "observed": limits.observed,
        "expected": bands,
        "scan": scan,
        "left_out": limits.left_out,
        "converged": limits.converged,
    }


def _toys(structure: Any, numbers: Any, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from pipeline.inference.toys import discovery_by_toys

    key = jax.random.key(options.seed)
    discovery = discovery_by_toys(structure, numbers, data, key, options.toys, thorough=options.thorough)
    (share, error), z, failed = map(float, discovery.p_value), float(discovery.z), int(discovery.failed)
    # Of n trials without success, p < 3/n at 95 %.
    reached = f"p = {share:.4g} ± {error:.2g}, Z = {z:.3f}"
    none_reached = f"none with so large a q0, p < {3 / max(options.toys - failed, 1):.2g} at 95 %"
    print(
        f"\n{options.toys} toys without signal, {failed} left out because a fit failed: "
        f"{reached if share != 0 else none_reached} (asymptotic Z = {float(discovery.asymptotic_z):.3f})"
    )
    return {
        "toys": options.toys,
        "failed": failed,
        "p_value": share,
        "p_value_uncertainty": error,
        "significance": z,
        "asymptotic_significance": float(discovery.asymptotic_z),
        "converged": failed < options.toys and not math.isnan(share),
    }


def _ranking(structure: Any, numbers: Any, data: Any, observed: dict[str, Any], *, thorough: bool) -> dict[str, Any]:
    import numpy as np

    from pipeline.inference.fit import fit
    from pipeline.inference.histfactory import parameter_names
    from pipeline.inference.postfit import impacts

    best = fit(structure, numbers, data, thorough=thorough)
    ranking = impacts(structure, numbers, data, best, thorough=thorough)
    kinds = ("prefit_up", "prefit_down", "postfit_up", "postfit_down")
    names = parameter_names(structure)
    size = np.nanmax(np.abs([np.where(ranking.tested, getattr(ranking, k), 0.0) for k in kinds[2:]]), axis=0)
    order = [int(i) for i in np.argsort(-size) if ranking.tested[i]]
    rows = {names[i]: {kind: float(getattr(ranking, kind)[i]) for kind in kinds} for i in order}
    print(f"\n{'impact on ' + str(structure.poi):<34}{'after the fit':>22}{'before the fit':>22}")
    for name in list(rows)[:SHOWN]:
        row = rows[name]
        print(
            f"{name:<34}{row['postfit_up']:>+11.4f}{row['postfit_down']:>+11.4f}"
            f"{row['prefit_up']:>+11.4f}{row['prefit_down']:>+11.4f}"
        )
    return {"impacts": rows, "converged": bool(np.all(ranking.converged)) and observed["converged"]}


def _without_holes(value: Any) -> Any:
    """Numbers that are infinite or not numbers become null, which JSON knows."""
    if isinstance(value, dict):
        return {key: _without_holes(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_holes(entry) for entry in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _print_table(title: str, result: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in result["bestfit"].items():
        error = result["uncertainty"][name]
        note = " *" if name in result["at_bound_or_held"] else f" ±{error:>9.5f}"
        print(f"{name:<34}{value:>12.5f}{note}")
    print("* held, or pressed against a bound: no uncertainty")
    print("± is from the exact Hessian; the Hesse of Minuit (pyhf, cabinetry) may differ: MINOS tells which is right")
    test = "" if result["q0"] is None else f"   q0 = {result['q0']:.6f}   Z = {result['significance']:.4f}"
    freedom = result["degrees_of_freedom"]
    share = f"p = {result['p_value']:.3g}" if freedom else "which tells nothing"
    print(
        f"-2 ln L = {result['twice_nll']:.6f}{test}   goodness of fit: {result['deviance']:.3f} "
        f"for {freedom} degrees of freedom, {share}"
    )
    print(
        f"{'converged' if result['converged'] else 'NOT CONVERGED'} in {result['iterations']} iterations, "
        f"gradient norm {result['gradient_norm']:.1e}, {result['seconds']:.2f} s"
    )
    if result["q0"] is not None and math.isnan(result["q0"]):
        print("no Z: the fit without signal failed, or expects a negative number in a bin with observed events")
    _print_left_out(result["left_out"])


def _print_left_out(count: int) -> None:
    if count:
        print(f"{count} variations may have a second valley that was not searched: --thorough does that")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # pyhf writes out every fit that fails, at length
    sys.exit(main())
