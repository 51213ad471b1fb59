"""What one, two and three devices make of the same events: a process of its own, since devices are set at its start.

python several_devices.py RESULTS.npz
"""

import re
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from pipeline import analysis as exact
from pipeline.events.table import list_events, list_objects, shared_events
from pipeline.events.yields import SUBSAMPLES, yields_and_flux_of_devices
from pipeline.validation.bootstrap import resampled

from small_analysis import BANDWIDTHS, THRESHOLDS, arrays, small_analysis, small_data, stored

ANALYSIS, AT, WIDTHS = small_analysis(), arrays(THRESHOLDS), arrays(BANDWIDTHS)


def of_parts(devices):
    """A part that leaves some devices idle is one of them."""
    parts = [small_data(events, seed, chunk_size=64, devices=devices) for seed, events in enumerate((700, 40))]
    with tempfile.TemporaryDirectory() as folder:
        on_disk = stored(parts, Path(folder))
        yield "stored/yields", exact.yields_at(ANALYSIS, AT, on_disk)
        yield from named("stored/evaluation", exact.evaluate(ANALYSIS, AT, WIDTHS, on_disk))


def step(devices, data):
    """What the optimiser calls, and what is called the same by JAX."""
    assert all(group.devices == devices for group in data.events.groups)
    yield "yields", exact.yields_at(ANALYSIS, AT, data)
    evaluation = exact.evaluate(ANALYSIS, AT, WIDTHS, data)
    yield from named("evaluation", evaluation)
    if devices > 1:
        yield "collectives", collectives(data)


def collectives(data):
    """How often devices would wait for each other in what is compiled."""
    events = jax.jit(yields_and_flux_of_devices, static_argnums=(0, 4))
    _, flux = events(ANALYSIS.events, AT, WIDTHS, data.events, SUBSAMPLES)
    slope = np.zeros(next(iter(flux.values()))[0].sum(axis=2).shape)
    texts = [
        events.lower(ANALYSIS.events, AT, WIDTHS, data.events, SUBSAMPLES).as_text(),
        exact._contracted.lower(slope, flux).compile().as_text(),
    ]
    return sum(len(re.findall("all.reduce|all.gather|all.to.all|collective", text)) for text in texts)


def everything(devices, data):
    """Whatever else sums over events, or lists them."""
    moving = {name: AT[name] for name in WIDTHS}
    yield from named("gradient", jax.grad(lambda moving: exact.loss(ANALYSIS, AT | moving, WIDTHS, data)[0])(moving))
    yield from named("smooth", exact.evaluate(ANALYSIS, AT, WIDTHS, data, smooth=True).gradient.value)
    events = list_events(ANALYSIS.events, AT, data.events)
    order = np.lexsort((events.index, events.dataset, events.kinematic))
    yield from ((f"events/{name}", column[..., order]) for name, column in vars(events).items())
    objects = list_objects(ANALYSIS.events, AT, data.events, "jet", "pt")
    order = np.lexsort((objects.value, objects.dataset))
    yield from ((f"objects/{name}", column[order]) for name, column in vars(objects).items())
    yield "shared", np.array(list(shared_events(ANALYSIS.events, AT, data.events).values()))
    yield "outcomes", exact.outcomes_per_event(ANALYSIS, AT, WIDTHS, data)
    yield "replica", exact.merit_of(ANALYSIS, AT, resampled(data, np.random.default_rng(1))).value
    yield from of_parts(devices)


def named(name, tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield name + jax.tree_util.keystr(path), leaf


def results():
    for devices, of_data in ((1, everything), (2, None), (3, everything)):
        data = small_data(events=700, chunk_size=64, devices=devices)
        for of in (step, of_data):
            if of is not None:
                yield from ((f"{devices} {name}", each) for name, each in of(devices, data))


if __name__ == "__main__":
    np.savez(sys.argv[1], **dict(results()))
