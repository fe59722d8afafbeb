"""``twinkle.lock``: a value that reads and writes the same bytes, and loses nothing to other processes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry.errors import LockError
from twinkle_registry.lock import LockedComponent, LockedRepository, LockFile, find_lock, update_lock
from twinkle_registry.project import Project

COMMIT, OTHER_COMMIT, DIGEST, OTHER_DIGEST = "a" * 40, "c" * 40, "b" * 64, "d" * 64
FOCAL = LockedComponent("hf://acme/focal@v1", COMMIT, DIGEST, ("loss",), (f"ms://acme/focal@{OTHER_COMMIT}",))

hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}", fullmatch=True)
revisions = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}[a-z0-9]", fullmatch=True).filter(lambda text: ".." not in text)
# A path's white space at its end isn't part of a reference, and a part that is '.' isn't part of a path.
parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda text: text == text.strip() and text not in (".", "..")
)
files = st.builds(lambda words: "file:///" + "/".join(words).replace("%", "%25").replace("@", "%40"), st.lists(parts, min_size=1))
inside = st.builds(lambda name: f"file:///project/{name}", names)
remote = st.builds(lambda scheme, owner, name: f"{scheme}://{owner}/{name}", st.sampled_from(["hf", "ms"]), names, names)
pinned = st.builds(lambda place, revision: f"{place}@{revision}", st.one_of(remote, inside), revisions)
references = st.one_of(remote, inside, files, pinned)
words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=3)
components = st.builds(LockedComponent, references, revisions, hexes, words.map(tuple), st.lists(pinned, max_size=2).map(tuple))
repositories = st.builds(
    LockedRepository,
    references,
    revisions,
    st.none() | hexes,
    st.none() | words.map(tuple),
    st.none() | words.map(tuple),
)


@st.composite
def locks(draw: st.DrawFn) -> LockFile:
    lock = LockFile(Path("/project/twinkle.lock"))
    for entry in draw(st.lists(components, max_size=3)):
        lock = lock.with_component(entry)
    for repo_type in ("model", "dataset"):
        for entry in draw(st.lists(repositories, max_size=3)):
            lock = lock.with_repository(entry, repo_type)
    return lock


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("locks")


@given(lock=locks())
def test_what_is_written_is_what_is_read(folder, lock):
    lock = replace(lock, file=folder / "twinkle.lock")
    lock.save()
    assert LockFile.read(lock.file) == lock


@given(lock=locks())
def test_what_is_read_is_written_as_the_same_bytes(folder, lock):
    file = folder / "moved.lock"
    file.write_bytes(lock.as_toml().encode())
    assert LockFile.read(file).as_toml() == lock.as_toml()


@given(
    lock=locks(),
    entries=st.permutations(range(4)),
    rows=st.lists(components, min_size=4, max_size=4, unique_by=lambda row: row.reference),
)
def test_the_order_of_adding_doesnt_show(lock, entries, rows):
    one = other = lock
    for number in range(4):
        one = one.with_component(rows[number])
        other = other.with_component(rows[entries[number]])
    assert {row.reference for row in one.components} == {row.reference for row in other.components}
    assert len({row.reference for row in one.components}) == len(one.components)
    if len({one.component(row.reference).digest for row in rows}) == 4:
        assert one.as_toml() == other.as_toml()


@given(lock=locks())
def test_every_entry_is_found_by_its_reference_and_by_its_digest(lock):
    for entry in lock.components:
        assert lock.component(entry.reference) == entry
        assert lock.by_digest(entry.digest).digest == entry.digest
    for entry in lock.models:
        assert lock.repository(entry.reference, "model") == entry
    for entry in lock.datasets:
        assert lock.repository(entry.reference, "dataset") == entry


def test_the_file_is_for_people_to_review(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL)
    lock = lock.with_repository(LockedRepository("acme/m", COMMIT, None, ("*.json",)), "model")
    lock.save()
    assert (
        (tmp_path / "twinkle.lock").read_text()
        == f"""\
# What each reference of this project stands for. Made by `twinkle hub add` and `twinkle hub lock --update`; commit it.
schema = 1

[[component]]
reference = "hf://acme/focal@v1"
commit = "{COMMIT}"
digest = "sha256:{DIGEST}"
kinds = ["loss"]
mirrors = ["ms://acme/focal@{OTHER_COMMIT}"]

