"""A pyhf workspace, model specification or model → (Structure, Numbers, observed data).

pyhf reads and validates the JSON and says which parameters there are, in which order, with which starts, bounds and
constraints (`pyhf.Model.config`). The numbers are then copied from the JSON as they stand.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import jax
import numpy as np
from jaxtyping import Float64

from pipeline.inference.histfactory.arrays import Array
from pipeline.inference.histfactory.model import (
    Channel,
    Modifier,
    ModifierKind,
    Numbers,
    ParameterSet,
    Structure,
    WidthSource,
    first_parameter,
    modifiers_of,
    target_table,
)
from pipeline.inference.histfactory.validation import validated

if TYPE_CHECKING:
    import pyhf

__all__ = ["from_pyhf"]

# A sample of a channel as it stands in the JSON, with its modifiers keyed by (kind, name).
_Sample = tuple[Mapping[str, Any], dict[tuple[str, str], Mapping[str, Any]]]


def from_pyhf(
    source: Any,
    measurement: str | None = None,
    *,
    patches: Sequence[Any] = (),
    poi: str | None = None,
    modifier_settings: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Structure, Numbers, Float64[Array, " data"] | None]:
    """Take apart a pyhf model into what is static and what may be differentiated.

    Args:
        source: a workspace (`pyhf.Workspace`, or the JSON as a dictionary), a model specification (a dictionary with
            'channels'), or a `pyhf.Model`.
        measurement: which measurement of a workspace; its first one by default.
        patches: JSON patches, or patches of a `pyhf.PatchSet`, applied to the model specification first.
        poi: the parameter of interest, where it is not the measurement's (or, without workspace, not 'mu'); '' for a
            model without one.
        modifier_settings: pyhf's choice of interpolation, such as `{"normsys": {"interpcode": "code1"}}`;
            pyhf's default is code4 for normsys and code4p for histosys.

    Returns:
        The structure, the numbers, and the observed data with the auxiliary data after them. The data are `None`
        where the source has none (a specification or a model).

    Raises:
        pyhf.exceptions.InvalidSpecification: the JSON does not follow pyhf's schema.
        pyhf.exceptions.InvalidModel: the modifiers or the parameters do not fit together.
        pyhf.exceptions.InvalidMeasurement: there is no such measurement.
        ValueError: a model that has no meaning though pyhf accepts it, or that pyhf refuses without saying why; a
            measurement or a parameter of interest that does not exist.

    Warns:
        UserWarning: a modifier stands twice on one sample, and only the last one counts.
    """
    model, workspace = _build(source, measurement, patches, poi, modifier_settings)
    _warn_of_repeated_modifiers(model.spec)
    samples = _samples(model.spec)
    structure = _structure(model, samples)
    _check_shapefactors(structure)
    data = None if workspace is None else _observed(structure, model, workspace)
    return structure, *jax.device_put((_numbers(structure, model, samples), data))


def _build(
    source: Any,
    measurement: str | None,
    patches: Sequence[Any],
    poi: str | None,
    modifier_settings: Mapping[str, Mapping[str, str]] | None,
) -> "tuple[pyhf.Model, pyhf.Workspace | None]":
    # Imported here, because the differentiable core imports this package and works without pyhf.
    import jsonpatch
    import pyhf

    options: dict[str, Any] = {} if modifier_settings is None else {"modifier_settings": dict(modifier_settings)}
    if poi is not None:
        options["poi_name"] = poi
    workspace = None
    if isinstance(source, pyhf.Model):
        options.setdefault("modifier_settings", source.config.modifier_settings)
        options.setdefault("poi_name", source.config.poi_name)
        _check_model(source)
        spec = source.spec
    elif not {"measurements", "observations", "version"}.isdisjoint(source):
        workspace = validated(source)
        _check_measurement(workspace, measurement)
        chosen = workspace.get_measurement(measurement_name=measurement)
        options.setdefault("poi_name", chosen["config"]["poi"])
        spec = {"channels": workspace["channels"], "parameters": chosen["config"]["parameters"]}
    else:
        spec = source
    for patch in patches:
        spec = jsonpatch.JsonPatch(patch).apply(spec)
    if sentence := _incomplete_lumi(spec):
        raise ValueError(sentence)
    try:
        # The schema of a workspace has that of its model in it: once is enough, and takes most of a large one's time.
        return pyhf.Model(spec, validate=workspace is None or bool(patches), **options), workspace
    except pyhf.exceptions.InvalidModel as error:
        raise (_unknown_poi(spec, options.get("poi_name", "mu")) or error) from error
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(_why_there_is_no_model(spec) or f"pyhf cannot build a model of this: {error!r}.") from error


def _check_measurement(workspace: "pyhf.Workspace", name: str | None) -> None:
    names = [measurement["name"] for measurement in workspace["measurements"]]
    if name is not None and name not in names:
        raise ValueError(f"measurement {name!r} is not in the workspace; choose one of {', '.join(names)}.")


def _unknown_poi(spec: Mapping[str, Any], poi: str) -> ValueError | None:
    """A sentence with the names to choose from, which pyhf's own promises and does not give."""
    modifiers = [m for c in spec.get("channels", []) for s in c["samples"] for m in s["modifiers"]]
    names = {m["name"] for m in modifiers}
    if not poi or poi in names:
        return None
    factors = sorted({m["name"] for m in modifiers if m["type"] == "normfactor"})
    return ValueError(
        f"parameter of interest {poi!r} is not a parameter of the model; its normfactors are {', '.join(factors)}."
    )


