"""pyhf: the exact analysis in NumPy, one fit with SciPy, and central finite differences of it all."""

import numpy as np
import pyhf
import simple_case as case


def significance(events: case.Events, thresholds: np.ndarray) -> float:
    model = pyhf.Model(case.specification(case.hard_histogram(events, thresholds)), poi_name="mu", validate=False)
    nominal = model.config.suggested_init()
    asimov = model.expected_data(nominal)
    _, null = pyhf.infer.mle.fixed_poi_fit(0.0, asimov, model, return_fitted_val=True)
    (best,) = pyhf.infer.mle.twice_nll(nominal, asimov, model)
    return float(np.sqrt(null - best))


def with_gradient(events: case.Events, thresholds: np.ndarray) -> tuple[float, list[float]]:
    gradient = []
    for direction in np.eye(len(thresholds)) * case.BANDWIDTH:
        up, down = significance(events, thresholds + direction), significance(events, thresholds - direction)
        gradient.append((up - down) / (2 * case.BANDWIDTH))
    return significance(events, thresholds), gradient


def main() -> None:
    events, _ = case.arguments()
    thresholds = case.start(len(events.variables))
    case.measure(
        lambda: significance(events, thresholds), lambda: with_gradient(events, thresholds), ["pyhf", "scipy", "numpy"]
    )


if __name__ == "__main__":
    main()
