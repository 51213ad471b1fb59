"""What limits a measurement, against fits by Minuit."""

import numpy as np
import pyhf
import pytest
from pipeline.inference.histfactory import from_pyhf
from pipeline.validation.impacts import STATISTICS, impacts


@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
def test_impacts_are_those_of_refits_by_minuit() -> None:
    """Hold a parameter one post-fit standard deviation up, fit the rest: μ moves by the impact."""
    tilt = {"hi_data": [5040.0, 3970.0, 3010.0], "lo_data": [4960.0, 4030.0, 2990.0]}
    workspace = {
        "version": "1.0.0",
        "channels": [
            {
                "name": "c",
                "samples": [
                    {
                        "name": "signal",
                        "data": [400.0, 900.0, 100.0],
                        "modifiers": [
                            {"name": "mu", "type": "normfactor", "data": None},
                            {"name": "size", "type": "normsys", "data": {"hi": 1.02, "lo": 0.98}},
                        ],
                    },
                    {
                        "name": "background",
                        "data": [5000.0, 4000.0, 3000.0],
                        "modifiers": [
                            {"name": "tilt", "type": "histosys", "data": tilt},
                            {"name": "background_norm", "type": "normfactor", "data": None},
                            {"name": "mc", "type": "staterror", "data": [30.0, 25.0, 20.0]},
                            {"name": "size", "type": "normsys", "data": {"hi": 1.01, "lo": 0.99}},
                        ],
                    },
                ],
            }
        ],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
        "observations": [{"name": "c", "data": [5400.0, 4900.0, 3100.0]}],
    }  # fmt: skip
    structure, numbers, _ = from_pyhf(workspace)
    found = {impact.parameter: impact for impact in impacts(structure, numbers)}
    assert set(found) == {"size", "tilt", "background_norm", STATISTICS}
    backend, optimizer = pyhf.get_backend()
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-4, strategy=2))
    try:
        model = pyhf.Workspace(workspace).model()
        data = [5400.0, 4900.0, 3100.0, *model.config.auxdata]
        free, uncertainty = pyhf.infer.mle.fit(data, model, return_uncertainties=True).T
        poi, init = model.config.poi_index, np.array(model.config.suggested_init())

        def moved(place: int, to: float) -> float:
            start, held = list(free), model.config.suggested_fixed()
            start[place], held[place] = to, True
            return pyhf.infer.mle.fit(data, model, init_pars=start, fixed_params=held)[poi] - free[poi]

        for name in ("size", "tilt", "background_norm"):
            place, impact = model.config.par_names.index(name), found[name]
            assert impact.width == pytest.approx(uncertainty[place], rel=0.01)
            assert impact.converged
            assert impact.up == pytest.approx(moved(place, free[place] + uncertainty[place]), rel=0.05, abs=1e-3)
            assert impact.down == pytest.approx(moved(place, free[place] - uncertainty[place]), rel=0.05, abs=1e-3)
            if impact.constrained:
                assert impact.prefit_up == pytest.approx(moved(place, init[place] + 1), rel=0.05, abs=1e-3)
                assert impact.prefit_down == pytest.approx(moved(place, init[place] - 1), rel=0.05, abs=1e-3)
        assert not found["background_norm"].constrained
        known = [name.startswith("mc[") for name in model.config.par_names]
        fixed = pyhf.infer.mle.fit(data, model, init_pars=list(free), fixed_params=known, return_uncertainties=True)
        without = fixed[poi][1]
        assert found[STATISTICS].up == pytest.approx(np.sqrt(uncertainty[poi] ** 2 - without**2), rel=0.02)
    finally:
        pyhf.set_backend(backend, optimizer)
