"""What every key of a config means, from the models themselves: `--explain cuts.jet_pt.bandwidth`."""

import difflib
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pipeline.config.model import ConfigError
from pipeline.config.run import Config

__all__ = ["explained", "models_in"]

UNITS = {
    "luminosity": "1/pb",
    "energy": "TeV",
    "threshold": "that of the cut's variable",
    "between": "that of the cut's variable",
    "bounds": "that of the threshold; of measurement.bounds: none, a signal strength",
    "bandwidth": "that of the threshold",
    "bandwidth_end": "that of the threshold",
    "step": "that of the threshold",
    "start": "that of the observable",
    "stop": "that of the observable",
    "edges": "that of the observable",
    "min_width": "that of the observable",
    "learning_rate": "steps of each threshold",
    "clip": "change of the figure of merit by one step of each threshold",
    "significance": "statistical errors",
    "fraction": "share of the events",
    "stopping": "share of the events",
    "size": "relative: 0.2 is 20 %",
    "up": "relative, where it is a number: 0.2 is 20 %",
    "down": "relative, where it is a number: -0.1 is -10 %",
    "minimum_effective_events": "effective simulated events",
    "minimum_background": "expected events",
    "smoothing": "bins",
    "pruning": "relative: 0.005 is 0.5 %",
}
"""Of the keys that are numbers and have one; the others are counts, shares or none."""


def explained(key: str) -> str:
    """A key, its type, unit and default, and what its section says of it; of a section, all of its keys.

    Args:
        key: dotted, as in an error; names of one's own (`jet_pt` in `cuts.jet_pt`) may be any. Empty for all sections.

    Raises:
        ConfigError: there is no such key.
    """
    model: type[BaseModel] = Config
    place: list[str] = []
    parts = [part for part in key.split(".") if part]
    while parts:
        name = parts.pop(0)
        if name not in model.model_fields:
            near = difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(f"{key}: no key '{name}'; {hint}there are: {', '.join(model.model_fields)}")
        place.append(name)
        annotation: Any = model.model_fields[name].annotation
        inside = next(models_in(annotation), None)
        if inside is None:
            return _of_key(".".join(place), model, name)
        if parts and _is_mapping(annotation):
            place.append(parts.pop(0))
        if not parts:
            return _of_section(".".join(place), inside)
        model = inside
    return _of_section("", model)


def _of_section(place: str, model: type[BaseModel]) -> str:
    title = [f"{place}: {_text(model)}" if place else _text(model), ""]
    return "\n".join([*title, *(_row(name, model) for name in model.model_fields)])


def _of_key(place: str, model: type[BaseModel], name: str) -> str:
    """Sentences of the model that name the key follow its row."""
    home = next(each for each in model.__mro__ if name in vars(each).get("__annotations__", {}))
    sentences = re.split(r"(?<=\.) ", _text(home))
    said = [each for each in sentences if re.search(rf"\b{re.escape(name)}\b", each.replace("`", " "))]
    return "\n".join([_row(place, model, name), *said]) if said else f"{_row(place, model, name)}\n{_text(home)}"


def _row(shown: str, model: type[BaseModel], name: str | None = None) -> str:
    field = model.model_fields[name or shown]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    stated = "needed" if field.is_required() else f"default: {'none' if default in (None, '') else default}"
    unit = UNITS.get(name or shown)
    return f"  {shown}  ({_type(field.annotation)}; {stated}{f'; unit: {unit}' if unit else ''})"


def _text(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _type(annotation: Any) -> str:
    """As a user would say it."""
    if annotation is type(None):
        return "nothing"
    if isinstance(annotation, type) and not get_args(annotation):
        words = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Path": "path"}
        return words.get(annotation.__name__, annotation.__name__)
    arguments = [each for each in get_args(annotation) if each is not type(None) and each is not Ellipsis]
    if arguments and all(isinstance(each, str) for each in arguments):
        return " | ".join(arguments)
    kinds = list(dict.fromkeys(_type(each) for each in arguments if not _is_detail(each)))
    match get_origin(annotation):
        case origin if origin is dict:
            return f"by name: {kinds[-1]}"
        case origin if origin is tuple:
            return f"list of {', '.join(kinds)}"
    return " or ".join(kinds)


def _is_detail(annotation: Any) -> bool:
    """A validator or a limit beside the type in an `Annotated`."""
    return not (isinstance(annotation, type | str) or get_origin(annotation) is not None or get_args(annotation))


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_mapping(each) for each in get_args(annotation))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)
