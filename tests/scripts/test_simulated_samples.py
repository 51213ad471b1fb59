"""The simulated samples: each step of scripts/samples, the command line, and the files that are committed."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pipeline.ingest.manifest import load_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from scripts.samples import detector, flat_table, make, manifest, nanoaod, settings, skim, thinning  # noqa: E402

SETS = ("simulated", "dilepton", "four_leptons", "zprime", "flat_table")

needs_pythia = pytest.mark.skipif(
    importlib.util.find_spec("pythia8mc") is None, reason="pythia8mc is not installed (extra 'samples')"
)


@pytest.fixture(scope="module")
def numbers():
    return settings.load()


@pytest.fixture(scope="module")
def particles():
    """Particle level by hand: an electron in every event, five jets, the last of them the electron itself."""
    rng = np.random.default_rng(5)
    n = 8_000
    jet_pt = np.column_stack([rng.uniform(31.0, 200.0, (n, 4)), np.full(n, 50.0)])
    jet_eta = np.column_stack([rng.uniform(-1.1, 1.1, (n, 4)), np.full(n, -2.0)])
    return ak.zip(
        {
            "weight": np.ones(n),
            "met_x": np.full(n, 30.0),
            "met_y": np.zeros(n),
            "collision": np.arange(n) // 2 + 1,
            "draw": np.arange(n) % 2 + 1,
            "lepton": ak.zip(
                {
                    "pt": ak.from_regular(np.full((n, 1), 50.0)),
                    "eta": ak.from_regular(np.full((n, 1), -2.0)),
                    "phi": ak.from_regular(np.zeros((n, 1))),
                    "pdg_id": ak.from_regular(np.where(np.arange(n)[:, np.newaxis] % 4 == 3, 13, -11)),
                    "from_tau": ak.from_regular(np.zeros((n, 1), bool)),
                }
            ),
            "jet": ak.zip(
                {
                    "pt": ak.from_regular(jet_pt),
                    "eta": ak.from_regular(jet_eta),
                    "phi": ak.from_regular(np.zeros((n, 5))),
                    "mass": ak.from_regular(np.full((n, 5), 8.0)),
                    "flavour": ak.from_regular(np.tile([5, 4, 0, 0, 0], (n, 1))),
                }
            ),
        },
        depth_limit=1,
    )


@pytest.fixture(scope="module")
def seen(particles, numbers):
    return detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=False)


def test_settings_name_the_nine_data_sets_with_the_agc_cross_sections(numbers):
    sections = {process.name: process.cross_section_pb for process in numbers.processes}
    agc = load_manifest(REPOSITORY / "data_manifest.yaml")
    roles = {(process.process, process.role or process.variation) for process in numbers.processes}
    assert roles == {(d.process, d.variation) for key, d in agc.datasets.items() if key.startswith("agc/")}
    for process in numbers.processes:
        assert sections[process.name] == pytest.approx(agc.dataset("agc", process.process).cross_section_pb, rel=1e-8)


def test_detector_is_fixed_by_its_seed(particles, numbers, seen):
    again = detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=False)
    assert ak.array_equal(again, seen)


def test_objects_are_in_descending_pt(seen):
    assert ak.all(seen.Jet.pt[:, 1:] <= seen.Jet.pt[:, :-1])


def test_tag_rates_follow_the_tables(seen, numbers):
    """Around the pt and eta where the shift is small, the share above 0.5 is one minus the table's value at 0.5."""
    jets = ak.flatten(seen.Jet[(seen.Jet.pt > 80) & (seen.Jet.pt < 100) & (abs(seen.Jet.eta) < 1.2)])
    for name, code in (("light", 0), ("charm", 4), ("bottom", 5)):
        share, value = np.asarray(numbers.detector.jet.discriminant[name]).T
        tagged = ak.to_numpy(jets.btagCSVV2[jets.hadronFlavour == code] > 0.5)
        expected = 1 - np.interp(0.5, value, share)
        assert tagged.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / tagged.size) + 0.01)


