"""This package through its front door: exact histograms, their boundary flux, one Newton fit, envelope theorem."""

import jax
import numpy as np
import pipeline as pl
import simple_case as case


def problem_of(events: case.Events) -> pl.Problem:
    tilt = np.append(case.tilt(), 0.0)[np.searchsorted(case.EDGES, events.mass, side="right") - 1]
    columns = {"mass": events.mass, "weight": events.weights[events.sample], "up": 1 + tilt, "down": 1 - tilt}
    columns |= {f"x{number}": column for number, column in enumerate(events.variables)}
    cuts = zip(case.start(len(events.variables)), range(len(events.variables)), strict=True)
    return pl.Problem.from_arrays(
        {name: {key: c[events.sample == n] for key, c in columns.items()} for n, name in enumerate(case.SAMPLES)},
        weight="weight",
        cuts=[pl.Cut(f"x{n}", above=t, bounds=(-3, 3), bandwidth=case.BANDWIDTH) for t, n in cuts],
        regions=[pl.Region("region", observable="mass", bins=case.EDGES)],
        signal=case.SAMPLES[0],
        systematics=[
            *(pl.Norm(f"norm_{name}", up=case.KAPPA - 1, down=1 / case.KAPPA - 1, on=name) for name in case.SAMPLES),
            *(pl.Weights(f"shape_{name}", up="up", down="down", on=name) for name in case.SAMPLES),
        ],
        measurement={"minimum_effective_events": 0, "mc_statistics": "none"},
    )


def main() -> None:
    problem = problem_of(case.arguments()[0])

    def step() -> tuple[float, list[float]]:
        there = jax.device_get(problem.value_and_grad(part="all"))
        return -there.loss, [-slope for slope in there.gradient.value.values()]

    case.measure(lambda: -float(problem.loss(part="all")), step, ["jax"])


if __name__ == "__main__":
    main()
