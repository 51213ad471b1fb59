"""Which luminosity blocks are good: the "golden JSON" of CMS, `{"run": [[first, last], …]}`."""

import json
from pathlib import Path

from pipeline.errors import InputError
from pipeline.ingest.skim import Certified

__all__ = ["certified_blocks"]


def certified_blocks(path: Path) -> Certified:
    """Read a file of good luminosity blocks.

    Args:
        path: JSON file.

    Raises:
        InputError: It cannot be read, or is not of this form.
    """
    try:
        content = json.loads(path.expanduser().read_text(encoding="utf-8"), object_pairs_hook=_each_run_once)
        return tuple(
            sorted(
                (int(run), tuple((int(first), int(last)) for first, last in blocks)) for run, blocks in content.items()
            )
        )
    except OSError as error:
        raise InputError(f"{path}: the certified luminosity blocks cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: is no file of certified luminosity blocks, {{"run": [[first, last], …]}}; check what '
            f"data.certified names ({' '.join(str(error).split())[:100]})."
        ) from error


def _each_run_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON's own rule is that the last of two equal keys wins."""
    runs = dict(pairs)
    if len(runs) < len(pairs):
        raise ValueError("a run is stated twice")
    return runs
