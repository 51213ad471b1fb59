"""The report of a run as one HTML file: no network, no script, light and dark, phone and print.

It says first what was gained and whether that is significant; then come the cuts, the pictures with their captions,
and, for whoever wants to repeat it, configuration, versions and checksums, all from `result.json`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.report.rounding import with_error

__all__ = ["Illustration", "page"]


@dataclass(frozen=True)
class Illustration:
    """A picture as SVG text, with its title and caption."""

    name: str
    title: str
    caption: str
    svg: str


STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5c5f66; --paper: #ffffff; --card: #f4f5f7; --line: #d9dbe0;
  --accent: #2457c5; --good: #1d7a3a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ec; --soft: #a4a7b0; --paper: #16171b; --card: #212329;
  --line: #3a3d45; --accent: #8fb4ff; --good: #6fcf8d; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .6rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h2, h3 { break-after: avoid; }
p, figcaption, li { max-width: 46rem; }
a { color: var(--accent); }
.badge { display: inline-block; padding: .1rem .6rem; border: 1px solid var(--line); border-radius: 1rem;
  font-size: .85rem; color: var(--soft); }
.verdict { font-size: 1.15rem; border-left: .3rem solid var(--line); padding: .2rem 0 .2rem .9rem; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.card { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.25rem; } .card span { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; }
.soft { color: var(--soft); font-size: .9rem; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
pre { background: var(--card); border-radius: .5rem; padding: .8rem; overflow-x: auto; }
td code { overflow-wrap: anywhere; }
figure { margin: 0 0 2.4rem; break-inside: avoid; }
figure svg { width: 100%; height: auto; max-height: 60rem; display: block; color: var(--ink); }
@media screen and (max-width: 40rem) { figure svg { min-width: var(--readable); max-height: none; }
  table { font-size: .88rem; } th, td { padding-right: .6rem; } td.number { white-space: nowrap; } }
figcaption { color: var(--soft); font-size: .95rem; margin-top: .5rem; }
details summary { cursor: pointer; color: var(--accent); }
@media print { :root { --ink: #000; --soft: #333; --paper: #fff; --card: #fff; --line: #999; --accent: #000;
  --good: #000; --bad: #000; }
  body { max-width: none; font-size: 10pt; } figure svg { max-height: 20cm; }
  details::details-content { content-visibility: visible; } }
"""

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
    verdict: str,
    illustrations: Sequence[Illustration],
    warnings: Sequence[str],
    configuration: str,
) -> str:
    """The whole page.

    Args:
        result: the content of result.json.
        title: of the run.
        symbol: of the figure of merit.
        verdict: the sentence that comes first.
        illustrations: in their order.
        warnings: what the reader must know before believing anything.
        configuration: as YAML text.
    """
    origin = "Simulated events" if result["simulated"] else result["origin"]
    tone = _tone(result)
    body = (
        f'<span class="badge">{origin}</span>',
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict {tone}">{escape(verdict)}</p>',
        _cards(result, symbol),
        _list(remarks(result, symbol), warnings),
        "<h2>The cuts</h2>",
        _cuts(result, symbol),
        _folds(result),
        "<h2>Pictures</h2>",
        *(_figure(one) for one in illustrations),
        "<h2>Words used here</h2>",
        "<dl>" + "".join(f"<dt><b>{escape(a)}</b></dt><dd><p>{escape(b)}</p></dd>" for a, b in TERMS.items()) + "</dl>",
        "<h2>To repeat this run</h2>",
        _repeat(result, configuration),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def remarks(result: Mapping[str, Any], symbol: str) -> list[str]:
    """What the numbers themselves say against a careless reading."""
    found = []
    training, claim = result["compared"]["training"], _claim(result)
    if not all(one["converged"] for one in result["compared"].values()):
        found.append("A fit did not converge: its figure of merit must not be used.")
    if _gain(training, result) > 0 and _gain(claim, result) < 0.5 * _gain(training, result):
        found.append(
            "Most of the gain on training events is not there on held-out events: the cuts were tuned to the sample, "
            "not to the physics. More simulated events, fewer steps or fewer cuts help."
        )
    unclear = _without_clear_gradient(result)
    if unclear:
        found.append(
            f"Never a derivative clearly different from zero: {', '.join(unclear)}. The simulated events do not say "
            "where these thresholds should be, so they were not moved."
        )
    ends = [f"{name} ({cut['at_bound']})" for name, cut in result["thresholds"].items() if cut["at_bound"]]
    if ends:
        found.append(f"At the end of the allowed range: {', '.join(ends)}. A wider range might give more.")
    merged = result["merged_bins"]
    if merged["before"] or merged["after"]:
        least = f"{merged['minimum_effective_events']:g} effective simulated background events"
        if merged["minimum_background"]:
            least += f" or {merged['minimum_background']:g} expected ones"
        found.append(
            f"Bins that the likelihood does not see alone, because they have fewer than {least}: {merged['before']} "
            f"with the default cuts, {merged['after']} with the optimised ones. They are merged with their neighbours."
        )
    value = result["fit"]["after"]["value"]
    if symbol == "Z" and value > _NO_P_VALUE:
        found.append(
            f"Z = {value:.0f} is a measure of separation, not of a probability: no p-value exists that far out, and "
            "systematic uncertainties are not known to so many standard deviations."
        )
    return found


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


def _tone(result: Mapping[str, Any]) -> str:
    """The look of the verdict: a gain, a gain that may be chance, or no gain."""
    claim = _claim(result)
    gain, error = _gain(claim, result), float(claim["change"]["error"])
    return "bad" if gain <= 0 else "good" if gain >= 2 * error else "open"


def _gain(compared: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """The change, positive if it is an improvement."""
    change = float(compared["change"]["value"])
    return change if result["larger_is_better"] else -change


def _cards(result: Mapping[str, Any], symbol: str) -> str:
    cards = []
    for part, text in PARTS.items():
        one = result["compared"].get(part)
        if one is None:
            continue
        values = f"{_estimate(one['before'])} → {_estimate(one['after'])}"
        cards.append((f"{symbol}, {text}", values, f"change {_estimate(one['change'], sign=True)}"))
    quantity = "signal_strength_uncertainty" if symbol == "σ(μ)" else "discovery_significance"
    checks = [result["pyhf"][name][quantity] for name in ("before", "after")]
    numbers = " → ".join("no result" if one is None else f"{one:.4f}" for one in checks)
    shown = symbol if quantity == "signal_strength_uncertainty" else "Z"
    cards.append((f"{shown} by pyhf alone", numbers, "from workspaces of events not seen by the optimiser"))
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><span>{escape(what)}</span><b>{escape(value)}</b><span>{escape(more)}</span></div>'
            for what, value, more in cards
        )
        + "</div>"
    )


