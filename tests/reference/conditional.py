"""The derivative of an expected histogram without a kernel (conditional Monte Carlo), and the flux of the same events.

The events are simulated here, so the response of the detector is known as a function. Given the truth of one object,
and all others as they were measured, the chance that it passes x > t is smooth in t, and its derivative a formula:

    dN/dt = − Σ_i Σ_o p(t | truth of o) · ( f(S_i ∪ o with x_o = t) − f(S_i ∖ o) )

No bandwidth and no bias. `conditional` shares nothing with the engine: f is plain NumPy.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
from pipeline.events.cuts import Cut, ObjectSet, Region, Requirement, Selection, arrays
from pipeline.events.evaluation import EventAnalysis, Layout
from pipeline.events.yields import yields_and_flux
from scipy.stats import norm

from toy import Toy

MOST, EVENTS, SAMPLES = 4, 2_000, 400
THRESHOLD, RESOLUTION = 30.0, 0.1
EDGES = {"one": [0.0, 45.0, 70.0, 400.0], "more": [0.0, 90.0, 130.0, 180.0, 600.0]}


class ScalarSum:
    """HT of the selected jets."""

    def variables(self, event, sets):
        return {"ht": jnp.sum(sets["jet"].column("pt", 0.0), axis=0)}


ANALYSIS = EventAnalysis(
    Selection(
        sets=(ObjectSet("jet", "jet"),),
        unions=(),
        cuts=(Cut("jet_pt", ("jet",), "pt", "above"),),
        regions=(
            Region("one", (Requirement("jet", 1.0, 1.0),), "ht", 3, 0),
            Region("more", (Requirement("jet", 2.0),), "ht", 4, 3),
        ),
    ),
    ScalarSum(),
    Layout(datasets=1, kinematics=1),
)


@cache
def simulated() -> tuple[np.ndarray, np.ndarray]:
    """True and measured pt, shape "jets events", NaN where there is none: a falling spectrum behind a turn-on."""
    generator = np.random.default_rng(1)
    shape = (MOST, EVENTS * SAMPLES)
    truth = 15 + generator.exponential(20, shape)
    there = np.arange(MOST)[:, None] < generator.integers(1, MOST + 1, shape[1])
    there &= generator.random(shape) < 1 / (1 + np.exp((28 - truth) / 3))
    truth = np.where(there, truth, np.nan)
    return truth, (truth * generator.normal(1, RESOLUTION, shape)).astype(np.float32)


def histogram(pt, passes, weight):
    """Of each sample, shape "samples bins"; every `SAMPLES`th event is in the same one."""
    count, ht = passes.sum(axis=0), np.where(passes, pt, 0).sum(axis=0)
    sample = np.arange(len(ht)) % SAMPLES
    regions = [
        np.histogram2d(sample[inside], ht[inside], [np.arange(SAMPLES + 1), EDGES[name]], weights=weight[inside])[0]
        for name, inside in (("one", count == 1), ("more", count >= 2))
    ]
    return np.concatenate(regions, axis=1)


@cache
def conditional() -> np.ndarray:
    """The derivative by the threshold as each sample estimates it without a kernel."""
    truth, pt = simulated()
    total = np.zeros((SAMPLES, ANALYSIS.selection.bins))
    for jet in range(MOST):
        # An absent jet has no density, so it does not matter where it is put.
        density = np.nan_to_num(norm.pdf(THRESHOLD, truth[jet], RESOLUTION * truth[jet]))
        own = np.arange(MOST)[:, None] == jet
        moved, others = np.where(own, THRESHOLD, pt), (pt > THRESHOLD) & ~own
        total -= histogram(moved, others | own, density) - histogram(moved, others, density)
    return total


@cache
def events():
    """For the engine."""
    _, pt = simulated()
    edges = {name: jnp.asarray(places) for name, places in EDGES.items()}
    toy = Toy({"jet": {"pt": pt}}, {"met": np.zeros(pt.shape[1], np.float32)})
    return toy.data(ANALYSIS.function, edges).events


def flux(width):
    """The derivative as the engine estimates it from each sample, shape "samples bins"."""
    at, widths = arrays({"jet_pt": THRESHOLD}), arrays({"jet_pt": width})
    _, by_name = yields_and_flux(ANALYSIS, at, widths, events(), SAMPLES)
    return np.asarray(by_name["jet_pt"])[0, 0, :, :, 0]


def bias(estimates):
    """Of the mean of all samples, with its errors; the noise that both have in common drops out."""
    difference = estimates - conditional()
    return difference.mean(axis=0), difference.std(axis=0, ddof=1) / np.sqrt(SAMPLES)


def size(vector):
    """In parts of the derivative."""
    return np.linalg.norm(vector) / np.linalg.norm(conditional().mean(axis=0))
