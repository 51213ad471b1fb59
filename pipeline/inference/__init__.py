"""From yields to answers: templates, HistFactory likelihood, fits, figures of merit; no events."""

import jax

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
