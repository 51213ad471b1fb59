"""A physics analysis as one differentiable function: exact hard cuts, their gradient, and a HistFactory likelihood.

    import pipeline as pl

    problem = pl.Problem.from_arrays(
        {"signal": signal, "background": background},   # DataFrames, dicts of arrays, parquet or ROOT files, …
        weight="weight",
        cuts=[pl.Cut("met", above=50, bounds=(0, 200))],
        regions=[pl.Region("SR", observable="mass", bins=np.linspace(100, 500, 11))],
        signal="signal",
        systematics=[pl.Norm("lumi", 0.03)],
    )
    result = pl.tune(problem, steps=40)
    result.thresholds, result.gain      # what to cut at, and how much better that is on events not tuned on
    result.report("runs/mine")          # the folder that the command line writes
    result.workspace                    # of pyhf

- `Problem`: an analysis and its events, from tables (`from_arrays`) or from a YAML file (`from_config`), with `loss`,
  `value_and_grad`, `templates` and `event_table`.
- `Cut`, `Region`, `Network`, and the uncertainties `Norm`, `Weights` and `Columns`: what it is made of.
- `TemplateFit` and `Shape`: the same likelihood of histograms that are there already (`hist.Hist`, uproot, ROOT), with
  derivatives by the content of each bin.
- `tune` runs the optimiser and judges its `Result` on events that it has not seen.
- `load_config`: a YAML file, checked. On the command line: `python -m pipeline.optimize --help`.

Below that, in the order in which data flow: `pipeline.ingest` reads files, `pipeline.events` is the hard analysis and
its boundary flux, `pipeline.inference` the likelihood of any pyhf workspace, `pipeline.analysis` the function of
thresholds and events, `pipeline.tuning` the loop around optax, `pipeline.validation` and `pipeline.report` what is said
of its result.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import load_config
    from pipeline.problem import Problem
    from pipeline.result import Result
    from pipeline.run import tune
    from pipeline.template_fit import TemplateFit
    from pipeline.template_input import Shape
    from pipeline.vocabulary import Columns, Cut, Network, Norm, Region, Weights

__all__ = [
    "Columns",
    "Cut",
    "Network",
    "Norm",
    "Problem",
    "Region",
    "Result",
    "Shape",
    "TemplateFit",
    "Weights",
    "load_config",
    "tune",
]

__version__ = "0.1.0"

_HOME = {
    "load_config": "config",
    "Problem": "problem",
    "Result": "result",
    "tune": "run",
    "Shape": "template_input",
    "TemplateFit": "template_fit",
    **dict.fromkeys(("Columns", "Cut", "Network", "Norm", "Region", "Weights"), "vocabulary"),
}
"""Where each public name is defined: JAX and its friends take seconds to import, and are asked for when needed."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'; its public names: {', '.join(__all__)}")
    return getattr(import_module(f"pipeline.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
