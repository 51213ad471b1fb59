"""This package through its front door: tables, cuts and a model in; the significance and its gradient out."""

from functools import partial

import jax
import numpy as np
import simple_case as case
from pipeline import Cut, Norm, Problem, Region, Weights


def problem_of(events: case.Events) -> Problem:
    cuts = [
        Cut(f"x{number}", above=at, bounds=(-4, 4), bandwidth=case.BANDWIDTH)
        for number, at in enumerate(case.start(len(events.variables)))
    ]
    bins = np.clip(np.searchsorted(case.EDGES, events.mass, side="right") - 1, 0, len(case.EDGES) - 2)
    columns = {cut.variable: values for cut, values in zip(cuts, events.variables, strict=True)}
    columns |= {"mass": events.mass, "weight": events.weights[events.sample]}
    columns |= {"up": 1 + case.tilt()[bins], "down": 1 - case.tilt()[bins]}
    return Problem.from_arrays(
        {
            name: {column: values[events.sample == number] for column, values in columns.items()}
            for number, name in enumerate(case.SAMPLES)
        },
        weight="weight",
        cuts=cuts,
        regions=[Region("region", observable="mass", bins=case.EDGES)],
        signal=case.SAMPLES[0],
        systematics=[
            uncertainty
            for name in case.SAMPLES
            for uncertainty in (
                Norm(f"norm_{name}", up=case.KAPPA - 1, down=1 / case.KAPPA - 1, on=name),
                Weights(f"shape_{name}", up="up", down="down", on=name, split=False),
            )
        ],
        measurement={"mc_statistics": "none", "minimum_effective_events": 0},
    )


def step(problem: Problem) -> tuple[float, list[float]]:
    """The significance, and its derivative by each threshold; the loss is minus the significance."""
    found = jax.device_get(problem.value_and_grad(part="all"))
    return found.merit.value, [-slope for slope in found.gradient.value.values()]


def main() -> None:
    problem = problem_of(case.arguments()[0])
    value = jax.jit(partial(problem.loss, part="all"))
    case.measure(lambda: -float(value()), lambda: step(problem), ["jax"])


if __name__ == "__main__":
    main()
