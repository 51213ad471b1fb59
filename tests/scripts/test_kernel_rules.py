"""The experiment on rules for bandwidths and errors: on derivatives whose noise and bias are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline.config import load_config  # noqa: E402

import kernel_rules  # noqa: E402
from kernel_rules import BATCHES, FACTORS, SUBSAMPLES, Place, by_dataset, coverages, gradient, quality, rules  # noqa: E402

EVENTS = np.array([3200.0, 100.0])
TRUTH = 1.0


def places(number, bias, noise=(1.0, 1.0), cuts=25):
    """Derivatives of two data sets with the noise of a kernel, σ²/h, in each subsample, and a bias of c h²."""
    generator, made = np.random.default_rng(3), []
    # Kernels of all widths share their events: noise of a width has that of all wider ones in it.
    steps = np.sqrt(np.diff(1 / FACTORS[::-1], prepend=0))
    for _ in range(number):
        drawn = generator.normal(size=(SUBSAMPLES, len(FACTORS), cuts, 1, 2)) * steps[:, None, None, None]
        shared = np.cumsum(drawn, axis=1)[:, ::-1] * np.array(noise) / np.sqrt(SUBSAMPLES)
        expected = TRUTH + np.asarray(bias) * FACTORS[:, None, None, None] ** 2
        made.append(Place(shared + expected / SUBSAMPLES, EVENTS))
    return made


def test_a_data_set_with_fewer_events_has_a_wider_kernel():
    np.testing.assert_allclose(by_dataset(EVENTS), [1, 2])
    np.testing.assert_allclose(by_dataset(np.array([5.0, 5.0])), 1)
    assert by_dataset(np.array([1e9, 0.0]))[1] == kernel_rules.CLIP


def test_the_samples_of_a_process_share_a_kernel():
    events = np.array([3200.0, 800.0, 100.0])
    wanted = rules([0, 1, 0], kinematics=2)
    np.testing.assert_allclose(wanted["by process"](events), [8**0.2, 1, 8**0.2])
    np.testing.assert_allclose(wanted["variations √2 wider"](events), [[1] * 3, [np.sqrt(2)] * 3])


def test_each_data_set_and_variation_is_asked_at_its_own_width():
    derivatives = np.broadcast_to(FACTORS[:, None, None, None], (2, len(FACTORS), 1, 2, 3))
    wanted = np.array([[1.0, 2.0, 4.0], [0.5, 1.05, 1.0]])
    np.testing.assert_allclose(gradient(derivatives, wanted), 1 + 2 + 4 + 0.5 + 1 + 1)


def test_noise_and_bias_are_those_of_the_derivatives():
    """The first data set has no bias, the second one 2 h²; the unit is the noise of one part at factor 1."""
    noise, bias = kernel_rules.noise_and_bias(places(20, [0.0, 2.0]), kernel_rules.one_width, 2.0, parts=4).mean(axis=1)
    assert noise == pytest.approx(0.5, rel=0.02)
    assert bias == pytest.approx((2 * 4) ** 2 / 8, rel=0.1)


def test_a_rule_that_only_widens_is_no_better_than_a_wider_kernel():
    """Both data sets have the same noise; there is no bias."""
    named = rules([0, 1], kinematics=1)
    rule = quality(places(12, 0.0), named, "by data set", 1.0, parts=2)
    assert rule.rmse[0] < 0.9
    assert abs(rule.more[0]) < 3 * rule.more[1] < 0.1


def test_a_rule_that_knows_where_the_noise_is_is_better():
    """All the noise is in the small data set, all the bias in the large one."""
    named = rules([0, 1], kinematics=1)
    rule = quality(places(12, [0.7, 0.0], noise=(0.01, 1.0)), named, "by data set", 1.0, parts=2)
    assert rule.more[0] < -5 * rule.more[1] < 0


def test_the_statistical_error_holds_where_there_is_no_bias_and_the_other_one_is_too_large():
    statistical, with_bias = coverages(places(20, 0.0), 2.0, parts=4)
    for (share, error), expected in zip(statistical.within, (0.683, 0.954), strict=True):
        assert 0 < error < 0.03
        assert share == pytest.approx(expected, abs=0.03)
    assert statistical.size == 1
    assert with_bias.within[0][0] > statistical.within[0][0] + 0.02
    assert with_bias.size > 1.1


def test_where_the_bias_is_large_only_the_other_one_holds():
    """Ten times the noise of a part."""
    statistical, with_bias = coverages(places(20, [0.0, 5.0]), 2.0, parts=4)
    assert statistical.within[1][0] < 0.05
    assert with_bias.within[1][0] > 0.9


def test_subsamples_are_enough_for_the_batches_of_many_parts():
    assert SUBSAMPLES % (8 * BATCHES) == 0


@pytest.mark.parametrize(("factor", "fine"), [(0.5, True), (0.4, False), (4.0, True), (5.0, False)])
def test_factors_without_a_kernel_half_as_wide_are_one_sentence(factor, fine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kernel_rules.py", "--factors", str(factor)])
    if fine:
        assert kernel_rules.parse().factors == [factor]
    else:
        with pytest.raises(SystemExit):
            kernel_rules.parse()
        assert "--factors must be between 0.5 and 4" in capsys.readouterr().err


@pytest.mark.slow
def test_the_derivatives_add_up_to_the_gradient_of_the_engine(monkeypatch):
    from pipeline.analysis import evaluate
    from pipeline.events.cuts import arrays
    from pipeline.problem import whole

    config = load_config(REPOSITORY / "configs" / "quickstart.yaml")
    analysis, default, data = whole(kernel_rules.reaching(config, FACTORS[-1]))
    cuts = {name: cut for name, cut in config.cuts.items() if cut.trainable}
    monkeypatch.setattr(kernel_rules, "FACTORS", np.array([1.0, 2.0]))
    found = kernel_rules.place(analysis, default, data, cuts)
    widths = arrays({name: 2 * cut.bandwidth for name, cut in cuts.items()})
    engine = evaluate(analysis, arrays(default), widths, data).gradient
    total = gradient(found.derivatives, np.full(len(found.events), 2.0)).sum(axis=0)
    np.testing.assert_allclose(total, [float(engine.value[name]) for name in cuts], rtol=1e-6)
