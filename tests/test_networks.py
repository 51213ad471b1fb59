"""Learned observables from the door to the result: where they start, how they are trained, what is kept of them."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline import Cut, Network, Norm, Problem, Region, Weights, tune
from pipeline import analysis as exact
from pipeline.config import ConfigError, load_config
from pipeline.errors import InputError
from pipeline.events.cuts import arrays
from pipeline.networks import about_network
from pipeline.problem import divide_into_folds, read, whole
from pipeline.run import run
from pipeline.sync import synchronise
from pipeline.tuning.checkpoint import load_checkpoint, save_checkpoint
from pipeline.tuning.descent import first_state
from pipeline.tuning.schedule import schedule
from pipeline.tuning.tune import learners, ranges, starts
from pipeline.tuning.tune import tune as steps_of
from pipeline.validation.provenance import fingerprint
from pipeline.weights import load_network, save_network

EVENTS = 3000


def table(seed, shift):
    """Two variables that tell signal from background, one that does not; the second one is badly known."""
    generator = np.random.default_rng(seed)
    x, y, z = generator.normal(0, 1, (3, EVENTS)) + np.array([[shift], [shift], [0]])
    return {"x": x, "y": y, "z": z, "tilt": 1 + 0.3 * np.tanh(y), "weight": np.full(EVENTS, 0.3)}


def problem_of(**changes):
    arguments = {
        "tables": {"signal": table(1, 0.7), "background": table(2, 0.0)},
        "weight": "weight",
        "cuts": [Cut("z", above=-1.5, bounds=(-3, 0), bandwidth=0.3, step=0.1)],
        "regions": [Region("SR", observable="score", bins=6)],
        "signal": "signal",
        "systematics": [Norm("lumi", 0.03), Weights("tilt", up="tilt", on="background")],
        "networks": [Network("score", ["x", "y", "z"], layers=[8], signal="signal")],
        "objective": {"name": "signal_strength_uncertainty"},
        "validation": {"bootstrap": 5},
    }
    return Problem.from_arrays(**(arguments | changes))


@pytest.fixture(scope="module")
def problem():
    return problem_of()


def test_bins_hold_equally_many_expected_events_at_the_start(problem):
    yields = sum(problem.templates(part="training")["SR"].values()[:, 0])
    np.testing.assert_allclose(yields / yields.sum(), np.full(6, 1 / 6), atol=0.002)
    assert problem.config.regions["SR"].bins.overflow
    assert np.diff(problem.config.regions["SR"].bins.places).min() > 0


def test_the_start_is_the_same_for_the_same_seed_only(problem):
    again, other = (
        problem_of(),
        problem_of(networks=[Network("score", ["x", "y", "z"], layers=[8], settings={"seed": 2})]),
    )
    assert eqx.tree_equal(again.networks["score"], problem.networks["score"])
    assert not eqx.tree_equal(other.networks["score"].weights, problem.networks["score"].weights)


def test_cross_entropy_tells_signal_from_background(problem):
    """As well as the sum of the two variables does, which is the best there is."""

    def separation(histogram):
        signal, background = histogram / histogram.sum(axis=1, keepdims=True)
        return float(((signal - background) ** 2 / (signal + background)).sum())

    tables = [table(1, 0.7), table(2, 0.0)]
    sums = [each["x"] + each["y"] for each in tables]
    edges = [-np.inf, *np.quantile(np.concatenate(sums), np.arange(1, 6) / 6), np.inf]
    best = separation(np.array([np.histogram(each, edges)[0] for each in sums]))
    assert separation(problem.templates(part="all")["SR"].values()[:, 0]) > 0.85 * best


@pytest.mark.slow
def test_the_gradient_of_the_loss_is_that_of_the_evaluation(problem):
    at, widths = arrays(problem.defaults), arrays(problem.bandwidths)
    here = exact.evaluate(problem.analysis, at, widths, problem.training)
    slope = jax.grad(lambda at: exact.loss(problem.analysis, at, widths, problem.training)[0], allow_int=True)(at)
    np.testing.assert_allclose(slope["z"], here.gradient.value["z"], rtol=1e-6)
    for own, other in zip(
        jax.tree.leaves(slope["score"].weights), jax.tree.leaves(here.gradient.value["score"]), strict=True
    ):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-7)
    compiled = jax.jit(jax.grad(lambda z: problem.loss({"z": z})))(jnp.asarray(-1.5))
    np.testing.assert_allclose(compiled, here.gradient.value["z"], rtol=1e-6)


@pytest.mark.slow
def test_cuts_and_weights_are_trained_together_and_resume_bit_by_bit(problem, tmp_path):
    steps = {"steps": 8, "significance": 0.0}
    config = problem.config.model_copy(update={"optimiser": problem.config.optimiser.model_copy(update=steps)})
    problem = replace(problem, config=config).with_bandwidths()
    whole = list(steps_of(problem))
    assert whole[-1].best_loss < whole[0].loss
    assert whole[3].thresholds != whole[0].thresholds
    save_checkpoint(tmp_path / "run", "this", whole[:4])
    empty = first_state(starts(config)[0], ranges(config), schedule(config), learners(problem))
    stored = load_checkpoint(tmp_path / "run", "this", empty)
    again = [*stored, *steps_of(problem, stored[-1])]
    assert [step.loss for step in again] == [step.loss for step in whole]
    assert eqx.tree_equal(again[-1].state, whole[-1].state)
    assert again[-1].best_number == whole[-1].best_number


@pytest.mark.slow
def test_a_run_in_python_shows_and_keeps_what_was_learned(problem, tmp_path):
    result = tune(problem, steps=6, quiet=True)
    assert list(result.thresholds) == ["z"]
    trained = result.outcome.after["score"]
    assert not eqx.tree_equal(trained.weights, problem.networks["score"].weights)
    assert "41 weights" in result._repr_html_()
    result.report(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "result.json").read_text())["observables"]["score"]
    assert content["inputs"] == ["x", "y", "z"]
    assert content["weights"] == 41
    assert len(content["edges"]["SR"]) == 7
    assert eqx.tree_equal(result.problem.networks["score"], trained)
    best = replace(problem, networks=result.problem.networks).templates(result.thresholds)
    assert (result.problem.templates(result.thresholds)["SR"].values() == best["SR"].values()).all()
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "score.onnx").exists()
    again = problem_of(
        networks=[
            Network(
                "score",
                ["x", "y", "z"],
                settings={
                    "network": {"layers": [8], "file": str(tmp_path / "run" / "score.safetensors")},
                    "trainable": False,
                },
            )
        ]
    )
    assert eqx.tree_equal(again.networks["score"], trained)
    assert "score" not in again.bandwidths
    assert any("it has seen them" in doubt for doubt in tune(again, steps=1, quiet=True).verdict.doubts)


def stored_in(file, names, **network):
    settings = {"network": {"layers": [8], "file": file} | network}
    return problem_of(networks=[Network("score", names, settings=settings)])


def test_a_network_of_other_inputs_is_refused(problem, tmp_path):
    """Equal shapes are not enough: the same weights on other inputs are another observable."""
    file = tmp_path / "a.safetensors"
    (score,) = problem.analysis.events.scores
    save_network(file, problem.networks["score"], about_network(score, problem.config.observables["score"]))
    assert eqx.tree_equal(stored_in(file, ["x", "y", "z"]).networks["score"], problem.networks["score"])
    with pytest.raises(InputError, match=r"inputs \['x', 'y', 'z'\], but the config says \['y', 'x', 'z'\]"):
        stored_in(file, ["y", "x", "z"])
    with pytest.raises(InputError, match="holds a network with network"):
        stored_in(file, ["x", "y", "z"], activation="relu")


def test_runs_with_other_weights_in_the_file_are_not_the_same(problem, tmp_path):
    file = tmp_path / "a.safetensors"
    (score,) = problem.analysis.events.scores
    names = []
    for network in (problem.networks["score"], jax.tree.map(lambda leaf: leaf + 1, problem.networks["score"])):
        save_network(file, network, about_network(score, problem.config.observables["score"]))
        names.append(fingerprint(stored_in(file, ["x", "y", "z"])))
    assert names[0] != names[1]


def test_quantiles_of_a_region_without_an_event_are_refused():
    with pytest.raises(InputError, match=r"regions.B: no training event is in it"):
        problem_of(
            regions=[
                Region("A", observable="score", bins=4, require={"x": [-50, 50]}),
                Region("B", observable="score", bins=4, require={"x": [50]}),
            ]
        )


def test_a_network_of_another_shape_is_refused(problem, tmp_path):
    save_network(tmp_path / "a.safetensors", problem.networks["score"], {})
    with pytest.raises(InputError, match="holds another network"):
        problem_of(
            networks=[
                Network("score", ["x"], settings={"network": {"layers": [8], "file": tmp_path / "a.safetensors"}})
            ]
        )
    with pytest.raises(InputError, match="no file of a network"):
        load_network(tmp_path / "b.safetensors", problem.networks["score"], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [Network("z", ["x"])]}, "observables.z: a cut has this name"),
        ({"networks": [Network("score", ["x"]), Network("other", ["x"])]}, "no region has it as its observable"),
        ({"networks": [Network("score", ["w"])]}, "w"),
        ({"networks": [Network("score", ["x"], signal="sgnal")]}, "did you mean 'signal'"),
        ({"networks": []}, "'score' is not learned; state the edges"),
        ({"optimiser": {"forward": "smooth"}}, "no derivative by the weights"),
        (
            {"cuts": [Cut("score", above=0.0, name="cut")]},
            "'score' is trained, and a cut on it that stays where it is",
        ),
        ({"networks": [Network("score", ["x"], settings={"trainable": False})]}, "says nothing"),
        (
            {"regions": [Region("SR", observable="score", bins=6, require={"score": [0.0]})]},
            "a requirement has no derivative",
        ),
    ],
)
def test_what_cannot_be_learned_is_told_in_one_sentence(changes, message):
    with pytest.raises((ConfigError, InputError), match=message):
        problem_of(**changes)


def test_the_same_of_all_events_is_refused():
    same = {"x": np.ones(EVENTS)}
    tables = {"signal": table(1, 0.7) | same, "background": table(2, 0.0) | same}
    with pytest.raises(InputError, match="says the same of too many"):
        problem_of(tables=tables, networks=[Network("score", ["x"])])


@pytest.mark.slow
def test_folds_learn_each_for_itself_and_the_config_stays_as_given(tmp_path):
    """What a run folder keeps says quantiles, not the edges of one fold."""
    for name, each in {"signal": table(1, 0.7), "background": table(2, 0.0)}.items():
        pq.write_table(pa.table(each), tmp_path / f"{name}.parquet")
    observable = {"network": {"layers": [8]}, "inputs": ["x", "y"], "pretrain": {"signal": ["signal"]}}
    content = {
        "name": "folds",
        "data": {"tables": {name: f"{name}.parquet" for name in ("signal", "background")}, "weights": "weight"},
        "cuts": {"z": {"objects": ["event"], "variable": "z", "keep": "above", "threshold": -1.5}},
        "observables": {"score": observable},
        "regions": {"SR": {"observable": "score", "bins": {"number": 4, "place": "quantiles"}}},
        "processes": {name: {"title": name} for name in ("signal", "background")},
        "measurement": {"name": "m", "poi": "mu", "signal": ["signal"]},
        "optimiser": {"steps": 2},
        "validation": {"folds": 2, "bootstrap": 3},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    config = load_config(tmp_path / "mine.yaml")
    first, second = divide_into_folds(config, read(config))
    assert not eqx.tree_equal(first.networks["score"].weights, second.networks["score"].weights)
    again = Problem.from_config(config)
    assert again.given == config != again.config
    assert eqx.tree_equal(
        [fold.networks["score"] for fold in again.folds()], [first.networks["score"], second.networks["score"]]
    )
    outcome = run(config, tmp_path / "run", quiet=True, plots=False)
    assert load_config(tmp_path / "run" / "config.yaml") == config
    edges = json.loads((tmp_path / "run" / "result.json").read_text())["observables"]["score"]["edges"]["SR"]
    np.testing.assert_allclose(edges, first.config.regions["SR"].bins.places, rtol=1e-6)
    assert len(outcome.folds) == 2
    _, at, data = whole(config)
    assert at["score"].weights is not None
    assert np.ptp(np.asarray(data.events.edges["SR"])) > 0
    with pytest.raises(ConfigError, match="synchronise without it"):
        synchronise(config, tmp_path / "signal.parquet")
