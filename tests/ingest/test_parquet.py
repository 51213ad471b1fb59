"""Parquet files read as ROOT files are: lists, records, flat tables, row groups, and what cannot be read."""

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline.ingest import InputError, Skim, read
from pipeline.ingest.fileskim import joined_parts, skimmed_part
from small_files import random_branches

from range_server import Site, serving

MASS = Skim(event_variables=("mass",))


@pytest.mark.parametrize("rows", [40, 1000])
@pytest.mark.parametrize("shape", ["columns", "records", "arrow"])
def test_the_same_events_as_of_a_root_file(make_file, tmp_path, skim, shape, rows):
    branches = random_branches(150)
    file = tmp_path / "a.parquet"
    if shape == "arrow":
        table = pa.table({name: pa.array(values.tolist()) for name, values in branches.items() if name != "event"})
        pq.write_table(table.append_column("event", pa.array(branches["event"].to_numpy())), file, row_group_size=rows)
    else:
        columns = dict(branches)
        if shape == "records":
            for name in ("Electron", "Muon", "Jet"):
                variables = [v for v in ("pt", "eta", "mass", "jetId", "tightId") if f"{name}_{v}" in columns]
                columns[name] = ak.zip({v: columns.pop(f"{name}_{v}") for v in variables})
        ak.to_parquet(ak.zip(columns, depth_limit=1), file, row_group_size=rows)
    expected = read([make_file("a.root", branches)], skim).events
    events = read([file], skim).events
    assert events.tolist() == expected.tolist()
    parts = [skimmed_part(str(file), "", skim, part, 3) for part in range(3)]
    assert joined_parts(parts).events.Jet.tolist() == expected.Jet.tolist()


def test_a_flat_table_has_its_rows_for_numbers(tmp_path):
    pq.write_table(pa.table({"mass": [1.0, 2.0, 3.0], "w": [1, 2, 3]}), tmp_path / "a.parquet")
    events = read([tmp_path / "a.parquet"], Skim(event_variables=("mass",), weight="w")).events
    assert events.fields == ["mass", "event", "index", "collision", "weight"]
    assert events["mass"].tolist() == [1.0, 2.0, 3.0]
    assert events["weight"].tolist() == [1.0, 2.0, 3.0]
    assert len(set(events["collision"].tolist())) == 3


def test_root_and_parquet_may_be_mixed(make_file, tmp_path):
    values = ak.Array(np.arange(3.0))
    root = make_file("a.root", {"mass": values})
    ak.to_parquet(ak.zip({"mass": values}), tmp_path / "b.parquet")
    ingested = read([root, tmp_path / "b.parquet"], MASS)
    assert ingested.events["mass"].tolist() == [0.0, 1.0, 2.0] * 2
    assert len(set(ingested.events["collision"].tolist())) == 6


def test_an_empty_table(tmp_path):
    pq.write_table(pa.table({"mass": pa.array([], pa.float64())}), tmp_path / "a.parquet")
    ingested = read([tmp_path / "a.parquet"], MASS)
    assert (len(ingested.events), ingested.entries) == (0, (0,))


def test_a_url(tmp_path):
    pq.write_table(pa.table({"mass": [1.0, 2.0, 3.0]}), tmp_path / "a.parquet")
    with serving(Site({"/a.parquet": (tmp_path / "a.parquet").read_bytes()})) as site:
        assert read([f"{site.url}/a.parquet"], MASS).events["mass"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, None, 3.0], "the column 'mass' has missing values; fill them or drop their rows"),
        (["a", "b", "c"], "branch 'mass' holds string, but numbers are needed"),
        ([[1.0], [], [2.0]], "branch 'mass' is a list per event, but one value per event is needed"),
        ([{"x": 1.0}] * 3, r"'the table' has no branch 'mass'"),
        (pa.array([1, 2, 3], pa.timestamp("s")), "branch 'mass' holds .*, but numbers are needed"),
    ],
)
def test_columns_that_are_no_numbers(tmp_path, column, message):
    pq.write_table(pa.table({"mass": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"a.parquet: {message}") as raised:
        read([tmp_path / "a.parquet"], MASS)
    assert "\n" not in str(raised.value)


def test_a_missing_column_names_the_nearest(tmp_path):
    pq.write_table(pa.table({"masse": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: 'the table' has no branch 'mass'; the nearest are masse"):
        read([tmp_path / "a.parquet"], MASS)


@pytest.mark.parametrize("fraction", [0.3, 0.9, 0.99])
def test_a_file_that_was_cut(tmp_path, fraction):
    pq.write_table(pa.table({"mass": np.arange(1000.0)}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(InputError, match=r"a.parquet: cannot be read \(the end of a parquet file is missing\)"):
        read([tmp_path / "a.parquet"], MASS)
