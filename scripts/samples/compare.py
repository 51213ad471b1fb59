"""Our analysis on the simulated samples, beside the published histograms of the Analysis Grand Challenge.

Both are in the fit bins, at the AGC's luminosity. The tables have the expected events of every process with the
statistical error of the simulated events; what each variation does to them, as a factor on the yield and as the largest
change of the shape in a bin; mean jet momenta (a b-tag variation weighs an event by the momentum of a jet); and how
often jets of each flavour are tagged, which has no published counterpart. Simulated events are our own and few:
agreement within 10 to 30 % is what to expect, and a variation by another sample (ME_var, PS_var) is another generator
setting here than in the AGC. Exit code 2 where a sample misses one of the bars that scripts/samples was tuned to.

The AGC's histograms are in its repository (iris-hep/analysis-grand-challenge), folder reference/. The file of all
inputs is taken from the folder that PIPELINE_EXTERNAL_DATA names, if --reference does not say otherwise.

Example:
  python -m scripts.samples.compare --reference histos_all_file_per_process.json --output runs/agc_reference
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pipeline.analysis import templates_at
from pipeline.config import Config, ConfigError, load_config
from pipeline.inference.templates import Templates
from pipeline.ingest.manifest import InputError, load_manifest
from pipeline.problem import whole
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = "simulated events"
COLOR = "tab:blue"

YIELD_BARS, OTHER_YIELD_BAR = {"ttbar": 0.10}, 0.40
SHAPE_BAR, SHAPE_MIN_SHARE = 0.15, 0.02
ERROR_BARS = {("ttbar", "4j1b"): 0.05, ("ttbar", "4j2b"): 0.05, ("wjets", "4j2b"): 0.15}
"""What the samples were tuned to: yields and the shape of ttbar near the AGC's, and small errors of each fit bin."""

JET_PT_EDGES = (30.0, 50.0, 80.0, 120.0, 200.0, np.inf)
SLOPE_OF_BTAG_VARIATION = 0.0015  # a GeV of jet pt

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

    @property
    def misses(self) -> tuple[str, ...]:
        """Which bars a nominal template misses: yield, shape, error."""
        if self.variation != "nominal":
            return ()
        ratio = self.ours.sum() / self.published.sum()
        share = self.published / self.published.sum()
        shape = np.abs(_ratio(self.ours / self.ours.sum(), share) - 1)[share >= SHAPE_MIN_SHARE].max()
        relative = np.divide(self.error, self.ours, out=np.full_like(self.ours, np.inf), where=self.ours > 0)
        missed = {
            "yield": abs(ratio - 1) > YIELD_BARS.get(self.process, OTHER_YIELD_BAR),
            "shape": self.process == "ttbar" and shape > SHAPE_BAR,
            "error": relative.max() > ERROR_BARS.get((self.process, self.region), np.inf),
        }
        return tuple(name for name, miss in missed.items() if miss)


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
    console.print(momentum_table(pairs))
    console.print(tag_table(config))
    options.output.mkdir(parents=True, exist_ok=True)
    for name, draw in {"nominal": nominal_figure, "variations": variation_figure}.items():
        path = options.output / f"{name}.png"
        figure = draw(config, pairs)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=120, facecolor="white")
        console.print(f"wrote {path}")
    return 2 if any(pair.misses for pair in pairs) else 0


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
    """Our analysis at the thresholds of the config, on all events; draws of a collision count as one in it."""
    analysis, parameters, data = whole(config)
    return templates_at(analysis, arrays(parameters), data)


