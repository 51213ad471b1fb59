"""The likelihood against pyhf: the same numbers, and the derivatives that pyhf's own numbers have."""

import copy
import dataclasses
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from hypothesis import strategies as st
from pipeline.inference.histfactory import expected_data, from_pyhf, logpdf
from pipeline.inference.histfactory.likelihood import SMALLEST_RATE, deviance, saturated_logpdf, terms

from reference import agc_workspace
from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, WRITTEN_OUT, large_workspace, random_workspaces

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")

ALL_CODES = [("code4", "code4p"), ("code1", "code0"), ("code4", "code2")]


@partial(quick_jit, static_argnums=0)
def evaluate(structure, numbers, point, data):
    return expected_data(structure, numbers, point), logpdf(structure, numbers, point, data)


def build(workspace, codes=("code4", "code4p")):
    settings = {"normsys": {"interpcode": codes[0]}, "histosys": {"interpcode": codes[1]}}
    model = pyhf.Workspace(workspace).model(modifier_settings=settings)
    return model, np.array(pyhf.Workspace(workspace).data(model)), from_pyhf(workspace, modifier_settings=settings)


def random_point(model, seed):
    """Anywhere within the bounds; half of the interpolated ones inside (-1, 1), some exactly at -1, 0 or 1."""
    rng = np.random.default_rng(seed)
    lower, upper = np.array(model.config.suggested_bounds(), dtype=float).T
    point = rng.uniform(lower, np.minimum(upper, 3.0))
    inside = (lower < -1) & (rng.uniform(size=len(point)) < 0.5)
    point = np.where(inside, rng.uniform(-1, 1, len(point)), point)
    edges = rng.choice([-1.0, 0.0, 1.0], len(point))
    return np.where((lower < -1) & (rng.uniform(size=len(point)) < 0.15), edges, point)


def assert_equal_to_pyhf(model, data, parts, point):
    structure, numbers, ours = parts
    np.testing.assert_array_equal(ours, data)
    theirs = model.expected_data(point)
    # A bin in which large shifts cancel has lost digits in both programs: compare with the size of what was added.
    scale = np.concatenate([_largest_terms(model, point), np.abs(theirs[model.config.nmaindata :])])
    mine, mine_logpdf = evaluate(structure, numbers, jnp.asarray(point), ours)
    np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12 * max(1.0, scale.max()))
    rates = theirs[: model.config.nmaindata]
    if np.all(rates > 1e-6 * scale.max()):
        np.testing.assert_allclose(mine_logpdf, model.logpdf(point, data)[0], rtol=1e-10)


def _largest_terms(model, point):
    deltas, factors = model._modifications(np.asarray(point))
    added = np.concatenate([np.abs(part) for part in [*deltas, np.asarray(model.nominal_rates)]]).sum(axis=0)
    for factor in factors:
        added = added * np.abs(np.prod(factor, axis=0))
    return added.sum(axis=0).ravel()


@pytest.mark.parametrize(
    ("name", "codes"),
    [*((name, ALL_CODES[0]) for name in WRITTEN_OUT), *(("everything", codes) for codes in ALL_CODES[1:])],
)
def test_equals_pyhf_on_workspaces_of_its_documentation(name, codes):
    model, data, parts = build(WRITTEN_OUT[name], codes)
    for seed in range(20):
        assert_equal_to_pyhf(model, data, parts, random_point(model, seed))


@pytest.mark.slow
def test_equals_pyhf_on_a_workspace_of_published_size():
    model, data, parts = build(large_workspace())
    assert model.config.npars >= 100
    for seed in range(5):
        assert_equal_to_pyhf(model, data, parts, random_point(model, seed))


RANDOM = hypothesis.given(workspace=random_workspaces(), codes=st.sampled_from(ALL_CODES), seed=st.integers(0, 1000))


@pytest.mark.slow
@hypothesis.settings(max_examples=6, deadline=None)
@RANDOM
def test_equals_pyhf_on_a_few_random_workspaces(workspace, codes, seed):
    model, data, parts = build(workspace, codes)
    assert_equal_to_pyhf(model, data, parts, random_point(model, seed))


@pytest.mark.long
@hypothesis.settings(max_examples=100, deadline=None)
@RANDOM
def test_equals_pyhf_on_many_random_workspaces(workspace, codes, seed):
    model, data, parts = build(workspace, codes)
    assert_equal_to_pyhf(model, data, parts, random_point(model, seed))


