"""Compares our simulated samples with the published histograms of the Analysis Grand Challenge.

Prints, for the AGC's selection at its luminosity: expected yields over the AGC's, shapes of the two observables, mean
jet momenta, b-tag efficiencies, jet multiplicities, and the statistical error of every fit bin. The selection is the
project's slow twin (tests/reference/agc_selection.py), not the pipeline. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

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
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

_REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_REPOSITORY / "tests" / "reference"))
import agc_selection as agc  # noqa: E402  # beside the tests, not in the package: it must share no code with it

REGIONS = {"4j1b": "HT", "4j2b": "trijet mass"}
YIELD_BARS = {"ttbar": 0.10}
OTHER_YIELD_BAR = 0.30
SHAPE_BAR, SHAPE_MIN_SHARE = 0.15, 0.02
ERROR_BARS = {("ttbar", "4j1b"): 0.05, ("ttbar", "4j2b"): 0.05, ("wjets", "4j2b"): 0.15}
JET_PT_EDGES = (30.0, 50.0, 80.0, 120.0, 200.0, np.inf)

Floats = NDArray[np.float64]
Reference = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One data set after the AGC's selection; ``weight`` is in expected events."""

    process: str
    variation: str
    events: ak.Array
    weight: Floats
    regions: Mapping[str, agc.Region]

    @property
    def name(self) -> str:
        """As in the manifest."""
        return f"{self.process}__{self.variation}"

    @property
    def reference(self) -> str:
        """Name of the AGC's histogram, without the region."""
        return self.process if self.variation == "nominal" else f"{self.process}_{self.variation}"


@dataclass(frozen=True, kw_only=True)
class Yield:
    """Expected events of one sample in one region, their statistical error, and the AGC's number."""

    sample: str
    region: str
    expected: float
    error: float
    published: float
    bar: float | None
    entries: int

    @property
    def ratio(self) -> float:
        """Ours over the AGC's."""
        return self.expected / self.published


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = _parse(argv)
    reference = load_reference(arguments.reference)
    samples = list(load_samples(arguments.manifest, arguments.luminosity))
    console = Console(width=arguments.width)
    verdicts = [
        _print_yields(console, samples, reference),
        _print_shapes(console, samples, reference),
        _print_errors(console, samples),
    ]
    _print_jet_momenta(console, samples, reference)
    _print_tag_efficiencies(console, samples)
    _print_multiplicities(console, samples)
    return 0 if all(verdicts) else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("PIPELINE_EXTERNAL_DATA", "."))
    parser.add_argument(
        "--reference",
        type=Path,
        default=folder / "histos_all_file_per_process.json",
        metavar="FILE",
        help="the AGC's published histograms (its repository, reference/histos_all_file_per_process.json);"
        " default: that file in the folder that PIPELINE_EXTERNAL_DATA names",
    )
    parser.add_argument("--manifest", type=Path, default=_REPOSITORY / "data_manifest.yaml", metavar="FILE")
    parser.add_argument("--luminosity", type=float, default=3378.0, metavar="L", help="1/pb (default: 3378, the AGC's)")
    parser.add_argument("--width", type=int, default=160, help="of the printed tables, in characters")
    arguments = parser.parse_args(argv)
    for name in ("reference", "manifest"):
        if not getattr(arguments, name).is_file():
            parser.error(f"--{name}: there is no file {getattr(arguments, name)}")
    return arguments


def load_reference(file: Path) -> Reference:
    """The AGC's published histograms, as its repository has them."""
    histograms: Reference = json.loads(file.read_text(encoding="utf-8"))
    return histograms


def load_samples(manifest: Path, luminosity: float) -> Iterator[Sample]:
    """Our simulated data sets after the AGC's selection, normalised to a luminosity in 1/pb."""
    document = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    folder = manifest.parent / document["sources"]["simulated"]["prefixes"]["local"]
    for key, dataset in document["datasets"].items():
        if not key.startswith("simulated/"):
            continue
        (file,) = dataset["files"]
        events = agc.read(folder / file["path"], extra=("genWeight", "event", "Jet_hadronFlavour"))
        normalisation = dataset["cross_section_pb"] * luminosity / file["sum_of_weights"]
        yield Sample(
            process=dataset["process"],
            variation=dataset.get("role") or dataset["variation"],
            events=events,
            weight=ak.to_numpy(events.genWeight).astype(np.float64) * normalisation,
            regions=agc.select(events),
        )


