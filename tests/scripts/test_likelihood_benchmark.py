"""The table of fits beside others': who failed or was stopped has no time, anywhere."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from reference.workspaces import HELLO_WORLD

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "likelihood.py"
FREE = ("observed", None)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("likelihood_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(**attempts):
    told = {name: attempt._asdict() for name, attempt in attempts.items()}
    numbers = dict.fromkeys(("poi", "twice_nll", "difference", "fit", "q0", "q0 and gradient"), 1.0)
    return numbers | {
        "workspace": "name",
        "bins": 2,
        "parameters": 3,
        "compared": 0,
        "converged": True,
        "left_out": 0,
        "peers": told,
        "cold": {"pyhf": next(iter(told.values()))},
    }


def test_a_process_ends_fails_or_is_stopped(benchmark):
    python = [sys.executable, "-c"]
    ended = benchmark.attempted([*python, "print(1); print(2)"], limit=60)
    failed = benchmark.attempted([*python, "raise SystemExit(3)"], limit=60)
    stopped = benchmark.attempted([*python, "import time; time.sleep(60)"], limit=0.5)
    assert [ended.state, failed.state, stopped.state] == ["ended", "failed", "stopped"]
    assert ended.answer == "2"
    assert float(str(ended)) == pytest.approx(ended.seconds, abs=0.01)
    assert str(failed) == f"failed after {failed.seconds:.2f} s"
    assert str(stopped) == "not ended in 0.50 s"


def test_the_table_says_who_failed(benchmark):
    attempts = {
        "scipy": benchmark.Attempt(None, 5.5, "failed"),
        "0": benchmark.Attempt(None, 30.0, "stopped"),
        "1": benchmark.Attempt(7.0, 1.25, "ended"),
    }
    head, _, line = (row.split(" | ") for row in benchmark.markdown([row(**attempts)]).strip().splitlines())
    cells = dict(zip(head, line, strict=True))
    assert cells["SLSQP"] == cells["cold: pyhf"] == "failed after 5.50 s"
    assert cells["Minuit 0"] == "not ended in 30.00 s"
    assert cells["Minuit 1"] == "1.25"
    sizes = {"bins": 10, "parameters": 3, "ours": attempts["scipy"]._asdict(), "pyhf": attempts["0"]._asdict()}
    assert "| ours | failed after 5.50 s |" in benchmark.scales([sizes])
    assert "| pyhf | not ended in 30.00 s |" in benchmark.scales([sizes])


@pytest.mark.slow
def test_a_peer_that_raises_has_failed(benchmark):
    data = {FREE: np.array([51.0, 48.0]), ("asimov", None): np.array([51.0, 48.0, 277.8, 55.2])}
    attempts = benchmark.peer_fits(HELLO_WORLD, data, "scipy", 60.0)
    assert [attempt.state for attempt in attempts.values()] == ["failed", "ended"]
    assert attempts[FREE].answer is None
    assert json.loads(json.dumps([attempt._asdict() for attempt in attempts.values()]))[0]["state"] == "failed"
    assert benchmark.markdown([row(scipy=attempts[FREE])]).count("failed after") == 2
