# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From one event to tuned cuts
#
# The Analysis Grand Challenge ttbar analysis as one differentiable function, stage by stage: an event, the selection, the
# histograms, the likelihood, the derivative of a hard cut, an optimisation, and what it is worth. All events here are
# **simulated**; they come with the package. Reading takes twenty minutes, running two.
#
# The question is that of the AGC: how precisely is the ttbar cross section measured? The answer is σ(μ), the expected uncertainty
# of the signal strength μ, with all systematic uncertainties. Smaller is better.

# %%
from pathlib import Path

import awkward as ak
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pyhf
import vector

from pipeline import Problem, analysis, translation
from pipeline.config import load_config

ROOT = Path.cwd() if Path("configs").is_dir() else Path.cwd().parent
config = load_config(
    ROOT / "configs" / "agc_precision.yaml", {"optimiser": {"steps": 15}, "validation": {"bootstrap": 10}}
)
setup = Problem.from_config(config)
thresholds = translation.default_thresholds(config)
{name: f"{cut.variable} {cut.keep} {cut.threshold} {cut.unit}" for name, cut in config.cuts.items()}

# %% [markdown]
# Half of the events are for the optimiser (`setup.training`), the others for the judgement (`setup.validation`); a hash of the event
# number decides. Thresholds are numbers in a dictionary, and everything below is a pure function of them and of the events.

# %% [markdown]
# ## One event
# The analysis asks for one lepton and four jets. With one b-tagged jet an event is in the region `4j1b`, with two or more in `4j2b`.
# `event_table` tells what the analysis makes of every event. Let us take the first ttbar event in `4j2b` and look at its jets as they
# stand in the file.

# %%
from pipeline.analysis import event_table

events = event_table(setup.analysis, thresholds, setup.training)
nominal_ttbar = (events.kinematic == 0) & (events.dataset == 0)
first = np.flatnonzero(nominal_ttbar & (events.region == 1) & ~np.isnan(events.observable))[0]
ttbar = setup.samples[0].events
event = ttbar[ttbar.index == events.index[first]][0]
[{name: round(float(jet[name]), 2) for name in ("pt", "eta", "btagCSVV2")} for jet in event.Jet]

# %% [markdown]
# The observable in `4j2b` is the mass of a trijet: of all threes of selected jets with a b-tag among them, the one with the largest
# transverse momentum. Here it is once more with `vector`, which shares no code with the package.

# %%
vector.register_awkward()
selected = event.Jet[(event.Jet.pt > 30) & (np.abs(event.Jet.eta) < 2.4)]
trijets = ak.combinations(ak.zip({name: selected[name] for name in selected.fields}, with_name="Momentum4D"), 3, axis=0)
one, two, three = ak.unzip(trijets)
tagged = np.maximum(np.maximum(one.btagCSVV2, two.btagCSVV2), three.btagCSVV2) > 0.5
total = (one + two + three)[tagged]
print("by vector:  ", round(float(total[ak.argmax(total.pt)].mass), 2), "GeV, of", len(total), "trijets")
print("by pipeline:", round(float(events.observable[first]), 2), "GeV")

# %% [markdown]
# Thresholds change no four-vector. So the trijets of an event are formed and sorted once; afterwards the analysis only asks which of
# them consist of selected jets, which is integer work on bit masks.
#
# ## The hard analysis
# Each event counts or does not: nothing is smoothed. These are plain counts, the same as those of an implementation in awkward (the
# tests compare them, for random cuts, too).

# %%
for number, region in enumerate(config.regions):
    chosen = nominal_ttbar & (events.region == number)
    print(f"{region}: {chosen.sum()} simulated ttbar events, median {np.median(events.observable[chosen]):.0f} GeV")

# %% [markdown]
# Weighted and added up, they are the templates: for each process, nominal and under each systematic variation. As a `hist` object:

# %%
from pipeline.report.histograms import as_hist
from pipeline.validation.regions import regions

at_start = {name: float(value) for name, value in thresholds.items()}
control, signal = regions(setup, at_start)
templates = as_hist(config, "4j2b", signal)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
templates[:, "nominal", :].stack("process").plot(ax=left, stack=True, histtype="fill")
left.legend()
left.set(ylabel="expected events", title="4j2b, simulated")
for variation in ("nominal", "JES_up", "JES_down", "ME_up"):
    templates["ttbar", variation, :].plot(ax=right, label=variation, yerr=False)
right.legend()
right.set(title="ttbar with systematic variations, simulated")
# %% [markdown]
# ## What is the derivative of a hard cut?
# The yield as a function of the threshold t on the jet pt is a staircase: its derivative is zero almost everywhere. That is why others
# replace cuts by sigmoids, and tune an analysis that nobody runs.
#
# But the staircase has a slope. If the threshold is raised by dt, the events leave whose jets lie between t and t + dt: the slope is
# minus the density of events at the boundary, a *flux* (Leibniz's rule). A density can be estimated from events nearby, each weighted
# by a narrow kernel. For each jet near the boundary, the package evaluates the whole hard analysis of its event with the jet and
# without it, and the difference, weighted with the kernel, is its part of the derivative.

# %%
from pipeline.events.flux import kernel
from pipeline.validation.gradient_check import check_gradients, with_unit_weights
from pipeline.population import opened
from pipeline.validation.distributions import histogram_at_cut

bandwidths = translation.default_bandwidths(config)
counts = with_unit_weights(setup.training)  # every simulated event counts one: a staircase with visible steps


@jax.jit
def ttbar_count(jet_pt):
    """Simulated ttbar events in both regions."""
    at = thresholds | {"jet_pt": jet_pt}
    return analysis.yields_at(setup.analysis, at, counts)[0, 0, :, 0].sum()


