"""From files to the events that an analysis may select: reading, skimming, a cache on disk, and where it runs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.ingest.certified import certified_blocks
    from pipeline.ingest.progress import events_progress
    from pipeline.ingest.reading import Ingested, read
    from pipeline.ingest.skim import ObjectSkim, Requirement, Skim

__all__ = [
    "Ingested",
    "InputError",
    "ObjectSkim",
    "Requirement",
    "Skim",
    "certified_blocks",
    "events_progress",
    "read",
]

_HOMES = {
    "certified_blocks": "certified",
    "events_progress": "progress",
    "Ingested": "reading",
    "read": "reading",
    "ObjectSkim": "skim",
    "Requirement": "skim",
    "Skim": "skim",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: who wants the manifest only need not wait for awkward."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
