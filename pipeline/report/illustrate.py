"""Pictures and page into the run folder: the part of a report that may fail without costing anything else."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

from pipeline.report.attempt import attempt
from pipeline.report.histograms import write_cabinetry_config, write_histograms
from pipeline.report.page import Illustration, page
from pipeline.report.pictures import look
from pipeline.report.pictures.gallery import pictures
from pipeline.report.pictures.scene import Picture, Scene

__all__ = ["illustrate"]

RESOLUTION = 160
"""Dots per inch of the PNG files."""


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

    with attempt("histograms.root", note):
        stages = {"before": scene.regions_before, "after": scene.regions_after, "fit": scene.regions_after}
        write_histograms(folder / "histograms.root", scene.config, stages)
        write_cabinetry_config(folder / "cabinetry.yaml", scene.config, scene.regions_after)
    illustrations = []
    for picture in pictures(scene, note):
        with attempt(f"the file of the picture '{picture.name}'", note):
            illustrations.append(_save(folder / "plots", picture))
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


def _save(folder: Path, picture: Picture) -> Illustration:
    """PNG and PDF into the folder, SVG for the page; laid out once and drawn three times, where `savefig` draws six."""
    folder.mkdir(exist_ok=True)
    figure, svg = picture.figure, io.StringIO()
    with look.style(picture.name):
        look.lay_out(figure)
        _draw(FigureCanvasSVG(figure).print_svg, svg, metadata={"Date": None})
        _draw(FigureCanvasPdf(figure).print_pdf, folder / f"{picture.name}.pdf", metadata={"CreationDate": None})
        # A picture in a file of its own may end up on a dark slide.
        figure.set_facecolor("white")
        figure.set_dpi(RESOLUTION)
        _draw(FigureCanvasAgg(figure).print_png, folder / f"{picture.name}.png")
    return Illustration(picture.name, picture.title, picture.caption, svg.getvalue())


def _draw(print_: Callable[..., Any], target: Path | io.StringIO, **options: Any) -> None:
    """Call one of matplotlib's writers, which have no type annotations."""
    print_(target, **options)
