"""Every figure of merit that a config may name: its derivative by the yields, its direction, its order of magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.inference import objectives
from pipeline.inference.histfactory import from_pyhf
from pipeline.inference.objectives import Objective, figure_of_merit, loss_of

from reference.workspaces import HELLO_WORLD
from small_analysis import THRESHOLDS, arrays, small_analysis, small_data

OBJECTIVES = [
    Objective("discovery_significance"),
    Objective("signal_strength_uncertainty"),
    Objective("expected_upper_limit"),
    Objective("expected_upper_limit", "CLs+b", 0.9),
    Objective("counting_significance"),
]


def name(objective: Objective) -> str:
    return f"{objective.name} {objective.method}"


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=[name(objective) for objective in OBJECTIVES])
def test_the_slope_by_the_yields_is_the_finite_difference(objective):
    analysis, data = small_analysis()._replace(objective=objective), small_data()
    yields = exact.yields_at(analysis, arrays(THRESHOLDS), data)
    (_, merit), slope = exact.loss_of_yields_and_slope(yields, analysis, data.recipe)
    assert bool(merit.converged)
    direction = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, yields.shape)) * yields
    step = 1e-4

    def moved(way: int) -> float:
        (loss, _), _ = exact.loss_of_yields_and_slope(yields + way * step * direction, analysis, data.recipe)
        return float(loss)

    numeric = (moved(1) - moved(-1)) / (2 * step)
    np.testing.assert_allclose(float(jnp.vdot(slope, direction)), numeric, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES, ids=[name(objective) for objective in OBJECTIVES])
def test_twice_the_events_are_better(objective):
    """Twice the signal and the background, and four times the simulated events: every loss must fall."""
    analysis, data = small_analysis()._replace(objective=objective), small_data()
    yields = exact.yields_at(analysis, arrays(THRESHOLDS), data)
    losses = [float(exact.loss_of_yields_and_slope(f * yields, analysis, data.recipe)[0][0]) for f in (1.0, 2.0)]
    assert losses[1] < losses[0]


@pytest.mark.long
def test_rules_of_thumb_stay_near_the_likelihood():
    """With little signal and small uncertainties s / sqrt(b + σ²) is the significance of the likelihood."""
    analysis, data = small_analysis(), small_data()
    numbers = exact.numbers_of(analysis, arrays(THRESHOLDS), data)
    faint = numbers.nominal.at[list(analysis.structure.samples).index("signal")].multiply(0.05)
    quiet = jax.tree.map(jnp.asarray, numbers)
    quiet = type(numbers)(
        **{
            **vars(quiet),
            "nominal": faint,
            "histosys_lo": jnp.broadcast_to(faint, numbers.histosys_lo.shape),
            "histosys_hi": jnp.broadcast_to(faint, numbers.histosys_hi.shape),
            "normsys_lo": jnp.full_like(numbers.normsys_lo, 0.999),
            "normsys_hi": jnp.full_like(numbers.normsys_hi, 1.001),
        }
    )
    z, counted = (
        float(figure_of_merit(Objective(objective), analysis.structure, quiet).value)
        for objective in ("discovery_significance", "counting_significance")
    )
    assert z > 0.1
    assert counted == pytest.approx(z, rel=0.1)


@pytest.mark.slow
def test_the_sign_of_the_loss():
    analysis, data = small_analysis(), small_data()
    numbers = exact.numbers_of(analysis, arrays(THRESHOLDS), data)
    for objective in OBJECTIVES:
        merit = figure_of_merit(objective, analysis.structure, numbers)
        assert float(merit.value) > 0
        assert (float(loss_of(objective, merit)) < 0) == objective.larger_is_better


def test_a_new_objective_is_one_function():
    @objectives.register(symbol="N", larger_is_better=False)
    def expected_events(structure, numbers, objective):
        return objectives.Merit(
            value=jnp.sum(numbers.nominal),
            converged=jnp.asarray(True),
            gradient_norm=jnp.zeros(()),
            iterations=jnp.zeros((), jnp.int32),
        )

    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    mine = objectives.Objective("expected_events")
    try:
        merit = objectives.figure_of_merit(mine, structure, numbers)
        assert float(merit.value) == 125.0
        assert float(objectives.loss_of(mine, merit)) == 125.0
        assert mine.symbol == "N"
    finally:
        del objectives.OBJECTIVES["expected_events"]
    with pytest.raises(ValueError, match="'expected_events' is not known; choose one of discovery_significance"):
        objectives.figure_of_merit(mine, structure, numbers)
