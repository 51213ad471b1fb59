"""A template fit: what histograms are worth, and what each of their bins is worth.

    fit = TemplateFit.from_histograms(
        {"SR": {"signal": h_signal, "background": h_background}},     # hist.Hist, uproot, ROOT, (values, edges), …
        signal="signal",
        systematics=[Norm("lumi", 0.03), Shape("scale", up={"SR": {"background": h_up}})],
        data={"SR": h_data},
    )
    fit.merit("discovery_significance").value      # Z expected; also signal_strength_uncertainty, expected_upper_limit
    fit.slopes("discovery_significance")["SR"]     # dZ by the content of each bin of each template
    fit.merging("discovery_significance")["SR"]    # the change of Z if two neighbouring bins were one
    fit.observed.significance.z, fit.workspace     # on the data; for pyhf

The likelihood is that of a run (`pipeline.inference`): its figures of merit, here as functions of templates that are
given instead of made from events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, SupportsFloat, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int32
from numpy.typing import NDArray

from pipeline.display import escape, html_table
from pipeline.errors import InputError
from pipeline.histograms import Axis, hists
from pipeline.inference.histfactory import Structure, auxdata, from_pyhf, to_pyhf
from pipeline.inference.histfactory.arrays import hosted
from pipeline.inference.limits import Limits, upper_limits
from pipeline.inference.measurement import (
    Measurement,
    in_merged_bins,
    merged_bins,
    numbers,
    observations,
    skeleton,
)
from pipeline.inference.objectives import Merit, Objective, figure_of_merit
from pipeline.inference.significance import (
    SignalStrength,
    Significance,
    discovery_significance,
    signal_strength_uncertainty,
)
from pipeline.inference.templates import Templates, merge_bins
from pipeline.template_input import (
    Histograms,
    Layout,
    Names,
    Shape,
    check_known,
    check_variances,
    places,
    read,
    several,
    shared_axis,
    subset,
)
from pipeline.vocabulary import Norm

__all__ = ["Observed", "TemplateFit"]

Statistics = Literal["gaussian", "poisson", "none"]


class Observed(NamedTuple):
    """What the data say; see the functions of these names in `pipeline.inference`."""

    significance: Significance
    strength: SignalStrength
    limits: Limits


@dataclass(frozen=True, eq=False)
class TemplateFit:
    """A HistFactory likelihood of histograms, with its figures of merit and their derivatives.

    Attributes:
        measurement: names, and what belongs to which parameter.
        structure: the wiring of the likelihood.
        axes: of each region, in the order of the joint axis of bins.
        variations: names of the first axis of the templates.
        templates: expected events, and variances of the nominal ones.
        counts: of the data, on the joint axis of bins; None without data.
    """

    measurement: Measurement
    structure: Structure
    axes: Mapping[str, Axis]
    variations: tuple[str, ...]
    templates: Templates
    counts: NDArray[np.float64] | None = None

    @classmethod
    def from_histograms(
        cls,
        nominal: Histograms,
        *,
        signal: Names,
        systematics: Sequence[Norm | Shape] = (),
        free: Names = (),
        data: Mapping[str, Any] | None = None,
        poi: str = "mu",
        bounds: tuple[float, float] = (0.0, 10.0),
        mc_statistics: str = "gaussian",
        minimum_effective_events: float = 0.0,
        minimum_background: float = 0.0,
    ) -> "TemplateFit":
        """The likelihood of some histograms.

        Args:
            nominal: by region and process, in expected events; all of a region have the same bins.
            signal: the processes that the signal strength `poi` scales.
            systematics: the constrained nuisance parameters; several of one name are one parameter.
            free: processes with a free normalisation.
            data: observed histograms by region.
            poi: name of the signal strength.
            bounds: of the signal strength and of free normalisations.
            mc_statistics: the constraint of the finite number of simulated events, from the variances of the nominal
                histograms: one for each bin ("gaussian", pyhf's staterror), one for each process and bin ("poisson",
                a shapesys), or none.
            minimum_effective_events: of the background, in every bin; bins with fewer are merged with neighbours.
            minimum_background: likewise, expected events.

        Raises:
            InputError: something named does not exist, bins differ, or variances are asked for that are not there.
            ConfigError: the size of an uncertainty is impossible.
        """
        if not nominal:
            raise InputError("nominal: there is no region; give histograms by region and process.")
        if mc_statistics not in get_args(Statistics):
            raise InputError(f"mc_statistics: '{mc_statistics}' is none of {', '.join(get_args(Statistics))}.")
        processes = tuple(dict.fromkeys(process for region in nominal.values() for process in region))
        contents = read("nominal", nominal)
        if mc_statistics != "none":
            check_variances(contents)
        layout = Layout({region: shared_axis(region, contents) for region in nominal}, processes)
        tables = layout.templates(contents, [each for each in systematics if isinstance(each, Shape)])
        scaled = [
            (poi, several(signal, processes, "signal")),
            *((f"{n}_norm", [n]) for n in several(free, processes, "free")),
        ]
        measured = Measurement(
            name="measurement",
            poi=poi,
            channels=layout.channels,
            processes=processes,
            free=tuple((name, processes.index(process)) for name, on in scaled for process in on),
            nuisances=layout.nuisances(systematics, list(tables)),
            bounds=bounds,
            minimum_effective_events=minimum_effective_events,
            minimum_background=minimum_background,
            mc_statistics=cast("Statistics", mc_statistics),
        )
        return cls(
            measurement=measured,
            structure=from_pyhf(skeleton(measured))[0],
            axes=layout.axes,
            variations=tuple(tables),
            templates=Templates(
                yields=jnp.asarray(np.stack(list(tables.values()))), variance=layout.variances(contents)
            ),
            counts=None if data is None else layout.counts(data),
        )

    def merit(self, objective: str = "discovery_significance", **options: Any) -> Merit:
        """A figure of merit of what is expected, and whether its fit converged.

        Args:
            objective: `discovery_significance`, `signal_strength_uncertainty`, `expected_upper_limit` or
                `counting_significance`.
            options: of the limit: `method` ("CLs", "CLs+b"), `confidence_level`.

        Raises:
            ValueError: there is no such objective.
        """
        return _merit(self.templates, self.measurement, self.structure, Objective(objective, **options))

    def value_and_grad(self, objective: str = "discovery_significance", **options: Any) -> tuple[Merit, Templates]:
        """The same, and its derivative by the content of every bin of every template, and by the nominal variances.

        Per expected event; shapes "variations processes bins" and "processes bins", regions side by side as in `axes`.
        Each content moves by itself: if events come or go that are in the varied templates, too, as for a cut, the
        derivatives of all variations add up.
        """
        (_, merit), slope = _value_and_grad(
            self.templates, self.measurement, self.structure, Objective(objective, **options)
        )
        return merit, slope

    def slopes(self, objective: str = "discovery_significance", **options: Any) -> dict[str, Any]:
        """The derivative by contents as `hist.Hist` of each region: axes `process`, `variation` and the observable."""
        _, slope = self.value_and_grad(objective, **options)
        return hists(self.measurement.processes, self.variations, self.axes, slope.yields)

    def merging(self, objective: str = "discovery_significance", **options: Any) -> dict[str, NDArray[np.float64]]:
        """By how much the figure of merit would change if a bin were merged with the next one, for all but the last.

        In each region, one pair at a time; exact, with a fit for each. NaN where that fit does not converge.
        """
        bins = self.templates.yields.shape[2]
        pairs = [first for c in self.measurement.channels for first in range(c.offset, c.offset + c.bins - 1)]
        into = [np.where(np.arange(bins) == first + 1, first, np.arange(bins)) for first in pairs]
        table = jnp.asarray(np.array(into, np.int32).reshape(-1, bins))
        sought = self.measurement, self.structure, Objective(objective, **options)
        change = np.asarray(_merged_merits(self.templates, table, *sought)) - float(
            _merit(self.templates, *sought).value
        )
        ends = np.cumsum([channel.bins - 1 for channel in self.measurement.channels])
        return dict(zip(self.axes, np.split(change, ends[:-1]), strict=True))

    def merged(self, edges: Mapping[str, Sequence[SupportsFloat]]) -> "TemplateFit":
        """The same fit in coarser bins.

        Args:
            edges: of the regions that change; each one is an edge that is there, the first and last of them, too:
                events outside of the new ones would be lost.

        Raises:
            InputError: there is no such region, or an edge is none of the present ones.
        """
        coarse = dict(self.axes)
        for region, new in edges.items():
            check_known(region, self.axes, "edges", "region")
            coarse[region] = replace(self.axes[region], edges=subset(region, self.axes[region].edges, new))
        layout = Layout(coarse, self.measurement.processes)
        moved = places(self.axes, coarse)
        measured = replace(self.measurement, channels=layout.channels)
        return replace(
            self,
            measurement=measured,
            structure=from_pyhf(skeleton(measured))[0],
            axes=coarse,
            templates=Templates(yields=self.templates.yields @ moved, variance=self.templates.variance @ moved),
            counts=None if self.counts is None else self.counts @ moved,
        )

    @cached_property
    def observed(self) -> Observed:
        """Significance, signal strength and limits (CLs, 95 %) of the data.

        Raises:
            InputError: there are none.
        """
        if self.counts is None:
            raise InputError("data: there are none; give observed histograms by region.")
        merged = in_merged_bins(self.measurement, self.templates)
        model = numbers(self.measurement, self.structure, merged)
        data = jnp.concatenate([self._observations(), auxdata(self.structure, model)])
        model, data = jax.tree.map(np.asarray, (model, data))  # by NumPy, which compiles nothing
        return Observed(
            discovery_significance(self.structure, model, data=data),
            signal_strength_uncertainty(self.structure, model, data=data),
            upper_limits(self.structure, model, data),
        )

    @property
    def workspace(self) -> dict[str, Any]:
        """Of pyhf, with the data, or what is expected without any."""
        model = numbers(self.measurement, self.structure, in_merged_bins(self.measurement, self.templates))
        data = None if self.counts is None else self._observations()
        return to_pyhf(self.structure, model, measurement=self.measurement.name, data=data)

    def _observations(self) -> Float64[Array, " bins"]:
        """The data in the bins of the likelihood."""
        counts = jnp.asarray(self.counts)
        # Data are merged as templates are: as a process of them that nothing varies.
        table = Templates(yields=counts[None, None], variance=counts[None])
        if self.measurement.merges:
            table = merge_bins(table, merged_bins(self.measurement, self.templates))
        return observations(self.measurement, self.structure, table.yields[0, 0])

    def __repr__(self) -> str:
        """A line."""
        measured = self.measurement
        names = ", ".join(dict.fromkeys(each.name for each in measured.nuisances)) or "no uncertainties"
        return f"TemplateFit({', '.join(measured.processes)} in {', '.join(self.axes)}; {measured.poi}; {names})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        totals = np.asarray(self.templates.yields[0])
        rows = [
            (name, *(f"{totals[row, c.offset : c.offset + c.bins].sum():.4g}" for c in self.measurement.channels))
            for row, name in enumerate(self.measurement.processes)
        ]
        return f"<p>{escape(repr(self))}</p>" + html_table(("expected events", *self.axes), rows)


def _merit_of(templates: Templates, measured: Measurement, structure: Structure, objective: Objective) -> Merit:
    return figure_of_merit(objective, structure, numbers(measured, structure, in_merged_bins(measured, templates)))


def _value_of(
    templates: Templates, measured: Measurement, structure: Structure, objective: Objective
) -> tuple[Float64[Array, ""], Merit]:
    merit = _merit_of(templates, measured, structure, objective)
    return merit.value, merit


_merit = hosted(_merit_of, static_argnums=(1, 2, 3))
_value_and_grad = hosted(jax.value_and_grad(_value_of, has_aux=True), static_argnums=(1, 2, 3))


@partial(hosted, static_argnums=(2, 3, 4))
def _merged_merits(
    templates: Templates,
    into: Int32[Array, "mergings bins"],
    measured: Measurement,
    structure: Structure,
    objective: Objective,
) -> Float64[Array, " mergings"]:
    def value(places: Int32[Array, " bins"]) -> Float64[Array, ""]:
        merit = _merit_of(merge_bins(templates, places), measured, structure, objective)
        return jnp.where(merit.converged, merit.value, jnp.nan)

    return jax.lax.map(value, into)
