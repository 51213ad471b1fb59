"""What a config of an earlier release said, and what to write now."""

from collections.abc import Mapping
from typing import Any

__all__ = ["refuse_former_keys"]


def refuse_former_keys(raw: Any) -> None:
    """Raise one sentence for the first key of an earlier release.

    Raises:
        ValueError: with the key and what to write in its place.
    """
    if not isinstance(raw, Mapping):
        return
    if "leptons" in raw:
        raise ValueError(
            "leptons: is no key any more; write 'sets: {lepton: [electron, muon]}' and 'require: {lepton: 1}' "
            "(n exactly, [n, ] at least, [n, m] from and to)"
        )
    for name, cut in _mappings(raw.get("cuts")):
        if "bjet" in (cut.get("objects") or ()):
            raise ValueError(
                f"cuts.{name}.objects: 'bjet' is no kind of object any more; write 'sets: {{btag: {{of: jet, within: "
                "jet}}' and 'objects: [btag]'"
            )
    for name, region in _mappings(raw.get("regions")):
        for key, of in (("jets", "jet"), ("btags", "btag")):
            if key in region:
                raise ValueError(
                    f"regions.{name}.{key}: is no key any more; write 'require: {{{of}: …}}' "
                    "(n exactly, [n, ] at least, [n, m] from and to)"
                )
    for key, now in FORMER_VARIATIONS.items():
        if key in (raw.get("variations") or {}):
            raise ValueError(f"variations.{key}: every variation has a key of its own now; write {now}")


FORMER_VARIATIONS = {
    "jet_pt_scale": "'pt_scale_up: {scale: {jet.pt: 1.03}}'",
    "jet_pt_resolution": "'pt_res_up: {resolution: {jet.pt: 0.05}}'",
    "resolution_branch": "'pt_res_up: {resolution: {jet.pt: 0.05}, branch: resfac}'",
    "jet_weight_slope": "'btag_var_0_up: {weights: {nominal: 1, jet.0.pt: 0.0015}}'",
    "process_weight": "'scale_var_up: {weights: {nominal: 1.025}, processes: [wjets]}'",
    "samples": "'ME_var: {sample: ttbar}'",
    "corrections": "'corrections: {btag_up: {file: …, correction: …, objects: jet, inputs: {…}}}' beside "
    "'variations', and the weight 'jet.0.btag_up' in a variation",
}


def _mappings(raw: Any) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, each) for name, each in raw.items() if isinstance(each, Mapping)] if isinstance(raw, Mapping) else []