def _warn_of_repeated_modifiers(spec: Mapping[str, Any]) -> None:
    for channel in spec["channels"]:
        for sample in channel["samples"]:
            keys = [(modifier["type"], modifier["name"]) for modifier in sample["modifiers"]]
            for kind, name in sorted({key for key in keys if keys.count(key) > 1}):
                warnings.warn(
                    f"channel '{channel['name']}', sample '{sample['name']}': {kind} '{name}' stands there "
                    f"{keys.count((kind, name))} times; only the last one counts, as in pyhf.",
                    UserWarning,
                    stacklevel=3,
                )


def _check_model(model: "pyhf.Model") -> None:
    """A model that pyhf was told to change after the JSON is not the model of that JSON."""
    main = model.main_model
    if main.clip_sample_data is not None or main.clip_bin_data is not None:
        raise ValueError("the model clips expected events (clip_sample_data, clip_bin_data), which has no derivative.")
    strangers = {kind for _, kind in model.config.modifiers} - set(get_args(ModifierKind))
    if strangers:
        raise ValueError(f"the model has modifiers of its own kind, which are not known here: {', '.join(strangers)}.")


def _incomplete_lumi(spec: Mapping[str, Any]) -> str | None:
    """A lumi of which the measurement does not say all: pyhf refuses some, and trips over others later."""
    stated = {parameter["name"]: parameter for parameter in spec.get("parameters", [])}
    for channel in spec.get("channels", []):
        for sample in channel.get("samples", []):
            for modifier in sample.get("modifiers", []):
                missing = {"auxdata", "bounds", "inits"} - set(stated.get(modifier.get("name"), {}))
                if modifier.get("type") == "lumi" and missing:
                    return (
                        f"lumi '{modifier['name']}' needs {', '.join(sorted(missing))} in the measurement's parameters."
                    )
    return None


def _why_there_is_no_model(spec: Mapping[str, Any]) -> str | None:
    """A sentence for what pyhf refuses without one."""
    staterrors: dict[str, dict[str, set[str]]] = {}
    for channel in spec["channels"]:
        for sample in channel["samples"]:
            for modifier in sample["modifiers"]:
                name = modifier["name"]
                if modifier["type"] == "staterror":
                    staterrors.setdefault(name, {}).setdefault(sample["name"], set()).add(channel["name"])
    for name, channels in staterrors.items():
        (first, reference), *others = channels.items()
        for sample, those in others:
            if those != reference:
                return (
                    f"staterror '{name}' acts on sample '{first}' in {', '.join(sorted(reference))}, but on sample "
                    f"'{sample}' in {', '.join(sorted(those))}: give each channel a staterror of its own."
                )
    return None


