"""More events than memory: the same numbers from events on disk, made once, whole collisions in each piece."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipeline import analysis as exact
from pipeline import on_disk
from pipeline.config import Config, load_config
from pipeline.errors import InputError
from pipeline.event_data import Data, Stream, parts_of
from pipeline.events.cuts import arrays
from pipeline.ingest.stored import StoredEvents
from pipeline.optimize import main
from pipeline.problem import Problem, read
from pipeline.tuning.tune import tune
from pipeline.validation.bootstrap import resampled

from flat_tables import MEMORY, config_of, write_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def in_memory(folder) -> Problem:
    return Problem.from_config(config_of(folder))


@pytest.fixture(scope="module")
def on_disk_config(folder) -> Config:
    return config_of(folder, memory=MEMORY, cache=str(folder / "cache"))


@pytest.fixture(scope="module")
def streamed(on_disk_config) -> Problem:
    return Problem.from_config(on_disk_config)


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """The number of each piece that is made."""
    numbers, make = [], on_disk._made

    def counted(*arguments):
        numbers.append(arguments[6])
        return make(*arguments)

    monkeypatch.setattr(on_disk, "_made", counted)
    return numbers


def test_what_fits_stays_in_memory(in_memory, streamed):
    assert isinstance(in_memory.training, Data)
    assert isinstance(streamed.training, Stream)
    assert len(streamed.training) > 2 < len(streamed.validation)
    assert all(isinstance(sample.events, StoredEvents) for sample in streamed.samples)


def test_what_is_read_back_is_what_was_read(in_memory, streamed):
    generator = np.random.default_rng(3)
    for here, there in zip(in_memory.samples, streamed.samples, strict=True):
        chosen = generator.random(len(here.events)) < 0.2
        np.testing.assert_array_equal(there.events.collision, here.events.collision)
        np.testing.assert_array_equal(there.events.weight, here.events.weight)
        assert there.events[chosen].to_list() == here.events[chosen].to_list()
        none = np.zeros(len(here.events), bool)
        assert there.events[none].type.content == there.events[chosen].type.content
        assert not len(there.events[none])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["training", "validation", "all"])
def test_the_analysis_is_the_same(in_memory, streamed, part):
    at = {"met": 43.0, "bdt": 0.37}
    here, there = (problem.value_and_grad(at, part) for problem in (in_memory, streamed))
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-12)
    for name in in_memory.bandwidths:
        # A flux is added in float32 within a chunk.
        np.testing.assert_allclose(there.gradient.value[name], here.gradient.value[name], rtol=1e-5)
        # Other subsamples: sixteen of them know their own scatter to a sixth.
        np.testing.assert_allclose(there.gradient.error[name], here.gradient.error[name], rtol=0.6)
    np.testing.assert_allclose(streamed.loss(at, part), here.loss, rtol=1e-12)
    for region, templates in streamed.templates(at, part).items():
        np.testing.assert_allclose(templates.values(), in_memory.templates(at, part)[region].values(), rtol=1e-12)


def test_every_event_is_in_one_piece(in_memory, streamed):
    at = arrays(in_memory.defaults)
    here, there = (exact.event_table(each.analysis, at, each.training) for each in (in_memory, streamed))
    assert len(there.index) == len(here.index)
    rows = [np.stack([table.dataset, table.index]) for table in (here, there)]
    np.testing.assert_array_equal(*(np.unique(each, axis=1) for each in rows))


def test_pieces_are_alike_and_share_no_collision(folder):
    """Three rows in four share their collision with others."""
    config = config_of(folder, memory=MEMORY, cache=str(folder / "cache"))
    sample = read(config)[1]
    numbers = np.sort(np.random.default_rng(1).integers(0, 3000, len(sample.events)).astype(np.uint64))
    together = replace(sample, events=replace(sample.events, collision=numbers))
    pieces = np.floor(on_disk._places(config, together) * 5).astype(int)
    bounds = sample.events.bounds
    for start, stop in itertools.pairwise(bounds):
        of_collision = {}
        for number, piece in zip(numbers[start:stop], pieces[start:stop], strict=True):
            assert of_collision.setdefault(number, piece) == piece
    assert np.bincount(pieces, minlength=5).min() > 0.15 * len(pieces)


def test_pieces_are_made_once(on_disk_config, streamed, made):
    again = Problem.from_config(on_disk_config)
    assert made == []
    assert again.training.stored.folder == streamed.training.stored.folder
    other_steps = on_disk_config.model_copy(
        update={"optimiser": on_disk_config.optimiser.model_copy(update={"steps": 7})}
    )
    Problem.from_config(other_steps)
    assert made == []


def test_a_place_that_is_rounded_to_one_is_in_the_last_piece():
    """Of a hundred million events it happens to some, and none may be lost."""
    place = np.array([0.0, 0.49, 0.5, 1 - 2**-53, 1.0])
    np.testing.assert_array_equal(on_disk._piece(np.ones(5, bool), place, 2), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(on_disk._piece(np.array([0, 1, 0, 1, 1], bool), place, 3), [-1, 1, -1, 2, 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"cuts": {"met": {"bounds": [10, 200]}}}, {"validation": {"fraction": 0.4}}]
)
def test_other_events_are_made_anew(folder, streamed, made, change):
    data = {"memory": MEMORY, "cache": str(folder / "cache")}
    other = Problem.from_config(load_config(folder / "flat.yaml", {"data": data} | change))
    assert made
    assert other.training.stored.folder != streamed.training.stored.folder


@pytest.mark.slow
def test_a_run_that_is_killed_loses_no_complete_piece(folder, tmp_path, monkeypatch, streamed):
    config, make = config_of(folder, memory=MEMORY, cache=str(tmp_path)), on_disk._made

    def killed(*arguments):
        if arguments[6] == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(on_disk, "_made", killed)
    with pytest.raises(KeyboardInterrupt):
        Problem.from_config(config)
    numbers = []
    monkeypatch.setattr(on_disk, "_made", lambda *arguments: numbers.append(arguments[6]) or make(*arguments))
    resumed = Problem.from_config(config)
    assert len(numbers) == len(streamed.training) + len(streamed.validation) - 2
    np.testing.assert_array_equal(resumed.loss(), streamed.loss())
    assert not list(tmp_path.glob("parts/*/raw_*"))
    assert not list(tmp_path.glob("parts/*/*.unfinished"))


def test_bootstrap_replicas_are_the_same_for_all_thresholds(streamed):
    replica = resampled(streamed.validation, np.random.default_rng(1))
    first, second = (
        [np.asarray(group.weight).sum() for part in parts_of(replica) for group in part.events.groups] for _ in range(2)
    )
    assert first == second
    plain = [np.asarray(group.weight).sum() for part in parts_of(streamed.validation) for group in part.events.groups]
    assert first != plain
    assert sum(first) == pytest.approx(sum(plain), rel=0.1)


def test_what_was_read_and_is_gone_is_a_sentence(folder, tmp_path):
    config = config_of(folder, memory=MEMORY, cache=str(tmp_path))
    samples = read(config)
    for entry in tmp_path.glob("*.arrow"):
        entry.unlink()
    with pytest.raises(InputError, match=r"is not in .* any more; start the run again"):
        samples[0].events[np.ones(len(samples[0].events), bool)]


def test_a_cache_that_cannot_be_written_is_a_sentence(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"more than memory shall hold .*cannot be kept in .*data\.cache"):
        Problem.from_config(config_of(folder, memory=MEMORY, cache=str(tmp_path / "file")))


@pytest.mark.slow
def test_a_smooth_analysis_needs_memory(streamed):
    smooth = streamed.config.model_copy(
        update={"optimiser": streamed.config.optimiser.model_copy(update={"forward": "smooth"})}
    )
    with pytest.raises(InputError, match="smooth needs all events in memory"):
        next(iter(tune(replace(streamed, config=smooth))))


@pytest.mark.slow
def test_kill_minus_nine_loses_nothing_that_is_complete(folder, tmp_path, in_memory):
    """At random moments of a run; the one that is left alone ends as if there had been no other."""
    settings = (f"data.memory={MEMORY}", f"data.cache={tmp_path / 'cache'}", "optimiser.steps=1")
    arguments = ["--config", str(folder / "flat.yaml"), "--output", str(tmp_path / "run"), "--quiet", "--no-plots"]
    arguments += [word for setting in settings for word in ("--set", setting)]
    generator, kept = np.random.default_rng(4), set()
    for _ in range(5):
        run = subprocess.Popen([sys.executable, "-m", "pipeline.optimize", *arguments])
        time.sleep(generator.uniform(3, 6))
        run.kill()
        run.wait()
        pieces = {place.name.replace("raw", "part") for place in tmp_path.glob("cache/parts/*/*_?????")}
        assert kept <= pieces
        kept = pieces
    if not (tmp_path / "run").exists():
        assert main(arguments) == 0
    before = json.loads((tmp_path / "run" / "result.json").read_text())["compared"]["validation"]["before"]["value"]
    expected = exact.merit_of(in_memory.analysis, arrays(in_memory.defaults), in_memory.validation).value
    assert before == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.slow
def test_a_run_is_the_same(folder, tmp_path):
    """From the command line; the errors are of other subsamples and replicas, so the way may differ a little."""
    results = []
    for name, settings in {"here": (), "there": (f"data.memory={MEMORY}", f"data.cache={tmp_path / 'cache'}")}.items():
        words = [word for setting in settings for word in ("--set", setting)]
        arguments = ["--config", str(folder / "flat.yaml"), "--output", str(tmp_path / name), "--quiet", *words]
        assert main(arguments) == 0
        results.append(json.loads((tmp_path / name / "result.json").read_text()))
        assert (tmp_path / name / "report.html").exists()
    here, there = (each["compared"]["validation"] for each in results)
    assert there["before"]["value"] == pytest.approx(here["before"]["value"], rel=1e-9)
    assert there["after"]["value"] == pytest.approx(here["after"]["value"], rel=0.02)
