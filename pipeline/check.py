"""Is the gradient right? Boundary flux beside the finite difference of the exact histograms, for every trainable cut.

The pull of a bin is (flux − difference) / statistical error of the difference. Both see the same events with slightly
different weights, so a right gradient gives pulls well below one; a wrong rule of which bin an event leaves and enters
gives large ones. A cut agrees if the root mean square of its pulls is below 0.5. A single large pull is no fault: where
the density of the simulated events has a step, the two answer differently.

Example:
  python -m pipeline.check --config configs/quickstart.yaml --all
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pipeline.command import guarded, user_path
from pipeline.config import ConfigError, load_config, parse_settings

if TYPE_CHECKING:
    from pipeline.validation.gradient_check import GradientCheck

__all__ = ["main", "verdict"]

LARGEST_RMS = 0.5
"""For one-dimensional flows it is 0.26 (∫(K−box)² / ∫box², for equal second moments); curvature and two boundaries in
one event add to it."""

Verdict = Literal["agrees", "disagrees", "too few events"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 1 where a derivative does not agree."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=user_path, required=True, metavar="YAML", help="the analysis")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    parser.add_argument(
        "--all", action="store_true", help="check every cut that has a bandwidth, not only trainable ones"
    )
    options = parser.parse_args(arguments)
    return guarded(lambda: _check(options))


def _check(options: argparse.Namespace) -> int:
    # Before the heavy imports, so that a typo answers at once.
    config = load_config(options.config, parse_settings(options.set))
    chosen = {n: cut for n, cut in config.thresholds.items() if cut.bandwidth and (cut.trainable or options.all)}
    if not chosen:
        raise ConfigError(f"{options.config}: no trainable cut has a bandwidth; give one, or add --all")
    from pipeline.event_data import parts_of
    from pipeline.problem import whole
    from pipeline.validation.gradient_check import check_gradients

    analysis, at, events = whole(config)
    data = next(iter(parts_of(events)))
    if data is not events:
        print("The events are more than memory shall hold (data.memory): a random part of them is looked at.")
    widths = {name: cut.bandwidth for name, cut in chosen.items() if cut.bandwidth}
    # With their weights: where crowded places are thinned, as in our samples at the default cuts, counts have a step.
    checks = check_gradients(analysis, at, widths, data)
    return _told({name: check.of_sums() for name, check in checks.items()})


def _told(checks: Mapping[str, "GradientCheck"]) -> int:
    """Print a row for each cut, then the verdict."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="derivative of the sums of weights by each threshold (simulated events, all data sets and variations)",
        title_justify="left",
    )
    table.add_column("cut")
    for column in ("weight lost per unit, flux", "finite difference", "bins", "rms pull", "largest pull"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for name, check in checks.items():
        table.add_row(name, *_row(check), verdict(check))
    Console(width=120).print(table)
    wrong = [name for name, check in checks.items() if verdict(check) == "disagrees"]
    unknown = [name for name, check in checks.items() if verdict(check) == "too few events"]
    if wrong:
        print(f"The gradient by {', '.join(wrong)} is not the slope of the exact analysis.")
    elif len(unknown) < len(checks):
        print("The gradient is the slope of the exact analysis.")
    if unknown:
        print(f"Too few events near {', '.join(unknown)} to tell.")
    return 1 if wrong else 0


def _row(check: "GradientCheck") -> tuple[str, ...]:
    """Of the counts of the nominal kinematics, and of the pulls of all bins."""
    flux, difference = (float(table[0, :, :, 0].sum()) for table in (check.flux, check.difference))
    error = float((check.error[0, :, :, 0] ** 2).sum() ** 0.5)
    pulls = check.pulls()
    largest = f"{abs(pulls).max():.2f}" if pulls.size else ""
    return f"{-flux:.1f}", f"{-difference:.1f} ± {error:.1f}", str(pulls.size), f"{_rms(check):.2f}", largest


def verdict(check: "GradientCheck") -> Verdict:
    """What the pulls say."""
    if not check.pulls().size:
        return "too few events"
    return "agrees" if _rms(check) < LARGEST_RMS else "disagrees"


def _rms(check: "GradientCheck") -> float:
    pulls = check.pulls()
    return float((pulls**2).mean() ** 0.5) if pulls.size else float("nan")


if __name__ == "__main__":
    sys.exit(main())