def _observed(structure: Structure, model: "pyhf.Model", workspace: "pyhf.Workspace") -> Float64[np.ndarray, " data"]:
    """The observed data, with the auxiliary data after them."""
    for channel in structure.channels:
        bins = len(workspace.observations.get(channel.name, ()))
        if bins != channel.bins:
            raise ValueError(f"channel '{channel.name}' has {channel.bins} bins, but {bins} observations.")
        if not np.all(np.isfinite(workspace.observations[channel.name])):
            raise ValueError(f"channel '{channel.name}' has an observation that is no finite number.")
    return np.asarray(workspace.data(model), dtype=np.float64)


def _samples(spec: Mapping[str, Any]) -> dict[tuple[str, str], _Sample]:
    """The JSON's samples, keyed by (channel, sample)."""
    return {
        (channel["name"], sample["name"]): (
            sample,
            {(modifier["type"], modifier["name"]): modifier for modifier in sample["modifiers"]},
        )
        for channel in spec["channels"]
        for sample in channel["samples"]
    }


def _structure(model: "pyhf.Model", samples: Mapping[tuple[str, str], _Sample]) -> Structure:
    config = model.config
    stated = {parameter["name"]: parameter for parameter in model.spec.get("parameters", [])}
    kinds = dict(config.modifiers)
    settings = config.modifier_settings
    return Structure(
        channels=tuple(Channel(name=name, bins=int(config.channel_nbins[name])) for name in config.channels),
        samples=tuple(config.samples),
        modifiers=tuple(
            Modifier(name=name, kind=kind, targets=_targets(samples, config, kind, name))
            for name, kind in config.modifiers
        ),
        parameter_sets=tuple(
            _parameter_set(config.param_set(name), kinds[name], stated.get(name, {})) for name in config.par_order
        ),
        poi=config.poi_name,
        # pyhf's own fall-backs, where a setting is left out, are codes 1 and 0 (histfactory's original ones).
        normsys_code=settings.get("normsys", {}).get("interpcode", "code1"),
        histosys_code=settings.get("histosys", {}).get("interpcode", "code0"),
    )


def _targets(
    samples: Mapping[tuple[str, str], _Sample], config: Any, kind: str, name: str
) -> tuple[tuple[str, str], ...]:
    every = [(channel, sample) for channel in config.channels for sample in config.samples]
    return tuple(key for key in every if key in samples and (kind, name) in samples[key][1])


def _parameter_set(pyhf_set: Any, kind: ModifierKind, stated: Mapping[str, Any]) -> ParameterSet:
    derived: WidthSource = kind if kind == "staterror" or kind == "shapesys" else "stated"
    poisson = pyhf_set.constrained and pyhf_set.pdf_type == "poisson"
    width_is_stated = ("factors" if poisson else "sigmas") in stated
    return ParameterSet(
        name=pyhf_set.name,
        scalar=pyhf_set.is_scalar,
        constraint=pyhf_set.pdf_type if pyhf_set.constrained else "none",
        initial=_floats(pyhf_set.suggested_init),
        bounds=tuple((float(low), float(high)) for low, high in pyhf_set.suggested_bounds),
        fixed=None
        if derived != "stated" and "fixed" not in stated
        else tuple(bool(held) for held in pyhf_set.suggested_fixed),
        auxdata=_auxdata(pyhf_set, follows=poisson and "auxdata" not in stated),
        width="stated" if width_is_stated else derived,
    )


def _auxdata(pyhf_set: Any, *, follows: bool) -> tuple[float, ...] | None:
    if not pyhf_set.constrained:
        return ()
    return None if follows else _floats(pyhf_set.auxdata)


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _numbers(structure: Structure, model: "pyhf.Model", samples: Mapping[tuple[str, str], _Sample]) -> Numbers:
    def bins(kind: ModifierKind, part: str | None = None) -> Float64[np.ndarray, "modifiers samples bins"]:
        return _stack(
            structure,
            [
                _table(structure, samples, _reader(kind, modifier.name, part))
                for modifier in modifiers_of(structure, kind)
            ],
        )

    staterror = bins("staterror")
    return Numbers(
        nominal=_table(structure, samples, lambda sample: sample[0]["data"]),
        normsys_lo=_normsys(structure, samples, "lo"),
        normsys_hi=_normsys(structure, samples, "hi"),
        histosys_lo=bins("histosys", "lo_data"),
        histosys_hi=bins("histosys", "hi_data"),
        # One table for all staterrors, unless a sample carries two in the same channel.
        staterror=staterror if _overlapping(structure) else np.sum(staterror, axis=0),
        shapesys=np.sum(bins("shapesys"), axis=1),
        constraint_width=_stated_widths(structure, model),
    )


