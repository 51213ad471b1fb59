"""What the README and the pages beside it show works as pasted, and what they link to is there."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyhf
import pytest
from pipeline.analyses.assignment import MODELS
from pipeline.config import load_config
from pipeline.names import names_of

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


def python_blocks():
    """All but the first of the README, which has a test of its own."""
    every = [(page, number, block) for page in PAGES for number, block in enumerate(blocks(page, "python"))]
    heavy = ("TemplateFit", "pl.tune")
    return [
        pytest.param(
            block,
            id=f"{page.name}, {number}",
            marks=[pytest.mark.slow] if any(word in block for word in heavy) else [],
        )
        for page, number, block in every[1:]
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_other_python_works_as_pasted(block, tmp_path, monkeypatch):
    """An event function beside a config, a fit of histograms, or a script on a workspace; here a small one."""
    monkeypatch.chdir(tmp_path)
    if "def variables(event, sets)" in block:
        (tmp_path / "mine.py").write_text(block, encoding="utf-8")
        changes = "event_function: mine.py\nevent_variables: {met: MET_pt}\n"
        region = "regions: {4j1b: {observable: lepton_met}, 4j2b: {observable: ht}}\n"
        (tmp_path / "mine.yaml").write_text(f"extends: {ROOT}/configs/agc.yaml\n{changes}{region}", encoding="utf-8")
        assert set(names_of(load_config("mine.yaml")).made) == {"lepton_met", "ht"}
        return
    if "Assignment(" in block:
        xgboost = pytest.importorskip("xgboost", reason="pip install '.[bdt]'")
        (tmp_path / "mine.py").write_text(block, encoding="utf-8")
        (tmp_path / "mine.yaml").write_text(f"extends: {ROOT}/configs/agc_assignment.yaml\nevent_function: mine.py\n")
        for parity in ("even", "odd"):
            bdt = xgboost.Booster(model_file=str(MODELS / f"{parity}.ubj"))
            bdt.save_model(tmp_path / f"model_{parity}.json")
        assert "mass_w1w2btophad" in names_of(load_config("mine.yaml")).made
        return
    if "TemplateFit" in block:
        names: dict[str, object] = {}
        exec(block, names)
        assert names["coarse"].merit().converged
        assert names["fit"].observed.limits.converged
        assert pyhf.Workspace(names["workspace"]).model().config.poi_name == "mu"
        return
    if "pl.Network" in block or "class Wrapped" in block:
        names = {}
        exec(block, names)
        assert "result" not in names or np.isfinite(names["result"].gain.value)
        return
    model = pyhf.simplemodels.uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    workspace = pyhf.Workspace.build(model, [55.0, 60.0, *model.config.auxdata])
    (tmp_path / "runs" / "quickstart" / "workspace.json").write_text(json.dumps(workspace))
    names = {}
    exec(block, names)
    assert float(names["z"]) > 0
    assert names["slope"].nominal.shape == (2, 2)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    """Python and YAML are run here; commands and text are not."""
    opened = re.findall(r"^```(\w*)\n.*?^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert set(opened) <= {"python", "yaml", "bash", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_can_be_loaded(page, tmp_path):
    """Those that start from one of ours are told from manifests by that."""
    for config in ROOT.joinpath("configs").glob("*"):
        shutil.copy(config, tmp_path)
    (tmp_path / "configs").symlink_to(tmp_path)
    for number, block in enumerate(blocks(page, "yaml")):
        if "extends:" in block or "measurement:" in block:
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
