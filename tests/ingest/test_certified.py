"""Good luminosity blocks, as CMS writes them."""

import awkward as ak
import numpy as np
import pytest
from pipeline.ingest import InputError, Skim, certified_blocks, read


def test_events_of_good_blocks_are_kept(make_file, tmp_path):
    path = tmp_path / "golden.json"
    path.write_text('{"2": [[1, 2], [4, 4]], "1": [[3, 3]], "7": []}')
    run, block = (grid.ravel().astype(np.uint32) for grid in np.mgrid[1:4, 1:6])
    branches = {"run": run, "luminosityBlock": block, "event": np.arange(len(run), dtype=np.uint64)}
    file = make_file("a.root", {name: ak.Array(values) for name, values in branches.items()})
    skim = Skim(event_variables=("run", "luminosityBlock"), certified=certified_blocks(path))
    events = read([file], skim).events
    assert list(zip(events["run"].tolist(), events["luminosityBlock"].tolist(), strict=True)) == [
        (1, 3),
        (2, 1),
        (2, 2),
        (2, 4),
    ]


def test_blocks_need_the_numbers(make_file, tmp_path):
    with pytest.raises(InputError, match="has no branch 'run'"):
        read([make_file("a.root", {"event": ak.Array([1])})], Skim(certified=((1, ((1, 2),)),)))


@pytest.mark.parametrize("content", ["[]", "{", '{"a": []}', '{"1": [3]}', '{"1": [[1, 2, 3]]}', '{"1": [], "1": []}'])
def test_another_file_is_a_sentence(tmp_path, content):
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(InputError, match=r"golden.json: is no file of certified luminosity blocks"):
        certified_blocks(tmp_path / "golden.json")
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        certified_blocks(tmp_path / "nowhere.json")
