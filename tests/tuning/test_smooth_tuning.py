"""What a smooth analysis changes in a run: the loss that is searched, and nothing of what is reported."""

from dataclasses import replace

import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.config import load_config
from pipeline.errors import InputError
from pipeline.events.cuts import arrays
from pipeline.inference.objectives import loss_of
from pipeline.names import names_of
from pipeline.parts import make_data
from pipeline.problem import Problem, read
from pipeline.translation import make_analysis
from pipeline.tuning.tune import evaluation, tune

from analysis_data import ROOT, default_thresholds

pytestmark = pytest.mark.slow

SMOOTH = {"optimiser": {"name": "lbfgs", "forward": "smooth", "steps": 3}}


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A tenth of the committed events."""
    config = load_config(ROOT / "configs" / "agc_precision.yaml", SMOOTH)
    names, samples = names_of(config), read(config)
    analysis = make_analysis(config, names, len(samples))
    masks = [np.arange(len(sample.events)) % 10 == 0 for sample in samples]
    (data,) = make_data(config, names, analysis, samples, [masks])
    return Problem(config=config, analysis=analysis, training=data, validation=data, stopping=None, samples=samples)


def exact_loss(problem: Problem, thresholds) -> float:
    at = arrays(default_thresholds(problem.config) | thresholds)
    return float(loss_of(problem.analysis.objective, exact.merit_of(problem.analysis, at, problem.training)))


def test_the_loss_is_smooth_and_the_figure_of_merit_exact(problem):
    widths = arrays({name: one.bandwidth for name, one in problem.config.thresholds.items() if one.trainable})
    at = arrays(default_thresholds(problem.config))
    here = evaluation(problem)(at, widths)
    smoothly = exact.evaluate(problem.analysis, at, widths, problem.training, smooth=True)
    smooth, slope = smoothly.loss, smoothly.gradient.value
    assert float(here.loss) == float(smooth) != float(here.merit.value)
    assert float(here.merit.value) == exact_loss(problem, {})
    assert here.gradient.value == slope
    assert all(0 < here.gradient.error[name] < np.inf for name in widths)


@pytest.mark.long
def test_a_search_descends_and_the_best_step_is_the_best_by_the_exact_analysis(problem):
    steps = tuple(tune(problem))
    found = [exact_loss(problem, step.thresholds) for step in steps]
    assert [step.monitored for step in steps] == found == [float(step.merit.value) for step in steps]
    assert steps[-1].best_loss == min(found) < found[0]
    assert steps[-1].best == steps[int(np.argmin(found))].thresholds
    # The line search took a step of another length than the optimiser's own guess: it has looked at the loss.
    assert steps[1].loss < steps[0].loss


def test_kernels_that_cost_too_much_are_refused(problem):
    cuts = dict(problem.config.cuts)
    for name, width in (("jet_pt", 400.0), ("jet_btag", 5.0)):
        cuts[name] = cuts[name].model_copy(update={"bandwidth": width})
    wide = problem.config.model_copy(update={"cuts": cuts})
    with pytest.raises(InputError, match=r"optimiser\.forward: smooth would look at .* narrower, or choose 'exact'"):
        next(tune(replace(problem, config=wide)))
