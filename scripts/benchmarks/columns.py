"""Bytes that an event takes as arrays, column by column.

    python scripts/benchmarks/columns.py --config configs/agc.yaml

Room for objects that an event does not have is counted, and so are the rows of all kinematic variations.
"""

import argparse
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from pipeline.analysis import parts_of
from pipeline.config import load_config
from pipeline.problem import Problem


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/agc.yaml"))
    problem = Problem.from_config(load_config(parser.parse_args().config))
    sizes, events = Counter[str](), 0
    for group in (group for part in parts_of(problem.training) for group in part.events.groups):
        events += int(np.count_nonzero(np.asarray(group.index) >= 0))
        for path, column in jax.tree_util.tree_leaves_with_path(group):
            sizes[jax.tree_util.keystr(path, simple=True, separator=".")] += column.nbytes
    print(f"{events:,} events, {sum(sizes.values()) / events:.0f} bytes each")
    for name, size in sizes.most_common():
        print(f"{size / events:8.1f}  {name}")


if __name__ == "__main__":
    main()
