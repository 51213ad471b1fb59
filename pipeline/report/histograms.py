"""The templates of a run for other tools: `hist.Hist` with named axes, ROOT histograms, and a cabinetry configuration.

In `histograms.root` a histogram is `<stage>/<region>/<process>/<variation>`, under the names of the config, on the
validation events. The stages: `before` and `after` are the templates at the default and at the optimised cuts in the
bins of the config; `fit` is `after` in the bins of the likelihood, where thinly populated bins are merged.
`cabinetry.yaml` describes the latter, so that cabinetry builds the workspace of the run again, by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hist
import numpy as np
import uproot
import yaml

from pipeline.config import Config, Systematic
from pipeline.errors import InputError
from pipeline.histograms import Axis, hists
from pipeline.validation.regions import Region

__all__ = ["as_hist", "cabinetry_config", "merged", "write_cabinetry_config", "write_histograms"]

NOMINAL = "nominal"
ASIMOV = "asimov"


def as_hist(config: Config, name: str, region: Region) -> hist.Hist[Any]:
    """All templates of a region: axes `process`, `variation` and the observable.

    Variances are those of the nominal templates; a varied one has none of its own, since its events are the same.
    Variations are called `<systematic>_up` and `<systematic>_down`; where one does not act it is the nominal template.
    """
    tables = {NOMINAL: region.nominal}
    for key, systematic in config.systematics.items():
        tables |= {f"{key}_up": region.up[systematic.title], f"{key}_down": region.down[systematic.title]}
    axis = Axis(region.edges, config.regions[name].observable, region.label)
    values = np.stack(list(tables.values()))
    return hists(list(config.processes), list(tables), {name: axis}, values, region.variance)[name]


def merged(region: Region) -> Region | None:
    """The region in the bins of the likelihood; None where it is left out of the fit altogether."""
    into = region.merged_into
    starts = np.unique(into[into >= 0])
    if len(starts) == 0:
        return None
    places = (into[:, None] == starts[None, :]).astype(np.float64)
    # A bin takes in its neighbours to the right, the last one all that is left over.
    edges = np.append(region.edges[starts], region.edges[-1])
    return Region(
        name=region.name,
        label=region.label,
        edges=edges,
        processes=region.processes,
        nominal=region.nominal @ places,
        variance=region.variance @ places,
        up={name: table @ places for name, table in region.up.items()},
        down={name: table @ places for name, table in region.down.items()},
        merged_into=np.arange(len(starts)),
    )


def write_histograms(path: Path, config: Config, stages: Mapping[str, Sequence[Region]]) -> None:
    """All templates as ROOT histograms; varied ones only where the variation acts."""
    with uproot.recreate(path) as file:
        for stage, regions in stages.items():
            named = _fitted(config, regions) if stage == "fit" else zip(config.regions, regions, strict=True)
            for name, region in named:
                templates = as_hist(config, name, region)
                for process, variation in _written(config):
                    file[f"{stage}/{name}/{process}/{variation}"] = templates[process, variation, :]
                file[f"{stage}/{name}/{ASIMOV}/{NOMINAL}"] = _total(templates)


def cabinetry_config(config: Config, regions: Sequence[Region], root_file: str = "histograms.root") -> dict[str, Any]:
    """A cabinetry configuration of the model, with its templates in `root_file`.

    Raises:
        InputError: the model has what cabinetry has no word for.
    """
    poi = config.measurement.poi
    free = dict.fromkeys(config.measurement.signal, poi) | config.measurement.free
    factors = [
        {
            "Name": factor,
            "Samples": [config.processes[process].title for process, name in free.items() if name == factor],
            "Nominal": 1,
            "Bounds": list(config.measurement.bounds),
        }
        for factor in dict.fromkeys(free.values())
    ]
    return {
        "General": {
            "Measurement": config.measurement.name,
            "POI": poi,
            "HistogramFolder": "cabinetry_histograms/",
            "InputPath": f"{root_file}:fit/{{RegionPath}}/{{SamplePath}}/{{VariationPath}}",
            "VariationPath": NOMINAL,
        },
        "Regions": [
            {"Name": region.name, "RegionPath": name, "Variable": config.regions[name].observable}
            for name, region in _fitted(config, regions)
        ],
        "Samples": [
            {"Name": "Asimov", "SamplePath": ASIMOV, "Data": True},
            *({"Name": process.title, "SamplePath": key} for key, process in config.processes.items()),
        ],
        "NormFactors": factors,
        "Systematics": [_systematic(config, key, systematic) for key, systematic in config.systematics.items()],
    }


def write_cabinetry_config(path: Path, config: Config, regions: Sequence[Region]) -> None:
    """Write `cabinetry.yaml`; its paths count from the run folder."""
    content = cabinetry_config(config, regions)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _systematic(config: Config, key: str, systematic: Systematic) -> dict[str, Any]:
    entry: dict[str, Any] = {"Name": systematic.title}
    if systematic.processes is not None:
        entry["Samples"] = [config.processes[process].title for process in systematic.processes]
    if systematic.regions is not None:
        entry["Regions"] = [config.regions[region].title or region for region in systematic.regions]
    if systematic.sizes is not None:
        up, down = systematic.sizes
        return entry | {"Type": "Normalization", "Up": {"Normalization": up}, "Down": {"Normalization": down}}
    if systematic.type == "histosys":
        raise InputError(
            f"cabinetry always takes the yield out of varied templates, so it cannot build systematics.{key} of type "
            "histosys; the workspaces of the run have it"
        )
    paths = {"Up": {"VariationPath": f"{key}_up"}, "Down": {"VariationPath": f"{key}_down"}}
    return entry | {"Type": "NormPlusShape"} | paths


def _total(templates: hist.Hist[Any]) -> hist.Hist[Any]:
    """The nominal templates of all processes together: data as expected."""
    nominal: Any = templates[:, NOMINAL, :]
    total: hist.Hist[Any] = nominal.project(1)
    return total


def _fitted(config: Config, regions: Sequence[Region]) -> Iterator[tuple[str, Region]]:
    for name, region in zip(config.regions, regions, strict=True):
        fitted = merged(region)
        if fitted is not None:
            yield name, fitted


def _written(config: Config) -> Iterator[tuple[str, str]]:
    for process in config.processes:
        yield process, NOMINAL
        for key, systematic in config.systematics.items():
            if systematic.sizes is None and process in (systematic.processes or config.processes):
                yield process, f"{key}_up"
                yield process, f"{key}_down"
