"""Several devices: the chunks are dealt out fairly, and the numbers are those of one device."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.events.devices import deal

HERE = Path(__file__).parent


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40), st.integers(1, 7))
def test_every_chunk_has_one_device(cost, devices):
    load = np.zeros(devices)
    order = deal(np.array(cost), load)
    assert sorted(order[order >= 0]) == list(range(len(cost)))
    assert order.shape == (devices, -(-len(cost) // devices))
    np.testing.assert_array_equal(load, [np.array(cost)[hand[hand >= 0]].sum() for hand in order])


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 7))
def test_no_device_has_much_more_to_do_than_another(cost, devices):
    """Where it is not kept from it by the room, which is equal, the greedy rule differs by a chunk at most."""
    load = np.zeros(devices)
    deal(np.array(cost * devices), load)
    assert load.max() - load.min() <= max(cost)


def test_what_others_left_is_made_up_for():
    load = np.array([10.0, 0.0])
    order = deal(np.array([4, 4, 3, 3]), load)
    assert order.shape == (2, 2)
    np.testing.assert_array_equal(load, [16, 8])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """By name: what one device makes of some events, and what several make of them."""
    file = tmp_path_factory.mktemp("devices") / "results.npz"
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    settings = {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "3", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, str(HERE / "several_devices.py"), str(file)]
    subprocess.run(command, check=True, env=os.environ | settings)
    by_name = {}
    with np.load(file) as arrays_of:
        for key in arrays_of:
            devices, name = key.split(" ", 1)
            by_name.setdefault(name, {})[int(devices)] = arrays_of[key]
    return by_name


@pytest.mark.long
def test_yields_are_equal_to_the_bit(results):
    for devices in (2, 3):
        np.testing.assert_array_equal(results["yields"][devices], results["yields"][1])
    assert results["yields"][1].any()


@pytest.mark.long
def test_results_are_equal(results):
    for name, of_devices in results.items():
        # How well a fit has converged is noise.
        if "gradient_norm" not in name and name != "collectives":
            for each in of_devices.values():
                np.testing.assert_allclose(each, of_devices[1], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.long
def test_everything_was_compared(results):
    kinds = {re.split(r"\W", name)[0] for name in results}
    assert {"yields", "evaluation", "gradient", "smooth", "events", "objects", "shared", "replica", "stored"} <= kinds


@pytest.mark.long
def test_a_device_needs_no_other(results):
    """Devices that wait for each other are killed by XLA where one is late, as after Ctrl-Z."""
    assert set(results["collectives"]) == {2, 3}
    assert not any(results["collectives"].values())
