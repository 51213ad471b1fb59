"""Difficult servers: each gets its sentence, and one that only asks for patience gets it."""

import pytest
import urllib3
from pipeline.ingest import InputError, read, remote
from pipeline.ingest.remote import UnreachableError, probe, refusal, unreachable
from small_files import random_branches

from range_server import Site, serving


@pytest.fixture
def content(make_file) -> bytes:
    return make_file("a.root", random_branches(300)).read_bytes()


def test_a_probe_tells_size_and_version(content):
    with serving(Site({"/a.root": content}, tags={"/a.root": '"v1"'})) as site:
        found = probe(f"{site.url}/a.root")
    assert (found.size, found.tag, found.head) == (len(content), '"v1"', content[:512])


def test_the_pause_that_a_server_asks_for_is_kept(content, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with serving(Site({"/a.root": content}, statuses={"/a.root": [429, 503]}, retry_after=7)) as site:
        assert probe(f"{site.url}/a.root").size == len(content)
    assert pauses == [7, 7]


def test_a_server_cannot_make_us_wait_for_an_hour(content, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with serving(Site({"/a.root": content}, statuses={"/a.root": [503]}, retry_after=3600)) as site:
        probe(f"{site.url}/a.root")
    assert pauses == [60]


def test_a_redirect_is_followed_and_a_circle_is_not(content, skim):
    with serving(Site({"/a.root": content}, redirects={"/b.root": "/a.root", "/c.root": "/c.root"})) as site:
        assert len(read([f"{site.url}/b.root"], skim).events) == len(read([f"{site.url}/a.root"], skim).events)
        with pytest.raises(InputError, match=r"/c.root: the server sends the request in circles"):
            read([f"{site.url}/c.root"], skim)


def test_a_login_page_is_no_root_file(skim):
    page = b"<!DOCTYPE html><html><title>Sign in</title></html>" * 50
    for ranges in (True, False):
        with (
            serving(Site({"/a.root": page}, ranges=ranges)) as site,
            pytest.raises(InputError, match=r"/a.root: .* a web page, perhaps .* login"),
        ):
            read([f"{site.url}/a.root"], skim)


@pytest.mark.parametrize("cached", [False, True])
def test_a_server_that_tells_no_length(content, skim, tmp_path, cached):
    """The range that it sends tells the length of the whole."""
    with serving(Site({"/a.root": content}, lengths=False)) as site:
        assert probe(f"{site.url}/a.root").size == len(content)
        ingested = read([f"{site.url}/a.root"], skim, cache=tmp_path / "cache" if cached else None)
    assert ingested.entries == (300,)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 407, 410, 418, 429, 500, 503])
def test_every_refusal_says_what_to_do(status):
    sentence = refusal("https://x/a.root", status, "Reason")
    assert sentence.startswith("https://x/a.root: ")
    assert f"({status} Reason)" in sentence
    assert sentence.endswith(".")


def test_a_certificate_that_cannot_be_trusted():
    error = urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError("self-signed certificate"))
    assert unreachable("https://x/a.root", error) == (
        "https://x/a.root: the server's certificate cannot be trusted (self-signed certificate); install the "
        "certificates of its authority and name them in SSL_CERT_FILE, or use another prefix."
    )


def test_a_certificate_is_not_tried_again():
    with pytest.raises(urllib3.exceptions.SSLError):
        remote.HTTP.connection_pool_kw["retries"].increment("GET", "/", error=urllib3.exceptions.SSLError("bad"))


def test_nobody_there(monkeypatch):
    monkeypatch.setattr(remote, "HTTP", urllib3.PoolManager(retries=False))
    with pytest.raises(UnreachableError, match=r"http://127.0.0.1:9/a.root: cannot be reached \(.*\); check the addr"):
        probe("http://127.0.0.1:9/a.root")
