"""The experiment on noisy variations: what its table says, and that its models differ in nothing else."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "experiments"))

from pipeline.config import load_config  # noqa: E402

import noisy_variations  # noqa: E402

CONFIG = load_config(REPOSITORY / "configs" / "single_top.yaml")


def test_a_remedy_changes_nothing_else():
    with_errors = noisy_variations.with_remedy(CONFIG, noisy_variations.REMEDIES["uncertainty"])
    assert with_errors.measurement.variations.uncertainty
    assert noisy_variations.with_remedy(with_errors, noisy_variations.REMEDIES["nothing"]) == CONFIG


def test_gains_stand_beside_those_of_the_first_remedy_whoever_judges():
    found = [
        noisy_variations.Run(
            remedy, seed, {}, seen=3.0, unseen={"nothing": gain * seed, "pruning": 0.5}, default=default
        )
        for remedy, gain in (("nothing", 1.0), ("pruning", 1.5))
        for seed, default in ((1, {"nothing": 2.0, "pruning": 2.0}), (3, {"nothing": 4.0, "pruning": 2.0}))
    ]
    rows = list(zip(*(column.cells for column in noisy_variations.table(CONFIG, found).columns), strict=True))
    assert rows == [
        ("(default cuts)", "", "3.0 ± 1.0", "2 ± 0"),
        ("nothing", "+3 ± 0", "+2.0 ± 1.0", "+0.5 ± 0"),
        ("pruning", "+3 ± 0", "+3.0 ± 1.5", "+0.5 ± 0"),
        ("pruning minus nothing", "", "+1.00 ± 0.50", "+0 ± 0"),
    ]
