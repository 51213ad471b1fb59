"""pyhf's own word on the final workspace: the number that stands beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyhf

__all__ = ["PyhfResult", "pyhf_discovery_significance"]


@dataclass(frozen=True)
class PyhfResult:
    """sqrt(q0) by pyhf (NumPy, Minuit) on Asimov data, −2 ln L of its fit without signal; `failure` says why not."""

    significance: float | None
    twice_nll: float | None
    failure: str = ""


def pyhf_discovery_significance(workspace: Mapping[str, Any]) -> PyhfResult:
    """Rebuild the model from JSON alone and fit it: no code shared with `pipeline.fit`.

    On Asimov data the answer of the free fit is known, and its likelihood is taken at that point, so that Minuit's
    error on a known number stays out of the comparison.
    """
    backend, optimizer = pyhf.get_backend()
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-2), precision="64b")
    try:
        model = pyhf.Workspace(workspace).model()
        nominal = list(model.config.suggested_init())
        nominal[model.config.poi_index] = 1.0
        data = model.expected_data(nominal)
        _, null = pyhf.infer.mle.fixed_poi_fit(0.0, data, model, return_fitted_val=True)
        best = -2 * float(model.logpdf(nominal, data)[0])
        return PyhfResult(significance=float(np.sqrt(max(float(null) - best, 0.0))), twice_nll=float(null))
    except pyhf.exceptions.FailedMinimization:
        return PyhfResult(None, None, "Minuit did not converge")
    finally:
        pyhf.set_backend(backend, optimizer)
