"""What the hubs of Hugging Face and ModelScope have in common: their real clients against loopback servers."""

import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from twinkle_hub.digest import digest_of_folder
from twinkle_hub.errors import (
    AccessDeniedError,
    HubConnectionError,
    HubError,
    MissingClientError,
    NotCachedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from twinkle_hub.hub import Hub
from twinkle_hub.local import FileHub
from twinkle_hub.testing import Fault

OLD = {"config.json": b"old", "weights/a.bin": b"a" * 3000, "removed.txt": b"gone later"}
NEW = {"config.json": b"newer", "weights/a.bin": b"a" * 3000}
TOKEN = "sekret-a1b2c3"


@pytest.fixture
def commits(remote):
    """``acme/m`` with two commits on the default branch, the first one tagged ``v1``, and a branch ``feature/x``."""
    repositories = remote.server.repositories
    old = repositories.commit("acme/m", OLD)
    repositories.tag("acme/m", "v1", old)
    new = repositories.commit("acme/m", NEW)
    feature = repositories.commit("acme/m", {"config.json": b"feature"}, branch="feature/x")
    return {"old": old, "new": new, "feature": feature}


def files_of(folder):
    names = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def test_it_is_a_hub(remote):
    assert isinstance(remote.hub(), Hub)


class TestRevisions:
    def test_resolve_to_commits(self, remote, commits):
        hub = remote.hub()
        assert hub.resolve("acme/m") == commits["new"]
        assert hub.resolve("acme/m", "v1") == commits["old"]
        assert hub.resolve("acme/m", "feature/x") == commits["feature"]
        assert hub.resolve("acme/m", commits["old"]) == commits["old"]

    def test_have_the_files_of_their_commit(self, remote, commits):
        assert remote.hub().list_files("acme/m") == sorted(NEW)
        assert remote.hub().list_files("acme/m", "v1") == sorted(OLD)

    def test_are_downloaded_as_they_were(self, remote, commits):
        hub = remote.hub()
        assert files_of(hub.download("acme/m")) == NEW
        assert files_of(hub.download("acme/m", revision="v1")) == OLD
        assert files_of(hub.download("acme/m", revision=commits["old"])) == OLD
        assert files_of(hub.download("acme/m", revision="feature/x")) == {"config.json": b"feature"}

    def test_lie_side_by_side_in_the_cache(self, remote, commits):
        hub = remote.hub()
        old, new = hub.download("acme/m", revision="v1"), hub.download("acme/m")
        assert old != new
        assert (files_of(old), files_of(new)) == (OLD, NEW)

    def test_that_move_leave_the_snapshot_of_before_as_it_was(self, remote, commits):
        hub = remote.hub()
        before = hub.download("acme/m")
        remote.server.repositories.commit("acme/m", {"config.json": b"moved on"})
        assert files_of(hub.download("acme/m")) == {"config.json": b"moved on"}
        assert files_of(before) == NEW

    def test_that_arent_there_are_an_error_that_leaves_no_snapshot(self, remote, commits, message):
        error = message(remote.hub().download, "acme/m", revision="v9", kind=RevisionNotFoundError)
        assert f"{remote.hub().scheme}://acme/m@v9" in error
        assert "'v9'" in error
        assert not list(remote.cache.rglob("config.json"))

    def test_that_could_be_options_or_paths_reach_no_client(self, remote, commits, message):
        for revision in ("../../x", "--output=/tmp/x", ""):
            assert "can't be the name" in message(remote.hub().download, "acme/m", revision=revision)
        assert remote.server.requests == []


class TestPatterns:
    def test_only_what_matches_is_fetched(self, remote, commits):
        assert set(files_of(remote.hub().download("acme/m", allow_patterns=["*.json"]))) == {"config.json"}
        assert not any("a.bin" in str((request.path, request.query)) for request in remote.server.requests)

    def test_what_is_ignored_isnt_fetched(self, remote, commits):
        assert set(files_of(remote.hub().download("acme/m", ignore_patterns=["weights/"]))) == {"config.json"}

    def test_more_can_be_fetched_later(self, remote, commits):
        remote.hub().download("acme/m", allow_patterns=["*.json"])
        assert files_of(remote.hub().download("acme/m")) == NEW


class TestDatasets:
    def test_are_other_repositories_than_models(self, remote, commits, message):
        remote.server.repositories.commit("acme/m", {"train.jsonl": b"{}\n"}, repo_type="dataset")
        hub = remote.hub()
        assert files_of(hub.download("acme/m", repo_type="dataset")) == {"train.jsonl": b"{}\n"}
        assert files_of(hub.download("acme/m")) == NEW
        assert hub.list_files("acme/m", None, "dataset") == ["train.jsonl"]

    def test_have_revisions_too(self, remote):
        old = remote.server.repositories.commit("acme/d", {"a/train.jsonl": b"1"}, repo_type="dataset")
        remote.server.repositories.tag("acme/d", "v1", old, repo_type="dataset")
        remote.server.repositories.commit("acme/d", {"a/train.jsonl": b"2"}, repo_type="dataset")
        assert files_of(remote.hub().download("acme/d", revision="v1", repo_type="dataset")) == {"a/train.jsonl": b"1"}
        assert remote.hub().resolve("acme/d", "v1", "dataset") == old

    def test_arent_found_among_models(self, remote, message):
        remote.server.repositories.commit("acme/d", {"train.jsonl": b"{}"}, repo_type="dataset")
        assert "a model or a data set" in message(remote.hub().download, "acme/d", kind=RepositoryNotFoundError)


class TestCache:
    def test_a_file_is_fetched_once(self, remote, commits):
        remote.hub().download("acme/m")
        remote.server.requests.clear()
        remote.hub().download("acme/m")
        assert not any("config.json" in str((request.path, request.query)) for request in remote.server.requests)

    def test_a_complete_commit_needs_no_network(self, remote, commits):
        remote.hub().download("acme/m", revision=commits["new"])
        remote.server.requests.clear()
        assert files_of(remote.hub().download("acme/m", revision=commits["new"])) == NEW
        assert remote.server.requests == []

    def test_offline_nothing_is_asked(self, remote, commits):
        online = remote.hub().download("acme/m")
        remote.server.requests.clear()
        assert remote.hub().download("acme/m", offline=True) == online
        assert remote.hub().resolve("acme/m", offline=True) == commits["new"]
        assert remote.server.requests == []

    def test_offline_each_revision_is_its_own(self, remote, commits, message):
        remote.hub().download("acme/m", revision="v1")
        assert files_of(remote.hub().download("acme/m", revision="v1", offline=True)) == OLD
        assert "acme/m" in message(remote.hub().download, "acme/m", offline=True, kind=NotCachedError)

    def test_offline_what_isnt_cached_is_an_error_with_the_way_out(self, remote, message):
        for call in (remote.hub().download, remote.hub().resolve):
            error = message(call, "acme/m", offline=True, kind=NotCachedError)
            assert "://acme/m" in error
            assert "TWINKLE_OFFLINE" in error
        assert remote.server.requests == []

    def test_offline_a_part_isnt_taken_for_the_whole(self, remote, commits):
        remote.hub().download("acme/m", allow_patterns=["*.json"])
        assert (remote.hub().download("acme/m", allow_patterns=["*.json"], offline=True) / "config.json").is_file()
        with pytest.raises(NotCachedError):
            remote.hub().download("acme/m", offline=True)

    def test_several_may_download_at_once(self, remote, commits):
        with ThreadPoolExecutor(4) as pool:
            folders = list(pool.map(lambda _: remote.hub().download("acme/m"), range(4)))
        assert len(set(folders)) == 1
        assert files_of(folders[0]) == NEW

    def test_the_same_files_have_the_same_digest_wherever_they_came_from(self, remote, commits, tmp_path):
        for name, content in NEW.items():
            path = tmp_path / "local" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder = remote.hub().download("acme/m")
        assert FileHub().resolve(str(tmp_path / "local")) == digest_of_folder(tmp_path / "local")
        assert files_of(folder) == files_of(tmp_path / "local")


class TestFailure:
    def test_a_connection_cut_in_the_middle_of_a_file_leaves_no_half_file(self, remote, commits):
        remote.server.faults.append(Fault(r"a\.bin", cut_after=1000, times=1))
        assert files_of(remote.hub().download("acme/m")) == NEW

    def test_an_interrupted_download_isnt_a_cached_one(self, remote, commits):
        remote.server.faults.append(Fault(r"a\.bin", status=404))
        with pytest.raises(HubError):
            remote.hub().download("acme/m")
        with pytest.raises(NotCachedError):
            remote.hub().download("acme/m", offline=True)
        remote.server.faults.clear()
        assert files_of(remote.hub().download("acme/m")) == NEW

    def test_a_hub_that_fails_is_named_with_its_status(self, remote, commits, message):
        remote.server.faults.append(Fault("api/", status=500))
        error = message(remote.hub().download, "acme/m")
        assert "://acme/m" in error
        assert "5" in error.partition("status")[2]

    def test_a_hub_that_isnt_there_is_a_connection_error(self, remote, message, tmp_path, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's attempts
        hub = remote.hub_type(endpoint="http://127.0.0.1:9", cache_dir=tmp_path)  # the discard port: nobody listens
        for call in (hub.download, hub.resolve, hub.list_files):
            error = message(call, "acme/m", kind=HubConnectionError)
            assert "acme/m" in error
            assert "_ENDPOINT" in error

    def test_an_unknown_repository_is_an_error_with_the_way_out(self, remote, message):
        for call in (remote.hub().download, remote.hub().resolve, remote.hub().list_files):
            error = message(call, "acme/none", kind=RepositoryNotFoundError)
            assert "://acme/none" in error
            assert "login" in error

    def test_without_the_client_the_error_says_what_to_install(self, remote, monkeypatch, message):
        for name in ("huggingface_hub", "modelscope_hub", "modelscope_hub.errors"):
            monkeypatch.setitem(sys.modules, name, None)
        error = message(remote.hub().download, "acme/m", kind=MissingClientError)
        assert f"pip install 'twinkle-hub[{remote.hub().scheme}]'" in error


class TestTokens:
    @pytest.fixture(autouse=True)
    def private(self, remote):
        remote.server.repositories.commit("acme/private", {"a": b"1"}, private=True)

    def test_open_private_repositories(self, remote):
        assert files_of(remote.hub(token=TOKEN).download("acme/private")) == {"a": b"1"}

    def test_are_needed_for_them(self, remote, message):
        error = message(remote.hub().download, "acme/private")
        assert "login" in error

    @pytest.mark.parametrize("token", ["wrong-z9y8x7", "bad-z9y8x7\nvalue"])
    def test_never_show_in_an_error(self, remote, token):
        with pytest.raises(HubError) as raised:
            remote.hub(token=token).download("acme/private")
        shown = "".join(traceback.format_exception(raised.value))
        assert "z9y8x7" not in shown

    def test_that_cant_be_sent_are_an_access_error(self, remote, message):
        assert "login" in message(remote.hub(token="bad\nvalue").download, "acme/private", kind=AccessDeniedError)
