"""What the README and the pages beside it show works as pasted, and what they link to is there."""

import re
import shutil
from pathlib import Path

import pytest
from pipeline.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_first_block_tunes_and_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks(ROOT / "README.md", "python")[0], names)
    result = names["result"]
    assert result.gain.pull > 3
    assert not result.verdict.doubts
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_can_be_loaded(page, tmp_path):
    """Those that start from one of ours are told from manifests by that."""
    for config in ROOT.joinpath("configs").glob("*"):
        shutil.copy(config, tmp_path)
    (tmp_path / "configs").symlink_to(tmp_path)
    for number, block in enumerate(blocks(page, "yaml")):
        if "extends:" in block:
            path = tmp_path / f"snippet_{number}.yaml"
            path.write_text(block, encoding="utf-8")
            assert load_config(path).name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_readme_is_short():
    """It says what this is and how to begin; everything else has a page of its own."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170
