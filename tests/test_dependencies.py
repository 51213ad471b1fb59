"""What the package imports is what it declares, and the other way round."""

import ast
import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTION = {"yaml": "pyyaml", "xgboost": "xgboost-cpu"}
"""Of modules that are not called as what one installs."""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def imported() -> dict[str, str]:
    """Distributions that the package imports anywhere, inside functions too, each with a module that does."""
    found = {}
    for path in (REPOSITORY / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            for top in (module.split(".")[0] for module in modules):
                found[DISTRIBUTION.get(top, top)] = path.name
    ours = {*sys.stdlib_module_names, "pipeline"}
    return {name: path for name, path in found.items() if name not in ours}


def test_what_is_imported_is_declared():
    optional = set().union(*(names(extra) for extra in PROJECT["optional-dependencies"].values()))
    undeclared = {name: path for name, path in imported().items() if name not in names(PROJECT["dependencies"])}
    assert not {name: path for name, path in undeclared.items() if name not in optional}


def test_what_is_declared_is_imported():
    assert names(PROJECT["dependencies"]) - set(imported()) == set()


def test_the_constraints_know_every_declared_package():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = names([line for line in lines if line and not line.startswith("#")])
    assert names(PROJECT["dependencies"]) <= {name.replace("_", "-") for name in pinned}
