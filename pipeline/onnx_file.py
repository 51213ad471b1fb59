"""Networks as ONNX, for those who evaluate them without JAX: from raw inputs to the score, standardisation included."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.events.scores import LARGEST_INPUT, Network, Score

__all__ = ["save_onnx"]

OPSET, IR = 17, 9
"""Old enough for every onnxruntime since 2022."""

Node = tuple[str, Sequence[str], str]
"""An operator, its inputs and its output."""

ACTIVATIONS: dict[str, tuple[Node, ...]] = {
    "relu": (("Relu", ["x"], "y"),),
    "tanh": (("Tanh", ["x"], "y"),),
    "silu": (("Sigmoid", ["x"], "gate"), ("Mul", ["x", "gate"], "y")),
    # As jax.nn.gelu: half x (1 + tanh(a (x + b x^3))).
    "gelu": (
        ("Mul", ["x", "x"], "square"),
        ("Mul", ["square", "x"], "cube"),
        ("Mul", ["cube", "gelu_b"], "small"),
        ("Add", ["x", "small"], "sum"),
        ("Mul", ["sum", "gelu_a"], "scaled"),
        ("Tanh", ["scaled"], "bent"),
        ("Add", ["bent", "one"], "gate"),
        ("Mul", ["x", "gate"], "double"),
        ("Mul", ["double", "half"], "y"),
    ),
}
STANDARDISED: tuple[Node, ...] = (
    ("Sub", ["inputs", "centre"], "centred"),
    ("Div", ["centred", "width"], "wild"),
    ("IsNaN", ["wild"], "missing"),
    ("IsInf", ["wild"], "infinite"),
    ("Or", ["missing", "infinite"], "nowhere"),
    ("Where", ["nowhere", "zero", "wild"], "tame"),
    ("Abs", ["tame"], "size"),
    ("Div", ["size", "largest"], "share"),
    ("Add", ["share", "one"], "damping"),
    ("Div", ["tame", "damping"], "h0"),
)
"""`pipeline.events.scores.standardised`, operator by operator."""


def save_onnx(path: Path, score: Score, network: Network, activation: str, about: Mapping[str, Any]) -> None:
    """Write a network of layers: input `inputs`, shape "events inputs", raw; output `score`, shape "events".

    Args:
        path: of the file.
        score: the static part of the network.
        network: its weights; from `pipeline.networks`, not one of somebody's own.
        activation: between the layers.
        about: text that JSON can hold, kept beside it.
    """
    layers = [each for each in eqx.combine(network.weights, score.skeleton).layers if isinstance(each, eqx.nn.Linear)]
    constants = {
        "centre": network.centre,
        "width": network.width,
        "zero": 0.0,
        "one": 1.0,
        "half": 0.5,
        "largest": LARGEST_INPUT,
        "gelu_a": np.sqrt(2 / np.pi),
        "gelu_b": 0.044715,
    }
    nodes = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in STANDARDISED]
    for number, layer in enumerate(layers):
        constants |= {f"w{number}": layer.weight, f"b{number}": layer.bias}
        last = number == len(layers) - 1
        output = "column" if last else f"z{number}"
        nodes.append(helper.make_node("Gemm", [f"h{number}", f"w{number}", f"b{number}"], [output], transB=1))
        nodes += [] if last else _activated(activation, output, f"h{number + 1}")
    nodes.append(helper.make_node("Squeeze", ["column", "axis"], ["score"]))
    used = {name for node in nodes for name in node.input}
    stored = [
        numpy_helper.from_array(np.asarray(constants[name], np.float32), name) for name in constants if name in used
    ]
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    graph = helper.make_graph(
        nodes,
        score.name,
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["events", network.centre.shape[0]])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["events"])],
        [*stored, axis],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    helper.set_model_props(model, {"about": json.dumps(dict(about))})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _activated(activation: str, source: str, target: str) -> list[Any]:
    """The operators of an activation, with names of their own."""
    constants = {"one", "half", "gelu_a", "gelu_b"}

    def named(name: str) -> str:
        return {"x": source, "y": target}.get(name, name if name in constants else f"{target}_{name}")

    return [
        helper.make_node(operator, [named(each) for each in inputs], [named(output)])
        for operator, inputs, output in ACTIVATIONS[activation]
    ]
