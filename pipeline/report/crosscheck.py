"""pyhf's own word on the final workspace: the number that stands beside ours."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyhf

__all__ = ["PyhfResult", "pyhf_discovery_significance"]


@dataclass(frozen=True)
class PyhfResult:
    """sqrt(q0) by pyhf (NumPy, Minuit or else SLSQP) on Asimov data, and −2 ln L of its fit without signal.

    `failure` says why there is none.
    """

    significance: float | None
    twice_nll: float | None
    failure: str = ""


def pyhf_discovery_significance(workspace: Mapping[str, Any]) -> PyhfResult:
    """Rebuild the model from JSON alone and fit it: no code shared with `pipeline.fit`.

    On Asimov data the answer of the free fit is known, and its likelihood is taken at that point, so that Minuit's
    error on a known number stays out of the comparison.
    """
    backend, optimizer = pyhf.get_backend()
    # Its logger prints the whole state of a failed Minuit; one sentence is what the user gets.
    level = logging.getLogger("pyhf").level
    logging.getLogger("pyhf").setLevel(logging.CRITICAL)
    try:
        for minimiser in (pyhf.optimize.minuit_optimizer(tolerance=1e-2), pyhf.optimize.scipy_optimizer()):
            pyhf.set_backend("numpy", minimiser, precision="64b")
            with suppress(pyhf.exceptions.FailedMinimization):
                return _significance(pyhf.Workspace(workspace).model())
        return PyhfResult(None, None, "neither Minuit nor SLSQP converged")
    finally:
        logging.getLogger("pyhf").setLevel(level)
        pyhf.set_backend(backend, optimizer)


def _significance(model: pyhf.Model) -> PyhfResult:
    nominal = list(model.config.suggested_init())
    nominal[model.config.poi_index] = 1.0
    data = model.expected_data(nominal)
    _, null = pyhf.infer.mle.fixed_poi_fit(0.0, data, model, return_fitted_val=True)
    best = -2 * float(model.logpdf(nominal, data)[0])
    return PyhfResult(significance=float(np.sqrt(max(float(null) - best, 0.0))), twice_nll=float(null))
