"""The command line that the experiments share, and what it makes of a config."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config, ConfigError, load_config, parse_settings

__all__ = [
    "chosen",
    "configured",
    "experiment_parser",
    "save_figure",
    "without_bandwidths",
    "write_json",
]


def experiment_parser(description: str | None, config: str) -> argparse.ArgumentParser:
    """A parser with the options of every experiment; `config` is the one it is about when none is named."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=Path(config), metavar="YAML", help=f"the analysis (default: {config})")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of the config, such as optimiser.steps=30 or data.manifest=FILE; may be repeated",
    )
    add(
        "--thresholds",
        nargs="+",
        metavar="NAME",
        help="cuts that are trainable (default: those of the config); moving bin edges stay as the config has them",
    )
    add("--output", type=Path, metavar="FILE", help="JSON file for all figures")
    add("--plot", type=Path, metavar="FILE", help="picture: PNG, PDF or SVG by its name")
    return parser


def configured(options: argparse.Namespace) -> Config:
    """The config that the options ask for.

    Raises:
        ConfigError: one sentence for the user.
    """
    overrides = parse_settings(options.set)
    config = load_config(options.config, overrides)
    if options.thresholds is None:
        return config
    return load_config(options.config, chosen(config, overrides, options.thresholds))


def chosen(config: Config, overrides: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The overrides, and that these cuts are trainable and no others.

    Raises:
        ConfigError: there is no such cut.
    """
    unknown = [name for name in names if name not in config.cuts]
    if unknown:
        raise ConfigError(f"--thresholds {unknown[0]}: there is no such cut; there are: {', '.join(config.cuts)}")
    cuts = {name: {**overrides.get("cuts", {}).get(name, {}), "trainable": name in names} for name in config.cuts}
    return {**overrides, "cuts": cuts}


def without_bandwidths(config: Config) -> Config:
    """The same analysis, whatever its bandwidths are: the events choose them (`pipeline.bandwidths`)."""
    none = {"bandwidth": None, "bandwidth_end": None}
    cuts = {name: cut.model_copy(update=none) for name, cut in config.cuts.items()}
    regions = {
        name: region.model_copy(update={"bins": region.bins.model_copy(update=none)})
        for name, region in config.regions.items()
    }
    return config.model_copy(update={"cuts": cuts, "regions": regions})


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the figures, if a file is wanted."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_figure(path: Path | None, draw: Callable[[], Any]) -> None:
    """Draw and save a figure, if one is wanted; matplotlib takes a second to import."""
    if path is None:
        return
    from pipeline.report.pictures.look import style

    path.parent.mkdir(parents=True, exist_ok=True)
    with style(path.stem):
        draw().savefig(path, dpi=130, facecolor="white")
