"""From events to yields and their derivatives: arrays only, no file and no likelihood."""

import jax

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
