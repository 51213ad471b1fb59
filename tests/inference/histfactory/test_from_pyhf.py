"""From pyhf and back: order, starts, bounds, held parameters, patches, and what is refused."""

import copy
import doctest
from functools import partial

import jax
import jax.numpy as jnp
import jsonpatch
import numpy as np
import pipeline.inference.histfactory
import pyhf
import pytest
from pipeline.inference.histfactory import (
    auxdata,
    bounds,
    constraint_widths,
    free_parameters,
    from_pyhf,
    initial_parameters,
    logpdf,
    neutral_numbers,
    nominal_parameters,
    parameter_names,
    to_pyhf,
)

from reference.compiling import quick_jit
from reference.workspaces import EVERYTHING, HELLO_WORLD, MU, WRITTEN_OUT, large_workspace, modifier, workspace

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")


@partial(quick_jit, static_argnums=0)
def properties(structure, numbers):
    """What a structure and its numbers say of every parameter: free, auxiliary datum, width."""
    return (
        free_parameters(structure, numbers),
        auxdata(structure, numbers),
        constraint_widths(structure, numbers),
        nominal_parameters(structure, numbers),
    )


compiled_logpdf = quick_jit(logpdf, static_argnums=0)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_parameters_are_those_of_pyhf(name):
    structure, numbers, data = from_pyhf(WRITTEN_OUT[name])
    config = pyhf.Workspace(WRITTEN_OUT[name]).model().config
    assert parameter_names(structure) == tuple(config.par_names)
    np.testing.assert_array_equal(initial_parameters(structure), config.suggested_init())
    np.testing.assert_array_equal(np.transpose(bounds(structure)), np.array(config.suggested_bounds(), dtype=float))
    free, observed, _, _ = properties(structure, numbers)
    np.testing.assert_array_equal(free, ~np.array(config.suggested_fixed()))
    np.testing.assert_allclose(observed, config.auxdata, rtol=1e-14)
    np.testing.assert_allclose(observed, data[structure.bins :], rtol=1e-14)
    assert parameter_names(structure)[config.poi_index] == structure.poi


def test_widths_are_those_of_pyhf():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    config = pyhf.Workspace(EVERYTHING).model().config
    _, _, widths, _ = properties(structure, numbers)
    for name in config.auxdata_order:
        theirs = config.param_set(name)
        expected = theirs.factors if theirs.pdf_type == "poisson" else theirs.width()
        np.testing.assert_allclose(widths[config.par_slice(name)], expected, rtol=1e-14)


def test_parameters_without_yield_or_uncertainty_are_held():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    free = dict(zip(parameter_names(structure), properties(structure, numbers)[0], strict=True))
    assert not free["stat_CR[1]"]  # no uncertainty
    assert not free["fake_rate[1]"]  # no yield
    assert free["stat_CR[0]"]
    assert free["fake_rate[0]"]


def test_what_the_measurement_says_of_a_parameter_is_kept():
    spec = copy.deepcopy(EVERYTHING)
    spec["measurements"][0]["config"]["parameters"] += [
        {"name": "scale", "fixed": True, "inits": [0.5], "bounds": [[-3, 3]]},
        {"name": "stat_CR", "fixed": False, "sigmas": [0.1, 0.2], "auxdata": [1.0, 1.1]},
        {"name": "fake_rate", "factors": [10.0, 20.0, 30.0], "auxdata": [11.0, 21.0, 31.0]},
    ]
    structure, numbers, data = from_pyhf(spec)
    model = pyhf.Workspace(spec).model()
    free, _, _, nominal = properties(structure, numbers)
    np.testing.assert_array_equal(free, ~np.array(model.config.suggested_fixed()))
    point = 1.1 * initial_parameters(structure) + 0.1
    theirs = model.logpdf(np.asarray(point), np.asarray(data))[0]
    np.testing.assert_allclose(compiled_logpdf(structure, numbers, point, data), theirs, rtol=1e-12)
    assert float(nominal[parameter_names(structure).index("scale")]) == 0.5


def test_models_and_specifications_are_taken_too():
    model = pyhf.simplemodels.correlated_background([12.0, 11.0], [50.0, 52.0], [45.0, 57.0], [55.0, 47.0])
    structure, numbers, data = from_pyhf(model)
    assert data is None
    assert structure == from_pyhf(model.spec)[0]
    point, full = np.array([1.3, 0.4]), np.array([60.0, 70.0, 0.1])
    ours = compiled_logpdf(structure, numbers, jnp.asarray(point), jnp.asarray(full))
    np.testing.assert_allclose(ours, model.logpdf(point, full)[0], rtol=1e-13)


def test_patchsets():
    background = copy.deepcopy(HELLO_WORLD)
    background["channels"][0]["samples"] = background["channels"][0]["samples"][1:]
    signal = {"name": "signal", "data": [4.0, 9.0], "modifiers": [MU]}
    patch = [{"op": "add", "path": "/channels/0/samples/0", "value": signal}]
    patchset = pyhf.PatchSet(
        {
            "metadata": {
                "references": {"hepdata": "ins1234567"},
                "digests": {"sha256": pyhf.utils.digest(background)},
                "labels": ["mass"],
                "description": "a test",
            },
            "patches": [{"metadata": {"name": "mass_1", "values": [1]}, "patch": patch}],
            "version": "1.0.0",
        }
    )
    patched = patchset.apply(background, "mass_1")
    structure, numbers, data = from_pyhf(patched)
    same, same_numbers, same_data = from_pyhf(background, patches=[patchset["mass_1"]])
    assert same == structure
    np.testing.assert_array_equal(same_data, data)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), numbers, same_numbers))
    np.testing.assert_array_equal(numbers.nominal[structure.samples.index("signal")], [4.0, 9.0])
    spec = {"channels": background["channels"]}
    assert from_pyhf(spec, patches=[jsonpatch.JsonPatch(patch)])[0] == structure


