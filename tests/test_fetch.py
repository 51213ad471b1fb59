"""The command that fetches data sets, against a real server and a small manifest."""

import hashlib
import struct
from pathlib import Path

import pytest
import yaml
from pipeline import fetch as fetch_data
from pipeline.ingest.manifest import load_manifest

from range_server import Site, serving

HEADER = struct.pack(">4siii", b"root", 62400, 100, 50_000)
CONTENT = {f"folder/{name}.root": HEADER + name.encode() * 49_984 for name in "abc"}


@pytest.fixture
def site():
    with serving(Site({f"/store/{path}": content for path, content in CONTENT.items()})) as running:
        yield running


@pytest.fixture
def manifest(site, tmp_path) -> Path:
    """Two data sets on the server, one beside the manifest."""

    def dataset(variation: str, source: str, *names: str) -> dict:
        listed = [{"path": f"folder/{name}.root", "events": 10} for name in names]
        return {"source": source, "process": "p", "variation": variation, "cross_section_pb": 1.0, "files": listed}

    def source(prefixes: dict[str, str]) -> dict:
        return {"description": "d", "licence": "l", "citation": "c", "simulated": True, "prefixes": prefixes}

    content = {
        "sources": {
            "remote": source({"main": f"{site.url}/store/", "mirror": f"{site.url}/mirror/"}),
            "here": source({"local": "data"}),
        },
        "datasets": {
            "far/p__nominal": dataset("nominal", "remote", "a", "b"),
            "far/p__other": dataset("other", "remote", "c"),
            "near/p__nominal": dataset("nominal", "here", "a"),
        },
    }
    checksum = hashlib.sha256(CONTENT["folder/a.root"]).hexdigest()
    content["datasets"]["far/p__nominal"]["files"][0] |= {"sha256": checksum, "size": 50_000}
    path = tmp_path / "data_manifest.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def fetch(manifest, tmp_path):
    def run(*arguments: str) -> int:
        return fetch_data.main([*arguments, "--manifest", str(manifest), "--output", str(tmp_path / "out")])

    return run


def there(tmp_path: Path) -> dict[str, bytes]:
    files = (path for path in (tmp_path / "out").rglob("*.root") if path.is_file())
    return {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files}


def test_all_files_come_and_a_second_run_asks_for_none(fetch, site, tmp_path, capsys):
    assert fetch("--datasets", "far/*") == 0
    assert there(tmp_path) == CONTENT
    assert "3 of 3 files are in" in capsys.readouterr().out
    asked = len(site.requests)
    assert fetch("--datasets", "far/*") == 0
    assert len(site.requests) == asked


def test_the_manifest_finds_what_was_fetched(fetch, manifest, tmp_path):
    fetch("--datasets", "far/p__nominal")
    for location in load_manifest(manifest).dataset("far", "p").locations(str(tmp_path / "out")):
        assert Path(location).is_file()


def test_a_limit_on_files(fetch, tmp_path):
    assert fetch("--datasets", "far/p__nominal", "far/p__other", "--max-files", "1") == 0
    assert set(there(tmp_path)) == {"folder/a.root", "folder/c.root"}


def test_what_fails_is_said_and_the_rest_still_comes(fetch, site, tmp_path, capsys):
    del site.files["/store/folder/b.root"]
    assert fetch("--datasets", "far/*") == 1
    captured = capsys.readouterr()
    assert set(there(tmp_path)) == {"folder/a.root", "folder/c.root"}
    assert captured.err.strip().endswith(
        "/b.root: no such file on the server (404 Not Found); check the manifest, or use another prefix."
    )
    assert "2 of 3 files" in captured.out


def test_a_wrong_checksum_leaves_no_file(fetch, site, tmp_path, capsys):
    site.files["/store/folder/a.root"] = HEADER + b"x" * 49_984
    assert fetch("--datasets", "far/p__nominal", "--max-files", "1") == 1
    assert "its checksum is not that of the manifest" in capsys.readouterr().err
    assert "folder/a.root" not in there(tmp_path)


def test_another_prefix(fetch, site, tmp_path):
    site.files = {path.replace("store", "mirror"): content for path, content in site.files.items()}
    assert fetch("--datasets", "far/p__other", "--prefix", "mirror") == 0
    assert there(tmp_path) == {"folder/c.root": CONTENT["folder/c.root"]}


def test_listing_fetches_nothing(fetch, site, capsys):
    assert fetch("--datasets", "far/p__other", "--list") == 0
    assert capsys.readouterr().out == f"{site.url}/store/folder/c.root  10 events\n"
    assert site.requests == []


def test_local_data_sets_need_nothing(fetch, capsys):
    assert fetch("--datasets", "near/*") == 0
    assert "Nothing to fetch" in capsys.readouterr().out


def test_an_unknown_name_is_a_sentence(fetch, capsys):
    assert fetch("--datasets", "far/p__nominl") == 1
    assert "no data set 'far/p__nominl'; did you mean far/p__nominal" in capsys.readouterr().err