def yields(samples: list[Sample], reference: Reference) -> Iterator[Yield]:
    """Every sample and region beside the AGC's histogram, all bins and both flows."""
    for sample in samples:
        for region, selected in sample.regions.items():
            expected, error = _sum_and_error(sample, selected.index)
            published = sum(reference[f"{region}_{sample.reference}"]["contents"])
            bar = YIELD_BARS.get(sample.process, OTHER_YIELD_BAR) if sample.variation == "nominal" else None
            yield Yield(
                sample=sample.name,
                region=region,
                expected=expected,
                error=error,
                published=published,
                bar=bar,
                entries=len(selected.index),
            )


def _print_yields(console: Console, samples: list[Sample], reference: Reference) -> bool:
    table = _table(
        "Expected events, all bins", "sample", "region", "ours", "MC error", "AGC", "ratio", "bar", "entries"
    )
    good = True
    for row in yields(samples, reference):
        passed = row.bar is None or abs(row.ratio - 1) <= row.bar
        good &= passed
        numbers = (f"{row.expected:.1f}", f"{row.error:.1f}", f"{row.published:.1f}", f"{row.ratio:.3f}")
        bar = "" if row.bar is None else _verdict(passed, f"{row.bar:.0%}")
        table.add_row(row.sample, row.region, *numbers, bar, f"{row.entries}")
    console.print(table)
    return good


def _print_shapes(console: Console, samples: list[Sample], reference: Reference) -> bool:
    edges = [f"{edge:.0f}" for edge in agc.FIT_EDGES[:-1]]
    good = True
    for region, observable in REGIONS.items():
        title = f"{region}, {observable}: share of each fit bin over the AGC's (bins with less than 2 % in brackets)"
        table = _table(title, "sample", *edges, "largest", "same peak")
        for sample in samples:
            ours, _ = _fit_histogram(sample, region)
            published = _published(reference, region, sample)
            ratio = (ours / ours.sum()) / (published / published.sum())
            counted = published / published.sum() >= SHAPE_MIN_SHARE
            largest = np.abs(ratio - 1)[counted].max()
            same_peak = ours.argmax() == published.argmax()
            judged = sample.name == "ttbar__nominal"
            passed = largest <= SHAPE_BAR and bool(same_peak)
            good &= passed or not judged
            cells = [f"{r:.2f}" if c else f"({r:.2f})" for r, c in zip(ratio, counted, strict=True)]
            last = _verdict(passed, f"{largest:.0%}") if judged else f"{largest:.0%}"
            table.add_row(sample.name, *cells, last, "yes" if same_peak else "no")
        console.print(table)
    return good


def _print_errors(console: Console, samples: list[Sample]) -> bool:
    edges = [f"{edge:.0f}" for edge in agc.FIT_EDGES[:-1]]
    good = True
    for region in REGIONS:
        title = f"{region}: statistical error of each fit bin in %, draws of one collision counted as one"
        table = _table(title, "sample", *edges, "worst", "if independent")
        for sample in samples:
            content, error = _fit_histogram(sample, region)
            selected = sample.regions[region]
            _, variance = agc.histogram(selected.observable, sample.weight[selected.index])
            filled = content > 0
            relative = np.divide(error, content, out=np.full_like(content, np.inf), where=filled)
            bar = ERROR_BARS.get((sample.process, region), np.inf) if sample.variation == "nominal" else np.inf
            independent = np.sqrt(variance[filled]) / content[filled]
            passed = bool(relative.max() <= bar)
            good &= passed
            worst = f"{relative.max():.1%}"
            table.add_row(
                sample.name,
                *(f"{100 * value:.1f}" if value < np.inf else "empty" for value in relative),
                _verdict(passed, f"{worst} / {bar:.0%}") if np.isfinite(bar) else worst,
                f"{independent.max():.1%}",
            )
        console.print(table)
    return good


def _print_jet_momenta(console: Console, samples: list[Sample], reference: Reference) -> None:
    table = _table("Mean pt of selected jets 1 to 4 in GeV, ours and the AGC's", "sample", *REGIONS)
    for sample in (sample for sample in samples if sample.variation == "nominal"):
        cells = []
        for region, selected in sample.regions.items():
            ours = np.average(selected.jet_pt, axis=0, weights=sample.weight[selected.index])
            published = [_published_mean_pt(reference, region, sample, jet) for jet in range(4)]
            cells.append("  ".join(f"{a:.1f} ({b:.1f})" for a, b in zip(ours, published, strict=True)))
        table.add_row(sample.name, *cells)
    console.print(table)


