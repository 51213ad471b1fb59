"""Is the gradient right? Boundary flux beside the finite difference of the exact histograms, for every trainable cut.

The pull of a bin is (flux − difference) / statistical error of the difference. Both see the same events with slightly
different weights, so a right gradient gives pulls well below one; a wrong flip rule gives large ones.

Example:
  python scripts/check_gradients.py --config configs/quickstart.yaml --all
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from pipeline.config import load_config
from pipeline.problem import make_analysis, make_data, read_samples
from pipeline.validation.gradient_check import check_gradients, with_unit_weights
from rich.console import Console
from rich.table import Table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--all", action="store_true", help="check every cut that has a bandwidth, not only trainable ones"
    )
    options = parser.parse_args()
    try:
        config = load_config(options.config)
        samples = read_samples(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    analysis = make_analysis(config, len(samples))
    (data,) = make_data(config, analysis, samples, [(1.0, [np.ones(len(s.events), bool) for s in samples])])
    widths = {n: c.bandwidth for n, c in config.thresholds.items() if c.bandwidth and (c.trainable or options.all)}
    thresholds = {name: cut.threshold for name, cut in config.thresholds.items()}
    table = Table(
        title="derivative of the event counts by each threshold (simulated events, all data sets and jet variations)",
        title_justify="left",
    )
    for column in (
        "cut",
        "events lost per unit, flux",
        "finite difference",
        "bins compared",
        "rms pull",
        "largest pull",
    ):
        table.add_column(column, justify="right")
    for name, check in check_gradients(analysis, thresholds, widths, with_unit_weights(data)).items():
        pulls = check.pulls()
        flux, difference = check.flux[0, :, :, 0].sum(), check.difference[0, :, :, 0].sum()
        error = np.sqrt((check.error[0, :, :, 0] ** 2).sum())
        rms, largest = (np.sqrt(np.mean(pulls**2)), np.abs(pulls).max()) if pulls.size else (np.nan, np.nan)
        row = (f"{-flux:.1f}", f"{-difference:.1f} ± {error:.1f}", str(pulls.size), f"{rms:.2f}", f"{largest:.2f}")
        table.add_row(name, *row)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
