"""Workspaces to test with: written out, generated at random, and generated at size. Nothing of `pipeline` in here."""

import numpy as np
from hypothesis import strategies as st


def workspace(channels, observations, parameters=(), poi="mu", name="measurement"):
    return {
        "version": "1.0.0",
        "channels": channels,
        "observations": [{"name": key, "data": list(data)} for key, data in observations.items()],
        "measurements": [{"name": name, "config": {"poi": poi, "parameters": list(parameters)}}],
    }


def modifier(kind, name, data=None):
    return {"type": kind, "name": name, "data": data}


MU = modifier("normfactor", "mu")

# The two-bin example of pyhf's README and documentation ('2-bin 1-channel'): uncorrelated background uncertainties.
HELLO_WORLD = workspace(
    [
        {
            "name": "singlechannel",
            "samples": [
                {"name": "signal", "data": [12.0, 11.0], "modifiers": [MU]},
                {
                    "name": "background",
                    "data": [50.0, 52.0],
                    "modifiers": [modifier("shapesys", "uncorr_bkguncrt", [3.0, 7.0])],
                },
            ],
        }
    ],
    {"singlechannel": [51.0, 48.0]},
)

# The control and signal regions of pyhf's validation (multibin_multichannel_coupled_histosys): one shape parameter
# shared by two channels and three samples.
COUPLED_HISTOSYS = workspace(
    [
        {
            "name": "signal",
            "samples": [
                {"name": "signal", "data": [7.5, 1.0], "modifiers": [MU]},
                {
                    "name": "bkg1",
                    "data": [50.0, 60.0],
                    "modifiers": [
                        modifier("histosys", "coupled_histosys", {"lo_data": [49.0, 58.5], "hi_data": [51.0, 61.5]})
                    ],
                },
                {
                    "name": "bkg2",
                    "data": [100.0, 30.0],
                    "modifiers": [
                        modifier("histosys", "coupled_histosys", {"lo_data": [97.0, 29.0], "hi_data": [102.0, 31.5]})
                    ],
                },
            ],
        },
        {
            "name": "control",
            "samples": [
                {
                    "name": "background",
                    "data": [100.0, 120.0],
                    "modifiers": [
                        modifier("histosys", "coupled_histosys", {"lo_data": [96.0, 117.0], "hi_data": [104.5, 122.0]})
                    ],
                }
            ],
        },
    ],
    {"signal": [120.0, 180.0], "control": [110.0, 105.0]},
)

# A data-driven background, as in pyhf's validation (multibin_multichannel_coupled_shapefactor): the shape of the
# background is free, and the same in both channels.
COUPLED_SHAPEFACTOR = workspace(
    [
        {
            "name": "signal",
            "samples": [
                {"name": "signal", "data": [10.0, 14.0], "modifiers": [MU]},
                {
                    "name": "background",
                    "data": [40.0, 20.0],
                    "modifiers": [modifier("shapefactor", "coupled_shapefactor")],
                },
            ],
        },
        {
            "name": "control",
            "samples": [
                {
                    "name": "background",
                    "data": [100.0, 120.0],
                    "modifiers": [modifier("shapefactor", "coupled_shapefactor")],
                }
            ],
        },
    ],
    {"signal": [55.0, 38.0], "control": [105.0, 118.0]},
)

# Every modifier at once: luminosity, a parameter that is norm and shape, shared across channels and samples,
# statistical uncertainties with an empty bin, a bin of zero width, and a sample that one channel lacks.
EVERYTHING = workspace(
    [
        {
            "name": "SR",
            "samples": [
                {
                    "name": "signal",
                    "data": [3.0, 6.0, 9.0],
                    "modifiers": [
                        MU,
                        modifier("lumi", "lumi"),
                        modifier("normsys", "JES", {"hi": 1.12, "lo": 0.9}),
                        modifier("staterror", "stat_SR", [0.3, 0.5, 0.6]),
                    ],
                },
                {
                    "name": "top",
                    "data": [30.0, 22.0, 0.0],
                    "modifiers": [
                        modifier("lumi", "lumi"),
                        modifier("normfactor", "top_norm"),
                        modifier("normsys", "JES", {"hi": 1.05, "lo": 0.93}),
                        modifier("histosys", "JES", {"hi_data": [33.0, 21.0, 0.4], "lo_data": [28.0, 23.5, 0.0]}),
                        modifier("staterror", "stat_SR", [2.0, 1.5, 0.0]),
                    ],
                },
                {
                    "name": "fakes",
                    "data": [5.0, 0.0, 2.0],
                    "modifiers": [modifier("shapesys", "fake_rate", [1.5, 0.7, 0.4])],
                },
            ],
        },
        {
            "name": "CR",
            "samples": [
                {
                    "name": "top",
                    "data": [120.0, 80.0],
                    "modifiers": [
                        modifier("lumi", "lumi"),
                        modifier("normfactor", "top_norm"),
                        modifier("normsys", "scale", {"hi": 1.2, "lo": 0.85}),
                        modifier("histosys", "JES", {"hi_data": [118.0, 84.0], "lo_data": [121.0, 77.0]}),
                        modifier("staterror", "stat_CR", [3.0, 0.0]),
                    ],
                },
                {
                    "name": "other",
                    "data": [10.0, 15.0],
                    "modifiers": [
                        modifier("shapefactor", "other_shape"),
                        modifier("staterror", "stat_CR", [1.0, 0.0]),
                    ],
                },
            ],
        },
    ],
    {"SR": [41.0, 30.0, 10.0], "CR": [128.0, 99.0]},
    parameters=[
        {
            "name": "lumi",
            "auxdata": [1.0],
            "sigmas": [0.017],
            "inits": [1.0],
            "bounds": [[0.5, 1.5]],
        },
        {"name": "top_norm", "inits": [1.1], "bounds": [[0.0, 5.0]]},
    ],
)

