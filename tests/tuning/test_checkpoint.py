"""An interrupted optimisation goes on as if nothing had happened; what cannot be continued is told in one sentence."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.analysis import Gradient
from pipeline.inference.objectives import Merit
from pipeline.tuning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from pipeline.tuning.descent import Evaluation, descend, first_state
from pipeline.tuning.ranges import Range
from pipeline.tuning.schedule import Schedule
from pipeline.tuning.steps import Step

ROOT = Path(__file__).parents[2]
RANGES = {"a": Range(-9.0, 9.0, 0.1, 1.0, 0.1), "b": Range(-9.0, 9.0, 0.3, 1.0, 0.1)}
START = {"a": 1.0, "b": -1.0}
SCHEDULE = Schedule("adam", {}, 1.0, 0.1, 20)


def evaluate(thresholds, bandwidths):
    value, gradient = jax.value_and_grad(lambda at: (at["a"] - 0.1) ** 2 + jnp.sin(3 * at["b"]) / 3)(thresholds)
    merit = Merit(
        value=-value,
        converged=jnp.asarray(True),
        gradient_norm=bandwidths["a"] / 3,
        iterations=jnp.asarray(7, jnp.int32),
    )
    error = {name: jnp.asarray(0.01, jnp.float64) for name in gradient}
    return Evaluation(loss=value, merit=merit, gradient=Gradient(value=gradient, error=error))


def steps(resume: Step | None = None) -> list[Step]:
    return list(descend(evaluate, RANGES, [START], SCHEDULE, resume=resume))


def empty_state():
    return first_state(START, RANGES, SCHEDULE, {})


@pytest.mark.parametrize("after", [0, 7, 18])
def test_it_goes_on_bit_identically(tmp_path, after):
    whole = steps()
    save_checkpoint(tmp_path / "run", "this run", whole[: after + 1])
    stored = load_checkpoint(tmp_path / "run", "this run", empty_state())
    again = [*stored, *steps(stored[-1])]
    assert len(again) == len(whole)
    for one, other in zip(again, whole, strict=True):
        for name in (
            "number",
            "thresholds",
            "bandwidths",
            "loss",
            "gradient",
            "error",
            "best_loss",
            "best",
            "following",
        ):
            assert getattr(one, name) == getattr(other, name)
        for mine, theirs in zip(jax.tree.leaves(one.merit), jax.tree.leaves(other.merit), strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


def test_a_new_checkpoint_replaces_the_old_one_at_once(tmp_path):
    whole = steps()
    for number in (3, 9):
        save_checkpoint(tmp_path / "run", "this run", whole[:number])
        assert len(load_checkpoint(tmp_path / "run", "this run", empty_state())) == number
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_continued_is_told_in_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from; start without --resume"):
        load_checkpoint(tmp_path / "run", "this run", empty_state())
    save_checkpoint(tmp_path / "run", "this run", steps()[:3])
    with pytest.raises(CheckpointError, match="belongs to another configuration or other data"):
        load_checkpoint(tmp_path / "run", "another run", empty_state())
    whole = (tmp_path / "run").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "run").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a usable checkpoint"):
            load_checkpoint(tmp_path / "run", "this run", empty_state())


# --- Whole runs, killed and stopped ----------------------------------------------------------------------------------

SETTINGS = ["optimiser.steps=60", "optimiser.checkpoint_every=2", "validation.bootstrap=2"]


def command(output: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    config = str(ROOT / "configs" / "quickstart.yaml")
    return [sys.executable, "-m", "pipeline.optimize", "--config", config, "--output", str(output), *settings, *more]


def interrupted(output: Path, how: signal.Signals) -> int:
    """Start a run, and send it a signal as soon as it has written a checkpoint."""
    running = subprocess.Popen(
        command(output),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell starts what runs in the background, such as these tests, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoint = output.with_name(f".{output.name}.checkpoint")
    while not checkpoint.exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(how)
    return running.wait()


@pytest.mark.long
def test_killed_or_stopped_a_run_ends_with_the_same_numbers(tmp_path):
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    expected = (tmp_path / "whole" / "history.csv").read_text()
    assert interrupted(tmp_path / "killed", signal.SIGKILL) != 0
    assert not (tmp_path / "killed").exists()
    assert interrupted(tmp_path / "stopped", signal.SIGINT) == 0
    partial = (tmp_path / "stopped" / "history.csv").read_text()
    assert expected.startswith(partial)
    assert len(partial) < len(expected)
    for name in ("killed", "stopped"):
        subprocess.run(command(tmp_path / name, "--resume", "--overwrite"), cwd=ROOT, check=True, capture_output=True)
        assert (tmp_path / name / "history.csv").read_text() == expected
        assert not (tmp_path / f".{name}.checkpoint").exists()
