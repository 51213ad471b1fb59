"""What is compiled: no callbacks, events in float32 and as arguments, and one trace for all thresholds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline.events.yields import yields_and_flux

from small_analysis import BANDWIDTHS, THRESHOLDS, arrays, small_analysis, small_data

# Sizes that occur nowhere else: an axis of this length is the axis of events.
EVENTS_IN_A_CHUNK = 64
COLUMNS = 3


@pytest.fixture(scope="module")
def data():
    made = small_data(events=600, chunk_size=EVENTS_IN_A_CHUNK)
    assert {group.weight.shape[-1] for group in made.events.groups} == {EVENTS_IN_A_CHUNK}
    return made


def flux(thresholds, bandwidths, data):
    return yields_and_flux(small_analysis().events, thresholds, bandwidths, data.events)


def loss(thresholds, bandwidths, data):
    return exact.loss(small_analysis(), thresholds, bandwidths, data)


FUNCTIONS = {
    "yields and flux": flux,
    "loss": loss,
    "loss and gradient": jax.value_and_grad(loss, has_aux=True),
}


@pytest.fixture(scope="module", params=FUNCTIONS)
def traced(request, data):
    """The jaxpr of one of the functions."""
    return jax.make_jaxpr(FUNCTIONS[request.param])(arrays(THRESHOLDS), arrays(BANDWIDTHS), data)


def equations(jaxpr):
    """Every equation, those inside loops, branches and calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def constants(closed):
    """Arrays that are baked in, at any depth, as constants of a jaxpr or as literals of an equation."""
    yield from closed.consts
    for equation in equations(closed.jaxpr):
        yield from (variable.val for variable in equation.invars if hasattr(variable, "val"))
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                yield from getattr(inner, "consts", ())


def constants_of_events(closed) -> int:
    """How many constants have an axis of events; tables of the model have other sizes."""
    return sum(EVENTS_IN_A_CHUNK in np.shape(constant) for constant in constants(closed))


def test_the_walk_sees_inside_loops(traced):
    """Without this the other tests would look at the outermost level only."""
    names = {equation.primitive.name for equation in equations(traced.jaxpr)}
    assert {"while", "population_count"} <= names


def test_no_callback_to_the_host(traced):
    names = {equation.primitive.name for equation in equations(traced.jaxpr)}
    assert not {name for name in names if "callback" in name or "infeed" in name or "outfeed" in name}


def test_events_stay_in_float32(traced):
    """Float64 begins where histograms begin: with what is added to them."""
    wide = [
        (equation.primitive.name, variable.aval)
        for equation in equations(traced.jaxpr)
        for variable in (*equation.invars, *equation.outvars)
        if getattr(variable.aval, "dtype", None) in (np.float64, np.int64) and EVENTS_IN_A_CHUNK in variable.aval.shape
    ]
    assert {name for name, _ in wide} <= {"convert_element_type", "scatter-add", "dot_general"}
    assert {aval.shape[-1] for name, aval in wide if name == "convert_element_type"} <= {COLUMNS, EVENTS_IN_A_CHUNK}


def test_events_are_arguments(traced):
    """A closed-over array becomes a constant, which XLA folds for minutes."""
    assert constants_of_events(traced) == 0


def test_closed_over_events_would_be_noticed(data):
    closed = jax.make_jaxpr(lambda at: flux(at, arrays(BANDWIDTHS), data))(arrays(THRESHOLDS))
    assert constants_of_events(closed) > 0


@pytest.mark.parametrize("name", ["loss", "loss and gradient"])
def test_one_trace_serves_all_thresholds_and_bandwidths(data, name):
    """Lowering stands for compiling: a second trace would be a second compilation."""
    traces = []

    def counted(thresholds, bandwidths, data):
        traces.append(name)
        return FUNCTIONS[name](thresholds, bandwidths, data)

    compiled = jax.jit(counted)
    for shift in range(3):
        thresholds = arrays({key: value + shift for key, value in THRESHOLDS.items()})
        compiled.lower(thresholds, arrays({key: value / (1 + shift) for key, value in BANDWIDTHS.items()}), data)
    other_events = jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else leaf, data)
    compiled.lower(arrays(THRESHOLDS), arrays(BANDWIDTHS), other_events)
    assert len(traces) == 1


@pytest.mark.slow
def test_repeated_steps_compile_nothing(data, caplog):
    """What the optimiser calls, at three points."""

    def step(shift):
        at = arrays({key: value + shift for key, value in THRESHOLDS.items()})
        return exact.evaluate(small_analysis(), at, arrays(BANDWIDTHS), data)

    def compiled() -> list[str]:
        return [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]

    with jax.log_compiles():
        evaluation = step(0.0)
        assert any("yields_and_flux" in message for message in compiled())
        caplog.clear()
        step(0.01)
        step(0.02)
        assert compiled() == []
    assert bool(evaluation.merit.converged)
    assert evaluation.loss.dtype == jnp.float64
    assert set(evaluation.gradient.value) == set(BANDWIDTHS)


@pytest.mark.parametrize(("platform", "serialises"), [("cpu", True), ("cuda", False)])
def test_a_gpu_gets_no_scatter_of_many_events(data, platform, serialises):
    """Events meet in a few dozen bins: atomic additions would wait for each other. A CPU is fast at exactly that."""
    traced = jax.jit(flux).trace(arrays(THRESHOLDS), arrays(BANDWIDTHS), data)
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    scatters = re.findall(r'"stablehlo.scatter".*?\) -> ', lowered, re.DOTALL)
    updates = [max(map(int, re.findall(r"(\d+)x", scatter.rsplit("tensor<", 1)[1]))) for scatter in scatters]
    assert bool([size for size in updates if size >= EVENTS_IN_A_CHUNK]) == serialises
