"""The report of a run as one HTML file: no network, no script, light and dark, phone and print.

It says first what was gained and whether that is significant; then come the cuts, the pictures with their captions,
and, for whoever wants to repeat it, configuration, versions and checksums, all from `result.json`. The page itself is
the template `report.html.j2`; here is what it is filled with.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from pipeline.display import side_by_side
from pipeline.validation.comparison import Estimate
from pipeline.validation.crosscheck import advice
from pipeline.validation.varied import in_a_sentence
from pipeline.validation.working_points import in_words

__all__ = ["Illustration", "page"]


@dataclass(frozen=True)
class Illustration:
    """A picture as SVG text, with its title and caption."""

    name: str
    title: str
    caption: str
    svg: str

    @property
    def drawing(self) -> str:
        """The picture as a part of the page."""
        return inline(self)


TERMS = {
    "Z": "The expected discovery significance: how many standard deviations the data would lie away from 'no signal', "
    "if the signal is what the simulation says. It is computed on the Asimov data set: the expectation, without "
    "fluctuation.",
    "σ(μ)": "The expected uncertainty of the measured signal strength μ; μ = 1 is the predicted cross section.",
    "training, validation": "Two disjoint parts of the events, chosen by a hash of the event number. The optimiser "
    "sees the training part only. What it gains there is partly luck; the claim is the gain on the validation part.",
    "±": "One standard deviation by the finite number of simulated events, from bootstrap replicas of the sample. The "
    "error of a change is smaller than the two errors suggest, because both values share the same events.",
}


PARTS = {
    "cross-validation": "every event with cuts that were tuned on others",
    "validation": "events not seen by the optimiser",
    "training": "events of the optimisation",
}


def page(
    result: Mapping[str, Any],
    *,
    title: str,
    symbol: str,
    illustrations: Sequence[Illustration],
    warnings: Sequence[str],
    configuration: str,
    poi: str,
) -> str:
    """The whole page.

    Args:
        result: the content of result.json.
        title: of the run.
        symbol: of the figure of merit.
        illustrations: in their order.
        warnings: what the reader must know before believing anything.
        configuration: as YAML text.
        poi: the parameter of interest in the workspaces.
    """
    return _template().render(
        title=title,
        symbol=symbol,
        origin="Simulated events" if result["simulated"] else result["origin"],
        verdict=result["verdict"],
        cards=_cards(result, symbol),
        remarks=[*remarks(result, symbol), *warnings],
        tuned=_tuned(result),
        fixed=_fixed(result),
        folds=_folds(result),
        working_points=_working_points(result, symbol),
        variations=_variations(result),
        illustrations=illustrations,
        terms=TERMS,
        advice=advice(poi),
        seed=result["seed"],
        config_sha256=result["config_sha256"],
        datasets=result["data"],
        versions=[*result["environment"].items(), *((name, f"{t:.1f} s") for name, t in result["seconds"].items())],
        configuration=configuration,
    )


@cache
def _template() -> Template:
    text = files("pipeline.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(text)


def remarks(result: Mapping[str, Any], symbol: str) -> list[str]:
    """What the numbers themselves say against a careless reading."""
    sentences = [*result["verdict"]["doubts"], *result["verdict"]["hints"]]
    training, claim = result["compared"]["training"], _claim(result)
    if _gain(training, result) > 0 and _gain(claim, result) < 0.5 * _gain(training, result):
        sentences.append(
            "Most of the gain on training events is not there on held-out events: the cuts were tuned to the sample, "
            "not to the physics. More simulated events, fewer steps or fewer cuts help."
        )
    unclear = _without_clear_gradient(result)
    if unclear:
        sentences.append(
            f"Never a derivative clearly different from zero: {', '.join(unclear)}. The simulated events do not say "
            "where these thresholds should be, so they were not moved."
        )
    ends = [f"{name} ({cut['at_bound']})" for name, cut in result["thresholds"].items() if cut["at_bound"]]
    if ends:
        sentences.append(f"At the end of the allowed range: {', '.join(ends)}. A wider range might give more.")
    merged = result["merged_bins"]
    if merged["before"] or merged["after"]:
        least = f"{merged['minimum_effective_events']:g} effective simulated background events"
        if merged["minimum_background"]:
            least += f" or {merged['minimum_background']:g} expected ones"
        sentences.append(
            f"Bins that the likelihood does not see alone, because they have fewer than {least}: {merged['before']} "
            f"with the default cuts, {merged['after']} with the optimised ones. They are merged with their neighbours."
        )
    value = result["fit"]["after"]["value"]
    if symbol == "Z" and value > _NO_P_VALUE:
        sentences.append(
            f"Z = {value:.0f} is a measure of separation, not of a probability: no p-value exists that far out, and "
            "systematic uncertainties are not known to so many standard deviations."
        )
    return sentences


_NO_P_VALUE = 38
"""Beyond, the p-value of a standard normal underflows in double precision."""


def _claim(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was gained on events that no thresholds were tuned on: all events with folds, else the validation events."""
    compared = result["compared"]
    claim: Mapping[str, Any] = compared.get("cross-validation", compared["validation"])
    return claim


def _without_clear_gradient(result: Mapping[str, Any]) -> list[str]:
    least = result["significance_of_gradients"]
    gradients = {name: cut["gradient"] for name, cut in result["thresholds"].items() if cut["gradient"] is not None}
    return [name for name, gradient in gradients.items() if gradient["largest_pull"] < least]


