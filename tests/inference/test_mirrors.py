"""Where a smaller minimum may lie, against where there is one: SciPy from every combination of signs."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from pipeline.inference import valleys
from pipeline.inference.fit import fit_at_once
from pipeline.inference.histfactory import bounds, from_pyhf, initial_parameters, parameter_names
from pipeline.inference.histfactory.constraints import interpolated_positions
from pipeline.inference.histfactory.expansion import expanded_deviance
from pipeline.inference.histfactory.likelihood import terms

from reference.workspaces import EVERYTHING, MU, SCALED_SHAPE, few_bins_many_systematics, modifier, same_side, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")


def at_once(spec):
    structure, numbers, data = from_pyhf(spec)
    return structure, type(numbers)(**{key: np.asarray(value) for key, value in vars(numbers).items()}), np.array(data)


def corners(structure):
    """A start with every variation on either side, for every combination of sides."""
    positions, start = interpolated_positions(structure), np.array(initial_parameters(structure))
    for signs in itertools.product((-1.0, 1.0), repeat=len(positions)):
        start[positions] = signs
        yield start.copy()


def lowest(structure, numbers, data):
    """The smallest deviance that SciPy finds."""
    model, limits = terms(structure, numbers), np.stack([np.asarray(bound) for bound in bounds(structure)], axis=1)

    def at(point):
        expanded = expanded_deviance(structure, model, point, data)
        return float(expanded.value), np.asarray(expanded.gradient)

    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 500}
    starts = [np.where(point == 1.0, size, point) for point in corners(structure) for size in (0.4, 1.0)]
    return min(
        scipy.optimize.minimize(at, start, jac=True, bounds=limits, method="L-BFGS-B", options=options).fun
        for start in starts
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, pytest.param(3, marks=pytest.mark.long)])
def test_the_lowest_of_several_valleys_is_found_from_everywhere_or_the_rest_is_said(count):
    reached = 0
    for seed in range(6):
        structure, numbers, data = at_once(same_side(seed, count=count))
        smallest = lowest(structure, numbers, data)
        for start in corners(structure):
            found = fit_at_once(structure, numbers, data, initial=start)
            assert found.converged
            is_lowest = float(found.deviance) <= smallest + 1e-5
            assert is_lowest or int(found.left_out) > 0
            reached += is_lowest
    assert reached >= (1.0 if count < 3 else 0.9) * 6 * 2**count


@pytest.mark.slow
def test_two_variations_change_sides_together():
    """In one of the two valleys of this one (0.49, 0.97), in the other, 0.36 lower, (-0.81, -0.46)."""
    structure, numbers, data = at_once(same_side(1))
    ends = [fit_at_once(structure, numbers, data, initial=start) for start in corners(structure)]
    np.testing.assert_allclose([end.deviance for end in ends], lowest(structure, numbers, data), atol=1e-6)
    for end in ends:
        np.testing.assert_allclose(end.parameters[interpolated_positions(structure)], [-0.808, -0.456], atol=1e-3)


@pytest.mark.slow
def test_what_two_variations_do_to_the_same_sample_counts_too():
    """A sample is scaled by one of them, so the shape of the other shrinks: without that nothing is promised.

    The signal is at its bound in the shallow valley, and one of the two variations stays on its side.
    """
    structure, numbers, data = at_once(SCALED_SHAPE)
    found = fit_at_once(structure, numbers, data)
    assert found.converged
    np.testing.assert_allclose(found.deviance, 53.498307693633, atol=1e-8)
    np.testing.assert_allclose(found.deviance, lowest(structure, numbers, data), atol=1e-6)
    best = dict(zip(parameter_names(structure), found.parameters, strict=True))
    assert best["a0"] == pytest.approx(2.2265, abs=1e-3)
    assert best["a1"] == pytest.approx(1.3864, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_costs_at_most_three_times_the_first_fit_or_says_what_it_left_out(seed, monkeypatch):
    structure, numbers, data = at_once(same_side(seed, count=3))
    whole = fit_at_once(structure, numbers, data)
    monkeypatch.setattr(valleys, "BUDGET", 0)
    first = fit_at_once(structure, numbers, data)
    assert int(whole.iterations) <= 4 * int(first.iterations)
    assert float(whole.deviance) <= float(first.deviance) + 1e-9
    assert int(whole.iterations) == int(first.iterations) or int(first.left_out) > 0


def opposite(seed):
    """Variations that go opposite ways up and down, of a size and of data that leave no fit in peace."""
    rng = np.random.default_rng(seed)
    background = rng.uniform(30, 200, 4)
    shape = background * rng.uniform(-0.3, 0.3, 4)
    tilted = {"hi_data": (background + shape).tolist(), "lo_data": (background - shape).tolist()}
    size = 1 + rng.uniform(-0.3, 0.3)
    modifiers = [modifier("histosys", "shape", tilted), modifier("normsys", "size", {"hi": size, "lo": 1 / size})]
    samples = [
        {"name": "background", "data": background.tolist(), "modifiers": modifiers},
        {"name": "signal", "data": rng.uniform(1, 30, 4).tolist(), "modifiers": [MU]},
    ]
    observed = rng.poisson(background * rng.uniform(0.6, 1.6, 4)).astype(float).tolist()
    return workspace([{"name": "SR", "samples": samples}], {"SR": observed})


@pytest.mark.slow
def test_no_search_where_no_variation_can_have_two_valleys(monkeypatch):
    specs = [EVERYTHING, *(opposite(seed) for seed in range(20))]
    searched = [fit_at_once(*at_once(spec)) for spec in specs]
    monkeypatch.setattr(valleys, "BUDGET", 0)
    for spec, whole in zip(specs, searched, strict=True):
        first = fit_at_once(*at_once(spec))
        assert whole.converged
        assert int(first.left_out) == int(whole.left_out) == 0
        assert int(first.iterations) == int(whole.iterations)


def test_nor_is_a_hundred_systematics_searched_one_by_one(monkeypatch):
    """Few of them bend at all, and fewer towards the data."""
    structure, numbers, data = at_once(few_bins_many_systematics(0, systematics=100))
    whole = fit_at_once(structure, numbers, data)
    monkeypatch.setattr(valleys, "BUDGET", 0)
    assert int(whole.iterations) <= 1.5 * int(fit_at_once(structure, numbers, data).iterations)
