"""All pictures of a run, in the order of the story.

A picture must never cost a result: one that cannot be made becomes a warning, and the others are still there.
"""

from collections.abc import Callable, Iterator

import matplotlib as mpl

from pipeline.report.attempt import attempt
from pipeline.report.pictures import (
    contour,
    cut_flow,
    distributions,
    gradients,
    history,
    impacts,
    look,
    profiles,
    systematics,
    templates,
    working_points,
)
from pipeline.report.pictures.scene import Picture, Scene

__all__ = ["GALLERY", "pictures"]

GALLERY: dict[str, Callable[[Scene], Picture | None]] = {
    "templates": templates.picture,
    "history": history.picture,
    "profiles": profiles.picture,
    "gradients": gradients.picture,
    "contour": contour.picture,
    "distributions": distributions.picture,
    "cut_flow": cut_flow.picture,
    "systematics": systematics.picture,
    "impacts": impacts.picture,
    "working_points": working_points.picture,
}
"""In the order of the story."""


def pictures(scene: Scene, warn: Callable[[str], None]) -> Iterator[Picture]:
    """All pictures that can be made; `warn` gets a sentence for each that cannot."""
    # A server has no screen, and a run needs none.
    mpl.use("agg")
    for name, make in GALLERY.items():
        picture = None
        with attempt(f"the picture '{name}'", warn), look.style(name):
            picture = make(scene)
        if picture is not None:
            yield picture