def _gain(compared: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """The change, positive if it is an improvement."""
    change = float(compared["change"]["value"])
    return change if result["larger_is_better"] else -change


def _cards(result: Mapping[str, Any], symbol: str) -> list[dict[str, str]]:
    """What was gained on each part of the events, and what pyhf says."""
    cards = []
    for part, text in PARTS.items():
        if part in result["compared"]:
            before, after, change = (result["compared"][part][when] for when in ("before", "after", "change"))
            values = f"{_estimate(before)} → {_estimate(after)}"
            cards.append(_card(f"{symbol}, {text}", values, f"change {_estimate(change, '+')}"))
    is_uncertainty = symbol == "σ(μ)"
    quantity = "signal_strength_uncertainty" if is_uncertainty else "discovery_significance"
    checks = [result["pyhf"][name][quantity] for name in ("before", "after")]
    numbers = " → ".join("no result" if number is None else f"{number:.4f}" for number in checks)
    shown = symbol if is_uncertainty else "Z"
    return [*cards, _card(f"{shown} by pyhf alone", numbers, "from workspaces of events not seen by the optimiser")]


def _card(quantity: str, value: str, more: str) -> dict[str, str]:
    return {"quantity": quantity, "value": value, "more": more}


def _tuned(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each cut that was tuned."""
    rows = []
    sign = -1 if result["larger_is_better"] else 1
    for name, cut in result["thresholds"].items():
        if cut["trainable"]:
            values = (f"{cut[when]:.4g} {cut['unit']}" for when in ("before", "after"))
            change, slope = f"{cut['after'] - cut['before']:+.3g} {cut['unit']}", cut["gradient"]
            per_unit = _estimate({"value": sign * slope["value"], "error": slope["error"]}, "+")
            lost = result["importance"].get(name)
            rows.append((name, *values, change, "" if lost is None else _estimate(lost, "+"), per_unit))
    return rows


def _fixed(result: Mapping[str, Any]) -> list[str]:
    fixed = {name: cut for name, cut in result["thresholds"].items() if not cut["trainable"]}
    return [f"{name} {cut['after']:g} {cut['unit']}".strip() for name, cut in fixed.items()]


def _folds(result: Mapping[str, Any]) -> dict[str, Sequence[Sequence[str]]] | None:
    if not result["folds"]:
        return None
    names = [name for name, cut in result["thresholds"].items() if cut["trainable"]]
    header, rows = side_by_side(names, result["folds"])
    return {"header": header, "rows": rows}


def _working_points(result: Mapping[str, Any], symbol: str) -> dict[str, Any] | None:
    """A row for each working point; what is held, and where the optimum is."""
    points = result["working_points"]
    if points is None:
        return None
    rows, units = [], {name: cut["unit"] for name, cut in result["thresholds"].items()}
    for point in points["points"]:
        moved = [f"{name} {_estimate(shift, '+')} {units[name]}".rstrip() for name, shift in point["moved"].items()]
        gain = "" if point["gain"] is None else _estimate(point["gain"], "+")
        values = f"{point['merit']:.4f}", f"{point['merit'] - points['merit']:+.2g}"
        rows.append((in_words(point["name"], point["factor"]), *values, ", ".join(moved) or point["reason"], gain))
    return {
        "header": ("if", f"{symbol}, same cuts", "change", "the optimum moves by", "gained by moving"),
        "rows": rows,
        "merit": f"{points['merit']:.4f}",
        "optimum": [f"{name} {_estimate(place)} {units[name]}".rstrip() for name, place in points["optimum"].items()],
        "held": [f"{name} ({why})" for name, why in points["held"].items()],
    }


def _variations(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row for each systematic uncertainty with varied templates, and what was done about their noise."""
    about = result["variations"]
    if about is None:
        return None
    rows = []
    for name, each in about["systematics"].items():
        error, of = each["relative_error"], each["templates"]
        left_out = (f"{each[key]} of {of}" for key in ("shapes_pruned", "yields_pruned"))
        rows.append((name, "no effect" if error is None else f"{error:.2g}", *left_out))
    header = ("systematic uncertainty", "statistical error / size", "shapes left out", "changes of the yield left out")
    return {"header": header, "rows": rows, "sentence": in_a_sentence(about)}


def inline(illustration: Illustration) -> str:
    """The SVG element alone, drawn in the colour of the text, with ids of its own and a name for a screen reader."""
    start = illustration.svg.index("<svg")
    svg = re.sub(r"<metadata>.*?</metadata>", "", illustration.svg[start:], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    # Several SVG drawings share the names of one page.
    svg = re.sub(r'\bid="', f'id="{illustration.name}-', svg)
    svg = re.sub(r'href="#', f'href="#{illustration.name}-', svg).replace("url(#", f"url(#{illustration.name}-")
    svg = re.sub(r"#000000\b", "currentColor", svg)
    # Matplotlib leaves text without a fill, which means black.
    name = f'role="img" aria-label="{escape(illustration.title)}"'
    svg = svg.replace("<svg ", f'<svg style="--readable: {_readable(svg)}px" {name} fill="currentColor" ', 1)
    return re.sub(r' xmlns:\w+="[^"]*"', "", svg).replace("xlink:href", "href")


def _readable(svg: str) -> int:
    """The width in pixels below which a phone scrolls a drawing, whose text would be too small otherwise."""
    box = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    return round(0.75 * float(box[1])) if box else 0


def _estimate(estimate: Mapping[str, float], options: str = "") -> str:
    # A number and its error stay on one line.
    return format(Estimate(estimate["value"], estimate["error"]), options).replace(" ", "\N{NO-BREAK SPACE}")