def _cuts(result: Mapping[str, Any], symbol: str) -> str:
    tuned, fixed = [], []
    sign = -1 if result["larger_is_better"] else 1
    for name, cut in result["thresholds"].items():
        if cut["trainable"]:
            values = (f"{cut[when]:.4g} {cut['unit']}" for when in ("before", "after"))
            change, slope = f"{cut['after'] - cut['before']:+.3g} {cut['unit']}", cut["gradient"]
            per_unit = _estimate({"value": sign * slope["value"], "error": slope["error"]}, sign=True)
            tuned.append((name, *values, change, per_unit))
        else:
            fixed.append(f"{name} {cut['after']:g} {cut['unit']}".strip())
    header = ("cut", "default", "optimised", "change", f"d{symbol} / d cut")
    note = "The last column is the slope at the optimised cuts, per unit of the cut, with its statistical error."
    if fixed:
        note += f" Not tuned: {', '.join(fixed)}."
    return _table(header, tuned, numbers=(1, 2, 3, 4)) + f'<p class="soft">{escape(note)}</p>'


def _folds(result: Mapping[str, Any]) -> str:
    """The thresholds that each fold led to: where they differ, the events do not fix them."""
    folds = result["folds"]
    if not folds:
        return ""
    names = [name for name, cut in result["thresholds"].items() if cut["trainable"]]
    header = ("cut", *(f"fold {number + 1}" for number in range(len(folds))))
    rows = [(name, *(f"{fold[name]:.4g}" for fold in folds)) for name in names]
    return "<h3>The cuts of each fold</h3>" + _table(header, rows, numbers=range(1, len(header)))