def test_measurements_are_chosen_by_name():
    spec = copy.deepcopy(EVERYTHING)
    other = copy.deepcopy(spec["measurements"][0])
    other["name"], other["config"]["poi"] = "other", "top_norm"
    spec["measurements"].append(other)
    assert from_pyhf(spec, "other")[0].poi == "top_norm"
    assert from_pyhf(spec, "measurement")[0].poi == "mu"
    with pytest.raises(ValueError, match="'none of these' is not in the workspace; choose one of measurement, other"):
        from_pyhf(spec, "none of these")


def test_a_structure_is_static():
    structure, _, _ = from_pyhf(EVERYTHING)
    again, numbers, data = from_pyhf(copy.deepcopy(EVERYTHING))
    assert structure == again
    assert hash(structure) == hash(again)
    traces = []

    def traced(structure, numbers, point, data):
        traces.append(1)
        return logpdf(structure, numbers, point, data)

    compiled = quick_jit(traced, static_argnums=0)
    for one in (structure, again):
        compiled(one, numbers, initial_parameters(one), data)
    assert len(traces) == 1


def test_neutral_numbers_expect_nothing():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    neutral = neutral_numbers(structure)
    shapes = jax.tree.map(jnp.shape, numbers)
    assert jax.tree.map(jnp.shape, neutral) == shapes
    assert not neutral.nominal.any()


def test_a_shapefactor_that_does_not_fit_its_channel_is_refused():
    spec = workspace(
        [
            {
                "name": name,
                "samples": [
                    {"name": "background", "data": [5.0] * n, "modifiers": [MU, modifier("shapefactor", "free")]}
                ],
            }
            for name, n in (("A", 2), ("B", 3))
        ],
        {"A": [5.0] * 2, "B": [5.0] * 3},
    )
    with pytest.raises(ValueError, match=r"shapefactor 'free' has 2 parameters.*channel 'B' has 3 bins"):
        from_pyhf(spec)


def test_a_staterror_that_pyhf_refuses_without_a_word_is_explained():
    spec = copy.deepcopy(HELLO_WORLD)
    other = copy.deepcopy(spec["channels"][0])
    other["name"], other["samples"][1]["modifiers"] = "other", []
    spec["channels"].append(other)
    for channel, sample in ((0, 0), (0, 1), (1, 0)):
        spec["channels"][channel]["samples"][sample]["modifiers"].append(modifier("staterror", "stat", [1.0, 1.0]))
    spec["observations"].append({"name": "other", "data": [1.0, 1.0]})
    with pytest.raises(ValueError, match=r"staterror 'stat' acts on sample 'signal' in other, singlechannel, but on"):
        from_pyhf(spec)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_observation_that_is_no_number_is_refused(value):
    spec = copy.deepcopy(HELLO_WORLD)
    spec["observations"][0]["data"][1] = value
    with pytest.raises(ValueError, match="channel 'singlechannel' has an observation that is no finite number"):
        from_pyhf(spec)


def test_a_model_that_clips_is_refused():
    model = pyhf.Model({"channels": HELLO_WORLD["channels"]}, clip_bin_data=0.0)
    with pytest.raises(ValueError, match="clip_bin_data"):
        from_pyhf(model)


def test_a_model_may_have_no_parameter_of_interest():
    assert from_pyhf({"channels": HELLO_WORLD["channels"]}, poi="")[0].poi is None
    assert from_pyhf(HELLO_WORLD, poi="")[0].poi is None


def test_two_staterrors_on_one_sample():
    spec = copy.deepcopy(HELLO_WORLD)
    spec["channels"][0]["samples"][1]["modifiers"] += [
        modifier("staterror", "first", [2.0, 3.0]),
        modifier("staterror", "second", [4.0, 1.0]),
    ]
    structure, numbers, data = from_pyhf(spec)
    model = pyhf.Workspace(spec).model()
    point = np.linspace(0.8, 1.3, model.config.npars)
    ours = compiled_logpdf(structure, numbers, jnp.asarray(point), data)
    np.testing.assert_allclose(ours, model.logpdf(point, np.asarray(data))[0], rtol=1e-13)
    assert from_pyhf(to_pyhf(structure, numbers, measurement="m", data=data))[0] == structure


@pytest.mark.parametrize("spec", [*WRITTEN_OUT.values(), large_workspace(channels=2, systematics=4)])
def test_the_way_back(spec):
    structure, numbers, data = from_pyhf(spec)
    written = to_pyhf(structure, numbers, measurement="measurement", data=data)
    pyhf.schema.validate(written, "workspace.json")
    again, same_numbers, same_data = from_pyhf(written)
    assert again == structure
    np.testing.assert_array_equal(same_data, data)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), numbers, same_numbers))


@pytest.mark.slow
def test_the_tutorial_runs():
    result = doctest.testmod(pipeline.inference.histfactory)
    assert result.attempted >= 10
    assert result.failed == 0
