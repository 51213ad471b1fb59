"""Our likelihood and fits beside pyhf's, for a folder of workspaces: where they end, and how long they take.

For each workspace: the largest relative deviation of the log-likelihood at random points; the best fit and -2 ln L of
the observed data; ours minus the best that SLSQP and Minuit (strategies 0, 1, 2) find for observed and Asimov data,
free and with the parameter of interest held at 0 and at 1 (negative: ours is lower); whether all of ours converged; the
times of a fit warm (median of several, after compilation) and cold (a fresh process from its start to its answer,
nothing cached; `again`: the command with its cache), and of q0 with its gradient by all numbers. A peer that does not
end in `--limit` seconds is stopped, and said; it is not asked again for that workspace. One that failed (raised, did
not converge, ended at no number) has no time, but `failed after` so long; in the JSON, `state` says so.

    python scripts/benchmarks/likelihood.py folder/of/workspaces --markdown table.md
    python scripts/benchmarks/likelihood.py workspace.json --peers scipy --no-cold
    python scripts/benchmarks/likelihood.py --scale 1000,300 --scale 5000,1000 --limit 100

Everything runs with one OpenBLAS thread, the peers too (OPENBLAS_NUM_THREADS says otherwise).
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
from pipeline.inference.fit import fit_at_once
structure, numbers, data = from_pyhf(json.load(open(sys.argv[1])))
print(float(fit_at_once(structure, numbers, data).twice_nll))
"""
THEIRS = """
import json, sys, pyhf
workspace = pyhf.Workspace(json.load(open(sys.argv[1])))
model = workspace.model()
print(float(pyhf.infer.mle.fit(workspace.data(model), model, return_fitted_val=True)[1]))
"""
PEER = """
import json, sys, time, warnings, logging, pyhf
warnings.simplefilter("ignore")
logging.disable(logging.ERROR)
task = json.load(sys.stdin)
peer, mu = task["peer"], task["mu"]
optimizer = pyhf.optimize.scipy_optimizer() if peer == "scipy" else pyhf.optimize.minuit_optimizer(strategy=int(peer))
pyhf.set_backend("numpy", optimizer)
model = pyhf.Workspace(task["workspace"]).model()
start = time.perf_counter()
try:
    run = pyhf.infer.mle.fit if mu is None else lambda *a, **k: pyhf.infer.mle.fixed_poi_fit(mu, *a, **k)
    value = float(run(task["data"], model, return_fitted_val=True)[1])
    value = value if abs(value) < float("inf") else None
except Exception:
    value = None
print(json.dumps([value, time.perf_counter() - start]))
"""
# One fit of a large workspace: seconds of the first and of a second one, and the largest memory in MB.
SCALE = """
import json, resource, sys, time
start = time.perf_counter()
if sys.argv[2] == "ours":
    from pipeline.inference.histfactory import from_pyhf
    from pipeline.inference.fit import fit_at_once
    structure, numbers, data = from_pyhf(json.load(open(sys.argv[1])))
    run = lambda: float(fit_at_once(structure, numbers, data).twice_nll)
else:
    import pyhf
    workspace = pyhf.Workspace(json.load(open(sys.argv[1])))
    model = workspace.model()
    run = lambda: float(pyhf.infer.mle.fit(workspace.data(model), model, return_fitted_val=True)[1])
built = time.perf_counter()
value = run()
first = time.perf_counter()
if sys.argv[2] == "ours":
    run()
last = time.perf_counter()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([value, built - start, first - built, last - first, memory]))
"""
# 2 ΔNLL as others have stored it, by pyhf and by Combine: combine2pyhf, commit 4bd3f1b^.
STORED = {
    "atlas_ttz_3l": {
        "mu": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "pyhf": [22.853, 17.384, 12.251, 7.716, 4.088, 1.577, 0.245, 0.065, 0.981, 2.935, 5.875],
        "Combine": [22.806, 17.383, 12.284, 7.789, 4.170, 1.668, 0.290, 0.053, 0.957, 2.904, 5.861],
    }
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 1 if a fit of ours did not converge or is worse than another's by more than 1e-6."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*", help="pyhf workspaces (JSON), or folders of them")
    parser.add_argument("--repeat", type=int, default=5, help="timings of each (default 5)")
    parser.add_argument("--peers", nargs="*", default=["scipy", "0", "1", "2"], help="SLSQP, and Minuit's strategies")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a fit of a peer (default 60)")
    parser.add_argument("--no-cold", action="store_true", help="leave out the fresh processes")
    parser.add_argument("--scale", action="append", default=[], metavar="BINS,PARAMETERS", help="a synthetic workspace")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables here")
    options = parser.parse_args(argv)
    paths = [
        path for source in options.sources for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])
    ]
    rows = []
    for path in paths:
        rows.append(compare(path, options))
        print(json.dumps(rows[-1]), flush=True)
    sizes = [scaled(*map(int, size.split(",")), options.limit) for size in options.scale]
    table = "\n".join([markdown(rows)] * bool(rows) + [scans(rows)] * bool(scans(rows)) + [scales(sizes)] * bool(sizes))
    print(f"\n{table}")
    if options.json:
        options.json.write_text(json.dumps(rows + sizes, indent=2), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")
    good = [row["converged"] and not row["difference"] > 1e-6 for row in rows]
    return 0 if all(good) else 1


def compare(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    structure, numbers, data = from_pyhf(spec)
    position, initial = poi_position(structure, None), initial_parameters(structure)
    run = jax.jit(fit, static_argnums=0)

    def at(values: Any, mu: float | None) -> Fit:
        is_held = jnp.arange(structure.size) == (-1 if mu is None else position)
        start = initial if mu is None else initial.at[position].set(mu)
        return run(structure, numbers, values, initial=start, held=is_held)

    sets = {"observed": data, "asimov": jax.jit(asimov_data, static_argnums=0)(structure, numbers)}
    fits = {(name, mu): at(values, mu) for name, values in sets.items() for mu in (None, 0.0, 1.0)}
    others = {
        peer: peer_fits(spec, {key: np.asarray(sets[key[0]]) for key in fits}, peer, options.limit)
        for peer in options.peers
    }
    ends = [(key, attempt.answer) for found in others.values() for key, attempt in found.items()]
    gaps = [float(fits[key].twice_nll) - value for key, value in ends if value is not None]
    q0 = jax.jit(lambda n: discovery_significance(structure, n).q0)
    with_gradient = jax.jit(jax.value_and_grad(lambda n: discovery_significance(structure, n).q0))
    best = fits["observed", None]
    scan = STORED.get(path.stem, {}).get("mu", [])
    return {
        "workspace": path.stem,
        "parameters": structure.size,
        "bins": structure.bins,
        "logpdf": _logpdf_deviation(spec),
        "poi": float(best.parameters[position]),
        "twice_nll": float(best.twice_nll),
        "difference": max(gaps, default=float("nan")),
        "compared": len(gaps),
        "converged": all(bool(entry.converged) for entry in fits.values()),
        "iterations": int(best.iterations),
        "left_out": max(int(entry.left_out) for entry in fits.values()),
        "fit": _seconds(lambda: at(data, None), options.repeat),
        "q0": _seconds(lambda: q0(numbers), options.repeat),
        "q0 and gradient": _seconds(lambda: with_gradient(numbers), options.repeat),
        "peers": {peer: found["observed", None]._asdict() for peer, found in others.items()},
        "scan": [float(at(data, mu).twice_nll - best.twice_nll) for mu in scan],
        "cold": {} if options.no_cold else cold(path, options.limit),
    }


class Attempt(NamedTuple):
    """What came of a fresh process: its answer, the seconds, and whether it `ended`, `failed` or was `stopped`."""

    answer: Any
    seconds: float
    state: str

    def __str__(self) -> str:
        prefix = {"ended": "", "failed": "failed after ", "stopped": "not ended in "}[self.state]
        return f"{prefix}{self.seconds:.2f}" + " s" * (self.state != "ended")


def attempted(command: list[str], *, limit: float, stdin: str = "", env: dict[str, str] | None = None) -> Attempt:
    """The last line that a process prints, from its start to its end; a process that returns an error has failed."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, text=True, timeout=limit, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        return Attempt(None, limit, "stopped")
    seconds = time.perf_counter() - start
    if done.returncode:
        return Attempt(None, seconds, "failed")
    return Attempt(done.stdout.strip().splitlines()[-1], seconds, "ended")


def peer_fits(
    spec: dict[str, Any], tasks: dict[tuple[str, float | None], np.ndarray], peer: str, limit: float
) -> dict[tuple[str, float | None], Attempt]:
    """-2 ln L at the minimum and the seconds of the fit alone; nothing after one that was stopped."""
    attempts: dict[tuple[str, float | None], Attempt] = {}
    for key, data in tasks.items():
        task = {"workspace": spec, "data": data.tolist(), "mu": key[1], "peer": peer}
        attempt = attempted([sys.executable, "-c", PEER], stdin=json.dumps(task), limit=limit)
        if attempt.state == "ended":
            value, seconds = json.loads(attempt.answer)
            attempt = Attempt(value, seconds, "failed" if value is None else "ended")
        attempts[key] = attempt
        if attempt.state == "stopped":
            break
    return attempts


def cold(path: Path, limit: float) -> dict[str, dict[str, Any]]:
    """Fresh processes: a fit of ours, the command without and with its cache, a fit of pyhf's."""
    command = [sys.executable, "-m", "pipeline.fit_workspace", str(path)]
    with tempfile.TemporaryDirectory() as cache:
        where = {**os.environ, "XDG_CACHE_HOME": cache}
        where.pop("JAX_COMPILATION_CACHE_DIR", None)
        processes = {
            "ours": [sys.executable, "-c", OURS, str(path)],
            "command": command,
            "again": command,
            "pyhf": [sys.executable, "-c", THEIRS, str(path)],
        }
        attempts = {who: attempted(process, limit=limit, env=where) for who, process in processes.items()}
    return {who: attempt._replace(answer=None)._asdict() for who, attempt in attempts.items()}


def scaled(bins: int, parameters: int, limit: float) -> dict[str, Any]:
    """A synthetic workspace of a size, in a fresh process each: ours, and pyhf's as far as the limit allows."""
    row: dict[str, Any] = {"bins": bins, "parameters": parameters}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workspace.json"
        path.write_text(json.dumps(synthetic(bins, parameters)), encoding="utf-8")
        for who in ("ours", "pyhf"):
            attempt = attempted([sys.executable, "-c", SCALE, str(path), who], limit=limit)
            answer = json.loads(attempt.answer) if attempt.state == "ended" else None
            row[who] = attempt._replace(answer=answer)._asdict()
    return row


def synthetic(bins: int, parameters: int, histos: int = 20, width: int = 50) -> dict[str, Any]:
    """Falling backgrounds and a peak in channels of 50 bins: mu, some 40 normsys on each sample, few with a shape."""
    rng, position = np.random.default_rng(0), np.arange(width)
    channels, observed = [], []
    for c in range(bins // width):
        samples = []
        for s in range(5):
            data = (
                10 * np.exp(-0.5 * (position - 20) ** 2 / 9)
                if s == 0
                else rng.uniform(50, 300) * np.exp(-position / 20)
            )
            modifiers: list[dict[str, Any]] = [{"type": "normfactor", "name": "mu", "data": None}] if s == 0 else []
            for k in np.flatnonzero(rng.uniform(size=parameters - 1) < 40 / parameters):
                size = rng.normal(0, 0.05)
                factors = {"hi": 1 + size, "lo": 1 / (1 + size)}
                modifiers.append({"type": "normsys", "name": f"syst{k}", "data": factors})
                if k < histos:
                    tilt = rng.normal(0, 0.05) * np.linspace(-1, 1, width)
                    shape = {"hi_data": list(data * (1 + tilt)), "lo_data": list(data * (1 - tilt))}
                    modifiers.append({"type": "histosys", "name": f"syst{k}", "data": shape})
            samples.append({"name": f"sample{s}", "data": list(data), "modifiers": modifiers})
        channels.append({"name": f"channel{c}", "samples": samples})
        total = np.sum([sample["data"] for sample in samples], axis=0)
        observed.append({"name": f"channel{c}", "data": rng.poisson(total).astype(float).tolist()})
    measurement = {"name": "synthetic", "config": {"poi": "mu", "parameters": []}}
    return {"version": "1.0.0", "channels": channels, "observations": observed, "measurements": [measurement]}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of fits: times in seconds."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row["peers"]))
    names = ["SLSQP" if peer == "scipy" else f"Minuit {peer}" for peer in peers]
    head = ["workspace", "bins", "parameters", "best fit", "−2 ln L", "ours − best (fits compared)", "converged"]
    head += ["left out", "ours", *names, "cold: fit", "cold: command", "again", "cold: pyhf", "q0", "with gradient"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["workspace"], row["bins"], row["parameters"], f"{row['poi']:.6f}", f"{row['twice_nll']:.6f}"]
        cells += [f"{row['difference']:.1e} ({row['compared']})", "yes" if row["converged"] else "NO", row["left_out"]]
        cells += [f"{row['fit']:.3f}"]
        cells += [_told(row["peers"].get(peer)) for peer in peers]
        cells += [_told(row["cold"].get(who)) for who in ("ours", "command", "again", "pyhf")]
        cells += [f"{row['q0']:.4f}", f"{row['q0 and gradient']:.4f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def scans(rows: list[dict[str, Any]]) -> str:
    """2 ΔNLL beside what others have stored."""
    lines = []
    for row in rows:
        if row["scan"]:
            stored = STORED[row["workspace"]]
            lines += [f"| {row['workspace']}: 2 ΔNLL at | {' | '.join(f'{mu:g}' for mu in stored['mu'])} |"]
            lines += ["|" + "---|" * (len(stored["mu"]) + 1)]
            lines += [f"| ours | {' | '.join(f'{value:.3f}' for value in row['scan'])} |"]
            lines += [
                f"| {who}, stored | {' | '.join(f'{v:.3f}' for v in stored[who])} |" for who in ("pyhf", "Combine")
            ]
    return "\n".join(lines) + "\n" if lines else ""


def scales(rows: list[dict[str, Any]]) -> str:
    """The table of sizes."""
    lines = ["| bins | parameters | | −2 ln L | read, s | first fit, s | next, s | memory, MB |", "|" + "---|" * 8]
    for row in rows:
        for who in ("ours", "pyhf"):
            if row[who]["state"] != "ended":
                lines.append(f"| {row['bins']} | {row['parameters']} | {who} | {_told(row[who])} | | | | |")
                continue
            value, built, first, following, memory = row[who]["answer"]
            again = f"{following:.2f}" if who == "ours" else ""
            cells = [row["bins"], row["parameters"], who, f"{value:.4f}", f"{built:.1f}", f"{first:.1f}", again]
            lines.append(f"| {' | '.join(map(str, cells))} | {memory:.0f} |")
    return "\n".join(lines) + "\n"


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


def _told(attempt: dict[str, Any] | None) -> str:
    """A cell of a table: of one who failed or was stopped, that."""
    return "" if attempt is None else str(Attempt(**attempt))


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