def _reader(kind: str, name: str, part: str | None) -> Callable[[_Sample], Sequence[float] | None]:
    """What to read from a sample for one modifier: its data, or a part of them; nothing where it does not act."""

    def read(sample: _Sample) -> Sequence[float] | None:
        modifier = sample[1].get((kind, name))
        if modifier is None:
            return None
        values: Sequence[float] = modifier["data"] if part is None else modifier["data"][part]
        return values

    return read


def _table(
    structure: Structure,
    samples: Mapping[tuple[str, str], _Sample],
    read: Callable[[_Sample], Sequence[float] | None],
) -> Float64[np.ndarray, "samples bins"]:
    """One number for each sample and bin; zero where there is nothing to read."""
    table = np.zeros((len(structure.samples), structure.bins))
    start = 0
    for channel in structure.channels:
        for row, name in enumerate(structure.samples):
            sample = samples.get((channel.name, name))
            values = None if sample is None else read(sample)
            if values is not None:
                table[row, start : start + channel.bins] = values
        start += channel.bins
    return table


def _stack(structure: Structure, tables: list[np.ndarray]) -> Float64[np.ndarray, "modifiers samples bins"]:
    return np.array(tables, dtype=np.float64).reshape(len(tables), len(structure.samples), structure.bins)


def _normsys(
    structure: Structure, samples: Mapping[tuple[str, str], _Sample], part: str
) -> Float64[np.ndarray, "normsys samples channels"]:
    modifiers = modifiers_of(structure, "normsys")
    factors = np.ones((len(modifiers), len(structure.samples), len(structure.channels)))
    for i, modifier in enumerate(modifiers):
        for s, c in np.argwhere(target_table(structure, modifier)):
            _, present = samples[structure.channels[c].name, structure.samples[s]]
            factors[i, s, c] = present["normsys", modifier.name]["data"][part]
    return factors


def _overlapping(structure: Structure) -> bool:
    """Whether a sample carries two staterrors in the same channel."""
    targets = [target for modifier in modifiers_of(structure, "staterror") for target in modifier.targets]
    return len(set(targets)) < len(targets)


def _stated_widths(structure: Structure, model: "pyhf.Model") -> Float64[np.ndarray, " parameters"]:
    widths = np.ones(structure.size)
    first = first_parameter(structure)
    for parameter_set in structure.parameter_sets:
        if parameter_set.constraint == "none" or parameter_set.width != "stated":
            continue
        pyhf_set = model.config.param_set(parameter_set.name)
        stated = pyhf_set.factors if parameter_set.constraint == "poisson" else pyhf_set.width()
        widths[first[parameter_set.name] : first[parameter_set.name] + parameter_set.size] = stated
    return widths


def _check_shapefactors(structure: Structure) -> None:
    """A shapefactor has as many parameters as its first channel has bins; pyhf lets another channel have more.

    pyhf multiplies the bins beyond by the first parameter of the model, whatever that is.
    """
    sizes = {parameter_set.name: parameter_set.size for parameter_set in structure.parameter_sets}
    bins = {channel.name: channel.bins for channel in structure.channels}
    for modifier in modifiers_of(structure, "shapefactor"):
        for channel, sample in modifier.targets:
            if bins[channel] > sizes[modifier.name]:
                raise ValueError(
                    f"shapefactor '{modifier.name}' has {sizes[modifier.name]} parameters, but sample '{sample}' in "
                    f"channel '{channel}' has {bins[channel]} bins: give that channel a shapefactor of its own."
                )
