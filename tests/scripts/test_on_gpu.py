"""The script for a machine with a GPU, in a small size on this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_it_works_and_a_device_equals_itself(tmp_path):
    script, output = ROOT / "scripts" / "benchmarks" / "on_gpu.sh", tmp_path / "results.json"
    subprocess.run(["bash", str(script), str(output), "small"], check=True, env=os.environ | {"PYTHON": sys.executable})
    results = json.loads(output.read_text())
    assert "passed" in results["tests"]
    assert results["equality"]["counts"] == 0
    assert results["equality"]["merit"] < 1e-9
    assert results["copy_bytes_per_second"] > 0
    single, several = results["steps"]
    assert several["events"] == several["parts"] * single["events"]
    stages = ("events_s", "added_s", "fit_s", "contracted_s")
    assert all(single[stage] > 0 for stage in stages)
    assert single["value_and_gradient_s"] > 0
