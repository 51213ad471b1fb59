"""HistFactory likelihoods that can be differentiated: pyhf's structure, pyhf's values, and every derivative.

pyhf reads and validates a workspace; what comes back is a static `Structure`, the traced `Numbers`, and the observed
data. Every function is pure and takes the structure first: `jax.jit(f, static_argnums=0)`, `grad`, `vmap` apply.

Differentiate any pyhf workspace (here pyhf's example of two bins; `json.load(open("workspace.json"))` is as good):

>>> import jax, pyhf
>>> from pipeline.inference.histfactory import from_pyhf
>>> from pipeline.inference.significance import discovery_significance, signal_strength_uncertainty
>>> model = pyhf.simplemodels.uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
>>> structure, numbers, _ = from_pyhf(pyhf.Workspace.build(model, [51.0, 48.0, 277.78, 55.18]))
>>> z = lambda n: discovery_significance(structure, n).z
>>> value, slope = jax.jit(jax.value_and_grad(z))(numbers)
>>> print(f"Z = {value:.4f}, dZ/dsignal =", slope.nominal[structure.samples.index("signal")].round(4))
Z = 1.8237, dZ/dsignal = [0.0982 0.0517]
>>> sigma = lambda n: signal_strength_uncertainty(structure, n).uncertainty
>>> value, slope = jax.jit(jax.value_and_grad(sigma))(numbers)
>>> print(f"sigma = {value:.4f}, dsigma/dsignal =", slope.nominal[structure.samples.index("signal")].round(4))
sigma = 0.5672, dsigma/dsignal = [-0.0282 -0.017 ]
"""

from pipeline.inference.histfactory.constraints import (
    auxdata,
    bounds,
    constraint_widths,
    free_parameters,
    initial_parameters,
    nominal_parameters,
)
from pipeline.inference.histfactory.diagnosis import diagnose
from pipeline.inference.histfactory.from_pyhf import from_pyhf
from pipeline.inference.histfactory.likelihood import asimov_data, expected_data, expected_rates, logpdf
from pipeline.inference.histfactory.model import (
    Channel,
    Modifier,
    Numbers,
    ParameterSet,
    Structure,
    modifiers_of,
    neutral_numbers,
    parameter_names,
)
from pipeline.inference.histfactory.to_pyhf import to_pyhf

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
    "diagnose",
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
