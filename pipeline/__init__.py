"""The Analysis Grand Challenge CMS ttbar analysis as one differentiable JAX function."""

__version__ = "0.1.0"
