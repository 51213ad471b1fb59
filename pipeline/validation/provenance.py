"""Where the numbers of a run come from: versions, checksums of the data, and what makes two runs the same."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

import pipeline
from pipeline.ingest.samples import Sample
from pipeline.problem import Problem

__all__ = ["environment", "fingerprint", "provenance", "sha256"]


def environment() -> dict[str, str]:
    """Versions of what computed the numbers."""
    packages = ("jax", "jaxlib", "optax", "equinox", "numpy", "awkward", "uproot", "pyhf")
    versions = {package: metadata.version(package) for package in packages}
    device = jax.devices()[0]
    return {
        "pipeline": pipeline.__version__,
        "python": platform.python_version(),
        **versions,
        "device": device.device_kind,
    }


def provenance(sample: Sample) -> dict[str, Any]:
    """What was read of a data set, and its checksums."""
    files = sample.dataset.files
    return {
        "events": sample.dataset.events,
        "entries_read": sample.entries_read,
        "entries_kept": len(sample.events),
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in files],
        "weights": sample.dataset.weights,
        "skipped": [{"file": file.location, "why": file.failure} for file in sample.skipped],
        "events_sha256": sample.digest,
    }


def fingerprint(problem: Problem) -> str:
    """What makes two runs the same: the configuration and the events."""
    data = {sample.dataset.key: provenance(sample) for sample in problem.samples}
    files = [each.network.file for each in problem.config.observables.values() if each.network.file is not None]
    networks = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return sha256({"config": problem.config.model_dump(mode="json"), "data": data, "networks": networks})


def sha256(content: Mapping[str, Any]) -> str:
    """Checksum of what can be written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
