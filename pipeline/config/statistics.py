"""What is measured with the events: processes, variations and systematic uncertainties, and the figure of merit."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.model import HomePath, Model

__all__ = ["Correction", "Measurement", "Objective", "Process", "Systematic", "Variation", "VariedTemplates"]


class Process(Model):
    """One sample of the model. `title` is its name in the workspace and in plots."""

    title: str


class Systematic(Model):
    """One constrained nuisance parameter, in cabinetry's terms.

    `normalization`: a fixed relative `size`, or two, `up` and `down` (0.2, -0.1). `norm_plus_shape`: templates of
    varied events, named in `up` and `down`; without `down` the up variation is mirrored about the nominal template
    (normalise first, then mirror). `histosys`: the same templates interpolated bin by bin as they are, yield included,
    where norm_plus_shape takes the yield out and scales it exponentially: what pyhf and ROOT do with a bare histogram
    variation. It acts on all `processes` in all `regions`, or on those that are named. Several of
    the same `title` are one parameter: what they say is fully correlated.
    """

    title: str
    type: Literal["normalization", "norm_plus_shape", "histosys"]
    processes: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    up: float | str | None = None
    down: float | str | None = None
    size: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Systematic":
        if self.type != "normalization":
            if not isinstance(self.up, str) or isinstance(self.down, float) or self.size is not None:
                raise ValueError(f"a {self.type} systematic needs 'up', the name of a variation, and no sizes")
            return self
        if (self.size is None) == (self.up is None):
            raise ValueError("a normalization systematic needs 'size', or 'up' and 'down'")
        if isinstance(self.up, str) or isinstance(self.down, str) or (self.down is None) != (self.up is None):
            raise ValueError("a normalization systematic of two sizes needs numbers: up: 0.2, down: -0.1")
        sizes = self.sizes
        if sizes is not None and min(sizes) <= -1:
            raise ValueError(
                f"a change of the yield by {min(sizes):g} leaves nothing of it; it is relative: 0.2 is 20 %"
            )
        return self

    @property
    def sizes(self) -> tuple[float, float] | None:
        """Relative changes of the yield, up and down; None where templates say them."""
        if self.type != "normalization":
            return None
        if self.size is not None:
            return self.size, -self.size
        assert isinstance(self.up, float)
        assert isinstance(self.down, float)
        return self.up, self.down

    @property
    def variations(self) -> tuple[str | None, str | None]:
        """Names of the varied templates, up and down."""
        up, down = (name if isinstance(name, str) else None for name in (self.up, self.down))
        return up, down


class Correction(Model):
    """A correction of a correctionlib file, evaluated by correctionlib for each object of a collection, or each event.

    It becomes a variable of the collection `objects` (of the events without it), under its key, which weights may name.
    An input is a variable of the same kind, or else a constant.
    """

    file: HomePath
    correction: str
    objects: str | None = None
    inputs: dict[str, str | int | float]


class Variation(Model):
    """How events are varied: a row of numbers over kinematic columns, weights and data sets.

    `scale` multiplies columns (`jet.pt`, or a variable of the events); `resolution` multiplies them by a random factor
    of this width, or by that in the `branch` of the collection, where the file has it; `columns` puts a branch of the
    file in the place of one. `weights` is Σ coefficient · factor, the factor of an event being 1 for `nominal`, a
    variable of the events, a weight of the event function, or a variable of an object: `jet.0.pt` is that of the first
    member of the set `jet` (0 where there is none), `jet.sf` the product over its members. `sample` is the process that
    has a data set of its own for this variation. It acts on all `processes`, or on those that are named.
    """

    scale: dict[str, float] = {}
    resolution: dict[str, Annotated[float, Field(gt=0)]] = {}
    branch: str = "resfac"
    columns: dict[str, str] = {}
    weights: dict[str, float] = {}
    sample: str | None = None
    processes: tuple[str, ...] | None = None

    @property
    def is_kinematic(self) -> bool:
        """Whether it changes columns, so that the selection is made anew."""
        return bool(self.scale or self.resolution or self.columns)

    @property
    def varied_columns(self) -> tuple[str, ...]:
        """What it changes."""
        return tuple(dict.fromkeys((*self.scale, *self.resolution, *self.columns)))

    @model_validator(mode="after")
    def _says_something(self) -> "Variation":
        if self.sample is not None and (self.is_kinematic or self.weights or self.processes):
            raise ValueError("'sample' stands alone: the events of that data set are taken as they are")
        if self.sample is None and not self.is_kinematic and not self.weights:
            raise ValueError("say what varies: 'scale', 'resolution', 'columns', 'weights' or 'sample'")
        return self


class VariedTemplates(Model):
    """What is done about the noise of varied templates, which few simulated events may have made; nothing by default.

    `smoothing`: the ratio of varied to nominal template becomes a local straight line, with a Gaussian kernel of this
    width, in each region; its change of the yield is kept. 1 to 2 bins are usual, 0 is none. `pruning`: shapes and
    changes of the yield below this are left out, region by region: 0.005 is half a per cent, 0 is none. `uncertainty`:
    the statistical error of each variation joins that of the nominal templates in the constraints of `mc_statistics`.
    """

    smoothing: Annotated[float, Field(ge=0, le=100)] = 0.0
    pruning: Annotated[float, Field(ge=0, lt=1)] = 0.0
    uncertainty: bool = False


class Measurement(Model):
    """Parameter of interest and what it scales.

    `poi` scales the processes in `signal`; `free` maps further processes to the names of free norm factors. Bins with
    fewer effective simulated background events, (Σw)²/Σw², than `minimum_effective_events`, or with fewer expected
    background events than `minimum_background`, are merged with their neighbours; 0 leaves all bins as they are.
    `mc_statistics`: the constraint of the finite number of simulated events is Gaussian, one in each bin for the total
    (pyhf's staterror), or Poisson, one for each process and bin (a shapesys: better where few events were simulated);
    with `none` the templates are taken to be exact. `variations` say what is done about that of varied templates.
    `data` are what the workspace of a run calls observed: what the model expects (asimov), or templates mixed as
    `pseudodata` says, {process: {variation: share}}. What is tuned is always what is expected.
    """

    name: str
    poi: str
    signal: tuple[str, ...]
    free: dict[str, str] = {}
    bounds: tuple[float, float] = (0.0, 10.0)
    minimum_effective_events: Annotated[float, Field(ge=0)] = 10.0
    minimum_background: Annotated[float, Field(ge=0)] = 0.0
    mc_statistics: Literal["gaussian", "poisson", "none"] = "gaussian"
    variations: VariedTemplates = VariedTemplates()
    data: Literal["asimov", "pseudodata"] = "asimov"
    pseudodata: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _data_are_defined(self) -> "Measurement":
        if self.data == "pseudodata" and not self.pseudodata:
            raise ValueError(
                "data: pseudodata needs 'pseudodata', which says what they are made of, "
                "such as {ttbar: {ME_var: 0.5, PS_var: 0.5}}"
            )
        return self

    @model_validator(mode="after")
    def _errors_have_a_constraint(self) -> "Measurement":
        if self.variations.uncertainty and self.mc_statistics == "none":
            raise ValueError(
                "variations.uncertainty: the errors of variations join those of mc_statistics, which is none; set it "
                "to gaussian or poisson, or leave 'uncertainty' out"
            )
        return self


class Objective(Model):
    """What is maximised (a significance) or minimised (an uncertainty, a limit).

    `method` and `confidence_level` are those of the upper limit.
    """

    name: Literal[
        "discovery_significance", "signal_strength_uncertainty", "expected_upper_limit", "counting_significance"
    ] = "discovery_significance"
    method: Literal["CLs", "CLs+b"] = "CLs"
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
