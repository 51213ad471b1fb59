"""What imports what: the core knows no files, the schema no arrays, and the package itself nothing at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
HEAVY = ("jax", "equinox", "optax", "numpy", "awkward", "uproot", "pyhf", "cabinetry", "matplotlib", "scipy")
FILES_AND_PLOTS = ("awkward", "uproot", "pyhf", "cabinetry", "yaml", "pydantic", "matplotlib", "rich", "pandas")
CORE = ("analyses", "analysis", "event_data", "events", "inference")
ROOMS = {
    # What each room may import, besides itself. Advice and order: the data flow one way, and nothing runs back.
    "config": {"errors", "yaml_file"},
    "inference": {"errors"},
    "events": {"errors", "hashing"},
    "analyses": {"errors", "events"},
    "event_data": {"events", "inference"},
    "analysis": {"event_data", "events", "inference"},
}
"""Rooms of which the whole list is known; the rule for the others is in `test_nobody_imports_what_comes_later`."""
ORDER = (
    "progress",
    "config",
    "memory",
    "ingest",
    "events",
    "inference",
    "analyses",
    "event_data",
    "analysis",
    "histograms",
    "names",
    "ragged",
    "translation",
    "parts",
    "on_disk",
    "division",
    "scales",
    "population",
    "preview",
    "bandwidths",
    "vocabulary",
    "template_input",
    "template_fit",
    "problem",
    "tuning",
    "validation",
    "report",
    "result",
    "run",
)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return {name for name in done.stdout.split() if "." not in name} | {
        name for name in done.stdout.split() if name.startswith("pipeline.")
    }


def imports_of(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere, type-checking blocks and functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_core_needs_no_files_and_no_plots():
    assert not loaded_by("import pipeline.analysis") & set(FILES_AND_PLOTS)


def test_the_schema_needs_no_arrays():
    """So that a typo answers at once."""
    assert not loaded_by("import pipeline.config") & set(HEAVY)


def test_the_command_line_needs_no_arrays_before_the_config_is_good():
    assert not loaded_by("import pipeline.optimize") & set(HEAVY)


def test_the_package_alone_imports_nothing():
    loaded = loaded_by("import pipeline")
    assert not loaded & {*HEAVY, *FILES_AND_PLOTS}
    assert not any(name.startswith("pipeline.") for name in loaded)


def test_a_fresh_interpreter_computes_in_float64():
    program = (
        "import pipeline.inference.significance, jax.numpy as jnp\n"
        "assert jnp.asarray(1.0).dtype == jnp.float64, 'x64 is off'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_awkwards_jax_backend_is_not_used(path):
    """It is deprecated, and was measured to return wrong results under asynchronous dispatch."""
    assert "ak.jax" not in path.read_text(encoding="utf-8")
    assert not {name for name in imports_of(path) if name.startswith("awkward.jax")}


def rooms_imported_by(path: Path) -> set[str]:
    """Of ours, at the top of the package, without its own."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("pipeline.")} - {own}


MODULES = [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("path", MODULES)
def test_rooms_import_what_they_may(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ROOMS:
        assert rooms_imported_by(path) <= ROOMS[room]


@pytest.mark.parametrize("path", MODULES)
def test_nobody_imports_what_comes_later(path):
    """One direction: a stage imports what stands before it; only `run` knows the report."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ORDER:
        later = ORDER[ORDER.index(room) + 1 :]
        assert not rooms_imported_by(path) & set(later)


@pytest.mark.parametrize("module", ["events/flux", "analyses/kinematics"])
def test_what_knows_no_physics_imports_nothing_of_ours(module):
    ours = {name.split(".")[1] for name in imports_of(PACKAGE / f"{module}.py") if name.startswith("pipeline.")}
    assert not ours


def test_histfactory_can_be_used_alone():
    for path in (PACKAGE / "inference" / "histfactory").glob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("pipeline.")}
        assert all(name.startswith("pipeline.inference.histfactory") for name in ours)
