"""Our likelihood and fits against pyhf's: how far apart, and how fast.

For each workspace: the largest relative deviation of the log-likelihood at random points; -2 ln L at our minimum minus
the best that SLSQP and Minuit find (negative: ours is lower); q0 of the Asimov data at a signal strength of 1, its
relative deviation; and the time of one fit and of one q0 (median of several, after compilation), with the cost of the
gradient of q0 with respect to all numbers.

    python scripts/compare_likelihood.py workspace.json another.json
    python scripts/compare_likelihood.py --examples --agc path/to/reference_histograms
"""

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
from pipeline.inference.fit import fit
from pipeline.inference.histfactory import asimov_data, from_pyhf, logpdf
from pipeline.inference.significance import discovery_significance

TESTS = Path(__file__).resolve().parents[1] / "tests"


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspaces", type=Path, nargs="*", help="pyhf workspaces (JSON)")
    parser.add_argument("--examples", action="store_true", help="the written-out and the large workspace of the tests")
    parser.add_argument("--agc", type=Path, metavar="FOLDER", help="folder with the AGC's reference histograms")
    parser.add_argument("--repeat", type=int, default=5, help="timings of each (default 5)")
    parser.add_argument("--no-jax", action="store_true", help="leave out pyhf's jax backend")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the table here as well")
    options = parser.parse_args(argv)
    rows = []
    for name, spec in _workspaces(options):
        rows.append(compare(name, spec, options.repeat, with_jax=not options.no_jax))
        _print(rows[-1], first=len(rows) == 1)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0


def _workspaces(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in options.workspaces:
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))
    if options.examples or options.agc:
        sys.path.insert(0, str(TESTS))
    if options.examples:
        from reference.workspaces import WRITTEN_OUT, large_workspace

        yield from WRITTEN_OUT.items()
        yield "large", large_workspace()
    if options.agc:
        from reference.agc_workspace import build

        for files in ("1", "5", "all"):
            yield f"AGC, {files} file(s)", build(options.agc / f"histos_{files}_file_per_process.json")


def compare(name: str, spec: dict[str, Any], repeat: int, *, with_jax: bool) -> dict[str, Any]:
    """One row of the table."""
    structure, numbers, data = from_pyhf(spec)
    asimov = asimov_data(structure, numbers)
    run_fit = jax.jit(fit, static_argnums=0)
    q0 = jax.jit(lambda n: discovery_significance(structure, n).q0)
    q0_and_gradient = jax.jit(jax.value_and_grad(lambda n: discovery_significance(structure, n).q0))
    found = run_fit(structure, numbers, data)
    row: dict[str, Any] = {
        "workspace": name,
        "parameters": structure.size,
        "logpdf": _logpdf_deviation(spec),
        "converged": bool(found.converged),
        "fit ours": _seconds(lambda: run_fit(structure, numbers, data), repeat),
        "q0 ours": _seconds(lambda: q0(numbers), repeat),
        "gradient": _seconds(lambda: q0_and_gradient(numbers), repeat),
    }
    backends = {"pyhf numpy": ("numpy", "scipy"), "iminuit": ("numpy", "minuit")}
    if with_jax:
        backends["pyhf jax"] = ("jax", "scipy")
    values, null_values = [], []
    for label, (tensors, optimizer) in backends.items():
        best, tested, seconds, q0_seconds = _by_pyhf(spec, np.asarray(data), np.asarray(asimov), tensors, optimizer)
        values.append(best)
        null_values.append(tested)
        row |= {f"fit {label}": seconds, f"q0 {label}": q0_seconds}
    row["twice_nll"] = float(found.twice_nll) - min(values)
    row["q0"] = float(q0(numbers)) / min(null_values) - 1.0
    return row


def _logpdf_deviation(spec: dict[str, Any], points: int = 50) -> float:
    structure, numbers, data = from_pyhf(spec)
    model = pyhf.Workspace(spec).model()
    lower, upper = np.array(model.config.suggested_bounds(), dtype=float).T
    rng = np.random.default_rng(0)
    ours = jax.jit(logpdf, static_argnums=0)
    worst = 0.0
    for _ in range(points):
        point = rng.uniform(np.maximum(lower, -3), np.minimum(upper, 3))
        theirs = model.logpdf(point, np.asarray(data))[0]
        if np.isfinite(theirs):
            worst = max(worst, abs(float(ours(structure, numbers, jnp.asarray(point), data)) / theirs - 1))
    return worst


def _by_pyhf(
    spec: dict[str, Any], data: np.ndarray, asimov: np.ndarray, tensors: str, optimizer: str
) -> tuple[float, float, float, float]:
    """-2 ln L at the minimum, q0, and their times in seconds (the second call, so that jax has compiled)."""
    chosen = pyhf.optimize.scipy_optimizer() if optimizer == "scipy" else pyhf.optimize.minuit_optimizer()
    pyhf.set_backend(tensors, chosen)
    model = pyhf.Workspace(spec).model()
    nominal = [float(x) for x in model.config.suggested_init()]
    settings = (nominal, model.config.suggested_bounds(), model.config.suggested_fixed())

    def best_fit() -> float:
        return float(pyhf.infer.mle.fit(pyhf.tensorlib.astensor(data), model, return_fitted_val=True)[1])

    def q0() -> float:
        return float(pyhf.infer.test_statistics.q0(0.0, pyhf.tensorlib.astensor(asimov), model, *settings))

    try:
        return (*_second_call(best_fit, q0, twice=tensors == "jax"),)
    finally:
        pyhf.set_backend("numpy")


def _second_call(best_fit: Callable[[], float], q0: Callable[[], float], *, twice: bool) -> tuple[float, ...]:
    results, seconds = [], []
    for run in (best_fit, q0):
        value = float("inf")
        for _ in range(2 if twice else 1):
            start = time.perf_counter()
            try:
                value = run()
            except pyhf.exceptions.FailedMinimization:
                value = float("inf")
            spent = time.perf_counter() - start
        results.append(value)
        seconds.append(spent)
    return results[0], results[1], seconds[0], seconds[1]


def _seconds(run: Callable[[], Any], repeat: int) -> float:
    jax.block_until_ready(run())
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def _print(row: dict[str, Any], *, first: bool) -> None:
    peers = [key.removeprefix("fit ") for key in row if key.startswith("fit ") and key != "fit ours"]
    if first:
        head = f"{'workspace':<22}{'par.':>5}{'logpdf':>9}{'-2lnL':>10}{'q0':>10}"
        head += f"{'fit/ms: ours':>14}" + "".join(f"{peer:>12}" for peer in peers)
        head += f"{'q0/ms: ours':>14}" + "".join(f"{peer:>12}" for peer in peers) + f"{'gain':>7}{'gradient':>10}"
        print(head)
    line = (
        f"{row['workspace']:<22}{row['parameters']:>5}{row['logpdf']:>9.0e}{row['twice_nll']:>10.0e}{row['q0']:>10.0e}"
    )
    for what in ("fit", "q0"):
        line += f"{1e3 * row[f'{what} ours']:>14.2f}" + "".join(
            f"{1e3 * row[f'{what} {peer}']:>12.0f}" for peer in peers
        )
    gain = row["q0 pyhf numpy"] / row["q0 ours"]
    print(
        line
        + f"{gain:>7.0f}{row['gradient'] / row['q0 ours']:>10.2f}"
        + ("" if row["converged"] else "  NOT CONVERGED")
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    sys.exit(main())
