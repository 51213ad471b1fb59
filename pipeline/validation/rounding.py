"""A number and its error as one writes them: the error to two digits, the number to the same place."""

import math

__all__ = ["with_error"]


def with_error(value: float, error: float, *, sign: bool = False) -> str:
    """`12.34 ± 0.56`; with `sign` a plus in front of what is positive.

    A number whose error is zero or unknown keeps four digits.
    """
    plus = "+" if sign else ""
    if not (math.isfinite(error) and error > 0):
        return f"{value:{plus}.4g} ± {error:g}"
    decimals = 1 - math.floor(math.log10(float(f"{error:.1e}")))
    places = max(decimals, 0)
    return f"{round(value, decimals):{plus}.{places}f} ± {round(error, decimals):.{places}f}"
