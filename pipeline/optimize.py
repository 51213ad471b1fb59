"""`python -m pipeline.optimize --config configs/quickstart.yaml`: tune the cuts of an analysis by gradient.

Reads the events, evaluates the exact analysis and its gradient step by step, and writes what came out into a run
folder. All logic is elsewhere: the loop in `pipeline.tuning`, the comparison in `pipeline.validation`, the files in
`pipeline.report`.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.command import guarded, keep_compiled, use_cores, user_path
from pipeline.config import Config, ConfigError, explained, load_config, parse_settings

__all__ = ["main"]

EPILOG = """
examples:
  python -m pipeline.optimize --config configs/quickstart.yaml
  python -m pipeline.optimize --config configs/agc.yaml --output runs/agc --set optimiser.steps=100
  python -m pipeline.optimize --config configs/agc.yaml --set cuts.jet_pt.threshold=35 --dry-run

Ctrl-C stops the optimisation and goes on with the best thresholds so far; --resume continues a run that was stopped or
killed, with the same numbers as if it never had been.

The run folder holds result.json (cuts and significance before and after, on training and validation events),
workspace.json (a pyhf workspace at the optimised cuts), workspace_before.json, history.csv, config.yaml,
report.html with its pictures in plots/, and histograms.root with cabinetry.yaml for ROOT and cabinetry.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(name)s: %(message)s")
    return guarded(lambda: _run(options), debug=options.debug)


def _run(options: argparse.Namespace) -> int:
    if options.explain is not None:
        print(explained(options.explain))
        return 0
    if options.config is None:
        raise ConfigError("--config YAML is needed: the analysis and how to tune it")
    # Before the heavy imports, so that a typo answers at once.
    config = load_config(options.config, parse_settings(options.set))
    output = options.output or Path("runs") / config.name
    if output.exists() and not options.overwrite and not options.dry_run:
        raise ConfigError(f"{output} exists already; choose another --output or add --overwrite")
    if not (options.quiet or options.dry_run):
        # JAX and what reads the events take seconds to import.
        print(config.title or config.name, flush=True)
    use_cores(options.cores)
    _check_names(config)
    if options.device:
        _choose(options.device)
    from pipeline.run import describe_inputs, run

    if options.dry_run:
        describe_inputs(config)
        return 0
    if options.cache:
        keep_compiled()
    flags = ("overwrite", "resume", "quiet", "plots", "cluster")
    run(config, output, **{flag: getattr(options, flag) for flag in flags})
    return 0


def _check_names(config: Config) -> None:
    """Raise where the optimiser or a data set has a wrong name; what looks at events takes longer to import."""
    from pipeline.ingest.samples import listed_datasets
    from pipeline.tuning.schedule import make_optimiser, schedule

    listed_datasets(config)
    make_optimiser(schedule(config))


def _choose(device: str) -> None:
    import jax

    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[device])  # type: ignore[no-untyped-call]
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        # Without the CUDA plugin JAX fails an assertion, without a device it says so.
        raise ConfigError(
            f"--device {device}: JAX finds none here; install '.[gpu]' on a machine with a GPU, or leave --device out"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.optimize",
        description="Tune the cuts of an analysis: gradients of the exact, hard-cut expected significance.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=user_path, metavar="YAML", help="the analysis and how to tune it")
    parser.add_argument(
        "--explain",
        metavar="KEY",
        nargs="?",
        const="",
        help="what a key of a config means, with its type, unit and default, for example cuts.jet_pt.bandwidth; "
        "without a key all of them",
    )
    parser.add_argument(
        "--output", type=user_path, metavar="DIR", help="run folder (default: runs/<name of the config>)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped or killed run was")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of the config, for example optimiser.steps=100; may be repeated",
    )
    parser.add_argument("--device", choices=["cpu", "gpu"], help="where to compute (default: a GPU if JAX finds one)")
    parser.add_argument(
        "--cores",
        type=int,
        metavar="N",
        help="of the CPU, among which the events are divided (default: all that this process may use)",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="compute with the workers of a Dask cluster, tcp://host:8786, which share the folder data.cache, or with "
        "processes of this machine, local:4",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the config, list the inputs, and stop")
    parser.add_argument("--quiet", action="store_true", help="print the final table only")
    parser.add_argument("--no-plots", action="store_false", dest="plots", help="write the numbers only, no pictures")
    parser.add_argument(
        "--no-cache", action="store_false", dest="cache", help="compile everything anew, and keep nothing for next time"
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="warning",
        help="what the libraries behind it may say on standard error (default: warning)",
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
