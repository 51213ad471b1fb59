"""The front door: tables in, a problem that can be asked and tuned out."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import hist
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pipeline as pl
import polars
import pyarrow as pa
import pytest
from pipeline import analysis as exact
from pipeline.config import ConfigError, load_config
from pipeline.config.run import Optimiser
from pipeline.errors import InputError
from pipeline.events.cuts import arrays
from pipeline.report.pictures.scene import Scene
from pipeline.run import run
from pipeline.tuning.tune import tune as steps_of

from flat_tables import write_tables

EDGES = np.linspace(100, 500, 6)
EVENTS = {"signal": 600, "background": 2000}


def table(process: str) -> dict[str, np.ndarray]:
    """A resonance, or a falling spectrum; weights add up to 60 and 1000 expected events."""
    signal, events = process == "signal", EVENTS[process]
    generator = np.random.default_rng(len(process))
    return {
        "met": generator.exponential(60.0, events),
        "bdt": generator.beta(*((4, 2) if signal else (2, 4)), events),
        "mass": generator.normal(250.0, 30.0, events) if signal else 100 + generator.exponential(150.0, events),
        "weight": np.full(events, (60.0 if signal else 1000.0) / events),
        "pu_up": np.full(events, 1.02),
        "pu_down": np.full(events, 0.97),
    }


TABLES = {process: table(process) for process in EVENTS}


def problem_of(tables=TABLES, **changes) -> pl.Problem:
    arguments = {
        "weight": "weight",
        "cuts": [
            pl.Cut("met", above=50, bounds=(0, 200), bandwidth=15),
            pl.Cut("bdt", above=0.5, bounds=(0, 1), bandwidth=0.1),
        ],
        "regions": [pl.Region("SR", observable="mass", bins=EDGES)],
        "signal": "signal",
        "systematics": [
            pl.Norm("lumi", 0.03),
            pl.Norm("background", up=0.2, down=-0.1, on="background"),
            pl.Weights("pileup", up="pu_up", down="pu_down"),
        ],
        "validation": {"bootstrap": 10},
        "measurement": {"minimum_effective_events": 0},
    }
    return pl.Problem.from_arrays(tables, **(arguments | changes))


@pytest.fixture(scope="module")
def problem():
    return problem_of()


def test_templates_are_those_of_numpy(problem):
    """Each part stands for all events: its weights are scaled so that they add up to those of the whole."""
    at = {"met": 40.0, "bdt": 0.3}
    templates = problem.templates(at)["SR"]
    assert isinstance(templates, hist.Hist)
    assert [list(axis) for axis in templates.axes[:2]] == [list(EVENTS), ["nominal", "pileup_up", "pileup_down"]]
    events = problem.event_table({"met": 0.0, "bdt": 0.0})
    for number, (process, columns) in enumerate(TABLES.items()):
        rows = events.index[events.dataset == number]
        scale = columns["weight"].sum() / columns["weight"][rows].sum()
        single = {name: column[rows].astype(np.float32) for name, column in columns.items()}
        passes = (single["met"] > np.float32(40)) & (single["bdt"] > np.float32(0.3))
        for variation, factor in (
            ("nominal", 1.0),
            ("pileup_up", columns["pu_up"]),
            ("pileup_down", columns["pu_down"]),
        ):
            weights = columns["weight"][rows] * scale * (factor if variation == "nominal" else factor[rows])
            expected, _ = np.histogram(single["mass"][passes], EDGES, weights=weights[passes])
            np.testing.assert_allclose(templates[process, variation, :].values(), expected, rtol=1e-5)


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_the_analysis(problem):
    at, widths = arrays({"met": 60.0, "bdt": 0.5}), arrays(problem.bandwidths)
    there = exact.evaluate(problem.analysis, at, widths, problem.training)
    assert float(problem.loss({"met": 60.0})) == float(there.loss)
    evaluation = problem.value_and_grad({"met": 60.0})
    assert {name: float(slope) for name, slope in evaluation.gradient.value.items()} == {
        name: float(slope) for name, slope in there.gradient.value.items()
    }
    slope = jax.grad(lambda met: problem.loss({"met": met}))(60.0)
    # Subsamples of a chunk are added in single precision, in another order.
    np.testing.assert_allclose(slope, there.gradient.value["met"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("bandwidth", [15, pytest.param(None, marks=pytest.mark.long)])
def test_the_loss_can_be_compiled_before_anybody_asked_for_a_bandwidth(bandwidth):
    """Which is then chosen from the events."""
    fresh = problem_of(cuts=[pl.Cut("met", above=50, bounds=(0, 200), bandwidth=bandwidth)])
    compiled = jax.jit(fresh.loss)({"met": 60.0})
    assert float(compiled) == pytest.approx(float(fresh.loss({"met": 60.0})), rel=1e-9)


@pytest.mark.parametrize("kind", [pd.DataFrame, polars.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_other_tables_are_the_same(problem, kind):
    other = problem_of({process: kind(columns) for process, columns in TABLES.items()})
    for ours, theirs in zip(jax.tree.leaves(other.training), jax.tree.leaves(problem.training), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_columns_that_nobody_asks_for_may_be_anything(problem):
    named = {process: columns | {"name": np.full(EVENTS[process], process)} for process, columns in TABLES.items()}
    for ours, theirs in zip(
        jax.tree.leaves(problem_of(named).training), jax.tree.leaves(problem.training), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_results_print_their_numbers(problem):
    found = problem.value_and_grad()
    assert "f64[]" not in repr(found)
    assert f"{float(found.loss):.4f}"[:6] in repr(found)
    assert "f64[]" not in repr(found.merit)


def test_weights_are_in_expected_events_whatever_the_luminosity(problem):
    other = problem_of(luminosity=36_000.0)
    np.testing.assert_allclose(other.training.recipe.yields, problem.training.recipe.yields, rtol=1e-12)


def test_parquet_files_are_the_same(tmp_path):
    """Rows of files are numbered file by file, so events have numbers of their own here."""
    numbered = {process: columns | {"event": np.arange(EVENTS[process])} for process, columns in TABLES.items()}
    files = {process: tmp_path / f"{process}.parquet" for process in TABLES}
    for process, file in files.items():
        pd.DataFrame(numbered[process]).to_parquet(file)
    in_memory = problem_of(numbered, collision="event")
    other = problem_of({"signal": str(files["signal"]), "background": files["background"]}, collision="event")
    for ours, theirs in zip(jax.tree.leaves(other.training), jax.tree.leaves(in_memory.training), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert other.samples[0].dataset.files[0].sha256 is not None


@pytest.mark.slow
def test_tuning_gains_on_unseen_events_and_reports(problem, tmp_path):
    result = pl.tune(problem, steps=3, quiet=True)
    assert len(result) == len(list(result)) == 3
    assert set(result.thresholds) == {"met", "bdt"}
    assert result.gain.value > 0
    assert result.gain.value == pytest.approx(result.comparison.change.value)
    assert [channel["name"] for channel in result.workspace["channels"]] == ["SR"]
    assert str(result.verdict) in repr(result)
    html = result._repr_html_()
    assert "on unseen events" in html
    report = result.report(tmp_path / "run")
    assert report.exists()
    # Nobody stated a luminosity, so no picture shows one.
    assert Scene(problem, result.outcome).source == ""
    assert {path.name for path in report.parent.iterdir()} >= {"result.json", "workspace.json", "history.csv", "plots"}
    with pytest.raises(FileExistsError, match="exists already"):
        result.report(tmp_path / "run")


class Ratio:
    """An event function that is an object."""

    def variables(self, event, sets):
        return {"ratio": event.columns["mass"] / 100.0}


@pytest.fixture(scope="module")
def folded():
    """With an event function that no name leads to."""
    return problem_of(
        event_function=Ratio(),
        event_variables={"mass": "mass"},
        regions=[pl.Region("SR", observable="ratio", bins=EDGES / 100)],
        validation={"bootstrap": 3, "folds": 3, "working_points": False},
    )


def rows(events) -> set[tuple[int, int]]:
    return set(zip(events.dataset.tolist(), events.index.tolist(), strict=True))


def test_every_event_is_held_out_by_one_fold(folded):
    folds = folded.folds()
    everywhere = {"met": 0.0, "bdt": 0.0}
    held_out = [rows(fold.event_table(everywhere)) for fold in folds]
    assert sum(map(len, held_out)) == len(set.union(*held_out)) == sum(EVENTS.values())
    assert held_out[0] == rows(folded.event_table(everywhere))
    assert {fold.names.function for fold in folds} == {folded.names.function}
    assert problem_of().folds()[0].config.validation.folds is None


@pytest.mark.slow
def test_folds_are_those_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.result._illustrate", lambda *_: None)  # pictures have tests of their own
    changes = {"validation": {"folds": 3, "working_points": False}, "optimiser": {"steps": 2}}
    config = load_config(write_tables(tmp_path) / "flat.yaml", changes)
    run(config, tmp_path / "run", quiet=True)
    result = pl.tune(pl.Problem.from_config(config.model_copy(update={"optimiser": Optimiser(steps=9)})), 2, quiet=True)
    result.report(tmp_path / "mine")
    here, there = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("mine", "run"))
    for content in (here, there):
        del content["seconds"]
    assert here == there
    for file in ("config.yaml", "workspace.json", "history.csv"):
        assert (tmp_path / "mine" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    assert result.folds == there["folds"]
    assert len({fold["met"] for fold in result.folds}) == 3
    assert result.thresholds == result.folds[0]
    assert result.gain.value == there["compared"]["cross-validation"]["change"]["value"]
    assert [step.number for step in result] == [0, 1]
    html = result._repr_html_()
    assert "<th>fold 3</th>" in html
    assert "The cuts are those of fold 1." in html


@pytest.mark.slow
@pytest.mark.parametrize(("before", "folds"), [(0, 1), (1, 2)])
def test_an_interrupt_keeps_the_folds_so_far(folded, monkeypatch, capsys, before, folds):
    """In the second fold, before so many steps of it."""
    begun = count()

    def interrupted(*arguments):
        fold = next(begun)
        for number, step in enumerate(steps_of(*arguments)):
            if (fold, number) == (1, before):
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr("pipeline.run.steps_of", interrupted)
    result = pl.tune(folded, 2, quiet=True)
    assert "stopping with the best thresholds so far" in " ".join(capsys.readouterr().out.split())
    assert len(result.outcome.folds) == folds
    assert not result.outcome.complete
    first = folded.folds()[0].with_bandwidths()
    *_, last = steps_of(replace(first, config=first.config.model_copy(update={"optimiser": Optimiser(steps=2)})))
    assert result.thresholds == last.best
    assert ("cross-validation" in result.outcome.comparisons) == (folds > 1)
    assert np.isfinite(result.gain.value)


def test_nothing_prints_unless_asked(problem, capsys):
    problem.loss()
    assert "signal" in repr(problem)
    assert "<table>" in problem._repr_html_()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cuts": [pl.Cut("mte", above=50, bounds=(0, 200))]}, "no branch 'mte'; the nearest are met"),
        ({"weight": "wieght"}, "no branch 'wieght'; the nearest are weight"),
        ({"signal": "sig"}, "measurement.signal: no process is called 'sig'; did you mean 'signal'"),
        ({"systematics": [pl.Norm("x", 0.1, on="bkg")]}, "no process is called 'bkg'"),
        ({"tables": TABLES | {"signal": {}}}, "signal: the table has no events"),
        ({"tables": TABLES | {"signal": 3}}, "signal: a int is no table"),
        (
            {"tables": TABLES | {"signal": TABLES["signal"] | {"met": np.array(["a"] * 600)}}},
            "signal: the column 'met' is no column of numbers",
        ),
        (
            {"tables": TABLES | {"signal": TABLES["signal"] | {"met": np.ones(3)}}},
            "signal: the table has columns of different lengths",
        ),
        ({"optimizer": {"steps": 3}}, "optimizer: unknown key; did you mean 'optimiser'"),
        ({"cuts": [pl.Cut("met", above=50)]}, "no cut is trainable"),
        ({"event_function": SimpleNamespace()}, "event_function: what is compiled is kept by the function"),
    ],
)
def test_mistakes_get_a_sentence(changes, sentence):
    with pytest.raises((ConfigError, InputError)) as error:
        problem_of(**changes)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_misspelt_threshold_gets_a_sentence(problem):
    with pytest.raises(ConfigError, match="no threshold is called 'mte'; there are: met, bdt"):
        problem.loss({"mte": 3.0})


@pytest.mark.long
def test_more_cuts_on_events_than_a_bit_mask_holds_have_the_derivatives_of_each_alone():
    rng, number = np.random.default_rng(8), 33
    tables = {
        name: {f"x{place}": rng.normal(shift, 1, 400) for place in range(number)} | {"mass": rng.uniform(0, 4, 400)}
        for name, shift in (("signal", 2.0), ("background", 1.7))
    }
    problem = pl.Problem.from_arrays(
        tables,
        cuts=[pl.Cut(f"x{place}", above=0.0, bounds=(-2, 2), bandwidth=0.8) for place in range(number)],
        regions=[pl.Region("SR", observable="mass", bins=[0, 2, 4])],
        signal="signal",
        systematics=[pl.Norm("rate", 0.1, on="background")],
    )
    together = problem.value_and_grad().gradient.value
    assert len(together) == number
    at, widths = arrays(problem.thresholds), arrays(problem.bandwidths)
    for name in ("x0", "x30", "x31", "x32"):
        alone = exact.evaluate(problem.analysis, at, {name: widths[name]}, problem.training).gradient.value[name]
        assert float(together[name]) == pytest.approx(float(alone), rel=1e-5)
        assert float(alone) != 0


def scores(process: str, events: int = 20_000) -> dict[str, np.ndarray]:
    """Of a classifier: they pile up at 0 and at 1."""
    signal = process == "signal"
    generator = np.random.default_rng(len(process))
    score = 1 / (1 + np.exp(-generator.normal(3 if signal else -3, 2, events)))
    return {"score": score, "mass": np.ones(events), "weight": np.full(events, (30 if signal else 3000) / events)}


SCORES = {process: scores(process) for process in EVENTS}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_cut_on_a_score_needs_no_bandwidth_and_no_unit(unit):
    """The optimum is near 0.97, where no step and no kernel that suit 0.5 would do; beyond it nothing is left."""
    tables = {process: columns | {"score": unit * columns["score"]} for process, columns in SCORES.items()}
    problem = problem_of(
        tables,
        cuts=[pl.Cut("score", above=0.5 * unit, bounds=(0, unit))],
        regions=[pl.Region("SR", observable="mass", bins=[0, 2])],
        systematics=[],
        measurement={},
    )
    steps = list(steps_of(problem.with_bandwidths()))
    grid = unit / (1 + np.exp(-np.linspace(-1, 6, 71)))
    best = min(float(problem.loss({"score": place})) for place in grid)
    assert best < 2 * float(problem.loss()) < 0
    assert steps[-1].best_loss <= 0.98 * best
    assert steps[-1].loss <= 0.9 * best


@pytest.mark.long
def test_edges_of_a_score_move_in_its_rank():
    """From equal widths, by what the door takes if it is told nothing: bins with few events are merged."""
    problem = problem_of(
        SCORES,
        cuts=[],
        regions=[pl.Region("SR", observable="score", bins=np.linspace(0, 1, 5), bounds=(0, 1))],
        systematics=[],
        measurement={},
    )
    assert problem.analysis.measurement.minimum_effective_events == 10
    steps = list(steps_of(problem.with_bandwidths()))
    edges = list(steps[-1].best.values())
    assert edges == sorted(edges)
    assert edges[-2] > 0.9
    assert float(-problem.loss(steps[-1].best, "validation")) > 1.2 * float(-problem.loss(part="validation"))


MASS_SCALE = {"scale": ["mass"], "trainable": True, "bounds": [0.95, 1.05], "bandwidth": 0.03}


def test_a_calibration_is_a_parameter():
    """Templates at 1.02 are those of masses that were scaled before, and the loss has a derivative by it."""
    problem = problem_of(calibrations={"mass_scale": MASS_SCALE})
    scaled = {
        name: each | {"mass": (np.float32(1.02) * each["mass"].astype(np.float32)).astype(np.float64)}
        for name, each in TABLES.items()
    }
    ours = problem.templates({"mass_scale": 1.02}, part="all")["SR"]
    np.testing.assert_array_equal(ours.values(), problem_of(scaled).templates(part="all")["SR"].values())
    gradient = problem.value_and_grad().gradient
    assert set(gradient.value) == {"met", "bdt", "mass_scale"}
    assert abs(float(gradient.value["mass_scale"])) > 0
    assert float(gradient.error["mass_scale"]) > 0


def test_a_calibration_of_what_was_used_in_reading_is_refused():
    with pytest.raises(ConfigError, match=r"calibrations.s.scale: 'weight' is in 'weight', which is evaluated when"):
        problem_of(calibrations={"s": {"scale": "weight"}})
    with pytest.raises(
        ConfigError, match=r"calibrations.s.scale: 'met' is in 'weight \* met', which is evaluated when"
    ):
        problem_of(weight="weight * met", calibrations={"s": {"scale": "met"}})


class Root:
    """Its derivative at 0 is none."""

    def variables(self, event, sets):
        return {"root": jnp.sqrt(jnp.maximum(event.columns["met"] - 20, 0))}


@pytest.mark.slow
def test_a_derivative_that_is_not_a_number_ends_a_run():
    cuts = [pl.Cut("root", above=3, bounds=(0, 10), bandwidth=1)]
    met_scale = MASS_SCALE | {"scale": ["met"]}
    problem = problem_of(cuts=cuts, event_function=Root(), calibrations={"met_scale": met_scale})
    with pytest.raises(InputError, match="step 0: the derivative by met_scale is not a number, though the loss is"):
        pl.tune(problem, steps=1, quiet=True)


def test_a_threshold_is_one_number():
    with pytest.raises(ConfigError, match=r"met: give one number, not an array of shape \(2,\)"):
        problem_of().loss({"met": np.array([50.0, 60.0])})
