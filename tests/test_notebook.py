"""The notebook is its text pair, cell by cell, and carries no outputs; CI executes it with nbmake."""

import json
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed (extra 'notebook')")
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "walkthrough.ipynb"


def test_the_pair_is_in_step() -> None:
    cells, pair = (jupytext.read(NOTEBOOK.with_suffix(suffix)).cells for suffix in (".ipynb", ".py"))
    assert [(cell.cell_type, cell.source) for cell in cells] == [(cell.cell_type, cell.source) for cell in pair]


def test_no_outputs_are_kept() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
