"""Networks as ONNX: onnxruntime says of raw inputs what we say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline.events.scores import Input, Network, Score, score_of, standardised

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install '.[onnx]'")
onnx_file = pytest.importorskip("pipeline.onnx_file", reason="pip install '.[onnx]'")


@pytest.mark.parametrize("activation", ["silu", "relu", "tanh", "gelu"])
def test_every_event_is_in_the_same_bin(activation, tmp_path):
    names = ("x", "y", "z")
    keys, bend = jax.random.split(jax.random.key(0), 3), eqx.nn.Lambda(getattr(jax.nn, activation))
    layers = [
        eqx.nn.Linear(a, b, key=key, dtype=jnp.float32)
        for a, b, key in zip((3, 16, 8), (16, 8, "scalar"), keys, strict=True)
    ]
    network = eqx.nn.Sequential([layers[0], bend, layers[1], bend, layers[2]])
    weights, skeleton = eqx.partition(network, eqx.is_inexact_array)
    centre, width = jnp.asarray([1, 0, -2], jnp.float32), jnp.asarray([2, 1, 3], jnp.float32)
    network = Network(weights=weights, centre=centre, width=width)
    score = Score("score", tuple(Input((name,)) for name in names), skeleton)
    onnx_file.save_onnx(tmp_path / "score.onnx", score, network, activation, {"inputs": list(names)})

    inputs = np.random.default_rng(1).normal(0, 3, (3, 50_000)).astype(np.float32)
    inputs[0, :10], inputs[1, 10:20], inputs[2, 20:30] = np.nan, np.inf, 1e4
    ours = np.asarray(jax.jit(lambda x: score_of(score, weights, standardised(network, x)))(inputs))
    session = onnxruntime.InferenceSession(tmp_path / "score.onnx", providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["score"], {"inputs": inputs.T.copy()})
    np.testing.assert_allclose(theirs, ours, atol=2e-6)
    # Products are added in another order, so an event that lies on an edge to the last digit may be on its other side.
    edges = np.quantile(ours, np.linspace(0.05, 0.95, 12)) + 1e-7
    clear = np.abs(ours[:, None] - edges).min(axis=1) > 2e-6
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(np.digitize(theirs, edges)[clear], np.digitize(ours, edges)[clear])
    assert "inputs" in session.get_modelmeta().custom_metadata_map["about"]
