"""References to repositories."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_hub.errors import HubError
from twinkle_hub.repository import RepoRef

part = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,12}", fullmatch=True)
revisions = st.none() | st.lists(part, min_size=1, max_size=3).map("/".join)
folder = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and name == name.strip()
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://Qwen/Qwen3-0.6B", RepoRef("hf", "Qwen/Qwen3-0.6B")),
        ("ms://swift/self-cognition@v1.0", RepoRef("ms", "swift/self-cognition", "v1.0")),
        ("hf://gpt2", RepoRef("hf", "gpt2")),
        ("HF://a/b", RepoRef("hf", "a/b")),
        ("hf://a/b@refs/pr/1", RepoRef("hf", "a/b", "refs/pr/1")),
        ("tiny://models/twinkle-tiny-qwen3", RepoRef("tiny", "models/twinkle-tiny-qwen3")),
        ("file:///srv/models/a@main", RepoRef("file", "/srv/models/a", "main")),
        ("file:///home/me@work/a", RepoRef("file", "/home/me@work/a")),
        ("file:///srv/a%40b@v1", RepoRef("file", "/srv/a@b", "v1")),
        ("file:///srv/x/../a", RepoRef("file", "/srv/a")),
        ("file:///srv/with space", RepoRef("file", "/srv/with space")),
    ],
)
def test_a_reference_is_read(text, expected):
    assert RepoRef.parse(text) == expected


def test_a_relative_path_is_relative_to_the_given_folder(tmp_path):
    assert RepoRef.parse("file://./a/b", base=tmp_path) == RepoRef("file", f"{tmp_path}/a/b")
    assert RepoRef.parse("file://../a", base=tmp_path) == RepoRef("file", f"{tmp_path.parent}/a")


def test_a_relative_path_is_relative_to_the_working_directory_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert RepoRef.parse("file://./a").repo_id == f"{tmp_path}/a"


def test_a_tilde_is_the_home():
    assert RepoRef.parse("file://~/a").repo_id == str(Path.home() / "a")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("owner/name", "begin with a scheme"),
        ("://a/b", "begin with a scheme"),
        ("hf://", "owner/name"),
        ("hf://a/../b", "owner/name"),
        ("hf:///etc/passwd", "owner/name"),
        ("hf://a/b c", "owner/name"),
        ("hf://a/b@", "branch, a tag or a commit"),
        ("hf://a/b@../../x", "branch, a tag or a commit"),
        ("hf://a/b@--upload-pack", "branch, a tag or a commit"),
        ("hf://a/b@v1@v2", "branch, a tag or a commit"),
        ("file://", "no path"),
        ("file://models/a", "three slashes"),
        ("file:///a@v 1", "branch, a tag or a commit"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason_and_an_example(text, why, message):
    error = message(RepoRef.parse, text)
    assert why in error
    assert "hf://owner/name@revision" in error


def test_a_path_stays_readable_in_messages():
    assert str(RepoRef("file", "/home/me@work/模型 1/a@b%", "v1")) == "file:///home/me@work/模型 1/a%40b%25@v1"


def test_another_revision_of_the_same_repository():
    assert RepoRef("hf", "a/b", "v1").at("v2") == RepoRef("hf", "a/b", "v2")
    assert RepoRef("hf", "a/b", "v1").at(None) == RepoRef("hf", "a/b")
    with pytest.raises(HubError, match="branch"):
        RepoRef("hf", "a/b").at("../x")


@given(st.sampled_from(["hf", "ms", "tiny"]), part, part, revisions)
def test_reading_what_was_written_gives_the_same_reference(scheme, owner, name, revision):
    reference = RepoRef(scheme, f"{owner}/{name}", revision)
    assert RepoRef.parse(str(reference)) == reference


@given(st.lists(folder, min_size=1, max_size=4), st.none() | part)
def test_reading_what_was_written_gives_the_same_path(parts, revision):
    reference = RepoRef("file", "/" + "/".join(parts), revision)
    assert RepoRef.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["file:///srv/ok%20", "file:///srv/ok%09@v1", "file:///srv/ok%C2%A0", "file:///srv/a%40b%23"])
def test_a_folder_is_not_taken_for_one_without_the_white_space_at_its_end(text: str):
    found = RepoRef.parse(text)
    assert RepoRef.parse(str(found)) == found
