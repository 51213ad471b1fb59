"""Our analysis on the simulated samples, beside the published histograms of the Analysis Grand Challenge.

Both are in the fit bins, at the AGC's luminosity. The first table has the expected events of every process with the
statistical error of the simulated events; the second what each variation does to them, as a factor on the yield and as
the largest change of the shape in a bin. Simulated events are our own and small in number: agreement within 10 to 30 %
is what to expect, and a variation by another sample (ME_var, PS_var) is another generator setting here than in the AGC.

The AGC's histograms are in its repository (iris-hep/analysis-grand-challenge), folder reference/. The file of all
inputs is taken from the folder that PIPELINE_EXTERNAL_DATA names, if --reference does not say otherwise.

Example:
  python scripts/agc_reference.py --reference histos_all_file_per_process.json --output runs/agc_reference
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pipeline.analysis import templates
from pipeline.config import Config, ConfigError, load_config
from pipeline.inference.templates import Templates
from pipeline.ingest import InputError
from pipeline.problem import make_analysis, make_data, read_samples, variations
from pipeline.report.pictures.look import COLORS, style
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = "simulated events"

Floats = NDArray[np.float64]
Published = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One template, ours and the AGC's; `error` is the statistical one of ours where it is nominal, else 0."""

    region: str
    process: str
    variation: str
    ours: Floats
    error: Floats
    published: Floats


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parse(argv)
    try:
        config = load_config(options.config)
        published = json.loads(options.reference.read_text(encoding="utf-8"))
        pairs = list(compare(config, our_templates(config), published))
    except (ConfigError, InputError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console = Console(width=options.width)
    console.print(yield_table(pairs))
    console.print(variation_table([pair for pair in pairs if options.all or pair.process in config.measurement.signal]))
    options.output.mkdir(parents=True, exist_ok=True)
    for name, draw in {"nominal": nominal_figure, "variations": variation_figure}.items():
        path = options.output / f"{name}.png"
        with style(name):
            figure = draw(config, pairs)
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=120, facecolor="white")
        console.print(f"wrote {path}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("PIPELINE_EXTERNAL_DATA", "."))
    parser.add_argument(
        "--reference",
        type=Path,
        default=folder / "histos_all_file_per_process.json",
        metavar="FILE",
        help="the AGC's histograms; default: histos_all_file_per_process.json in the folder PIPELINE_EXTERNAL_DATA",
    )
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "agc.yaml", help="our analysis")
    parser.add_argument("--output", type=Path, default=Path("runs/agc_reference"), help="folder for the plots")
    parser.add_argument("--all", action="store_true", help="print the variations of every process, not only the signal")
    parser.add_argument("--width", type=int, default=120, help="of the printed tables, in characters")
    options = parser.parse_args(argv)
    if not options.reference.is_file():
        parser.error(f"--reference: there is no file {options.reference}; give the AGC's histograms or see --help")
    return options


def our_templates(config: Config) -> Templates:
    """Our analysis at the thresholds of the config, on all events."""
    samples = read_samples(config)
    analysis = make_analysis(config, len(samples))
    (data,) = make_data(config, analysis, samples, [(1.0, [np.ones(len(s.events), bool) for s in samples])])
    thresholds = {name: jnp.asarray(cut.threshold, jnp.float64) for name, cut in config.thresholds.items()}
    return jax.jit(templates, static_argnums=0)(analysis, thresholds, {}, data)


def compare(config: Config, made: Templates, published: Published) -> Iterator[Pair]:
    """Every template that the AGC publishes, beside ours."""
    yields, variance = np.asarray(made.yields), np.asarray(made.variance)
    offset = 0
    for region, settings in config.regions.items():
        edges = np.asarray(settings.bins.places)
        bins = slice(offset, offset + len(edges) - 1)
        offset = bins.stop
        for p, process in enumerate(config.processes):
            for v, variation in enumerate(variations(config)):
                key = f"{region}_{process}" + ("" if v == 0 else f"_{variation}")
                if key in published:
                    yield Pair(
                        region=region,
                        process=process,
                        variation=variation,
                        ours=yields[v, p, bins],
                        error=np.sqrt(variance[p, bins]) if v == 0 else np.zeros(len(edges) - 1),
                        published=rebinned(published[key], edges),
                    )
                elif v == 0:
                    raise ValueError(
                        f"the reference has no histogram '{key}'; is it the AGC's file for the ttbar task?"
                    )


def rebinned(histogram: Mapping[str, Any], edges: Floats) -> Floats:
    """A published histogram (flow bins first and last) in wider bins.

    Raises:
        ValueError: an edge is none of the published ones.
    """
    fine = np.asarray(histogram["edges"], float)
    places = np.searchsorted(fine, edges - 1e-6)
    if places[-1] >= len(fine) or not np.allclose(fine[places], edges):
        raise ValueError(f"the bins {edges.tolist()} do not fit the published edges {fine.tolist()}; change the config")
    inside = np.asarray(histogram["contents"], float)[1:-1]
    return np.add.reduceat(np.append(inside, 0.0), places)[:-1]


