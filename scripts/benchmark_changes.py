"""What made a step fast: each change that mattered, the commit before it and the commit itself, measured in one run.

Every commit is checked out into a folder of its own and timed by its own scripts/benchmark.py, all under the packages
that are installed now; a pair is measured in turns, and the least of --rounds counts. Prints the table of the README.

Examples:
  python scripts/benchmark_changes.py
  python scripts/benchmark_changes.py --events 1000000 --changes 8571023 0f2a6ad
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
TIMES = ("value_s", "value_and_gradient_s", "first_value_and_gradient_s")


class Change(NamedTuple):
    """A commit, the one it is compared with, what it did, and what was expected of it beforehand."""

    commit: str
    before: str
    what: str
    expected: str


CHANGES = (
    Change(
        "0418309",
        "0418309^",
        "near objects looked up in blocks, trijets streamed, sets packed by reductions",
        "not written down",
    ),
    Change(
        "b3f0139",
        "b3f0139^",
        "a flip gathers the bit masks of its trijets, mass and pt only once",
        "not written down",
    ),
    Change(
        "8571023",
        "9d6b285^",
        "ranks of jets are counted, not taken off one by one",
        "−28 % of a value: what leaving them out had saved",
    ),
    Change(
        "0f2a6ad",
        "0f2a6ad^",
        "trijets are searched only for flips that land where one matters (taken back)",
        "−19 % of a step: two thirds of the search",
    ),
    Change(
        "820062e",
        "820062e^",
        "the jet of a flip is found by counting, not by halving its bit mask",
        "−17 % of a step: what leaving it out had saved",
    ),
)


def main() -> int:
    options = parsed()
    print("| change | expected | value | value and gradient | first call |\n|---|---|---|---|---|")
    for change in CHANGES:
        if options.changes and change.commit not in options.changes:
            continue
        before, after = compared(change, options)
        cells = [f"{1e3 * before[name]:.0f} → {1e3 * after[name]:.0f} ms" for name in TIMES[:2]]
        first = f"{before[TIMES[2]]:.0f} → {after[TIMES[2]]:.0f} s"
        print(f"| {change.what} ({change.commit}) | {change.expected} | {' | '.join(cells)} | {first} |", flush=True)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--thresholds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--changes", nargs="+", metavar="COMMIT", help="some of them (default: all)")
    return parser.parse_args()


def compared(change: Change, options: argparse.Namespace) -> list[dict[str, float]]:
    """Least seconds of both commits."""
    with tempfile.TemporaryDirectory() as folder:
        commits = {"before": change.before, "after": change.commit}
        trees = [checked_out(commit, Path(folder) / name) for name, commit in commits.items()]
        try:
            rounds = [[timed(tree, options) for tree in trees] for _ in range(options.rounds)]
        finally:
            for tree in trees:
                git("worktree", "remove", "--force", str(tree))
    return [{name: min(one[name] for one in of_tree) for name in TIMES} for of_tree in zip(*rounds, strict=True)]


def checked_out(commit: str, folder: Path) -> Path:
    git("worktree", "add", "--detach", str(folder), commit)
    return folder


def git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(REPOSITORY), *arguments], check=True, capture_output=True)


def timed(tree: Path, options: argparse.Namespace) -> dict[str, float]:
    """The row that the benchmark of a commit writes."""
    output = tree / "row.json"
    command = [sys.executable, "scripts/benchmark.py", "--output", str(output)]
    command += ["--events", str(options.events), "--thresholds", str(options.thresholds)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    run = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"the benchmark in {tree} failed:\n{run.stderr}")
    row: dict[str, float] = json.loads(output.read_text())["rows"][0]
    return row


if __name__ == "__main__":
    sys.exit(main())
