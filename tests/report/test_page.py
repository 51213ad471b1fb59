"""The page parses, is complete in itself, says first what matters, and does not hide what speaks against the result."""

import re
from copy import deepcopy
from html.parser import HTMLParser
from typing import Any

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure
from pipeline.report.page import Illustration, inline, page, remarks

VOID = {"meta", "link", "br", "img", "hr"}


def estimate(value: float, error: float) -> dict[str, float]:
    return {"value": value, "error": error}


RESULT: dict[str, Any] = {
    "verdict": {"sentence": "It became better.", "tone": "good", "doubts": (), "hints": ()},
    "simulated": True,
    "origin": "Simulated",
    "larger_is_better": True,
    "importance": {"jet_pt": {"value": 0.25, "error": 0.0625}},
    "working_points": None,
    "variations": None,
    "thresholds": {
        "jet_pt": {
            "before": 30.0,
            "after": 33.25,
            "unit": "GeV",
            "trainable": True,
            "at_bound": None,
            "gradient": {"value": -0.25, "error": 0.1, "largest_pull": 9.0},
        },
        "jet_eta": {
            "before": 2.4,
            "after": 2.4,
            "unit": "",
            "trainable": False,
            "at_bound": None,
            "gradient": None,
        },
    },
    "compared": {
        part: {
            "before": estimate(5.0, 1.0),
            "after": estimate(8.0, 1.0),
            "change": estimate(3.0, 0.5),
            "converged": True,
        }
        for part in ("training", "validation")
    },
    "pyhf": {
        name: {"discovery_significance": 5.0, "signal_strength_uncertainty": 0.25} for name in ("before", "after")
    },
    "fit": {"after": {"value": 8.0}},
    "folds": [],
    "significance_of_gradients": 2.0,
    "merged_bins": {"before": 0, "after": 0, "minimum_effective_events": 10.0, "minimum_background": 0.0},
    "data": {
        "simulated/ttbar__nominal": {
            "events": 10,
            "entries_read": 9,
            "entries_kept": 8,
            "files": [
                {"path": "a.root", "size": 5, "sha256": "ab" * 32},
                {"path": "b.root", "size": 5, "sha256": None},
            ],
            "skipped": [{"file": "c.root", "why": "it is damaged"}],
        }
    },
    "environment": {"jax": "0.0.0"},
    "seconds": {"reading": 1.0},
    "seed": 1,
    "config_sha256": "cd" * 32,
}


class Strict(HTMLParser):
    """Collects tags and text; complains about a tag that is closed but not open, or never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def drawing() -> str:
    import io

    figure, file = Figure(figsize=(2, 1)), io.StringIO()
    figure.subplots().plot([0, 1], label="a <b> & c")
    figure.legend()
    figure.savefig(file, format="svg")
    return file.getvalue()


def write(result: dict[str, Any], drawing: str, **changes: Any) -> str:
    options: dict[str, Any] = {
        "title": "A run",
        "symbol": "Z",
        "illustrations": [Illustration("one", "First", "What to see.", drawing), Illustration("two", "", "", drawing)],
        "warnings": ["the picture 'x' could not be made"],
        "configuration": "name: run\n",
        "poi": "ttbar_norm",
    }
    return page(result, **(options | changes))


def test_page_parses_and_every_tag_is_closed(drawing: str) -> None:
    tags = [tag for tag, _ in Strict(write(RESULT, drawing)).seen]
    assert tags.count("figure") == 2
    assert "script" not in tags


def test_page_says_how_to_go_on_with_the_workspace(drawing: str) -> None:
    text = write(RESULT, drawing)
    assert "cabinetry.fit.fit(model, data, minos=&#34;ttbar_norm&#34;)" in text
    assert "cuts of fold 1" not in text


def test_page_asks_nothing_of_the_network(drawing: str) -> None:
    for tag, attributes in Strict(write(RESULT, drawing)).seen:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, target)
    assert "@import" not in write(RESULT, drawing)
    assert not re.search(r"url\((?!#|['\"]?#|['\"]?data:)", write(RESULT, drawing))


def test_ids_are_unique_and_references_lead_somewhere(drawing: str) -> None:
    text = write(RESULT, drawing)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_drawing_takes_the_colour_of_the_text(drawing: str) -> None:
    svg = inline(Illustration("one", "First", "", drawing))
    assert "#000000" not in svg
    assert "currentColor" in svg
    assert re.match(r"<svg [^>]*viewBox=", svg)
    assert not re.match(r"<svg [^>]*\swidth=", svg)


def test_verdict_comes_before_every_number_and_picture(drawing: str) -> None:
    text = write(RESULT, drawing)
    assert (
        text.index("It became better.")
        < text.index("8.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.0")
        < text.index("33.25 GeV")
        < text.index("<figure")
    )


def test_simulated_events_are_called_simulated(drawing: str) -> None:
    assert "Simulated events" in write(RESULT, drawing)
    other = write(RESULT | {"simulated": False, "origin": "CMS Open Data simulation"}, drawing)
    assert "Simulated events" not in other
    assert "CMS Open Data simulation" in other


def test_text_is_escaped(drawing: str) -> None:
    text = write(RESULT, drawing, title="<script>alert(1)</script>", configuration="a: <b>")
    assert "<script>" not in text
    assert "a: &lt;b&gt;" in text


def test_warnings_versions_and_checksums_are_there(drawing: str) -> None:
    text = " ".join(Strict(write(RESULT, drawing)).text)
    for wanted in ("could not be made", "0.0.0", "ab" * 32, "not verified", "it is damaged", "cd" * 32, "name: run"):
        assert wanted in text


def test_a_sound_result_needs_no_remark() -> None:
    assert remarks(RESULT, "Z") == []


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("verdict", "doubts"), ("A fit did not converge.",), "did not converge"),
        (("verdict", "hints"), ("Not at the optimum yet.",), "Not at the optimum"),
        (("compared", "validation", "change", "value"), 0.1, "tuned to the sample"),
        (("thresholds", "jet_pt", "at_bound"), "lower", "range: jet_pt (lower)"),
        (("thresholds", "jet_pt", "gradient", "largest_pull"), 1.5, "clearly different from zero: jet_pt."),
        (("fit", "after", "value"), 90.0, "no p-value"),
        (("merged_bins", "after"), 3, "fewer than 10 effective simulated background events: 0 with"),
    ],
)
def test_remarks_name_what_speaks_against_the_result(path: tuple[str, ...], value: Any, sentence: str) -> None:
    result = deepcopy(RESULT)
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (remark,) = remarks(result, "Z")
    assert sentence in remark


@pytest.mark.parametrize("tone", ["good", "open", "bad"])
def test_the_verdict_has_its_tone(drawing: str, tone: str) -> None:
    assert f'class="verdict {tone}"' in write(RESULT | {"verdict": RESULT["verdict"] | {"tone": tone}}, drawing)


def test_what_is_missing_in_the_result_is_no_empty_place(drawing: str) -> None:
    with pytest.raises(UndefinedError, match="sentence"):
        write(RESULT | {"verdict": {"tone": "good", "doubts": (), "hints": ()}}, drawing)


def test_pyhf_says_its_own_word_on_what_was_tuned(drawing: str) -> None:
    for symbol, number in (("Z", "5.0000"), ("limit on μ", "5.0000"), ("σ(μ)", "0.2500")):
        assert f"{number} → {number}" in write(RESULT, drawing, symbol=symbol)


def test_cuts_that_were_not_tuned_stand_apart(drawing: str) -> None:
    text = " ".join(Strict(write(RESULT, drawing)).text)
    assert "+3.25 GeV" in text
    assert "Not tuned: jet_eta 2.4." in text


@pytest.mark.parametrize(("larger_is_better", "slope"), [(True, "+0.25"), (False, "-0.25")])
def test_slope_is_that_of_the_figure_of_merit(drawing: str, larger_is_better: bool, slope: str) -> None:
    """The optimiser's gradient is that of a loss."""
    text = write(RESULT | {"larger_is_better": larger_is_better}, drawing).replace("\N{NO-BREAK SPACE}", " ")
    assert f"{slope} ± 0.10" in text