def compare(config: Config, made: Templates, published: Published) -> Iterator[Pair]:
    """Every template that the AGC publishes, beside ours."""
    yields, variance = np.asarray(made.yields), np.asarray(made.variance)
    offset = 0
    for region, settings in config.regions.items():
        edges = np.asarray(settings.bins.places)
        bins = slice(offset, offset + len(edges) - 1)
        offset = bins.stop
        for p, process in enumerate(config.processes):
            for v, variation in enumerate(("nominal", *config.variations)):
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
    columns = ("region", "process", "ours", "MC error", "AGC", "ours / AGC", "mean of |shape ratio − 1|", "misses")
    table = _table(f"Expected events in the fit bins, ours from {SOURCE}", *columns)
    for pair in (pair for pair in pairs if pair.variation == "nominal"):
        ours, theirs, error = pair.ours.sum(), pair.published.sum(), np.sqrt((pair.error**2).sum())
        share = pair.published / theirs
        shape = np.abs(_ratio(pair.ours / ours, share) - 1) @ share
        numbers = (f"{ours:.1f}", f"{error:.1f}", f"{theirs:.1f}", f"{ours / theirs:.3f}", f"{shape:.1%}")
        table.add_row(pair.region, pair.process, *numbers, ", ".join(pair.misses))
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


def momentum_table(pairs: list[Pair]) -> Table:
    """Mean pt of the first four selected jets."""
    table = _table("Mean pt of selected jets in GeV, ours and the AGC's", "region", "process", "jet", "ours", "AGC")
    for pair, nominal in _varied(pairs):
        if pair.variation.startswith("btag_var_") and pair.variation.endswith("_up"):
            jet = int(pair.variation.split("_")[2]) + 1
            means = [(up.sum() / of.sum() - 1) / SLOPE_OF_BTAG_VARIATION for up, of in _both(pair, nominal)]
            table.add_row(pair.region, pair.process, f"{jet}", *(f"{mean:.1f}" for mean in means))
    return table


def tag_table(config: Config) -> Table:
    """Share of jets that are tagged, by flavour and pt: what the parametrised detector does."""
    manifest = load_manifest(config.data.manifest)
    ranges = [f"{a:.0f}–{b:.0f}" for a, b in itertools.pairwise(JET_PT_EDGES)]
    table = _table("Share of jets with btagCSVV2 > 0.5, by pt in GeV", "process", "flavour", *ranges)
    for process in config.processes:
        (location, *_) = manifest.dataset(config.data.set, process).locations(config.data.location)
        with uproot.open(location) as file:
            jets = file["Events"].arrays(
                ["Jet_pt", "Jet_eta", "Jet_btagCSVV2", "Jet_jetId", "Jet_hadronFlavour", "genWeight"]
            )
        weights = ak.broadcast_arrays(jets.genWeight, jets.Jet_pt)[0]
        good = (abs(jets.Jet_eta) < 2.4) & (jets.Jet_jetId == 6)
        for flavour, code in (("b", 5), ("c", 4), ("light", 0)):
            mask = good & (jets.Jet_hadronFlavour == code)
            pt, tag, weight = (
                ak.to_numpy(ak.flatten(values[mask])) for values in (jets.Jet_pt, jets.Jet_btagCSVV2 > 0.5, weights)
            )
            every, tagged = (np.histogram(pt, JET_PT_EDGES, weights=weight * of)[0] for of in (1, tag))
            table.add_row(process, flavour, *(f"{x:.3f}" for x in tagged / np.maximum(every, 1e-300)))
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
    figure = Figure(figsize=(4.6 * len(regions), 2.3 * len(processes)), layout="constrained")
    panels = figure.subplots(len(processes), len(regions), squeeze=False)
    for pair in (pair for pair in pairs if pair.variation == "nominal"):
        row, column = processes.index(pair.process), regions.index(pair.region)
        axes, edges = panels[row][column], _edges(config, pair.region)
        axes.stairs(pair.published, edges, color=COLOR, label="AGC, published")
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
    figure = Figure(figsize=(4.6 * len(regions), 1.2 * len(names) + 0.6), layout="constrained")
    panels = figure.subplots(len(names), len(regions), squeeze=False, sharex="col")
    for pair, nominal in shown:
        axes = panels[names.index(pair.variation)][regions.index(pair.region)]
        edges = _edges(config, pair.region)
        (ours, our_nominal), (theirs, their_nominal) = _both(pair, nominal)
        axes.stairs(_ratio(theirs, their_nominal), edges, baseline=None, color=COLOR, label="AGC, published")
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
