"""HistFactory likelihoods that can be differentiated, with pyhf's structure and pyhf's values."""

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
]
