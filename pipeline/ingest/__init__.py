"""From ROOT files to the events that an analysis may select: reading, skimming, a cache on disk, and where it runs."""

from pipeline.ingest.manifest import InputError
from pipeline.ingest.progress import events_progress
from pipeline.ingest.reading import Ingested, read
from pipeline.ingest.skim import ObjectSkim, Requirement, Skim

__all__ = ["Ingested", "InputError", "ObjectSkim", "Requirement", "Skim", "events_progress", "read"]
