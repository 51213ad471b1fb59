"""Processes: their order, their end by a signal, and when they pay."""

import concurrent.futures
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline.ingest import InputError, execution
from pipeline.ingest.execution import workers_that_pay


def test_outcomes_carry_their_position():
    assert list(execution.outcomes(divmod, [(7, 2), (9, 4)])) == [(0, (3, 1)), (1, (2, 1))]


class _SecondOfFourFails(concurrent.futures.Executor):
    """Takes four calls and runs none; the second fails."""

    def __init__(self) -> None:
        self.futures: list[concurrent.futures.Future] = []

    def submit(self, *_, **__) -> concurrent.futures.Future:
        self.futures.append(concurrent.futures.Future())
        if len(self.futures) == 4:
            self.futures[1].set_exception(ZeroDivisionError())
        return self.futures[-1]


def test_the_first_error_stops_the_rest():
    executor = _SecondOfFourFails()
    with pytest.raises(ZeroDivisionError):
        list(execution.outcomes(divmod, [(1, 0)] * 4, executor=executor))
    assert [future.cancelled() for future in executor.futures] == [True, False, True, True]


def test_a_killed_process_is_a_sentence_with_the_files():
    """As the kernel does when memory runs out."""
    with pytest.raises(InputError, match=r"9: a process that read one of these files was killed, .* use fewer workers"):
        list(execution.outcomes(signal.raise_signal, [(signal.SIGKILL,), (signal.SIGKILL,)], workers=2))


@pytest.fixture
def two_sleepers(tmp_path) -> subprocess.Popen:
    """A process that has started two others, which sleep."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from pipeline.ingest.execution import outcomes\n"
        "if __name__ == '__main__':\n"
        "    print('started', flush=True)\n"
        "    try:\n"
        "        list(outcomes(time.sleep, [(60,), (60,), (60,), (60,)], workers=2))\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(130)\n"
    )
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "started\n"
    return run


@pytest.mark.parametrize("seconds", [0.5, 3.0], ids=["starting", "reading"])
def test_an_interrupt_ends_all_processes_without_their_words(two_sleepers, seconds):
    """Ctrl-C goes to the whole group: the children shall die of it, and the parent alone has something to say."""
    time.sleep(seconds)
    os.killpg(two_sleepers.pid, signal.SIGINT)
    _, errors = two_sleepers.communicate(timeout=30)
    assert two_sleepers.returncode == 130
    assert errors == ""


def test_nothing_outlives_a_killed_parent(two_sleepers):
    """The children hold its pipes open as long as they live."""
    time.sleep(3)
    two_sleepers.kill()
    two_sleepers.communicate(timeout=10)


@pytest.mark.parametrize(
    ("first", "share", "files", "workers"),
    [
        (0.5, 1.0, 1, 1),  # a second short file
        (0.1, 30.0, 30, 1),  # three seconds in all: a process is not ready earlier
        (2.0, 40.0, 40, 4),  # 80 seconds
        (60.0, 1.0, 1, 1),  # one file is not divided
        (60.0, 2.0, 2, 2),
    ],
)
def test_processes_are_started_where_they_pay(monkeypatch, first, share, files, workers):
    monkeypatch.setattr(execution, "cores", lambda: 4)
    assert workers_that_pay(first, share, files) == workers


def test_at_least_one_core():
    assert execution.cores() >= 1


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "400000 100000\n"}, 4.0),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_container_may_have_less_time_than_cores(tmp_path, monkeypatch, files, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert execution.quota(tmp_path) == quota
    monkeypatch.setattr(execution, "quota", lambda: quota)
    monkeypatch.setattr(execution.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert execution.cores() == min(64, math.ceil(quota) if quota < 64 else 64)