# One variation scales a sample whose shape another one changes; at the shallower of two minima the signal is at zero.
SCALED_SHAPE = workspace(
    [
        {
            "name": "SR",
            "samples": [
                {
                    "name": "light",
                    "data": [74.8, 117.3, 43.7, 84.7],
                    "modifiers": [
                        modifier(
                            "histosys",
                            "a1",
                            {"hi_data": [49.5, 132.6, 43.1, 80.4], "lo_data": [66.5, 119.8, 43.2, 83.1]},
                        ),
                        modifier(
                            "histosys",
                            "a2",
                            {"hi_data": [69.5, 120.6, 41.3, 109.6], "lo_data": [73.3, 119.3, 42.7, 86.1]},
                        ),
                    ],
                },
                {
                    "name": "heavy",
                    "data": [26.5, 75.6, 60.2, 46.6],
                    "modifiers": [
                        modifier("normsys", "a0", {"hi": 0.75, "lo": 0.81}),
                        modifier(
                            "histosys",
                            "a1",
                            {"hi_data": [33.8, 56.7, 67.1, 56.6], "lo_data": [27.1, 69.3, 66.7, 55.7]},
                        ),
                        modifier(
                            "histosys",
                            "a2",
                            {"hi_data": [35.4, 80.1, 50.1, 62.4], "lo_data": [28.5, 79.7, 57.3, 53.0]},
                        ),
                    ],
                },
                {"name": "signal", "data": [7.8, 13.2, 7.1, 9.2], "modifiers": [MU]},
            ],
        }
    ],
    {"SR": [82.0, 275.0, 91.0, 84.0]},
)

WRITTEN_OUT = {
    "hello world": HELLO_WORLD,
    "coupled histosys": COUPLED_HISTOSYS,
    "coupled shapefactor": COUPLED_SHAPEFACTOR,
    "everything": EVERYTHING,
}


def large_workspace(channels=6, bins=12, samples=5, systematics=30, seed=20):
    """A search of published size: many regions, normalisation and shape systematics shared by all, staterrors.

    Modelled on the structure of the full likelihoods that ATLAS publishes on HEPData (arXiv:2012.14845 lists their
    make-up): per region a falling background with a staterror parameter in each bin, per systematic a normsys and a
    histosys of one name, free normalisations of the main backgrounds, a signal that peaks.
    """
    rng = np.random.default_rng(seed)
    spec, observed = [], {}
    names = [f"background{i}" for i in range(samples - 1)]
    for c in range(channels):
        position = np.arange(bins)
        entries = []
        for s, name in enumerate([*names, "signal"]):
            shape = (
                np.exp(-position / rng.uniform(3, 8)) if name != "signal" else np.exp(-0.5 * (position - 6) ** 2 / 4)
            )
            nominal = shape * (rng.uniform(50, 400) if name != "signal" else 12.0)
            entries.append(_entry(rng, name, nominal, c, s, systematics))
        spec.append({"name": f"region{c}", "samples": entries})
        observed[f"region{c}"] = rng.poisson(np.sum([e["data"] for e in entries], axis=0)).astype(float)
    return workspace(spec, observed)


def _entry(rng, name, nominal, c, s, systematics):
    modifiers = [modifier("staterror", f"stat_region{c}", (nominal * rng.uniform(0.02, 0.1, len(nominal))).tolist())]
    if name == "signal":
        modifiers.append(MU)
    elif s < 2:
        modifiers.append(modifier("normfactor", f"norm_{name}"))
    slope = np.linspace(-1, 1, len(nominal))
    for k in range(systematics):
        if rng.uniform() < 0.5:
            size = rng.normal(0, 0.05)
            modifiers.append(modifier("normsys", f"syst{k}", {"hi": 1 + size, "lo": 1 / (1 + size)}))
            tilt = rng.normal(0, 0.04) * slope
            data = {"hi_data": (nominal * (1 + tilt)).tolist(), "lo_data": (nominal * (1 - 0.9 * tilt)).tolist()}
            modifiers.append(modifier("histosys", f"syst{k}", data))
    return {"name": name, "data": nominal.tolist(), "modifiers": modifiers}