def test_jet_response_is_the_tuned_one(particles, numbers):
    """Without tails and noise the measured pt is response * pt + offset."""
    jet = numbers.detector.jet.model_copy(update={"resolution": (0.0, 0.0, 0.0), "tail_fraction": 0.0})
    exact = numbers.detector.model_copy(update={"jet": jet})
    measured = detector.simulate(particles, exact, np.random.default_rng(1), muons=False).Jet.pt
    expected = ak.sort(jet.response * particles.jet.pt + jet.offset, ascending=False)
    np.testing.assert_allclose(ak.flatten(measured), ak.flatten(expected), rtol=1e-12)


def test_an_electron_in_the_jet_collection_fails_the_lepton_veto(seen):
    electron_like = seen.Jet[(abs(seen.Jet.eta + 2.0) < 0.3)]
    with_electron = ak.num(seen.Muon) == 0
    assert ak.all(electron_like.jetId[with_electron & (ak.num(seen.Electron) == 1)] & 4 == 0)
    assert ak.mean(seen.Jet.jetId == 6) > 0.75


def test_muons_pass_only_when_asked_for(particles, numbers, seen):
    assert ak.sum(ak.num(seen.Muon)) > 1500
    assert not ak.any(seen.Muon.tightId)
    with_muons = detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=True)
    assert ak.mean(with_muons.Muon.tightId) == pytest.approx(numbers.detector.muon.tight.plateau, abs=0.02)


def test_skim_keeps_what_looser_cuts_may_reach(seen, numbers):
    kept = skim.skim(ak.copy(seen), numbers.skim, muons=False)
    assert 0 < len(kept) < len(seen)
    assert ak.all(ak.num(kept.Electron) >= 1)
    assert ak.all(ak.num(kept.Jet) >= numbers.skim.min_jets)
    assert ak.all(ak.any(kept.Jet.btagCSVV2 > numbers.skim.min_discriminant, axis=1))
    assert ak.all(kept.Jet.pt > numbers.skim.jet_pt)


def test_skim_takes_muon_events_when_asked_for(seen, numbers):
    without = skim.skim(ak.copy(seen), numbers.skim, muons=False)
    with_muons = skim.skim(ak.copy(seen), numbers.skim, muons=True)
    assert ak.all(ak.num(without.Electron) >= 1)
    assert len(with_muons) > len(without)


@pytest.fixture(scope="module")
def skimmed(seen, numbers):
    return skim.skim(ak.copy(seen), numbers.skim, muons=False)


def test_thinning_keeps_every_expectation(skimmed, numbers):
    """Sums of weights, of all events and of two-tag events, over 20 independent thinnings: the mean is the full sum."""

    def sums(events):
        weight = ak.to_numpy(events.genWeight)
        two_tags = ak.to_numpy(ak.sum(events.Jet.btagCSVV2 > 0.5, axis=1) >= 2)
        return weight.sum(), weight[two_tags].sum()

    rng = np.random.default_rng(8)
    halves = (skimmed[: len(skimmed) // 2], skimmed[len(skimmed) // 2 :])
    places = [thinning.places_of(half, numbers.thinning) for half in halves]
    plan = thinning.make_plan(places, numbers.thinning, target=1000)
    thinned = [thinning.thin(skimmed, plan, rng) for _ in range(20)]
    found = np.asarray([sums(events) for events in thinned])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - sums(skimmed)) < 4 * error)
    assert np.mean([len(events) for events in thinned]) == pytest.approx(1000, rel=0.1)


def test_thinning_leaves_small_samples_alone(skimmed, numbers):
    places = [thinning.places_of(skimmed, numbers.thinning)]
    plan = thinning.make_plan(places, numbers.thinning, target=len(skimmed))
    assert thinning.thin(skimmed, plan, np.random.default_rng(8)) is skimmed


def test_kept_events_of_a_bin_weigh_the_same(skimmed, numbers):
    """Whatever they weighed before: a few heavy ones would spoil the bin."""
    weight = np.random.default_rng(4).choice([1.0, 2.0], len(skimmed))
    unequal = ak.with_field(skimmed, weight, "genWeight")
    places = thinning.places_of(unequal, numbers.thinning)
    plan = thinning.make_plan([places], numbers.thinning, target=300)
    after = places.weight / plan.probability(places)
    for place in np.unique(places.number[plan.probability(places) < 1]):
        inside = (places.number == place) & (plan.probability(places) > numbers.thinning.min_probability)
        assert np.ptp(after[inside & (plan.probability(places) < 1)]) < 1e-9 * after[inside].mean()


