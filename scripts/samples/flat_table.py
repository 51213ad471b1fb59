"""Makes the samples of the flat table: a toy of three processes, drawn with NumPy and written as parquet.

Not a simulation of any experiment: a narrow resonance and two falling backgrounds in the mass of a pair, with its
transverse momentum, a classifier's score and an angle, weights of both signs, and two systematic uncertainties: a
weight for more or less pile-up, and a mass column for a shifted energy scale. One row is one event; no lists anywhere.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scripts.samples.manifest import identity, update
from scripts.samples.nanoaod import reduce_precision

__all__ = ["PROCESSES", "Process", "main", "table"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_DATA = _REPOSITORY / "pipeline" / "data"
_MANTISSA_BITS = 10
_SCALE = 1.005  # of the energies, one standard deviation
_PILEUP = 0.15  # change of the weight for each standard deviation of the number of pile-up vertices

_Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one process looks like.

    Attributes:
        cross_section_pb: of all its events.
        rows: how many are drawn.
        negative: share of events with weight -1, as in samples of higher order.
        peak: centre and width of the mass in GeV; None: a falling exponential from 100 GeV.
        slope: mean of that exponential, GeV.
        pt: mean of the transverse momentum, GeV.
        score: the two parameters of a beta distribution.
        angle: mean of an exponential, radians.
    """

    cross_section_pb: float
    rows: int
    negative: float
    peak: tuple[float, float] | None
    slope: float
    pt: float
    score: tuple[float, float]
    angle: float


PROCESSES = {
    "signal": Process(
        cross_section_pb=0.01, rows=15_000, negative=0.05, peak=(125.0, 1.7), slope=0, pt=60, score=(4, 2), angle=0.6
    ),
    "continuum": Process(
        cross_section_pb=1.0, rows=45_000, negative=0.0, peak=None, slope=30, pt=25, score=(2, 4), angle=1.2
    ),
    "fakes": Process(
        cross_section_pb=0.4, rows=25_000, negative=0.1, peak=None, slope=22, pt=30, score=(1.5, 5), angle=1.5
    ),
}


def table(process: Process, rng: np.random.Generator) -> _Columns:
    """The columns of one process, a row an event."""
    n = process.rows
    mass = 100 + rng.exponential(process.slope, n) if process.peak is None else rng.normal(*process.peak, n)
    vertices = rng.standard_normal(n)
    sign = np.where(rng.random(n) < process.negative, -1.0, 1.0)
    columns = {
        "mass": mass,
        "pt": rng.gamma(2.0, process.pt / 2, n),
        "score": np.clip(rng.beta(*process.score, n) - 0.02 * vertices, 0.0, 1.0),
        "angle": np.minimum(rng.exponential(process.angle, n), np.pi),
        "genWeight": sign * rng.choice([0.5, 1.0, 1.5], n),
        "puWeightUp": 1 + _PILEUP * np.tanh(vertices),
        "puWeightDown": 1 - _PILEUP * np.tanh(vertices),
        "mass_scale_up": mass * _SCALE,
    }
    rounded = {name: reduce_precision(values.astype("f4"), bits=_MANTISSA_BITS) for name, values in columns.items()}
    return {"event": np.arange(1, n + 1, dtype=np.uint64)} | rounded


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same files (default: 1)")
    parser.add_argument(
        "--output", type=Path, default=_DATA / "guests" / "flat_table", metavar="DIR", help="where the files go"
    )
    parser.add_argument("--manifest", type=Path, default=_REPOSITORY / "data_manifest.yaml", metavar="FILE")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        update(arguments.manifest, {f"flat_table/{name}__nominal": _entry(name, arguments) for name in PROCESSES})
    except (ValueError, OSError) as error:
        print(f"samples.flat_table: {error}", file=sys.stderr)
        return 1
    return 0


def _entry(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Writes the file of one process; returns what the manifest says of it."""
    process = PROCESSES[name]
    rng = np.random.default_rng([arguments.seed, list(PROCESSES).index(name)])
    columns = table(process, rng)
    file = (arguments.output / f"{name}__nominal.parquet").resolve()
    pq.write_table(
        pa.table(columns),
        file,
        compression="zstd",
        compression_level=19,
        use_byte_stream_split=True,
        use_dictionary=False,
    )
    sum_of_weights = float(columns["genWeight"].sum(dtype=np.float64))
    return {
        "source": "toy",
        "process": name,
        "variation": "nominal",
        "cross_section_pb": process.cross_section_pb,
        "weights": "generator",
        "generator": {
            "program": f"NumPy {np.__version__}",
            "settings": [f"{key} = {value}" for key, value in vars(process).items()],
            "seed": arguments.seed,
            "description": "Simulated toy: random numbers, a row an event; see scripts/samples/flat_table.py.",
        },
        "files": [
            {
                "path": file.relative_to(_DATA).as_posix() if file.is_relative_to(_DATA) else file.name,
                **identity(file),
                "events": process.rows,
                "sum_of_weights": sum_of_weights,
            }
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
