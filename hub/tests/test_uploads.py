"""Publishing folders: the real clients against loopback servers, and folders with revisions."""

import threading

import pytest

from twinkle_hub.errors import AccessDeniedError, HubBusyError, HubConnectionError, HubError, RepositoryNotFoundError
from twinkle_hub.hub import UploadProgress, WritableHub
from twinkle_hub.hubs import Hubs
from twinkle_hub.retries import Retries
from twinkle_hub.testing import Fault
from twinkle_hub.uploads import UploadOptions, start_upload, upload

# huggingface_hub sends files in a way that its own transport calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "sekret-a1b2c3"
LARGE = b"w" * (1 << 20)  # from here on files are sent on their own account
AT_ONCE = Retries(attempts=3, first_wait=0)


@pytest.fixture
def folder(tmp_path):
    """What is published: regular files, a large one, and what a tool left behind."""
    folder = tmp_path / "to publish"
    (folder / "sub" / "__pycache__").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "sub" / "notes [1].txt").write_bytes(b"notes")
    (folder / "sub" / "__pycache__" / "x.pyc").write_bytes(b"left behind")
    (folder / "model.safetensors").write_bytes(LARGE)
    return folder


@pytest.fixture
def sent():
    """What arrives of ``folder``."""
    return {"config.json": b"{}", "sub/notes [1].txt": b"notes", "model.safetensors": LARGE}


def arrived(remote, revision=None, repo_type="model"):
    repository = remote.server.repositories.get("acme/m", repo_type)
    return repository.commits[repository.find(revision)]


@pytest.fixture
def hub(remote):
    return remote.hub(token=TOKEN)


def test_hubs_can_be_published_to(hub):
    assert isinstance(hub, WritableHub)


class TestTheFirstUpload:
    def test_makes_the_repository_and_sends_regular_and_large_files(self, remote, hub, folder, sent):
        commit = hub.upload(folder, "acme/m")
        assert arrived(remote) == sent
        assert hub.resolve("acme/m") == commit
        assert set(remote.server.blobs.values()) == {LARGE}

    def test_is_private_unless_told_otherwise(self, remote, hub, folder):
        hub.upload(folder, "acme/m")
        assert remote.server.repositories.get("acme/m", "model").private
        hub.upload(folder, "acme/open", private=False)
        assert not remote.server.repositories.get("acme/open", "model").private

    def test_may_be_of_a_data_set(self, remote, hub, folder, sent):
        hub.upload(folder, "acme/m", repo_type="dataset")
        assert arrived(remote, repo_type="dataset") == sent
        assert remote.server.repositories.get("acme/m", "model") is None

    def test_leaves_nothing_in_the_folder(self, hub, folder):
        before = sorted(folder.rglob("*"))
        hub.upload(folder, "acme/m")
        assert sorted(folder.rglob("*")) == before

    def test_tells_how_far_it_is(self, hub, folder):
        told = []
        hub.upload(folder, "acme/m", progress=told.append)
        assert told[-1] == UploadProgress(3, 3, len(LARGE) + 7, len(LARGE) + 7)


class TestAnotherUpload:
    def test_replaces_files_and_keeps_others(self, remote, hub, folder, sent):
        remote.server.repositories.commit("acme/m", {"README.md": b"about", "config.json": b"old"}, private=True)
        hub.upload(folder, "acme/m")
        assert arrived(remote) == {**sent, "README.md": b"about"}

    def test_sends_large_files_once(self, remote, hub, folder):
        hub.upload(folder, "acme/m")
        hub.upload(folder, "acme/m")
        assert len([request for request in remote.server.requests if request.method == "PUT"]) == 1

    def test_doesnt_publish_to_a_public_repository_unless_told_so(self, remote, hub, folder, sent, message):
        remote.server.repositories.commit("acme/m", {"a": b"1"})
        error = message(hub.upload, folder, "acme/m", kind=AccessDeniedError)
        assert "is public" in error
        assert "private=False" in error
        assert arrived(remote) == {"a": b"1"}
        hub.upload(folder, "acme/m", private=False)
        assert arrived(remote) == {**sent, "a": b"1"}


class TestTags:
    def test_name_the_commit(self, hub, folder):
        assert hub.upload(folder, "acme/m", tag="v1") == hub.resolve("acme/m", "v1")

    def test_that_name_another_commit_are_an_error(self, hub, folder, message):
        first = hub.upload(folder, "acme/m", tag="v1")
        (folder / "config.json").write_text("changed")
        error = message(hub.upload, folder, "acme/m", tag="v1")
        assert "@v1 is there already" in error
        assert hub.resolve("acme/m", "v1") == first


def test_patterns_say_which_files(remote, hub, folder):
    hub.upload(folder, "acme/m", allow_patterns=["*.json", "*.txt"], ignore_patterns=["sub/"])
    assert arrived(remote) == {"config.json": b"{}"}


def test_nothing_to_publish_is_an_error(remote, hub, folder, message):
    assert "nothing to publish" in message(hub.upload, folder, "acme/m", allow_patterns=["*.none"])
    assert "no folder" in message(hub.upload, folder / "none", "acme/m", kind=RepositoryNotFoundError)
    assert remote.server.requests == []