@pytest.mark.parametrize("files", ["1", "10", "all"])
def test_equals_pyhf_on_the_agc(external_data, files):
    model, data, parts = build(agc_workspace.build(external_data / f"histos_{files}_file_per_process.json"))
    for seed in range(10):
        assert_equal_to_pyhf(model, data, parts, random_point(model, seed))


# agc-spec, section 13.5: minus twice the logarithm of the likelihood of the pseudo-data, by an independent program.
AGC_POINTS = {0.5: 6051.113835, -0.7: 33994.261444, 1.8: 180630.188770, -2.3: 221877.173955}


def test_the_agc_at_published_points(external_data):
    structure, numbers, data = from_pyhf(agc_workspace.build(external_data / "histos_all_file_per_process.json"))
    nominal = jnp.array([value for one in structure.parameter_sets for value in one.initial])
    is_alpha = np.array([one.bounds[0][0] == -5 for one in structure.parameter_sets for _ in range(one.size)])
    is_norm = np.array([one.name == structure.poi for one in structure.parameter_sets for _ in range(one.size)])
    assert -2 * float(evaluate(structure, numbers, nominal, data)[1]) == pytest.approx(340.801710, abs=1e-6)
    for alpha, expected in AGC_POINTS.items():
        point = jnp.where(is_alpha, alpha, jnp.where(is_norm, 0.9, 1.0))
        assert -2 * float(evaluate(structure, numbers, point, data)[1]) == pytest.approx(expected, abs=1e-6)


def derivative_by_pyhf(workspace, path, point, data):
    """The central difference of pyhf's likelihood, the model rebuilt with one number of the JSON changed."""

    def at(shift):
        changed = copy.deepcopy(workspace)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += shift
        # Validated once, before: the schema takes longer than the model.
        return pyhf.Workspace(changed, validate=False).model(validate=False).logpdf(point, data)[0]

    h = 1e-4
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def paths_of_numbers(workspace):
    """Every number of the JSON that is not zero, with the leaf and the index of `Numbers` that holds it."""
    structure, _, _ = from_pyhf(workspace)
    starts = dict(
        zip([c.name for c in structure.channels], np.cumsum([0, *(c.bins for c in structure.channels)]), strict=False)
    )
    rows = {
        kind: [m.name for m in structure.modifiers if m.kind == kind] for kind in ("normsys", "histosys", "shapesys")
    }
    for c, channel in enumerate(workspace["channels"]):
        column = [one.name for one in structure.channels].index(channel["name"])
        for s, sample in enumerate(channel["samples"]):
            row = structure.samples.index(sample["name"])
            place = ("channels", c, "samples", s)
            bins = range(len(sample["data"]))
            start = int(starts[channel["name"]])
            yield from ((("nominal", (row, start + b)), (*place, "data", b)) for b in bins)
            for m, one in enumerate(sample["modifiers"]):
                inside = (*place, "modifiers", m, "data")
                if one["type"] == "normsys":
                    i = rows["normsys"].index(one["name"])
                    yield from (((f"normsys_{side}", (i, row, column)), (*inside, side)) for side in ("lo", "hi"))
                elif one["type"] == "histosys":
                    i = rows["histosys"].index(one["name"])
                    for side in ("lo", "hi"):
                        yield from (
                            ((f"histosys_{side}", (i, row, start + b)), (*inside, f"{side}_data", b)) for b in bins
                        )
                elif one["type"] == "staterror":
                    yield from ((("staterror", (row, start + b)), (*inside, b)) for b in bins)
                elif one["type"] == "shapesys":
                    i = rows["shapesys"].index(one["name"])
                    yield from ((("shapesys", (i, start + b)), (*inside, b)) for b in bins)


def value_at(workspace, path):
    for key in path:
        workspace = workspace[key]
    return workspace


by_numbers = quick_jit(jax.grad(logpdf, argnums=1), static_argnums=0)


@pytest.mark.parametrize("alpha", [0.4, 1.7, -0.6, -2.1])
def test_derivative_with_respect_to_every_number_of_the_json(alpha):
    structure, numbers, data = from_pyhf(EVERYTHING)
    model = pyhf.Workspace(EVERYTHING).model()
    lower = np.array(model.config.suggested_bounds(), dtype=float)[:, 0]
    point = np.where(lower == -5, alpha, 1.05)
    gradient = by_numbers(structure, numbers, jnp.asarray(point), data)
    checked = 0
    for (leaf, index), path in paths_of_numbers(EVERYTHING):
        # At zero a yield or an uncertainty has no two-sided derivative: pyhf holds the parameter there.
        if value_at(EVERYTHING, path) == 0 or (leaf == "histosys_lo" and numbers.nominal[index[1:]] == 0):
            continue
        expected = derivative_by_pyhf(EVERYTHING, path, point, np.asarray(data))
        np.testing.assert_allclose(getattr(gradient, leaf)[index], expected, rtol=1e-6, atol=1e-7, err_msg=str(path))
        checked += 1
    assert checked > 30


