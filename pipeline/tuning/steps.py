"""What a step of the optimisation leaves."""

from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import PyTree

from pipeline.events.scores import Network
from pipeline.inference.objectives import Merit

__all__ = ["State", "Step"]


class State(NamedTuple):
    """What a step leaves to the next one, besides thresholds: all arrays.

    `optimiser` is the state of the thresholds' one, `moments` those of the networks'; `networks` are those of the next
    step, and `best` those of the best step so far.
    """

    optimiser: PyTree
    networks: dict[str, Network]
    moments: dict[str, PyTree]
    best: dict[str, Network]


@dataclass(frozen=True)
class Step:
    """One evaluation of the loop, and the state that the next one starts from.

    Attributes:
        number: from 0, through all starts; each has `Schedule.steps` numbers, of which a patient loop may leave out the
            last ones.
        thresholds: where the analysis was evaluated, trainable cuts only.
        bandwidths: of the boundary flux, each in the unit of its cut.
        loss: what is minimised.
        merit: the figure of merit there.
        gradient: of the loss by each threshold, per unit of the cut.
        error: statistical error of the gradient, likewise.
        monitored: the loss on the events of the monitor; the loss itself without one.
        best_loss: the lowest monitored loss so far, this step included, of all starts.
        best: its thresholds.
        best_number: its number; −1 as long as no fit has converged.
        lowest: the lowest monitored loss of this start.
        waited: steps since then.
        following: thresholds of the next step, if this start goes on.
        state: of the optimisers, for the next step; of the last step of an interrupted loop that is all one needs.
        renewals: how often the optimiser has begun anew at an offered place, in all starts.
        networks: where the analysis was evaluated; a step that is read from a checkpoint has none.
        network_gradient: length of the gradient by the weights of each network, and of its noise.
    """

    number: int
    thresholds: dict[str, float]
    bandwidths: dict[str, float]
    loss: float
    merit: Merit
    gradient: dict[str, float]
    error: dict[str, float]
    monitored: float
    best_loss: float
    best: dict[str, float]
    best_number: int
    lowest: float
    waited: int
    following: dict[str, float]
    state: State | None
    renewals: int = 0
    networks: dict[str, Network] | None = None
    network_gradient: dict[str, tuple[float, float]] = field(default_factory=dict)
