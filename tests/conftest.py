"""Strict numerics for every test: no silent broadcasting, no silent dtype mixing."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def external_data() -> Path:
    """Third-party files (AGC reference histograms, real CMS events), where the developer has them."""
    folder = os.environ.get("PIPELINE_EXTERNAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PIPELINE_EXTERNAL_DATA does not name a folder with the AGC reference files")
    return Path(folder)


pytest_plugins = ["small_run_fixtures"]
