"""The analysis event by event: region, bin, observable and weights of every event, as plain NumPy arrays.

For comparing with another framework, for plots, and for the statistical error of a finite difference. The numbers come
from the very function that fills the histograms.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Float32, Int32

from pipeline.events.batch import Edges, EventGroup, Events, take_chunk
from pipeline.events.cuts import Thresholds
from pipeline.events.evaluation import EventAnalysis, point
from pipeline.events.yields import EventOutcomes, event_outcomes

__all__ = ["EventList", "list_events"]


@dataclass(frozen=True)
class EventList:
    """All events of all data sets, once for each kinematic variation.

    Attributes:
        kinematic: number of the kinematic variation.
        dataset: number of the data set.
        index: row of the event in its data set.
        collision: shared by the events of one collision, which are not independent.
        region: −1 for none.
        position: bin on the joint axis of all regions; the number of bins for none.
        observable: in its own unit; NaN outside the regions.
        columns: terms of the sums: w, w², and w·factor for each factor that a variation of the weight names.
    """

    kinematic: Int32[np.ndarray, " rows"]
    dataset: Int32[np.ndarray, " rows"]
    index: Int32[np.ndarray, " rows"]
    collision: Int32[np.ndarray, " rows"]
    region: Int32[np.ndarray, " rows"]
    position: Int32[np.ndarray, " rows"]
    observable: Float32[np.ndarray, " rows"]
    columns: Float32[np.ndarray, "columns rows"]


def list_events(analysis: EventAnalysis, thresholds: Thresholds, events: Events) -> EventList:
    """Every event that is not padding, group by group."""
    parts = [
        _empty(analysis),  # of the right types, when there is no group
        *(_list_group(analysis, thresholds, events.edges, group) for group in events.groups),
    ]
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    return EventList(**joined)


def _empty(analysis: EventAnalysis) -> dict[str, np.ndarray]:
    integers = dict.fromkeys(
        ("kinematic", "dataset", "index", "collision", "region", "position"), np.zeros(0, np.int32)
    )
    columns = np.zeros((2 + len(analysis.layout.factors), 0), np.float32)
    return integers | {"observable": np.zeros(0, np.float32), "columns": columns}


def _list_group(
    analysis: EventAnalysis, thresholds: Thresholds, edges: Edges, group: EventGroup
) -> dict[str, np.ndarray]:
    outcomes = _outcomes_of_group(analysis, thresholds, edges, group)
    kinematic, chunk = np.asarray(group.task_kinematic), np.asarray(group.task_chunk)
    index = np.asarray(group.index)[chunk]
    real = index >= 0
    columns = np.moveaxis(np.asarray(outcomes.columns), 1, 0)
    return {
        "kinematic": np.broadcast_to(kinematic[:, None], index.shape)[real],
        "dataset": np.broadcast_to(np.asarray(group.dataset)[chunk][:, None], index.shape)[real],
        "index": index[real],
        "collision": np.asarray(group.collision)[chunk][real],
        "region": np.asarray(outcomes.region)[real],
        "position": np.asarray(outcomes.position)[real],
        "observable": np.asarray(outcomes.observable)[real],
        "columns": columns[:, real],
    }


@partial(jax.jit, static_argnums=0)
def _outcomes_of_group(
    analysis: EventAnalysis, thresholds: Thresholds, edges: Edges, group: EventGroup
) -> EventOutcomes:
    at = point(analysis, thresholds, {}, edges)

    def outcomes(task: tuple[jax.Array, jax.Array]) -> EventOutcomes:
        return event_outcomes(at, take_chunk(group, *task))

    return jax.lax.map(outcomes, (group.task_kinematic, group.task_chunk))
