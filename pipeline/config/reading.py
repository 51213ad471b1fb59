"""From a file, and `--set`, to a checked configuration.

A file may start from another one (`extends: agc.yaml`); mappings are merged key by key, everything else is replaced,
and `null` takes out what the other file says (`processes: {single_top_tW: null}`).
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config.explained import models_in
from pipeline.config.model import ConfigError
from pipeline.config.run import Config
from pipeline.config.selection import SET, UNION
from pipeline.yaml_file import YamlError, parsed_yaml

__all__ = ["checked", "load_config", "parse_settings"]

PATHS = (
    ("data", "manifest"),
    ("data", "cache"),
    ("data", "certified"),
    ("data", "table"),
    ("data", "tables", "*"),
    ("data", "tables", "*", "files"),
    ("corrections", "*", "file"),
    ("observables", "*", "network", "file"),
)
"""Keys whose values are files, or lists of them."""

MANIFEST = "data_manifest.yaml"


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and check a configuration; paths in it count from the folder of the file that states them.

    Raises:
        ConfigError: with the file, the dotted key, what was found and what is allowed.
    """
    path = Path(path).expanduser()
    raw = _merge(_read(path), overrides or {})
    _place_manifest(raw, path.parent)
    return checked(raw, f"{path}: ")


def checked(raw: Mapping[str, Any], where: str = "") -> Config:
    """A configuration from what a file would say.

    Raises:
        ConfigError: the first problem, with `where` in front of it.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}{_sentence(error)}") from None


def _place_manifest(raw: dict[str, Any], folder: Path) -> None:
    """Where the config does not name a manifest, it is the one beside it, or in the folder above."""
    data = raw.setdefault("data", {})
    if isinstance(data, dict) and "manifest" not in data:
        places = [folder / MANIFEST, folder.parent / MANIFEST]
        data["manifest"] = str(next((place for place in places if place.exists()), places[0]).resolve())


def parse_settings(settings: Sequence[str]) -> dict[str, object]:
    """`a.b=1` to {"a": {"b": 1}}, as `load_config` takes it; the value is read as YAML.

    Raises:
        ConfigError: a setting is no KEY=VALUE, is set twice, or is not YAML.
    """
    overrides: dict[str, object] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, for example --set optimiser.steps=100")
        *parents, last = key.split(".")
        place: dict[str, object] = overrides
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {parent} is set twice")
            place = inner
        try:
            place[last] = parsed_yaml(value)
        except YamlError as error:
            raise ConfigError(f"--set {setting}: {error}; quote or mend the value") from None
    return overrides


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'extends' leads back to this file; remove the circle")
    try:
        raw = parsed_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.yaml")], n=1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path given to --config"
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
    except YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else repr(raw)[:60]
        raise ConfigError(f"{path}: expected settings in the form 'key: value', found {found}")
    for keys in PATHS:
        _make_absolute(raw, keys, path.parent)
    function = raw.get("event_function")
    if isinstance(function, str) and function.endswith(".py"):
        raw["event_function"] = str((path.parent / Path(function).expanduser()).resolve())
    base = raw.pop("extends", None)
    return raw if base is None else _merge(_read(path.parent / Path(base).expanduser(), (*seen, path.resolve())), raw)


def _make_absolute(raw: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Let a path, if there is one behind these keys, count from a folder."""
    first, *rest = keys
    for key in raw if first == "*" else [first]:
        value = raw.get(key)
        if rest and isinstance(value, dict):
            _make_absolute(value, rest, folder)
        elif not rest and isinstance(value, str):
            raw[key] = _absolute(value, folder)
        elif not rest and isinstance(value, list):
            raw[key] = [_absolute(each, folder) if isinstance(each, str) else each for each in value]


def _absolute(path: str, folder: Path) -> str:
    return path if "://" in path else str((folder / Path(path).expanduser()).resolve())


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if value is None and old is not None:
            del merged[key]
            continue
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _sentence(error: ValidationError) -> str:
    """The first problem as `dotted.key: what is wrong`, with the nearest known key for a misspelt one."""
    problems = error.errors()
    # A misspelt key often leaves the right one missing: name the misspelt one.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [part for part in first["loc"] if part not in (SET, UNION)]
    where = ".".join(str(part) for part in location)
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        if first["input"] is None and first["type"] != "value_error":
            message = "has no value here, and no config that this one extends says any; give one, or remove the line"
        elif first["type"] in ("model_type", "model_attributes_type", "dict_type"):
            message = f"expected settings in the form 'key: value', found {first['input']!r}"
        return f"{where}: {message}" if where else message
    nearest = difflib.get_close_matches(str(location[-1]), _keys_beside(location), n=1, cutoff=0.5)
    return f"{where}: unknown key; " + (f"did you mean '{nearest[0]}'?" if nearest else "remove it")


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """The keys allowed where the unknown one stands, found by walking down the models; a list or mapping is passed."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if part in model.model_fields:
            model = next(models_in(model.model_fields[str(part)].annotation), model)
    return list(model.model_fields)
