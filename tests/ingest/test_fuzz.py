"""Damaged files of every kind: cut, overwritten, flipped; TTree, RNTuple and parquet, with each compression.

Whatever the damage, there is one sentence, or events. Whether the events are the right ones, the file alone cannot
always tell: what ZSTD or no compression holds has no checksum. A stated sha256 tells always, before anything is read.
"""

import hashlib
from dataclasses import dataclass

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from pipeline.ingest import InputError, ObjectSkim, Requirement, Skim, read
from small_files import random_branches

COMPRESSIONS = {
    "none": None,
    "zlib": uproot.ZLIB(1),
    "lzma": uproot.LZMA(1),
    "lz4": uproot.LZ4(1),
    "zstd": uproot.ZSTD(1),
}
COPIES = 60
"""Damaged copies of each file."""
SKIM = Skim(
    objects=(ObjectSkim("Jet", ("pt", "eta"), (Requirement("pt", "above", 25.0), Requirement("jetId", "bits", 4))),),
    event_variables=("MET_pt",),
    at_least=((("Jet",), 1),),
)


@dataclass
class Stated:
    path: str
    size: int | None
    sha256: str | None


def content_of(folder, kind: str, compression: str) -> bytes:
    branches = random_branches(200)
    path = folder / f"whole.{kind}"
    if kind == "parquet":
        columns = {name: values for name, values in branches.items() if not name.startswith(("Electron", "Muon"))}
        table = pa.table({name: pa.array(values.tolist()) for name, values in columns.items()})
        pq.write_table(table, path, compression=compression if compression in ("lz4", "zstd") else "none")
        return path.read_bytes()
    with uproot.recreate(path, compression=COMPRESSIONS[compression]) as file:
        make = file.mktree if kind == "ttree" else file.mkrntuple
        tree = make("Events", {name: values.type.content for name, values in branches.items()})
        for start in range(0, 200, 50):
            tree.extend({name: values[start : start + 50] for name, values in branches.items()})
    return path.read_bytes()


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    damage, place = generator.integers(3), int(generator.integers(len(content)))
    if damage == 0:
        return content[:place]
    changed = np.frombuffer(content, np.uint8).copy()
    if damage == 1:
        length = int(generator.integers(1, 64))
        changed[place : place + length] = generator.integers(256, size=len(changed[place : place + length]))
    else:
        changed[place] ^= np.uint8(1 << generator.integers(8))
    return changed.tobytes()


def refusal(file) -> str | None:
    """What is said about a file, if it is not read."""
    try:
        read([file], SKIM)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the libraries, about what they then fail at
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["ttree", "rntuple", "parquet"])
def test_a_sentence_or_events(tmp_path, kind, compression):
    content = content_of(tmp_path, kind, compression)
    good = tmp_path / "good"
    good.write_bytes(content)
    expected = read([good], SKIM).events
    generator = np.random.default_rng(7)
    bad, refused = tmp_path / "bad", 0
    stated = Stated("bad", None, hashlib.sha256(content).hexdigest())
    for _ in range(COPIES):
        bytes_ = damaged(content, generator)
        bad.write_bytes(bytes_)
        sentence = refusal(bad)
        refused += sentence is not None
        assert sentence is None or (sentence.startswith(f"{bad}: ") and "\n" not in sentence)
        if bytes_ != content:
            with pytest.raises(InputError):
                read([bad], SKIM, stated=[stated])
    assert refused > COPIES / 4
    assert ak.array_equal(read([good], SKIM).events, expected), "a damaged file spoils no other"