def _print_tag_efficiencies(console: Console, samples: list[Sample]) -> None:
    ranges = [f"{a:.0f}–{b:.0f}" for a, b in itertools.pairwise(JET_PT_EDGES)]
    table = _table("Share of jets with btagCSVV2 > 0.5, by flavour and pt in GeV", "sample", "flavour", "all", *ranges)
    for sample in (sample for sample in samples if sample.variation == "nominal"):
        jets = ak.with_field(sample.events.Jet, sample.events.Jet_hadronFlavour, "flavour")
        weights = ak.broadcast_arrays(sample.weight, jets.pt)[0]
        keep = (jets.pt > 30) & (abs(jets.eta) < 2.4) & (jets.jetId == 6)
        flat, weight = ak.flatten(jets[keep]), ak.to_numpy(ak.flatten(weights[keep]))
        for name, code in (("b", 5), ("c", 4), ("light", 0)):
            pt, tagged, w = (
                ak.to_numpy(x)[ak.to_numpy(flat.flavour == code)] for x in (flat.pt, flat.btagCSVV2 > 0.5, weight)
            )
            bins = np.searchsorted(JET_PT_EDGES, pt, side="right") - 1
            total = np.bincount(bins, w, minlength=len(ranges))
            passed = np.bincount(bins, w * tagged, minlength=len(ranges))
            shares = [f"{x:.3f}" for x in passed / np.maximum(total, 1e-300)]
            table.add_row(sample.name, name, f"{passed.sum() / total.sum():.3f}", *shares)
    console.print(table)


def _print_multiplicities(console: Console, samples: list[Sample]) -> None:
    counts = range(4, 10)
    table = _table("Selected jets per event in %, both regions", "sample", *(f"{n}" for n in counts), "10 and more")
    cuts = agc.Thresholds()
    for sample in samples:
        index = np.concatenate([selected.index for selected in sample.regions.values()])
        jets = ak.to_numpy(ak.num(agc.selected_jets(sample.events.Jet[index], cuts)))
        share = np.bincount(np.minimum(jets, 10), sample.weight[index], minlength=11)[4:] / sample.weight[index].sum()
        table.add_row(sample.name, *(f"{100 * value:.1f}" for value in share))
    console.print(table)


def _fit_histogram(sample: Sample, region: str) -> tuple[Floats, Floats]:
    """Content and statistical error of the fit bins; entries of one collision are fully correlated."""
    selected = sample.regions[region]
    weight = sample.weight[selected.index]
    content, _ = agc.histogram(selected.observable, weight)
    bins = np.searchsorted(agc.FIT_EDGES, selected.observable, side="right") - 1
    collisions = ak.to_numpy(sample.events.event)[selected.index]
    inside = [np.flatnonzero(bins == b) for b in range(len(content))]
    return content, np.asarray([_error(weight[rows], collisions[rows]) for rows in inside])


def _sum_and_error(sample: Sample, index: NDArray[np.int64]) -> tuple[float, float]:
    weight = sample.weight[index]
    return weight.sum(), _error(weight, ak.to_numpy(sample.events.event)[index])


def _error(weight: Floats, collision: NDArray[np.uint64]) -> float:
    _, number = np.unique(collision, return_inverse=True)
    return float(np.sqrt((np.bincount(number, weight, minlength=1) ** 2).sum()))


def _published(reference: Reference, region: str, sample: Sample) -> Floats:
    """The AGC's 25 bins, sliced from 110 GeV and merged in pairs, as its fit does."""
    contents = np.asarray(reference[f"{region}_{sample.reference}"]["contents"])
    return contents[1:-1][3:].reshape(-1, 2).sum(axis=1)


def _published_mean_pt(reference: Reference, region: str, sample: Sample, jet: int) -> float:
    """From the b-tag variation, which weights an event by 1 + 0.0015 pt of that jet."""
    up = sum(reference[f"{region}_{sample.process}_btag_var_{jet}_up"]["contents"])
    nominal = sum(reference[f"{region}_{sample.process}"]["contents"])
    return (up / nominal - 1) / agc.SLOPE_OF_BTAG_VARIATION


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _verdict(passed: bool, text: str) -> str:
    return f"[green]{text} ok[/]" if passed else f"[red]{text} MISSED[/]"


if __name__ == "__main__":
    raise SystemExit(main())
