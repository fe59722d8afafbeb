"""Folders as repositories."""

import os

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.hub import Hub
from twinkle_hub.local import FileHub

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def plain(tmp_path, write):
    return write(tmp_path / "plain", **{"a.txt": "A", "sub__b.txt": "B"})


@pytest.fixture
def versioned(tmp_path, write):
    files = {f"snapshots__{OLD}__a.txt": "old", f"snapshots__{NEW}__a.txt": "new", "refs__main": NEW, "refs__v1": f"{OLD}\n"}
    return write(tmp_path / "versioned", **files)


def test_it_is_a_hub():
    assert isinstance(FileHub(), Hub)


class TestAPlainFolder:
    def test_is_its_own_snapshot(self, plain):
        assert FileHub().download(str(plain)) == plain
        assert FileHub().download(str(plain), revision="main", allow_patterns=["a.txt"]) == plain

    def test_has_the_digest_of_its_content_as_commit(self, plain):
        commit = digest_of_bytes({"a.txt": b"A", "sub/b.txt": b"B"})
        assert FileHub().resolve(str(plain)) == FileHub().resolve(str(plain), "main") == commit
        assert FileHub().download(str(plain), revision=commit) == plain

    def test_isnt_at_a_commit_any_more_once_a_file_changed(self, plain, message):
        commit = FileHub().resolve(str(plain))
        (plain / "a.txt").write_text("changed")
        error = message(FileHub().download, str(plain), revision=commit, kind=RevisionNotFoundError)
        assert commit in error
        assert FileHub().resolve(str(plain)) in error

    def test_has_no_other_revision(self, plain, message):
        error = message(FileHub().download, str(plain), revision="v1", kind=RevisionNotFoundError)
        assert f"file://{plain}" in error
        assert "'v1'" in error
        assert "Leave the revision out" in error

    def test_lists_its_files_without_what_tools_leave_behind(self, plain, write):
        for left_behind in (".git", "__pycache__", ".cache"):
            write(plain / left_behind, something="x")
        assert FileHub().list_files(str(plain)) == ["a.txt", "sub/b.txt"]


class TestAFolderWithRevisions:
    def test_gives_the_snapshot_of_a_branch_or_tag(self, versioned):
        assert (FileHub().download(str(versioned)) / "a.txt").read_text() == "new"
        assert (FileHub().download(str(versioned), revision="v1") / "a.txt").read_text() == "old"

    def test_gives_the_snapshot_of_a_commit(self, versioned):
        assert (FileHub().download(str(versioned), revision=OLD) / "a.txt").read_text() == "old"

    def test_resolves_names_to_commits(self, versioned):
        assert [FileHub().resolve(str(versioned), name) for name in (None, "main", "v1", OLD)] == [NEW, NEW, OLD, OLD]

    def test_lists_the_files_of_a_revision(self, versioned):
        assert FileHub().list_files(str(versioned), "v1") == ["a.txt"]

    def test_tells_its_revisions_when_asked_for_another(self, versioned, message):
        error = message(FileHub().download, str(versioned), revision="v9", kind=RevisionNotFoundError)
        assert "'v9'" in error
        assert "main, v1" in error

    def test_says_when_a_reference_points_nowhere(self, versioned, message):
        (versioned / "refs" / "broken").write_text("c" * 40)
        assert "broken" in message(FileHub().resolve, str(versioned), "broken", kind=RevisionNotFoundError)

    def test_doesnt_follow_a_reference_out_of_itself(self, versioned, message):
        (versioned / "refs" / "evil").write_text("../../..")
        assert "isn't among the snapshots" in message(FileHub().download, str(versioned), revision="evil")

    def test_may_be_a_cache_of_hugging_face(self, versioned, write):
        write(versioned, blobs__123="weights")
        (versioned / "snapshots" / NEW / "model.bin").symlink_to("../../blobs/123")
        assert FileHub().list_files(str(versioned)) == ["a.txt", "model.bin"]


@pytest.mark.parametrize("revision", ["../plain", "..", "/etc", "a/../../b", ""])
def test_a_revision_cant_lead_out_of_the_repository(versioned, revision):
    with pytest.raises(HubError, match=r"branch, a tag or a commit"):
        FileHub().download(str(versioned), revision=revision)


def test_a_symlink_that_leaves_the_repository_is_refused(plain, tmp_path, message):
    (tmp_path / "secret").write_text("s")
    (plain / "sub" / "link").symlink_to(tmp_path / "secret")
    for call in (FileHub().download, FileHub().resolve, FileHub().list_files):
        assert "leads out of its repository" in message(call, str(plain))


