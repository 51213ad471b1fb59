"""What is printed: nothing is cut off or wrapped at 80 characters, and the last word is plain."""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import pytest
from pipeline.analysis import Gradient
from pipeline.config import Config, load_config
from pipeline.inference.objectives import Merit
from pipeline.progress import Progress
from pipeline.report.terminal import Terminal
from pipeline.tuning.descent import Evaluation, descend
from pipeline.tuning.schedule import Schedule
from pipeline.tuning.steps import Step
from pipeline.tuning.tune import Look, ranges
from pipeline.validation.comparison import Comparison, Estimate
from pipeline.validation.crosscheck import PyhfResult
from pipeline.validation.working_points import WorkingPoint, WorkingPoints
from rich.console import Console

from analysis_data import ROOT
from outcomes import outcome_of

WIDTH = 80


def config_of(name: str) -> Config:
    return load_config(ROOT / "configs" / f"{name}.yaml")


def terminal(config: Config, *, live: bool, quiet: bool = False) -> tuple[Terminal, io.StringIO]:
    """A terminal of 80 characters that keeps what it is told."""
    file = io.StringIO()
    options = {"width": WIDTH, "height": 40, "force_terminal": live, "legacy_windows": False, "_environ": {}}
    return Terminal(config, quiet=quiet, console=Console(file=file, highlight=False, markup=False, **options)), file


def steps_of(config: Config, number: int) -> Iterator[Step]:
    """An optimisation that gets nowhere, with a gradient of length 5 in units of the steps of the cuts."""
    trained = ranges(config)
    gradient = dict.fromkeys(trained, 0.0) | {"jet_pt": 3.0, "electron_pt": -4.0}
    merit = Merit(
        value=jnp.asarray(70.25),
        converged=jnp.asarray(True),
        gradient_norm=jnp.asarray(0.0),
        iterations=jnp.asarray(0),
    )

    def evaluate(*_: Any) -> Any:
        slopes = {name: jnp.asarray(value) for name, value in gradient.items()}
        return Evaluation(loss=-merit.value, merit=merit, gradient=Gradient(value=slopes, error=slopes))

    start = {name: config.thresholds[name].threshold for name in trained}
    yield from descend(evaluate, trained, [start], Schedule("sgd", {}, 1e-9, 1.0, number))


@pytest.mark.parametrize("name", ["agc", "every_threshold"])
def test_live_display_shows_every_threshold_in_full(name: str) -> None:
    config = config_of(name)
    shown, file = terminal(config, live=True)
    with shown.steps(40, 1000) as display:
        for step in steps_of(config, 2):
            display.step(step)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    for cut, one in config.thresholds.items():
        assert (f"{cut} {one.threshold:.4g}" in text) == one.trainable
    for wanted in (
        "2/40",
        "Z 70.2500" if name == "agc" else "σ(μ) 70.2500",
        "best 70.2500",
        "|∇| 5",
        "events/s",
    ):
        assert wanted in text


def test_without_a_terminal_there_are_a_few_plain_lines() -> None:
    config = config_of("quickstart")
    shown, file = terminal(config, live=False)
    with shown.steps(100, 1000) as display:
        for step in steps_of(config, 100):
            display.step(step)
    first, *lines = file.getvalue().splitlines()
    assert first == "compiling the analysis"
    assert len(lines) == 11
    assert all("jet_pt 30 GeV" in line and "best 70.2500" in line for line in lines)


@pytest.mark.parametrize("live", [False, True])
def test_looks_between_the_steps_are_counted(live: bool) -> None:
    shown, file = terminal(config_of("quickstart"), live=live)
    with shown.steps(40, 1000) as display:
        for number in range(1, 8):
            display.look(Look("polish", number, 30, {}, 0.07))
    text = file.getvalue()
    assert ("polish, 7 of 30" in text) if live else text.count("polish: looking at up to 30 places") == 1


def test_a_plain_line_with_many_thresholds_only_counts_them() -> None:
    config = config_of("every_threshold")
    shown, file = terminal(config, live=False)
    with shown.steps(1, 1000) as display:
        for step in steps_of(config, 1):
            display.step(step)
    assert "28 thresholds" in file.getvalue()
    assert "jet_pt" not in file.getvalue()


