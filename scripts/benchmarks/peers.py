"""One step of a small analysis, side by side with what people use: same events, same machine, one run.

The case is `scripts/benchmarks/peers/simple_case.py`: toy events in five samples, four cuts, one histogram of 25 bins,
and a model of a signal strength and ten nuisance parameters. The peers do not all compute the same thing; the table
says what each does. Times are medians after a first call, which is told apart. Each peer runs in a process and an
environment of its own; an environment that is missing is made first (`python -m venv`, `pip install` from PyPI: a few
minutes, once).

Examples:
  python scripts/benchmarks/peers.py
  python scripts/benchmarks/peers.py --events 100000 --environments /tmp/peers --output peers.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent / "peers"
sys.path.insert(0, str(HERE))
import simple_case as case  # noqa: E402

CUTS = 4


@dataclass(frozen=True)
class Peer:
    """Who takes part: the script, what its environment needs (nothing: this one), and what it computes."""

    name: str
    script: str
    requirements: tuple[str, ...]
    forward: str
    gradient: str


PEERS = (
    Peer("this package", "pipeline_step.py", (), "exact", "boundary flux, envelope theorem"),
    Peer(
        "relaxed",
        "relaxed_step.py",
        ("relaxed==0.4.0", "jax==0.10.2"),
        "sigmoid cuts, KDE",
        "of the soft analysis, implicit",
    ),
    Peer(
        "evermore + optimistix",
        "evermore_step.py",
        ("evermore==0.4.1", "flax==0.12.4", "optimistix==0.1.0", "jax==0.10.2"),
        "sigmoid cuts, KDE (GRAEP's formulas)",
        "of the soft analysis, implicit",
    ),
    Peer("pyhf", "pyhf_step.py", ("pyhf==0.7.6",), "exact", f"finite differences, {2 * CUTS} evaluations"),
    Peer("coffea", "coffea_step.py", ("coffea==2026.9.0",), "exact, histograms only, no fit", "none"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=7, help="calls of which the median counts (default: %(default)s)")
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path("build/peers"),
        help="folder of the peers' environments (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    pythons = {peer.name: python_of(peer, options.environments) for peer in PEERS}
    results = []
    for number in options.events:
        with tempfile.TemporaryDirectory() as folder:
            events = Path(folder) / "events.npz"
            case.save(events, case.make_events(number, CUTS))
            rows = {peer: measured(peer, pythons[peer.name], events, options.repeat) for peer in PEERS}
        report(number, rows)
        results += [{"events": number, "peer": peer.name} | row for peer, row in rows.items()]
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def python_of(peer: Peer, environments: Path) -> Path:
    """The interpreter of a peer's environment, which is made if there is none."""
    if not peer.requirements:
        return Path(sys.executable)
    folder = environments / peer.script.removesuffix("_step.py")
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the environment of {peer.name} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *peer.requirements], check=True)
    return python


def measured(peer: Peer, python: Path, events: Path, repeat: int) -> dict[str, Any]:
    """What the peer's script prints."""
    print(f"{peer.name} …", file=sys.stderr, flush=True)
    command = [python, HERE / peer.script, events, "--repeat", str(repeat)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{peer.name} failed; run {' '.join(map(str, command))} to see why\n{done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def report(events: int, rows: dict[Peer, dict[str, Any]]) -> None:
    table = Table(title=f"{events:,} simulated toy events, {CUTS} cuts", title_justify="left")
    table.add_column("")
    table.add_column("forward")
    table.add_column("gradient")
    for column in ("value", "value + gradient", "first call", "peak memory", "Z"):
        table.add_column(column, justify="right")
    for peer, row in rows.items():
        table.add_row(
            peer.name,
            peer.forward,
            peer.gradient,
            f"{row['value_s'] * 1e3:.1f} ms",
            f"{row['step_s'] * 1e3:.1f} ms" if "step_s" in row else "–",
            f"{row['first_s']:.1f} s" if "first_s" in row else "–",
            f"{row['peak_mb'] / 1e3:.2f} GB",
            f"{row['z']:.6f}" if "z" in row else "–",
        )
    console = Console(width=150)
    console.print(table)
    ours = rows[PEERS[0]]["step_s"]
    peer, fastest = min(
        ((peer, row["step_s"]) for peer, row in rows.items() if peer is not PEERS[0] and "step_s" in row),
        key=lambda pair: pair[1],
    )
    console.print(f"The fastest peer with a gradient, {peer.name}, takes {fastest / ours:.0f} times as long.\n")


if __name__ == "__main__":
    sys.exit(main())
