"""``twinkle hub gc``: what it removes, what it keeps, and what it says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from twinkle.cli.app import run
from twinkle.component import default_registry
from twinkle_registry.lock import LockedComponent, LockFile
from twinkle_registry.store import ComponentStore
from twinkle_registry.trust_store import TrustStore


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "twinkle.toml").write_text("schema = 1\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    default_registry.cache_clear()
    yield tmp_path / "home"
    default_registry.cache_clear()


def add(home: Path, name: str, days: float = 40) -> str:
    """The digest of a component that was last used so many days ago."""
    folder = home.parent / name
    folder.mkdir()
    (folder / "__init__.py").write_text(f"name = {name!r}\n")
    digest = ComponentStore(home).add(folder)
    then = time.time() - days * 86400
    os.utime(home / "components" / "sha256" / digest, (then, then))
    return digest


def removed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        run(["hub", "gc", "--json", *arguments])
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)["removed"]


def test_what_was_not_used_for_a_month_is_removed(home: Path, capsys):
    old = add(home, "old")
    add(home, "young", days=20)
    assert removed(capsys) == [old]
    assert old not in ComponentStore(home)


def test_days_can_be_given(home: Path, capsys):
    digest = add(home, "young", days=20)
    assert removed(capsys, "--older-than", "10") == [digest]


def test_what_the_lock_pins_stays_unless_it_is_asked_for(home: Path, capsys):
    digest = add(home, "pinned")
    pin = LockedComponent(reference="hf://acme/focal", commit="a" * 40, digest=digest)
    LockFile.read(Path("twinkle.lock")).with_component(pin).save()
    assert removed(capsys) == []
    assert removed(capsys, "--no-keep-locked") == [digest]


def test_what_was_allowed_by_digest_stays(home: Path, capsys):
    digest = add(home, "allowed")
    TrustStore(home).allow_digest(digest, "hf://acme/focal")
    assert removed(capsys) == []


def test_what_a_run_used_stays(home: Path, capsys, tmp_path: Path):
    one, other = add(home, "one"), add(home, "other")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "twinkle_run.json").write_text(json.dumps({"components": [{"digest": f"sha256:{one}"}]}))
    assert removed(capsys, "--keep", str(checkpoint), "--keep", f"sha256:{other}") == []


@pytest.mark.parametrize("what", ["nowhere", "."])
def test_what_is_to_be_kept_and_can_not_be_read_is_an_error_and_nothing_is_removed(home: Path, capsys, what: str):
    digest = add(home, "old")
    with pytest.raises(SystemExit) as ended:
        run(["hub", "gc", "--keep", what])
    assert ended.value.code == 1
    assert f"--keep {what}" in capsys.readouterr().err
    assert digest in ComponentStore(home)


def test_a_dry_run_says_what_would_go_and_what_stays(home: Path, capsys):
    old, young = add(home, "old"), add(home, "young", days=1)
    with pytest.raises(SystemExit):
        run(["hub", "gc", "--dry-run"])
    shown = capsys.readouterr().out
    assert f"would remove sha256:{old}" in shown
    assert f"kept sha256:{young} (used lately)" in shown
    assert old in ComponentStore(home)
