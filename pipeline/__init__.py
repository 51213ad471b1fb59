"""The Analysis Grand Challenge CMS ttbar analysis as one differentiable JAX function.

On the command line: `python -m pipeline.optimize --help`. As a library, in the order in which data flow:

- `pipeline.config`: what a YAML file may say; `load_config` reads one.
- `pipeline.problem`: events in memory and everything else the analysis takes; `build` makes it from a config.
- `pipeline.analysis`: the function of (thresholds, events), and its gradient.
- `pipeline.tuning.descent`: the loop around optax.
- `pipeline.validation.comparison`: what was gained, on events that the optimiser has not seen.
- `pipeline.inference.histfactory`, `pipeline.inference.fit`, `pipeline.inference.significance`: the likelihood, for any
pyhf workspace.
- `pipeline.run`: all of this, into a run folder.

For example, the expected significance at the cuts of a config, and its gradient, on the events held for training:

>>> from pathlib import Path
>>> from pipeline import analysis, problem
>>> from pipeline.config import load_config
>>> setup = problem.build(load_config(Path("configs/quickstart.yaml")))
>>> cuts, widths = problem.default_thresholds(setup.config), problem.default_bandwidths(setup.config)
>>> result = analysis.evaluate(setup.analysis, cuts, widths, setup.training)
>>> result.merit.value, result.gradient.value
"""

__version__ = "0.1.0"
