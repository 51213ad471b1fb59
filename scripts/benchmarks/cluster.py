"""A step of the optimiser by the workers of a cluster on this machine, beside the same parts in this process.

  python scripts/benchmarks/cluster.py --workers 1 2 4 --config configs/quickstart.yaml

Told for each number of workers: a step in this process and on the cluster (both with the fit, which is made here), what
the values differ by, and all bytes on the loopback interface for each step and worker, in both directions together.
All events are simulated. Workers share the cores of this machine, so more of them than cores are no gain here.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from pipeline.analysis import Evaluation, Stream, evaluate
from pipeline.cluster import connected
from pipeline.config import load_config
from pipeline.events.cuts import arrays
from pipeline.problem import divide_into_folds, read


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    rows = [measured(options.config, number, options.repeat) for number in options.workers]
    for row in rows:
        print(
            f"{row['workers']} workers: {1e3 * row['here_s']:.0f} ms here, {1e3 * row['cluster_s']:.0f} ms on the "
            f"cluster; {row['bytes'] / 1e3:.0f} kB a step and worker; values differ by {row['difference']:.1g}"
        )
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def measured(path: Path, number: int, repeat: int) -> dict[str, Any]:
    """Times and bytes with so many workers."""
    with tempfile.TemporaryDirectory() as folder, connected(f"local:{number}") as workers:
        config = load_config(path, {"data": {"cache": folder}})
        problem = divide_into_folds(config, read(config), workers=workers)[0]
        at, widths = arrays(problem.defaults), arrays(problem.bandwidths)
        far = problem.training
        if not isinstance(far, Stream):
            raise SystemExit("the events are in memory, not on the cluster")
        near = replace(far, workers=None)
        here, here_s, _ = timed(lambda: evaluate(problem.analysis, at, widths, near), repeat)
        there, cluster_s, sent = timed(lambda: evaluate(problem.analysis, at, widths, far), repeat)
        return {
            "workers": number,
            "parts": len(far),
            "here_s": here_s,
            "cluster_s": cluster_s,
            "bytes": sent / number,
            "difference": float(abs(here.loss - there.loss) / abs(here.loss)),
        }


def timed(step: Callable[[], Evaluation], repeat: int) -> tuple[Evaluation, float, float]:
    """A result, the median of the seconds, and the bytes of a step, after the first two steps."""
    for _ in range(2):
        result = jax.block_until_ready(step())
    before, seconds = psutil.net_io_counters(pernic=True)["lo"].bytes_sent, []
    for _ in range(repeat):
        started = time.perf_counter()
        result = jax.block_until_ready(step())
        seconds.append(time.perf_counter() - started)
    sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before
    return result, float(np.median(seconds)), sent / repeat


if __name__ == "__main__":
    sys.exit(main())