def test_a_symlink_that_leads_out_of_the_folder_isnt_published(remote, hub, folder, tmp_path, message):
    (tmp_path / "secret").write_text("s")
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    assert "leads out" in message(hub.upload, folder, "acme/m")
    assert remote.server.requests == []


class TestFailure:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the clients' own attempts

    def test_without_permission_says_to_log_in(self, remote, folder, message):
        error = message(remote.hub(token="wrong-z9y8x7").upload, folder, "acme/m", kind=AccessDeniedError)
        assert "login" in error
        assert remote.server.repositories.get("acme/m", "model") is None

    @pytest.mark.parametrize(
        "fault", [Fault("commit/", status=429, times=2), Fault("batch", status=503, times=1), Fault("lfs/", drop=True, times=1)]
    )
    def test_that_passes_is_tried_again(self, remote, hub, folder, sent, fault):
        remote.server.faults.append(fault)
        upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), retries=AT_ONCE)
        assert arrived(remote) == sent

    def test_that_stays_is_named_and_leaves_no_part(self, remote, hub, folder, message):
        remote.server.faults.append(Fault("commit/", status=503))
        error = message(hub.upload, folder, "acme/m", kind=HubBusyError)
        assert "://acme/m" in error
        assert "503" in error
        assert arrived(remote) == {}

    def test_of_a_commit_without_permission_isnt_tried_again(self, remote, hub, folder, message):
        remote.server.faults.append(Fault("commit/", status=403))
        error = message(upload, folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), retries=AT_ONCE, kind=AccessDeniedError)
        assert "403" in error
        assert len([request for request in remote.server.requests if "repos/create" in request.path]) <= 1

    def test_of_the_connection_after_the_commit_doesnt_lose_it(self, remote, hub, folder, sent):
        remote.server.faults.append(Fault("commit/", drop=True, times=1))
        done = upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), retries=AT_ONCE)
        assert done.commit == hub.resolve("acme/m")
        assert arrived(remote) == sent

    def test_a_hub_that_isnt_there_is_a_connection_error(self, remote, folder, tmp_path, message):
        hub = remote.hub_type(endpoint="http://127.0.0.1:9", cache_dir=tmp_path, token=TOKEN, retries=AT_ONCE)
        assert "acme/m" in message(hub.upload, folder, "acme/m", kind=HubConnectionError)


def test_a_file_that_changes_meanwhile_is_an_error(hub, folder, message):
    def change(progress):
        (folder / "config.json").write_text("changed meanwhile")

    assert "changed while" in message(hub.upload, folder, "acme/m", progress=change)


class TestByReference:
    def test_goes_to_the_references_hub(self, remote, hub, folder, sent):
        done = upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), retries=AT_ONCE)
        assert str(done) == f"{hub.scheme}://acme/m@{done.commit}"
        assert arrived(remote) == sent

    def test_takes_a_token_for_this_time(self, remote, folder, sent):
        hub = remote.hub()
        upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), token=TOKEN, retries=AT_ONCE)
        assert arrived(remote) == sent

    def test_takes_no_mirror_for_the_place_that_is_meant(self, hub, folder, message):
        name = f"{hub.scheme}://acme/m"
        assert "[mirror]" in message(upload, folder, name, hubs=Hubs([hub]), mirror={name: "file:///elsewhere"})


class TestInTheBackground:
    def test_gives_its_result_to_who_asks(self, remote, hub, folder, sent):
        handle = start_upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), options=UploadOptions(tag="v1"))
        done = handle.result(timeout=30)
        assert handle.done()
        assert hub.resolve("acme/m", "v1") == done.commit
        assert handle.progress == UploadProgress(3, 3, len(LARGE) + 7, len(LARGE) + 7)

    def test_gives_its_error_to_who_asks(self, remote, folder):
        hub = remote.hub(token="wrong-z9y8x7")
        handle = start_upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]))
        with pytest.raises(AccessDeniedError, match="login"):
            handle.result(timeout=30)
        assert "ended" in repr(handle)

    def test_doesnt_hold_up_who_starts_it(self, remote, hub, folder):
        remote.server.faults.append(Fault("commit/", delay=0.3))
        handle = start_upload(folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]))
        assert not handle.done()
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.01)
        handle.result(timeout=30)

    def test_tells_at_once_what_can_be_known_at_once(self, hub, folder, message):
        assert "nothing to publish" in message(
            start_upload, folder, f"{hub.scheme}://acme/m", hubs=Hubs([hub]), options=UploadOptions(allow_patterns=["none"])
        )


def test_a_hub_that_only_reads_says_where_to_publish(folder, message):
    class Reader:
        scheme = "read"

        def resolve(self, repo_id, revision=None, repo_type="model", *, offline=False): ...
        def list_files(self, repo_id, revision=None, repo_type="model"): ...
        def download(self, repo_id, **options): ...

    assert "Publish to hf://" in message(upload, folder, "read://acme/m", hubs=Hubs([Reader()]), kind=HubError)


def test_several_may_publish_to_one_folder(tmp_path, folder):
    def publish(number):
        mine = tmp_path / f"mine-{number}"
        mine.mkdir()
        (mine / f"{number}.txt").write_text(str(number))
        upload(mine, f"file://{tmp_path}/shared", hubs=hubs)

    hubs = Hubs.standard()
    threads = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hubs.get("file").list_files(f"{tmp_path}/shared") == [f"{number}.txt" for number in range(6)]
