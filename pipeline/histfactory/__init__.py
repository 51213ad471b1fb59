"""HistFactory likelihoods that can be differentiated: pyhf's structure, pyhf's values, and every derivative.

pyhf reads and validates a workspace; what comes back is a static `Structure`, the traced `Numbers`, and the observed
data. Every function is pure and takes the structure first: `jax.jit(f, static_argnums=0)`, `grad`, `vmap` apply.

Differentiate any pyhf workspace (here pyhf's example of two bins; `json.load(open("workspace.json"))` is as good):

>>> import jax, pyhf
>>> from pipeline.histfactory import from_pyhf
>>> from pipeline.significance import discovery_significance, signal_strength_uncertainty
>>> model = pyhf.simplemodels.uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
>>> structure, numbers, _ = from_pyhf(pyhf.Workspace.build(model, [51.0, 48.0, 277.78, 55.18]))
>>> z, slope = jax.value_and_grad(lambda n: discovery_significance(structure, n).z)(numbers)
>>> print(f"Z = {z:.4f}", dict(zip(structure.samples, slope.nominal.round(4).tolist())))
Z = 1.9083 {'background': [-0.014, -0.01], 'signal': [0.1149, 0.0659]}
>>> sigma, slope = jax.value_and_grad(lambda n: signal_strength_uncertainty(structure, n).uncertainty)(numbers)
>>> print(f"sigma = {sigma:.4f}", dict(zip(structure.samples, slope.nominal.round(4).tolist())))
sigma = 0.5
"""

from pipeline.histfactory.constraints import (
    auxdata,
    bounds,
    constraint_widths,
    free_parameters,
    initial_parameters,
    nominal_parameters,
)
from pipeline.histfactory.from_pyhf import from_pyhf
from pipeline.histfactory.likelihood import asimov_data, expected_data, expected_rates, logpdf
from pipeline.histfactory.model import (
    Channel,
    Modifier,
    Numbers,
    ParameterSet,
    Structure,
    modifiers_of,
    neutral_numbers,
    parameter_names,
)
from pipeline.histfactory.to_pyhf import to_pyhf

__all__ = [
    "Channel",
    "Modifier",
    "Numbers",
    "ParameterSet",
    "Structure",
    "asimov_data",
    "auxdata",
    "bounds",
    "constraint_widths",
    "expected_data",
    "expected_rates",
    "free_parameters",
    "from_pyhf",
    "initial_parameters",
    "logpdf",
    "modifiers_of",
    "neutral_numbers",
    "nominal_parameters",
    "parameter_names",
    "to_pyhf",
]
