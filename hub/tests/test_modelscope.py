"""What only ModelScope has."""

import json

import pytest

from twinkle_hub.errors import HubError, NotCachedError, RevisionNotFoundError
from twinkle_hub.testing import Fault


def test_an_unknown_revision_is_an_error_though_the_server_answers_200(ms, message):
    ms.server.repositories.commit("acme/m", {"a": b"1"})
    error = message(ms.hub().download, "acme/m", revision="main", kind=RevisionNotFoundError)
    assert "It has: master" in error


def test_a_commit_that_only_deleted_files_is_named_by_its_eight_digits(ms):
    ms.server.repositories.commit("acme/m", {"a": b"1", "b": b"2"})
    head = ms.server.repositories.commit("acme/m", {"a": b"1"})
    assert ms.hub().resolve("acme/m") == head[:8]
    folder = ms.hub().download("acme/m")
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_data_sets_are_listed_in_pages(ms):
    files = {f"data/{number:03}.txt": str(number).encode() for number in range(450)}
    ms.server.repositories.commit("acme/d", files, repo_type="dataset")
    assert ms.hub().list_files("acme/d", None, "dataset") == sorted(files)


def test_bytes_that_arent_those_listed_are_thrown_away(ms, message, monkeypatch):
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    ms.server.repositories.commit("acme/m", {"a.bin": b"right"})
    ms.server.faults.append(Fault(r"a\.bin", body=b"wrong"))
    assert "thrown away" in message(ms.hub().download, "acme/m")
    assert not list(ms.cache.rglob("a.bin"))


@pytest.mark.parametrize("path", ["../outside", "/tmp/outside", "a/../../outside"])
def test_a_file_that_lies_outside_of_its_repository_is_refused(ms, path, message):
    ms.server.repositories.commit("acme/m", {path: b"1"})
    assert "outside of itself" in message(ms.hub().download, "acme/m", kind=HubError)


@pytest.mark.parametrize("commit", ["../../outside", "/tmp/outside", ".", "a/../.."])
def test_a_commit_never_leads_out_of_the_cache(ms, commit, message):
    ms.server.repositories.commit("acme/m", {"a": b"1"})
    listing = {"Files": [], "LatestCommitter": {"Id": commit, "ShortId": ""}}
    envelope = {"Code": 200, "Data": listing, "Message": "success", "RequestId": "test", "Success": True}
    ms.server.faults.append(Fault(r"repo/files", body=json.dumps(envelope).encode()))
    before = set(ms.cache.rglob("*"))
    assert "the commit that the hub names" in message(ms.hub().download, "acme/m", kind=HubError)
    assert set(ms.cache.rglob("*")) == before


def test_offline_what_another_program_downloaded_is_found(ms):
    from modelscope_hub import HubApi, HubConfig

    ms.server.repositories.commit("acme/m", {"a": b"1"})
    folder = HubApi(HubConfig(endpoint=ms.server.endpoint, token="")).download_repo("acme/m", "model", cache_dir=ms.cache)
    assert ms.hub().download("acme/m", offline=True) == folder


def test_offline_an_unknown_repository_isnt_looked_up(ms):
    with pytest.raises(NotCachedError):
        ms.hub().download("acme/m", offline=True)
    assert ms.server.requests == []


def test_nothing_is_written_outside_the_cache(ms, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ms.server.repositories.commit("acme/m", {"a": b"1"})
    ms.hub().download("acme/m")
    assert not (tmp_path / "home").exists()
