"""Strict numerics for every test: no silent broadcasting, no silent dtype mixing."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
# As many on every machine; tests of several devices have processes of their own.
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Both workers, and the processes that tests start, compile the same analyses: what one has compiled is read by all.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="module", autouse=True)
def _forget_what_is_compiled() -> Iterator[None]:
    """Compiled functions pile up to gigabytes in a worker; those of one module are of little use to the next."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def external_data() -> Path:
    """Third-party files (AGC reference histograms, real CMS events), where the developer has them."""
    folder = os.environ.get("PIPELINE_EXTERNAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PIPELINE_EXTERNAL_DATA does not name a folder with the AGC reference files")
    return Path(folder)


pytest_plugins = ["small_run_fixtures"]
