"""The AGC's pyhf workspace, built straight from the published histograms and the text of its specification.

Independent of `pipeline` and of cabinetry. A nominal sample's events all have one weight `w`, so the statistical
variance of a bin is `w` times its content.
"""

import json
from pathlib import Path

import numpy as np

REGIONS = {"4j1b CR": "4j1b", "4j2b SR": "4j2b"}
SAMPLES = {
    "ttbar": "ttbar",
    "W+jets": "wjets",
    "single top, s-channel": "single_top_s_chan",
    "single top, t-channel": "single_top_t_chan",
    "tW": "single_top_tW",
}
# name: (up, down or None for a reflected one, samples or None for all)
SYSTEMATICS = {
    "ME variation": ("ME_var", None, ["ttbar"]),
    "PS variation": ("PS_var", None, ["ttbar"]),
    "ttbar scale variations": ("scaleup", "scaledown", ["ttbar"]),
    "Jet energy scale": ("pt_scale_up", None, None),
    "Jet energy resolution": ("pt_res_up", None, None),
    "b-tag NP 1": ("btag_var_0_up", "btag_var_0_down", None),
    "b-tag NP 2": ("btag_var_1_up", "btag_var_1_down", None),
    "b-tag NP 3": ("btag_var_2_up", "btag_var_2_down", None),
    "b-tag NP 4": ("btag_var_3_up", "btag_var_3_down", None),
    "W+jets scale variations": ("scale_var_up", "scale_var_down", ["W+jets"]),
}


def fit_bins(histogram):
    """25 bins of 20 GeV between underflow and overflow → 11 bins of 40 GeV from 110 GeV."""
    inside = np.array(histogram["contents"])[1:-1]
    return inside[3:].reshape(11, 2).sum(axis=1)


def event_weight(histogram):
    """The one weight of a nominal sample: the largest w for which every content is a whole number of w."""
    contents = np.array(histogram["contents"])
    smallest = contents[contents > 0].min()
    for events in range(1, 100_000):
        counts = contents / (smallest / events)
        if np.abs(counts - np.round(counts)).max() < 1e-4:
            return smallest / events
    raise ValueError("no common event weight")


def norm_plus_shape(name, nominal, up, down):
    factor_up = up.sum() / nominal.sum()
    shape_up = up / factor_up
    if down is None:
        factor_down, shape_down = 2 - factor_up, 2 * nominal - shape_up
    else:
        factor_down = down.sum() / nominal.sum()
        shape_down = down / factor_down
    return [
        {"name": name, "type": "normsys", "data": {"hi": float(factor_up), "lo": float(factor_down)}},
        {"name": name, "type": "histosys", "data": {"hi_data": shape_up.tolist(), "lo_data": shape_down.tolist()}},
    ]


def sample_entry(histograms, region, name):
    process = f"{REGIONS[region]}_{SAMPLES[name]}"
    nominal = fit_bins(histograms[process])
    sigma = np.sqrt(event_weight(histograms[process]) * nominal)
    modifiers = [
        {"name": f"staterror_{region.replace(' ', '-')}", "type": "staterror", "data": sigma.tolist()},
        {"name": "Luminosity", "type": "normsys", "data": {"hi": 1.03, "lo": 0.97}},
    ]
    if name == "ttbar":
        modifiers.append({"name": "ttbar_norm", "type": "normfactor", "data": None})
    for systematic, (up, down, only) in SYSTEMATICS.items():
        if only is None or name in only:
            up_bins = fit_bins(histograms[f"{process}_{up}"])
            down_bins = None if down is None else fit_bins(histograms[f"{process}_{down}"])
            modifiers += norm_plus_shape(systematic, nominal, up_bins, down_bins)
    return {"name": name, "data": nominal.tolist(), "modifiers": modifiers}


def build(path: Path) -> dict:
    """The workspace for one file of published histograms."""
    histograms = json.loads(Path(path).read_text())
    return {
        "channels": [
            {"name": region, "samples": [sample_entry(histograms, region, name) for name in SAMPLES]}
            for region in REGIONS
        ],
        "measurements": [
            {
                "name": "CMS_ttbar",
                "config": {
                    "poi": "ttbar_norm",
                    "parameters": [{"name": "ttbar_norm", "inits": [1.0], "bounds": [[0, 10]]}],
                },
            }
        ],
        "observations": [
            {"name": region, "data": fit_bins(histograms[f"{short}_pseudodata"]).tolist()}
            for region, short in REGIONS.items()
        ],
        "version": "1.0.0",
    }
