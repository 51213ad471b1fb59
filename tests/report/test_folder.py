"""The run folder appears whole or not at all."""

import json
from pathlib import Path

import pytest
from pipeline.report.attempt import attempt
from pipeline.report.folder import new_folder, write_json


def fail_in(target: Path) -> None:
    """A run that writes a file and dies."""
    with new_folder(target, overwrite=True) as folder:
        (folder / "new").touch()
        raise RuntimeError


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_in(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError):
        fail_in(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_replaces_everything(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    with new_folder(target, overwrite=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]


def test_an_existing_folder_is_not_touched_without_being_asked(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="--overwrite"), new_folder(tmp_path, overwrite=False):
        pass


def test_what_json_cannot_say_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1.5, float("nan")], "b": {"c": float("inf")}, "d": "text"})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": {"c": None}, "d": "text"}


def test_a_failure_beside_the_result_is_a_sentence() -> None:
    said: list[str] = []
    with attempt("the picture", said.append):
        raise ZeroDivisionError("no bins")
    assert said == ["the picture could not be made (ZeroDivisionError: no bins); the result is not affected"]


def test_stopping_a_run_is_not_a_failure_beside_the_result() -> None:
    with pytest.raises(KeyboardInterrupt), attempt("the picture", lambda _: None):
        raise KeyboardInterrupt