def test_a_tuned_cut_shows_what_the_gain_would_lose_without_it(drawing: str) -> None:
    assert "+0.250 ± 0.062" in write(RESULT, drawing).replace("\N{NO-BREAK SPACE}", " ")


def test_working_points_say_what_moves_and_why_not(drawing: str) -> None:
    assert "If something were different" not in write(RESULT, drawing)
    point = {"name": "jes", "factor": 0.5, "merit": 8.5, "moved": {}, "gain": None, "reason": "nobody knows"}
    moved = {"name": "lumi", "factor": 2.0, "moved": {"jet_pt": estimate(1.5, 0.5)}, "gain": estimate(0.25, 0.125)}
    points = [point, point | moved]
    held, optimum = {"jet_eta": "at its bound"}, {"jet_pt": estimate(33.0, 1.5)}
    result = deepcopy(RESULT)
    result["working_points"] = {"merit": 8.0, "optimum": optimum, "steps": {}, "held": held, "points": points}
    said = " ".join(Strict(write(result, drawing)).text).replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"jes uncertainty halved\s+8\.5000\s+\+0\.5\s+nobody knows", said)
    assert re.search(
        r"lumi uncertainty doubled\s+8\.5000\s+\+0\.5\s+jet_pt \+1\.50 ± 0\.50 GeV\s+\+0\.25 ± 0\.12", said
    )
    assert "the optimum is at jet_pt 33.0 ± 1.5 GeV." in said
    assert "Held in all of this: jet_eta (at its bound)." in said


def test_varied_templates_say_what_is_noise_and_what_was_done(drawing: str) -> None:
    assert "The varied templates" not in write(RESULT, drawing)
    known = {"relative_error": 0.25, "shapes_pruned": 1, "yields_pruned": 0, "templates": 10}
    systematics = {"jes": known, "shower": known | {"relative_error": 1.5}, "nobody": known | {"relative_error": None}}
    about = {"smoothing": 2.0, "pruning": 0.005, "uncertainty": True, "systematics": systematics}
    said = " ".join(" ".join(Strict(write(RESULT | {"variations": about}, drawing)).text).split())
    assert "30 shapes are smoothed over 2 bins; 3 of 30 shapes and 0 changes of the yield are below 0.005" in said
    assert "their statistical errors count" in said
    assert "More than half noise: shower." in said
    assert "shower 1.5 1 of 10 0 of 10" in said
    assert "nobody no effect" in said


def test_with_folds_every_fold_has_its_cuts(drawing: str) -> None:
    result = deepcopy(RESULT)
    result["compared"]["cross-validation"] = result["compared"]["validation"] | {"change": estimate(-3.0, 0.5)}
    result["folds"] = [{"jet_pt": 31.5, "jet_eta": 2.4}, {"jet_pt": 35.25, "jet_eta": 2.4}]
    assert "The page shows the cuts of fold 1" in write(result, drawing)
    seen = Strict(write(result, drawing)).text
    assert seen.index("fold 2") < seen.index("31.5") < seen.index("35.25")
