"""Pictures that another process draws are those that this one draws."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from pipeline.report.drawing import drawing, files_of
from pipeline.report.pictures import look


def figure() -> Figure:
    with look.style("line"):
        made, ((axes,),) = look.panels(1, 1)
        axes.plot([1.0, 2.0], [3.0, 5.0], label=r"$p_T$")
        look.title(axes, "a line", "Simulated")
    return made


@pytest.mark.slow
def test_another_process_draws_the_same(tmp_path: Path) -> None:
    here = files_of(tmp_path / "here", "line", figure())
    with drawing() as draw:
        futures = [draw(tmp_path / "there", name, figure()) for name in ("line", "other")]
    assert futures[0].result() == here
    assert (tmp_path / "there" / "line.png").read_bytes() == (tmp_path / "here" / "line.png").read_bytes()
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"line.png", "line.pdf", "other.png", "other.pdf"}


@pytest.mark.slow
def test_what_cannot_be_drawn_says_so_and_the_next_is_drawn(tmp_path: Path) -> None:
    broken = figure()
    broken.axes[0].set_title(r"$\frac{$")
    with drawing() as draw:
        first, second = (draw(tmp_path, name, each) for name, each in (("broken", broken), ("line", figure())))
    with pytest.raises(RuntimeError, match="ValueError"):
        first.result()
    assert second.result().startswith("<?xml")
