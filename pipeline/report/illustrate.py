"""Pictures and page into the run folder: the part of a report that may fail without costing anything else."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.report import plots
from pipeline.report.attempt import attempt
from pipeline.report.gallery import Picture, Scene, pictures
from pipeline.report.page import Illustration, page

__all__ = ["illustrate"]

RESOLUTION = 160
"""Dots per inch of the PNG files."""


def illustrate(
    folder: Path, scene: Scene, result: Mapping[str, Any], verdict: str, warn: Callable[[str], None]
) -> None:
    """Write plots/*.png, plots/*.pdf and report.html.

    Args:
        folder: of the run.
        scene: what to draw.
        result: the content of result.json.
        verdict: the sentence that comes first.
        warn: gets a sentence for everything that could not be made.
    """
    warnings: list[str] = []

    def note(sentence: str) -> None:
        warnings.append(sentence)
        warn(sentence)

    illustrations = []
    for picture in pictures(scene, note):
        with attempt(f"the file of the picture '{picture.name}'", note):
            illustrations.append(_save(folder / "plots", picture))
    with attempt("report.html", note):
        text = _page(scene, result, verdict, illustrations, warnings)
        (folder / "report.html").write_text(text, encoding="utf-8")


def _page(
    scene: Scene,
    result: Mapping[str, Any],
    verdict: str,
    illustrations: Sequence[Illustration],
    warnings: Sequence[str],
) -> str:
    config = scene.config
    return page(
        result,
        title=config.title or config.name,
        symbol=scene.symbol,
        verdict=verdict,
        illustrations=illustrations,
        warnings=warnings,
        configuration=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _save(folder: Path, picture: Picture) -> Illustration:
    folder.mkdir(exist_ok=True)
    with plots.style(picture.name):
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=RESOLUTION, facecolor="white")
        # Once laid out, a figure need not be laid out again for each format.
        picture.figure.set_layout_engine("none")
        picture.figure.savefig(folder / f"{picture.name}.pdf", metadata={"CreationDate": None})
        svg = io.StringIO()
        picture.figure.savefig(svg, format="svg", metadata={"Date": None})
    return Illustration(picture.name, picture.title, picture.caption, svg.getvalue())
