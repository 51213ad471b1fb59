"""What the simulated samples are made of: the numbers of ``settings.yaml`` as frozen records.

Those of a guest analysis are the same, except for what its own file beside it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.yaml_file import parsed_yaml
from pydantic import BaseModel, ConfigDict

__all__ = [
    "SETS",
    "TRAINING",
    "Bias",
    "DetectorSettings",
    "EfficiencyCurve",
    "ElectronSettings",
    "FatJetClustering",
    "FatJetSettings",
    "GeneratorSettings",
    "HardProcessEnhancement",
    "JetSettings",
    "MuonSettings",
    "ProcessSettings",
    "Settings",
    "SkimSettings",
    "ThinningSettings",
    "load",
]


TRAINING = ("assignment",)
"""Sets to train on: they know the truth, and are no data of an analysis."""
SETS = ("simulated", "dilepton", "four_leptons", "zprime", *TRAINING)
"""Names of the sets of samples: that of the Analysis Grand Challenge, the guest analyses, and those to train on."""

_FOLDER = Path(__file__).parent


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bias(_Record):
    """Pythia's phase-space bias: events are enhanced by (pTHat / reference)^power and carry the inverse as weight."""

    reference: float
    power: float

    def weight(self, pt_hat: float) -> float:
        """The weight that undoes the bias."""
        return (pt_hat / self.reference) ** -self.power


class HardProcessEnhancement(_Record):
    """Keeps every hard process with soft or hard quarks, and a share of those between, with the inverse as weight.

    They fill the first and the last bins, for which few events are made.
    """

    parton_ht: tuple[float, float]
    keep_between: float

    def acceptance(self, parton_ht: float) -> float:
        """Probability to keep a hard process with this scalar sum of quark transverse momenta (GeV)."""
        lower, upper = self.parton_ht
        return self.keep_between if lower <= parton_ht < upper else 1.0


class ProcessSettings(_Record):
    """One data set: a process with one variation."""

    name: str
    process: str
    variation: str
    role: str | None = None
    description: str
    cross_section_pb: float
    pythia: tuple[str, ...]
    bias: Bias | None = None
    enhance: HardProcessEnhancement | None = None
    events: int
    detector_draws: int = 1
    rate_factor: float = 1.0
    target_entries: int = -1

    def hard_process_acceptance(self, parton_ht: float) -> float:
        """Probability to keep a hard process with this scalar sum of quark transverse momenta (GeV)."""
        return self.enhance.acceptance(parton_ht) if self.enhance else 1.0


class FatJetClustering(_Record):
    """Large-radius anti-kt jets; an event without any above ``pt`` is dropped."""

    radius: float
    pt: float


class GeneratorSettings(_Record):
    """What all processes share: Pythia's common settings, clustering, and the filters at particle level.

    With `partons`, the quarks of top quark decays are kept. What was added later has a default and enters the names and
    seeds of chunks only where it differs from it, so that older samples stay what they were.
    """

    pythia: tuple[str, ...]
    chunk_events: int
    jet_radius: float
    jet_pt: float
    particle_eta: float
    min_jets_with_lepton: int
    wanted_leptons: tuple[int, ...]
    hard_lepton_pt: float
    lepton_pt: float
    heavy_hadron_pt: float
    heavy_hadron_delta_r: float
    min_leptons: int = 1
    fat_jet: FatJetClustering | None = None
    partons: bool = False


class EfficiencyCurve(_Record):
    """Efficiency against pt, plateau (1 - loss exp(-pt / pt_scale)), times a factor beyond the barrel."""

    plateau: float
    loss: float
    pt_scale: float
    barrel_eta: float
    endcap_factor: float


class ElectronSettings(_Record):
    """Prompt electrons."""

    mass: float
    resolution: float
    reconstruction: float
    tight: EfficiencyCurve
    looser_shares: tuple[float, float, float, float]
    sip3d_scale: float
    sip3d_tau_scale: float
    isolation_scale: float


