"""The simulated data sets in ``data_manifest.yaml``: everything after one marker line is ours to rewrite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pipeline.yaml_file import parsed_yaml
from scripts.samples.settings import ProcessSettings, Settings, SkimSettings

__all__ = ["MARKER", "begin", "entry", "identity", "update"]

MARKER = "  # --- simulated samples: written by scripts/samples ---"


def entry(
    process: ProcessSettings,
    settings: Settings,
    file: Path,
    *,
    path: str,
    program: str,
    seed: int,
    counts: Mapping[str, Any],
) -> dict[str, Any]:
    """The facts about one written file, in the manifest's schema.

    Args:
        process: what was simulated.
        settings: with what.
        file: the finished ROOT file.
        path: where the manifest's source has it.
        program: generator and version.
        seed: the seed of the whole sample.
        counts: ``events`` (collisions before every filter), ``entries`` (in the file), ``sum_of_weights``.
    """
    fields: dict[str, Any] = {"source": "simulated", "process": process.process, "variation": process.variation}
    if process.role:
        fields["role"] = process.role
    return fields | {
        "cross_section_pb": process.cross_section_pb,
        "weights": "generator",
        "generator": {
            "program": program,
            "settings": [*settings.generator.pythia, *process.pythia],
            "seed": seed,
            "description": _description(process, settings),
        },
        "files": [{"path": path, **identity(file), **counts}],
    }


def identity(file: Path) -> dict[str, Any]:
    """Checksum and size of a file."""
    content = file.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _description(process: ProcessSettings, settings: Settings) -> str:
    """What a reader of the manifest should know beyond the generator's settings."""
    draws = f"{process.detector_draws} draws for each collision, which share the event number and differ in run"
    thinned = " Crowded places are thinned; genWeight makes up for it." if settings.thinning else ""
    return (
        f"{process.description} Detector: {draws if process.detector_draws > 1 else 'parametrised'}. "
        f"Skim: {_skim_in_words(settings.skim)}; other leptons and jets are dropped.{thinned}"
    )


def _skim_in_words(skim: SkimSettings) -> str:
    identified = "identified " if skim.identified else ""
    leptons = f"{skim.min_leptons} {identified}leptons" if skim.min_leptons > 1 else f"a {identified}lepton"
    parts = [f"{leptons} with pt > {skim.lepton_pt:g} GeV and |eta| < {skim.lepton_eta:g}"]
    if skim.opposite_sign:
        parts.append("both charges among them")
    if skim.min_jets:
        tagged = "" if skim.min_discriminant is None else f", one of them with btagCSVV2 > {skim.min_discriminant:g}"
        parts.append(
            f"{skim.min_jets} {identified}jets with pt > {skim.jet_pt:g} GeV and |eta| < {skim.jet_eta:g}{tagged}"
        )
    if skim.fat_jet_pt is not None:
        parts.append(f"a fat jet with pt > {skim.fat_jet_pt:g} GeV")
    if skim.min_met:
        parts.append(f"missing transverse momentum > {skim.min_met:g} GeV")
    return ", ".join(parts)


def begin(manifest: Path, like: Path) -> None:
    """A new manifest for samples in its own folder: the source of the simulated events, and no data set yet.

    Args:
        manifest: the file, which does not exist.
        like: the manifest that describes the source.
    """
    source = parsed_yaml(like.read_text(encoding="utf-8"))["sources"]["simulated"]
    sources = yaml.safe_dump({"sources": {"simulated": source | {"prefixes": {"local": "."}}}}, sort_keys=False)
    manifest.write_text(f"{sources}\ndatasets:\n{MARKER}\n", encoding="utf-8")


def update(manifest: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces or adds simulated data sets; every line before the marker stays as it is.

    Args:
        manifest: the file, which has the marker line.
        entries: by key, ``<set>/<process>__<variation>``.

    Raises:
        ValueError: when the manifest has no marker line.
    """
    head, marker, tail = manifest.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise ValueError(f"{manifest}: has no line {MARKER.strip()!r}; put it at the end, below 'datasets:'.")
    known = parsed_yaml(tail) or {}
    written = "".join(_as_yaml(key, fields) for key, fields in {**known, **entries}.items())
    partial = manifest.with_suffix(".partial")
    partial.write_text(f"{head}{marker}\n{written}", encoding="utf-8")
    partial.replace(manifest)


def _as_yaml(key: str, fields: Mapping[str, Any]) -> str:
    """One data set, indented below ``datasets:``; its parts in flow style, as the other sets have them."""
    lines = [f"  {key}:"]
    for name, value in fields.items():
        if name == "files":
            lines += ["    files:", *(f"      - {json.dumps(file)}" for file in value)]
        else:
            lines.append(f"    {name}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