@given(
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
    st.integers(4, 20),
)
def test_reduced_precision_is_close_and_stays(values, bits):
    reduced = nanoaod.reduce_precision(values, bits=bits)
    assert np.all(np.abs(reduced - values) <= np.abs(values) * 2.0 ** -(bits + 1))
    np.testing.assert_array_equal(nanoaod.reduce_precision(reduced, bits=bits), reduced)
    assert not np.any(reduced.view(np.uint32) & np.uint32((1 << (23 - bits)) - 1))


def test_files_are_nanoaod(skimmed, numbers, tmp_path):
    skimmed = skimmed[:500]
    assert nanoaod.write(tmp_path / "a.root", [skimmed[:200], skimmed[200:]], numbers) == 500
    assert [path.name for path in tmp_path.iterdir()] == ["a.root"]
    with uproot.open(tmp_path / "a.root") as file:
        tree = file["Events"]
        types = {name: branch.typename for name, branch in tree.items()}
        events = tree.arrays(["nJet", "Jet_pt", "Jet_hadronFlavour", "event", "run"])
    for collection, columns in numbers.branches.items():
        for name in columns:
            kind = nanoaod.DTYPES[name]
            assert types[f"{collection}_{name}"] == {"f4": "float[]", "i4": "int32_t[]", "?": "bool[]"}[kind]
    assert types["event"] == "uint64_t"
    assert (types["genWeight"], types["run"], types["luminosityBlock"]) == ("float", "uint32_t", "uint32_t")
    assert ak.array_equal(events.event, skimmed.collision, dtype_exact=False)
    assert ak.array_equal(events.run, skimmed.draw, dtype_exact=False)
    assert ak.array_equal(events.nJet, ak.num(skimmed.Jet), dtype_exact=False)
    np.testing.assert_allclose(ak.flatten(events.Jet_pt), ak.flatten(skimmed.Jet.pt), rtol=2.0**-11)


@pytest.fixture
def small_manifest(tmp_path):
    path = tmp_path / "data_manifest.yaml"
    path.write_text(f"# by hand\ndatasets:\n  agc/x: {{a: 1}} # kept\n{manifest.MARKER}\n", encoding="utf-8")
    return path


def test_manifest_keeps_what_others_wrote(small_manifest):
    manifest.update(small_manifest, {"simulated/a": {"process": "a", "files": [{"path": "a.root"}]}})
    manifest.update(small_manifest, {"simulated/b": {"process": "b", "files": [{"path": "b.root"}]}})
    manifest.update(small_manifest, {"simulated/a": {"process": "new", "files": [{"path": "a.root"}]}})
    text = small_manifest.read_text(encoding="utf-8")
    assert text.startswith("# by hand\ndatasets:\n  agc/x: {a: 1} # kept\n" + manifest.MARKER)
    datasets = yaml.safe_load(text)["datasets"]
    assert list(datasets) == ["agc/x", "simulated/a", "simulated/b"]
    assert datasets["simulated/a"]["process"] == "new"


def test_a_new_manifest_describes_samples_beside_it(tmp_path):
    path = tmp_path / "data_manifest.yaml"
    manifest.begin(path, like=REPOSITORY / "data_manifest.yaml")
    one = load_manifest(REPOSITORY / "data_manifest.yaml").dataset("simulated", "wjets", "nominal")
    fields = {"source": "simulated", "process": "wjets", "variation": "nominal", "cross_section_pb": 1.0}
    file = {"path": "w.root", "events": 3}
    manifest.update(path, {"simulated/wjets__nominal": fields | {"files": [file]}})
    found = load_manifest(path).dataset("simulated", "wjets", "nominal")
    assert found.locations("local") == (str(tmp_path / "w.root"),)
    assert found.source.simulated
    assert found.source.description == one.source.description


def test_manifest_without_the_marker_is_refused(tmp_path):
    path = tmp_path / "data_manifest.yaml"
    path.write_text("datasets: {}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data_manifest.yaml: has no line"):
        manifest.update(path, {})
    assert path.read_text(encoding="utf-8") == "datasets: {}\n"


