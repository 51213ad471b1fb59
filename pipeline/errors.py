"""The errors that a user can mend; what concerns one room only is defined there."""

__all__ = ["InputError", "PipelineError"]


class PipelineError(ValueError):
    """One sentence a user can act on: what is wrong, where (file, key, branch), and what to do."""


class InputError(PipelineError):
    """Input data, or the manifest that names them, cannot be used."""
