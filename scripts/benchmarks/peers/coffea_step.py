"""coffea: vectorised selection and histograms, the forward pass alone; no fit and no gradient."""

import hist
import numpy as np
import simple_case as case
from coffea.analysis_tools import PackedSelection


def histogram(events: case.Events, thresholds: np.ndarray) -> np.ndarray:
    selection = PackedSelection()
    for number, (column, threshold) in enumerate(zip(events.variables, thresholds, strict=True)):
        selection.add(f"cut {number}", column > threshold)
    passes = selection.all(*selection.names)
    bins = len(case.EDGES) - 1
    filled = hist.Hist.new.IntCategory(range(len(case.SAMPLES))).Reg(bins, case.EDGES[0], case.EDGES[-1]).Double()
    filled.fill(events.sample[passes], events.mass[passes])
    return filled.values() * events.weights[:, None]


def main() -> None:
    events, _ = case.arguments()
    thresholds = case.start(len(events.variables)).astype(np.float32)
    np.testing.assert_allclose(histogram(events, thresholds), case.hard_histogram(events, thresholds))
    case.measure(lambda: histogram(events, thresholds).sum(), None, ["coffea", "hist", "numpy"])


if __name__ == "__main__":
    main()
