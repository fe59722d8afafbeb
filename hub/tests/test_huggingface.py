"""What only Hugging Face has."""

import pytest

from twinkle_hub.errors import AccessDeniedError, HubConnectionError, NotCachedError
from twinkle_hub.testing import Fault


def test_a_gated_repository_says_that_conditions_are_to_be_accepted(hf, message):
    hf.server.repositories.commit("acme/gated", {"a": b"1"})
    error = message(hf.hub().download, "acme/gated", kind=AccessDeniedError)
    assert "accept conditions" in error
    assert "hf auth login" in error


def test_a_pull_request_is_a_revision(hf):
    commit = hf.server.repositories.commit("acme/m", {"a": b"1"}, branch="refs/pr/1")
    assert hf.hub().resolve("acme/m", "refs/pr/1") == commit
    assert (hf.hub().download("acme/m", revision="refs/pr/1") / "a").read_bytes() == b"1"


def test_a_name_that_the_hub_doesnt_allow_is_refused(hf, message):
    assert "isn't a name" in message(hf.hub().download, "acme/m--x")


def test_the_clients_own_offline_mode_is_respected(hf, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotCachedError):
        hf.hub().download("acme/m")
    assert hf.server.requests == []


def test_where_the_hub_cant_be_reached_a_complete_snapshot_is_used(hf):
    hf.server.repositories.commit("acme/m", {"a": b"1"})
    cached = hf.hub().download("acme/m")
    unreachable = hf.hub_type(endpoint="http://127.0.0.1:9", cache_dir=hf.cache)
    assert unreachable.download("acme/m") == cached


def test_a_file_that_never_arrives_whole_is_no_file(hf, message, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's attempts
    hf.server.repositories.commit("acme/m", {"a.bin": b"right"})
    hf.server.faults.append(Fault(r"resolve/.*a\.bin", cut_after=2))
    message(hf.hub().download, "acme/m", kind=HubConnectionError)
    assert not [path for path in hf.cache.rglob("a.bin") if path.is_file()]
