"""Writes the reference of the regression test again, and shows what has changed.

  python tests/regression/regenerate.py            # show the differences only
  python tests/regression/regenerate.py --write    # and write them to reference.json

Beside each number stand two spreads. `platform`: the largest deviation when the same numbers are added in another order
(chunks of other sizes), which is what another processor, compiler or version of JAX does; the test allows ten times as
much. `seeds`: the standard deviation over five seeds, which split the events in other ways: the statistical scale,
against which a difference may be judged.
"""

import argparse
import json
import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from small_run import REFERENCE, numbers, samples

CHUNKS = (8192, 6000, 4096, 1500)
SEEDS = (1, 2, 3, 4, 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace reference.json")
    options = parser.parse_args()
    old = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    new = measured()
    show(old, new)
    if options.write:
        REFERENCE.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def measured() -> dict[str, dict[str, float]]:
    """Every number with its two spreads."""
    events = samples()
    by_chunk = [numbers(events, chunk=size) for size in CHUNKS]
    by_seed = [by_chunk[0], *(numbers(events, seed) for seed in SEEDS[1:])]
    return {
        name: {
            "value": value,
            "platform": max(abs(other[name] - value) for other in by_chunk),
            "seeds": float(np.std([other[name] for other in by_seed], ddof=1)),
        }
        for name, value in by_chunk[0].items()
    }


def show(old: dict[str, dict[str, float]], new: dict[str, dict[str, float]]) -> None:
    table = Table("", "reference", "now", "difference", "platform", "seeds")
    for name, now in new.items():
        before = old.get(name, {}).get("value", float("nan"))
        change = now["value"] - before
        row = (before, now["value"], change, now["platform"], now["seeds"])
        table.add_row(name, *(f"{number:.6g}" for number in row))
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