def _figure(one: Illustration) -> str:
    return (
        f'<figure id="{escape(one.name)}"><h3>{escape(one.title)}</h3><div class="scroll">{inline(one)}</div>'
        f"<figcaption>{escape(one.caption)}</figcaption></figure>"
    )


def inline(one: Illustration) -> str:
    """The SVG element alone, drawn in the colour of the text, with ids of its own and a name for a screen reader."""
    start = one.svg.index("<svg")
    svg = re.sub(r"<metadata>.*?</metadata>", "", one.svg[start:], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    # Several SVG drawings share the names of one page.
    svg = re.sub(r'\bid="', f'id="{one.name}-', svg)
    svg = re.sub(r'href="#', f'href="#{one.name}-', svg).replace("url(#", f"url(#{one.name}-")
    svg = re.sub(r"#000000\b", "currentColor", svg)
    # Matplotlib leaves text without a fill, which means black.
    look = f'style="--readable: {_readable(svg)}px" role="img" aria-label="{escape(one.title)}" fill="currentColor"'
    svg = svg.replace("<svg ", f"<svg {look} ", 1)
    return re.sub(r' xmlns:\w+="[^"]*"', "", svg).replace("xlink:href", "href")


def _readable(svg: str) -> int:
    """The width in pixels below which a phone scrolls a drawing, whose text would be too small otherwise."""
    box = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    return round(0.75 * float(box[1])) if box else 0


def _repeat(result: Mapping[str, Any], configuration: str) -> str:
    data = [
        (key, f"{one['events']}", f"{one['entries_read']}", f"{one['entries_kept']}", _codes(one["sha256"]))
        for key, one in result["data"].items()
    ]
    versions = [(name, version) for name, version in result["environment"].items()]
    seconds = [(name, f"{value:.1f} s") for name, value in result["seconds"].items()]
    return "".join(
        (
            f"<p>Seed {result['seed']}; SHA-256 of the configuration <code>{result['config_sha256']}</code>. The "
            "folder of this page holds the same pictures as PNG and PDF, the templates as ROOT histograms with a "
            "configuration for cabinetry, and the workspaces for pyhf.</p>",
            "<details open><summary>Data</summary>",
            _table(("data set", "generated", "in file", "kept", "SHA-256"), data, numbers=(1, 2, 3), raw=(4,)),
            "</details><details open><summary>Versions and times</summary>",
            _table(("", ""), [*versions, *seconds]),
            "</details><details><summary>Configuration</summary><pre>",
            escape(configuration),
            "</pre></details>",
        )
    )


def _codes(checksums: Iterable[str]) -> str:
    return "<br>".join(f"<code>{escape(one)}</code>" for one in checksums)


def _list(*groups: Iterable[str]) -> str:
    entries = "".join(f"<li>{escape(entry)}</li>" for group in groups for entry in group)
    return f"<ul>{entries}</ul>" if entries else ""


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    raw: Sequence[int] = (),
) -> str:
    """A table; columns in `numbers` stand right, those in `raw` are HTML already."""

    def cell(tag: str, column: int, text: str) -> str:
        look = ' class="number"' if column in numbers else ""
        return f"<{tag}{look}>{text if column in raw and tag == 'td' else escape(text)}</{tag}>"

    lines = [("th", header), *(("td", row) for row in rows)]
    content = "".join(
        "<tr>" + "".join(cell(tag, column, text) for column, text in enumerate(line)) + "</tr>" for tag, line in lines
    )
    return f'<div class="scroll"><table>{content}</table></div>'


def _estimate(estimate: Mapping[str, float], *, sign: bool = False) -> str:
    # A number and its error stay on one line.
    return with_error(estimate["value"], estimate["error"], sign=sign).replace(" ", "\N{NO-BREAK SPACE}")
