"""Networks on disk: safetensors, an open format that any framework reads.

A file holds the weights by their place in the network, the centre and width of each input, and, as text, what the
inputs are: enough to use the network elsewhere, or to start another run from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.errors import InputError
from pipeline.events.scores import Network

__all__ = ["load_network", "save_network"]


def save_network(path: Path, network: Network, about: Mapping[str, Any]) -> None:
    """Write a network; `about` is text that JSON can hold."""
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in _named(network).items()}
    save_file(tensors, path, metadata={"about": json.dumps(dict(about))})


def load_network(path: Path, like: Network, about: Mapping[str, Any]) -> Network:
    """Read a network of the same architecture and the same inputs as another one.

    Args:
        path: of the file.
        like: of the same shapes.
        about: what the file has to say of itself.

    Raises:
        InputError: there is no such file, it is none of a network, or it is another one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            says = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: no file of a network ({error})") from None
    wanted = {name: np.shape(leaf) for name, leaf in _named(like).items()}
    if {name: leaf.shape for name, leaf in stored.items()} != wanted:
        raise InputError(
            f"{path}: holds another network than the config describes; its layers and inputs have to be the same"
        )
    for key, ours in json.loads(json.dumps(dict(about))).items():
        if says.get(key) != ours:
            raise InputError(f"{path}: holds a network with {key} {says.get(key)}, but the config says {ours}")
    leaves = [jnp.asarray(stored[name]) for name in _named(like)]
    arrays, rest = eqx.partition(like, eqx.is_array)
    filled: Network = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)
    return filled


def _named(network: Network) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(network)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
