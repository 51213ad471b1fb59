"""A skim, and a way to write files, for the tests of the ingest."""

from collections.abc import Callable
from pathlib import Path

import awkward as ak
import pytest
from pipeline.ingest import ObjectSkim, Requirement, Skim
from small_files import write_file


@pytest.fixture(scope="session")
def skim() -> Skim:
    """Leptons above 20, tight jets above 25; one lepton and two jets."""
    central = Requirement("eta", "below", 2.4, absolute=True)
    return Skim(
        objects=(
            ObjectSkim("Electron", ("pt", "eta"), (Requirement("pt", "above", 20.0), central)),
            ObjectSkim(
                "Muon", ("pt", "eta"), (Requirement("pt", "above", 20.0), Requirement("tightId", "equal", True))
            ),
            ObjectSkim(
                "Jet", ("pt", "eta", "mass"), (Requirement("pt", "above", 25), central, Requirement("jetId", "bits", 4))
            ),
        ),
        event_variables=("MET_pt",),
        at_least=((("Electron", "Muon"), 1), (("Jet",), 2)),
    )


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file into the test's folder: `make_file("a.root", branches, kind="rntuple", cluster=100)`."""

    def make(name: str, branches: dict[str, ak.Array], **options) -> Path:
        return write_file(tmp_path / name, branches, **options)

    return make