checked = check_gradients(setup.analysis, at_start, {name: float(h) for name, h in bandwidths.items()}, counts)[
    "jet_pt"
]
slope, difference = (one[0, 0, :, 0].sum() for one in (checked.flux, checked.difference))
print(f"boundary flux {slope:.0f} events per GeV, finite difference of the exact counts {difference:.0f}")

here, width = at_start["jet_pt"], float(bandwidths["jet_pt"])
edges = np.linspace(here - 5, here + 5, 41)
(cut,) = (one for one in setup.analysis.selection.cuts if one.name == "jet_pt")
jets = histogram_at_cut(setup, cut, opened(config, at_start, ["jet_pt"]), edges)[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
left.stairs(jets, edges, fill=True, alpha=0.5, label="ttbar jets that pass all other cuts")
near = np.linspace(here - 5, here + 5, 400)
shape = np.asarray(kernel(jnp.asarray(near - here), jnp.asarray(width)))
left.plot(near, shape / shape.max() * jets.max() / 2, color="black", label="kernel")
left.axvline(here, color="black", linestyle=":")
left.set(
    xlabel="jet $p_T$ [GeV]", ylabel="expected jets", title="at the boundary, simulated", ylim=(0, 1.5 * jets.max())
)
left.legend()
points = np.linspace(here - width, here + width, 121)
right.step(points, [float(ttbar_count(point)) for point in points], where="mid", label="exact count")
right.plot(points, float(ttbar_count(here)) + slope * (points - here), color="black", label="tangent by the flux")
right.axvline(here, color="black", linestyle=":")
right.set(xlabel="threshold on the jet $p_T$ [GeV]", ylabel="ttbar events in both regions", title="simulated")
right.legend()
# %% [markdown]
# This holds not only for the sum. In every bin, of every data set and under every jet variation, the flux agrees with the finite
# difference of the exact histogram to a fraction of the statistical error of the latter:

# %%
pulls = checked.pulls()
print(f"{pulls.size} bins, rms of (flux - difference) / error: {np.sqrt(np.mean(pulls**2)):.2f}")

# %% [markdown]
# ## The likelihood is pyhf's
# The templates become a HistFactory model, with all its nuisance parameters. pyhf rebuilds it from JSON, and agrees.

# %%
from pipeline.inference.histfactory import asimov_data, logpdf, nominal_parameters
from pipeline.inference.histfactory.to_pyhf import to_pyhf
from pipeline.validation.crosscheck import cross_check
from pipeline.inference.significance import discovery_significance, signal_strength_uncertainty

numbers, structure = analysis.numbers_of(setup.analysis, thresholds, setup.training), setup.analysis.structure
workspace = to_pyhf(structure, numbers, measurement="walkthrough")
nominal = nominal_parameters(structure, numbers)
data = asimov_data(structure, numbers, nominal)
model = pyhf.Workspace(workspace).model()
print("ln L    ours", float(logpdf(structure, numbers, nominal, data)))
print("        pyhf", float(model.logpdf(np.asarray(nominal).tolist(), np.asarray(data).tolist())[0]))
significance, uncertainty = cross_check(workspace).significance, cross_check(workspace, uncertainty=True).uncertainty
print(f"Z       ours {float(discovery_significance(structure, numbers).z):.4f}   pyhf {significance:.4f}")
ours = float(signal_strength_uncertainty(structure, numbers).uncertainty)
print(f"sigma   ours {ours:.4f}    pyhf {uncertainty:.4f}")

# %% [markdown]
# ## The gradient of the result
# Chain rule: derivative of σ(μ) by each expected yield (the likelihood, by automatic differentiation), times derivative of each yield by
# each threshold (the flux). Below, circles are exact values of the analysis, one evaluation each; the line without marks is what the
# gradient predicts from a single evaluation at the dotted line.

# %%
from pipeline.report.pictures import history, look, profiles
from pipeline.tuning.tune import tune
from pipeline.validation import diagnostics

begin = next(tune(setup))
for name, slope in begin.gradient.items():
    print(f"dσ/d {name}: {slope:.3g} ± {begin.error[name]:.2g}")
labels = {name: cut.label or name for name, cut in config.thresholds.items()}
with look.style():
    figure = profiles.draw(diagnostics.profile(setup, begin, points=7), labels, "σ(μ)", "Simulated")
    figure.set_facecolor("white")
figure

# %% [markdown]
# ## Tuning
# A few steps of Adam along the gradient, each threshold in units of its own step. The bandwidths narrow on the way, and what is kept is
# the best exact value on the training events, not the last one.

# %%
steps = tuple(tune(setup))
with look.style():
    figure = history.draw(diagnostics.path(setup, steps, "σ(μ)"), labels, {}, "Simulated")
    figure.set_facecolor("white")
figure

# %% [markdown]
# ## What is it worth?
# On the events it was tuned on, an analysis always looks better than it is. The claim is what is gained on the other half, and its
# error comes from bootstrap replicas of the simulated events, in which both points are evaluated.

# %%
from pipeline.tuning.tune import Tuned
from pipeline.validation.outcome import judge
from pipeline.validation.verdict import verdict

outcome = judge([Tuned(setup, steps)])
for part, comparison in outcome.comparisons.items():
    print(f"{part:10}  {comparison.before} -> {comparison.after}, change {comparison.change:+}")
print({name: round(value, 3) for name, value in outcome.best_step.thresholds.items()})
print(verdict(outcome))

# %% [markdown]
# From here: `python -m pipeline.optimize --config configs/agc_precision.yaml` does all of this with more steps and more replicas and
# writes a report; `configs/every_threshold.yaml` tunes 28 thresholds at once, bin edges among them.