@partial(quick_jit, static_argnums=0)
def slope_and_curvature(structure, numbers, point, data):
    slope = jax.grad(logpdf, argnums=2)
    return slope(structure, numbers, point, data), jax.jacfwd(slope, argnums=2)(structure, numbers, point, data)


def test_gradient_and_hessian_in_the_parameters():
    structure, numbers, data = from_pyhf(EVERYTHING)
    model = pyhf.Workspace(EVERYTHING).model()
    point = random_point(model, 4)
    gradient, hessian = slope_and_curvature(structure, numbers, jnp.asarray(point), data)

    def slope(x, i, h):
        e = np.eye(len(x))[i]
        f = [model.logpdf(x + k * h * e, np.asarray(data))[0] for k in (-2, -1, 1, 2)]
        return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)

    size = range(len(point))
    np.testing.assert_allclose(gradient, [slope(point, i, 1e-4) for i in size], rtol=1e-7, atol=1e-7)
    eye = np.eye(len(point))
    by_differences = [
        [(slope(point + 1e-3 * eye[j], i, 1e-3) - slope(point - 1e-3 * eye[j], i, 1e-3)) / 2e-3 for i in size]
        for j in size
    ]
    np.testing.assert_allclose(hessian, by_differences, rtol=2e-4, atol=2e-4 * np.abs(hessian).max())
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12, atol=1e-12 * np.abs(hessian).max())


def test_a_rate_that_is_not_positive_has_a_finite_likelihood_that_points_upwards():
    structure, numbers, data = from_pyhf(WRITTEN_OUT["coupled histosys"])
    overshoot = dataclasses.replace(numbers, histosys_lo=numbers.histosys_lo - 200.0)
    point = jnp.array([-1.0 if name == "coupled_histosys" else 1.0 for name in ("coupled_histosys", "mu")])
    rates, value = evaluate(structure, overshoot, point, data)
    assert np.any(rates[:4] < 0)
    assert np.isnan(pyhf.tensorlib.poisson_logpdf(np.array(10.0), np.array(-1.0)))  # what pyhf makes of such a bin
    slope, hessian = slope_and_curvature(structure, overshoot, point, data)
    assert np.isfinite(value)
    assert slope[0] > 0  # back to alpha = 0
    assert np.all(np.isfinite(hessian))


def test_the_continued_logarithm_is_smooth_and_leaves_other_rates_alone():
    from pipeline.inference.histfactory.likelihood import _safe_log

    x = jnp.array([1e-9, 1e-3, 7.0])
    np.testing.assert_array_equal(_safe_log(x), jnp.log(x))
    below, above = jnp.array([SMALLEST_RATE * (1 - 1e-9)]), jnp.array([SMALLEST_RATE * (1 + 1e-9)])
    first = jax.grad(lambda v: _safe_log(v)[0])
    second = jax.grad(lambda v: first(v)[0])
    orders = quick_jit(lambda v: (_safe_log(v), first(v), second(v)))
    for low, high in zip(orders(below), orders(above), strict=True):
        np.testing.assert_allclose(low, high, rtol=1e-6)


def test_32_bits_are_refused():
    structure, numbers, data = from_pyhf(WRITTEN_OUT["hello world"])
    point = jnp.ones(structure.size)
    with pytest.raises(TypeError, match="the numbers are float32"):
        logpdf(structure, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), numbers), point, data)
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(TypeError, match="JAX computes in float32: a likelihood needs 64 bits"):
            logpdf(structure, numbers, point, data)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_deviance_is_zero_where_the_model_fits_every_datum():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    point = jnp.array([1.0 if low >= 0 else 0.0 for one in structure.parameter_sets for low, _ in one.bounds])

    @quick_jit
    def of(numbers, point):
        model, data = terms(structure, numbers), expected_data(structure, numbers, point)
        return data, deviance(structure, model, point, data), saturated_logpdf(structure, model, data)

    data, zero, saturated = of(numbers, point)
    assert float(zero) == 0.0
    assert float(saturated) == pytest.approx(
        pyhf.Workspace(EVERYTHING).model().logpdf(np.asarray(point), np.asarray(data))[0], rel=1e-12
    )