@needs_pythia
def test_an_unknown_process_is_one_sentence(capsys, tmp_path):
    code = make.main(["--processes", "ttbarr", "--output", str(tmp_path), "--work", str(tmp_path)])
    message = capsys.readouterr().err
    assert code == 1
    assert "there is no 'ttbarr'; choose from ttbar__nominal" in message
    assert message.count("\n") == 1


@needs_pythia
def test_chunks_are_fixed_by_their_seed_and_count_every_collision(numbers):
    from scripts.samples.generator import generate

    process = numbers.processes[0]
    first, second = (generate(process, numbers.generator, events=400, seed=11) for _ in range(2))
    other = generate(process, numbers.generator, events=400, seed=12)
    assert ak.array_equal(first.events, second.events)
    assert len(other.events) != len(first.events) or not ak.array_equal(other.events, first.events)
    assert first.generated == 400
    assert first.sum_of_weights == 400.0
    assert 15 < len(first.events) < 120
    assert ak.all(ak.num(first.events.lepton) >= 1)
    assert set(np.unique(ak.to_numpy(ak.flatten(first.events.jet.flavour)))) == {0, 4, 5}


@needs_pythia
def test_electrons_come_with_the_branching_fractions_of_w_and_tau(numbers):
    """Taus are decided early: of events with one wanted lepton, the share from a tau is nature's, about 0.15."""
    from scripts.samples.generator import generate

    process = next(p for p in numbers.processes if p.process == "single_top_t_chan")
    loose = numbers.generator.model_copy(update={"min_jets_with_lepton": 1, "lepton_pt": 0.0, "hard_lepton_pt": 0.0})
    events = generate(process, loose.model_copy(update={"particle_eta": 10.0}), events=2000, seed=2).events
    electrons = events[ak.all(abs(events.lepton.pdg_id) == 11, axis=1)]
    from_tau = np.asarray(ak.sum(ak.all(electrons.lepton.from_tau, axis=1)))
    direct = len(electrons) - from_tau
    for count, expected in ((direct, 2000 * 0.1086), (from_tau, 2000 * 0.1086 * 0.178)):
        assert abs(count - expected) < 4 * np.sqrt(expected)


@needs_pythia
def test_the_command_writes_resumes_and_repeats(tmp_path, small_manifest):
    def run(output):
        arguments = ["--processes", "wjets__nominal", "--events", "150", "--work", str(tmp_path / "work")]
        return make.main([*arguments, "--output", str(tmp_path / output), "--manifest", str(small_manifest)])

    assert run("first") == 0
    chunks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert run("second") == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == chunks
    dataset = yaml.safe_load(small_manifest.read_text(encoding="utf-8"))["datasets"]["simulated/wjets__nominal"]
    (file,) = dataset["files"]
    with uproot.open(tmp_path / "first" / file["path"]) as written:
        assert written["Events"].num_entries == file["entries"]
    assert file["events"] == 150
    assert file["sum_of_weights"] != 150.0
    assert dataset["weights"] == "generator"
    assert any("bias2Selection" in line for line in dataset["generator"]["settings"])
    first, second = (events_of(tmp_path / name / file["path"]) for name in ("first", "second"))
    assert ak.array_equal(first, second)


def events_of(path):
    with uproot.open(path) as file:
        return file["Events"].arrays()


def committed():
    document = load_manifest(REPOSITORY / "data_manifest.yaml")
    return {key: dataset for key, dataset in document.datasets.items() if key.partition("/")[0] in SETS}


@pytest.mark.parametrize("key", sorted(committed()))
def test_committed_files_are_what_the_manifest_says(key):
    dataset = committed()[key]
    (file,) = dataset.files
    content = Path(dataset.locations()[0]).read_bytes()
    assert len(content) == file.size
    assert hashlib.sha256(content).hexdigest() == file.sha256
    assert dataset.source.simulated
    if key.startswith("flat_table/"):
        return
    with uproot.open(dataset.locations()[0]) as written:
        tree = written["Events"]
        assert tree.num_entries == file.entries
        events = tree.arrays(["event", "run", "genWeight"], library="np")
    assert len(np.unique([events["event"], events["run"].astype(np.uint64)], axis=1).T) == file.entries
    assert np.all(events["genWeight"] > 0)