def test_quiet_says_nothing_but_warnings() -> None:
    config = config_of("quickstart")
    shown, file = terminal(config, live=True, quiet=True)
    shown.say("reading")
    with shown.reading() as progress, shown.steps(40, 1000) as display:
        for step in steps_of(config, 1):
            display.step(step)
    assert progress is None
    assert file.getvalue() == ""
    shown.warn("no [picture]")
    assert "warning: no [picture]" in file.getvalue()


def test_it_is_a_listener_for_every_stage() -> None:
    assert isinstance(terminal(config_of("quickstart"), live=False)[0], Progress)


@pytest.mark.parametrize("live", [False, True])
def test_files_are_counted_where_there_is_a_terminal(live: bool) -> None:
    shown, file = terminal(config_of("quickstart"), live=live)
    with shown.counting("simulated/ttbar__nominal", 2) as advance:
        advance(1200)
        advance(34)
    assert ("1,234 events" in file.getvalue()) == live


@pytest.mark.parametrize("live", [True, False])
def test_what_happens_has_a_clock_where_it_can_be_redrawn(live: bool, monkeypatch) -> None:
    """And none is left behind, whatever happens; where nobody can redraw, a line says it."""
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr("pipeline.report.terminal.time.perf_counter", lambda: float(next(clock)))
    shown, file = terminal(config_of("quickstart"), live=live)
    with suppress(ZeroDivisionError), shown:
        shown.say("preparing events")
        shown.say("compiling")
        raise ZeroDivisionError
    assert shown._phase is None
    said = file.getvalue()
    assert ("preparing events: 7 s" in said) == live
    assert said.rstrip().endswith("s" if live else "compiling")


@pytest.mark.parametrize("name", ["agc", "agc_precision", "every_threshold"])
def test_final_table_fits(name: str, tmp_path) -> None:
    config = config_of(name)
    shown, file = terminal(config, live=False)
    compared = Comparison(Estimate(0.0890, 0.0073), Estimate(0.0710, 0.005), Estimate(-0.0181, 0.0056), True)
    pulls = dict.fromkeys(ranges(config), 5.0) | {"electron_pt": 0.5}
    outcome = outcome_of(
        config,
        compared,
        {"jet_pt": 25.0, "jet_btag": 0.25},
        pulls=pulls,
        parts=("training", "validation", "cross-validation"),
        pyhf=PyhfResult(107.1234, 1.0, uncertainty=0.0890),
        path=tmp_path,
    )
    outcome = replace(outcome, importance={"jet_pt": Estimate(0.012, 0.002), "jet_btag": Estimate(0.004, 0.002)})
    point = WorkingPoint("jes", 0.5, 0.064, {"jet_pt": Estimate(1.2, 0.8)}, Estimate(0.001, 0.001), "")
    outcome = replace(outcome, working_points=WorkingPoints(0.071, {}, {"jet_pt": 3.0}, {}, (point,)))
    known = {"relative_error": 0.75, "shapes_pruned": 0, "yields_pruned": 0, "templates": 10}
    about = {"smoothing": 0.0, "pruning": 0.0, "uncertainty": True, "systematics": {"jes": known}}
    outcome = replace(outcome, variations=about)
    shown.table(outcome)
    shown.places(outcome)
    lines = file.getvalue().splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("All events"))]
    assert max(len(line.rstrip()) for line in table) <= WIDTH
    rows = [" ".join(line.split()) for line in lines]
    assert "jet_pt 30 GeV 25 GeV -5 GeV (bound)" in rows
    assert "electron_pt 30 GeV 30 GeV unchanged *" in rows
    assert any(row.startswith("* no clear gradient") for row in rows)
    assert "jet_btag 0.5 0.25 -0.25" in rows
    wanted = "Z by pyhf" if name == "agc" else "σ(μ) by pyhf"
    assert any(wanted in line and line.rstrip().endswith("workspace.json") for line in lines)
    assert f"run folder: {tmp_path}" in lines
    said = " ".join(file.getvalue().split())
    assert "stays at its default: jet_pt +0.0120 ± 0.0020, jet_btag +0.0040 ± 0.0020." in said
    assert "errors count with those of the nominal templates. More than half noise: jes." in said
    merits = "0.0710 → 0.0640 on validation events; jet_pt would move by +1.20 ± 0.80 GeV."
    assert f"With jes uncertainty halved: {outcome.symbol} {merits}" in said
    assert f'minos="{config.measurement.poi}"' in said
    assert "The cuts are those of fold 1" not in said
    assert not any(line.startswith("report:") for line in lines)
    assert re.fullmatch(r"\d+ s in all", lines[-1])