[[model]]
reference = "hf://acme/m"
commit = "{COMMIT}"
allow = ["*.json"]
"""
    )


def test_folders_of_the_project_move_with_it(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    entry = LockedComponent(f"file://{here}/parts/focal", DIGEST, DIGEST)
    lock = LockFile(here / "twinkle.lock").with_component(entry)
    assert 'reference = "file://./parts/focal"' in lock.as_toml()
    (there / "twinkle.lock").write_text(lock.as_toml())
    assert LockFile.read(there / "twinkle.lock").components[0].reference == f"file://{there}/parts/focal"


def test_folders_elsewhere_keep_their_place(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(LockedComponent("file:///elsewhere/focal", DIGEST, DIGEST))
    assert 'reference = "file:///elsewhere/focal"' in lock.as_toml()


def test_a_commit_that_is_locked_may_be_asked_for_by_itself(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL)
    assert lock.component(f"hf://acme/focal@{COMMIT}") == FOCAL
    assert lock.component("hf://acme/focal") is None
    assert lock.component("hf://acme/focal@v2") is None
    assert lock.component("hf://other/focal@v1") is None


def test_a_mirror_stands_for_the_same_bytes_at_its_own_commit(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL)
    found = lock.component("ms://acme/focal@v1")
    assert (found.digest, found.commit, found.reference) == (DIGEST, OTHER_COMMIT, "ms://acme/focal@v1")
    assert lock.component("ms://acme/focal") is None
    assert FOCAL.sources == (f"hf://acme/focal@{COMMIT}", f"ms://acme/focal@{OTHER_COMMIT}")


def test_an_entry_of_its_own_comes_before_a_mirror(tmp_path):
    own = LockedComponent("ms://acme/focal@v1", COMMIT, OTHER_DIGEST)
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL).with_component(own)
    assert lock.component("ms://acme/focal@v1") == own


def test_a_model_is_no_data_set(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_repository(LockedRepository("hf://acme/m", COMMIT), "model")
    assert lock.repository("acme/m", "model").commit == COMMIT
    assert lock.repository(f"hf://acme/m@{COMMIT}", "model").commit == COMMIT
    assert lock.repository("acme/m", "dataset") is None
    assert lock.component("hf://acme/m") is None


def test_what_is_taken_out_is_gone(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL)
    assert lock.without(FOCAL.reference) == LockFile(tmp_path / "twinkle.lock")


def test_without_a_project_it_stands_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_lock(Project()).file == tmp_path / "twinkle.lock"
    assert find_lock(Project(), tmp_path / "x").file == tmp_path / "x" / "twinkle.lock"


def test_with_a_project_it_stands_beside_its_file(tmp_path):
    lock = find_lock(Project(tmp_path / "p" / "twinkle.toml"), tmp_path)
    assert lock == LockFile(tmp_path / "p" / "twinkle.lock")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("schema = 2\n", 1, "schema: has to be 1"),
        ("x = 1\nschema = 1\n", 1, "x: unknown key"),
        ("schema = 1\n[[component]]\nreference = 3\n", 3, "has to be a reference in quotes"),
        (f'schema = 1\n[[component]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\n', 2, "digest: is missing"),
        (
            f'schema = 1\n[[component]]\nreference = "hf://a/b"\ncommit = "../x"\ndigest = "sha256:{DIGEST}"\n',
            4,
            "can't be the name",
        ),
        (
            f'schema = 1\n[[component]]\nreference = "hf://a/../b"\ncommit = "{COMMIT}"\ndigest = "sha256:{DIGEST}"\n',
            3,
            "isn't of the form",
        ),
        (f'schema = 1\n[[model]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\ndigest = "md5:1"\n', 5, "64 hex digits"),
        (f'schema = 1\n[[model]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\ntoken = "x"\n', 5, "token: unknown key"),
        (f'schema = 1\n[[model]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\nallow = "*"\n', 5, "has to be a list"),
        ('schema = 1\n[component]\nreference = "hf://a/b"\n', 2, "array of tables"),
        (2 * f'[[model]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\n' + "[x]", 4, "x: unknown key"),
        ("<<<<<<< HEAD\n", 1, "isn't valid TOML"),
    ],
)
def test_what_isnt_valid_is_named_with_file_and_line(tmp_path, text, line, says):
    file = tmp_path / "twinkle.lock"
    file.write_text(text)
    with pytest.raises(LockError) as raised:
        LockFile.read(file)
    assert says in str(raised.value)
    assert str(raised.value).startswith(f"{file}:{line}:") or "x: unknown" in says
    assert "twinkle hub add" in str(raised.value)


def test_a_reference_that_is_there_twice_is_an_error(tmp_path):
    row = f'[[model]]\nreference = "hf://a/b"\ncommit = "{COMMIT}"\n'
    (tmp_path / "twinkle.lock").write_text("schema = 1\n" + row + row)
    with pytest.raises(LockError, match=r"twinkle.lock:5: model.1: hf://a/b is there twice"):
        LockFile.read(tmp_path / "twinkle.lock")


def test_a_mirror_without_a_commit_is_an_error(tmp_path):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(replace(FOCAL, mirrors=("ms://acme/focal",)))
    (tmp_path / "twinkle.lock").write_text(lock.as_toml())
    with pytest.raises(LockError, match="isn't pinned to a commit"):
        LockFile.read(tmp_path / "twinkle.lock")


def test_a_failed_write_leaves_the_file_and_the_folder_as_they_were(tmp_path, monkeypatch):
    lock = LockFile(tmp_path / "twinkle.lock").with_component(FOCAL)
    lock.save()
    before = lock.file.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(LockError, match="No space left"):
            lock.without(FOCAL.reference).save()
    assert [path.name for path in tmp_path.iterdir()] == ["twinkle.lock"]
    assert lock.file.read_bytes() == before


def test_a_lock_that_doesnt_change_isnt_written(tmp_path):
    lock = update_lock(tmp_path / "twinkle.lock", lambda lock: lock.with_component(FOCAL), home=tmp_path / "home")
    before = lock.file.stat()
    update_lock(lock.file, lambda lock: lock.with_component(FOCAL), home=tmp_path / "home")
    after = lock.file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_eight_processes_that_add_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from twinkle_registry.lock import *\n"
        "for step in range(5):\n"
        "    row = LockedComponent(f'hf://acme/part-{sys.argv[1]}-{step}', 'a' * 40, 'b' * 64)\n"
        "    update_lock(Path('twinkle.lock'), lambda lock: lock.with_component(row), home=Path('home'))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(number)], cwd=tmp_path) for number in range(8)]
    assert [process.wait(60) for process in running] == [0] * 8
    found = {entry.reference for entry in LockFile.read(tmp_path / "twinkle.lock").components}
    assert found == {f"hf://acme/part-{number}-{step}" for number in range(8) for step in range(5)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "twinkle.lock"]