def test_committed_files_are_small():
    sizes = dict.fromkeys(SETS, 0)
    for key, dataset in committed().items():
        sizes[key.partition("/")[0]] += sum(file.size for file in dataset.files)
    assert sizes.pop("simulated") <= 12_000_000
    assert sum(sizes.values()) <= 10_000_000
    assert all(size > 0 for size in sizes.values())


# --- the guest analyses -----------------------------------------------------------------------------------------------


def test_every_committed_guest_has_the_settings_that_made_it():
    for name in ("dilepton", "four_leptons", "zprime"):
        numbers = settings.load(name)
        of_set = {key: dataset for key, dataset in committed().items() if key.startswith(f"{name}/")}
        assert set(of_set) == {f"{name}/{process.name}" for process in numbers.processes}
        for process in numbers.processes:
            dataset = of_set[f"{name}/{process.name}"]
            assert dataset.cross_section_pb == process.cross_section_pb
            assert dataset.generator.settings == (*numbers.generator.pythia, *process.pythia)
            assert dataset.events == process.events


def test_settings_of_a_guest_change_what_they_name_and_nothing_else(numbers):
    zprime = settings.load("zprime")
    assert zprime.generator.wanted_leptons == (13,)
    assert zprime.generator.pythia == numbers.generator.pythia
    assert zprime.detector == numbers.detector
    assert settings.load("four_leptons").detector.electron.tight != numbers.detector.electron.tight


def test_charges_are_those_of_the_particles(particles, numbers):
    seen = detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=True)
    assert ak.all(seen.Electron.charge == 1)  # PDG code -11
    assert ak.all(seen.Muon.charge == -1)  # 13


def test_a_muon_is_no_jet_where_muons_count(particles, numbers):
    seen = detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=True)
    with_muon = ak.flatten(seen.Jet[(ak.num(seen.Muon) == 1) & (abs(seen.Jet.eta + 2.0) < 0.3)])
    assert ak.all(with_muon.jetId & 4 == 0)


def test_the_score_of_a_fat_jet_follows_its_quarks(particles, numbers):
    n = len(particles)
    quarks = np.arange(n)[:, np.newaxis] % 4
    fat = {"pt": 500.0, "eta": 0.5, "phi": 1.0, "mass": 170.0}
    columns = {name: ak.from_regular(np.full((n, 1), value)) for name, value in fat.items()}
    events = ak.with_field(particles, ak.zip(columns | {"quarks": ak.from_regular(quarks)}), "fat_jet")
    seen = detector.simulate(events, numbers.detector, np.random.default_rng(1), muons=True)
    score = ak.to_numpy(ak.flatten(seen.FatJet.score))
    for name, of_kind in (("top", quarks == 3), ("part", quarks == 2), ("other", quarks < 2)):
        share, value = np.asarray(numbers.detector.fat_jet.score[name]).T
        expected = 1 - np.interp(0.5, value, share)
        passed = score[of_kind[:, 0]] > 0.5
        assert passed.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / passed.size))


def test_skim_of_a_guest_wants_both_charges(particles):
    numbers = settings.load("dilepton")
    seen = detector.simulate(particles, numbers.detector, np.random.default_rng(1), muons=True)
    single = numbers.skim.model_copy(update={"min_leptons": 1, "min_met": 0.0})
    assert len(skim.skim(ak.copy(seen), single.model_copy(update={"opposite_sign": False}), muons=True)) > 0
    assert len(skim.skim(ak.copy(seen), single, muons=True)) == 0


@needs_pythia
def test_four_leptons_come_in_neutral_pairs_with_the_mass_of_the_higgs_boson():
    from scripts.samples.generator import generate

    numbers = settings.load("four_leptons")
    (process,) = (process for process in numbers.processes if process.process == "higgs")
    events = generate(process, numbers.generator, events=100, seed=3).events
    assert 30 < len(events) <= 100
    assert ak.all(ak.num(events.lepton) == 4)
    assert ak.all(ak.sum(np.sign(events.lepton.pdg_id), axis=1) == 0)
    momentum = [ak.sum(events.lepton.pt * f, axis=1) for f in (np.cos(events.lepton.phi), np.sin(events.lepton.phi))]
    energy = ak.sum(events.lepton.pt * np.cosh(events.lepton.eta), axis=1)
    longitudinal = ak.sum(events.lepton.pt * np.sinh(events.lepton.eta), axis=1)
    mass = np.sqrt(energy**2 - longitudinal**2 - momentum[0] ** 2 - momentum[1] ** 2)
    assert np.median(mass) == pytest.approx(125, abs=0.5)  # photons are radiated, and leave a tail


