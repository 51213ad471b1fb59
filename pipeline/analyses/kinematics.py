"""Four-vector formulas: arrays in, arrays out, any shape and precision.

Metric (+, −, −, −), natural units: momenta, masses and energies in GeV. Only the square of a mass enters, so the small
negative ones that rounding leaves in NanoAOD are harmless, as in coffea.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["FourVector", "invariant_mass", "px_py_pz_energy", "transverse_momentum"]

FourVector = tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]


def px_py_pz_energy(
    pt: Float[Array, "..."], eta: Float[Array, "..."], phi: Float[Array, "..."], mass: Float[Array, "..."]
) -> FourVector:
    """Cartesian components of (pt, eta, phi, mass); E² = (pt cosh eta)² + m² whatever the sign of m, as in coffea."""
    momentum = pt * jnp.cosh(eta)
    # The derivative of a hypotenuse of two zeros depends on the release of JAX; here it is 0.
    still = (momentum == 0) & (mass == 0)
    energy = jnp.where(
        still, jnp.zeros_like(momentum), jnp.hypot(jnp.where(still, jnp.ones_like(mass), momentum), mass)
    )
    return pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta), energy


def transverse_momentum(px: Float[Array, "..."], py: Float[Array, "..."]) -> Float[Array, "..."]:
    """sqrt(px² + py²), with derivative 0 at the origin."""
    return _safe_sqrt(px * px + py * py)


def invariant_mass(
    px: Float[Array, "..."], py: Float[Array, "..."], pz: Float[Array, "..."], energy: Float[Array, "..."]
) -> Float[Array, "..."]:
    """sqrt(E² − p²), and 0 with derivative 0 where rounding makes the square negative."""
    return _safe_sqrt(energy * energy - px * px - py * py - pz * pz)


def _safe_sqrt(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """The argument is made safe before the root: jnp.where differentiates both branches. NaN stays NaN."""
    positive = ~(square <= 0)
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, jnp.ones_like(square))), jnp.zeros_like(square))
