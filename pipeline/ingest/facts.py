"""What was found out about a file while it was read: plain values, so that the manifest can be held against them."""

from dataclasses import dataclass

__all__ = ["FileFacts", "RunSums", "WeightSums"]


@dataclass(frozen=True)
class WeightSums:
    """The generator weights of some events.

    Attributes:
        events: How many.
        total: Σw.
        squares: Σw².
        lowest: Smallest weight; infinity if there are no events.
        highest: Largest weight; minus infinity if there are no events.
    """

    events: int = 0
    total: float = 0.0
    squares: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")

    def __add__(self, other: "WeightSums") -> "WeightSums":
        return WeightSums(
            self.events + other.events,
            self.total + other.total,
            self.squares + other.squares,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
        )


@dataclass(frozen=True)
class RunSums:
    """What NanoAOD's tree `Runs` says of the events before every skim.

    Attributes:
        events: `genEventCount`.
        total: `genEventSumw`.
        squares: `genEventSumw2`.
    """

    events: int
    total: float
    squares: float


@dataclass(frozen=True)
class FileFacts:
    """A file that was read, or could not be.

    Attributes:
        location: Path or URL.
        entries: Its rows.
        size: Bytes; None where nobody looked.
        sha256: Checksum of the content that was read; None where it was not computed.
        generated: Of all its `genWeight`; None where the file has none, or they were not asked for.
        runs: From its tree `Runs`, if it has one.
        failure: Why it was skipped; empty if it was read.
    """

    location: str
    entries: int = 0
    size: int | None = None
    sha256: str | None = None
    generated: WeightSums | None = None
    runs: RunSums | None = None
    failure: str = ""
