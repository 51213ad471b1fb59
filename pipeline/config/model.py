"""What all parts of a configuration have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from pipeline.errors import PipelineError

__all__ = ["ConfigError", "HomePath", "Model"]

HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path that may begin with `~`."""


class ConfigError(PipelineError):
    """One sentence a user can act on: file, key, what is wrong, what to do."""


class Model(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)
