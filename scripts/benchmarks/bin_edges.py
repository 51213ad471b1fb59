"""Edges of bins on a peer's own ground: the toy of gato-hep, whose score piles up at 0 and at 1.

Both tune the edges on the same events, gato-hep as its example does (`peers/gato_step.py`), this package from edges of
equal widths, of equal populations and at the quantiles of the signal, with what it takes if it is told nothing. All are
judged by the exact significance, with MC statistics, on the events of the tuning and on independent ones. gato-hep runs
in an environment of its own, which is made first (`pip install gato-hep==0.2.1`, TensorFlow: a few minutes, once).

Examples:
  python scripts/benchmarks/bin_edges.py --output edges.json
  python scripts/benchmarks/bin_edges.py --bins 10 --without-gato
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipeline import Problem, Region
from pipeline.tuning.tune import tune
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]
import edges_case as case  # noqa: E402
from peers import Peer, python_of  # noqa: E402

GATO = Peer("gato-hep", "gato_step.py", ("gato-hep==0.2.1",), "sigmoid edges", "of the soft analysis")
UNSEEN = 1042
"""Seed of the independent events."""


def main() -> int:
    options = parse()
    tables, unseen = case.make_tables(), case.make_tables(seed=UNSEEN)
    rows: list[dict[str, Any]] = []
    peers = {} if options.without_gato else gato(tables, options.bins, options.environments, options.seeds)
    for bins in options.bins:
        judges = [problem(each, np.linspace(0, 1, bins + 1)) for each in (tables, unseen)]
        for name, start in {**starts(tables, bins), **peers.get(bins, {})}.items():
            row = start if isinstance(start, dict) else ours(tables, start, options.steps)
            values = [float(-judge.loss(thresholds(row["edges"]), part="all")) for judge in judges]
            rows.append({"bins": bins, "from": name, "training": values[0], "unseen": values[1], **row})
            print(f"{bins} bins, {name}: {values[0]:.4f}, unseen {values[1]:.4f}, {row['seconds']:.1f} s", flush=True)
    report(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bins", type=int, nargs="+", default=[3, 5, 10, 20])
    add("--steps", type=int, help="of our optimiser (default: that of a config which says nothing)")
    add("--seeds", type=int, default=3, help="of the random starts of gato-hep (default: %(default)s)")
    add("--without-gato", action="store_true", help="ours only")
    add("--environments", type=Path, default=Path("build/peers"), help="as in scripts/benchmarks/peers.py")
    add("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def starts(tables: case.Tables, bins: int) -> dict[str, NDArray[np.float64]]:
    """Edges that someone who knows nothing would begin with."""
    share = np.linspace(0, 1, bins + 1)[1:-1]
    everything = np.concatenate([each["score"] for each in tables.values()])
    inner = {
        "equal widths": share,
        "equal populations": np.quantile(everything, share),
        "signal quantiles": np.quantile(tables["signal"]["score"], share),
    }
    return {name: np.concatenate([[0.0], edges, [1.0]]) for name, edges in inner.items()}


def problem(tables: case.Tables, edges: NDArray[np.float64], **optimiser: Any) -> Problem:
    """Almost all events are for the tuning, as for gato-hep; others judge."""
    return Problem.from_arrays(
        tables,
        weight="weight",
        cuts=[],
        regions=[Region("SR", observable="score", bins=edges, bounds=(0, 1))],
        signal="signal",
        optimiser=optimiser,
        validation={"fraction": 0.001},
    )


def thresholds(edges: NDArray[np.float64]) -> dict[str, float]:
    return {f"SR.edge_{number}": float(edge) for number, edge in enumerate(edges)}


def ours(tables: case.Tables, start: NDArray[np.float64], steps: int | None) -> dict[str, Any]:
    """The best edges of a run from some edges, and how long it took with the choice of kernels, compiling included."""
    given = problem(tables, start, **({} if steps is None else {"steps": steps}))
    started = time.perf_counter()
    *_, last = tune(given.with_bandwidths())
    return {"edges": list(last.best.values()), "seconds": time.perf_counter() - started}


def gato(
    tables: case.Tables, bins: list[int], environments: Path, seeds: int
) -> Mapping[int, Mapping[str, dict[str, Any]]]:
    """The edges that gato-hep finds from several random starts."""
    python = python_of(GATO, environments)
    runs: dict[int, dict[str, dict[str, Any]]] = {number: {} for number in bins}
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.npz"
        case.save(events, tables)
        for seed in range(1, seeds + 1):
            command = [python, HERE / "peers" / GATO.script, events, "--seed", str(seed), "--bins", *map(str, bins)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for number, row in json.loads(done.stdout.splitlines()[-1]).items():
                runs[int(number)][f"{GATO.name}, seed {seed}"] = row
    return runs


def report(rows: list[dict[str, Any]]) -> None:
    table = Table(title="edges on the toy of gato-hep: exact significance with MC statistics", title_justify="left")
    for column in ("bins", "from", "training", "unseen", "time"):
        table.add_column(column, justify="left" if column == "from" else "right")
    for row in rows:
        values = (f"{row['training']:.4f}", f"{row['unseen']:.4f}", f"{row['seconds']:.1f} s")
        table.add_row(str(row["bins"]), row["from"], *values)
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
