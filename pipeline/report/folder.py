"""The run folder: written beside its place and moved there when complete; a killed run leaves nothing half-written."""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

__all__ = ["new_folder", "write_config", "write_history", "write_json"]


@contextmanager
def new_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `target` if nothing goes wrong.

    Raises:
        FileExistsError: the target exists and may not be overwritten.
        OSError: nothing can be written there.
    """
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already; choose another --output or add --overwrite")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OSError(f"{target}: cannot be written ({error.strerror}); choose another --output") from None
    try:
        yield draft
        old = draft.with_name(draft.name + "-old")
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        # mkdtemp makes private folders; a run folder is as readable as any other new folder of its user.
        target.chmod(0o777 & ~_umask())
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Numbers in full, keys in the given order; JSON has no NaN and no infinity, which become null."""
    path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    match content:
        case Mapping():
            return {key: _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case float():
            return content if math.isfinite(content) else None
    return content


def write_config(path: Path, content: Mapping[str, Any]) -> None:
    """The configuration as it was run: defaults filled in, `extends` resolved."""
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a step."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
