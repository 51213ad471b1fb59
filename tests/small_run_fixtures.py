"""One small run of the whole pipeline, shared by the tests of what a run leaves; and templates made by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline.config import Config, load_config
from pipeline.optimize import main
from pipeline.problem import Problem
from pipeline.validation.regions import Region

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SETTINGS = ("optimiser.steps=2", "validation.bootstrap=2")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line wrote, pyhf's own warning about a dependency aside."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    assert main(["--config", str(QUICKSTART), "--output", str(folder), "--quiet", *settings]) == 0
    return folder


@pytest.fixture(scope="session")
def result(run_folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_folder / "result.json").read_text())
    return content


@pytest.fixture(scope="session")
def optimum(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: cut["after"] for name, cut in result["thresholds"].items()}


@pytest.fixture(scope="session")
def problem(config: Config) -> Problem:
    return Problem.from_config(config)


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(QUICKSTART, {"optimiser": {"steps": 2}, "validation": {"bootstrap": 2}})


@pytest.fixture
def regions() -> tuple[Region, ...]:
    """Two regions, two processes, two systematic uncertainties; the last bin of the first region is merged."""
    nominal = np.array([[10.0, 20.0, 30.0], [5.0, 4.0, 0.5]])
    first = Region(
        name="4j1b CR",
        label="$H_T$ [GeV]",
        edges=np.array([0.0, 1.0, 2.0, 4.0]),
        processes=("ttbar", "W+jets"),
        nominal=nominal,
        variance=0.1 * nominal,
        up={"scale": 1.1 * nominal, "shape": nominal * np.array([1.2, 1.0, 0.9])},
        down={"scale": 0.9 * nominal, "shape": nominal * np.array([0.8, 1.0, 1.1])},
        merged_into=np.array([0, 1, 1]),
    )
    second = Region(**{**vars(first), "name": "4j2b SR", "merged_into": np.array([0, 1, 2])})
    return first, second
