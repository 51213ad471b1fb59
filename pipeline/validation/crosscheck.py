"""pyhf's own word on the final workspace: the number that stands beside ours.

As a program, `python -m pipeline.validation.crosscheck < workspace.json` prints what it finds as JSON.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyhf

__all__ = ["PyhfResult", "advice", "cross_check", "cross_checks"]

UNCERTAINTY = "--uncertainty"
MANY_PARAMETERS = 20
"""Of a model: with fewer, pyhf is done before another process has imported it."""


@dataclass(frozen=True)
class PyhfResult:
    """What pyhf (NumPy, Minuit or else SLSQP) finds on Asimov data: the one of two numbers that was asked for.

    `significance` is sqrt(q0), with −2 ln L of the fit without signal; `uncertainty` that of the signal strength.
    `failure` says why there is none.
    """

    significance: float | None
    twice_nll: float | None
    failure: str = ""
    uncertainty: float | None = None


def cross_check(workspace: Mapping[str, Any], *, uncertainty: bool = False) -> PyhfResult:
    """Rebuild the model from JSON alone and fit it: no code shared with `pipeline.inference.fit`.

    The significance, or the `uncertainty` of the signal strength: a fit of either takes pyhf seconds.

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
                model = pyhf.Workspace(workspace).model()
                return PyhfResult(None, None, uncertainty=_uncertainty(model)) if uncertainty else _significance(model)
        return PyhfResult(None, None, "neither Minuit nor SLSQP converged")
    finally:
        logging.getLogger("pyhf").setLevel(level)
        pyhf.set_backend(backend, optimizer)


@contextmanager
def cross_checks(
    workspaces: Mapping[str, Mapping[str, Any]], *, uncertainty: bool, parameters: int
) -> Iterator[Mapping[str, Future[PyhfResult]]]:
    """`cross_check` of some workspaces, beside what is done meanwhile: a process for each, if there is much to do.

    Args:
        workspaces: by name.
        uncertainty: as in `cross_check`.
        parameters: how many the model has.
    """
    check = _check_apart if parameters > MANY_PARAMETERS else cross_check
    with ThreadPoolExecutor(len(workspaces) if check is _check_apart else 1) as pool:
        yield {name: pool.submit(check, each, uncertainty=uncertainty) for name, each in workspaces.items()}


def _check_apart(workspace: Mapping[str, Any], *, uncertainty: bool) -> PyhfResult:
    """In a process of its own: pyhf's backend is global, and Python does one thing at a time."""
    command = [sys.executable, "-m", "pipeline.validation.crosscheck", *([UNCERTAINTY] if uncertainty else [])]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, input=json.dumps(workspace), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        return PyhfResult(None, None, f"its process ended with {(done.stderr.splitlines() or ['nothing to say'])[-1]}")
    return PyhfResult(**json.loads(done.stdout))


def _significance(model: pyhf.Model) -> PyhfResult:
    null, best = _profiled(model, 0.0)
    return PyhfResult(significance=float(np.sqrt(max(null - best, 0.0))), twice_nll=null)


def _uncertainty(model: pyhf.Model) -> float:
    """Of the signal strength, from the curvature of the profile likelihood at signal strength 1.

    Minuit's Hesse is not used: on the AGC's model its numerical second derivatives were seen to be wrong by a factor of
    three, where the profile is smooth.
    """
    width = 0.5
    # The first distance finds the scale, the second one is a fraction of it.
    for distance in (0.05, 0.2):
        rises = [float(np.subtract(*_profiled(model, 1 + way * distance * width))) for way in (1, -1)]
        if sum(rises) <= 0:
            return float("inf")  # the model has no signal, or no bin that says anything of it
        width = distance * width * float(np.sqrt(2 / sum(rises)))
    return width


def _profiled(model: pyhf.Model, mu: float) -> tuple[float, float]:
    """−2 ln L on Asimov data with signal strength 1: of the best fit with signal strength `mu`, and at the truth."""
    nominal = list(model.config.suggested_init())
    nominal[model.config.poi_index] = 1.0
    data = model.expected_data(nominal)
    _, fitted = pyhf.infer.mle.fixed_poi_fit(mu, data, model, return_fitted_val=True)
    return float(fitted), -2 * float(model.logpdf(nominal, data)[0])


def advice(poi: str) -> str:
    """What whoever goes on with a workspace has to know of the error that other programs find."""
    return (
        "The error that pyhf and cabinetry report is Minuit's Hesse: numerical derivatives, which miss what is curved "
        "on a small scale, and may come out far too small. Ask for MINOS instead, "
        f'cabinetry.fit.fit(model, data, minos="{poi}"), or for the exact Hessian, python -m pipeline.fit_workspace '
        "workspace.json."
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(cross_check(json.load(sys.stdin), uncertainty=UNCERTAINTY in sys.argv))))
