# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From one event to tuned cuts
#
# The Analysis Grand Challenge ttbar analysis as one differentiable function, stage by stage. All events here are **simulated**
# (they come with the package). Reading takes ten minutes, running about two.

# %%
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pipeline import analysis, problem
from pipeline.config import load_config
from pipeline.descent import descend
from pipeline.event_list import list_events
from pipeline.gradient_check import check_gradients, with_unit_weights
from pipeline.tuning import ranges, schedule

ROOT = Path.cwd() if Path("configs").is_dir() else Path.cwd().parent
config = load_config(ROOT / "configs" / "quickstart.yaml", {"optimiser": {"steps": 15}})
setup = problem.build(config)
thresholds = {name: jnp.asarray(cut.threshold, jnp.float64) for name, cut in config.cuts.items()}
{name: f"{cut.variable} {cut.keep} {cut.threshold}" for name, cut in config.cuts.items() if cut.trainable}

# %% [markdown]
# ## One event
# Jets as they stand in the file: nothing is sorted, nothing is padded away.

# %%
event = setup.samples[0].events[0]
[{name: round(float(jet[name]), 2) for name in ("pt", "eta", "btagCSVV2")} for jet in event.Jet]

# %% [markdown]
# ## The hard analysis
# Exactly one lepton, four jets, one b-tag (4j1b, observable HT) or two (4j2b, observable trijet mass). This is the same for every
# event as in a plain awkward implementation; the tests compare the counts.

# %%
events = list_events(setup.analysis, thresholds, setup.training)
nominal_ttbar = (events.kinematic == 0) & (events.dataset == 0)
for number, region in enumerate(config.regions):
    chosen = nominal_ttbar & (events.region == number)
    print(
        region, chosen.sum(), "simulated ttbar events, median observable", np.median(events.observable[chosen]), "GeV"
    )

# %% [markdown]
# ## What is the derivative of a hard cut?
# The yield as a function of the jet pt threshold is a staircase: its derivative is zero almost everywhere. But the staircase has a
# slope, and the slope is the flux of events through the boundary. Below, the exact yield and the tangent that the boundary flux predicts.

# %%
widths = {name: jnp.asarray(cut.bandwidth, jnp.float64) for name, cut in config.cuts.items() if cut.trainable}


def ttbar_yield(jet_pt):
    """Expected ttbar events in both regions."""
    at = thresholds | {"jet_pt": jnp.asarray(jet_pt, jnp.float64)}
    return float(analysis.yields_at(at, setup.analysis, setup.training)[0, 0, :, 0].sum())


points = np.linspace(26, 36, 41)
exact = [ttbar_yield(point) for point in points]
checked = check_gradients(
    setup.analysis,
    {name: float(value) for name, value in thresholds.items()},
    {"jet_pt": float(widths["jet_pt"])},
    with_unit_weights(setup.training),
)["jet_pt"]
slope_in_counts = checked.flux[0, 0, :, 0].sum()
print("flux:", slope_in_counts, "events per GeV; finite difference:", checked.difference[0, 0, :, 0].sum())

figure, axes = plt.subplots(figsize=(6, 4))
axes.step(points, exact, where="mid", label="exact yield (weighted)")
axes.axvline(30, color="grey", linestyle=":")
axes.set(xlabel="jet pt threshold [GeV]", ylabel="ttbar, sum of event weights", title="simulated")
axes.legend()

# %% [markdown]
# Bin by bin, over all data sets and jet variations, the flux agrees with the finite difference of the exact histogram to a fraction of
# the statistical error of the latter:

# %%
pulls = checked.pulls()
print(f"{pulls.size} bins, rms of (flux - difference) / error: {np.sqrt(np.mean(pulls**2)):.2f}")

# %% [markdown]
# ## The likelihood is pyhf's
# Templates become a HistFactory model; pyhf rebuilds it from JSON and agrees.

# %%
import pyhf

from pipeline.histfactory import asimov_data, logpdf, nominal_parameters
from pipeline.histfactory.to_pyhf import to_pyhf

numbers = analysis.numbers_of(thresholds, setup.analysis, setup.training)
structure = setup.analysis.structure
at_nominal = nominal_parameters(structure, numbers)
data = asimov_data(structure, numbers, at_nominal)
model = pyhf.Workspace(to_pyhf(structure, numbers, measurement="walkthrough")).model()
print("ours:", float(logpdf(structure, numbers, at_nominal, data)))
print("pyhf:", float(model.logpdf(np.asarray(at_nominal).tolist(), np.asarray(data).tolist())[0]))

# %% [markdown]
# ## The gradient of the significance
# One fit gives Z; by the envelope theorem its gradient needs no derivative of the fit.

# %%
(loss, merit), gradient = analysis.loss_and_gradient(thresholds, setup.analysis, widths, setup.training)
print("Z =", float(merit.value), "converged:", bool(merit.converged))
{name: float(value) for name, value in gradient.items()}

# %% [markdown]
# ## Tuning
# A few steps of Adam. What is kept is the best exact Z on the training events, and what is claimed is its Z on events the
# optimiser has not seen.

# %%
fixed = {name: jnp.asarray(cut.threshold, jnp.float64) for name, cut in config.cuts.items()}
start = {name: cut.threshold for name, cut in config.cuts.items() if cut.trainable}
steps = list(
    descend(
        lambda at, h: analysis.loss_and_gradient_with_error(fixed | at, setup.analysis, h, setup.training),
        ranges(config),
        [start],
        schedule(config),
    )
)
best = {name: jnp.asarray(value, jnp.float64) for name, value in steps[-1].best.items()}
for part, events_of in (("training", setup.training), ("validation", setup.validation)):
    before = float(analysis.merit_of(fixed, setup.analysis, events_of).value)
    after = float(analysis.merit_of(fixed | best, setup.analysis, events_of).value)
    print(f"{part}: Z {before:.2f} -> {after:.2f}")
steps[-1].best

# %%
figure, axes = plt.subplots(figsize=(6, 4))
axes.plot([float(step.merit.value) for step in steps], marker="o")
axes.set(xlabel="step", ylabel="expected significance Z (training)", title="simulated")