def test_a_symlinked_folder_that_leaves_the_repository_is_refused(plain, tmp_path, message):
    (tmp_path / "elsewhere").mkdir()
    (plain / "link").symlink_to(tmp_path / "elsewhere")
    assert "leads out of its repository" in message(FileHub().download, str(plain))


@pytest.mark.parametrize(("link", "revision"), [(f"snapshots/{NEW}", None), (f"snapshots/{NEW}", NEW), ("refs/main", None)])
def test_a_snapshot_or_reference_that_leaves_the_repository_is_refused(versioned, tmp_path, link, revision, message):
    (versioned / link).rename(tmp_path / "moved")
    (versioned / link).symlink_to(tmp_path / "moved")
    for call in (FileHub().download, FileHub().list_files, FileHub().resolve):
        assert "leads out of its repository" in message(call, str(versioned), revision=revision)


def test_a_symlink_inside_the_repository_is_fine(plain):
    (plain / "link.txt").symlink_to("a.txt")
    assert FileHub().list_files(str(plain)) == ["a.txt", "link.txt", "sub/b.txt"]


def test_a_loop_of_folders_ends(plain):
    (plain / "sub" / "loop").symlink_to("..")
    assert "sub/b.txt" in FileHub().list_files(str(plain))


def test_special_files_are_refused(plain, message):
    os.mkfifo(plain / "pipe")
    assert "special file" in message(FileHub().download, str(plain))


def test_a_folder_that_isnt_there_is_named_with_its_neighbours(plain, message):
    error = message(FileHub().download, str(plain.parent / "plane"), kind=RepositoryNotFoundError)
    assert "plane doesn't exist" in error
    assert f"Folders in {plain.parent}: plain." in error


def test_a_file_is_no_repository(plain, message):
    assert "is a file, not a folder" in message(FileHub().download, str(plain / "a.txt"))


class TestAHubOfFolders:
    """As plugins add them, for files that they ship."""

    def test_names_repositories_below_its_root(self, tmp_path, plain):
        hub = FileHub(tmp_path, scheme="tiny")
        assert hub.scheme == "tiny"
        assert hub.download("plain") == plain

    @pytest.mark.parametrize("repo_id", ["../etc", "a/../../etc", "/etc"])
    def test_never_leaves_its_root(self, tmp_path, repo_id, message):
        assert "leads out" in message(FileHub(tmp_path, scheme="tiny").download, repo_id)

    def test_doesnt_follow_a_symlink_out_of_its_root(self, tmp_path, plain, message):
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "link").symlink_to(plain)
        assert "leads out" in message(FileHub(tmp_path / "hub").download, "link")

    def test_names_its_scheme_in_errors(self, tmp_path, message):
        assert "tiny://a/b" in message(FileHub(tmp_path, scheme="tiny").download, "a/b", kind=RepositoryNotFoundError)


def test_without_a_root_a_name_is_an_absolute_path(message):
    assert "absolute path" in message(FileHub().download, "owner/name")


class TestPublishing:
    def test_makes_a_folder_with_revisions_that_only_its_owner_opens(self, plain, tmp_path):
        commit = FileHub().upload(plain, f"{tmp_path}/new", tag="v1")
        assert commit == digest_of_bytes({"a.txt": b"A", "sub/b.txt": b"B"})
        assert FileHub().resolve(f"{tmp_path}/new", "v1") == FileHub().resolve(f"{tmp_path}/new") == commit
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0

    def test_keeps_what_the_folder_lacks_and_the_snapshots_of_before(self, plain, versioned):
        commit = FileHub().upload(plain, str(versioned), allow_patterns=["sub/*"])
        assert FileHub().list_files(str(versioned), commit) == ["a.txt", "sub/b.txt"]
        assert FileHub().list_files(str(versioned), NEW) == ["a.txt"]

    def test_that_fails_leaves_the_branch_and_no_snapshot(self, plain, versioned, message):
        def change(progress):
            (plain / "a.txt").write_text("changed meanwhile")

        before = sorted(versioned.rglob("*"))
        assert "changed while" in message(FileHub().upload, plain, str(versioned), progress=change)
        assert sorted(path for path in versioned.rglob("*") if path.name != ".lock") == before

    def test_moves_no_tag(self, plain, versioned, message):
        assert "Choose another tag" in message(FileHub().upload, plain, str(versioned), tag="v1")
        assert FileHub().resolve(str(versioned), "v1") == OLD
        assert FileHub().resolve(str(versioned)) == NEW

    def test_leaves_a_plain_folder_as_it_is(self, plain, versioned, message):
        assert "plain folder" in message(FileHub().upload, versioned, str(plain))
