"""Workers of a Dask cluster compute what one process does, to the last digit, whoever of them dies."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pipeline
import pytest
from pipeline import analysis as exact
from pipeline.cluster import Cluster, connected
from pipeline.errors import InputError
from pipeline.event_data import Stream
from pipeline.events.cuts import arrays
from pipeline.optimize import main
from pipeline.problem import Problem, divide_into_folds, read
from pipeline.run import checkpoint_of
from pipeline.validation.bootstrap import resampled

from flat_tables import MEMORY, config_of, write_tables

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected("local:2") as workers:
        yield workers


@pytest.fixture(scope="module")
def alone(folder) -> Problem:
    return Problem.from_config(config_of(folder, memory=MEMORY, cache=str(folder / "cache")))


@pytest.fixture(scope="module")
def together(folder, cluster) -> Problem:
    config = config_of(folder, memory=MEMORY, cache=str(folder / "shared"))
    return divide_into_folds(config, read(config, executor=cluster.executor), workers=cluster)[0]


@pytest.mark.slow
def test_workers_compute_what_this_process_does(alone, together):
    assert isinstance(together.training, Stream)
    assert together.training.workers is not None
    at: dict[str, float] = {"met": 43.0, "bdt": 0.37}
    values: list[float] = []
    for part in ("training", "validation"):
        here, there = (problem.value_and_grad(at, part) for problem in (alone, together))
        np.testing.assert_allclose(there.loss, here.loss, rtol=1e-12)
        for name in alone.bandwidths:
            np.testing.assert_allclose(there.gradient.value[name], here.gradient.value[name], rtol=1e-5)
    # What is made of parts when they are read travels, too: both see one replica.
    for stream in (together.validation, replace(together.validation, workers=None)):
        replica = resampled(stream, np.random.default_rng(1))
        values.append(float(exact.merit_of(alone.analysis, arrays(alone.defaults), replica).value))
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    assert values[0] != pytest.approx(float(together.value_and_grad(part="validation").merit.value), rel=1e-6)
    np.testing.assert_allclose(together.loss(at), together.value_and_grad(at).loss, rtol=1e-12)


@pytest.mark.parametrize("kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.long)])
def test_a_worker_that_dies_changes_nothing(folder, tmp_path, kills):
    """At random moments: its tasks are done by others, and the sums are the same to the bit."""
    address, scheduler, worker = started_cluster(tmp_path)
    alive = [worker(), worker()]
    config = config_of(folder, memory=MEMORY, cache=str(folder / "killed"))
    with connected(address) as workers:
        workers._client.wait_for_workers(2, timeout=60)
    with connected(address) as workers:
        problem = divide_into_folds(config, read(config), workers=workers)[0]
        at, widths = arrays(problem.defaults), arrays(problem.bandwidths)

        def step() -> list[np.ndarray]:
            evaluation = exact.evaluate(problem.analysis, at, widths, problem.training)
            return [np.asarray(leaf) for leaf in jax.tree.leaves((evaluation.loss, evaluation.gradient))]

        assert workers.number == 2
        expected, generator = step(), random.Random(kills)
        started = time.perf_counter()
        step()
        usual = time.perf_counter() - started
        for _ in range(kills):
            victim = alive.pop(generator.randrange(2))
            timer = threading.Timer(generator.uniform(0, usual), victim.kill)
            timer.start()
            result = step()
            timer.join()
            victim.wait()
            alive.append(worker())
            for value, before in zip(result, expected, strict=True):
                np.testing.assert_array_equal(value, before)
    for process in (*alive, scheduler):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_dies_costs_no_step(folder, tmp_path):
    """The steps that were kept go on, on another cluster, to the same end."""
    settings = ["--set", "optimiser.steps=60", "--set", "optimiser.checkpoint_every=1"]
    settings += ["--set", f"data.cache={tmp_path / 'cache'}", "--no-plots", "--quiet"]
    arguments = ["--config", str(folder / "flat.yaml"), "--output", str(tmp_path / "run"), *settings]
    address, scheduler, worker = started_cluster(tmp_path)
    processes = (worker(), scheduler)
    run = subprocess.Popen(
        [sys.executable, "-m", "pipeline.optimize", *arguments, "--cluster", address], stderr=subprocess.PIPE, text=True
    )
    kept = checkpoint_of(tmp_path / "run")
    deadline = time.time() + 120
    while not kept.exists() and time.time() < deadline:
        time.sleep(0.2)
    for process in processes:
        process.kill()
        process.wait()
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "the scheduler cannot be reached any more" in said
    assert "--resume goes on from there" in said
    assert kept.exists()
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--cluster", "local:1", "--resume"]) == 0


def started_cluster(folder: Path) -> tuple[str, subprocess.Popen, Callable[[], subprocess.Popen]]:
    """A scheduler as users start it, its address, and what starts a worker."""
    file = folder / "scheduler.json"
    start = partial(subprocess.Popen, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    dask, options = [sys.executable, "-m", "dask"], ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = start([*dask, "scheduler", "--port", "0", *options])
    while not file.exists() or not (text := file.read_text()):
        time.sleep(0.1)
    worker = [*dask, "worker", "--nthreads", "1", "--no-nanny", *options]
    return json.loads(text)["address"], scheduler, partial(start, worker)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("local:", "say how many workers"),
        ("local:0", "say how many workers"),
        ("tcp://127.0.0.1:1", "no scheduler with a worker can be reached"),
        ("nonsense://x", "can be reached"),
    ],
)
def test_no_cluster_is_a_sentence(folder, tmp_path, monkeypatch, capsys, address, sentence):
    monkeypatch.setattr("pipeline.cluster.PATIENCE", 1.0)
    arguments = ["--config", str(folder / "flat.yaml"), "--output", str(tmp_path / "run"), "--quiet"]
    assert main([*arguments, "--cluster", address]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((False, pipeline.__version__), r"does not see this folder; name one with data\.cache"),
        ((True, "0.0"), r"does not have version .* of this package \(0\.0\)"),
        (ModuleNotFoundError("No module named 'pipeline'"), "No module named 'pipeline'"),
    ],
)
def test_workers_that_cannot_do_it_are_a_sentence(cluster, tmp_path, monkeypatch, answer, sentence):
    monkeypatch.setattr(cluster._client, "run", lambda *_, **__: {"tcp://far:1": answer})
    with pytest.raises(InputError, match=f"the worker tcp://far:1 .*{sentence}"):
        cluster.check(tmp_path)
    monkeypatch.undo()
    cluster.check(tmp_path)
    assert not list(tmp_path.iterdir())
