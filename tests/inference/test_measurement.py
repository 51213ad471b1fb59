"""The numbers of the model against what cabinetry builds from the same templates."""

import dataclasses

import cabinetry
import jax
import jax.numpy as jnp
import numpy as np
import pyhf
import pytest
from pipeline.inference.histfactory import from_pyhf, logpdf, to_pyhf
from pipeline.inference.measurement import Channel, Measurement, Nuisance, merged_bins, numbers, skeleton
from pipeline.inference.significance import discovery_significance
from pipeline.inference.templates import Templates

from reference.compiling import quick_jit

# Names that pyhf sorts otherwise than they stand, a space in a name, and channels of different lengths.
CHANNELS = (Channel("b CR", 4, 0), Channel("a SR", 3, 4))
PROCESSES = ("ttbar", "W+jets", "other")
MEASUREMENT = Measurement(
    name="m",
    poi="mu",
    channels=CHANNELS,
    processes=PROCESSES,
    free=(("mu", 0), ("norm", 2)),
    nuisances=(
        Nuisance("one-sided", (0, 1, 2), up=1),
        Nuisance("two-sided", (0, 2), up=2, down=3),
        Nuisance("for one", (1,), up=4),
        Nuisance("size", (0, 1, 2), sizes=(0.03, -0.03)),
        Nuisance("size of one", (2,), sizes=(0.4, -0.4)),
        Nuisance("two sizes", (1,), sizes=(0.2, -0.1)),
        Nuisance("in one channel", (0, 1), up=3, channels=("a SR",)),
        # One parameter: what it does to one process and to another, in one channel and in another.
        Nuisance("shared", (0,), up=2, down=3),
        Nuisance("shared", (1,), up=4),
        Nuisance("shared", (2,), sizes=(0.1, -0.05), channels=("b CR",)),
        Nuisance("shared", (2,), sizes=(0.3, -0.2), channels=("a SR",)),
    ),
    bounds=(0.0, 10.0),
    minimum_effective_events=10.0,
)


@pytest.fixture(scope="module")
def structure():
    return from_pyhf(skeleton(MEASUREMENT))[0]


def random_templates(seed: int = 0) -> Templates:
    generator = np.random.default_rng(seed)
    nominal = generator.uniform(5, 100, (3, 7))
    varied = nominal * generator.normal(1, 0.1, (5, 3, 7))
    varied[0] = nominal
    return Templates(yields=jnp.asarray(varied), variance=jnp.asarray(generator.uniform(0.5, 3, (3, 7))))


_numbers = quick_jit(numbers, static_argnums=(0, 1))


def cabinetry_workspace(made: Templates, folder) -> dict:
    """The same templates through cabinetry: histograms on disk, a config, its workspace builder."""
    yields, stdev = np.asarray(made.yields), np.sqrt(made.variance)

    def save(channel: Channel, process: int, variation: int, name: str) -> None:
        bins = slice(channel.offset, channel.offset + channel.bins)
        content, error = yields[variation, process, bins], stdev[process, bins]
        histogram = cabinetry.histo.Histogram.from_arrays(np.arange(channel.bins + 1.0), content, error)
        histogram.save(folder / name.replace(" ", "-"))

    systematics = []
    for number, nuisance in enumerate(MEASUREMENT.nuisances):
        on = {
            "Name": f"number {number}",
            "ModifierName": nuisance.name,
            "Samples": [PROCESSES[p] for p in nuisance.processes],
        }
        if nuisance.channels is not None:
            on["Regions"] = list(nuisance.channels)
        if nuisance.sizes is not None:
            sides = {"Up": {"Normalization": nuisance.sizes[0]}, "Down": {"Normalization": nuisance.sizes[1]}}
            systematics.append(on | sides | {"Type": "Normalization"})
        else:
            sides = {"Up": {}, "Down": {} if nuisance.down else {"Symmetrize": True}}
            systematics.append(on | sides | {"Type": "NormPlusShape"})
    for channel in CHANNELS:
        save(channel, 0, 0, f"{channel.name}_Data")
        for process, title in enumerate(PROCESSES):
            save(channel, process, 0, f"{channel.name}_{title}")
            for number, nuisance in enumerate(MEASUREMENT.nuisances):
                for side, variation in (("Up", nuisance.up), ("Down", nuisance.down)):
                    if variation is not None and nuisance.acts_on(process, channel):
                        save(channel, process, variation, f"{channel.name}_{title}_number {number}_{side}")
    config = {
        "General": {"Measurement": "m", "POI": "mu", "HistogramFolder": str(folder)},
        "Regions": [{"Name": channel.name} for channel in CHANNELS],
        "Samples": [{"Name": "Data", "Data": True}, *({"Name": title} for title in PROCESSES)],
        "NormFactors": [{"Name": name, "Samples": PROCESSES[process]} for name, process in MEASUREMENT.free],
        "Systematics": systematics,
    }
    return cabinetry.workspace.WorkspaceBuilder(config).build()


