"""What makes two runs the same: `--resume` goes on with the same configuration and the same events only."""

from dataclasses import replace

import pytest
from pipeline.problem import Problem
from pipeline.validation.provenance import fingerprint

pytestmark = pytest.mark.slow


def test_other_events_of_the_same_files_are_another_run(problem: Problem) -> None:
    """A replaced file of equal size and entries, of which nothing is stated: only the events tell."""
    other = replace(problem.samples[-1], digest="0" * 64)
    changed = replace(problem, samples=(*problem.samples[:-1], other))
    assert fingerprint(replace(problem)) == fingerprint(problem)
    assert fingerprint(changed) != fingerprint(problem)


def test_a_skipped_file_is_another_run(problem: Problem) -> None:
    dataset = problem.samples[0].dataset
    fewer = replace(problem.samples[0], dataset=dataset.model_copy(update={"files": ()}))
    assert fingerprint(replace(problem, samples=(fewer, *problem.samples[1:]))) != fingerprint(problem)


def test_another_configuration_is_another_run(problem: Problem) -> None:
    config = problem.config.model_copy(update={"seed": problem.config.seed + 1})
    assert fingerprint(replace(problem, config=config)) != fingerprint(problem)
