"""gato-hep as its example `run_sigmoid_example.py` uses it: annealed sigmoids, RMSprop, 250 epochs.

Run by `scripts/benchmarks/bin_edges.py`, in an environment with `gato-hep==0.2.1`.
"""

import argparse
import json
import time
from pathlib import Path

import edges_case as case
import numpy as np
import tensorflow as tf
from gatohep.models import gato_sigmoid_model
from gatohep.utils import LearningRateScheduler, SteepnessScheduler

STEEPNESS = (50.0, 10_000.0)
RATE = (0.1, 0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path, help=".npz file of toy events")
    parser.add_argument("--bins", type=int, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tables = case.load(options.events)
    events = {
        name: {key: tf.constant(table[column], tf.float32) for key, column in (("NN_output", "score"), ("weight",) * 2)}
        for name, table in tables.items()
    }
    rows = {}
    for bins in options.bins:
        tf.random.set_seed(options.seed)
        started = time.perf_counter()
        edges = trained(events, bins, options.epochs)
        rows[bins] = {"edges": [float(edge) for edge in edges], "seconds": time.perf_counter() - started}
    print(json.dumps(rows))


def trained(events: dict[str, dict[str, tf.Tensor]], bins: int, epochs: int) -> np.ndarray:
    """The edges after all epochs, between 0 and 1."""
    model = gato_sigmoid_model([{"name": "score", "bins": bins, "range": (0.0, 1.0)}], global_steepness=STEEPNESS[0])
    optimiser = tf.keras.optimizers.RMSprop(learning_rate=RATE[0])
    rate = LearningRateScheduler(optimiser, *RATE, total_epochs=epochs, mode="cosine")
    steepness = SteepnessScheduler(model, *STEEPNESS, total_epochs=epochs, mode="cosine")

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = -model.get_differentiable_significance(events, signal_labels=["signal"])["signal"]
        gradients = tape.gradient(loss, model.trainable_variables)
        optimiser.apply_gradients(
            (slope, each) for slope, each in zip(gradients, model.trainable_variables, strict=True) if slope is not None
        )

    for epoch in range(epochs):
        rate.update(epoch)
        steepness.update(epoch)
        step()
    return np.concatenate([[0.0], model.calculate_boundaries().numpy(), [1.0]])


if __name__ == "__main__":
    main()