def flat(workspace: dict) -> dict[tuple, np.ndarray]:
    """Every number of the channels, keyed by where it stands."""
    found = {}
    for channel in workspace["channels"]:
        for sample in channel["samples"]:
            place = (channel["name"], sample["name"])
            found[place] = np.asarray(sample["data"])
            for modifier in sample["modifiers"]:
                data = modifier["data"]
                parts = data if isinstance(data, dict) else {"": data or 0.0}
                for part, content in parts.items():
                    found[*place, modifier["type"], modifier["name"], part] = np.asarray(content)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_cabinetrys(structure, tmp_path, seed):
    """Normalised first and mirrored then, split into a factor and a shape."""
    made = random_templates(seed)
    ours = flat(to_pyhf(structure, _numbers(MEASUREMENT, structure, made), measurement="m"))
    theirs = flat(cabinetry_workspace(made, tmp_path))
    assert set(ours) == set(theirs)
    for place, content in theirs.items():
        np.testing.assert_allclose(ours[place], content, rtol=1e-9, atol=0, err_msg=str(place))


def test_what_is_written_is_expected_data_of_pyhf(structure):
    """Parameters of one name are one, whatever each says of processes and channels: κ and shapes written out here."""
    made = random_templates()
    workspace = pyhf.Workspace(to_pyhf(structure, _numbers(MEASUREMENT, structure, made), measurement="m"))
    model = workspace.model(
        modifier_settings={"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
    )
    yields = np.asarray(made.yields)
    at = dict(zip(model.config.par_names, model.config.suggested_init(), strict=True))
    for pull, side in ((1.0, 0), (-1.0, 1)):
        given = [pull if name == "shared" else value for name, value in at.items()]
        expected = dict.fromkeys(model.config.channels)
        for channel in CHANNELS:
            bins = slice(channel.offset, channel.offset + channel.bins)
            up_of_1 = yields[4, 1, bins]
            mirrored = mirror(yields[0, 1, bins], up_of_1) if side else up_of_1
            sizes = {"b CR": (0.1, -0.05), "a SR": (0.3, -0.2)}[channel.name]
            expected[channel.name] = yields[(2, 3)[side], 0, bins] + mirrored + (1 + sizes[side]) * yields[0, 2, bins]
        ours = model.expected_actualdata(given)
        np.testing.assert_allclose(ours, np.concatenate([expected[name] for name in model.config.channels]), rtol=1e-9)


def mirror(nominal: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Normalised first: κ and shape are mirrored each for itself."""
    factor = up.sum() / nominal.sum()
    return (2 - factor) * (2 * nominal - up / factor)


@pytest.mark.slow
def test_templates_that_are_not_split_stand_in_the_workspace_as_they_are():
    """Two-sided, mirrored, of one bin, and of one parameter with what is split elsewhere."""
    one_bin = Channel("counting", 1, 7)
    nuisances = (
        Nuisance("whole", (0, 1), up=2, down=3, split=False),
        Nuisance("mirrored", (1,), up=1, split=False, channels=("b CR", "counting")),
        Nuisance("both", (0,), up=2, down=3, split=False),
        Nuisance("both", (1,), up=2, down=3),
    )
    measured = dataclasses.replace(MEASUREMENT, channels=(*CHANNELS, one_bin), nuisances=nuisances)
    structure = from_pyhf(skeleton(measured))[0]
    made = random_templates()
    made = Templates(
        yields=jnp.concatenate([made.yields, 0.3 * made.yields[..., :1]], axis=2),
        variance=jnp.concatenate([made.variance, made.variance[:, :1]], axis=1),
    )
    content = flat(to_pyhf(structure, _numbers(measured, structure, made), measurement="m"))
    assert {place[3] for place in content if "normsys" in place} == {"both"}
    yields = np.asarray(made.yields)
    for channel in measured.channels:
        bins = slice(channel.offset, channel.offset + channel.bins)
        for name, process, up, down in (
            ("whole", 0, yields[2], yields[3]),
            ("whole", 1, yields[2], yields[3]),
            ("mirrored", 1, yields[1], 2 * yields[0] - yields[1]),
            ("both", 0, yields[2], yields[3]),
        ):
            place = (channel.name, PROCESSES[process], "histosys", name)
            if name == "mirrored" and channel.name == "a SR":
                assert (*place, "hi_data") not in content
                continue
            np.testing.assert_allclose(content[*place, "hi_data"], up[process, bins], rtol=1e-12)
            np.testing.assert_allclose(content[*place, "lo_data"], down[process, bins], rtol=1e-12)
    assert ("b CR", "ttbar", "normsys", "both", "hi") not in content
    assert content["b CR", "W+jets", "normsys", "both", "hi"] != 1


def test_the_skeleton_is_a_valid_workspace():
    workspace = skeleton(MEASUREMENT)
    pyhf.schema.validate(workspace, "workspace.json")
    model = pyhf.Workspace(workspace).model()
    assert model.config.poi_name == "mu"
    assert model.config.samples == sorted(PROCESSES)
    assert model.config.suggested_bounds()[model.config.poi_index] == [0.0, 10.0]
    constrained = {name for name in model.config.par_order if model.config.param_set(name).constrained}
    assert {nuisance.name for nuisance in MEASUREMENT.nuisances} < constrained
    assert not {"mu", "norm"} & constrained


def test_a_model_without_systematics():
    bare = Measurement("m", "mu", CHANNELS, PROCESSES, (("mu", 0),), (), (0.0, 10.0), 0.0)
    structure = from_pyhf(skeleton(bare))[0]
    made = random_templates()
    found = numbers(bare, structure, Templates(yields=made.yields[:1], variance=made.variance))
    assert found.normsys_hi.shape[0] == found.histosys_hi.shape[0] == 0
    np.testing.assert_array_equal(found.nominal.sum(), made.yields[0].sum())


def changed(variation, process, channel, value) -> Templates:
    """Random templates with one of them replaced in one channel; `None` stands for all variations or processes."""
    made = random_templates()
    bins = slice(channel.offset, channel.offset + channel.bins)
    at = (
        slice(variation, None if variation is None else variation + 1),
        slice(process, None if process is None else process + 1),
        bins,
    )
    variance = made.variance if variation else made.variance.at[at[1], bins].set(0.0 if value == 0 else 1.0)
    return Templates(yields=made.yields.at[at].set(value), variance=variance)


DEGENERATE = {
    "a process that is absent from a region": changed(None, 1, CHANNELS[0], 0.0),
    "an up variation of nothing": changed(1, 0, CHANNELS[1], 0.0),
    "a down variation of nothing": changed(3, 0, CHANNELS[1], 0.0),
    "a variation of nothing but the variation": changed(0, 1, CHANNELS[0], 0.0),
    "a mirrored factor beyond zero": changed(1, 0, CHANNELS[1], 300.0),
    "a region without any event": changed(None, None, CHANNELS[0], 0.0),
    "a process of negative weight": changed(None, 2, CHANNELS[0], -0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_templates_have_finite_numbers_and_gradients(structure, case):
    made = DEGENERATE[case]
    found = _numbers(MEASUREMENT, structure, made)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert np.all(np.asarray(found.normsys_hi) > 0)
    assert np.all(np.asarray(found.normsys_lo) > 0)
    value, slope = _z(MEASUREMENT, structure, made)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert np.any(slope.yields != 0)


_z = quick_jit(
    lambda measurement, structure, made: jax.value_and_grad(
        lambda made: discovery_significance(structure, numbers(measurement, structure, made)).z
    )(made),
    static_argnums=(0, 1),
)


def test_an_absent_process_has_neutral_modifiers(structure):
    found = _numbers(MEASUREMENT, structure, DEGENERATE["a process that is absent from a region"])
    sample, channel = structure.samples.index("W+jets"), [c.name for c in structure.channels].index("b CR")
    by_template = [
        n for n, m in enumerate(m for m in structure.modifiers if m.kind == "normsys") if "size" not in m.name
    ]
    assert np.all(found.normsys_hi[np.array(by_template), sample, channel] == 1)
    assert np.all(found.normsys_lo[np.array(by_template), sample, channel] == 1)


def test_gradients_of_the_numbers_are_those_of_finite_differences(structure):
    made = random_templates()
    generator = np.random.default_rng(8)
    direction = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), made)

    def of(step):
        return numbers(MEASUREMENT, structure, jax.tree.map(lambda leaf, d: leaf + step * d, made, direction))

    moved, slope = quick_jit(of), quick_jit(jax.jacfwd(of))(jnp.asarray(0.0))
    step = 1e-4
    numeric = jax.tree.map(lambda up, down: (up - down) / (2 * step), moved(step), moved(-step))
    for ours, expected in zip(jax.tree.leaves(slope), jax.tree.leaves(numeric), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_bins_are_merged_where_the_background_is_thin():
    """The signal does not count, and no bin is merged across regions."""
    made = random_templates()
    background = jnp.asarray([20.0, 3.0, 20.0, 4.0, 2.0, 30.0, 1.0])
    yields = made.yields.at[0, 1].set(background).at[0, 2].set(0.0).at[0, 0].set(1000.0)
    thin = Templates(yields=yields, variance=made.variance.at[1].set(background).at[2].set(0.0))
    assert merged_bins(MEASUREMENT, thin).tolist() == [0, 1, 1, 1, 4, 4, 4]


@pytest.mark.slow
def test_simulated_events_may_be_counted_by_poisson():
    """The workspace is pyhf's, its likelihood ours; each process and bin counts (Σw)²/Σw² events beside the data."""
    counted = dataclasses.replace(MEASUREMENT, mc_statistics="poisson")
    workspace = skeleton(counted)
    pyhf.schema.validate(workspace, "workspace.json")
    structure, made = from_pyhf(workspace)[0], random_templates()
    found = _numbers(counted, structure, made)
    written = to_pyhf(structure, found, measurement="m")
    again, _, data = from_pyhf(written)
    assert again == structure
    model = pyhf.Workspace(written).model()
    assert not any(m["type"] == "staterror" for c in written["channels"] for s in c["samples"] for m in s["modifiers"])
    events = np.asarray(made.yields[0]) ** 2 / np.asarray(made.variance)
    for channel in CHANNELS:
        bins = slice(channel.offset, channel.offset + channel.bins)
        for process, title in enumerate(PROCESSES):
            name = f"mcstat_{channel.name}_{title}".replace(" ", "-")
            np.testing.assert_allclose(model.config.param_set(name).factors, events[process, bins], rtol=1e-9)
    rng = np.random.default_rng(5)
    lower = np.array(model.config.suggested_bounds())[:, 0]
    point = np.where(lower < 0, rng.uniform(-1, 1, len(lower)), rng.uniform(0.8, 1.2, len(lower)))
    ours = quick_jit(logpdf, static_argnums=0)(structure, found, jnp.asarray(point), data)
    np.testing.assert_allclose(ours, model.logpdf(point, np.asarray(data))[0], rtol=1e-11)


def test_simulated_events_may_be_taken_for_exact():
    """The workspace is that of the default without its staterrors."""
    exact = dataclasses.replace(MEASUREMENT, mc_statistics="none")
    structure, made = from_pyhf(skeleton(exact))[0], random_templates()
    written = to_pyhf(structure, _numbers(exact, structure, made), measurement="m")
    usual = from_pyhf(skeleton(MEASUREMENT))[0]
    expected = to_pyhf(usual, _numbers(MEASUREMENT, usual, made), measurement="m")
    for channel in expected["channels"]:
        for sample in channel["samples"]:
            sample["modifiers"] = [each for each in sample["modifiers"] if each["type"] != "staterror"]
    assert written["channels"] == expected["channels"]
