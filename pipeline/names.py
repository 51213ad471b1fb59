"""The names of a run: what cuts, regions and weights may refer to, and where it comes from.

A variable of the events is a branch of the file, a number of members (`n_jet`), or made by the event function. The
event function is asked once, with an event without objects, before anything is read, so that a misspelt name is told in
a second.
"""

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline.config import Config, ConfigError
from pipeline.errors import PipelineError
from pipeline.events.batch import Event, HostEvent, Prepared
from pipeline.events.cuts import EVENT, ObjectSet, Selection, Union
from pipeline.events.function import Sets, call

__all__ = ["Names", "check_unused", "load_event_function", "names_of", "object_sets"]


@dataclass(frozen=True)
class Names:
    """What a config may refer to.

    Attributes:
        function: the event function.
        branches: variables of the events that are branches of the file, by our names.
        made: variables of the events that the event function makes, and those that are learned.
        weights: factors that it makes.
        counts: numbers of members.
        asked: variables of the events that the config names.
        read: variables of each collection that something reads after the event function has prepared.
    """

    function: object
    branches: dict[str, str]
    made: tuple[str, ...]
    weights: tuple[str, ...]
    counts: tuple[str, ...]
    asked: frozenset[str]
    read: dict[str, frozenset[str]]

    @property
    def known(self) -> tuple[str, ...]:
        """All that needs no branch."""
        return (*self.made, *self.weights, *self.counts)


def names_of(config: Config, function: object | None = None) -> Names:
    """The names of a config; `function` is its event function, where it is no name.

    Raises:
        ConfigError: the event function cannot be loaded, or fails, or an object variable that is cut on is not known.
    """
    function = load_event_function(config.event_function) if function is None else function
    wanted = dict.fromkeys(_wanted(config))
    columns = {**config.event_variables, **{name: name for name in wanted if name not in config.event_variables}}
    made, weights, of_objects, used = _asked(config, function, columns)
    counts = [f"n_{name}" for name in (*config.object_sets, *config.unions)]
    corrections = [name for name, each in config.corrections.items() if each.objects is None]
    clash = sorted({*config.event_variables, *corrections} & {*made, *counts})
    if clash:
        raise ConfigError(f"event_variables.{clash[0]}: is also what the event function makes; choose another name")
    clash = sorted(set(config.observables) & {*config.event_variables, *corrections, *made, *counts, *weights})
    if clash:
        raise ConfigError(f"observables.{clash[0]}: there is another variable of this name; choose another one")
    _check_object_variables(config, of_objects)
    for each in config.corrections.values():
        if each.objects is None:
            wanted |= dict.fromkeys(value for value in each.inputs.values() if value in config.event_variables)
    for name, variation in config.variations.items():
        for column in variation.varied_columns:
            if column in (*made, *counts, *config.observables):
                raise ConfigError(
                    f"variations.{name}: '{column}' is made from other columns, so it cannot be varied by itself; vary "
                    "those, or give it as a weight"
                )
    _check_calibrations(config, function, (*made, *weights, *counts))
    needless = {*made, *weights, *counts, *corrections, *config.observables}
    branches = config.event_variables | {
        name: name for name in wanted if name not in needless and name not in config.event_variables
    }
    inputs = (value for each in config.corrections.values() for value in each.inputs.values())
    asked = frozenset(wanted) | {value for value in inputs if isinstance(value, str)}
    read = {name: _read(config, name, used) for name in config.objects}
    return Names(function, branches, (*made, *config.observables), weights, tuple(counts), asked, read)