@needs_pythia
def test_fat_jets_of_a_heavy_resonance_hold_a_top_quark():
    from scripts.samples.generator import generate

    numbers = settings.load("zprime")
    events = {p.process: generate(p, numbers.generator, events=150, seed=3).events for p in numbers.processes}
    leading = {name: ak.to_numpy(ak.firsts(of.fat_jet.quarks)) for name, of in events.items()}
    assert np.mean(leading["signal"] == 3) > 0.3
    assert np.all(leading["wjets"] == 0)
    assert ak.all(events["signal"].fat_jet.pt > numbers.generator.fat_jet.pt)


# --- what is trained on -----------------------------------------------------------------------------------------------


def test_the_set_to_train_on_is_committed_nowhere_and_changes_no_other():
    """Chunks of other sets keep their names and seeds; the partons of an event draw no random number."""
    for name in settings.SETS:
        asks = "partons" in settings.load(name).generator.model_dump(exclude_defaults=True)
        assert asks == (name in settings.TRAINING)
    keys = load_manifest(REPOSITORY / "data_manifest.yaml").datasets
    assert not any(key.startswith(f"{name}/") for name in settings.TRAINING for key in keys)
    assert make._parse(["--set", "assignment"]).output == REPOSITORY / "runs" / "assignment"


def test_partons_pass_the_detector_as_they_are(particles, numbers, seen):
    partons = ak.zip(
        {"eta": [[0.5]] * len(particles), "phi": [[1.0]] * len(particles), "role": [[24]] * len(particles)}
    )
    with_them = ak.with_field(particles, partons, "parton")
    again = detector.simulate(with_them, numbers.detector, np.random.default_rng(1), muons=False)
    assert ak.array_equal(again.Parton, partons)
    assert ak.array_equal(ak.without_field(again, "Parton"), seen)


@needs_pythia
def test_a_hadronic_top_quark_has_two_quarks_of_a_w_boson_and_a_b_quark():
    from scripts.samples.generator import generate

    numbers = settings.load("assignment")
    events = generate(numbers.processes[0], numbers.generator, events=300, seed=3).events
    roles = [sorted(each) for each in events.parton.role.tolist()]
    assert len(roles) > 30
    assert all(each in ([-6, -6], [-6, 6, 24, 24]) for each in roles)  # two leptons, or one
    assert np.mean([len(each) == 4 for each in roles]) > 0.5
    # A b quark is near a jet with a b hadron.
    quarks = events.parton[abs(events.parton.role) == 6]
    quark, jet = ak.unzip(ak.cartesian([quarks, events.jet[events.jet.flavour == 5]], nested=True))
    phi = (quark.phi - jet.phi + np.pi) % (2 * np.pi) - np.pi
    near = ak.any((quark.eta - jet.eta) ** 2 + phi**2 < 0.4**2, axis=2)
    assert ak.mean(near[abs(quarks.eta) < 2]) > 0.8


def test_the_flat_table_is_fixed_by_its_seed_and_stays_absolute(tmp_path):
    target = tmp_path / "data_manifest.yaml"
    target.write_text(f"datasets:\n{manifest.MARKER}\n", encoding="utf-8")
    assert flat_table.main(["--output", str(tmp_path), "--manifest", str(target)]) == 0
    datasets = yaml.safe_load(target.read_text(encoding="utf-8"))["datasets"]
    for name, process in flat_table.PROCESSES.items():
        table = ak.from_parquet(tmp_path / f"{name}__nominal.parquet")
        (file,) = datasets[f"flat_table/{name}__nominal"]["files"]
        assert len(table) == file["events"] == process.rows
        assert ak.sum(ak.values_astype(table.genWeight, "float64")) == pytest.approx(file["sum_of_weights"], rel=1e-12)
        assert ak.any(table.genWeight < 0) == (process.negative > 0)
        kept = ak.from_parquet(Path(committed()[f"flat_table/{name}__nominal"].locations()[0]))
        assert ak.array_equal(table, kept)