class MuonSettings(_Record):
    """Prompt muons."""

    mass: float
    max_eta: float
    resolution: float
    reconstruction: float
    tight: EfficiencyCurve
    sip3d_scale: float
    sip3d_tau_scale: float
    isolation_scale: float


class JetSettings(_Record):
    """Jets: response, resolution, identification, b-tag discriminant."""

    response: float
    offset: float
    resolution: tuple[float, float, float]
    tail_fraction: float
    tail_range: tuple[float, float]
    min_response: float
    mass_resolution: float
    direction_resolution: float
    good_fraction: float
    electron_delta_r: float
    electron_veto_fraction: float
    untagged: float
    discriminant: dict[str, tuple[tuple[float, float], ...]]
    tag_best_pt: float
    tag_flat_eta: float
    tag_eta_slope: float
    tag_shift_size: dict[str, float]
    quark_likeness: tuple[float, float, float]
    no_quark_likeness: float


class FatJetSettings(_Record):
    """Large-radius jets: response, resolution, and a score by what is inside: a top quark, a part of one, or neither.

    A score is drawn from a quantile function, a table of [share of jets below, score].
    """

    resolution: float
    mass_resolution: float
    direction_resolution: float
    score: dict[str, tuple[tuple[float, float], ...]]


class DetectorSettings(_Record):
    """The whole detector."""

    electron: ElectronSettings
    muon: MuonSettings
    jet: JetSettings
    fat_jet: FatJetSettings
    met_resolution: float


class SkimSettings(_Record):
    """What an event needs to be written: looser than any cut that an optimisation may reach."""

    lepton_pt: float
    lepton_eta: float
    jet_pt: float
    jet_eta: float
    min_jets: int
    min_discriminant: float | None
    min_leptons: int = 1
    identified: bool = (
        False  # leptons that are not tight, and jets without or with a lepton for an identity, are dropped
    )
    opposite_sign: bool = False
    min_met: float = 0.0
    fat_jet_pt: float | None = None


class ThinningSettings(_Record):
    """Where events are crowded, in terms of the AGC's selection, and how much the events of a moved cut matter.

    The number of kept events in a place goes with priority times (weight in the place)^crowding: with 1 nothing is
    levelled out, with 0 all bins get equal numbers.
    """

    lepton_pt: float
    jet_pt: float
    jet_eta: float
    min_jets: int
    btag: float
    edges: tuple[float, ...]
    near_jet_pt: float
    near_btag: float
    crowding: float
    near_priority: float
    far_priority: float
    min_probability: float


class Settings(_Record):
    """All numbers of one set of samples.

    Missing transverse momentum has the precision of other momenta where it is `cut_on_met`.
    """

    generator: GeneratorSettings
    detector: DetectorSettings
    skim: SkimSettings
    thinning: ThinningSettings | None
    branches: dict[str, tuple[str, ...]]
    cut_on_met: bool = False
    processes: tuple[ProcessSettings, ...]

    @property
    def muons(self) -> bool:
        """Whether muons are wanted, and can pass the tight identification."""
        return 13 in self.generator.wanted_leptons


def load(name: str = "simulated", *, muons: bool = False) -> Settings:
    """Reads and checks ``settings.yaml``, and for a guest analysis what its own file changes in it.

    Args:
        name: one of :data:`SETS`.
        muons: whether events with a muon and no electron are wanted too, whatever the file says.
    """
    document = _read("settings")
    if name != "simulated":
        document = _changed(document, _read(name))
    settings = Settings.model_validate(document)
    if not muons:
        return settings
    generator = settings.generator.model_copy(update={"wanted_leptons": (11, 13)})
    return settings.model_copy(update={"generator": generator})


def _read(name: str) -> dict[str, Any]:
    return parsed_yaml((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def _changed(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another laid over it: mappings key by key, everything else replaced."""

    def merged(key: str, value: Any) -> Any:
        both = isinstance(value, Mapping) and isinstance(document.get(key), Mapping)
        return _changed(document[key], value) if both else value

    return document | {key: merged(key, value) for key, value in changes.items()}
