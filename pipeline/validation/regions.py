"""The templates of each region as plain NumPy arrays, for pictures and for other programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import Analysis, templates_at
from pipeline.events.binning import placed_edges
from pipeline.events.cuts import arrays
from pipeline.inference import measurement
from pipeline.inference.histfactory.arrays import hosted
from pipeline.inference.histfactory.model import channel_of_bins, modifiers_of, target_table
from pipeline.inference.templates import Templates
from pipeline.inference.varied import treated, with_errors
from pipeline.problem import Problem

__all__ = ["Region", "Values", "merged_into", "regions", "varied_templates"]

Values = NDArray[np.float64]

_merged_bins = hosted(measurement.merged_bins, static_argnums=0)
_numbers = hosted(measurement.numbers, static_argnums=(0, 1))


@dataclass(frozen=True)
class Region:
    """The templates of one region at some thresholds.

    Attributes:
        name: as in the workspace.
        label: of the observable, for an axis.
        edges: of the bins, in the observable's unit.
        processes: names of the samples.
        nominal: expected events, shape "processes bins".
        variance: of `nominal` by the finite number of simulated events, with that of varied ones where they count.
        up: templates at +1 standard deviation of each systematic uncertainty, shape "processes bins".
        down: at −1.
        merged_into: the bin that each bin is merged into before the fit; −1 where it is dropped.
    """

    name: str
    label: str
    edges: Values
    processes: tuple[str, ...]
    nominal: Values
    variance: Values
    up: Mapping[str, Values]
    down: Mapping[str, Values]
    merged_into: NDArray[np.int64]

    @property
    def total(self) -> Values:
        """Expected events in each bin."""
        return np.asarray(self.nominal.sum(axis=0))

    @property
    def statistical(self) -> Values:
        """Error of the total by the finite number of simulated events."""
        return np.asarray(np.sqrt(self.variance.sum(axis=0)))

    @property
    def band(self) -> tuple[Values, Values]:
        """Downward and upward error of the total: statistical and all systematic ones in quadrature, before any fit."""
        below, above = self.variance.sum(axis=0), self.variance.sum(axis=0)
        for name in self.up:
            shifts = np.stack([self.up[name].sum(axis=0) - self.total, self.down[name].sum(axis=0) - self.total])
            below = below + np.minimum(shifts.min(axis=0), 0) ** 2
            above = above + np.maximum(shifts.max(axis=0), 0) ** 2
        return np.sqrt(below), np.sqrt(above)


def regions(problem: Problem, thresholds: Mapping[str, float]) -> tuple[Region, ...]:
    """The templates of the validation events in every region, in the binning of the config."""
    config, analysis, data = problem.config, problem.analysis, problem.validation
    templates = templates_at(analysis, arrays(thresholds), data)
    merged = merged_into(analysis, templates)
    if analysis.measurement.treats_variations:
        templates = _as_fitted(analysis.measurement, templates)
    up, down = varied_templates(analysis, templates)
    placed = placed_edges(analysis.selection.regions, arrays(thresholds), data.edges)
    views = []
    for region, settings in zip(analysis.selection.regions, config.regions.values(), strict=True):
        bins = slice(region.offset, region.offset + region.bins)
        views.append(
            Region(
                name=settings.title or region.name,
                label=settings.label or region.observable,
                edges=np.asarray(placed[region.name][0], np.float64),
                processes=analysis.measurement.processes,
                nominal=np.asarray(templates.yields[0, :, bins]),
                variance=np.asarray(templates.variance[:, bins]),
                up={name: table[:, bins] for name, table in up.items()},
                down={name: table[:, bins] for name, table in down.items()},
                merged_into=np.where(merged[bins] < 0, -1, merged[bins] - region.offset),
            )
        )
    return tuple(views)


@partial(hosted, static_argnums=0)
def _as_fitted(measured: measurement.Measurement, templates: Templates) -> Templates:
    """What the likelihood makes of the templates, but in the bins of the config."""
    return with_errors(measured, treated(measured, templates))


def merged_into(analysis: Analysis, templates: Templates) -> NDArray[np.int64]:
    """The bin of the joint axis that each bin is merged into before the fit; −1 where it is dropped."""
    bins = templates.yields.shape[2]
    if not analysis.measurement.merges:
        return np.arange(bins)
    return np.asarray(_merged_bins(analysis.measurement, templates), np.int64)


def varied_templates(analysis: Analysis, templates: Templates) -> tuple[dict[str, Values], dict[str, Values]]:
    """Templates at +1 and at −1 standard deviation of each nuisance parameter, shape "processes bins".

    What the likelihood itself makes of the parameter: the factor of its normsys times the template of its histosys.
    In the order of the config.
    """
    structure, measured = analysis.structure, analysis.measurement
    numbers = _numbers(measured, structure, templates)
    # The model sorts its samples and channels by name.
    rows = np.array([measured.processes.index(sample) for sample in structure.samples])
    offsets = {channel.name: channel.offset for channel in measured.channels}
    columns = np.concatenate([offsets[channel.name] + np.arange(channel.bins) for channel in structure.channels])
    channels = channel_of_bins(structure)
    norms, shapes = (
        {modifier.name: (row, modifier) for row, modifier in enumerate(modifiers_of(structure, kind))}
        for kind in ("normsys", "histosys")
    )

    def varied(factors: jax.Array, templates: jax.Array) -> dict[str, Values]:
        tables = {}
        for name in dict.fromkeys(nuisance.name for nuisance in measured.nuisances):
            table = np.array(numbers.nominal)
            if name in shapes:
                row, shape = shapes[name]
                table = np.where(target_table(structure, shape)[:, channels], np.asarray(templates[row]), table)
            if name in norms:
                row, norm = norms[name]
                table = table * np.where(target_table(structure, norm), np.asarray(factors[row]), 1.0)[:, channels]
            tables[name] = np.empty_like(table)
            tables[name][np.ix_(rows, columns)] = table
        return tables

    return varied(numbers.normsys_hi, numbers.histosys_hi), varied(numbers.normsys_lo, numbers.histosys_lo)