def yield_table(pairs: list[Pair]) -> Table:
    """Expected events in the fit bins."""
    columns = ("region", "process", "ours", "MC error", "AGC", "ours / AGC", "mean of |shape ratio − 1|")
    table = _table(f"Expected events in the fit bins, ours from {SOURCE}", *columns)
    for pair in (pair for pair in pairs if pair.variation == "nominal"):
        ours, theirs, error = pair.ours.sum(), pair.published.sum(), np.sqrt((pair.error**2).sum())
        share = pair.published / theirs
        shape = np.abs(_ratio(pair.ours / ours, share) - 1) @ share
        numbers = (f"{ours:.1f}", f"{error:.1f}", f"{theirs:.1f}", f"{ours / theirs:.3f}", f"{shape:.1%}")
        table.add_row(pair.region, pair.process, *numbers)
    return table


def variation_table(pairs: list[Pair]) -> Table:
    """What each variation does, in both."""
    columns = ("region", "process", "variation", "yield, ours", "yield, AGC", "shape, ours", "shape, AGC")
    table = _table("Variations: factor on the yield, and largest change of the shape (bins with 3 % or more)", *columns)
    for pair, nominal in _varied(pairs):
        counted = nominal.published >= 0.03 * nominal.published.sum()
        effects = [_effect(*both, counted) for both in _both(pair, nominal)]
        yields, shapes = zip(*effects, strict=True)
        cells = (*(f"{factor:.3f}" for factor in yields), *(f"{change:+.1%}" for change in shapes))
        table.add_row(pair.region, pair.process, pair.variation, *cells)
    return table


def _varied(pairs: list[Pair]) -> Iterator[tuple[Pair, Pair]]:
    """Every varied template with its nominal one."""
    nominal = {(pair.region, pair.process): pair for pair in pairs if pair.variation == "nominal"}
    for pair in pairs:
        if pair.variation != "nominal":
            yield pair, nominal[pair.region, pair.process]


def _both(pair: Pair, nominal: Pair) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    return (pair.ours, nominal.ours), (pair.published, nominal.published)


def _effect(varied: Floats, nominal: Floats, counted: NDArray[np.bool_]) -> tuple[float, float]:
    factor = varied.sum() / nominal.sum()
    change = (_ratio(varied, nominal) / factor - 1)[counted]
    return float(factor), float(change[np.abs(change).argmax()])


def nominal_figure(config: Config, pairs: list[Pair]) -> Figure:
    """A row a process, a column a region: ours as points, the AGC's as lines."""
    processes, regions = list(config.processes), list(config.regions)
    figure = Figure(figsize=(4.6 * len(regions), 2.3 * len(processes)))
    panels = figure.subplots(len(processes), len(regions), squeeze=False)
    for pair in (pair for pair in pairs if pair.variation == "nominal"):
        row, column = processes.index(pair.process), regions.index(pair.region)
        axes, edges = panels[row][column], _edges(config, pair.region)
        axes.stairs(pair.published, edges, color=COLORS[0], label="AGC, published")
        centers = 0.5 * (edges[1:] + edges[:-1])
        axes.errorbar(centers, pair.ours, pair.error, fmt="k.", markersize=4, linewidth=1, label=f"ours, {SOURCE}")
        axes.set_ylim(0, None)
        axes.set_title(f"{pair.region}, {config.processes[pair.process].title}", loc="left", fontsize=10)
        if row == len(processes) - 1:
            axes.set_xlabel(config.regions[pair.region].label)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def variation_figure(config: Config, pairs: list[Pair]) -> Figure:
    """Varied over nominal for the signal: a row a variation, a column a region."""
    signal, regions = config.measurement.signal[0], list(config.regions)
    shown = [(pair, nominal) for pair, nominal in _varied(pairs) if pair.process == signal]
    names = list(dict.fromkeys(pair.variation for pair, _ in shown))
    figure = Figure(figsize=(4.6 * len(regions), 1.2 * len(names) + 0.6))
    panels = figure.subplots(len(names), len(regions), squeeze=False, sharex="col")
    for pair, nominal in shown:
        axes = panels[names.index(pair.variation)][regions.index(pair.region)]
        edges = _edges(config, pair.region)
        (ours, our_nominal), (theirs, their_nominal) = _both(pair, nominal)
        axes.stairs(_ratio(theirs, their_nominal), edges, baseline=None, color=COLORS[0], label="AGC, published")
        axes.stairs(_ratio(ours, our_nominal), edges, baseline=None, color="black", label=f"ours, {SOURCE}")
        axes.axhline(1, color="grey", linewidth=0.6)
        axes.set_title(f"{pair.region}, {signal}, {pair.variation} / nominal", loc="left", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _edges(config: Config, region: str) -> Floats:
    bins = config.regions[region].bins
    return np.asarray(bins.places)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """1 where there is nothing to compare with."""
    return np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator > 0)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 or column == "variation" else "right", no_wrap=True)
    return table


if __name__ == "__main__":
    sys.exit(main())
