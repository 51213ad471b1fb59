"""Data-taking periods: all data sets of a run stand for the same data."""

from collections.abc import Sequence
from math import isclose

from pipeline.errors import InputError
from pipeline.ingest.dataset import Dataset

__all__ = ["check_periods"]


def check_periods(datasets: Sequence[Dataset], luminosity: float) -> None:
    """Refuse data sets that are normalised to different luminosities: one that lacks a period, or has none.

    Args:
        datasets: Of one run, one for each process, variation and period.
        luminosity: Of the data sets without a period, in 1/pb.

    Raises:
        InputError: They differ; the message says which data set lacks what.
    """
    every = {dataset.period: dataset.luminosity or 0.0 for dataset in datasets if dataset.period}
    total = sum(every.values())
    for dataset in datasets:
        own = {
            each.period for each in datasets if (each.process, each.variation) == (dataset.process, dataset.variation)
        }
        lacking = [period for period in every if period not in own]
        if dataset.period and lacking:
            raise InputError(
                f"{dataset.key}: there is no such data set for the period {', '.join(lacking)}, which others have; "
                "add it to the manifest, or it would be counted for a part of the data only."
            )
        if every and not dataset.period and not isclose(total, luminosity, rel_tol=1e-3):
            raise InputError(
                f"{dataset.key}: has no period, so the luminosity of the config ({luminosity:g}/pb) normalises it, but "
                f"the periods of others ({', '.join(every)}) add up to {total:g}/pb; set 'luminosity' to that, "
                "or state a period for each of its data sets."
            )
