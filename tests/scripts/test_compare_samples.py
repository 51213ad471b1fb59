"""The comparison with the published histograms, fed with the published histograms themselves: everything must agree."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.config import load_config
from pipeline.inference.templates import Templates

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from scripts.samples import compare as script  # noqa: E402

FINE = np.linspace(50, 550, 26)  # GeV, the published bins


def variations(config):
    return ["nominal", *config.variations]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs" / "agc.yaml")


@pytest.fixture(scope="module")
def published(config):
    """Made-up histograms under the AGC's names; W+jets knows no variation."""
    generator = np.random.default_rng(1)
    names = [f"{r}_{p}" for r in config.regions for p in config.processes]
    names += [f"{r}_ttbar_{v}" for r in config.regions for v in variations(config)[1:]]
    return {name: {"edges": FINE.tolist(), "contents": generator.uniform(5, 50, 27).tolist()} for name in names}


@pytest.fixture(scope="module")
def templates(config, published):
    def yields(process, variation):
        def of(region):
            nominal = f"{region}_{process}"
            return np.asarray(published.get(f"{nominal}_{variation}", published[nominal])["contents"])

        return np.concatenate([of(region)[4:26].reshape(11, 2).sum(axis=1) for region in config.regions])

    table = jnp.asarray([[yields(process, v) for process in config.processes] for v in variations(config)])
    return Templates(yields=table, variance=table[0])


def test_equal_histograms_compare_as_equal(config, published, templates):
    pairs = list(script.compare(config, templates, published))
    assert len(pairs) == len(published)
    for pair in pairs:
        np.testing.assert_allclose(pair.ours, pair.published, rtol=1e-12)
    for effects in (script._both(pair, nominal) for pair, nominal in script._varied(pairs)):
        counted = np.ones(11, bool)
        assert script._effect(*effects[0], counted) == pytest.approx(script._effect(*effects[1], counted))


def test_a_difference_is_seen(config, published, templates):
    scaled = Templates(yields=1.5 * templates.yields, variance=templates.variance)
    table = script.yield_table(list(script.compare(config, scaled, published)))
    (ratios,) = (column for column in table.columns if column.header == "ours / AGC")
    assert set(ratios.cells) == {"1.500"}


def test_an_effect_is_a_factor_and_a_change_of_shape():
    factor, shape = script._effect(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([True, True]))
    assert (factor, shape) == (2.0, pytest.approx(-0.5))
    assert script._effect(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([False, True]))[1] == pytest.approx(0.5)


def test_bins_that_do_not_fit_are_an_error(published):
    histogram = next(iter(published.values()))
    np.testing.assert_allclose(script.rebinned(histogram, FINE), histogram["contents"][1:-1])
    for edges in (np.array([110.0, 155.0]), np.array([510.0, 590.0])):
        with pytest.raises(ValueError, match="do not fit the published edges"):
            script.rebinned(histogram, edges)


@pytest.mark.slow
def test_tables_and_plots_of_the_command_line(monkeypatch, templates, published, tmp_path, capsys):
    reference = tmp_path / "histograms.json"
    reference.write_text(json.dumps(published))
    monkeypatch.setattr(script, "our_templates", lambda _: templates)
    assert script.main(["--reference", str(reference), "--output", str(tmp_path / "plots")]) == 2
    text = capsys.readouterr().out
    assert "1.000" in text
    assert "error" in text  # of the bins of made-up templates, which are counted as events
    assert "scaledown" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"nominal.png", "variations.png"}


def test_a_file_of_another_kind_is_one_sentence(monkeypatch, templates, tmp_path, capsys):
    reference = tmp_path / "histograms.json"
    reference.write_text("{}")
    monkeypatch.setattr(script, "our_templates", lambda _: templates)
    assert script.main(["--reference", str(reference)]) == 1
    assert capsys.readouterr().err == (
        "error: the reference has no histogram '4j1b_ttbar'; is it the AGC's file for the ttbar task?\n"
    )


def test_a_missing_file_and_help(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["--reference", str(tmp_path / "none.json")])
    assert ended.value.code == 2
    assert "there is no file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert "Example:" in capsys.readouterr().out


def test_a_missed_bar_is_named():
    good = script.Pair(
        region="4j1b",
        process="ttbar",
        variation="nominal",
        ours=np.full(4, 100.0),
        error=np.full(4, 4.0),
        published=np.full(4, 100.0),
    )
    assert good.misses == ()
    assert replace(good, ours=np.full(4, 115.0)).misses == ("yield",)
    assert replace(good, ours=np.array([80.0, 120.0, 100.0, 100.0])).misses == ("shape",)
    assert replace(good, error=np.full(4, 6.0)).misses == ("error",)
    assert replace(good, process="wjets", ours=np.full(4, 130.0), error=np.full(4, 50.0)).misses == ()


@pytest.mark.long
def test_our_analysis_stands_near_the_published_one(config, external_data):
    """The simulated samples are tuned to the yields of ttbar, and have enough events in every bin."""
    published = json.loads((external_data / "histos_all_file_per_process.json").read_text())
    pairs = list(script.compare(config, script.our_templates(config), published))
    assert len(pairs) == 122
    assert [pair for pair in pairs if pair.misses] == []
    for pair, nominal in script._varied(pairs):
        if pair.variation == "scale_var_up" and pair.process == "wjets":
            np.testing.assert_allclose(pair.ours, 1.025 * nominal.ours, rtol=1e-6)
