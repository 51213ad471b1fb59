"""The comparison with the published histograms, fed with the published histograms themselves: everything must agree."""

import importlib.util
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.config import load_config
from pipeline.inference.templates import Templates
from pipeline.problem import variations

ROOT = Path(__file__).parents[1]
FINE = np.linspace(50, 550, 26)  # GeV, the published bins


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("agc_reference", ROOT / "scripts" / "agc_reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["agc_reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["agc_reference"]


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


def test_equal_histograms_compare_as_equal(script, config, published, templates):
    pairs = list(script.compare(config, templates, published))
    assert len(pairs) == len(published)
    for pair in pairs:
        np.testing.assert_allclose(pair.ours, pair.published, rtol=1e-12)
    for effects in (script._both(pair, nominal) for pair, nominal in script._varied(pairs)):
        counted = np.ones(11, bool)
        assert script._effect(*effects[0], counted) == pytest.approx(script._effect(*effects[1], counted))


def test_a_difference_is_seen(script, config, published, templates):
    scaled = Templates(yields=1.5 * templates.yields, variance=templates.variance)
    table = script.yield_table(list(script.compare(config, scaled, published)))
    (ratios,) = (column for column in table.columns if column.header == "ours / AGC")
    assert set(ratios.cells) == {"1.500"}


def test_an_effect_is_a_factor_and_a_change_of_shape(script):
    factor, shape = script._effect(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([True, True]))
    assert (factor, shape) == (2.0, pytest.approx(-0.5))
    assert script._effect(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([False, True]))[1] == pytest.approx(0.5)


def test_bins_that_do_not_fit_are_an_error(script, published):
    histogram = next(iter(published.values()))
    np.testing.assert_allclose(script.rebinned(histogram, FINE), histogram["contents"][1:-1])
    for edges in (np.array([110.0, 155.0]), np.array([510.0, 590.0])):
        with pytest.raises(ValueError, match="do not fit the published edges"):
            script.rebinned(histogram, edges)


def test_tables_and_plots_of_the_command_line(script, monkeypatch, templates, published, tmp_path, capsys):
    reference = tmp_path / "histograms.json"
    reference.write_text(json.dumps(published))
    monkeypatch.setattr(script, "our_templates", lambda _: templates)
    assert script.main(["--reference", str(reference), "--output", str(tmp_path / "plots")]) == 0
    text = capsys.readouterr().out
    assert "1.000" in text
    assert "scaledown" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"nominal.png", "variations.png"}


def test_a_file_of_another_kind_is_one_sentence(script, monkeypatch, templates, tmp_path, capsys):
    reference = tmp_path / "histograms.json"
    reference.write_text("{}")
    monkeypatch.setattr(script, "our_templates", lambda _: templates)
    assert script.main(["--reference", str(reference)]) == 1
    assert capsys.readouterr().err == (
        "error: the reference has no histogram '4j1b_ttbar'; is it the AGC's file for the ttbar task?\n"
    )


def test_a_missing_file_and_help(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["--reference", str(tmp_path / "none.json")])
    assert ended.value.code == 2
    assert "there is no file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert "Example:" in capsys.readouterr().out


@pytest.mark.slow
def test_our_analysis_stands_near_the_published_one(script, config, external_data):
    """The simulated samples are tuned to the yields of ttbar; the bars of the others are those of the samples."""
    published = json.loads((external_data / "histos_all_file_per_process.json").read_text())
    pairs = list(script.compare(config, script.our_templates(config), published))
    assert len(pairs) == 122
    for pair in pairs:
        if pair.variation == "nominal":
            bar = 0.10 if pair.process == "ttbar" else 0.40
            assert abs(pair.ours.sum() / pair.published.sum() - 1) < bar
        if pair.variation == "scale_var_up":
            (nominal,) = (n for p, n in script._varied(pairs) if p is pair)
            np.testing.assert_allclose(pair.ours, 1.025 * nominal.ours, rtol=1e-6)
