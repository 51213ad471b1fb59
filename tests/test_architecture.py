"""What imports what: the core knows no files, the schema no arrays, and the package itself nothing at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
HEAVY = ("jax", "equinox", "optax", "numpy", "awkward", "uproot", "pyhf", "cabinetry", "matplotlib", "scipy")
FILES_AND_PLOTS = ("awkward", "uproot", "pyhf", "cabinetry", "yaml", "pydantic", "matplotlib", "rich", "pandas")
CORE = (
    "analysis",
    "bin_edges",
    "binning",
    "boundary_flux",
    "events",
    "fit",
    "histfactory",
    "kinematics",
    "measurement",
    "objective",
    "observables",
    "reconstruction",
    "selection",
    "significance",
    "smeared_yields",
    "systematics",
    "templates",
    "yields",
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
        "import pipeline.significance, jax.numpy as jnp\nassert jnp.asarray(1.0).dtype == jnp.float64, 'x64 is off'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_awkwards_jax_backend_is_not_used(path):
    """It is deprecated, and was measured to return wrong results under asynchronous dispatch."""
    assert "ak.jax" not in path.read_text(encoding="utf-8")
    assert not {name for name in imports_of(path) if name.startswith("awkward.jax")}


def core_modules() -> list[Path]:
    return [path for name in CORE for path in (sorted((PACKAGE / name).glob("*.py")) or [PACKAGE / f"{name}.py"])]


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_modules_look_no_further_down(path):
    """One direction: a stage imports what stands before it, never the optimiser, the config, the ingest or a plot."""
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("pipeline.")}
    assert ours <= set(CORE)


@pytest.mark.parametrize("module", ["boundary_flux", "binning", "kinematics", "fit"])
def test_what_knows_no_physics_imports_nothing_of_ours(module):
    """`fit` minimises HistFactory likelihoods, and nothing else of ours."""
    ours = {name.split(".")[1] for name in imports_of(PACKAGE / f"{module}.py") if name.startswith("pipeline.")}
    assert ours <= ({"histfactory"} if module == "fit" else set())


def test_histfactory_can_be_used_alone():
    for path in (PACKAGE / "histfactory").glob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("pipeline.")}
        assert {name.split(".")[1] for name in ours} <= {"histfactory"}
