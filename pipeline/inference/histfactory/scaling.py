"""The same model with systematic uncertainties of another size, or at another luminosity: other numbers, one structure.

Sizes are traced, so one compiled function serves all of them.
"""

import jax.numpy as jnp
from jaxtyping import Float64

from pipeline.inference.histfactory.arrays import Array
from pipeline.inference.histfactory.model import Numbers, Structure, first_parameter, modifiers_of

__all__ = ["scaled", "systematics"]


def systematics(structure: Structure) -> tuple[str, ...]:
    """The parameters whose size is stated: those of normsys, histosys and lumi modifiers, in the order of the model."""
    kinds = ("normsys", "histosys", "lumi")
    return tuple(dict.fromkeys(each.name for each in structure.modifiers if each.kind in kinds))


def scaled(
    structure: Structure,
    numbers: Numbers,
    sizes: Float64[Array, " systematics"],
    luminosity: Float64[Array, ""],
) -> Numbers:
    """The numbers with every systematic uncertainty and the luminosity times a factor; 1 leaves them as they are.

    A normsys scales in its logarithm, κ^f, as HistFactory extrapolates it; a histosys by its distance from the nominal
    template; a lumi by the width of its constraint. With the luminosity grow all expected events and their absolute
    errors: the number of simulated events, and so their relative errors, stays.

    Args:
        structure: of the model.
        numbers: of the model.
        sizes: relative to what `numbers` say, in the order of `systematics`.
        luminosity: likewise.
    """
    names = systematics(structure)

    def of(kind: str) -> Float64[Array, "modifiers 1 1"]:
        rows = [names.index(each.name) for each in modifiers_of(structure, kind)]  # type: ignore[arg-type]
        return sizes[jnp.asarray(rows, jnp.int32)][:, None, None]

    def varied(template: Float64[Array, "histosys samples bins"]) -> Float64[Array, "histosys samples bins"]:
        nominal = numbers.nominal[None]
        return luminosity * (nominal + of("histosys") * (template - nominal))

    width, first = numbers.constraint_width, first_parameter(structure)
    for name in {each.name for each in modifiers_of(structure, "lumi")}:
        width = width.at[first[name]].multiply(sizes[names.index(name)])
    return Numbers(
        nominal=luminosity * numbers.nominal,
        normsys_lo=numbers.normsys_lo ** of("normsys"),
        normsys_hi=numbers.normsys_hi ** of("normsys"),
        histosys_lo=varied(numbers.histosys_lo),
        histosys_hi=varied(numbers.histosys_hi),
        staterror=luminosity * numbers.staterror,
        shapesys=luminosity * numbers.shapesys,
        constraint_width=width,
    )
