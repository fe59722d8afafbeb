"""Garbage collection of the store: what nothing needs goes, whole; what is needed or in use never does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twinkle_registry.collection import GRACE_S, collect
from twinkle_registry.store import ComponentStore


@pytest.fixture
def store(home: Path) -> ComponentStore:
    return ComponentStore(home)


@pytest.fixture
def add(store: ComponentStore, write, home: Path):
    """Adds a component that was last used some days ago; returns its digest."""

    def make(name: str, days: float = 1) -> str:
        digest = store.add(write(name, **{"loss.py": f"name = {name!r}\n", "data/x.txt": "x"}))
        then = time.time() - days * 86400
        os.utime(home / "components" / "sha256" / digest, (then, then))
        return digest

    return make


def names(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "components" / "sha256").iterdir())


def test_only_what_is_old_and_not_needed_is_removed(add, home: Path):
    old, needed, young = add("old", 9), add("needed", 9), add("young", 1)
    collected = collect(home, {needed}, older_than_s=5 * 86400)
    assert collected.removed == (old,)
    assert {kept.digest: kept.why for kept in collected.kept} == {needed: "needed", young: "used lately"}
    assert collected.bytes == len("name = 'old'\n") + 1
    assert names(home) == sorted([needed, young])


def test_a_dry_run_says_the_same_and_removes_nothing(add, home: Path):
    digest = add("old")
    told = collect(home, (), older_than_s=0, dry_run=True)
    assert names(home) == [digest]
    assert collect(home, (), older_than_s=0) == told
    assert names(home) == []


def test_what_this_process_uses_stays_until_it_uses_it_no_longer(store: ComponentStore, add, home: Path):
    digest = add("used")
    repository = store.read(digest)
    then = time.time() - 86400
    os.utime(repository.folder, (then, then))
    assert [kept.why for kept in collect(home, (), older_than_s=0).kept] == ["in use"]
    assert (repository.folder / "loss.py").exists()
    del repository
    assert collect(home, (), older_than_s=0).removed == (digest,)


def test_what_another_process_uses_stays_until_it_ends_however_it_ends(add, home: Path):
    digest = add("used")
    code = (
        "import sys, time; from pathlib import Path; from twinkle_registry.store import ComponentStore;"
        "kept = ComponentStore(Path(sys.argv[1])).read(sys.argv[2]); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(home), digest], stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline().strip() == "ready"
        then = time.time() - 86400
        os.utime(home / "components" / "sha256" / digest, (then, then))
        assert collect(home, (), older_than_s=0).removed == ()
        user.kill()
    assert collect(home, (), older_than_s=0).removed == (digest,)


def test_reading_counts_as_use(store: ComponentStore, add, home: Path):
    digest = add("read", days=9)
    store.read(digest)
    assert [kept.why for kept in collect(home, (), older_than_s=86400).kept] == ["used lately"]


def test_what_was_just_added_stays_whatever_is_asked(store: ComponentStore, write, home: Path):
    digest = store.add(write("new", **{"loss.py": ""}))
    assert collect(home, (), older_than_s=0).kept == ((digest, "used lately"),)


def test_what_a_killed_process_left_is_removed_but_not_what_one_still_writes(store: ComponentStore, add, home: Path):
    from twinkle_registry.folder_use import FolderUse

    add("other", 1)
    folder = home / "components" / "sha256"
    old = time.time() - 2 * GRACE_S
    for name in (".abandoned", ".writing", ".young"):
        (folder / name / "inside").mkdir(parents=True)
        (folder / name / "inside" / "half").write_text("x")
    for name in (".abandoned", ".writing"):
        os.utime(folder / name, (old, old))
    with FolderUse(folder / ".writing"):
        assert collect(home, (), older_than_s=30 * 86400).leftovers == 1
    assert [name for name in names(home) if name.startswith(".")] == [".writing", ".young"]


def test_what_is_not_the_stores_is_not_touched(add, home: Path, tmp_path: Path):
    add("other")
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = home / "components" / "sha256"
    (folder / "somebodys").mkdir()
    (folder / ("a" * 64)).symlink_to(outside)
    collect(home, (), older_than_s=0)
    assert names(home) == ["a" * 64, "somebodys"]
    assert outside.is_dir()


def test_records_of_sources_stay(store: ComponentStore, add, home: Path):
    digest = add("old")
    store.record_source(digest, "hf://acme/focal", "a" * 40)
    collect(home, (), older_than_s=0)
    assert [source.repository for source in store.sources(digest)] == ["hf://acme/focal"]


def test_a_store_that_is_not_there_is_empty(tmp_path: Path):
    collected = collect(tmp_path / "nowhere", (), older_than_s=0)
    assert collected.as_dict() == {"removed": (), "kept": [], "leftovers": 0, "bytes": 0}
