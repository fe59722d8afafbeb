"""The store of components: whole or not at all, read-only, within limits, and it remembers where things came from."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_registry.errors import PluginLoadError
from twinkle_registry.limits import Limits
from twinkle_registry.store import ComponentStore, Source

FILES = {"twinkle.toml": "schema = 1\n", "parts/loss.py": "x = 1\n", "data/words.txt": "a\n"}


@pytest.fixture
def store(home: Path) -> ComponentStore:
    return ComponentStore(home)


def stored_names(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "components" / "sha256").iterdir())


def test_what_is_read_is_what_was_added(store: ComponentStore, write):
    folder = write("repository", **FILES)
    read = store.read(store.add(folder))
    assert read.digest == digest_of_bytes({path: text.encode() for path, text in FILES.items()})
    assert read.sources == {path: FILES[path].encode() for path in ("twinkle.toml", "parts/loss.py")}
    assert read.sizes == {path: len(text) for path, text in FILES.items()}


def test_files_and_folders_in_the_store_are_read_only(store: ComponentStore, write):
    folder = store.read(store.add(write("repository", **FILES))).folder
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*")) if path.is_dir()}
    assert modes == {0o555}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o444}


def test_adding_the_same_again_changes_nothing(store: ComponentStore, write, home: Path):
    folder = write("repository", **FILES)
    assert store.add(folder) == store.add(folder)
    assert len(stored_names(home)) == 1


def test_a_hard_link_to_a_file_elsewhere_becomes_a_copy(store: ComponentStore, write, tmp_path: Path):
    folder = write("repository", **FILES)
    secret = tmp_path / "elsewhere"
    secret.write_text("before")
    (folder / "linked.txt").hardlink_to(secret)
    stored = store.read(store.add(folder)).folder / "linked.txt"
    secret.write_text("after")
    assert (stored.read_text(), stored.stat().st_nlink) == ("before", 1)


@pytest.mark.parametrize("what", ["symlink", "broken symlink", "folder symlink", "pipe", "socket", "device"])
def test_what_is_no_file_is_refused_and_nothing_is_stored(store: ComponentStore, write, home: Path, what: str):
    folder = write("repository", **FILES)
    odd = folder / "odd"
    with socket.socket(socket.AF_UNIX) as opened:
        if what == "pipe":
            os.mkfifo(odd)
        elif what == "socket":
            here = os.open(folder, os.O_RDONLY)  # a socket's path may only be short
            opened.bind(f"/proc/self/fd/{here}/odd")
            os.close(here)
        elif what == "device":
            try:
                os.mknod(odd, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            except PermissionError:
                pytest.skip("making a device takes root")
        else:
            odd.symlink_to(
                {"symlink": folder / "twinkle.toml", "broken symlink": "nowhere", "folder symlink": folder / "parts"}[what]
            )
        with pytest.raises(PluginLoadError, match=r"odd is a symlink or a special file.*replace it by a copy"):
            store.add(folder)
    assert stored_names(home) == []


def test_a_file_that_became_a_link_after_it_was_listed_is_refused(store: ComponentStore, write, home: Path, monkeypatch):
    from twinkle_registry import store as module

    folder = write("repository", **FILES)

    def swap(*arguments: object) -> None:
        (folder / "data" / "words.txt").unlink()
        os.mkfifo(folder / "data" / "words.txt")

    monkeypatch.setattr(module, "check_files", swap)
    with pytest.raises(PluginLoadError, match="symlink or a special file"):
        store.add(folder)
    assert stored_names(home) == []


@pytest.mark.parametrize(
    ("limits", "variable"),
    [
        (Limits(files=2), "TWINKLE_MAX_COMPONENT_FILES"),
        (Limits(file_bytes=8), "TWINKLE_MAX_COMPONENT_FILE_BYTES"),
        (Limits(total_bytes=12), "TWINKLE_MAX_COMPONENT_BYTES"),
        (Limits(depth=1), "TWINKLE_MAX_COMPONENT_DEPTH"),
    ],
)
def test_what_is_beyond_a_limit_is_not_stored(home: Path, write, limits: Limits, variable: str):
    with pytest.raises(PluginLoadError, match=variable):
        ComponentStore(home, limits).add(write("repository", **FILES))
    assert stored_names(home) == []


def test_limits_come_from_the_environment(store: ComponentStore, write, monkeypatch):
    monkeypatch.setenv("TWINKLE_MAX_COMPONENT_FILES", "2")
    with pytest.raises(PluginLoadError, match="TWINKLE_MAX_COMPONENT_FILES"):
        store.add(write("repository", **FILES))


def test_names_that_differ_only_in_case_are_refused(store: ComponentStore, write):
    with pytest.raises(PluginLoadError, match="the same name on some systems"):
        store.add(write("repository", **{"loss.py": "", "Loss.py": ""}))


def test_a_name_that_is_not_utf8_is_refused(store: ComponentStore, write):
    folder = write("repository", **FILES)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).write_text("")
    with pytest.raises(PluginLoadError, match=r"isn't UTF-8"):
        store.add(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's are for one only."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_whoever_is_not_root_can_not_write_into_the_store_but_the_store_mends_itself(open_folder: Path):
    folder, home = open_folder / "repository", open_folder / "home"
    folder.mkdir()
    home.mkdir()
    (folder / "loss.py").write_text("x = 1\n")
    os.chown(home, 65534, 65534)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            store = ComponentStore(home)
            digest = store.add(folder)
            file = store.read(digest).folder / "loss.py"
            refused = 0
            for attempt in (lambda: file.write_text("x"), file.unlink, lambda: file.with_name("new.py").write_text("x")):
                try:
                    attempt()
                except PermissionError:
                    refused += 1
            file.chmod(0o644)
            file.write_text("y = 2\n")
            try:
                store.read(digest)
            except PluginLoadError:
                status = 0 if refused == 3 and digest not in store and store.add(folder) == digest else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_files_came_from_is_remembered_even_when_they_are_gone(store: ComponentStore, write, home: Path):
    digest = store.add(write("repository", **FILES))
    store.record_source(digest, "ms://acme/focal", "b" * 40)
    store.record_source(digest, "hf://acme/focal", "a" * 40)
    store.record_source(digest, "hf://acme/focal", "a" * 40)
    store.record_source("0" * 64, "hf://acme/other", "a" * 40)
    (home / "components" / "sha256" / digest / "parts" / "loss.py").chmod(0o644)
    (home / "components" / "sha256" / digest / "parts" / "loss.py").write_text("damaged")
    with pytest.raises(PluginLoadError, match="changed or damaged"):
        store.read(digest)
    assert store.sources(digest) == [Source("hf://acme/focal", "a" * 40), Source("ms://acme/focal", "b" * 40)]


def test_a_commit_that_was_fetched_is_found_while_its_files_are_there(store: ComponentStore, write):
    digest = store.add(write("repository", **FILES))
    store.record_source(digest, "hf://acme/focal", "a" * 40)
    store.record_source("0" * 64, "hf://acme/gone", "a" * 40)
    assert store.digest_at("hf://acme/focal", "a" * 40) == digest
    assert store.digest_at("hf://acme/focal", "b" * 40) is None
    assert store.digest_at("hf://acme/gone", "a" * 40) is None


@pytest.mark.parametrize("content", ["", "[]", '{"digest": 1}', '{"digest": "x", "repository": "y", "commit": 3}', "\xff"])
def test_a_record_that_can_not_be_read_is_passed_over(store: ComponentStore, home: Path, content: str):
    store.record_source("0" * 64, "hf://acme/focal", "a" * 40)
    (record,) = (home / "components" / "sources").iterdir()
    record.write_text(content, encoding="latin-1")
    assert store.sources("0" * 64) == []
    assert store.digest_at("hf://acme/focal", "a" * 40) is None
