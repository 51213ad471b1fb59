"""From events to yields and their derivatives: arrays only, no file and no likelihood."""

import jax

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
# A GPU would round the factors of a product of float32 to 10 bits otherwise (TF32): bin edges, scores of networks.
jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]