def test_quiet_says_nothing(fetch, capsys):
    assert fetch("--datasets", "far/*", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        fetch_data.main(["--help"])
    text = capsys.readouterr().out
    assert "python -m pipeline.fetch --datasets agc/ttbar__nominal --max-files 1" in text


def test_a_config_says_what_it_needs(tmp_path, capsys):
    """The full AGC on the AGC's own files, three of each data set."""
    agc = Path(__file__).parent.parent / "configs" / "agc.yaml"
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"extends": str(agc), "data": {"set": "agc", "max_files": 3}}))
    assert fetch_data.main(["--config", str(config), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27
    assert all(line.startswith("https://xrootd-local.unl.edu:1094//store/user/AGC/nanoAOD/") for line in lines)


def config_for(tmp_path, location: str) -> Path:
    agc = Path(__file__).parent.parent / "configs" / "agc.yaml"
    config = tmp_path / "config.yaml"
    data = {"set": "agc", "max_files": 1, "location": location}
    config.write_text(yaml.safe_dump({"extends": str(agc), "data": data}))
    return config


@pytest.mark.parametrize(
    ("location", "start"),
    [
        ("unl", "https://xrootd-local.unl.edu:1094//"),
        ("eos", "root://eospublic.cern.ch//"),
        ("some/folder", "https://"),
    ],
)
def test_a_config_says_where_from(tmp_path, capsys, location, start):
    assert fetch_data.main(["--config", str(config_for(tmp_path, location)), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert all(line.startswith(start) for line in lines)


def test_a_config_says_where_to(tmp_path):
    """Where a run with that config looks for them."""
    config = config_for(tmp_path, str(tmp_path / "mine"))
    (first, *_) = fetch_data.files(fetch_data.parsed(["--config", str(config)]))
    assert first.target == tmp_path / "mine" / first.file.path
    (first, *_) = fetch_data.files(fetch_data.parsed(["--config", str(config), "--output", str(tmp_path / "other")]))
    assert first.folder == tmp_path / "other"
    (first, *_) = fetch_data.files(fetch_data.parsed(["--config", str(config_for(tmp_path, "unl"))]))
    assert first.folder == Path("agc-data")


def test_a_server_that_is_not_there_is_a_sentence(fetch, capsys, monkeypatch):
    import urllib3
    from pipeline.ingest import remote

    monkeypatch.setattr(remote, "HTTP", urllib3.PoolManager(retries=False))
    assert fetch("--datasets", "far/*", "--prefix", "http://127.0.0.1:9/", "--workers", "1") == 1
    message = capsys.readouterr().err
    assert message.startswith("http://127.0.0.1:9/folder/a.root: cannot be reached (")
    assert message.endswith("); check the address and the network.\n")
    assert message.count("\n") == 1


def test_two_files_of_one_path_are_refused(fetch, manifest, tmp_path, capsys):
    """Else the second would be found in place, and W+jets be ttbar."""
    content = yaml.safe_load(manifest.read_text())
    content["sources"]["other"] = content["sources"]["remote"] | {"prefixes": {"main": "https://elsewhere/"}}
    other = content["datasets"]["far/p__other"] | {"source": "other", "files": [{"path": "folder/a.root", "events": 3}]}
    content["datasets"]["far/p__other"] = other
    manifest.write_text(yaml.safe_dump(content))
    assert fetch("--datasets", "far/*") == 1
    message = capsys.readouterr().err
    assert "far/p__other: https://elsewhere/folder/a.root and http://" in message
    assert "would both lie in" in message
    assert message.count("\n") == 1
    assert there(tmp_path) == {}


def test_a_file_of_an_earlier_command_is_not_taken_for_that_of_another_source(fetch, manifest, site, tmp_path, capsys):
    site.files["/other/folder/b.root"] = CONTENT["folder/c.root"]
    content = yaml.safe_load(manifest.read_text())
    content["sources"]["other"] = content["sources"]["remote"] | {"prefixes": {"main": f"{site.url}/other/"}}
    other = content["datasets"]["far/p__other"] | {"source": "other", "files": [{"path": "folder/b.root", "events": 3}]}
    content["datasets"]["far/p__other"] = other
    manifest.write_text(yaml.safe_dump(content))
    assert fetch("--datasets", "far/p__nominal") == 0
    assert fetch("--datasets", "far/p__other") == 1
    message = capsys.readouterr().err
    assert f"/other/folder/b.root: would lie in {tmp_path}/out/folder/b.root, which comes from" in message
    assert message.count("\n") == 1
    (tmp_path / "out/folder/b.root").unlink()
    assert fetch("--datasets", "far/p__other") == 0
    assert there(tmp_path)["folder/b.root"] == CONTENT["folder/c.root"]


def test_a_mirror_has_the_same_files(fetch, site):
    site.files |= {path.replace("store", "mirror"): content for path, content in site.files.items()}
    assert fetch("--datasets", "far/*") == fetch("--datasets", "far/*", "--prefix", "mirror") == 0


def test_a_damaged_record_is_a_sentence(fetch, tmp_path, capsys):
    assert fetch("--datasets", "far/p__other") == 0
    (tmp_path / "out" / fetch_data.RECORD).write_text("[1")
    assert fetch("--datasets", "far/p__other") == 1
    assert "is damaged; delete it if you know" in capsys.readouterr().err


def test_a_file_of_two_data_sets_is_fetched_once(fetch, manifest, site):
    content = yaml.safe_load(manifest.read_text())
    content["datasets"]["far/p__other"]["files"] = [{"path": "folder/b.root", "events": 10}]
    manifest.write_text(yaml.safe_dump(content))
    assert fetch("--datasets", "far/*") == 0
    assert [path for _, path, _ in site.requests].count("/store/folder/b.root") == 1


def test_the_module_is_a_command():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "pipeline.fetch", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m pipeline.fetch --datasets 'agc/*'" in done.stdout
