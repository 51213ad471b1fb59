"""Pictures and page into the run folder: the part of a report that may fail without costing anything else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.report.attempt import attempt
from pipeline.report.drawing import drawing
from pipeline.report.histograms import write_cabinetry_config, write_histograms
from pipeline.report.page import Illustration, page
from pipeline.report.pictures.gallery import pictures
from pipeline.report.pictures.scene import Scene

__all__ = ["illustrate"]


def illustrate(folder: Path, scene: Scene, result: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Write plots/*.png, plots/*.pdf and report.html.

    Args:
        folder: of the run.
        scene: what to draw.
        result: the content of result.json.
        warn: gets a sentence for everything that could not be made.
    """
    warnings: list[str] = []

    def note(sentence: str) -> None:
        warnings.append(sentence)
        warn(sentence)

    drawn = []
    with drawing() as files_of:
        with attempt("histograms.root", note):
            stages = {"before": scene.regions_before, "after": scene.regions_after, "fit": scene.regions_after}
            write_histograms(folder / "histograms.root", scene.config, stages)
            write_cabinetry_config(folder / "cabinetry.yaml", scene.config, scene.regions_after)
        for picture in pictures(scene, note):
            with attempt(f"the file of the picture '{picture.name}'", note):
                drawn.append((picture, files_of(folder / "plots", picture.name, picture.figure)))
    illustrations = []
    for picture, svg in drawn:
        with attempt(f"the file of the picture '{picture.name}'", note):
            illustrations.append(Illustration(picture.name, picture.title, picture.caption, svg.result()))
    with attempt("report.html", note):
        text = _page(scene, result, illustrations, warnings)
        (folder / "report.html").write_text(text, encoding="utf-8")


def _page(
    scene: Scene,
    result: Mapping[str, Any],
    illustrations: Sequence[Illustration],
    warnings: Sequence[str],
) -> str:
    config = scene.config
    return page(
        result,
        title=config.title or config.name,
        symbol=scene.symbol,
        illustrations=illustrations,
        warnings=warnings,
        poi=config.measurement.poi,
        configuration=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )
