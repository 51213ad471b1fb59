"""Our likelihood and fits beside pyhf's, for a folder of workspaces: where they end, and how long they take.

For each workspace: the largest relative deviation of the log-likelihood at random points; the best fit and -2 ln L of
the observed data; ours minus the best that SLSQP and Minuit (strategies 0, 1, 2) find, free and with the parameter of
interest held at 0 and at 1 (negative: ours is lower); whether ours converged; the times of a fit warm (median of
several, after compilation) and cold (a fresh process from its start to its answer, nothing cached), and of q0 with its
gradient by all numbers.

    python scripts/benchmarks/likelihood.py folder/of/workspaces --markdown table.md
    python scripts/benchmarks/likelihood.py workspace.json --peers scipy --no-cold
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyhf
from pipeline.inference.fit import Fit, fit
from pipeline.inference.histfactory import asimov_data, from_pyhf, initial_parameters, logpdf
from pipeline.inference.significance import discovery_significance, poi_position

OURS = """
import json, sys
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.limits import compiled_fit
structure, numbers, data = from_pyhf(json.load(open(sys.argv[1])))
print(float(compiled_fit(structure, numbers, data).twice_nll))
"""
THEIRS = """
import json, sys, pyhf
workspace = pyhf.Workspace(json.load(open(sys.argv[1])))
model = workspace.model()
print(float(pyhf.infer.mle.fit(workspace.data(model), model, return_fitted_val=True)[1]))
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 1 if a fit of ours did not converge or is worse than another's by more than 1e-6."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="pyhf workspaces (JSON), or folders of them")
    parser.add_argument("--repeat", type=int, default=5, help="timings of each (default 5)")
    parser.add_argument("--peers", nargs="*", default=["scipy", "0", "1", "2"], help="SLSQP, and Minuit's strategies")
    parser.add_argument("--no-cold", action="store_true", help="leave out the fresh processes")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table here")
    options = parser.parse_args(argv)
    paths = [
        path for source in options.sources for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])
    ]
    rows = []
    for path in paths:
        rows.append(compare(path, options.repeat, options.peers, cold=not options.no_cold))
        print(json.dumps(rows[-1]), flush=True)
    table = markdown(rows)
    print(f"\n{table}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")
    good = [row["converged"] and not row["difference"] > 1e-6 for row in rows]
    return 0 if all(good) else 1


def compare(path: Path, repeat: int, peers: list[str], *, cold: bool) -> dict[str, Any]:
    """One row of the table."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    structure, numbers, data = from_pyhf(spec)
    position, initial = poi_position(structure, None), initial_parameters(structure)
    run = jax.jit(fit, static_argnums=0)

    def at(values: Any, mu: float | None) -> Fit:
        is_held = jnp.arange(structure.size) == (-1 if mu is None else position)
        start = initial if mu is None else initial.at[position].set(mu)
        return run(structure, numbers, values, initial=start, held=is_held)

    sets = {"observed": data, "asimov": asimov_data(structure, numbers)}
    fits = {(name, mu): at(values, mu) for name, values in sets.items() for mu in (None, 0.0, 1.0)}
    others = {key: [_by_pyhf(spec, np.asarray(sets[key[0]]), key[1], peer) for peer in peers] for key in fits}
    gaps = [float(fits[key].twice_nll) - value for key, values in others.items() for value, _ in values]
    q0 = jax.jit(lambda n: discovery_significance(structure, n).q0)
    with_gradient = jax.jit(jax.value_and_grad(lambda n: discovery_significance(structure, n).q0))
    best = fits["observed", None]
    return {
        "workspace": path.stem,
        "parameters": structure.size,
        "bins": structure.bins,
        "logpdf": _logpdf_deviation(spec),
        "poi": float(best.parameters[position]),
        "twice_nll": float(best.twice_nll),
        "difference": max([gap for gap in gaps if np.isfinite(gap)], default=float("nan")),
        "converged": all(bool(entry.converged) for entry in fits.values()),
        "left_out": max(int(entry.left_out) for entry in fits.values()),
        "fit": _seconds(lambda: at(data, None), repeat),
        "q0": _seconds(lambda: q0(numbers), repeat),
        "q0 and gradient": _seconds(lambda: with_gradient(numbers), repeat),
        "peers": {peer: spent for peer, (_, spent) in zip(peers, others["observed", None], strict=True)},
        "cold": {"ours": _process(OURS, path), "pyhf": _process(THEIRS, path)} if cold else {},
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table: times in seconds."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row["peers"]))
    names = ["SLSQP" if peer == "scipy" else f"Minuit {peer}" for peer in peers]
    head = ["workspace", "bins", "parameters", "best fit", "-2 ln L", "ours - best", "converged", "ours", *names]
    head += ["cold: ours", "cold: pyhf", "q0", "with gradient"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["workspace"], row["bins"], row["parameters"], f"{row['poi']:.6f}", f"{row['twice_nll']:.5f}"]
        cells += [f"{row['difference']:.1e}", "yes" if row["converged"] else "NO", f"{row['fit']:.3f}"]
        cells += [f"{row['peers'].get(peer, float('nan')):.2f}" for peer in peers]
        cells += [f"{row['cold'].get(who, float('nan')):.1f}" for who in ("ours", "pyhf")]
        cells += [f"{row['q0']:.3f}", f"{row['q0 and gradient']:.3f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _by_pyhf(spec: dict[str, Any], data: np.ndarray, mu: float | None, peer: str) -> tuple[float, float]:
    """-2 ln L at the minimum, infinite where the minimiser fails, and the time in seconds."""
    optimizer = (
        pyhf.optimize.scipy_optimizer() if peer == "scipy" else pyhf.optimize.minuit_optimizer(strategy=int(peer))
    )
    pyhf.set_backend("numpy", optimizer)
    model = pyhf.Workspace(spec).model()
    start = time.perf_counter()
    try:
        if mu is None:
            _, value = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
        else:
            _, value = pyhf.infer.mle.fixed_poi_fit(mu, data, model, return_fitted_val=True)
    except pyhf.exceptions.FailedMinimization:
        value = np.inf
    return float(value), time.perf_counter() - start


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


def _process(program: str, path: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True)
    return time.perf_counter() - start


def _seconds(run: Callable[[], Any], repeat: int) -> float:
    jax.block_until_ready(run())
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    sys.exit(main())
