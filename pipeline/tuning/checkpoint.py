"""Where an optimisation stands, on disk: enough to go on bit-identically after Ctrl-C, a crash or a power cut.

One file, replaced atomically: a kill at any moment leaves the last complete one. Numbers are stored as they are in
memory, in NumPy's own format without pickling.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from pipeline.inference.objectives import Merit
from pipeline.tuning.steps import Step

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]

_PLAIN = [field.name for field in fields(Step) if field.name not in ("merit", "state", "networks")]


class CheckpointError(ValueError):
    """One sentence a user can act on."""


def save_checkpoint(path: Path, run: str, history: Sequence[Step]) -> None:
    """Write all steps so far and the optimiser's state after the last one.

    Args:
        path: of the file.
        run: what identifies the run that may go on from here.
        history: at least one step.
    """
    leaves = jax.tree.leaves(history[-1].state)
    arrays: dict[str, Any] = {f"state_{number}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    text = json.dumps({"run": run, "steps": [_as_dict(step) for step in history]})
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        np.savez(file, history=np.array(text), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def require_checkpoint(path: Path) -> None:
    """Refuse to resume from nothing, before the events are read.

    Raises:
        CheckpointError: there is none.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint to resume from; start without --resume")


def load_checkpoint(path: Path, run: str, state: PyTree) -> tuple[Step, ...]:
    """The steps of an interrupted run.

    Args:
        path: of the file.
        run: as it was saved.
        state: an optimiser's state of the right structure.

    Raises:
        CheckpointError: there is none, it is damaged, or it belongs to another run.
    """
    require_checkpoint(path)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            content = json.loads(str(stored["history"]))
            leaves = [jnp.asarray(stored[f"state_{number}"]) for number in range(len(jax.tree.leaves(state)))]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise CheckpointError(f"{path}: not a usable checkpoint ({error}); start without --resume") from None
    if content["run"] != run:
        raise CheckpointError(
            f"{path}: belongs to another configuration or other data; use that one, or start without --resume"
        )
    last = len(content["steps"]) - 1
    final = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return tuple(_as_step(step, final if n == last else None) for n, step in enumerate(content["steps"]))


def _as_dict(step: Step) -> dict[str, Any]:
    merit = {field.name: np.asarray(getattr(step.merit, field.name)).item() for field in fields(step.merit)}
    return {name: getattr(step, name) for name in _PLAIN} | {"merit": merit}


def _as_step(stored: dict[str, Any], state: PyTree) -> Step:
    numbers = stored["merit"]
    merit = Merit(
        value=jnp.asarray(numbers["value"], jnp.float64),
        converged=jnp.asarray(numbers["converged"]),
        gradient_norm=jnp.asarray(numbers["gradient_norm"], jnp.float64),
        iterations=jnp.asarray(numbers["iterations"], jnp.int32),
    )
    lengths = {name: tuple(pair) for name, pair in stored["network_gradient"].items()}
    return Step(**{name: stored[name] for name in _PLAIN} | {"network_gradient": lengths}, merit=merit, state=state)