@cache
def load_event_function(name: str | None) -> object:
    """The event function behind a dotted path (of a module, or of something in one), or in a Python file.

    Raises:
        ConfigError: there is none.
    """
    if name is None:
        return object()
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"event_function_{Path(name).stem}", name)
            if spec is None or spec.loader is None:
                raise ConfigError(f"event_function: {name} is no Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            return module
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            parent, _, attribute = name.rpartition(".")
            if error.name != name or not parent:
                raise
            found = getattr(importlib.import_module(parent), attribute)
            return found() if isinstance(found, type) else found
    except (ImportError, AttributeError, FileNotFoundError, SyntaxError) as error:
        raise ConfigError(
            f"event_function: '{name}' cannot be loaded ({type(error).__name__}: {error}); give a Python file, or the "
            "dotted path of a module"
        ) from None


def object_sets(config: Config) -> tuple[tuple[ObjectSet, ...], tuple[Union, ...]]:
    """The sets and unions of a config, for the engine."""
    sets = tuple(ObjectSet(name, each.of or "", each.within) for name, each in config.object_sets.items())
    return sets, tuple(Union(name, parts) for name, parts in config.unions.items())


def _wanted(config: Config) -> Iterable[str]:
    """Variables of the events that the config names."""
    sets = {*config.object_sets, *config.unions}
    yield from (cut.variable for cut in config.cuts.values() if cut.on_events)
    for name, region in config.regions.items():
        yield from (each for each in config.requirements(name) if each not in sets)
        yield region.observable
    for observable in config.observables.values():
        yield from (each for each in observable.inputs if isinstance(each, str))
    for calibration in config.calibrations.values():
        yield from (column for column in calibration.scale if "." not in column)
    for variation in config.variations.values():
        yield from (factor for factor in variation.weights if factor != "nominal" and "." not in factor)
        yield from (column for column in variation.varied_columns if "." not in column)


def _read(config: Config, collection: str, used: Collection[tuple[str, str]]) -> frozenset[str]:
    """Variables of a collection that cuts, networks, weights or the event function look at; one says who is there.

    Calibrations change what has been prepared, by whatever it was made of.
    """
    variables = config.variables_of(collection)
    members = (each for own in config.observables.values() for each in own.inputs if not isinstance(each, str))
    named = {"pt" if "pt" in variables else variables[0], *(cut.variable for cut in config.cuts.values())}
    named |= {variable for each in members for variable in each.variables}
    named |= {factor.rpartition(".")[2] for own in config.variations.values() for factor in own.weights}
    return frozenset(name for name in variables if config.calibrations or name in named or (collection, name) in used)


def _asked(
    config: Config, function: object, columns: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str, ...]], set[tuple[str, str]]]:
    """Names of what the event function makes: variables of events, weights, and variables of objects.

    And those variables of objects, with their collections, that it computes with after it has prepared.
    """
    absent = {name: {v: np.full((2, 1), np.nan) for v in config.variables_of(name)} for name in config.objects}
    empty = {name: np.full(1, np.nan) for name in columns}
    sets, unions = object_sets(config)
    names: dict[str, Any] = {}

    def trace(objects: Any, values: Any, table: Any) -> Any:
        number = jnp.zeros((), jnp.int32)
        event = Event(
            objects=objects,
            columns=values,
            weight=jnp.ones(1, jnp.float32),
            collision=jnp.zeros(1, jnp.int32),
            prepared=Prepared(table=table, first=number, rows=number),
        )
        selected = Sets(Selection(sets, unions, (), ()), event, {each.name: jnp.zeros(1, jnp.uint32) for each in sets})
        made, weights = (call(function, name, event, selected) for name in ("variables", "weights"))
        of_objects = call(function, "object_variables", event, selected)
        names.update(made=tuple(made), weights=tuple(weights))
        names["objects"] = {name: tuple(variables) for name, variables in of_objects.items()}
        return made, weights, of_objects

    try:
        prepared = call(function, "prepare", HostEvent(absent, empty))
        table = {name: np.zeros((1, 1), np.asarray(column).dtype) for name, column in prepared.items()}
        program = jax.make_jaxpr(trace)(*jax.tree.map(_single, (absent, empty)), jax.tree.map(jnp.asarray, table)).jaxpr
    except KeyError as error:
        raise ConfigError(
            f"event_function: asks for {error.args[0]!r}, which the config does not define; it has the sets "
            f"{', '.join(config.object_sets) or 'none'} and the event_variables {', '.join(columns) or 'none'}"
        ) from error
    except PipelineError:
        raise
    except Exception as error:
        raise ConfigError(
            f"event_function: fails for an event without objects ({type(error).__name__}: {error}); it has to work for "
            "such events, too, since they fill up the arrays"
        ) from error
    read = {id(each) for step in program.eqns for each in step.invars} | {id(each) for each in program.outvars}
    places = [(place[0].key, place[1].key) for place, _ in jax.tree_util.tree_leaves_with_path(absent)]
    used = {place for place, column in zip(places, program.invars, strict=False) if id(column) in read}
    return names["made"], names["weights"], names["objects"], used


def _single(column: Any) -> jax.Array:
    return jnp.asarray(column, jnp.float32)


def check_unused(name: str, column: str, formulas: Iterable[str | None]) -> None:
    """No formula that is evaluated when events are read holds a column that a calibration scales afterwards.

    Raises:
        ConfigError: one does.
    """
    for formula in formulas:
        if formula is not None and re.search(rf"(?<!\w){re.escape(column)}(?!\w)", formula):
            raise ConfigError(
                f"calibrations.{name}.scale: '{column}' is in '{formula}', which is evaluated when events are read and "
                "would not follow; take it out of one of them"
            )


def _check_calibrations(config: Config, function: object, computed: Iterable[str]) -> None:
    """No calibration scales what is made, nor leaves behind what has been prepared."""
    follows = getattr(function, "FOLLOWS", ()) if hasattr(function, "prepare") else None
    for name, calibration in config.calibrations.items():
        for column in calibration.scale:
            if column in computed:
                raise ConfigError(
                    f"calibrations.{name}.scale: '{column}' is made from other columns; scale those of the file"
                )
            check_unused(name, column, (*config.data.require, config.data.weights))
            if follows is not None and column not in follows:
                raise ConfigError(
                    f"calibrations.{name}.scale: the event function prepares what it needs of '{column}' before any "
                    "calibration, and does not say that its variables follow (FOLLOWS); take the column out"
                )


def _check_object_variables(config: Config, of_objects: Mapping[str, tuple[str, ...]]) -> None:
    """Every variable that a cut on objects names is there."""
    for name, cut in config.cuts.items():
        for each in () if EVENT in cut.objects else cut.objects:
            collection = config.object_sets[each].of or ""
            known = (*config.variables_of(collection), *of_objects.get(collection, ()))
            if cut.variable not in known:
                near = difflib.get_close_matches(cut.variable, known, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise ConfigError(
                    f"cuts.{name}.variable: neither objects.{collection}.variables nor the event function has "
                    f"'{cut.variable}'; {hint}there are: {', '.join(known)}"
                )
