"""What a config names has to exist, and to make sense together: checks that several sections are needed for."""

import difflib
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from pipeline.config.learning import MemberInputs

if TYPE_CHECKING:
    from pipeline.config.run import Config
    from pipeline.config.selection import Cut

__all__ = ["check_calibrations", "check_different", "check_known", "check_networks"]


def check_known(name: str, known: Iterable[str], where: str, what: str, also: Iterable[str] = ()) -> None:
    """What is named has to be there; else the nearest name is told."""
    names = [*known, *also]
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise ValueError(f"{where}: no {what} is called '{name}'; {hint}there are: {', '.join(names) or 'none'}")


def check_different(titles: Mapping[str, str], where: str) -> None:
    """Titles are names in the workspace."""
    for (_, title), (name, other) in combinations(titles.items(), 2):
        if title == other:
            raise ValueError(f"{where}.{name}.title: '{other}' is the title of another one already")


def check_networks(config: "Config") -> None:
    """Learned observables are made of what there is, and used where weights have a derivative."""
    if config.observables and config.optimiser.forward == "smooth":
        raise ValueError("optimiser.forward: smooth has no derivative by the weights of networks; use 'exact'")
    _check_inputs(config)
    _check_uses(config)


def _check_inputs(config: "Config") -> None:
    for name, observable in config.observables.items():
        where = f"observables.{name}"
        if name in config.thresholds or name in config.cuts:
            raise ValueError(f"{where}: a cut has this name; choose another one")
        if not any(region.observable == name for region in config.regions.values()):
            raise ValueError(f"{where}: no region has it as its observable, so nothing would train it")
        for each in observable.inputs:
            if isinstance(each, MemberInputs):
                check_known(each.objects, config.object_sets, f"{where}.inputs", "set")
                known = config.variables_of(config.object_sets[each.objects].of or "")
                for variable in each.variables:
                    check_known(variable, known, f"{where}.inputs: {each.objects}", "variable")
            elif each in config.observables:
                raise ValueError(f"{where}.inputs: '{each}' is learned, too; one network cannot be told of another")
        for process in observable.pretrain.signal if observable.pretrain else ():
            check_known(process, config.processes, f"{where}.pretrain.signal", "process")
        for variation, content in config.variations.items():
            if name in content.weights:
                raise ValueError(f"variations.{variation}.weights: '{name}' is learned and cannot be a weight")


def _check_uses(config: "Config") -> None:
    for name, cut in config.cuts.items():
        cut_on = config.observables.get(cut.variable) if cut.on_events else None
        if cut_on is not None and cut_on.trainable and not cut.trainable:
            raise ValueError(
                f"cuts.{name}: '{cut.variable}' is trained, and a cut on it that stays where it is would bind the "
                "network to one scale; set 'trainable: true', with bounds"
            )
    for name, region in config.regions.items():
        learned = [each for each in config.requirements(name) if each in config.observables]
        if learned:
            raise ValueError(
                f"regions.{name}.require: '{learned[0]}' is learned, and a requirement has no derivative; "
                "cut on it instead"
            )
        if region.bins.place is not None and region.observable not in config.observables:
            raise ValueError(f"regions.{name}.bins.place: '{region.observable}' is not learned; state the edges")


def check_calibrations(config: "Config") -> None:
    """Calibrations scale columns of the file, before anything that is made of these."""
    places = {key for name, cut in config.cuts.items() for key in (name, *cut.thresholds(name))}
    places |= {key for edges in config.moving_edges.values() for key in edges}
    for name, each in config.calibrations.items():
        where = f"calibrations.{name}"
        if name in places or name in config.observables:
            raise ValueError(f"{where}: a cut, an edge or a network has this name; choose another one")
        if each.trainable and config.optimiser.forward == "smooth":
            raise ValueError(f"{where}: optimiser.forward: smooth has no derivative by a calibration; use 'exact'")
        for column in each.scale:
            _check_column(config, where, column)
        for column in (*each.scale, *_followers(config, each.scale)):
            _check_corrections(config, where, column)
    if config.calibrations:
        _check_coincidences(config)


def _followers(config: "Config", scaled: Iterable[str]) -> tuple[str, ...]:
    """Missing momentum, where it follows what is scaled."""
    missing = config.missing_momentum
    follows = missing is not None and any(f"{of}.pt" in scaled for of in missing.of)
    return (missing.pt, missing.phi) if missing is not None and follows else ()


def _check_coincidences(config: "Config") -> None:
    """What crosses several boundaries at once is counted at each of them alone: right for two, too often for three."""
    for of in config.objects:
        cuts = {name: cut for name, cut in config.cuts.items() if of in _collections(config, cut)}
        _refuse_more_than_two(
            (of + "." + cut.variable, place, name) for name, cut in cuts.items() for place in cut.places
        )
    counted = {*config.object_sets, *config.unions}
    ranges = {
        (variable, limit, f"require {variable}: [{asked.min}, {asked.max}]")
        for region in config.regions
        for variable, asked in config.requirements(region).items()
        for limit in (asked.min, asked.max)
        if variable not in counted and limit is not None
    }
    for name, region in config.regions.items():
        cuts = {key: cut for key, cut in config.cuts.items() if cut.on_events and name in (cut.regions or (name,))}
        edges = region.bins.places[1:-1] if region.bins.overflow else region.bins.places
        _refuse_more_than_two(
            {(cut.variable, place, key) for key, cut in cuts.items() for place in cut.places}
            | {(region.observable, edge, f"the bins of {name}") for edge in edges}
            | ranges
        )


def _collections(config: "Config", cut: "Cut") -> set[str | None]:
    return set() if cut.on_events else {config.object_sets[each].of for each in cut.objects}


def _refuse_more_than_two(boundaries: Iterable[tuple[str, float, str]]) -> None:
    at: dict[tuple[str, float], list[str]] = {}
    for variable, place, name in boundaries:
        at.setdefault((variable, place), []).append(name)
    for (variable, place), names in at.items():
        if len(names) > 2:
            raise ValueError(
                f"calibrations: {len(names)} boundaries of '{variable}' lie at {place:g} ({'; '.join(sorted(names))}), "
                "and the derivative would count what crosses them more than once; move all but two, or take them out"
            )


def _check_column(config: "Config", where: str, column: str) -> None:
    of, dot, variable = column.partition(".")
    if dot:
        check_known(of, config.objects, f"{where}.scale", "collection")
        check_known(variable, config.objects[of].variables, f"{where}.scale: objects.{of}.variables", "variable")
    elif column in config.corrections or column in config.observables:
        raise ValueError(f"{where}.scale: '{column}' is made of other columns; scale those")


def _check_corrections(config: "Config", where: str, column: str) -> None:
    of, dot, variable = column.partition(".")
    own, name = (of, variable) if dot else (None, column)
    for key, correction in config.corrections.items():
        if correction.objects == own and name in correction.inputs.values():
            raise ValueError(
                f"{where}: the correction '{key}' is evaluated for '{column}' as it is in the file, and would not "
                "follow; take one of them out"
            )
