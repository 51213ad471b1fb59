"""Numbers that multiply columns of the events, which stand among the thresholds."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.selection import Movable, Threshold

__all__ = ["Calibration"]


class Calibration(Movable):
    """A number that multiplies columns before any cut, in all variations: `scale: [jet.pt]` is a jet energy scale.

    Missing momentum follows it. A trainable one moves like a threshold; `bandwidth` and `step` are in its unit.
    """

    scale: Annotated[tuple[str, ...], BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)]
    value: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _possible(self) -> "Calibration":
        low, high = self.bounds or (self.value, self.value)
        if not low <= self.value <= high:
            raise ValueError(f"value {self.value:g} lies outside its bounds [{low:g}, {high:g}]")
        if self.reach[0] <= 0:
            raise ValueError(
                f"the lower bound less the bandwidth, {self.widest_bandwidth:g}, has to be above 0; state a smaller one"
            )
        if not self.scale or len(set(self.scale)) < len(self.scale):
            raise ValueError("scale: name at least one column, and each once")
        return self

    def as_threshold(self) -> Threshold:
        """It stands among the thresholds, by its name."""
        common = {key: getattr(self, key) for key in Movable.model_fields} | {"step": self.typical_step}
        return Threshold(**common | {"threshold": self.value})

    @property
    def reach(self) -> tuple[float, float]:
        """The values that it, or the kernel of its flux, may have."""
        low, high = self.bounds or (self.value, self.value)
        return (low - self.widest_bandwidth, high + self.widest_bandwidth)