def few_bins_many_systematics(seed, systematics=60, channels=3):
    """A few bins and many more parameters: the make-up of ATLAS's ttZ measurement (arXiv:2103.12603).

    Free normalisations as many as channels, so that they are nearly degenerate; normsys that are one-sided, that are
    exactly 1 on a side, or that go the same way up and down. The structure is the same for every seed.
    """
    rng = np.random.default_rng(seed)
    names = ["signal", *(f"background{k}" for k in range(4))]
    spec = []
    for c in range(channels):
        entries = []
        for s, name in enumerate(names):
            modifiers = [modifier("normfactor", "mu" if s == 0 else f"norm{s}")] if s < channels else []
            for k in range(systematics):
                up, kind = 1 + rng.normal(0, 0.06), rng.uniform()
                down = 1.0 if kind < 0.4 else up if kind < 0.45 else 2 - up
                modifiers.append(modifier("normsys", f"syst{k}", {"hi": float(up), "lo": float(down)}))
            data = [float(rng.uniform(20, 300))]
            entries.append({"name": name, "data": data, "modifiers": modifiers})
        spec.append({"name": f"region{c}", "samples": entries})
    totals = {channel["name"]: sum(sample["data"][0] for sample in channel["samples"]) for channel in spec}
    return workspace(spec, {name: [float(rng.poisson(total))] for name, total in totals.items()})


def same_side(seed, bins=3, count=2, tilt=0.15):
    """Shape variations that move every bin up at +1 and at -1, tilted opposite ways.

    An excess is fitted from either side, and to change sides takes two of them, because each makes good for the other's
    tilt. Without a tilt, or with one variation, there is nothing to make good for.
    """
    rng = np.random.default_rng(seed)
    background, odd = rng.uniform(40, 200, bins), rng.normal(0, tilt, bins)
    variations = []
    for k in range(count):
        even, slant = rng.uniform(0.05, 0.3) + rng.normal(0, 0.03, bins), (-1) ** k * rng.uniform(0.8, 1.2) * odd
        high, low = (background * np.maximum(0.05, 1 + even + side * slant) for side in (1, -1))
        variations.append(modifier("histosys", f"shape{k}", {"hi_data": high.tolist(), "lo_data": low.tolist()}))
    samples = [
        {"name": "background", "data": background.tolist(), "modifiers": variations},
        {"name": "signal", "data": rng.uniform(1, 10, bins).tolist(), "modifiers": [MU]},
    ]
    expected = background * rng.uniform(1.1, 1.9) * np.exp(rng.normal(0, 0.05, bins))
    return workspace([{"name": "SR", "samples": samples}], {"SR": rng.poisson(expected).astype(float).tolist()})


@st.composite
def random_workspaces(draw):
    """Any mixture of modifiers on up to three channels and samples, with empty bins and missing samples."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True))
    bins = {name: draw(st.integers(1, 3)) for name in names}
    pool = ["signal", "top", "fakes"]
    channels = [
        {
            "name": name,
            "samples": [
                draw(random_sample(name, sample, bins[name], signal=sample == "signal"))
                for sample in ["signal", *draw(st.lists(st.sampled_from(pool[1:]), unique=True))]
            ],
        }
        for name in names
    ]
    lumi = {
        "name": "lumi",
        "auxdata": [1.0],
        "sigmas": [draw(st.floats(0.01, 0.2))],
        "inits": [1.0],
        "bounds": [[0, 2]],
    }
    used = {m["name"] for c in channels for s in c["samples"] for m in s["modifiers"]}
    observed = {name: draw(st.lists(st.integers(0, 200), min_size=n, max_size=n)) for name, n in bins.items()}
    return workspace(channels, observed, parameters=[lumi] if "lumi" in used else [])


YIELD = st.one_of(st.just(0.0), st.floats(0.01, 100.0))
FACTOR = st.floats(0.3, 2.0)


@st.composite
def random_sample(draw, channel, name, bins, signal):
    def some(values):
        return draw(st.lists(values, min_size=bins, max_size=bins))

    nominal = some(YIELD)
    modifiers = [MU] if signal else []
    modifiers += [
        modifier("normsys", shared, {"hi": draw(FACTOR), "lo": draw(FACTOR)})
        for shared in draw(st.lists(st.sampled_from(["s1", "s2", "s3"]), unique=True))
    ]
    modifiers += [
        modifier("histosys", shared, {"hi_data": some(YIELD), "lo_data": some(YIELD)})
        for shared in draw(st.lists(st.sampled_from(["s1", "s2", "h1"]), unique=True))
    ]
    if draw(st.booleans()):
        modifiers.append(modifier("staterror", f"stat_{channel}", some(YIELD)))
    if draw(st.booleans()):
        modifiers.append(modifier("lumi", "lumi"))
    if draw(st.booleans()):
        modifiers.append(modifier("normfactor", draw(st.sampled_from(["k1", "k2"]))))
    if draw(st.booleans()):
        modifiers.append(modifier("shapefactor", f"free_{channel}"))
    modifiers += [
        modifier("shapesys", f"shapesys_{channel}_{name}_{i}", some(YIELD)) for i in range(draw(st.integers(0, 2)))
    ]
    return {"name": name, "data": nominal, "modifiers": modifiers}
